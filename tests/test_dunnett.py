"""Dunnett's test against scipy's, the t test, simulation, and published critical values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import calibration_dunnett as simulated
import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from cnn_ablation import ablation_table
from cnn_ablation.analysis import assurance, dunnett
from cnn_ablation.analysis.dunnett import Null, many_to_one
from cnn_ablation.analysis.stats import Comparison, compare, verdicts
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.config import StatsConfig
from cnn_ablation.report.__main__ import main as report
from cnn_ablation.report.caption import caption
from cnn_ablation.report.text import readable_table

BASELINE = np.array([0.900, 0.904, 0.897, 0.902, 0.899])
WOBBLE = np.array([1.0, -1.0, 0.5, -0.6, 0.1]) * 0.004


def judged(arms: list[np.ndarray], baseline: np.ndarray, **settings: Any) -> list[tuple[Comparison, float, str]]:
    """In the unit of the values."""
    return dunnett.judged(many_to_one(arms, baseline), StatsConfig(metric="y", **settings))


def samples(*sizes: int) -> list[np.ndarray]:
    generator = np.random.default_rng(len(sizes))
    return [generator.normal(0.5 * place, 1.0, size) for place, size in enumerate(sizes)]


@pytest.mark.parametrize("sizes", [(5, 5), (5, 5, 5, 5), (3, 8, 5, 2), (30, 3, 3), (3, 3, 3, 3, 3, 3)], ids=str)
def test_p_values_and_intervals_are_scipys(sizes: tuple[int, ...]) -> None:
    """Which draws points at random; its limits are found to 1e-3."""
    baseline, *arms = samples(*sizes)
    expected = scipy_stats.dunnett(*arms, control=baseline, random_state=np.random.default_rng(0))
    limits = expected.confidence_interval(0.95)
    found = judged(arms, baseline, simultaneous=True)
    assert [p for _, p, _ in found] == pytest.approx(expected.pvalue.tolist(), abs=5e-4)
    assert [one.difference.low for one, _, _ in found] == pytest.approx(limits.low.tolist(), abs=0.01)
    assert [one.difference.high for one, _, _ in found] == pytest.approx(limits.high.tolist(), abs=0.01)


@pytest.mark.parametrize(
    ("expected", "num_arms", "freedom"),
    [(2.57, 1, 5), (3.03, 2, 5), (3.29, 3, 5), (2.73, 5, 20), (2.51, 4, 60)],
)
def test_critical_values_are_those_of_dunnetts_table(expected: float, num_arms: int, freedom: int) -> None:
    """Two-sided, 5 %, groups of equal size (Dunnett 1964, as textbooks print it)."""
    assert Null((4,) * num_arms, 4, freedom).critical(0.05) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("freedom", [1, 2, 8, 200])
def test_one_arm_is_the_t_test_of_two_samples(freedom: int) -> None:
    null = Null((7,), 4, freedom)
    for limit in (0.5, 2.5, 6.0):
        assert null.two_sided(limit) == pytest.approx(2 * scipy_stats.t.sf(limit, freedom), abs=1e-4)
        assert null.one_sided(limit) == pytest.approx(scipy_stats.t.sf(limit, freedom), abs=1e-4)


@pytest.mark.parametrize("counts", [(5, 5, 5), (4, 4, 4, 4), (2, 2, 9, 9, 9)], ids=str)
def test_no_choice_of_sides_is_out_more_often_than_the_correction_of_equivalence_allows(
    counts: tuple[int, ...],
) -> None:
    """200,000 draws of the statistics; the arms' true differences lie at the one or the other margin."""
    generator, size, freedom = np.random.default_rng(0), 100_000, sum(counts)
    scale = np.sqrt(generator.chisquare(freedom, size) / freedom)
    own = [generator.normal(0, 1 / math.sqrt(count), size) for count in (5, *counts)]
    errors = [math.sqrt(1 / count + 1 / 5) for count in counts]
    statistics = np.array([(one - own[0]) / error / scale for one, error in zip(own[1:], errors, strict=True)])
    limit = Null(counts, 5, freedom).critical(0.05, "one_sided")
    shares = []
    for pattern in range(2 ** (len(counts) - 1)):
        sides = np.array([1 - 2 * (pattern >> place & 1) for place in range(len(counts))])
        shares.append((sides[:, None] * statistics > limit).any(axis=0).mean())
    assert max(shares) < 0.05 + 0.002
    assert max(shares) > 0.04  # and not far more than needed


