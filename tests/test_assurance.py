"""How many seeds decide: against studies drawn one by one, and against a closed form where much is known."""

from __future__ import annotations

import math
from typing import Any

import calibration_seeds as simulated
import numpy as np
import pandas as pd
import pytest
from scipy import optimize
from scipy import stats as scipy_stats

from cnn_ablation import ablation_table
from cnn_ablation.analysis import anytime, assurance
from cnn_ablation.analysis.assurance import WIDEST, SeedsNeeded, seeds_needed
from cnn_ablation.config import StatsConfig

FIVE = np.array([1.0, -1.0, 0.0, 0.8, 0.7])
SMALL = np.array([0.3, -0.2, 0.1, 0.4, -0.3])


def needed(differences: Any, num_comparisons: int = 1, **settings: Any) -> SeedsNeeded:
    level = 0.05 / num_comparisons
    return seeds_needed(np.asarray(differences), StatsConfig(**settings), (level, level))


def futures(differences: np.ndarray, num_seeds: int, count: int) -> np.ndarray:
    """The seeds there are, continued by draws from the posterior predictive distribution, (count, num_seeds)."""
    generator, n = np.random.default_rng(1), len(differences)
    variances = (n - 1) * differences.var(ddof=1) / generator.chisquare(n - 1, count)
    means = generator.normal(differences.mean(), np.sqrt(variances / n))
    further = generator.normal(means[:, None], np.sqrt(variances)[:, None], (count, num_seeds - n))
    return np.concatenate([np.broadcast_to(differences, (count, n)), further], axis=1)


def share_decided(values: np.ndarray, level: float, margin: float, test: str) -> float:
    """Of studies (count, n), judged with scipy's t test or with the p-values that always hold."""

    def p_value(shift: float, side: str) -> np.ndarray:
        if test == "anytime":
            return np.asarray(anytime.p_value(values + shift, side))
        return np.asarray(scipy_stats.ttest_1samp(values, -shift, axis=-1, alternative=side).pvalue)

    differs = p_value(0.0, "two-sided") <= level
    return float((differs | (np.maximum(p_value(margin, "greater"), p_value(-margin, "less")) <= level)).mean())


@pytest.mark.parametrize(
    ("differences", "margin", "num_comparisons", "test"),
    [
        (FIVE, 0.5, 1, "t"),
        (FIVE[:3], 1.5, 1, "t"),
        (FIVE + 1, 0.1, 9, "t"),
        (SMALL, 0.5, 9, "t"),
        (FIVE + 1, 0.5, 4, "anytime"),
        (SMALL, 0.6, 4, "anytime"),
    ],
    ids=[
        "both verdicts",
        "three seeds",
        "a difference",
        "equivalence",
        "a difference, anytime",
        "equivalence, anytime",
    ],
)
def test_half_and_four_fifths_of_what_is_possible_are_decided(
    differences: np.ndarray, margin: float, num_comparisons: int, test: str
) -> None:
    """With the number tried before, one or 6 % less, fewer."""
    level = 0.05 / num_comparisons
    found = needed(differences, num_comparisons, margin_pp=margin, test=test)
    assert len(differences) < found.low < found.high < 250
    for number, share in ((found.low, 0.5), (found.high, 0.8)):
        drawn = futures(differences, int(number), 2000)
        assert share_decided(drawn, level, margin, test) > share - 0.03
        before = min(int(number) - 1, int(number / 1.05))
        assert before < len(differences) or share_decided(drawn[:, :before], level, margin, test) < share + 0.03


def test_many_seeds_leave_the_closed_form_of_a_known_spread() -> None:
    """After n seeds with mean d, the mean of N is normal around d with variance 1/n - 1/N, in units of the spread."""
    n, level = 200, 1e-6
    values = np.random.default_rng(0).normal(size=n)
    values = 0.3 + (values - values.mean()) / values.std(ddof=1)
    critical = scipy_stats.norm.isf(level / 2)

    def lacking(number: float, share: float) -> float:
        error = math.sqrt(1 / n - 1 / number)
        return float(scipy_stats.norm.sf((critical / math.sqrt(number) - 0.3) / error) - share)

    expected = [optimize.brentq(lacking, n + 1, 10**5, args=(share,)) for share in (0.5, 0.8)]
    found = needed(values, num_comparisons=round(0.05 / level), margin_pp=1e-6)
    assert expected[1] < 1000
    assert [found.low, found.high] == pytest.approx(expected, rel=0.09)


@pytest.mark.parametrize(
    ("differences", "settings", "low", "high"),
    [
        ([100.0, 100.001], {}, 3, 3),
        ([100.0, 100.001], {"test": "sign_flip"}, 6, 6),
        ([100.0, 100.001, 100.002], {"test": "anytime"}, 4, 4),
        ([1.0, -1.0] * 100, {"metric": "val_loss"}, 1000, 1000),
        ([1.0, 1.0], {}, math.nan, math.nan),
        ([1.0], {}, math.nan, math.nan),
        ([], {}, math.nan, math.nan),
    ],
    ids=["clear", "clear, sign flips", "clear, anytime", "hopeless", "no spread", "one seed", "none"],
)
def test_numbers_at_their_ends(differences: list[float], settings: dict[str, Any], low: float, high: float) -> None:
    found = needed(differences, **settings)
    assert (found.low, found.high) == pytest.approx((low, high), nan_ok=True)


