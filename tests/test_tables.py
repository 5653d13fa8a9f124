from __future__ import annotations

import gc
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

import cnn_ablation
from cnn_ablation.analysis import assurance, tables
from cnn_ablation.analysis.tables.finished import _no_search_for_garbage
from cnn_ablation.common.errors import RecordError
from cnn_ablation.config import StatsConfig
from cnn_ablation.report.files import as_csv
from cnn_ablation.runs.records import Run, record_path, write_run
from cnn_ablation.study.designs import Arm
from cnn_ablation.study.plans import PathStep, Plan, write_plan

SEEDS = range(5)
NOISE = np.array([0.0, 0.004, -0.003, 0.002, -0.001])


def runs_of(arm: str, accuracies: np.ndarray, seconds: float = 10.0, **columns: object) -> pd.DataFrame:
    knob, _, level = arm.partition("=")
    return pd.DataFrame(
        {
            "arm": arm,
            "knob": "" if arm == "baseline" else knob,
            "level": level,
            "seed": list(SEEDS)[: len(accuracies)],
            "status": "ok",
            "val_accuracy": accuracies - 0.01,
            "test_accuracy": accuracies,
            "train_seconds": seconds,
            **columns,
        }
    )


BASELINE = runs_of("baseline", 0.90 + NOISE)


def table(*arms: pd.DataFrame, **settings: float) -> pd.DataFrame:
    return cnn_ablation.ablation_table(pd.concat(arms, ignore_index=True), **settings).set_index("arm")


def test_the_columns_are_those_of_the_contract() -> None:
    assert tables.ARM_COLUMNS == (
        "arm", "knob", "level", "n", "val_accuracy_mean", "test_accuracy_mean", "test_accuracy_std",
        "test_accuracy_ci_low", "test_accuracy_ci_high", "delta_pp", "delta_ci_low_pp", "delta_ci_high_pp", "p_value",
        "p_holm", "verdict", "seeds_needed_low", "seeds_needed", "seed_correlation", "train_seconds_mean", "time_ratio",
        "time_ratio_ci_low", "time_ratio_ci_high", "time_verdict", "images_per_second_mean", "num_params", "updates",
        "num_failed", "notes",
    )  # fmt: skip
    assert tuple(cnn_ablation.ablation_table(BASELINE).columns) == tables.ARM_COLUMNS


@pytest.mark.parametrize(
    ("shift", "wobble", "verdict"),
    [(0.05, 0.001, "better"), (-0.05, 0.001, "worse"), (0.0, 0.0002, "equivalent"), (0.01, 0.02, "undecided")],
)
def test_verdicts_from_differences(shift: float, wobble: float, verdict: str) -> None:
    arm = runs_of("k=v", 0.90 + NOISE + shift + wobble * np.array([1, -1, 0.5, -0.5, 0.1]))
    row = table(BASELINE, arm).loc["k=v"]
    assert row["verdict"] == verdict
    assert row["delta_pp"] == pytest.approx(100 * (shift + wobble * 0.02))
    assert row["delta_ci_low_pp"] < row["delta_pp"] < row["delta_ci_high_pp"]


def test_a_verdict_holds_over_all_comparisons_of_the_study() -> None:
    """A difference with p = 0.03 is a verdict alone, and none among six arms."""
    wobble = np.array([1, -1, 0.6, -0.4, 0.2]) * 0.008
    promising = runs_of("k=0", BASELINE["test_accuracy"].to_numpy() + 0.012 + wobble)
    alone = table(BASELINE, promising).loc["k=0"]
    assert 0.01 < alone["p_value"] < 0.05
    assert (alone["verdict"], alone["p_holm"]) == ("better", alone["p_value"])
    others = [runs_of(f"k={i}", 0.90 + NOISE[::-1] + 0.0001 * i) for i in range(1, 6)]
    together = table(BASELINE, promising, *others).loc["k=0"]
    assert together["p_holm"] == pytest.approx(6 * alone["p_value"])
    assert together["verdict"] == "undecided"


def test_pairing_is_by_seed_whatever_the_order_of_rows() -> None:
    arm = runs_of("k=v", 0.92 + 2 * NOISE)
    shuffled = arm.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(table(BASELINE, arm), table(shuffled, BASELINE))


