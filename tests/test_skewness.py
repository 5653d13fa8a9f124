"""Skewed differences, and the note at verdicts that they make less certain than alpha says."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

import cnn_ablation
from cnn_ablation.analysis import notes, skewness

LONG_TAIL = np.array([-1.0, -0.8, -0.9, -1.1, -0.7, -0.6, -1.2, 5.0, -0.5, -1.3])
EVEN = np.array([-1.0, 1.0, -0.4, 0.4, -0.1, 0.1, -0.7, 0.7, -1.5, 1.5])


@pytest.mark.parametrize("values", [LONG_TAIL, -LONG_TAIL, EVEN, np.stack([LONG_TAIL, EVEN])], ids=str)
def test_skewness_is_fishers_adjusted_one(values: np.ndarray) -> None:
    expected = scipy_stats.skew(values, axis=-1, bias=False)
    assert skewness.skewness(values) == pytest.approx(expected, abs=1e-12)


def test_equal_values_are_not_skewed() -> None:
    assert skewness.skewness(np.full(9, 0.1)) == 0


@pytest.mark.parametrize("number", [8, 20])
def test_standard_error_is_that_of_normal_samples(number: int) -> None:
    samples = np.random.default_rng(1).standard_normal((40_000, number))
    expected = scipy_stats.skew(samples, axis=-1, bias=False).std()
    assert skewness.standard_error(number) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([LONG_TAIL], scipy_stats.skew(LONG_TAIL, bias=False)),
        ([LONG_TAIL, LONG_TAIL, EVEN], 2 / 3 * scipy_stats.skew(LONG_TAIL, bias=False)),
        ([LONG_TAIL, -LONG_TAIL], 0),
        ([EVEN], 0),
        ([LONG_TAIL[:7]], 0),
        ([LONG_TAIL, EVEN[:7]], scipy_stats.skew(LONG_TAIL, bias=False)),
        ([], 0),
    ],
    ids=["one", "mean of three", "opposite", "even", "too few seeds", "an arm with too few seeds", "no arm"],
)
def test_marked_skewness_is_the_mean_over_arms(differences: list[np.ndarray], expected: float) -> None:
    assert skewness.marked(differences) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("num_arms", "num_seeds"), [(1, 8), (9, 10), (30, 20)])
def test_normal_differences_are_rarely_taken_for_skewed(num_arms: int, num_seeds: int) -> None:
    runs = np.random.default_rng(2).standard_normal((2000, 1 + num_arms, num_seeds))
    marked = skewness.marked([runs[:, arm] - runs[:, 0] for arm in range(1, 1 + num_arms)])
    assert 0.005 < np.mean(marked != 0) < 0.06


@pytest.mark.parametrize(
    ("skew", "verdict", "difference", "expected"),
    [
        (1.13, "worse", -2.0, ["differences are skewed (+1.1): worse errs more often than alpha says"]),
        (-0.7, "better", 2.0, ["differences are skewed (-0.7): better errs more often than alpha says"]),
        (-0.7, "better", -0.2, []),  # a loss whose long tail lies below
        (1.13, "better", 2.0, []),
        (1.13, "equivalent", 0.1, ["differences are skewed (+1.1): equivalent errs more often than alpha says"]),
        (1.13, "undecided", -2.0, []),
        (0.0, "worse", -2.0, []),
        (1.13, "undecided", math.nan, []),
    ],
)
def test_note_at_verdicts_against_the_tail(skew: float, verdict: str, difference: float, expected: list[str]) -> None:
    assert list(notes.skewed(skew, verdict, difference)) == expected


def runs_of(arm: str, accuracies: np.ndarray) -> pd.DataFrame:
    seeds = np.arange(len(accuracies))
    columns = {"arm": arm, "knob": arm.partition("=")[0], "level": arm.partition("=")[2], "seed": seeds, "status": "ok"}
    return pd.DataFrame({**columns, "val_accuracy": accuracies, "test_accuracy": accuracies, "train_seconds": 1.0})


def test_the_table_says_where_a_verdict_goes_against_the_tail() -> None:
    baseline = 0.9 + EVEN / 1000
    runs = [runs_of("baseline", baseline), runs_of("k=1", baseline - 0.03 + LONG_TAIL / 500),
            runs_of("k=2", baseline + 0.03 + LONG_TAIL / 500)]  # fmt: skip
    table = cnn_ablation.ablation_table(pd.concat(runs), test="anytime").set_index("arm")
    skew = scipy_stats.skew(LONG_TAIL, bias=False)
    assert table["verdict"].to_dict() == {"baseline": "baseline", "k=1": "worse", "k=2": "better"}
    note = f"differences are skewed ({skew:+.1f}): worse errs more often than alpha says"
    assert note in table["notes"]["k=1"]
    assert "skewed" not in table["notes"]["k=2"] + table["notes"]["baseline"]
