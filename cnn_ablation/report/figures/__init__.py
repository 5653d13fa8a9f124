"""Pictures of an ablation. Each function takes tables and an `ax`, draws on it and returns it; none reads files.

Sizes are known before anything is drawn: `*_height` tells how high a picture becomes at a width. Matplotlib is imported
by functions that draw, alone.
"""

from __future__ import annotations

from cnn_ablation.report.figures.colours import VERDICT_STYLE
from cnn_ablation.report.figures.confusion import confusion_height, confusion_side, plot_confusion
from cnn_ablation.report.figures.curves import curves_height, plot_curves
from cnn_ablation.report.figures.differences import differences_height, plot_differences
from cnn_ablation.report.figures.images import plot_image, plot_probabilities
from cnn_ablation.report.figures.lettering import folded
from cnn_ablation.report.figures.levels import levels_height, numeric_levels, plot_levels
from cnn_ablation.report.figures.scores import plot_metric, scores_height
from cnn_ablation.report.figures.times import plot_metric_against_time, times_height
from cnn_ablation.report.figures.titles import titled

__all__ = [
    "VERDICT_STYLE",
    "confusion_height",
    "confusion_side",
    "curves_height",
    "differences_height",
    "folded",
    "levels_height",
    "numeric_levels",
    "plot_confusion",
    "plot_curves",
    "plot_differences",
    "plot_image",
    "plot_levels",
    "plot_metric",
    "plot_metric_against_time",
    "plot_probabilities",
    "scores_height",
    "times_height",
    "titled",
]
