"""The pictures of a study inside a page, each wide for screens and narrow for telephones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from cnn_ablation.common.errors import one_line
from cnn_ablation.common.progress import warn
from cnn_ablation.report.drawing import Drawing
from cnn_ablation.report.findings import Findings
from cnn_ablation.report.page.names import Names, capitalised, metric_title
from cnn_ablation.report.pictures import drawings
from cnn_ablation.report.variance import variance_drawing
from cnn_ablation.report.vector import inline

WIDE, NARROW = 7.2, 3.6
"""Inches: a column of text on a screen, and a telephone held upright."""
_NO_CURVES = pd.DataFrame()  # the page has its own, one for each arm
_OF_KNOBS = "levels_"  # small pictures, which stand beside each other
_FIRST = ("differences", "variance", "accuracy_against_time", "metric_against_time")


@dataclass(frozen=True)
class Plot:
    """A picture twice; SVG."""

    name: str
    title: str
    how_to_read: str
    wide: str
    """Empty where the narrow one serves all."""
    narrow: str


def plots(found: Findings, names: Names) -> Iterator[Plot]:
    """All that can be drawn; one that cannot is told of and costs nothing else."""
    try:
        wide, narrow = (_drawings(found, width) for width in (WIDE, NARROW))
    except Exception as error:
        warn(f"report.html has no pictures ({one_line(error)})")
        return
    for name in sorted(wide, key=_place):
        try:
            of_knob = name.startswith(_OF_KNOBS)
            first = "" if of_knob else inline(wide[name], f"{name}-wide", found.memory)
            second = inline(narrow[name], f"{name}-narrow", found.memory)
        except Exception as error:  # whatever matplotlib makes of names and values that nobody foresaw
            warn(f"report.html lacks the picture {name} ({one_line(error)})")
            continue
        yield Plot(name, *_words(name, found, names), first, second)


def _drawings(found: Findings, width: float) -> dict[str, Drawing]:
    made = drawings(found.runs, found.arms, _NO_CURVES, found.settings, width=width)
    if len(found.variance):
        made["variance"] = variance_drawing(found.variance, found.metric, width=width)
    return made


def _place(name: str) -> tuple[int, str]:
    """Differences first, levels of knobs last."""
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST)), name


def _words(name: str, found: Findings, names: Names) -> tuple[str, str]:
    """Title, and how to read it."""
    if name == "differences":
        band = "" if found.metric.margin is None else " The band is where differences do not matter."
        return (
            "Differences",
            f"How far each arm is from the one that it is compared with, and the interval of that.{band}",
        )
    if name == "variance":
        return "Variance by source", "The standard deviation over seeds where one source of chance varies alone."
    if name.endswith("_against_time"):
        return f"{metric_title(found.metric)} against time", "What an arm gains, and what it costs in training time."
    return capitalised(names.knob(name.removeprefix(_OF_KNOBS))), ""
