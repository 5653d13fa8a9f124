"""Statistics of an ablation: arrays of one value per seed in, intervals, p-values and verdicts out.

Accuracies come in as fractions and their differences go out in percentage points; any other metric keeps its unit. NaN
stands for "cannot be computed".
`benchmarks/calibration.py` measures how often these verdicts and intervals are wrong.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.analysis import anytime, distributions
from cnn_ablation.config import ANYTIME, StatsConfig
from cnn_ablation.study.metric import Metric, metric_of

Floats = npt.NDArray[np.float64]

MAX_SEEDS_NEEDED = 1000
MAX_EXACT_FLIPS = 2**16  # beyond 16 seeds as many random sign flips stand for all of them
_ROUNDING = 1e-11  # of the size of what was measured: values that lie closer together are equal


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval; of arrays with leading axes, arrays."""

    mean: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline, paired by seed, in percentage points of accuracies or the unit of another metric.

    `p_value` is that of no difference; `p_equivalence` that of two one-sided tests of a difference of at least the
    margin (Schuirmann 1987), NaN without one. `widened` is the width of the paired interval over that of an unpaired
    one. The seeds needed are the range of `assurance.seeds_needed`, where a verdict is missing.
    """

    difference: Interval
    p_value: float = math.nan
    p_equivalence: float = math.nan
    widened: float = math.nan
    seed_correlation: float = math.nan
    seeds_needed_low: float = math.nan
    seeds_needed: float = math.nan


NO_COMPARISON = Comparison(Interval(math.nan))


def mean_interval(values: Floats, alpha: float, test: str = "t") -> Interval:
    """The mean of (..., n) values with its interval at confidence 1 - alpha: of t, or of the test that always holds.

    The limits are NaN below two values, and where all values are equal: an interval of no width would claim certainty.
    """
    if values.shape[-1] == 0:
        return Interval(math.nan)
    mean = np.mean(values, axis=-1)
    if values.shape[-1] < 2:
        return Interval(mean)
    limits = anytime.limits(values, alpha) if test == ANYTIME else _t_limits(values, alpha)
    return Interval(mean, *(_where_spread(values, np.where(np.isinf(limit), math.nan, limit)) for limit in limits))


def prediction_interval(values: Floats, alpha: float) -> Interval:
    """The mean of (..., n) values with the interval in which one further value lies at confidence 1 - alpha.

    mean ± t(n - 1) s sqrt(1 + 1/n), for values that are normally distributed: sqrt(n + 1) times as wide as the interval
    of the mean. NaN where `mean_interval` has no limits.
    """
    found = mean_interval(values, alpha)
    half = (found.high - found.mean) * math.sqrt(values.shape[-1] + 1)
    return Interval(found.mean, found.mean - half, found.mean + half)


def _t_limits(values: Floats, alpha: float) -> tuple[Floats, Floats]:
    half = distributions.standard_error(values) * distributions.t_ppf(1 - alpha / 2, values.shape[-1] - 1)
    mean = np.mean(values, axis=-1)
    return mean - half, mean + half


def _where_spread(values: Floats, result: Any) -> Any:
    """The result for (..., n) values, but NaN where these are all equal (but for rounding)."""
    return np.where(all_equal(values), math.nan, result)[()]


def all_equal(values: Floats) -> Any:
    """Whether values (..., n) are the same to rounding, along their last axis."""
    return np.ptp(values, axis=-1) <= _ROUNDING * np.max(np.abs(values), axis=-1)


def _without_rounding(values: Floats, size: Any) -> Floats:
    """Values (..., n), but equal to the last bit where they are equal to rounding.

    Args:
        values: differences or logarithms, whose own size says nothing about their rounding.
        size: (...) of the numbers they were computed from.
    """
    equal = np.ptp(values, axis=-1) <= _ROUNDING * size
    return np.where(equal[..., np.newaxis], values[..., :1], values)


def paired_differences(arm: Floats, baseline: Floats, factor: float = 1) -> Floats:
    """`factor` times arm minus baseline (..., n), seed by seed."""
    if arm.shape[-1] == 0:
        return arm - baseline
    size = np.maximum(*(np.max(np.abs(side), axis=-1) for side in (arm, baseline)))
    return _without_rounding(factor * (arm - baseline), factor * size)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without numpy's warnings about values that are all equal; they are looked for by `_where_spread`."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def log_ratio_interval(numerator: Floats, denominator: Floats, alpha: float, test: str = "t") -> Interval:
    """The geometric mean of paired ratios (..., n) with its interval computed on the log scale.

    NaN where a numerator or denominator is not positive.
    """
    with np.errstate(all="ignore"):
        positive = (numerator > 0) & (denominator > 0)
        ratios = np.where(positive, numerator / denominator, math.nan)
        logs = mean_interval(_without_rounding(np.log(ratios), 1.0) if ratios.shape[-1] else ratios, alpha, test)
        return Interval(*(np.exp(limit)[()] for limit in (logs.mean, logs.low, logs.high)))


def compare(arm: Floats, baseline: Floats, settings: StatsConfig, *, num_comparisons: int) -> Comparison:
    """Compares the figures (..., n) of an arm and of the baseline, seed by seed.

    Args:
        arm: of the metric (accuracies in 0..1), one per seed; leading axes hold many arms or studies at once.
        baseline: the same seeds in the same order.
        settings: metric, test, error level and margin.
        num_comparisons: comparisons in the study, for simultaneous intervals.
    """
    arm, baseline = np.broadcast_arrays(arm, baseline)
    metric = metric_of(settings)
    num_seeds = arm.shape[-1]
    if num_seeds == 0:
        return NO_COMPARISON
    differences = paired_differences(arm, baseline, metric.factor)
    alpha = settings.alpha / max(num_comparisons, 1) if settings.simultaneous else settings.alpha
    interval = mean_interval(differences, alpha, settings.test)
    if num_seeds < 2:
        return Comparison(interval)
    return Comparison(
        difference=interval,
        p_value=TESTS[settings.test](differences, "two-sided"),
        p_equivalence=_p_equivalence(differences, settings.test, metric.margin),
        widened=pairing_widens(arm, baseline),
        seed_correlation=seed_correlation(arm, baseline),
    )


def _p_equivalence(differences: Floats, test: str, margin: float | None) -> Any:
    """Two one-sided tests of a difference of at least the margin."""
    if margin is None:
        return np.full(differences.shape[:-1], math.nan)[()]
    one_sided = TESTS[test]
    return np.maximum(one_sided(differences + margin, "greater"), one_sided(differences - margin, "less"))


def _t_test(differences: Floats, alternative: str) -> Any:
    """Student's paired t test; NaN without spread, where its statistic would be infinite or 0/0."""
    with _quiet():
        return _where_spread(differences, distributions.t_test(differences, alternative))