def test_time_ratio_is_paired_and_geometric() -> None:
    arm = runs_of("k=v", 0.9 + 2 * NOISE, seconds=20.0)
    arm["train_seconds"] = [20.0, 40.0, 10.0, 20.0, 20.0]
    row = table(BASELINE, arm).loc["k=v"]
    assert row["time_ratio"] == pytest.approx(2.0)
    assert row["time_ratio_ci_low"] * row["time_ratio_ci_high"] == pytest.approx(4.0)


def test_failed_runs_are_counted_and_diverged_runs_score() -> None:
    arm = runs_of("k=v", 0.9 + 2 * NOISE, epochs=[3, 3, 2, 3, 3])
    arm["status"] = ["ok", "failed", "diverged", "ok", "ok"]
    arm.loc[1, ["test_accuracy", "val_accuracy", "train_seconds"]] = math.nan
    arm.loc[2, "test_accuracy"] = 0.1
    row = table(BASELINE, arm).loc["k=v"]
    assert (row["n"], row["num_failed"]) == (4, 1)
    assert row["test_accuracy_mean"] == pytest.approx((0.9 + 0.1 + 0.904 + 0.898) / 4)
    assert row["notes"] == "1 of 5 runs diverged at epoch 2; 1 of 5 runs failed"


@pytest.mark.parametrize(
    ("columns", "baseline_columns", "note"),
    [
        ({"updates": 25}, {"updates": 100}, "4x fewer updates"),
        ({"updates": 300}, {"updates": 100}, "3x more updates"),
        ({"num_params": 118}, {"num_params": 100}, "+18 % parameters"),
    ],
)
def test_confounds_are_named(columns: dict[str, int], baseline_columns: dict[str, int], note: str) -> None:
    arm, base = runs_of("k=v", 0.9 + 2 * NOISE, **columns), runs_of("baseline", 0.9 + NOISE, **baseline_columns)
    assert table(base, arm).loc["k=v", "notes"] == note


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_seeds_say_so(count: int) -> None:
    arm = runs_of("k=v", (0.9 + 2 * NOISE)[:1])
    if count == 0:
        arm["seed"] = 99
    row = table(BASELINE, arm).loc["k=v"]
    assert row["verdict"] == "undecided"
    assert "to compare: a verdict needs two or more" in row["notes"]


def test_equal_differences_say_that_no_test_is_possible() -> None:
    row = table(BASELINE, runs_of("k=v", BASELINE["test_accuracy"].to_numpy())).loc["k=v"]
    assert (row["verdict"], row["delta_pp"]) == ("undecided", 0)
    assert row["notes"] == "the same difference for every seed: no test possible"


def test_extra_columns_are_optional_and_missing_ones_are_named() -> None:
    with pytest.raises(RecordError, match="lacks the columns status, train_seconds"):
        cnn_ablation.ablation_table(BASELINE.drop(columns=["status", "train_seconds"]))
    with pytest.raises(RecordError, match="no finished run of the arm 'baseline'"):
        cnn_ablation.ablation_table(runs_of("k=v", 0.9 + NOISE))


def plan_of(arms: list[str], seeds: list[int], epochs: int = 1, **fields: Any) -> Plan:
    return Plan("one_at_a_time", {}, ["k"], [Arm(name) for name in arms], seeds, {"train.epochs": epochs}, **fields)


def write_study(folder: Path, arms: list[str], seeds: list[int]) -> None:
    write_plan(folder, plan_of(arms, seeds))
    for number, (seed, arm) in enumerate((seed, arm) for seed in seeds for arm in arms):
        knob, _, level = arm.partition("=")
        run = Run(arm, knob if level else "", level, seed, "ok", test_accuracy=0.9, settings={"k": level or "base"})
        write_run(record_path(folder / str(number), seed), run)


def test_runs_are_loaded_arm_by_arm_with_a_column_per_swept_key(tmp_path: Path) -> None:
    write_study(tmp_path, ["baseline", "k=v"], [0, 1])
    runs = cnn_ablation.load_runs(tmp_path)
    assert list(zip(runs["arm"], runs["seed"], runs["k"], strict=True)) == [
        ("baseline", 0, "base"),
        ("baseline", 1, "base"),
        ("k=v", 0, "v"),
        ("k=v", 1, "v"),
    ]