def test_three_seeds_that_contradict_each_other_cannot_say() -> None:
    values = np.array([0.9, -0.6, 0.8])
    found = needed(values, margin_pp=0.01)
    assert math.isnan(found.high)
    assert share_decided(futures(values, int(WIDEST * found.low), 4000), 0.05, 0.01, "t") < 0.8


@pytest.mark.parametrize("test", ["t", "sign_flip", "anytime"])
def test_many_arms_at_once_are_computed_as_each_alone(test: str) -> None:
    arms = np.random.default_rng(0).normal(0.4, 1.0, (2, 70, 4))
    together = needed(arms, 9, test=test)
    assert together.low.shape == together.high.shape == (2, 70)
    assert np.isfinite(together.high).any()
    for place in ((0, 0), (1, 3), (1, 69)):
        alone = needed(arms[place], 9, test=test)
        assert (together.low[place], together.high[place]) == pytest.approx((alone.low, alone.high), nan_ok=True)


@pytest.mark.parametrize("test", ["t", "anytime"])
@pytest.mark.parametrize("factor", [-1.0, 1e-9, -1e9])
def test_neither_unit_nor_direction_matters(factor: float, test: str) -> None:
    found = needed(factor * FIVE, metric="y", margin=0.5 * abs(factor), test=test)
    assert found == needed(FIVE, metric="y", margin=0.5, test=test)


def test_draws_are_made_once_for_all_levels_and_tests() -> None:
    """They depend on the number of seeds alone; levels change from round to round."""
    assurance._futures.cache_clear()
    assurance._paths.cache_clear()
    found = [needed(FIVE + 1, number, test=test) for number in (1, 4, 9) for test in ("t", "anytime")]
    assert len(set(found)) > 3
    assert assurance._paths.cache_info().misses == 1


def test_evidence_of_one_side_that_was_there_once_is_kept() -> None:
    """Far above minus the margin at first, then not: the always valid test needs only the other side still."""
    values = np.array([0.30, 0.31, 0.29, 0.30, 0.305, -0.9, 0.9])
    low = anytime.p_value(values + 0.5, "greater")
    assert low <= 0.05 < anytime.p_value(values[::-1] + 0.5, "greater")
    first, last = (needed(order, margin_pp=0.5, test="anytime") for order in (values, values[::-1]))
    assert first.low < last.low


def test_of_studies_that_follow_the_number_four_of_five_decide() -> None:
    """Of 400, whose share has a standard error of 2 %."""
    found = simulated.simulate(simulated.Cell(5, 4), 600)
    given = found.given
    assert given.sum() > 300
    assert 0.75 < found.decided[given].mean() < 0.92
    assert 0.42 < found.decided_at_low[given].mean() < 0.7


def test_the_simulation_asks_for_the_seeds_that_a_table_asks_for() -> None:
    """One study of three arms, by `ablation_table` and by the benchmark."""
    generator = np.random.default_rng(3)
    figures = 0.9 + 0.01 * generator.normal([[0.0], [0.5], [6.0], [0.0]], 1.0, (4, 5))
    names = ["baseline", "k=1", "k=2", "k=3"]
    runs = pd.DataFrame(
        {"arm": name, "knob": "k", "level": name, "seed": seed, "status": "ok", "val_accuracy": 0.5,
         "test_accuracy": figure, "train_seconds": 1.0}
        for name, row in zip(names, figures, strict=True) for seed, figure in enumerate(row)
    )  # fmt: skip
    arms = ablation_table(runs, reserve=0).set_index("arm").loc[names[1:]]
    baseline = np.broadcast_to(figures[:1], (1, 3, 5))
    judged = simulated._judged(figures[None, 1:], baseline, np.full((1, 3), 5), StatsConfig())
    assert judged[0, 0].tolist() == arms["p_holm"].tolist()
    assert simulated._decided(judged, 0.05)[0].tolist() == (arms["verdict"] != "undecided").tolist()
    low, high = simulated._seeds_needed(figures[None, 1:], baseline, judged, StatsConfig())
    is_open = arms["verdict"] == "undecided"
    assert is_open.tolist() == [True, False, True]
    assert low[0][is_open].tolist() == arms["seeds_needed_low"][is_open].tolist()
    np.testing.assert_array_equal(high[0][is_open], arms["seeds_needed"][is_open])


@pytest.mark.parametrize("margin", [None, 0.5], ids=["without-margin", "with-margin"])
def test_arms_are_counted_together_as_each_alone(margin: float | None) -> None:
    """Draw by draw and number by number, as the definition says, for arms that are decided early, late and never."""
    futures = assurance._futures(5, "t", (0.01, 0.02))
    means = np.array([0.0, 0.05, 0.4, 0.9, 1.5, 4.0, 0.1])
    margins = np.full(7, -math.inf) if margin is None else margin / np.linspace(0.2, 2, 7)
    shown = np.zeros((2, 7), dtype=bool)
    shown[:, -1] = True
    expected = np.full((2, 7), math.inf)
    for arm, (mean, width) in enumerate(zip(means, margins, strict=True)):
        for place in reversed(range(len(futures.numbers))):
            inside = (shown[0, arm] | (mean + width >= futures.inner_above[place])) & (
                shown[1, arm] | (mean - width <= futures.inner_below[place])
            )
            share = np.mean((mean >= futures.above[place]) | (mean <= futures.below[place]) | inside)
            expected[np.array(assurance.SHARES) <= share, arm] = futures.numbers[place]
    assert assurance._first_numbers(means, margins, shown, futures).tolist() == expected.tolist()
    assert np.isfinite(expected).any(axis=1).all()