def _sign_flip_test(differences: Floats, alternative: str) -> Any:
    """How often the mean of randomly signed differences is as extreme: exact where noise is symmetric (Fisher 1935)."""
    from scipy.stats import permutation_test  # half a second, for the studies that ask for this test

    result = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=MAX_EXACT_FLIPS,
        batch=4096,
        alternative=alternative,
        axis=-1,
        random_state=0,
    )
    return result.pvalue


TESTS: dict[str, Callable[[Floats, str], Any]] = {"t": _t_test, "sign_flip": _sign_flip_test, ANYTIME: anytime.p_value}


def smallest_p_value(test: str, num_seeds: int) -> float:
    """The smallest two-sided p-value that a test can give with so many seeds: 2 of all 2^n sign flips."""
    if test == ANYTIME:
        return anytime.smallest_p_value(num_seeds)
    return min(1.0, 2.0 ** (1 - num_seeds)) if test == "sign_flip" else 0.0


def fewest_seeds(test: str, alpha: float) -> int:
    """Seeds below which a test can never reach `alpha`, whatever the data."""
    return next(n for n in range(2, MAX_SEEDS_NEEDED) if smallest_p_value(test, n) <= alpha)


def pairing_widens(arm: Floats, baseline: Floats) -> Any:
    """Width of the paired t interval over that of Welch's, which ignores the pairing (1947); NaN without spread.

    Above 1 pairing does not pay: it halves the degrees of freedom, which only a positive correlation over seeds makes
    good.
    """
    with _quiet():
        width, (low, high) = distributions.welch_width(arm, baseline, 0.95), _t_limits(arm - baseline, 0.05)
        return np.where(width > 0, (high - low) / width, math.nan)[()]