def test_a_damaged_record_is_named_and_the_others_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path, ["baseline", "k=v"], [0, 1])
    damaged = record_path(tmp_path / "1", 0)
    damaged.write_text("{")
    assert len(cnn_ablation.load_runs(tmp_path)) == 3
    assert f"{damaged} is damaged" in capsys.readouterr().err


def test_records_outside_the_plan_do_not_enter_its_table(tmp_path: Path) -> None:
    write_study(tmp_path, ["baseline", "k=v", "k=w"], [0, 1])
    (tmp_path / "study.yaml").unlink()
    write_plan(tmp_path, plan_of(["baseline", "k=w"], [1]))
    runs = cnn_ablation.load_runs(tmp_path)
    assert list(zip(runs["arm"], runs["seed"], strict=True)) == [("baseline", 1), ("k=w", 1)]


def test_the_newest_record_of_a_run_counts(tmp_path: Path) -> None:
    """A folder that is used again may hold a record of an earlier attempt under another job's number."""
    write_study(tmp_path, ["baseline"], [0])
    old, new = record_path(tmp_path / "7", 0), record_path(tmp_path / "0", 0)
    write_run(old, Run("baseline", "", "", 0, "failed", error="of old"))
    os.utime(old, ns=(0, new.stat().st_mtime_ns - 1))
    assert cnn_ablation.load_runs(tmp_path)["status"].tolist() == ["ok"]


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda folder: (folder / "study.yaml").unlink(), "is no study: there is no study.yaml"),
        (lambda folder: (folder / "study.yaml").write_text("arms: 3"), "study.yaml is damaged"),
        (lambda folder: [path.unlink() for path in folder.glob("*/run*")], "holds no finished run"),
    ],
)
def test_a_folder_without_a_study_is_refused(tmp_path: Path, breakage: object, message: str) -> None:
    write_study(tmp_path, ["baseline"], [0])
    breakage(tmp_path)  # type: ignore[operator]
    with pytest.raises(RecordError, match=message):
        cnn_ablation.load_runs(tmp_path)


def test_another_baseline_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    write_study(tmp_path, ["baseline"], [0])
    with pytest.raises(RecordError, match=r"train\.epochs: 1 there, 2 here"):
        write_plan(tmp_path, plan_of(["baseline"], [0], epochs=2))
    write_plan(tmp_path, plan_of(["baseline", "more"], [0, 1]))


def test_without_a_baseline_arms_are_compared_with_the_full_configuration() -> None:
    arms = table(runs_of("full without k", 0.85 + NOISE), BASELINE.assign(arm="full"))
    assert list(arms.index) == ["full", "full without k"]
    assert arms["verdict"].tolist() == ["baseline", "undecided"]
    assert arms["delta_pp"]["full without k"] == pytest.approx(-5)


def test_dropped_arms_show_no_test_score_and_are_no_comparison() -> None:
    kept, dropped = runs_of("k=1", 0.95 + NOISE[::-1]), runs_of("k=2", 0.99 + NOISE)
    path = [PathStep("k", "baseline", ["k=1", "k=2"], "k=1")]
    hidden = dropped.assign(test_accuracy=math.nan)
    arms = cnn_ablation.ablation_table(pd.concat([BASELINE, kept, hidden]), path=path).set_index("arm")
    assert arms["p_holm"]["k=1"] == arms["p_value"]["k=1"]
    assert arms["notes"]["k=1"].startswith("step 1: kept, +5.00 pp on validation")
    assert arms["notes"]["k=2"] == "step 1: dropped, +9.00 pp on validation"
    assert arms.loc["k=2", ["n", "verdict"]].tolist() == [5, "undecided"]
    assert arms.loc["k=2", ["test_accuracy_mean", "delta_pp", "p_value", "p_holm"]].isna().all()


