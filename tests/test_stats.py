"""Expected values from formulas written out here, or from published examples."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtr, stdtrit

from cnn_ablation.analysis import stats
from cnn_ablation.config import StatsConfig
from cnn_ablation.study.metric import Metric

BASELINE = np.array([0.90, 0.92, 0.91, 0.93, 0.89])
ARM = np.array([0.92, 0.95, 0.92, 0.96, 0.91])
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)
"""Differences in height of 15 pairs of plants, crossed minus self-fertilised, in eighths of an inch (Fisher 1935)."""


def compare(arm: np.ndarray, baseline: np.ndarray, num_comparisons: int = 1, **settings: Any) -> stats.Comparison:
    return stats.compare(arm, baseline, StatsConfig(**settings), num_comparisons=num_comparisons)


def test_mean_interval_is_the_t_interval() -> None:
    half = stdtrit(4, 0.975) * math.sqrt(sum((x - 0.91) ** 2 for x in BASELINE) / 4) / math.sqrt(5)
    interval = stats.mean_interval(BASELINE, 0.05)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.91, 0.91 - half, 0.91 + half))


def test_prediction_interval_is_that_of_one_further_value() -> None:
    spread = math.sqrt(sum((x - 0.91) ** 2 for x in BASELINE) / 4)
    half = stdtrit(4, 0.975) * spread * math.sqrt(1 + 1 / 5)
    interval = stats.prediction_interval(BASELINE, 0.05)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.91, 0.91 - half, 0.91 + half))


def test_a_prediction_interval_holds_the_next_value_as_often_as_it_says() -> None:
    values = np.random.default_rng(0).normal(size=(20_000, 5))
    found = stats.prediction_interval(values[:, :4], 0.05)
    assert ((found.low <= values[:, 4]) & (values[:, 4] <= found.high)).mean() == pytest.approx(0.95, abs=0.005)


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
    compared = compare(ARM, BASELINE)
    assert compared.difference.mean == pytest.approx(mean)
    assert compared.difference.low == pytest.approx(mean - stdtrit(4, 0.975) * error)
    assert compared.p_value == pytest.approx(2 * stdtr(4, -mean / error))
    assert compared.p_equivalence == pytest.approx(stdtr(4, (mean - 0.5) / error))


def test_two_one_sided_tests() -> None:
    differences = np.array([0.1, -0.1, 0.05, -0.05, 0.02])
    mean, error = differences.mean(), differences.std(ddof=1) / math.sqrt(5)
    expected = max(stdtr(4, -(mean + 0.5) / error), stdtr(4, (mean - 0.5) / error))
    assert compare(BASELINE + differences / 100, BASELINE).p_equivalence == pytest.approx(expected, rel=1e-6)


def test_sign_flip_test_on_fishers_example() -> None:
    """Fisher counts 1,726 of 2^15 sign patterns with a sum at least as extreme: p = 0.0527."""
    compared = compare(DARWIN / 100, np.zeros(15), test="sign_flip")
    assert compared.p_value == pytest.approx(1726 / 2**15)


def test_sign_flip_test_counts_all_sign_patterns_on_both_margins() -> None:
    differences = np.array([0.9, 1.4, 0.2, 1.1])
    patterns = np.array(list(itertools.product([-1, 1], repeat=4)))

    def share(shifted: np.ndarray, sign: int) -> float:
        return float((sign * (patterns * shifted).mean(axis=1) >= sign * shifted.mean() - 1e-12).mean())

    expected = max(share(differences + 0.5, 1), share(differences - 0.5, -1))
    compared = compare(BASELINE[:4] + differences / 100, BASELINE[:4], test="sign_flip")
    assert compared.p_equivalence == pytest.approx(expected)
    assert compared.p_value == pytest.approx(2 / 16)


def test_simultaneous_intervals_are_bonferronis() -> None:
    half = stdtrit(4, 1 - 0.05 / 10 / 2) * np.std([2, 3, 1, 3, 2], ddof=1) / math.sqrt(5)
    compared = compare(ARM, BASELINE, num_comparisons=10, simultaneous=True)
    assert compared.difference.low == pytest.approx(2.2 - half)
    assert compare(ARM, BASELINE, num_comparisons=10).difference.low > compared.difference.low


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 1, 0, 3]], ids=["pairing pays", "pairing does not pay"])
def test_what_pairing_did_to_the_width_of_the_interval(order: list[int]) -> None:
    arm = ARM[order]
    first, second = np.var(arm, ddof=1) / 5, np.var(BASELINE, ddof=1) / 5
    freedom = (first + second) ** 2 / (first**2 / 4 + second**2 / 4)  # Welch's
    paired = stdtrit(4, 0.975) * np.std(arm - BASELINE, ddof=1) / math.sqrt(5)
    expected = paired / (stdtrit(freedom, 0.975) * math.sqrt(first + second))
    assert compare(arm, BASELINE).widened == pytest.approx(expected)
    assert (expected > 1) == (order[0] == 4)


@pytest.mark.parametrize("test", ["t", "sign_flip", "anytime"])
def test_equal_differences_of_zero_prove_nothing_and_others_only_by_sign(test: str) -> None:
    compared = compare(BASELINE + 0.02, BASELINE, test=test)
    assert compared.difference.mean == pytest.approx(2.0)
    assert math.isnan(compared.difference.low)
    assert compared.p_value == pytest.approx(math.nan if test != "sign_flip" else 2 / 2**5, nan_ok=True)
    same = compare(BASELINE, BASELINE, test=test)
    assert same.p_value == pytest.approx(math.nan if test != "sign_flip" else 1.0, nan_ok=True)


@pytest.mark.parametrize(("num_seeds", "smallest"), [(1, 1.0), (2, 0.5), (5, 0.0625), (6, 0.03125)])
def test_smallest_p_value_of_the_sign_flip_test_is_reached_by_equal_signs(num_seeds: int, smallest: float) -> None:
    assert stats.smallest_p_value("sign_flip", num_seeds) == smallest
    if num_seeds > 1:
        values = np.arange(1.0, num_seeds + 1) / 100
        assert compare(values, np.zeros(num_seeds), test="sign_flip").p_value == pytest.approx(smallest)


def test_fewest_seeds_that_can_reach_a_level() -> None:
    assert stats.fewest_seeds("sign_flip", 0.05) == 6
    assert stats.fewest_seeds("sign_flip", 0.05 / 9) == 9
    assert stats.fewest_seeds("t", 0.05 / 9) == 2


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
    assert stats.verdict(Metric("test_accuracy"), delta, p_holm, p_equivalence, 0.05) == expected


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ((0.05 / 3, 0.05 / 3), [(0.2, "undecided"), (math.nan, "undecided"), (0.06, "undecided")]),
        ((0.05 / 2, 0.05 / 3), [(0.2, "undecided"), (0.2, "undecided"), (0.01, "worse")]),
        ((0.05 / 1, 0.05 / 2), [(0.2, "undecided"), (0.01, "better"), (0.01, "equivalent")]),
        ((0.05 / 2, 0.05 / 1), [(0.2, "undecided"), (0.3, "equivalent")]),
        ((0.05, 0.05), []),
    ],
    ids=["all open", "a difference", "both in one arm", "an equivalence", "none"],
)
def test_what_is_rejected_frees_its_share_of_alpha(
    expected: tuple[float, float], found: list[tuple[float, str]]
) -> None:
    assert stats.next_levels(found, 0.05) == pytest.approx(expected)
    left = [p for p, _ in found if not p <= 0.05]
    if left and not any(map(math.isnan, left)):  # Holm's method on what is left agrees
        just, above = (stats.holm([factor * expected[0], *[0.9] * (len(left) - 1)])[0] for factor in (0.999, 1.001))
        assert just <= 0.05 < above