def seed_correlation(first: Floats, second: Floats) -> Any:
    """Pearson's correlation over seeds: near 1 where pairing by seed pays, near 0 where it does not."""
    if first.shape[-1] < 3:
        return math.nan
    with _quiet():
        scores = [distributions.zscores(values) for values in (first, second)]
        return _where_spread(first, _where_spread(second, np.mean(scores[0] * scores[1], axis=-1)))


def holm(p_values: Sequence[float]) -> Floats:
    """p-values (m,) corrected for their number by Holm's step-down method (Holm 1979).

    Tests that could not be computed (NaN) stay NaN and still count as comparisons that were made.
    """
    raw = np.asarray(p_values, dtype=float)
    if np.isnan(raw).all():  # also of none
        return raw
    corrected = distributions.holm(np.where(np.isnan(raw), 1.0, raw))
    return np.where(np.isnan(raw), np.nan, corrected)


def verdict(metric: Metric, difference: float, p_holm: float, p_equivalence_holm: float, alpha: float) -> str:
    """`better`, `worse`, `equivalent` or `undecided`, from corrected p-values.

    A difference shown to be inside the margin is `equivalent` even if it is also shown not to be zero.

    Alpha bounds the probability of any false difference in a study, and apart from it that of any false equivalence:
    two families, so that up to twice alpha of studies may hold something wrong, in two different arms. One arm is never
    wrong in both, and wrong at all with a probability of at most alpha. If its true difference is zero, only better and
    worse are wrong. If it is inside the margin, only the wrong direction is. If it is d, at the margin or beyond, say
    above, `equivalent` and `worse` are wrong, but both need that a one-sided test at alpha rejects a mean of d: one
    event, whose probability is at most alpha.
    """
    if p_equivalence_holm <= alpha:
        return "equivalent"
    if p_holm <= alpha:
        return "better" if metric.is_better(difference) else "worse"
    return "undecided"


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """With p-values that are corrected for the number of comparisons by Holm's method, both families alike."""
    p_values = holm([comparison.p_value for comparison in comparisons])
    equivalences = holm([comparison.p_equivalence for comparison in comparisons])
    found = zip(comparisons, p_values, equivalences, strict=True)
    return [replace(each, p_value=float(p), p_equivalence=float(equal)) for each, p, equal in found]


def verdicts(comparisons: Sequence[Comparison], settings: StatsConfig) -> list[tuple[float, str]]:
    """Holm-corrected p-value and verdict of every comparison of a study that is looked at once."""
    metric, alpha = metric_of(settings), settings.alpha
    return [
        (each.p_value, verdict(metric, each.difference.mean, each.p_value, each.p_equivalence, alpha))
        for each in corrected(comparisons)
    ]


def next_levels(found: Sequence[tuple[float, str]], alpha: float) -> tuple[float, float]:
    """The levels at which the next difference and the next equivalence count, beside those of `verdicts`.

    Those of Holm's method, where what it has rejected stays so: alpha over the number of hypotheses that are left.
    """
    left = sum(not p_holm <= alpha for p_holm, _ in found), sum(verdict != "equivalent" for _, verdict in found)
    return alpha / max(left[0], 1), alpha / max(left[1], 1)