def test_a_greedy_study_loads_without_the_test_scores_of_what_it_dropped(tmp_path: Path) -> None:
    write_study(tmp_path, ["baseline", "k=v", "k=w"], [0])
    (tmp_path / "study.yaml").unlink()
    path = [PathStep("k", "baseline", ["k=v", "k=w"], "k=w")]
    write_plan(tmp_path, plan_of(["baseline", "k=v", "k=w"], [0], path=path))
    runs = cnn_ablation.load_runs(tmp_path).set_index("arm")
    assert runs["test_accuracy"].isna().to_dict() == {"baseline": False, "k=v": True, "k=w": False}
    assert runs["test_loss"].isna()["k=v"]


@pytest.mark.parametrize(
    ("columns", "baseline_columns", "note"),
    [
        ({"dead_units": 0.31, "dead_layer": "ReLU units in Activation3"}, {}, "31 % dead ReLU units in Activation3"),
        ({"saturated_outputs": 0.5, "saturated_layer": "Tanh units in Activation1"}, {}, "50 % saturated Tanh units"),
        ({"lowest_train_loss": 2.30, "num_classes": 10}, {}, "loss never left ln 10"),
        ({"double_softmax": True, "num_classes": 10}, {}, "double softmax"),
        ({"initial_gradient_norm": 0.01}, {"initial_gradient_norm": 0.1}, "gradient 10x smaller at the start"),
        ({"train_accuracy": 1.0}, {}, "training accuracy 11 pp above validation"),
        ({"multiply_adds": 200}, {"multiply_adds": 100}, "2x the work per image"),
    ],
    ids=["dead", "saturated", "stuck", "double softmax", "gradient", "gap", "work"],
)
def test_diagnoses_are_named(columns: dict[str, object], baseline_columns: dict[str, object], note: str) -> None:
    plain = table(runs_of("k=v", 0.90 + NOISE[::-1]), BASELINE)["notes"]["k=v"]
    arms = table(runs_of("k=v", 0.90 + NOISE[::-1], **columns), BASELINE.assign(**baseline_columns))
    assert note in arms["notes"]["k=v"]
    assert note not in plain


def test_an_accuracy_interval_ends_at_one() -> None:
    arms = table(runs_of("k=v", np.array([1.0, 0.99, 1.0, 0.98, 1.0])), BASELINE)
    assert arms["test_accuracy_ci_high"]["k=v"] == 1.0
    assert arms["test_accuracy_ci_low"]["k=v"] < 0.99


def test_sign_flips_say_when_no_verdict_is_possible() -> None:
    arms = table(runs_of("k=v", 0.99 + NOISE[::-1]), runs_of("k=w", 0.80 + NOISE[::-1]), BASELINE, test="sign_flip",
                 reserve=0)  # fmt: skip
    assert "no verdict possible with 5 seeds: sign_flip needs 7 here" in arms["notes"]["k=v"]
    assert arms["seeds_needed_low"]["k=v"] >= 7


def test_a_note_says_by_how_much_pairing_widened_the_interval_and_gives_no_second_p_value() -> None:
    """Standard errors from the differences, and from both variances with 8 degrees of freedom, which are alike here."""
    arms = table(runs_of("k=v", 0.91 + NOISE[[1, 2, 3, 4, 0]]), runs_of("k=w", 0.91 + NOISE * 1.1), BASELINE)
    differences = NOISE[[1, 2, 3, 4, 0]] - NOISE
    paired = scipy_stats.t.ppf(0.975, 4) * np.std(differences, ddof=1)
    unpaired = scipy_stats.t.ppf(0.975, 8) * math.sqrt(2) * np.std(NOISE, ddof=1)
    assert arms["notes"]["k=v"] == f"pairing widened the interval by {paired / unpaired:.1f} times"
    assert arms["notes"]["k=w"] == ""


def test_only_an_undecided_arm_needs_seeds() -> None:
    wobble = np.array([1, -1, 0.5, -0.5, 0.1])
    arms = table(BASELINE, runs_of("k=v", 0.95 + NOISE + 0.001 * wobble), runs_of("k=w", 0.91 + NOISE + 0.012 * wobble),
                 reserve=0)  # fmt: skip
    assert arms["verdict"].tolist() == ["baseline", "better", "undecided"]
    assert arms["seeds_needed"].notna().tolist() == arms["seeds_needed_low"].notna().tolist() == [False, False, True]
    differences = 100 * (0.01 + 0.012 * wobble)
    expected = assurance.seeds_needed(differences, StatsConfig(), (0.05 / 1, 0.05 / 2))  # one of two has a difference
    assert tuple(arms.loc["k=w", ["seeds_needed_low", "seeds_needed"]]) == (expected.low, expected.high)


