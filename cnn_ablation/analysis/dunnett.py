"""Dunnett's test: many arms against one baseline at once, without pairing, with the pooled variance of all (1955).

The t statistics of m arms share the baseline's mean and the pooled variance. Given these two they are independent, so
that the distribution of the largest is an integral over a normal and a chi variable of a product over arms: it allows
for the correlation that Holm's and Bonferroni's corrections have to do without. `scipy.stats.dunnett` draws random
points for it; here it is summed over a grid, which gives the same digits each time and takes less than a millisecond.

Every function judges the whole family; arms may have different numbers of values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import ndtr

from cnn_ablation.analysis import distributions
from cnn_ablation.analysis.stats import NO_COMPARISON, Comparison, Floats, Interval, all_equal, verdict
from cnn_ablation.config import StatsConfig
from cnn_ablation.study.metric import metric_of

DUNNETT = "dunnett"
_NORMAL = np.linspace(-7.5, 7.5, 61)  # the trapezoidal rule is exact to 1e-12 for what decays like a normal density
_OMITTED = 1e-11  # of the distribution of the scale, at either end


@dataclass(frozen=True)
class Null:
    """The t statistics of all arms where none differs from the baseline.

    `counts`: values of each arm, in order of size; `baseline`: values of the baseline; `freedom`: degrees of the
    pooled variance.
    """

    counts: tuple[int, ...]
    baseline: int
    freedom: int

    def two_sided(self, limit: float) -> float:
        """Probability that any statistic is as far from 0 as `limit`."""

        def inside(above: Floats, below: Floats, count: int) -> Floats:
            return np.asarray((above + below - 1) ** count)

        return self._any(limit, inside)

    def one_sided(self, limit: float) -> float:
        """The largest probability, over all choices of a side for each arm, that any statistic is as far out there.

        Where an arm is at the margin, its equivalence is wrong if its statistic lies as far out on the side of the
        other margin. Which side that is nobody knows, and arms on different sides are correlated negatively through the
        baseline. With k arms of equal size on one side and m - k on the other, the logarithm of the probability that
        none is out is convex in k and the same for k and m - k: it is smallest at m / 2, where halves are taken, or
        next to it. The same holds for arms of several sizes, with halves of each.
        """
        is_alike = len(set(self.counts)) == 1

        def inside(above: Floats, below: Floats, count: int) -> Floats:
            side = count // 2 if is_alike else count / 2
            return np.asarray(above**side * below ** (count - side))

        return self._any(limit, inside)

    def critical(self, alpha: float, side: str = "two_sided") -> float:
        """The limit that any statistic exceeds with probability alpha, `two_sided` or `one_sided`."""
        return _critical(self, alpha, side)

    def _any(self, limit: float, inside: Any) -> float:
        """1 minus the mean, over the baseline's deviate z and the scale s, of the product over sizes of arms.

        An arm of n values has the statistic (sqrt(1 - r²) its own deviate - r z) / s with r² = n / (n + baseline's).
        """
        scales, weights = _scales(self.freedom)
        product = np.ones((len(scales), len(_NORMAL)))
        for size, count in Counter(self.counts).items():
            shared, own = (math.sqrt(part / (size + self.baseline)) for part in (size, self.baseline))
            reach, shift = limit * scales[:, None] / own, shared / own * _NORMAL
            product *= inside(ndtr(reach + shift), ndtr(reach - shift), count)
        density = distributions.normal_pdf(_NORMAL)
        return float(np.clip(1 - weights @ product @ density / density.sum(), 0.0, 1.0))


@lru_cache(maxsize=64)
def _scales(freedom: int) -> tuple[Floats, Floats]:
    """Values of sqrt(chi² / freedom), evenly spaced on a log scale, and their weights, which sum to 1."""
    low, high = np.log(distributions.chi2_ppf((_OMITTED, 1 - _OMITTED), freedom) / freedom) / 2
    scales = np.exp(np.linspace(low, high, 40 if freedom > 4 else 160))  # few degrees have long tails
    weights = distributions.chi2_pdf(freedom * scales**2, freedom) * scales**2
    return scales, weights / weights.sum()


@lru_cache(maxsize=1024)
def _critical(null: Null, alpha: float, side: str) -> float:
    from scipy import optimize  # 0.1 s, for studies that compare all arms at once

    def excess(limit: float) -> float:
        return float(getattr(null, side)(limit)) - alpha

    most = float(distributions.t_isf(alpha / 2 / len(null.counts), null.freedom))  # Bonferroni's is never smaller
    return float(optimize.brentq(excess, 0.0, 1.01 * most, xtol=1e-9))


@dataclass(frozen=True)
class ManyToOne:
    """What the samples of a family come to: `differences` (m,) from the baseline, `counts` (m,), pooled `spread`."""

    differences: Floats
    counts: tuple[int, ...]
    spread: float
    null: Null

    @property
    def errors(self) -> Floats:
        """Standard errors of the differences."""
        return self.spread * np.sqrt(1 / np.array(self.counts) + 1 / self.null.baseline)


def many_to_one(arms: Sequence[Floats], baseline: Floats, factor: float = 1) -> ManyToOne:
    """Of samples (n,), one for each arm; n may differ, and be 0 or 1, and is at least 1 for the baseline.

    An arm without values has the difference NaN, and counts as if it had one: it was to be compared. The spread is NaN
    where all values of each sample are equal but for rounding.
    """
    groups = [factor * np.asarray(values) for values in (baseline, *arms)]
    differences = np.array([np.mean(group) - np.mean(groups[0]) if len(group) else math.nan for group in groups[1:]])
    counts = [max(len(group), 1) for group in groups]
    freedom = sum(counts) - len(counts)
    squares = [np.sum((one - np.mean(one)) ** 2) for one in groups if len(one) > 1 and not all_equal(one)]
    spread = math.sqrt(float(sum(squares)) / freedom) if squares else math.nan
    return ManyToOne(differences, tuple(counts[1:]), spread, Null(tuple(sorted(counts[1:])), counts[0], freedom))


def relative_spreads(groups: Sequence[Floats]) -> list[float]:
    """Standard deviation of each group over that of all others, pooled; NaN where either has fewer than two values.

    The test supposes that all are alike: a group that scatters more than the pooled deviation says is called different
    too often.
    """
    freedoms = np.array([max(len(group) - 1, 0) for group in groups], dtype=float)
    squares = np.array([np.sum((one - np.mean(one)) ** 2) if len(one) else 0.0 for one in groups])
    with np.errstate(all="ignore"):
        others = (np.sum(squares) - squares) / (np.sum(freedoms) - freedoms)
        ratios: list[float] = np.sqrt(squares / freedoms / others).tolist()
    return ratios


def judged(family: ManyToOne, settings: StatsConfig) -> list[tuple[Comparison, float, str]]:
    """Of every arm: its comparison, its p-value corrected by Dunnett's method, and its verdict, as `compared`."""
    metric, alpha = metric_of(settings), settings.alpha
    return [
        (raw, found.p_value, verdict(metric, raw.difference.mean, found.p_value, found.p_equivalence, alpha))
        for raw, found in compared(family, settings)
    ]


def compared(family: ManyToOne, settings: StatsConfig) -> list[tuple[Comparison, Comparison]]:
    """Of every arm: its comparison, and the same with p-values that are corrected by Dunnett's method.

    Uncorrected p-values are those of two samples with the pooled variance. Equivalence is that of two one-sided tests,
    corrected with `Null.one_sided`. Without spread there are neither p-values nor intervals.

    Args:
        family: in the unit of the margin.
        settings: metric, error level, margin, and whether intervals hold for all arms at once.
    """
    metric, differences, null = metric_of(settings), family.differences, family.null
    if math.isnan(family.spread):
        return [(replace(NO_COMPARISON, difference=Interval(float(one))),) * 2 for one in differences]
    p_values = _p_values(np.abs(differences) / family.errors, null, "two_sided")
    inner = math.nan if metric.margin is None else metric.margin
    p_equivalence = _p_values((inner - np.abs(differences)) / family.errors, null, "one_sided")
    by_t = float(distributions.t_isf(settings.alpha / 2, null.freedom))
    half = family.errors * (null.critical(settings.alpha) if settings.simultaneous else by_t)
    intervals = [Interval(mean, mean - reach, mean + reach)
                 for mean, reach in zip(differences.tolist(), half.tolist(), strict=True)]  # fmt: skip
    found = zip(intervals, *p_values.tolist(), *p_equivalence.tolist(), strict=True)
    return [
        (Comparison(interval, raw, raw_equivalence), Comparison(interval, corrected, equivalence))
        for interval, raw, corrected, raw_equivalence, equivalence in found
    ]


def _p_values(statistics: Floats, null: Null, side: str) -> Floats:
    """Uncorrected and corrected, (2, arms); NaN where the statistic is."""
    sides = 2 if side == "two_sided" else 1
    raw = sides * distributions.t_sf(statistics, null.freedom)
    corrected = [math.nan if math.isnan(one) else getattr(null, side)(max(float(one), 0.0)) for one in statistics]
    return np.array([raw, np.maximum(raw, corrected)])
