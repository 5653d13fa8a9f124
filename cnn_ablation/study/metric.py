"""The figure by which a study compares its arms: which column, which direction is better, in which unit. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnn_ablation.common.errors import Problem
from cnn_ablation.config import StatsConfig, default_of, keys_of, nearest

ACCURACIES = ("train_accuracy", "val_accuracy", "test_accuracy")
"""Kept as fractions, shown in percent, their differences in percentage points; any other figure is shown as it is."""
TIMES = ("train_seconds", "cpu_seconds", "total_seconds", "images_per_second")
"""Figures that depend on what else the machine did, compared only between like runs."""
_LOWER_IS_BETTER = ("loss", "error", "seconds")
_MOST_COLUMNS_SHOWN = 12
_NAME, _DIRECTION, _MARGIN = "metric", "direction", "margin"


@dataclass(frozen=True)
class Metric:
    """A column of the table of runs, as the statistics and the report see it."""

    column: str
    lower_is_better: bool = False
    margin: float | None = None
    """Half-width of the range inside which arms are equivalent, in the unit of `delta`; None where nobody said."""

    @property
    def is_accuracy(self) -> bool:
        return self.column in ACCURACIES

    @property
    def factor(self) -> int:
        """From a run's figure to what is shown."""
        return 100 if self.is_accuracy else 1

    @property
    def words(self) -> str:
        """`test accuracy`; another column keeps its name."""
        return self.column.replace("val_", "validation_").replace("_", " ") if self.is_accuracy else self.column

    @property
    def score(self) -> str:
        """What a run lacks that has no such figure."""
        return "test score" if self.column == "test_accuracy" else self.column

    @property
    def direction(self) -> str:
        return "lower" if self.lower_is_better else "higher"

    @property
    def estimate(self) -> tuple[str, str, str, str]:
        """The columns of its mean, deviation and limits in the table of arms."""
        name = self.column if self.is_accuracy else "metric"
        return f"{name}_mean", f"{name}_std", f"{name}_ci_low", f"{name}_ci_high"

    @property
    def delta(self) -> tuple[str, str, str]:
        """The columns of the difference and its limits in the table of arms."""
        unit = "_pp" if self.is_accuracy else ""
        return f"delta{unit}", f"delta_ci_low{unit}", f"delta_ci_high{unit}"

    def is_better(self, difference: float) -> bool:
        """Whether an arm that differs by so much from another one is the better of the two."""
        return difference < 0 if self.lower_is_better else difference > 0

    def attributes(self) -> dict[str, Any]:
        """As a table of arms carries it with it."""
        return {_NAME: self.column, _DIRECTION: self.direction, _MARGIN: self.margin}


def metric_of(settings: StatsConfig) -> Metric:
    """The metric that settings ask for; a name that ends in loss, error or seconds is better where it is lower."""
    column = settings.metric
    by_name = "lower" if column.rpartition("_")[2] in _LOWER_IS_BETTER else "higher"
    metric = Metric(column, (settings.direction or by_name) == "lower", settings.margin)
    return replace(metric, margin=settings.margin_pp) if metric.is_accuracy else metric


def metric_of_table(attributes: Mapping[Any, Any], columns: Collection[Any]) -> Metric:
    """The metric of a table of arms; one that was read from a file knows its columns only.

    Args:
        attributes: `DataFrame.attrs` of the table.
        columns: its columns.
    """
    if _NAME in attributes:
        return Metric(attributes[_NAME], attributes.get(_DIRECTION) == "lower", attributes.get(_MARGIN))
    return next((metric for metric in map(Metric, ACCURACIES) if metric.estimate[2] in columns), Metric("metric"))


def chosen_by(metric: str, columns: Collection[str]) -> str:
    """The column by which a greedy study chooses: of a test figure its validation twin, else the metric itself.

    The direction is the metric's.

    Args:
        metric: what the study reports.
        columns: figures that its runs have.
    """
    part, _, name = metric.partition("_")
    twin = f"val_{name}"
    return twin if part == "test" and twin in columns else metric


def for_task(settings: StatsConfig, figures: Sequence[str]) -> StatsConfig:
    """The settings with the first figure of a task's own as metric, where nobody asked for another one.

    Args:
        settings: as the study has them.
        figures: names of what its runs return; none for image classification.
    """
    unasked = settings.metric == default_of(keys_of(settings)[_NAME])
    return replace(settings, metric=figures[0]) if unasked and figures and settings.metric not in figures else settings


def settings_problems(settings: StatsConfig, prefix: str = "") -> Iterator[Problem]:
    """A margin in a unit that the metric does not have, or a test that the metric cannot have.

    `prefix` stands before keys.
    """
    if settings.metric in ACCURACIES and settings.margin is not None:
        allowed = f"null with {prefix}metric={settings.metric}: the margin of accuracies is in percentage points"
        yield Problem(f"{prefix}margin", settings.margin, allowed, remedy=f"{prefix}margin_pp=POINTS")
    if settings.metric in TIMES and settings.test == "dunnett":
        allowed = (
            f"t, sign_flip, anytime with {prefix}metric={settings.metric}: times are compared in pairs of like runs"
        )
        yield Problem(f"{prefix}test", settings.test, allowed, remedy=f"{prefix}test=t")


def unknown_metric(metric: str, columns: Sequence[str], prefix: str = "") -> Problem:
    """A metric that runs do not have, with the one spelled most like it.

    Args:
        metric: as given.
        columns: figures that runs have.
        prefix: stands before the key.
    """
    shown = ", ".join(columns[:_MOST_COLUMNS_SHOWN])
    more = f" and {len(columns) - _MOST_COLUMNS_SHOWN} more" if len(columns) > _MOST_COLUMNS_SHOWN else ""
    key, found = f"{prefix}metric", nearest(metric, list(columns))
    return Problem(key, metric, f"a column of numbers of the table of runs: {shown}{more}", found and f"{key}={found}")