def test_times_of_lone_and_packed_runs_are_not_compared() -> None:
    scores = np.array([0.5, 0.6, 0.55])
    mixed = table(runs_of("baseline", scores, concurrent_runs=2), runs_of("x", scores + 0.1, concurrent_runs=1))
    assert math.isnan(mixed.loc["x", "time_ratio"])
    assert "not compared" in mixed.loc["x", "notes"]
    alike = table(runs_of("baseline", scores, concurrent_runs=2), runs_of("x", scores + 0.1, concurrent_runs=2))
    assert alike.loc["x", "time_ratio"] == pytest.approx(1)
    assert "not compared" not in alike.loc["x", "notes"]


@pytest.mark.parametrize(
    ("test", "val", "count"),
    [
        ([0.9, np.nan, 0.8], [0.9, 0.9, 0.8], 2),
        ([np.nan] * 3, [0.9, np.nan, 0.8], 2),
        ([0.9, 0.8, 0.7], [np.nan] * 3, 3),
    ],
    ids=["a gap", "dropped by validation", "no validation"],
)
def test_n_counts_the_runs_with_a_score(test: list[float], val: list[float], count: int) -> None:
    arm = runs_of("k=v", np.array(test)).assign(val_accuracy=val)
    row = table(BASELINE, arm).loc["k=v"]
    assert row["n"] == count
    assert ("1 of 3 runs without a" in row["notes"]) == (count == 2)
    assert ("no test score: not compared" in row["notes"]) == all(np.isnan(test))


def test_a_difference_of_fewer_seeds_than_the_arm_has_says_so() -> None:
    row = table(BASELINE[:3], runs_of("k=v", 0.93 + NOISE[::-1])).loc["k=v"]
    assert row["n"] == 5
    assert row["delta_pp"] == pytest.approx(100 * np.mean((0.93 + NOISE[::-1] - 0.90 - NOISE)[:3]))
    assert "difference from the 3 of 5 seeds that the baseline has too" in row["notes"]


def test_rows_that_are_there_twice_are_told() -> None:
    again = runs_of("k=v", 0.5 + NOISE[:2])
    row = table(BASELINE, again, runs_of("k=v", 0.93 + NOISE[::-1])).loc["k=v"]
    assert row["test_accuracy_mean"] == pytest.approx(0.93 + NOISE.mean())
    assert "2 rows of the same seed as a later one left out" in row["notes"]


LOSSES = np.array([0.31, 0.29, 0.33, 0.30, 0.32])


def with_losses(arm: str, accuracies: np.ndarray, shift: float = 0.0) -> pd.DataFrame:
    return runs_of(arm, accuracies, train_loss=LOSSES - 0.1, val_loss=LOSSES, test_loss=LOSSES + 0.01 + shift)


def test_runs_equal_to_the_baselines_bit_for_bit_are_no_comparison() -> None:
    """Of three arms only one is really another: its p-value is corrected for one comparison."""
    base, other = with_losses("baseline", 0.90 + NOISE), with_losses("k=2", 0.93 + NOISE[::-1], 0.1)
    idle = [with_losses(f"idle={level}", 0.90 + NOISE) for level in (1, 2)]
    arms = table(base, idle[0], other, idle[1])
    assert arms["p_holm"]["k=2"] == arms["p_value"]["k=2"] > 0
    assert arms["verdict"].tolist() == ["baseline", "undecided", "better", "undecided"]
    for name in ("idle=1", "idle=2"):
        assert arms.loc[name, ["p_value", "p_holm", "delta_pp", "seeds_needed"]].isna().all()
        assert arms["notes"][name] == (
            "its runs are the baseline's bit for bit: the knob did nothing here, so this row is no evidence"
        )
    assert tables.num_comparisons(arms) == 1


