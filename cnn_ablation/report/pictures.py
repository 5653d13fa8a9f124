"""The pictures of a study as PNG and SVG files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation.config import StatsConfig
from cnn_ablation.report import figures
from cnn_ablation.report.drawing import Drawing, picture
from cnn_ablation.report.files import write_files
from cnn_ablation.runs.store.memory import Memory
from cnn_ablation.study.metric import Metric, chosen_by, metric_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_CLASSES = 30
_MOST_ARMS = 100  # that a picture names; of more no name could be read
_NO_FILE_NAME = r"[^\w.=+-]"  # a key from a table of runs may be any text


def write_pictures(
    folder: Path, runs: pd.DataFrame, arms: pd.DataFrame, curves: pd.DataFrame, settings: StatsConfig
) -> list[Path]:
    """Writes differences (a forest plot), accuracy_against_time (metric_against_time where the metric is none),
    learning_curves, and levels_KEY per numeric knob.

    Args:
        folder: where to write.
        runs: from `load_runs`.
        arms: from `ablation_table`.
        curves: from `load_curves`; empty for a table of runs alone, which has none.
        settings: with the metric.

    Returns:
        The files written.

    Raises:
        RecordError: one of them cannot be written.
    """
    return write_files(folder, picture_files(runs, arms, curves, settings))


def picture_files(
    runs: pd.DataFrame,
    arms: pd.DataFrame,
    curves: pd.DataFrame,
    settings: StatsConfig,
    memory: Memory | None = None,
) -> dict[str, bytes]:
    """Name and content of every file of `write_pictures`; `memory` as `drawing.picture` takes it."""
    contents = dict[str, bytes]()
    for name, drawing in drawings(runs, arms, curves, settings).items():
        contents |= picture(drawing, name, memory)
    return contents


def confusion_files(
    matrices: dict[str, npt.NDArray[np.float64]], class_names: Sequence[str], memory: Memory | None = None
) -> dict[str, bytes]:
    """confusion.png and .svg, one panel for each part of the data; nothing where there is none, or no room."""
    if not matrices or len(class_names) > _MOST_CLASSES:
        return {}
    inches = 2 + 0.4 * len(class_names)
    draw = partial(_draw_confusions, matrices, class_names)
    return picture(Drawing(draw, (inches * len(matrices), inches), (matrices, class_names)), "confusion", memory)


def _draw_confusions(matrices: dict[str, npt.NDArray[np.float64]], class_names: Sequence[str], figure: Figure) -> None:
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for ax, (part, matrix) in zip(axes, matrices.items(), strict=True):
        figures.plot_confusion(matrix, class_names, ax)
        ax.set_title({"val": "validation images", "test": "test images"}[part])


_Drawings = dict[str, Drawing]
"""By file name."""


def drawings(
    runs: pd.DataFrame, arms: pd.DataFrame, curves: pd.DataFrame, settings: StatsConfig, *, width: float = 8.0
) -> _Drawings:
    """Every picture of a study by its file name, not yet drawn; `width` in inches."""
    found = _naming_arms(arms, curves, metric_of(settings)) if len(arms) <= _MOST_ARMS else {}
    for key, values in figures.numeric_levels(runs, arms).items():
        found[f"levels_{re.sub(_NO_FILE_NAME, '_', key)}"] = drawn_on_axes(
            figures.plot_levels, arms, values, inches=4.0, key=key
        )
    return found


def drawn_on_axes(plot: Callable[..., Axes], *shown: Any, inches: float, **how: Any) -> Drawing:
    """What a function of `figures` draws on one `ax`, in a picture of the usual width and some height."""

    def draw(figure: Figure) -> None:
        plot(*shown, ax=figure.add_subplot(), **how)

    return Drawing(draw, (8, inches), (*shown, how))


def _naming_arms(arms: pd.DataFrame, curves: pd.DataFrame, metric: Metric) -> _Drawings:
    """Pictures in which every arm stands by its name."""
    tested = arms[arms[metric.estimate[0]].notna()]
    drawings: _Drawings = {}
    timed = tested[tested["train_seconds_mean"].notna()]
    if len(timed):
        name = "accuracy_against_time" if metric.is_accuracy else "metric_against_time"
        drawings[name] = drawn_on_axes(figures.plot_metric_against_time, timed, inches=max(_height(timed), 4.5))
    if len(tested) > 1 and tested[metric.delta[0]].notna().any():
        drawings["differences"] = drawn_on_axes(figures.plot_differences, tested, inches=_height(tested))
    if column := _curve(curves, metric.column):
        inches = max(_height(arms), 4.5)
        drawings["learning_curves"] = drawn_on_axes(figures.plot_curves, curves, inches=inches, column=column)
    return drawings


def left_out(arms: pd.DataFrame) -> str:
    """Why a study has not all of its pictures, in a sentence; empty where it has them."""
    if len(arms) <= _MOST_ARMS:
        return ""
    return f"pictures that name every arm are left out: at most {_MOST_ARMS} names can be read, here are {len(arms)}"


def _curve(curves: pd.DataFrame, metric: str) -> str:
    """The column of learning curves that is drawn: what validation says of the metric, as far as it was reported."""
    others = [str(name) for name in curves.columns if name not in _NO_CURVES]
    wanted = (chosen_by(metric, curves.columns), metric, "val_accuracy", *others)
    return next((name for name in wanted if name in others and curves[name].notna().any()), "")


_NO_CURVES = ("arm", "seed", "epoch", "train_seconds")


def _height(arms: pd.DataFrame) -> float:
    """Inches for a picture that names all these arms one below the other."""
    return 1.5 + sum(0.2 + 0.17 * len(figures.folded(arm).splitlines()) for arm in arms["arm"])
