"""The pictures of a study as PNG and SVG files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnn_ablation.config import StatsConfig
from cnn_ablation.report import figures
from cnn_ablation.report.files import write_files
from cnn_ablation.study.metric import Metric, chosen_by, metric_of

_DPI = 150
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
    runs: pd.DataFrame, arms: pd.DataFrame, curves: pd.DataFrame, settings: StatsConfig
) -> dict[str, bytes]:
    """Name and content of every file of `write_pictures`."""
    contents = dict[str, bytes]()
    for name, (draw, inches) in _drawings(runs, arms, curves, settings).items():
        figure = Figure(figsize=(8, inches), layout="constrained")
        draw(figure.add_subplot())
        contents |= in_both_formats(figure, name)
    return contents


def confusion_files(matrices: dict[str, npt.NDArray[np.float64]], class_names: Sequence[str]) -> dict[str, bytes]:
    """confusion.png and .svg, one panel for each part of the data; nothing where there is none, or no room."""
    if not matrices or len(class_names) > _MOST_CLASSES:
        return {}
    inches = 2 + 0.4 * len(class_names)
    figure = Figure(figsize=(inches * len(matrices), inches), layout="constrained")
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for ax, (part, matrix) in zip(axes, matrices.items(), strict=True):
        figures.plot_confusion(matrix, class_names, ax)
        ax.set_title({"val": "validation images", "test": "test images"}[part])
    return in_both_formats(figure, "confusion")


def in_both_formats(figure: Figure, name: str) -> dict[str, bytes]:
    """A picture as PNG and SVG, arranged once for both."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return {f"{name}.{suffix}": rendered(figure, suffix) for suffix in ("png", "svg")}


_Drawings = dict[str, tuple[Callable[[Axes], Axes], float]]
"""File name -> what draws it, and its height in inches."""


def _drawings(runs: pd.DataFrame, arms: pd.DataFrame, curves: pd.DataFrame, settings: StatsConfig) -> _Drawings:
    drawings = _naming_arms(arms, curves, metric_of(settings)) if len(arms) <= _MOST_ARMS else {}
    for key, values in figures.numeric_levels(runs, arms).items():
        drawings[f"levels_{re.sub(_NO_FILE_NAME, '_', key)}"] = partial(figures.plot_levels, arms, values, key=key), 4.0
    return drawings


def _naming_arms(arms: pd.DataFrame, curves: pd.DataFrame, metric: Metric) -> _Drawings:
    """Pictures in which every arm stands by its name."""
    tested = arms[arms[metric.estimate[0]].notna()]
    drawings: _Drawings = {}
    timed = tested[tested["train_seconds_mean"].notna()]
    if len(timed):
        name = "accuracy_against_time" if metric.is_accuracy else "metric_against_time"
        drawings[name] = partial(figures.plot_metric_against_time, timed), max(_height(timed), 4.5)
    if len(tested) > 1 and tested[metric.delta[0]].notna().any():
        drawings["differences"] = partial(figures.plot_differences, tested), _height(tested)
    if column := _curve(curves, metric.column):
        drawings["learning_curves"] = partial(figures.plot_curves, curves, column=column), max(_height(arms), 4.5)
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


def rendered(figure: Figure, suffix: str) -> bytes:
    """The file's content; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "cnn_ablation"}):
        figure.savefig(buffer, format=suffix, dpi=_DPI, metadata={"Date": None} if suffix == "svg" else None)
    return buffer.getvalue()
