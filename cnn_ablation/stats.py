"""Statistics of an ablation: arrays of one value per seed in, intervals, p-values and verdicts out.

Accuracies come in as fractions and differences go out in percentage points (pp). NaN stands for "cannot be computed".
"""

from __future__ import annotations

import bisect
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

Floats = npt.NDArray[np.float64]

POWER = 0.8
MAX_SEEDS_NEEDED = 1000


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline, paired by seed, in percentage points.

    `p_value` is that of the paired t test of no difference; `p_equivalence` that of two one-sided t tests of a
    difference of at least the margin (Schuirmann 1987).
    """

    difference: Interval
    p_value: float
    p_equivalence: float
    seeds_needed: float
    seed_correlation: float


NO_COMPARISON = Comparison(Interval(math.nan, math.nan, math.nan), math.nan, math.nan, math.nan, math.nan)


def mean_interval(values: Floats, alpha: float) -> Interval:
    """The mean of (n,) values with its t interval at confidence 1 - alpha.

    The limits are NaN below two values, and where all values are equal: an interval of no width would claim certainty.
    """
    if len(values) == 0:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    if len(values) < 2 or _all_equal(values):
        return Interval(mean, math.nan, math.nan)
    half = float(scipy_stats.sem(values) * scipy_stats.t.ppf(1 - alpha / 2, len(values) - 1))
    return Interval(mean, mean - half, mean + half)


def _all_equal(values: Floats) -> bool:
    """Equal but for rounding."""
    return bool(np.ptp(values) < 1e-9)


def log_ratio_interval(numerator: Floats, denominator: Floats, alpha: float) -> Interval:
    """The geometric mean of paired ratios (n,) with its t interval on the log scale."""
    if len(numerator) == 0 or np.any(numerator <= 0) or np.any(denominator <= 0):
        return Interval(math.nan, math.nan, math.nan)
    logs = mean_interval(np.log(numerator / denominator), alpha)
    return Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high))


def compare(arm: Floats, baseline: Floats, *, alpha: float, margin_pp: float, num_comparisons: int) -> Comparison:
    """Compares the accuracies (n,) of an arm and of the baseline, seed by seed.

    Args:
        arm: accuracies in 0..1, one per seed.
        baseline: the same seeds in the same order.
        alpha: family-wise error of the study.
        margin_pp: differences smaller than this do not matter.
        num_comparisons: comparisons in the study, for the power analysis under correction.
    """
    if len(arm) == 0:
        return NO_COMPARISON
    differences = 100 * (arm - baseline)
    interval = mean_interval(differences, alpha)
    if len(arm) < 2 or _all_equal(differences):  # a t statistic would be 0/0 or infinite
        return Comparison(interval, math.nan, math.nan, math.nan, math.nan)
    p_value = float(scipy_stats.ttest_1samp(differences, 0.0).pvalue)
    p_above_lower = scipy_stats.ttest_1samp(differences, -margin_pp, alternative="greater").pvalue
    p_below_upper = scipy_stats.ttest_1samp(differences, margin_pp, alternative="less").pvalue
    return Comparison(
        interval,
        p_value,
        float(max(p_above_lower, p_below_upper)),
        seeds_needed(differences, margin_pp, alpha / max(num_comparisons, 1)),
        _correlation(arm, baseline),
    )


def seeds_needed(differences_pp: Floats, margin_pp: float, alpha: float) -> float:
    """Seeds with which a paired t test finds the difference with 80 % power, from the observed spread.

    The difference to be found is the observed one, or the margin where the observed one is smaller. `alpha` is the
    level of this one test, after correction. Answers are capped at `MAX_SEEDS_NEEDED`.
    """
    effect = max(abs(float(np.mean(differences_pp))), margin_pp) / float(np.std(differences_pp, ddof=1))
    # Only rejections on the right side count, hence one side at alpha / 2 (the far tail is also NaN in scipy 1.17).
    power = partial(TTestPower().power, effect, alpha=alpha / 2, alternative="larger")
    candidates = range(2, MAX_SEEDS_NEEDED)
    return float(candidates.start + bisect.bisect_left(candidates, POWER, key=power))


def _correlation(first: Floats, second: Floats) -> float:
    """Pearson's correlation over seeds: near 1 where pairing by seed pays, near 0 where it does not."""
    if len(first) < 3 or np.std(first) == 0 or np.std(second) == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def holm(p_values: Sequence[float]) -> Floats:
    """p-values (m,) corrected for their number by Holm's step-down method (Holm 1979).

    Tests that could not be computed (NaN) stay NaN and still count as comparisons that were made.
    """
    raw = np.asarray(p_values, dtype=float)
    if raw.size == 0:
        return raw
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corrected = multipletests(np.where(np.isnan(raw), 1.0, raw), method="holm")[1]
    return np.where(np.isnan(raw), np.nan, corrected)


def verdict(delta_pp: float, p_holm: float, p_equivalence_holm: float, alpha: float) -> str:
    """`better`, `worse`, `equivalent` or `undecided`, from corrected p-values.

    A difference shown to be inside the margin is `equivalent` even if it is also shown not to be zero.
    """
    if p_equivalence_holm <= alpha:
        return "equivalent"
    if p_holm <= alpha:
        return "better" if delta_pp > 0 else "worse"
    return "undecided"