def test_runs_equal_to_another_arms_are_compared_once() -> None:
    base, first = with_losses("baseline", 0.90 + NOISE), with_losses("k=1", 0.93 + NOISE[::-1], 0.1)
    arms = table(base, first, first.assign(arm="k=2"))
    assert arms["p_holm"]["k=1"] == arms["p_value"]["k=1"]
    assert math.isnan(arms["p_value"]["k=2"])
    assert arms["notes"]["k=2"] == "its runs are those of k=1 bit for bit: one arm under two names, compared once"
    assert "bit for bit" not in arms["notes"]["k=1"]


@pytest.mark.parametrize(
    ("change", "identical"),
    [
        (lambda arm: arm, True),
        (lambda arm: arm[2:], True),
        (
            lambda arm: arm.assign(status=["ok", "ok", "ok", "ok", "failed"], test_loss=[*arm["test_loss"][:4], 9.0]),
            True,
        ),
        (lambda arm: arm.assign(test_loss=[*arm["test_loss"][:4], np.nextafter(arm["test_loss"][4], 1)]), False),
        (lambda arm: arm.assign(val_accuracy=[*arm["val_accuracy"][:4], 0.1]), False),
        (lambda arm: arm.assign(seed=arm["seed"] + 10), False),
        (lambda arm: arm.drop(columns=["train_loss", "val_loss", "test_loss"]), False),
        (lambda arm: arm.assign(train_loss=np.nan, val_loss=np.nan, test_loss=np.nan), False),
    ],
    ids=["all", "fewer seeds", "one failed", "one bit", "one accuracy", "other seeds", "no losses", "losses missing"],
)
def test_what_bit_for_bit_means(change: Callable[[pd.DataFrame], pd.DataFrame], identical: bool) -> None:
    base, arm = with_losses("baseline", 0.90 + NOISE), change(with_losses("k=v", 0.90 + NOISE))
    arms = table(base, arm)
    assert ("bit for bit" in arms["notes"]["k=v"]) == identical
    assert tables.num_comparisons(arms) == int(not identical)


@pytest.mark.parametrize("loss", [0.0, 0.7], ids=["a perfect fit", "one value"])
def test_losses_that_are_the_same_for_all_seeds_tell_nothing(loss: float) -> None:
    columns = {"train_loss": loss, "val_loss": loss, "test_loss": loss}
    arms = table(runs_of("baseline", 0.90 + NOISE, **columns), runs_of("k=v", 0.90 + NOISE, **columns))
    assert "bit for bit" not in arms["notes"]["k=v"]
    assert tables.num_comparisons(arms) == 1


def test_a_dropped_arm_equal_to_the_baseline_says_so_without_test_figures() -> None:
    hidden = with_losses("k=v", 0.90 + NOISE).assign(test_accuracy=math.nan, test_loss=math.nan)
    path = [PathStep("k", "baseline", ["k=v"], "baseline")]
    frame = pd.concat([with_losses("baseline", 0.90 + NOISE), hidden])
    row = cnn_ablation.ablation_table(frame, path=path).set_index("arm").loc["k=v"]
    assert row["notes"].startswith("step 1: dropped, +0.00 pp on validation; its runs are the baseline's bit for bit")
    assert row["n"] == 5


def test_against_the_full_configuration_the_note_names_it() -> None:
    base = with_losses("full", 0.90 + NOISE)
    arms = table(base, base.assign(arm="full without k", knob="k", level="baseline"))
    assert arms["notes"]["full without k"].startswith("its runs are the full configuration's bit for bit")


@pytest.mark.parametrize(
    ("side_by_side", "ratio", "note"),
    [
        ([1, 1, 1, 1, 1], 2.0, ""),
        ([2, 2, 1, 1, 1], 2.0, "time ratio from 3 of 5 seeds"),
        ([2, 2, 2, 2, 2], math.nan, "times are not compared"),
    ],
    ids=["all", "some", "none"],
)
def test_a_row_has_a_time_ratio_or_says_that_times_are_not_compared(
    side_by_side: list[int], ratio: float, note: str
) -> None:
    base = runs_of("baseline", 0.90 + NOISE, seconds=5.0, concurrent_runs=1)
    arm = runs_of("k=v", 0.90 + NOISE[::-1], seconds=10.0, concurrent_runs=side_by_side)
    row = table(base, arm).loc["k=v"]
    assert row["time_ratio"] == pytest.approx(ratio, nan_ok=True)
    assert ("not compared" in row["notes"]) == math.isnan(ratio)
    assert note in row["notes"]


