"""Expected values from formulas written out here, or from published examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import stdtr, stdtrit

from cnn_ablation import stats

BASELINE = np.array([0.90, 0.92, 0.91, 0.93, 0.89])
ARM = np.array([0.92, 0.95, 0.92, 0.96, 0.91])


def test_mean_interval_is_the_t_interval() -> None:
    half = stdtrit(4, 0.975) * math.sqrt(sum((x - 0.91) ** 2 for x in BASELINE) / 4) / math.sqrt(5)
    interval = stats.mean_interval(BASELINE, 0.05)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.91, 0.91 - half, 0.91 + half))


@pytest.mark.parametrize(
    ("values", "mean"), [([], math.nan), ([0.5], 0.5), ([0.7, 0.7, 0.7], 0.7)], ids=["none", "one", "all equal"]
)
def test_no_interval_without_spread(values: list[float], mean: float) -> None:
    interval = stats.mean_interval(np.array(values), 0.05)
    assert interval.mean == pytest.approx(mean, nan_ok=True)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_comparison_is_the_paired_t_test_in_percentage_points() -> None:
    differences = [2.0, 3.0, 1.0, 3.0, 2.0]
    mean = 2.2
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / 4 / 5)
    compared = stats.compare(ARM, BASELINE, alpha=0.05, margin_pp=0.5, num_comparisons=1)
    assert compared.difference.mean == pytest.approx(mean)
    assert compared.difference.low == pytest.approx(mean - stdtrit(4, 0.975) * error)
    assert compared.p_value == pytest.approx(2 * stdtr(4, -mean / error))
    assert compared.p_equivalence == pytest.approx(stdtr(4, (mean - 0.5) / error))


def test_two_one_sided_tests() -> None:
    differences = np.array([0.1, -0.1, 0.05, -0.05, 0.02])
    mean, error = differences.mean(), differences.std(ddof=1) / math.sqrt(5)
    expected = max(stdtr(4, -(mean + 0.5) / error), stdtr(4, (mean - 0.5) / error))
    compared = stats.compare(BASELINE + differences / 100, BASELINE, alpha=0.05, margin_pp=0.5, num_comparisons=1)
    assert compared.p_equivalence == pytest.approx(expected, rel=1e-6)


def test_no_spread_means_no_test() -> None:
    compared = stats.compare(BASELINE + 0.02, BASELINE, alpha=0.05, margin_pp=0.5, num_comparisons=1)
    assert compared.difference.mean == pytest.approx(2.0)
    assert math.isnan(compared.difference.low)
    assert math.isnan(compared.p_value)
    assert math.isnan(compared.p_equivalence)


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_counts_what_could_not_be_computed() -> None:
    assert stats.holm([0.01, math.nan, 0.04]) == pytest.approx([0.03, math.nan, 0.08], nan_ok=True)
    assert stats.holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])
    assert stats.holm([]).size == 0


def test_log_ratio_interval_is_symmetric_on_the_log_scale() -> None:
    interval = stats.log_ratio_interval(np.array([2.0, 4.0, 8.0]), np.array([1.0, 2.0, 2.0]), 0.05)
    assert interval.mean == pytest.approx(16 ** (1 / 3))
    assert interval.low * interval.high == pytest.approx(interval.mean**2)


@pytest.mark.parametrize(
    ("delta", "p_holm", "p_equivalence", "expected"),
    [
        (2.0, 0.01, 0.9, "better"),
        (-2.0, 0.01, 0.9, "worse"),
        (0.1, 0.5, 0.01, "equivalent"),
        (0.2, 0.01, 0.01, "equivalent"),
        (0.2, 0.06, 0.06, "undecided"),
        (0.2, math.nan, math.nan, "undecided"),
    ],
)
def test_verdicts(delta: float, p_holm: float, p_equivalence: float, expected: str) -> None:
    assert stats.verdict(delta, p_holm, p_equivalence, 0.05) == expected


def test_seeds_needed_reach_the_power_in_simulation() -> None:
    generator = np.random.default_rng(0)
    spread = np.array([1.0, -1.0, 0.0, 0.8, 0.7])
    count = int(stats.seeds_needed(spread, 0.5, 0.05))
    effect = max(abs(spread.mean()), 0.5) / spread.std(ddof=1)

    def power(n: int) -> float:
        samples = generator.normal(effect, 1.0, (20_000, n))
        t = samples.mean(axis=1) / (samples.std(axis=1, ddof=1) / math.sqrt(n))
        return float((t > stdtrit(n - 1, 0.975)).mean())

    assert power(count) >= 0.79
    assert power(count - 1) < 0.81


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([100.0, 100.001], 2), ([-1e4, 1e4 + 0.1], 1000)],
    ids=["clear", "hopeless"],
)
def test_seeds_needed_stay_in_range(differences: list[float], expected: int) -> None:
    assert stats.seeds_needed(np.array(differences), 0.5, 0.05) == expected
