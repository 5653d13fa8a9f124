"""The metric of every arm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cnn_ablation.report.figures import forest
from cnn_ablation.report.figures.frame import inches_of
from cnn_ablation.report.figures.marks import axis_words, interval_words, metric_of_arms, scores, without_dropped
from cnn_ablation.report.figures.span import span_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_metric(arms: pd.DataFrame, ax: Axes, *, runs: pd.DataFrame | None = None, width: float | None = None) -> Axes:
    """The metric of every arm with its interval, accuracies in percent.

    Args:
        arms: from `ablation_table`.
        ax: drawn on.
        runs: the table of runs that it was made from, for single seeds; None for none.
        width: of the picture in inches; None for what the axes have.
    """
    plan = _planned(arms, runs, width or inches_of(ax))
    return forest.draw(plan, ax)


def scores_height(arms: pd.DataFrame, runs: pd.DataFrame | None, width: float) -> float:
    """Inches that the picture takes at a width."""
    return _planned(arms, runs, width).height


def _planned(arms: pd.DataFrame, runs: pd.DataFrame | None, width: float) -> forest.Plan:
    arms, others = without_dropped(arms)
    marks = scores(arms, runs)
    means = marks.mean[~np.isnan(marks.mean)]
    span = span_of(marks.groups, float(np.median(means)) if len(means) else 0.0)
    rows = forest.rows_for(marks, span, width)
    entries = forest.entries(marks, span, interval_words(arms), "one seed")
    label = axis_words(metric_of_arms(arms)) + others + rows.words
    return forest.Plan(marks, span, rows, entries, label, rows.room(width))
