"""What a greedy study chooses by, from the records of an arm's runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cnn_ablation.config import StatsConfig
from cnn_ablation.runs.records import Run
from cnn_ablation.study.metric import Metric, chosen_by, for_task, metric_of


def mean_score(runs: Sequence[Run], settings: StatsConfig) -> float:
    """What a greedy study compares arms by, larger for the better one; -inf where a run lacks the figure.

    Args:
        runs: of one arm, none of them failed.
        settings: with the study's metric.
    """
    metric, column = _choice(runs[0], settings)
    mean = math.fsum(run.figure(column) for run in runs) / len(runs)
    score = -mean if metric.lower_is_better else mean
    return -math.inf if math.isnan(score) else score


def mean_figure(runs: Sequence[Run], settings: StatsConfig) -> float:
    """That figure in the mean over runs; NaN where one of them lacks it."""
    column = _choice(runs[0], settings)[1]
    return math.fsum(run.figure(column) for run in runs) / len(runs)


def figure_words(run: Run, settings: StatsConfig) -> str:
    """That figure of one run: `95.81 % validation accuracy`, `val_loss 0.3127`."""
    shown = chosen_figure(run, settings)
    value = shown.factor * run.figure(shown.column)
    return f"{value:.2f} % {shown.words}" if shown.is_accuracy else f"{shown.column} {value:.4g}"


def chosen_figure(run: Run, settings: StatsConfig) -> Metric:
    """The figure by which a greedy study compares the arm of such a run; what a person sees of runs as they finish."""
    return Metric(_choice(run, settings)[1])


def _choice(run: Run, settings: StatsConfig) -> tuple[Metric, str]:
    """The study's metric, and the column of its runs that a greedy study chooses by."""
    metric = metric_of(for_task(settings, tuple(run.metrics)))
    return metric, chosen_by(metric.column, run.figures)
