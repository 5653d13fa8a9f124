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
from cnn_ablation.report.figures.lettering import folded
from cnn_ablation.report.figures.marks import told_of_runs
from cnn_ablation.report.files import write_files
from cnn_ablation.runs.store.memory import Memory
from cnn_ablation.study.metric import Metric, chosen_by, metric_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_CLASSES = 30
_MOST_ARMS = 100  # that a picture names; of more no name could be read
_BESIDE = 7.0
"""Inches from which two matrices stand side by side, of few classes."""
_MOST_CLASSES_BESIDE = 12
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
    matrices: dict[str, npt.NDArray[np.float64]],
    class_names: Sequence[str],
    memory: Memory | None = None,
    *,
    arm: str = "",
) -> dict[str, bytes]:
    """confusion.png and .svg, one panel for each part of the data; nothing where there is none, or no room."""
    drawing = confusion_drawing(matrices, class_names, arm=arm)
    return picture(drawing, "confusion", memory) if drawing else {}


def confusion_drawing(
    matrices: dict[str, npt.NDArray[np.float64]], class_names: Sequence[str], *, arm: str = "", width: float = 8.0
) -> Drawing | None:
    """The confusion matrices of an arm, not yet drawn; None where there is none, or no room for its classes.

    Args:
        matrices: mean images (K, K) by part of the data, "val" and "test".
        class_names: K names.
        arm: whose they are, for the title.
        width: of the picture in inches.
    """
    if not matrices or len(class_names) > _MOST_CLASSES:
        return None
    beside = width >= _BESIDE and len(class_names) <= _MOST_CLASSES_BESIDE
    columns = len(matrices) if beside else 1
    names, own = [str(name) for name in class_names], width / columns
    side = figures.confusion_side(names, own)
    title = f"{folded(f'{arm}:', 72 * side)}\n" if arm else ""
    inches = figures.confusion_height(names, own, title) * (len(matrices) // columns)
    how: dict[str, Any] = {"title": title, "columns": columns, "width": own}
    draw = partial(_draw_confusions, matrices, class_names, **how)
    words = f"Confusion matrix{f' of {arm}' if arm else ''}: share of each true class by predicted class"
    return Drawing(draw, (width, inches), (matrices, class_names, arm), words)


def _draw_confusions(
    matrices: dict[str, npt.NDArray[np.float64]],
    class_names: Sequence[str],
    figure: Figure,
    *,
    title: str,
    columns: int,
    width: float,
) -> None:
    axes = figure.subplots(len(matrices) // columns, columns, squeeze=False).flat
    for ax, (part, matrix) in zip(axes, matrices.items(), strict=True):
        words = title + {"val": "validation images", "test": "test images"}[part]
        figures.plot_confusion(matrix, class_names, ax, title=words, width=width)


_Drawings = dict[str, Drawing]
"""By file name."""


def drawings(
    runs: pd.DataFrame, arms: pd.DataFrame, curves: pd.DataFrame, settings: StatsConfig, *, width: float = 8.0
) -> _Drawings:
    """Every picture of a study by its file name, not yet drawn; `width` in inches, heights follow."""
    seeds = _single_runs(runs, settings.metric)
    found = _naming_arms(arms, seeds, curves, metric_of(settings), width) if len(arms) <= _MOST_ARMS else {}
    scored = set(arms["arm"][arms[metric_of(settings).estimate[0]].notna()])
    for key, values in figures.numeric_levels(runs, arms).items():
        if len(scored & set(values.index)) < 2:  # a greedy study shows no test score of what it dropped
            continue
        inches = figures.levels_height(arms, values, key, seeds, width)
        found[f"levels_{re.sub(_NO_FILE_NAME, '_', key)}"] = drawn_on_axes(
            figures.plot_levels, arms, values, inches=inches, width=width, key=key, runs=seeds,
            title=f"{metric_of(settings).words} over the values of {key}",
        )  # fmt: skip
    return found


def _single_runs(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """What pictures show of single runs: another start or another machine's name draws none anew."""
    names = [name for name in dict.fromkeys(("arm", "seed", "status", metric, "train_seconds")) if name in runs]
    return pd.DataFrame(runs[names])


def drawn_on_axes(
    plot: Callable[..., Axes], *shown: Any, inches: float, width: float = 8.0, title: str = "", **how: Any
) -> Drawing:
    """What a function of `figures` draws on one `ax`, in a picture of some width and height."""

    def draw(figure: Figure) -> None:
        plot(*shown, ax=figure.add_subplot(), width=width, **how)

    return Drawing(draw, (width, inches), (*shown, how), title)


def _naming_arms(
    arms: pd.DataFrame, runs: pd.DataFrame, curves: pd.DataFrame, metric: Metric, width: float
) -> _Drawings:
    """Pictures in which every arm stands by its name; those that validation dropped are counted."""
    mean, delta = arms[metric.estimate[0]], arms[metric.delta[0]]
    drawings: _Drawings = {}
    of_arms = partial(drawn_on_axes, width=width, runs=runs)
    if (mean.notna() & arms["train_seconds_mean"].notna()).any():
        name = "accuracy_against_time" if metric.is_accuracy else "metric_against_time"
        inches = figures.times_height(arms, runs, width)
        title = f"{metric.words} of every arm against its training time"
        drawings[name] = of_arms(figures.plot_metric_against_time, arms, inches=inches, title=title)
    if delta.notna().any():
        inches = figures.differences_height(arms, runs, width)
        title = f"Difference in {metric.words} of every arm from the one it is compared with, with its interval"
        drawings["differences"] = of_arms(figures.plot_differences, arms, inches=inches, title=title)
    if column := curve_column(curves, metric.column):
        drawings["learning_curves"] = _learning_curves(arms, curves, column, width)
    return drawings


def _learning_curves(arms: pd.DataFrame, curves: pd.DataFrame, column: str, width: float) -> Drawing:
    known = set(curves.loc[curves[column].notna(), "arm"])
    told = zip(arms["arm"], told_of_runs(arms), strict=True)
    without = [f"{arm} ({remark or 'no curve'})" for arm, remark in told if arm not in known]
    inches = figures.curves_height(curves, column, without, width)
    title = f"Learning curves: {column} by epoch, mean over seeds"
    shown = curves[[name for name in ("arm", "seed", "epoch", column) if name in curves]]
    return drawn_on_axes(
        figures.plot_curves, shown, inches=inches, width=width, title=title, column=column, without=without
    )


def left_out(arms: pd.DataFrame) -> str:
    """Why a study has not all of its pictures, in a sentence; empty where it has them."""
    if len(arms) <= _MOST_ARMS:
        return ""
    return f"pictures that name every arm are left out: at most {_MOST_ARMS} names can be read, here are {len(arms)}"


def curve_column(curves: pd.DataFrame, metric: str) -> str:
    """The column of learning curves that is drawn: what validation says of the metric, as far as it was reported."""
    others = [str(name) for name in curves.columns if name not in _NO_CURVES]
    wanted = (chosen_by(metric, curves.columns), metric, "val_accuracy", *others)
    return next((name for name in wanted if name in others and curves[name].notna().any()), "")


_NO_CURVES = ("arm", "seed", "epoch", "train_seconds")