def test_uncorrected_p_values_and_intervals_have_the_variance_of_all_arms() -> None:
    baseline, *arms = samples(4, 6, 3)
    spread = math.sqrt(sum(((one - one.mean()) ** 2).sum() for one in (baseline, *arms)) / (3 + 5 + 2))
    for arm, (found, _, _) in zip(arms, judged(arms, baseline), strict=True):
        error = spread * math.sqrt(1 / len(arm) + 1 / 4)
        difference = arm.mean() - baseline.mean()
        assert found.p_value == pytest.approx(2 * scipy_stats.t.sf(abs(difference) / error, 10))
        assert found.difference.low == pytest.approx(difference - scipy_stats.t.isf(0.025, 10) * error)


def test_simultaneous_intervals_and_verdicts_agree() -> None:
    baseline, *arms = samples(6, 6, 6, 6, 6, 6)
    found = judged(arms, baseline, simultaneous=True)
    excludes_zero = [one.difference.low > 0 or one.difference.high < 0 for one, _, _ in found]
    assert excludes_zero == [p <= 0.05 for _, p, _ in found]
    assert {verdict for _, _, verdict in found} == {"better", "undecided"}


def table(**settings: Any) -> pd.DataFrame:
    arms = {
        "baseline": BASELINE, "k=up": BASELINE[::-1] + 0.03, "k=same": BASELINE[[1, 0, 3, 2, 4]],
        "k=open": BASELINE + 0.004 + WOBBLE, "k=one": BASELINE[:1] - 0.03, "k=none": np.full(1, np.nan),
    }  # fmt: skip
    rows = [
        {"arm": name, "knob": "k", "level": name, "seed": seed, "status": "failed" if np.isnan(value) else "ok",
         "val_accuracy": 0.5, "test_accuracy": value, "train_seconds": 1.0}
        for name, values in arms.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_table_of_a_study_with_arms_of_five_runs_of_one_and_of_none() -> None:
    runs = table()
    arms = ablation_table(runs, test="dunnett", margin_pp=0.7, reserve=0)
    by_arm = arms.set_index("arm")
    assert by_arm["verdict"].to_dict() == {
        "baseline": "baseline", "k=up": "better", "k=same": "equivalent", "k=open": "undecided", "k=one": "worse",
        "k=none": "undecided",
    }  # fmt: skip
    assert by_arm["notes"]["k=none"].endswith("no run to compare")
    assert by_arm.loc["k=none", ["p_value", "p_holm", "delta_pp", "seeds_needed"]].isna().all()
    values = [runs["test_accuracy"][runs["arm"] == name].to_numpy() for name in by_arm.index[1:5]]
    expected = scipy_stats.dunnett(*values, control=BASELINE, random_state=np.random.default_rng(0))
    assert (by_arm["p_holm"][1:5] >= expected.pvalue - 1e-4).all()  # the arm without runs counts too
    assert by_arm["p_holm"]["k=open"] < 5 / 4 * expected.pvalue[2]
    readable = readable_table(arms)
    assert readable.columns[4] == "p (Dunnett)"
    assert readable["more seeds"].tolist()[3]
    text = caption(runs, arms, StatsConfig(test="dunnett", margin_pp=0.7))
    assert "not paired, with individual intervals, Dunnett's test with one variance for all arms over 5 comp" in text
    assert "Holm" not in text.replace("Holm's correction over 3 comparisons of times", "")
    pd.testing.assert_frame_equal(arms, ablation_table(runs, test="dunnett", margin_pp=0.7, reserve=0))


def test_an_arm_that_scatters_more_than_the_others_is_named() -> None:
    runs = table()[lambda frame: frame["arm"] != "k=none"]
    wide = runs["arm"] == "k=same"
    runs.loc[wide, "test_accuracy"] = 0.9 + 4 * (runs["test_accuracy"][wide] - 0.9)
    others = [group.to_numpy() for name, group in runs.groupby("arm")["test_accuracy"] if name != "k=same"]
    pooled = math.sqrt(sum(((one - one.mean()) ** 2).sum() for one in others) / sum(len(one) - 1 for one in others))
    ratio = runs["test_accuracy"][wide].std(ddof=1) / pooled
    arms = ablation_table(runs, test="dunnett").set_index("arm")
    words = f"scatters {ratio:.1f} times as much as the other arms: dunnett supposes that all scatter alike"
    assert arms["notes"].tolist().count("") == 4
    assert arms["notes"]["k=same"] == words
    assert "scatters" not in " ".join(ablation_table(runs)["notes"])


def test_the_simulation_judges_as_the_package_does() -> None:
    studies = simulated._runs(np.random.default_rng(0), (20, 4, 5), simulated.NOISES[0])
    studies[:, 1] += 2.0
    for study, pairs, at_once in zip(studies, simulated.by_holm(studies), simulated.by_dunnett(studies), strict=True):
        compared = [compare(arm, study[0], StatsConfig(metric="y"), num_comparisons=4) for arm in study[1:]]
        words = {"better": 1, "worse": -1, "undecided": 0}
        assert pairs.tolist() == [words[word] for _, word in verdicts(compared, StatsConfig(metric="y"))]
        assert at_once.tolist() == [words[word] for _, _, word in judged(list(study[1:]), study[0])]


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_without_spread_there_is_no_test(num_seeds: int) -> None:
    rows = [
        {"arm": arm, "knob": "k", "level": arm, "seed": seed, "status": "ok", "val_accuracy": 0.5,
         "test_accuracy": 0.1 + 0.2 * number, "train_seconds": 1.0}
        for number, arm in enumerate(("baseline", "k=1", "k=2")) for seed in range(num_seeds)
    ]  # fmt: skip
    arms = ablation_table(pd.DataFrame(rows), test="dunnett")
    assert arms["delta_pp"].tolist()[1:] == pytest.approx([20.0, 40.0])
    assert arms[["p_value", "p_holm", "delta_ci_low_pp", "seeds_needed"]].isna().all(axis=None)
    assert arms["notes"].tolist()[1:] == ["no seeds that differ in any arm: no test possible"] * 2


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 0, "Dunnett's test with one variance for all arms over 5 comparisons at 0.05"),
        (["--metric", "train_seconds"], 2, "times are compared in pairs of like runs"),
    ],
    ids=["accuracies", "times"],
)
def test_a_report_with_dunnetts_test(
    options: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table().to_csv(tmp_path / "runs.csv", index=False)
    arguments = ["--runs", str(tmp_path / "runs.csv"), "--out", str(tmp_path / "out"), "--test", "dunnett", *options]
    assert report(arguments) == code
    assert words in " ".join("".join(capsys.readouterr()).split())
    assert (tmp_path / "out" / "ablation.csv").exists() == (code == 0)


def test_times_have_no_dunnett_test() -> None:
    with pytest.raises(ConfigError) as caught:
        ablation_table(table(), test="dunnett", metric="train_seconds")
    assert str(caught.value).splitlines()[1:] == [
        "  allowed: t, sign_flip, anytime with metric=train_seconds: times are compared in pairs of like runs",
        "  remedy: test=t",
    ]


def test_half_and_four_fifths_of_what_is_possible_are_decided() -> None:
    """Three arms of five seeds, continued by draws from the posterior; the first of them is watched."""
    family = many_to_one([BASELINE + 0.003 + WOBBLE, BASELINE[::-1], BASELINE + WOBBLE], BASELINE, 100)
    settings = StatsConfig(test="dunnett")
    found = assurance.seeds_needed_at_once(family, settings)[0]
    assert 5 < found.low < found.high < 100
    generator, size, freedom = np.random.default_rng(0), 20_000, family.null.freedom
    for number, share in ((found.low, 0.5), (found.high, 0.8)):
        further, total = number - 5, 4 * (int(number) - 1)
        sigma = family.spread * np.sqrt(freedom / generator.chisquare(freedom, size))
        error = np.sqrt(2) * sigma
        truth = generator.normal(family.differences[0], error / math.sqrt(5))
        means = (5 * family.differences[0] + further * generator.normal(truth, error / math.sqrt(further))) / number
        squares = freedom * family.spread**2 + sigma**2 * generator.chisquare(4 * further, size)
        errors = np.sqrt(squares / total * 2 / number)
        null = Null((int(number),) * 3, int(number), total)
        differs = np.abs(means) / errors > null.critical(0.05)
        is_equivalent = (0.5 - np.abs(means)) / errors > null.critical(0.05, "one_sided")
        assert share - 0.02 < (differs | is_equivalent).mean() < share + 0.06
