"""The variance of a metric over seeds, split by its sources: one arm varies all, others one source each.

The other sources stand still in such an arm, so that its variance is that of its source alone (Bouthillier et al. 2021,
Accounting for Variance in Machine Learning Benchmarks, figure 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation.analysis import distributions
from cnn_ablation.analysis.tables.input import LOSSES, checked_runs
from cnn_ablation.analysis.tables.rows import COUNTED
from cnn_ablation.study.chance import VARY, sources
from cnn_ablation.study.designs import BASELINE
from cnn_ablation.study.metric import ACCURACIES, Metric

Floats = npt.NDArray[np.float64]

ALL, NOTHING, SUM = "all together", "hardware", "sum of the single ones"
"""Names of the rows that are no single source."""


@dataclass(frozen=True)
class Variance:
    """A variance with its degrees of freedom; of a combination of variances those of Satterthwaite (1946)."""

    value: float
    degrees: float

    def std_limits(self, alpha: float) -> tuple[float, float]:
        """Of the standard deviation, by the chi-squared distribution; NaN where there is no spread.

        Supposes normal values. Arms share seed 0 and the draws of their sources with the arm that varies all, which
        makes the F interval of `share_limits` wider than it had to be, never narrower.
        """
        if not self.value > 0 or not self.degrees > 0:
            return math.nan, math.nan
        quantiles = distributions.chi2_ppf([1 - alpha / 2, alpha / 2], self.degrees)
        low, high = np.sqrt(self.value * self.degrees / quantiles)
        return float(low), float(high)

    def share_limits(self, whole: Variance, alpha: float) -> tuple[float, float]:
        """Of its ratio to another variance, by the F distribution."""
        if not min(self.value, whole.value, self.degrees, whole.degrees) > 0:
            return math.nan, math.nan
        quantiles = distributions.f_ppf([1 - alpha / 2, alpha / 2], self.degrees, whole.degrees)
        low, high = self.value / whole.value / quantiles
        return float(low), float(high)


def variance_of(values: Floats) -> Variance:
    """Of values (n,), with n - 1 degrees of freedom; exactly 0 where all are equal."""
    if len(values) < 2:
        return Variance(math.nan, math.nan)
    spread = float(np.var(values, ddof=1)) if np.ptp(values) > 0 else 0.0
    return Variance(spread, len(values) - 1)


def combined(variances: Sequence[Variance], factors: Sequence[float]) -> Variance:
    """Sum of independent variances times factors, with degrees of freedom (sum)^2 / sum (f v)^2 / d."""
    terms = [factor * each.value for factor, each in zip(factors, variances, strict=True)]
    total = math.fsum(terms)
    weight = math.fsum(term**2 / each.degrees for term, each in zip(terms, variances, strict=True))
    return Variance(total, total**2 / weight if weight > 0 else math.nan)


@dataclass(frozen=True)
class _Source:
    """The runs of one arm, as far as this table needs them."""

    names: tuple[str, ...]
    values: Floats
    is_same_bits: bool
    variance: Variance = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "variance", variance_of(self.values))

    @property
    def label(self) -> str:
        return " + ".join(self.names) or NOTHING

    @property
    def note(self) -> str:
        if len(self.values) < 2:
            return "fewer than 2 seeds: no variance"
        if self.variance.value > 0:
            return ""
        return "bit-identical runs" if self.is_same_bits else "the same score for every seed"


def variance_columns(metric: Metric) -> tuple[str, ...]:
    """The columns of `variance_by_source`; deviations of accuracies are in percentage points."""
    unit = "_pp" if metric.is_accuracy else ""
    deviations = [f"{name}{unit}" for name in ("std", "std_ci_low", "std_ci_high")]
    return ("source", "n", *deviations, "share", "share_ci_low", "share_ci_high", "note")


def variance_by_source(runs: pd.DataFrame, metric: Metric, alpha: float) -> pd.DataFrame:
    """A row for all sources together, for each single one and for nothing at all, and the sum of the single ones.

    Args:
        runs: as `ablation_table` takes it.
        metric: whose variance is split.
        alpha: 1 - confidence of the intervals.

    Returns:
        A frame with `variance_columns`; without rows where no arm differs in `vary` alone.
    """
    columns = list(variance_columns(metric))
    found = _sources(checked_runs(runs, metric), metric) if VARY in runs.columns else {}
    if len(found) < 2 or BASELINE not in found:
        return pd.DataFrame(columns=columns)
    whole, *others = found.values()
    others.sort(key=lambda source: (len(source.names) == 0, len(source.names)))  # stable: else as given
    rows = _Rows(whole, alpha)
    single = [rows.of(source) for source in others if source.names]
    still = [rows.of(source) for source in others if not source.names]
    found_rows = [rows.of_all(), *single, *rows.of_sum(others), *still]
    return pd.DataFrame(found_rows, columns=columns).astype({"n": "Int64"})


def _sources(runs: pd.DataFrame, metric: Metric) -> dict[str, _Source]:
    """By arm: the baseline, then those that change `vary` and nothing else."""
    runs = runs.drop_duplicates(["arm", "seed"], keep="last")
    is_alone = (runs["knob"] == VARY) & (runs["arm"] == f"{VARY}=" + runs["level"].astype(str))
    chosen = runs[(runs["arm"] == BASELINE) | is_alone]
    if not is_alone.any():
        return {}
    groups = {str(name): group for name, group in chosen.groupby("arm", sort=False)}
    names = sorted(groups, key=lambda name: name != BASELINE)
    return {name: _source(groups[name], metric) for name in names}


def _source(runs: pd.DataFrame, metric: Metric) -> _Source:
    scored = runs[runs["status"].isin(COUNTED) & runs[metric.column].notna()]
    columns = [name for name in (*LOSSES, *ACCURACIES, metric.column) if name in scored.columns]
    is_same = all(scored[name].nunique(dropna=False) == 1 for name in columns)
    told_by_losses = any(name in LOSSES and scored[name].notna().all() for name in columns)
    values = metric.factor * scored[metric.column].to_numpy(np.float64)
    return _Source(sources(str(runs[VARY].iloc[0])), values, is_same and told_by_losses)


@dataclass(frozen=True)
class _Rows:
    """The rows of a table, with the arm that their shares are of."""

    whole: _Source
    alpha: float

    def of(self, source: _Source) -> tuple[Any, ...]:
        return self._row(source.label, len(source.values), source.variance, source.note)

    def of_all(self) -> tuple[Any, ...]:
        note = self.whole.note or ", ".join(self.whole.names)
        return self._row(ALL, len(self.whole.values), self.whole.variance, note)

    def of_sum(self, others: Sequence[_Source]) -> Iterator[tuple[Any, ...]]:
        """The single sources added up; what the hardware adds to each of them counts once."""
        single = [source for source in others if len(source.names) == 1]
        if len(single) < 2:
            return
        still = [source for source in others if not source.names and source.variance.value > 0]
        factors = [1.0] * len(single) + [1.0 - len(single)] * len(still)
        total = combined([source.variance for source in (*single, *still)], factors)
        missing = [name for name in self.whole.names if (name,) not in [source.names for source in single]]
        note = f"without an arm of its own: {', '.join(missing)}" if missing else self._interaction(total)
        yield self._row(SUM, None, total, note)

    def _row(self, label: str, count: int | None, variance: Variance, note: str) -> tuple[Any, ...]:
        of_all = self.whole.variance
        deviation = math.sqrt(variance.value) if variance.value >= 0 else math.nan
        share = variance.value / of_all.value if of_all.value > 0 else math.nan
        limits = (math.nan, math.nan) if label == ALL else variance.share_limits(of_all, self.alpha)
        return label, count, deviation, *variance.std_limits(self.alpha), share, *limits, note

    def _interaction(self, total: Variance) -> str:
        """What the sum leaves over of the variance of all together."""
        low, high = total.share_limits(self.whole.variance, self.alpha)
        if math.isnan(low):
            return ""
        left, least, most = (
            _signed_percent(1 - share) for share in (total.value / self.whole.variance.value, high, low)
        )
        seen = "no interaction is seen" if low <= 1 <= high else "the sources interact"
        return f"left over: {left} % of all together [{least}, {most}]; {seen}"


def _signed_percent(fraction: float) -> str:
    percent = round(100 * fraction)
    return f"{percent:+d}" if percent else "0"
