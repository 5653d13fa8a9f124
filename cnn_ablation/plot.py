"""Pictures of an ablation in a notebook: tables and axes in, axes out.

    cnn_ablation.plot.differences(arms, runs)       forest plot: every arm against the baseline
    cnn_ablation.plot.scores(arms, runs)            the metric of every arm
    cnn_ablation.plot.against_time(arms, runs)      the metric against training time
    cnn_ablation.plot.levels(arms, runs, "optimizer.lr")    the metric over the values of a knob
    cnn_ablation.plot.curves(curves)                learning curves
    cnn_ablation.plot.confusion(counts, class_names)        a confusion matrix

Without `ax` each makes a new figure through pyplot, as high as what it shows needs, and returns its axes. Names and
keys stand beside and below axes: a figure of your own wants `layout="constrained"`, which leaves them room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation.common.errors import ConfigError, Problem, RecordError
from cnn_ablation.config import nearest
from cnn_ablation.report import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["against_time", "confusion", "curves", "differences", "levels", "scores"]

_WIDTH = 8.0
"""Inches of a new figure."""


def differences(
    arms: pd.DataFrame, runs: pd.DataFrame | None = None, ax: Axes | None = None, *, margin_pp: float | None = None
) -> Axes:
    """Forest plot: each arm's difference from the baseline with its interval and, of `runs`, its single seeds.

    Args:
        arms: from `ablation_table`.
        runs: the table of runs that it was made from; None draws no single seeds.
        ax: drawn on; None for a new figure.
        margin_pp: half-width of the band inside which differences of accuracies do not matter; None for the one that
            the table was made with.

    Raises:
        RecordError: `arms` is no table of arms.
    """
    _check_arms(arms)
    ax = ax or _new(figures.differences_height(arms, runs, _WIDTH))
    return figures.plot_differences(arms, ax, runs=runs, margin_pp=margin_pp)


def scores(arms: pd.DataFrame, runs: pd.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """The metric of every arm with its interval and, of `runs`, its single seeds; arguments as in `differences`.

    Raises:
        RecordError: `arms` is no table of arms.
    """
    _check_arms(arms)
    ax = ax or _new(figures.scores_height(arms, runs, _WIDTH))
    return figures.plot_metric(arms, ax, runs=runs)


def against_time(arms: pd.DataFrame, runs: pd.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """The metric against the seconds of training, one numbered point per arm, their names below.

    With `runs` single seeds and intervals of times too; arguments as in `differences`.

    Raises:
        RecordError: `arms` is no table of arms.
    """
    _check_arms(arms)
    ax = ax or _new(figures.times_height(arms, runs, _WIDTH))
    return figures.plot_metric_against_time(arms, ax, runs=runs)


def levels(arms: pd.DataFrame, runs: pd.DataFrame, knob: str | None = None, ax: Axes | None = None) -> Axes:
    """The metric over the values of a knob whose levels are numbers.

    Args:
        arms: from `ablation_table`.
        runs: the table of runs that it was made from, with a column per knob.
        knob: its key; None where the study has one such knob.
        ax: drawn on; None for a new figure.

    Raises:
        ConfigError: the study has no such knob, or several and none is named.
        RecordError: `arms` is no table of arms.
    """
    _check_arms(arms)
    found = figures.numeric_levels(runs, arms)
    if knob is None and len(found) == 1:
        (knob,) = found
    if knob is None or knob not in found:
        allowed = f"a knob with levels that are numbers: {', '.join(found)}" if found else _NO_NUMBERS
        raise ConfigError([Problem("knob", knob, allowed, nearest(str(knob), list(found)))])
    ax = ax or _new(figures.levels_height(arms, found[knob], knob, runs, _WIDTH))
    return figures.plot_levels(arms, found[knob], ax, key=knob, runs=runs)


_NO_NUMBERS = "a knob with levels that are numbers, of which this study has none"


def curves(curves: pd.DataFrame, ax: Axes | None = None, *, column: str = "val_accuracy") -> Axes:
    """Learning curves: the mean over seeds of `column` by epoch with the range over seeds.

    Beyond eight arms each has a small picture of its own.

    Args:
        curves: from `load_curves`.
        ax: drawn on; None for a new figure.
        column: `train_loss`, `val_loss`, `val_accuracy` (drawn in percent), or what a task of one's own reports.

    Raises:
        ConfigError: the curves have no such column.
        RecordError: `curves` is no table of curves.
    """
    _check(curves, ("arm", "epoch"), "learning curves", "cnn_ablation.load_curves(DIR)")
    if column not in curves:
        names = [str(name) for name in curves if name not in ("arm", "seed", "epoch")]
        raise ConfigError([Problem("column", column, ", ".join(names), nearest(column, names))])
    ax = ax or _new(figures.curves_height(curves, column, (), _WIDTH))
    return figures.plot_curves(curves, ax, column=column)


def confusion(counts: npt.ArrayLike, class_names: Sequence[str], ax: Axes | None = None, *, title: str = "") -> Axes:
    """Confusion matrix: percent of each true class (rows) by predicted class.

    Args:
        counts: images (K, K), true class by predicted class.
        class_names: K names.
        ax: drawn on; None for a new figure.
        title: says whose it is.

    Raises:
        RecordError: the matrix has not as many rows and columns as there are names.
    """
    size = len(class_names)
    if np.shape(counts) != (size, size):
        raise RecordError(f"a confusion matrix of {size} classes has the shape {(size, size)}, not {np.shape(counts)}")
    ax = ax or _new(figures.confusion_height(class_names, _WIDTH, title))
    return figures.plot_confusion(counts, class_names, ax, title=title)


def _new(height: float) -> Axes:
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(_WIDTH, height), layout="constrained")
    return ax


def _check_arms(arms: object) -> None:
    _check(arms, ("arm", "verdict", "notes"), "arms", "cnn_ablation.ablation_table(runs)")


def _check(table: object, columns: Sequence[str], what: str, maker: str) -> None:
    if not isinstance(table, pd.DataFrame):
        raise RecordError(f"a table of {what} is a pandas DataFrame, not {type(table).__name__}\n  remedy: {maker}")
    missing = [name for name in columns if name not in table]
    if missing:
        raise RecordError(f"this is no table of {what}: it lacks {', '.join(missing)}\n  remedy: {maker} makes one")