@pytest.mark.parametrize(
    ("columns", "note"),
    [
        ({"double_softmax": True}, "double softmax: cross-entropy gets probabilities"),
        ({"dead_units": 0.31}, "31 % dead units"),
        (
            {"dead_units": 0.31, "dead_layer": ["ReLU units in A1"] * 3 + ["ReLU units in A2"] * 2},
            "31 % dead ReLU units in A1 (in other runs elsewhere)",
        ),
        ({"status": ["diverged", "diverged", "ok", "ok", "ok"], "epochs": [2, 5, 9, 9, 9]},
         "2 of 5 runs diverged at epochs 2 to 5"),
        ({"status": ["diverged", "ok", "ok", "ok", "ok"], "epochs": np.nan}, "1 of 5 runs diverged"),
    ],
    ids=["softmax of unknown classes", "dead without layer", "several layers", "several epochs", "epoch unknown"],
)  # fmt: skip
def test_notes_claim_what_is_known(columns: dict[str, Any], note: str) -> None:
    notes = table(BASELINE, runs_of("k=v", 0.90 + NOISE * 1.1).assign(**columns))["notes"]["k=v"]
    assert note in notes.split("; ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("settings", 3),
        ("provenance", "here"),
        ("class_names", 3),
        ("curves", [{"loss": 1.0}]),
        ("per_class", 3),
        ("per_class", {"test": 3}),
        ("per_class", {"test": [{"class": "cat", "f1": "high"}]}),
        ("per_class", {"train": []}),
        ("confusion", {"test": [[1, 2], [3]]}),
        ("confusion", {"test": [[1, 2], [3, 4]]}),
    ],
)
def test_a_record_with_nested_values_of_another_form_is_named(
    field: str, value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path, ["baseline", "k=v"], [0, 1])
    path = record_path(tmp_path / "1", 0)
    content = json.loads(path.read_text())
    content["run"][field] = value
    path.write_text(json.dumps(content))
    study = tables.read_study(tmp_path)
    assert len(study.runs) == 3
    assert f"{path} is damaged or unreadable ({field} has not its form)" in capsys.readouterr().err
    assert (len(study.run_table()), len(study.per_class()), len(study.curves())) == (3, 0, 0)


@pytest.mark.parametrize(
    ("written", "values", "levels"),
    [
        (["", "100", "200"], [None, 100, 200], "Int64"),
        (["", "0.5", "1.0"], [None, 0.5, 1.0], "float64"),
        (["100", "200", "300"], [100, 200, 300], "int64"),
        (["", "a", "b"], [None, "a", "b"], None),
        (["", "True", "False"], [None, True, False], None),
    ],
    ids=["whole and null", "fractions", "whole", "words", "switches"],
)
def test_whole_levels_stay_whole_beside_null(
    written: list[str], values: list[Any], levels: str | None, tmp_path: Path
) -> None:
    runs = [Run("baseline", "", "", seed, "ok", test_accuracy=0.9, settings={"k": v}) for seed, v in enumerate(values)]
    table = tables.FinishedStudy(plan_of(["baseline"], [0, 1, 2]), runs).run_table()
    assert levels is None or str(table["k"].dtype) == levels
    column = [line.split(",")[-1] for line in as_csv(table[["seed", "k"]]).decode().splitlines()]
    assert column == ["k", *written]


@pytest.mark.parametrize("frozen", [False, True], ids=["nothing frozen", "frozen before"])
def test_what_is_read_is_not_searched_for_garbage(frozen: bool) -> None:
    """It is old when it is there; what others have frozen stays as it was."""
    gc.unfreeze()
    gc.collect(0)
    others = [[0]]
    if frozen:
        gc.freeze()
    with _no_search_for_garbage():
        assert not gc.isenabled()
        kept = [[number] for number in range(20_000)]
    assert gc.isenabled()
    assert _is_searched(others) is not frozen
    assert _is_searched(kept)
    assert frozen or not _is_searched(kept[19_999], generation=0)


def _is_searched(sought: object, generation: int | None = None) -> bool:
    """Whether the search for garbage looks at it; not at what is frozen (of which other threads may free some)."""
    return any(each is sought for each in gc.get_objects(generation))
