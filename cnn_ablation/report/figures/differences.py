"""The forest plot: how arms differ from the one that they are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from cnn_ablation.report.figures import forest
from cnn_ablation.report.figures.colours import BAND, INK
from cnn_ablation.report.figures.frame import BAND as BAND_KIND
from cnn_ablation.report.figures.frame import Entry, inches_of
from cnn_ablation.report.figures.marks import (
    differences,
    interval_words,
    metric_of_arms,
    metric_words,
    without_dropped,
)
from cnn_ablation.report.figures.span import span_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_differences(
    arms: pd.DataFrame,
    ax: Axes,
    *,
    runs: pd.DataFrame | None = None,
    margin_pp: float | None = None,
    width: float | None = None,
) -> Axes:
    """Forest plot: each arm's difference from the baseline with its interval, in points or the metric's own unit.

    Zero and the margin are always seen. An arm that reaches ten times as far as the median arm is cut off, with an
    arrow and its values.

    Args:
        arms: from `ablation_table`.
        ax: drawn on.
        runs: the table of runs that it was made from, for differences of single seeds; None for none.
        margin_pp: half-width of the grey band inside which differences do not matter, of accuracies; None for the one
            that the table was made with.
        width: of the picture in inches; None for what the axes have.
    """
    plan = _planned(arms, runs, margin_pp, width or inches_of(ax))
    if plan.half:
        ax.axvspan(-plan.half, plan.half, color=BAND, zorder=0, linewidth=0)
    ax.axvline(0, color=INK, linewidth=0.8, zorder=1)
    return forest.draw(plan, ax)


def differences_height(arms: pd.DataFrame, runs: pd.DataFrame | None, width: float) -> float:
    """Inches that the picture takes at a width."""
    return _planned(arms, runs, None, width).height


def _planned(arms: pd.DataFrame, runs: pd.DataFrame | None, margin_pp: float | None, width: float) -> forest.Plan:
    from cnn_ablation.analysis.tables import reference_words  # imports scipy, which other pictures do not need

    arms, others = without_dropped(arms)
    metric, marks = metric_of_arms(arms), differences(arms, runs)
    half = margin_pp or metric.margin
    span = span_of(marks.groups, 0.0, (-half, half) if half else ())
    rows = forest.rows_for(marks, span, width)
    band = [Entry(f"margin \u00b1{half:g}{' pp' if metric.is_accuracy else ''}", BAND_KIND, BAND)] if half else []
    entries = band + forest.entries(marks, span, interval_words(arms), "one seed")
    what = " (percentage points)" if metric.is_accuracy else f" ({metric.direction} is better)"
    label = f"difference in {metric_words(metric)} from {reference_words(arms)}{what}{others}{rows.words}"
    return forest.Plan(marks, span, rows, entries, label, rows.room(width), half)
