"""Any column as the metric: its direction, its margin, its unit, from the table of runs to the pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from scipy import stats as scipy_stats

import cnn_ablation
from cnn_ablation.analysis import stats
from cnn_ablation.analysis.tables import ablation_table, arm_columns, load_runs, read_study
from cnn_ablation.common.errors import ConfigError, RecordError, UserError
from cnn_ablation.config import StatsConfig
from cnn_ablation.report import figures
from cnn_ablation.report.__main__ import main as report
from cnn_ablation.report.caption import caption
from cnn_ablation.report.files import write_tables
from cnn_ablation.report.pictures import write_pictures
from cnn_ablation.report.text import readable_table
from cnn_ablation.runs.records import FIGURES, Run, as_json, read_run, record_path, write_run
from cnn_ablation.study.choice import figure_words, mean_score
from cnn_ablation.study.designs import Arm
from cnn_ablation.study.metric import Metric, chosen_by, for_task, metric_of, metric_of_table
from cnn_ablation.study.plans import PathStep, Plan, read_plan, refuse_other_study, write_plan
from tests.conftest import TINY, Answer

Cli = Callable[..., Answer]

BASELINE = np.array([0.52, 0.47, 0.55, 0.49, 0.51])
WOBBLE = np.array([0.001, -0.001, 0.0005, -0.0005, 0.0003])


def runs_of(arm: str, values: np.ndarray, column: str = "val_loss", **columns: object) -> pd.DataFrame:
    """No more columns than a metric that is no accuracy asks for."""
    knob, _, level = arm.partition("=")
    labels = {"arm": arm, "knob": knob if level else "", "level": level, "seed": range(len(values)), "status": "ok"}
    return pd.DataFrame({**labels, column: values, **columns})


def table(*arms: pd.DataFrame, metric: str = "val_loss", **settings: Any) -> pd.DataFrame:
    return ablation_table(pd.concat(arms, ignore_index=True), metric=metric, **settings).set_index("arm")


# -- which column, which direction, which unit ------------------------------------------------------------------------

DIRECTIONS: dict[str, tuple[bool, StatsConfig]] = {
    "accuracy": (False, StatsConfig()),
    "loss": (True, StatsConfig(metric="val_loss")),
    "loss of one's own": (True, StatsConfig(metric="loss")),
    "error": (True, StatsConfig(metric="test_error")),
    "time": (True, StatsConfig(metric="train_seconds")),
    "score": (False, StatsConfig(metric="f1")),
    "a name that only holds the word": (False, StatsConfig(metric="lossless_ratio")),
    "loss to be raised": (False, StatsConfig(metric="val_loss", direction="higher")),
    "perplexity": (True, StatsConfig(metric="perplexity", direction="lower")),
}


@pytest.mark.parametrize(("lower", "settings"), DIRECTIONS.values(), ids=DIRECTIONS)
def test_the_direction_is_as_given_or_as_the_name_says(lower: bool, settings: StatsConfig) -> None:
    assert metric_of(settings).lower_is_better is lower


MARGINS: dict[str, tuple[float | None, StatsConfig]] = {
    "of accuracies in points": (0.5, StatsConfig()),
    "of validation accuracies too": (2.0, StatsConfig(metric="val_accuracy", margin_pp=2.0)),
    "of a loss none by default": (None, StatsConfig(metric="val_loss", margin_pp=2.0)),
    "of a loss in its unit": (0.01, StatsConfig(metric="val_loss", margin=0.01)),
}


@pytest.mark.parametrize(("margin", "settings"), MARGINS.values(), ids=MARGINS)
def test_a_margin_is_in_the_unit_of_the_metric(margin: float | None, settings: StatsConfig) -> None:
    assert metric_of(settings).margin == margin


CHOICES = {
    "test accuracy": ("val_accuracy", "test_accuracy", FIGURES),
    "test loss": ("val_loss", "test_loss", FIGURES),
    "validation loss": ("val_loss", "val_loss", FIGURES),
    "time": ("train_seconds", "train_seconds", FIGURES),
    "own test figure": ("val_f1", "test_f1", ("val_f1", "test_f1")),
    "own test figure alone": ("test_f1", "test_f1", ("test_f1",)),
    "own figure": ("f1", "f1", ("val_f1", "f1")),
}


@pytest.mark.parametrize(("expected", "metric", "columns"), CHOICES.values(), ids=CHOICES)
def test_greedy_chooses_on_validation_where_there_is_one(expected: str, metric: str, columns: tuple[str, ...]) -> None:
    assert chosen_by(metric, columns) == expected


TASKS = {
    "images": ("test_accuracy", StatsConfig(), ()),
    "first figure of a function": ("mae", StatsConfig(), ("mae", "f1")),
    "a function's test accuracy": ("test_accuracy", StatsConfig(), ("mae", "test_accuracy")),
    "asked for": ("f1", StatsConfig(metric="f1"), ("mae", "f1")),
    "asked for and not there": ("f2", StatsConfig(metric="f2"), ("mae", "f1")),
}


@pytest.mark.parametrize(("expected", "settings", "figures_of"), TASKS.values(), ids=TASKS)
def test_a_function_is_compared_by_its_first_figure(
    expected: str, settings: StatsConfig, figures_of: tuple[str, ...]
) -> None:
    assert for_task(settings, figures_of) == replace(settings, metric=expected)


# -- verdicts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "shift", "settings"),
    [
        ("better", -0.05, {}),
        ("worse", +0.05, {}),
        ("worse", -0.05, {"direction": "higher"}),
        ("better", +0.05, {"direction": "higher"}),
        ("equivalent", -0.002, {"margin": 0.01}),
        ("better", -0.002, {"margin": 0.0011}),
        ("better", -0.002, {}),
        ("undecided", 0.0, {}),
    ],
    ids=["lower", "higher", "lower is worse", "higher is better", "inside", "outside", "no margin", "no difference"],
)
def test_verdicts_point_the_right_way(verdict: str, shift: float, settings: dict[str, Any]) -> None:
    row = table(runs_of("baseline", BASELINE), runs_of("k=v", BASELINE + shift + WOBBLE), **settings).loc["k=v"]
    assert row["verdict"] == verdict
    assert row["delta"] == pytest.approx(shift + WOBBLE.mean())


def test_figures_are_those_of_scipy_in_the_unit_of_the_metric() -> None:
    arm, margin = BASELINE[::-1] + 0.03, 0.02
    row = table(runs_of("baseline", BASELINE), runs_of("k=v", arm), margin=margin, reserve=0).loc["k=v"]
    paired = scipy_stats.ttest_rel(arm, BASELINE)
    low, high = paired.confidence_interval(0.95)
    assert row[["delta", "delta_ci_low", "delta_ci_high"]].tolist() == pytest.approx([0.03, low, high])
    own_low, own_high = scipy_stats.t.interval(0.95, 4, arm.mean(), scipy_stats.sem(arm))
    estimate = ["metric_mean", "metric_std", "metric_ci_low", "metric_ci_high"]
    assert row[estimate].tolist() == pytest.approx([arm.mean(), arm.std(ddof=1), own_low, own_high])
    assert row["p_value"] == pytest.approx(paired.pvalue)
    settings = StatsConfig(metric="val_loss", margin=margin)
    one_sided = [scipy_stats.ttest_1samp(arm - BASELINE, bound, alternative=side).pvalue
                 for bound, side in ((-margin, "greater"), (margin, "less"))]  # fmt: skip
    compared = stats.compare(arm, BASELINE, settings, num_comparisons=1)
    assert compared.p_equivalence == pytest.approx(max(one_sided))


def test_no_margin_is_no_equivalence_whatever_the_seeds() -> None:
    compared = stats.compare(BASELINE + WOBBLE, BASELINE, StatsConfig(metric="val_loss"), num_comparisons=1)
    assert math.isnan(compared.p_equivalence)


@pytest.mark.parametrize("test", ["t", "sign_flip", "anytime"])
@pytest.mark.parametrize("unit", [1e-13, 1e-3, 1e12])
def test_no_result_depends_on_the_unit(unit: float, test: str) -> None:
    generator = np.random.default_rng(0)
    base = generator.lognormal(size=9)
    arms = {f"k={n}": base + shift + 0.02 * generator.normal(size=9) for n, shift in enumerate((-0.3, 0.0, 0.3))}

    def judged(factor: float) -> pd.DataFrame:
        frames = [runs_of(name, factor * values) for name, values in {"baseline": base, **arms}.items()]
        return table(*frames, margin=0.1 * factor, test=test)

    plain, scaled = judged(1.0), judged(unit)
    assert set(plain["verdict"]) == {"baseline", "better", "equivalent", "worse"}
    columns = ["verdict", "p_value", "p_holm", "seeds_needed_low", "seeds_needed", "seed_correlation", "notes"]
    pd.testing.assert_frame_equal(scaled[columns], plain[columns], rtol=1e-6)
    pd.testing.assert_series_equal(scaled["delta_ci_low"] / unit, plain["delta_ci_low"], rtol=1e-6)


def test_a_mirrored_metric_gives_the_mirrored_table() -> None:
    arms = {"baseline": BASELINE, "k=1": BASELINE + 0.05 + WOBBLE, "k=2": BASELINE[::-1]}
    lower, higher = (
        table(*(runs_of(name, sign * values, "y") for name, values in arms.items()), metric="y", direction=direction)
        for sign, direction in ((1, "lower"), (-1, "higher"))
    )
    same = ["verdict", "p_value", "p_holm", "seeds_needed_low", "seeds_needed", "seed_correlation"]
    pd.testing.assert_frame_equal(lower[same], higher[same])
    assert lower["delta"].dropna().tolist() == pytest.approx((-higher["delta"]).dropna().tolist())


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e9 / 3])
def test_differences_that_are_equal_to_rounding_have_no_test(unit: float) -> None:
    """0.1 + 0.3, 0.7 + 0.3, ...: their differences from 0.1, 0.7, ... differ in the last bits."""
    baseline = unit * np.array([0.1, 0.7, 1.3, 2.9, 5.1])
    arm = baseline + unit * 0.3
    assert np.ptp(arm - baseline) > 0
    row = table(runs_of("baseline", baseline), runs_of("k=v", arm)).loc["k=v"]
    assert math.isnan(row["p_value"])
    assert row["notes"] == "the same difference for every seed: no test possible"


def test_simultaneous_intervals_and_holm_in_the_unit_of_the_metric() -> None:
    arms = [runs_of(f"k={n}", BASELINE + 0.02 * n + WOBBLE[::-1] * n) for n in (1, 2, 3)]
    rows = table(runs_of("baseline", BASELINE), *arms, simultaneous=True, reserve=0).loc["k=1":]
    alone = [scipy_stats.ttest_rel(frame["val_loss"], BASELINE) for frame in arms]
    limits = [found.confidence_interval(1 - 0.05 / 3).low for found in alone]
    assert rows["delta_ci_low"].tolist() == pytest.approx(limits)
    raw = sorted(found.pvalue for found in alone)
    steps = np.maximum.accumulate([3 * raw[0], 2 * raw[1], raw[2]])
    assert sorted(rows["p_holm"]) == pytest.approx(steps.tolist())


def test_times_are_compared_only_between_equally_shared_runs() -> None:
    base = runs_of("baseline", BASELINE, "train_seconds", concurrent_runs=[1, 1, 2, 2, 2])
    arm = runs_of("k=v", BASELINE + 1 + WOBBLE, "train_seconds", concurrent_runs=[1, 1, 2, 1, 1])
    row = table(base, arm, metric="train_seconds").loc["k=v"]
    assert row["delta"] == pytest.approx(1 + WOBBLE[:3].mean())
    assert row["verdict"] == "worse"


# -- runs without the figure -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "lost_by", "shift"),
    [
        ("better", "", -0.05),
        ("undecided", "k=v", -0.05),
        ("worse", "k=v", +0.05),
        ("undecided", "k=v", 0.0),
        ("better", "baseline", -0.05),
        ("undecided", "baseline", +0.05),
        ("equivalent", "", 0.0),
    ],
)
def test_diverged_runs_without_a_loss_flatter_nobody(verdict: str, lost_by: str, shift: float) -> None:
    """Four of five runs are good; the fifth diverged, and its loss is infinite."""
    frame = pd.concat(
        [runs_of("baseline", BASELINE), runs_of("k=v", BASELINE + shift + WOBBLE)], ignore_index=True
    )  # fmt: skip
    lost = (frame["arm"] == lost_by) & (frame["seed"] == 4)
    frame.loc[lost, "status"], frame.loc[lost, "val_loss"] = "diverged", math.inf
    arms = table(frame, margin=0.01)
    assert arms.loc["k=v", "verdict"] == verdict
    if lost_by:
        never = "other arms are never worse" if lost_by == "baseline" else "it is never better"
        assert f"diverged runs have no val_loss: {never} or equivalent" in arms.loc[lost_by, "notes"]
        assert "1 of 5 runs diverged; 1 of 5 runs without val_loss" in arms.loc[lost_by, "notes"]


def with_value(value: object, **columns: object) -> pd.DataFrame:
    frame = pd.concat([runs_of("baseline", BASELINE), runs_of("k=v", BASELINE)], ignore_index=True)
    frame["val_loss"] = frame["val_loss"].astype(object)
    frame.at[6, "val_loss"] = value
    return frame.assign(**columns)


BAD: dict[str, tuple[str, dict[str, Any], pd.DataFrame]] = {
    "a word": ("arm 'k=v', seed 1: val_loss is 'low'; a number is wanted", {}, with_value("low")),
    "infinite": (
        "arm 'k=v', seed 1: val_loss is inf; a finite number is wanted\n"
        "  remedy: a run that diverged has the status diverged",
        {},
        with_value(math.inf),
    ),
    "no figure at all": (
        "no run of the arm 'baseline' has a val_loss: there is nothing to compare with",
        {},
        with_value(0.5).assign(val_loss=math.nan),
    ),
    "no such column": (
        "configuration error: metric=val_lost\n  allowed: a column of numbers of the table of runs: val_loss, f1\n"
        "  did you mean: metric=val_loss",
        {"metric": "val_lost"},
        with_value(0.5).astype({"val_loss": float}).assign(f1=1.0),
    ),
    "texts": ("arm 'baseline', seed 0: note is 'x'; a number is wanted (and 9 more runs)", {"metric": "note"},
              with_value(0.5, note="x")),
    "switches": ("arm 'baseline', seed 0: on is True; a number is wanted (and 9 more runs)", {"metric": "on"},
                 with_value(0.5, on=True)),
    "no accuracies": (
        "the table of runs lacks the columns val_accuracy, test_accuracy, train_seconds\n"
        "  remedy: metric=COLUMN compares by a figure that it has: val_loss",
        {"metric": "test_accuracy"},
        with_value(0.5).astype({"val_loss": float}),
    ),
    "no labels": (
        "the table of runs lacks the columns seed, status",
        {},
        with_value(0.5).drop(columns=["seed", "status"]),
    ),
    "twice": (
        "the table of runs has the column val_loss more than once",
        {},
        pd.concat([with_value(0.5), with_value(0.5)[["val_loss"]]], axis=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("message", "settings", "frame"), BAD.values(), ids=BAD)
def test_wrong_figures_are_one_message(message: str, settings: dict[str, Any], frame: pd.DataFrame) -> None:
    with pytest.raises(UserError) as raised:
        ablation_table(frame, **{"metric": "val_loss", **settings})
    assert str(raised.value) == message


# -- tables for readers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (
            "val_loss",
            "arm knob level n metric_mean metric_std metric_ci_low metric_ci_high delta delta_ci_low delta_ci_high ",
        ),
        (
            "val_accuracy",
            "arm knob level n val_accuracy_mean val_accuracy_std val_accuracy_ci_low val_accuracy_ci_high "
            "delta_pp delta_ci_low_pp delta_ci_high_pp ",
        ),
        (
            "train_accuracy",
            "arm knob level n val_accuracy_mean train_accuracy_mean train_accuracy_std train_accuracy_ci_low "
            "train_accuracy_ci_high delta_pp delta_ci_low_pp delta_ci_high_pp ",
        ),
    ],
)
def test_the_columns_are_those_of_the_metric(metric: str, expected: str) -> None:
    rest = "p_value p_holm verdict seeds_needed_low seeds_needed seed_correlation train_seconds_mean time_ratio " \
        "time_ratio_ci_low time_ratio_ci_high time_verdict images_per_second_mean num_params updates num_failed " \
        "notes"  # fmt: skip
    frame = runs_of("baseline", BASELINE, metric)
    frame = frame.assign(**{name: 0.5 for name in ("val_accuracy", "test_accuracy", "train_seconds") if name != metric})
    assert list(ablation_table(frame, metric=metric).columns) == (expected + rest).split()
    assert arm_columns(Metric(metric)) == tuple((expected + rest).split())


FORMS: dict[str, tuple[str, str, float, float]] = {
    "losses": ("0.508 [0.470, 0.546]", "+0.030 [+0.010, +0.050]", 1.0, 0.03),
    "small": ("5.08e-06 [4.70e-06, 5.46e-06]", "+3.0e-07 [+1.0e-07, +5.0e-07]", 1e-5, 0.03),
    "thousands": ("5080 [4703, 5457]", "+300 [+104, +496]", 1e4, 0.03),
    "huge": ("5.08e+09 [4.70e+09, 5.46e+09]", "+3.0e+08 [+1.0e+08, +5.0e+08]", 1e10, 0.03),
}


@pytest.mark.parametrize(("score", "difference", "unit", "shift"), FORMS.values(), ids=FORMS)
def test_numbers_show_two_digits_of_their_uncertainty(score: str, difference: str, unit: float, shift: float) -> None:
    arms = ablation_table(
        pd.concat([runs_of("baseline", unit * BASELINE, "y"), runs_of("k=v", unit * (BASELINE[::-1] + shift), "y")]),
        metric="y",
    )
    readable = readable_table(arms)
    assert list(readable.columns[2:4]) == ["mean y", "difference"]
    interval = scipy_stats.t.interval(0.95, 4, BASELINE.mean(), scipy_stats.sem(BASELINE))
    assert interval == pytest.approx((0.470, 0.546), abs=0.0005)
    assert readable["mean y"][0] == score
    low, high = scipy_stats.ttest_rel(BASELINE[::-1] + shift, BASELINE).confidence_interval(0.95)
    assert (low, high) == pytest.approx((0.010, 0.050), abs=0.0005)
    assert readable["difference"][1] == difference


@pytest.mark.parametrize("metric", ["test_accuracy", "val_accuracy"])
def test_a_table_may_have_one_accuracy_alone(metric: str) -> None:
    runs = pd.concat([runs_of("baseline", BASELINE, metric), runs_of("a", BASELINE + WOBBLE + 0.1, metric)])
    arms = ablation_table(runs.assign(train_seconds=1.0), metric=metric)
    assert arms["verdict"].tolist() == ["baseline", "better"]
    assert arms["delta_pp"].iloc[1] == pytest.approx(10, abs=0.1)


def test_one_seed_and_a_table_from_a_file_are_readable(tmp_path: Path) -> None:
    one = ablation_table(pd.concat([runs_of("baseline", BASELINE[:1]), runs_of("k=v", BASELINE[1:2])]),
                         metric="val_loss")  # fmt: skip
    assert readable_table(one)["mean val_loss"].tolist() == ["0.5200 [no interval]", "0.4700 [no interval]"]
    whole = ablation_table(pd.concat([runs_of("baseline", BASELINE), runs_of("k=v", BASELINE)]), metric="val_loss")
    whole.to_csv(tmp_path / "ablation.csv", index=False)
    again = pd.read_csv(tmp_path / "ablation.csv", keep_default_na=False, na_values={"metric_mean": [""]})
    assert metric_of_table(again.attrs, again.columns) == Metric("metric")
    assert metric_of_table({}, arm_columns(Metric("val_accuracy"))) == Metric("val_accuracy")


def caption_of(metric: str, choice: str | None = "", **settings: Any) -> str:
    frame = pd.concat([runs_of("baseline", BASELINE, metric), runs_of("k=v", BASELINE[::-1], metric)])
    frame = frame.assign(**{name: 0.5 for name in ("val_accuracy", "test_accuracy") if name != metric}, train_seconds=1)
    used = StatsConfig(metric=metric, **settings)
    return caption(frame, ablation_table(frame, **asdict(used)), used, choice=choice)


CAPTIONS: dict[str, tuple[list[str], str]] = {
    "test accuracy": (
        ["Top-1 test accuracy at the end of training, mean and 95 % t interval", "inside ±0.5 percentage points",
         "All arms were fixed before the first run"],
        caption_of("test_accuracy"),
    ),
    "validation accuracy that chose": (
        ["Top-1 validation accuracy at the end", "the best mean validation accuracy was kept and the next knob tried "
         "on top. The figures that chose are those shown here, which flatters what was kept"],
        caption_of("val_accuracy", "val_accuracy"),
    ),
    "loss": (
        ["val_loss (lower is better), mean and 95 % t interval", "No arm can be called equivalent, because "
         "stats.margin, in the unit of val_loss, is not given"],
        caption_of("val_loss"),
    ),
    "loss with a margin": (
        ["two one-sided tests inside ±0.01 in val_loss, corrected likewise"],
        caption_of("val_loss", margin=0.01),
    ),
    "test loss chosen on validation": (
        ["the best mean val_loss was kept and the next knob tried on top; test scores are shown only for what "
         "validation kept. The seeds that chose also report, which flatters what was kept."],
        caption_of("test_loss", "val_loss"),
    ),
    "loss that chose": (
        ["The figures that chose are those shown here, which flatters what was kept; new seeds would give an "
         "unbiased one."],
        caption_of("val_loss", "val_loss"),
    ),
    "higher": (["f1 (higher is better), mean"], caption_of("f1", None)),
}  # fmt: skip


@pytest.mark.parametrize(("words", "text"), CAPTIONS.values(), ids=CAPTIONS)
def test_the_caption_says_what_was_done_in_the_unit_of_the_metric(words: list[str], text: str) -> None:
    assert [part for part in words if part not in text] == []
    assert ("percentage points" in text) == ("Top-1" in text)


def test_a_task_of_ones_own_claims_nothing_of_images() -> None:
    frame = pd.concat([runs_of("baseline", BASELINE, "f1"), runs_of("k=v", BASELINE[::-1], "f1")])
    frame["train_seconds"] = 1.0
    text = caption(frame, ablation_table(frame, metric="f1"), StatsConfig(metric="f1"), choice="")
    assert "images" not in text
    assert "training steps" not in text
    assert "Times are those of a run's whole training." in text


def test_pictures_are_in_the_unit_of_the_metric(tmp_path: Path) -> None:
    frame = pd.concat(
        runs_of(arm, BASELINE + shift, "cost_$", train_seconds=1.0, k=value)
        for arm, shift, value in (("baseline", 0.0, 1.0), ("k=10", 2 * WOBBLE - 0.1, 10.0))
    )
    settings = StatsConfig(metric="cost_$", direction="lower", margin=0.02)
    arms = ablation_table(frame, **asdict(settings))
    curves = pd.DataFrame({"arm": "baseline", "seed": 0, "epoch": [1, 2], "cost_$": [2.0, 1.0], "train_seconds": 1.0})
    written = write_pictures(tmp_path, frame, arms, curves, settings)
    names = {path.stem for path in written}
    assert names == {"differences", "metric_against_time", "learning_curves", "levels_k"}
    forest, levels, times = (Figure().add_subplot() for _ in range(3))
    figures.plot_differences(arms, forest)
    assert forest.get_xlabel() == r"difference in cost_\$ from the baseline (lower is better)"
    assert [text.get_text() for text in forest.get_legend().get_texts()] == ["margin ±0.02", "better", "95 % interval"]
    assert forest.patches[0].get_x() == -0.02
    figures.plot_levels(arms, figures.numeric_levels(frame, arms)["k"], levels, key="k")
    assert levels.lines[0].get_ydata() == pytest.approx([BASELINE.mean(), BASELINE.mean() - 0.1 + 2 * WOBBLE.mean()])
    figures.plot_metric_against_time(arms, times)
    assert levels.get_ylabel() == times.get_ylabel() == r"cost_\$ (lower is better)"
    figures.plot_curves(curves, times, column="cost_$")
    assert times.lines[-2].get_ydata() == pytest.approx([2.0, 1.0])


def test_a_name_of_any_letters_is_text_in_tex(tmp_path: Path) -> None:
    frame = pd.concat([runs_of("baseline", BASELINE, "f1^2_$"), runs_of("k=v", BASELINE[::-1], "f1^2_$")])
    arms = ablation_table(frame, metric="f1^2_$", margin=0.1)
    settings = StatsConfig(metric="f1^2_$", margin=0.1)
    write_tables(tmp_path, frame, arms, caption(frame, arms, settings))
    text = (tmp_path / "ablation.tex").read_text()
    assert r"\caption{f1\textasciicircum{}2\_\$ (higher is better), mean over seeds" in text
    assert r"inside $\pm$0.1 in f1\textasciicircum{}2\_\$" in text


def test_no_margin_is_no_band() -> None:
    ax = Figure().add_subplot()
    arms = ablation_table(pd.concat([runs_of("baseline", BASELINE), runs_of("k=v", BASELINE + WOBBLE)]),
                          metric="val_loss")  # fmt: skip
    figures.plot_differences(arms, ax)
    assert not ax.patches


# -- runs of a task of one's own ---------------------------------------------------------------------------------------


def own_run(arm: str, seed: int, **metrics: float) -> Run:
    settings = {"settings.lr": 0.1, "task": "function"}
    status = "ok" if metrics else "failed"
    return Run(arm, "", "", seed, status, train_seconds=2.0, settings=settings, metrics=metrics, class_names=["x"])


@pytest.mark.parametrize("details", [True, False])
def test_metrics_are_kept_in_the_record(details: bool, tmp_path: Path) -> None:
    run = own_run("baseline", 0, mae=0.25, count=3, gap=math.nan, limit=math.inf)
    write_run(tmp_path / "run.json", run)
    found = read_run(tmp_path / "run.json", details=details)
    assert list(found.metrics) == ["mae", "count", "gap", "limit"]
    assert list(found.metrics.values()) == pytest.approx([0.25, 3.0, math.nan, math.nan], nan_ok=True)
    assert found.class_names == (["x"] if details else [])
    assert (found.figure("mae"), found.figure("train_seconds")) == (0.25, 2.0)
    assert math.isnan(found.figure("device"))


def test_a_record_of_before_has_no_metrics(tmp_path: Path) -> None:
    text = as_json(Run("baseline", "", "", 0, "ok", val_accuracy=0.5)).replace('"metrics": {},\n', "")
    (tmp_path / "run.json").write_text(text)
    found = read_run(tmp_path / "run.json")
    assert (found.metrics, found.figure("val_accuracy")) == ({}, 0.5)


VALUES = {"baseline": [3.0, 3.2, 2.9], "k=1": [2.0, 2.1, 1.9], "k=2": [5.0, 5.3, 4.9]}


def write_own_study(folder: Path, path: list[PathStep] | None = None, **stats_settings: Any) -> None:
    plan = Plan("greedy" if path else "one_at_a_time", {}, ["settings.lr"], [Arm(name) for name in VALUES], [0, 1, 2],
                {"task": "function"}, stats=StatsConfig(**stats_settings), path=path or [])  # fmt: skip
    write_plan(folder, plan)
    for number, (arm, values) in enumerate(VALUES.items()):
        for seed, value in enumerate(values):
            run = own_run(arm, seed, test_mae=value, val_mae=value + 0.1 * seed * number, steps=7 + seed * (number + 1))
            write_run(record_path(folder / str(number), seed), run)


def test_the_table_of_runs_holds_what_its_task_measured(tmp_path: Path) -> None:
    write_own_study(tmp_path)
    write_run(record_path(tmp_path / "2", 2), replace(own_run("k=2", 2), error="broken"))
    frame = load_runs(tmp_path)
    assert list(frame.columns) == [
        "arm", "knob", "level", "seed", "status", "test_mae", "val_mae", "steps", "train_seconds", "cpu_seconds",
        "total_seconds", "peak_memory_mib", "device", "precision", "hardware", "threads", "concurrent_runs",
        "neighbours", "train_started", "train_ended", "reused", "fingerprint", "error", "settings.lr",
    ]  # fmt: skip
    assert frame["test_mae"].tolist() == pytest.approx([*VALUES["baseline"], *VALUES["k=1"], 5.0, 5.3, math.nan],
                                                       nan_ok=True)  # fmt: skip


def test_a_metric_may_have_the_name_of_a_column_of_images(tmp_path: Path) -> None:
    plan = Plan("one_at_a_time", {}, [], [Arm("baseline")], [0], {})
    write_plan(tmp_path, plan)
    write_run(record_path(tmp_path / "0", 0), replace(own_run("baseline", 0, val_loss=0.4, epochs=9), num_params=5))
    frame = load_runs(tmp_path)
    assert list(frame.columns)[5:9] == ["val_loss", "epochs", "train_seconds", "cpu_seconds"]
    assert frame[["val_loss", "epochs", "num_params"]].to_numpy().tolist() == [[0.4, 9.0, 5.0]]


def test_a_study_of_images_keeps_its_columns(tmp_path: Path) -> None:
    write_plan(tmp_path, Plan("one_at_a_time", {}, [], [Arm("baseline")], [0], {}))
    write_run(record_path(tmp_path / "0", 0), Run("baseline", "", "", 0, "ok"))
    assert {"test_accuracy", "val_loss", "updates", "dead_units"} <= set(load_runs(tmp_path).columns)


def test_a_metric_with_the_name_of_a_label_is_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_own_study(tmp_path)
    write_run(record_path(tmp_path / "0", 0), own_run("baseline", 0, status=1.0))
    assert len(read_study(tmp_path).runs) == 8
    assert "metrics has not its form" in "".join(capsys.readouterr())


def test_a_report_of_ones_own_task(tmp_path: Path) -> None:
    """The first figure is the metric; the name says nothing of its direction, the study does."""
    write_own_study(tmp_path, direction="lower", margin=0.5)
    assert report([str(tmp_path)]) == 0
    arms = pd.read_csv(tmp_path / "ablation.csv").set_index("arm")
    assert arms["verdict"].to_dict() == {"baseline": "baseline", "k=1": "better", "k=2": "worse"}
    assert arms["delta"].tolist()[1:] == pytest.approx([2.0 - 9.1 / 3, 15.2 / 3 - 9.1 / 3])
    assert arms["notes"].isna().all()
    assert "val_mae" in pd.read_csv(tmp_path / "runs.csv").columns
    assert pd.read_parquet(tmp_path / "runs.parquet")["test_mae"].tolist() == [
        value for values in VALUES.values() for value in values
    ]
    text = (tmp_path / "ablation.md").read_text()
    assert "test_mae (lower is better), mean and 95 % t interval over seeds (n = 3). Differences" in text
    assert r"}mean\\test\_mae\end{tabular}" in (tmp_path / "ablation.tex").read_text()
    assert "mean test_mae" in (tmp_path / "ablation.html").read_text()
    assert (tmp_path / "metric_against_time.svg").exists()
    again = tmp_path / "again"
    assert report(["--runs", str(tmp_path / "runs.csv"), "--out", str(again), "--metric", "test_mae",
                   "--direction", "lower", "--margin", "0.5"]) == 0  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_csv(again / "ablation.csv").set_index("arm"), arms)


@pytest.mark.usefixtures("undrawn")
def test_direction_and_margin_go_with_the_metric_they_were_given_for(tmp_path: Path) -> None:
    write_own_study(tmp_path, direction="lower", margin=0.5)
    assert report([str(tmp_path), "--metric", "steps", "--out", str(tmp_path / "steps")]) == 0
    text = (tmp_path / "steps" / "ablation.md").read_text()
    assert "steps (higher is better)" in text
    assert "in the unit of steps, is not given" in text


def test_a_metric_that_a_study_lacks_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_own_study(tmp_path, metric="test_mea")
    assert report([str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip() == (
        "configuration error: metric=test_mea\n"
        "  allowed: a column of numbers of the table of runs: test_mae, val_mae, steps, train_seconds, cpu_seconds, "
        "total_seconds, peak_memory_mib, concurrent_runs, settings.lr\n"
        "  did you mean: metric=test_mae"
    )


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("metric", "shown", "note"),
    [
        ("test_mae", ["baseline", "k=1"], "step 1: dropped, +2.23 in val_mae"),
        ("val_mae", ["baseline", "k=1", "k=2"], "step 1: dropped, +2.23 in val_mae"),
    ],
)
def test_a_greedy_study_hides_test_figures_of_what_it_dropped(
    metric: str, shown: list[str], note: str, tmp_path: Path
) -> None:
    path = [PathStep("k", "baseline", ["k=1", "k=2"], "k=1")]
    write_own_study(tmp_path, path, metric=metric, direction="lower")
    frame = load_runs(tmp_path)
    assert sorted(frame["arm"][frame["test_mae"].notna()].unique()) == ["baseline", "k=1"]
    assert report([str(tmp_path)]) == 0
    arms = pd.read_csv(tmp_path / "ablation.csv").set_index("arm")
    assert list(arms.index[arms["metric_mean"].notna()]) == shown
    assert arms.loc["k=2", "n"] == 3
    assert arms.loc["k=2", "notes"].startswith(note)
    text = (tmp_path / "ablation.md").read_text()
    assert ("The figures that chose are those shown here" in text) == (metric == "val_mae")
    assert "the best mean val_mae was kept" in text


def test_arms_with_the_same_losses_of_ones_own_are_one_arm() -> None:
    same = [runs_of(arm, BASELINE, "my_loss") for arm in ("baseline", "k=v")]
    assert "bit for bit" in table(*same, metric="my_loss").loc["k=v", "notes"]
    scores = [runs_of(arm, np.array([0.9, 0.8, 0.9]), "f1") for arm in ("baseline", "k=v")]
    assert "bit for bit" not in table(*scores, metric="f1").loc["k=v", "notes"]


# -- greedy studies ----------------------------------------------------------------------------------------------------


def image_run(val_loss: float, val_accuracy: float) -> Run:
    return Run("baseline", "", "", 0, "ok", val_accuracy=val_accuracy, val_loss=val_loss, train_seconds=1.5)


SCORED: dict[str, tuple[float, list[Run], StatsConfig]] = {
    "accuracy": (0.7, [image_run(2.0, 0.6), image_run(4.0, 0.8)], StatsConfig()),
    "loss": (-3.0, [image_run(2.0, 0.6), image_run(4.0, 0.8)], StatsConfig(metric="test_loss")),
    "loss to be raised": (3.0, [image_run(2.0, 0.6), image_run(4.0, 0.8)],
                          StatsConfig(metric="val_loss", direction="higher")),
    "a run that lacks it": (-math.inf, [image_run(2.0, 0.6), image_run(math.nan, 0.1)], StatsConfig(metric="val_loss")),
    "own, first figure": (1.5, [own_run("a", 0, f1=1.0), own_run("a", 1, f1=2.0)], StatsConfig()),
    "own, lower": (-1.5, [own_run("a", 0, e=1.0), own_run("a", 1, e=2.0)], StatsConfig(metric="e", direction="lower")),
    "own, on validation": (8.0, [own_run("a", 0, test_f=1.0, val_f=8.0)], StatsConfig()),
}  # fmt: skip


@pytest.mark.parametrize(("score", "runs", "settings"), SCORED.values(), ids=SCORED)
def test_a_larger_score_is_the_better_arm(score: float, runs: list[Run], settings: StatsConfig) -> None:
    assert mean_score(runs, settings) == pytest.approx(score)


@pytest.mark.parametrize(
    ("words", "run", "settings"),
    [
        ("60.00 % validation accuracy", image_run(2.0, 0.6), StatsConfig()),
        ("val_loss 2.123", image_run(2.1234567, 0.6), StatsConfig(metric="test_loss")),
        ("f1 0.25", own_run("a", 0, f1=0.25), StatsConfig()),
    ],
)
def test_a_finished_run_shows_what_its_study_chooses_by(words: str, run: Run, settings: StatsConfig) -> None:
    assert figure_words(run, settings) == words


@pytest.mark.usefixtures("undrawn")
def test_greedy_keeps_the_lowest_validation_loss(cli: Cli, tmp_path: Path) -> None:
    """The path is recomputed here from the losses in runs.csv; by accuracy it would be another one."""
    answer = cli("-m", *TINY, "optimizer.lr=1e-9,0.01", "model.activation=relu,tanh", "replicates=2",
                 "hydra.sweeper.design=greedy", "stats.metric=test_loss", "hydra.sweep.dir=study")  # fmt: skip
    assert answer.code == 0, answer.err
    runs = pd.read_csv(tmp_path / "study" / "runs.csv")
    mean = runs.groupby("arm")["val_loss"].mean()
    first = min(["baseline", "optimizer.lr=0.01"], key=lambda arm: mean[arm])
    tanh = "model.activation=tanh" if first == "baseline" else f"{first},model.activation=tanh"
    plan = yaml.safe_load((tmp_path / "study" / "study.yaml").read_text())
    assert [step["kept"] for step in plan["path"]] == [first, min([first, tanh], key=lambda arm: mean[arm])]
    assert first != "baseline"
    arms = pd.read_csv(tmp_path / "study" / "ablation.csv").set_index("arm")
    kept = {"baseline", *(step["kept"] for step in plan["path"])}
    assert set(arms.index[arms["metric_mean"].notna()]) == kept
    assert set(runs["arm"][runs["test_loss"].notna()]) == kept
    assert "val_loss" in answer.err


@pytest.mark.parametrize(("design", "refuses"), [("greedy", True), ("one_at_a_time", False)])
def test_a_greedy_folder_belongs_to_one_metric(design: str, refuses: bool, tmp_path: Path) -> None:
    plan = Plan(design, {"k": ["1"]}, ["k"], [Arm("baseline")], [0], {})
    write_plan(tmp_path, plan)
    other = replace(plan, stats=StatsConfig(metric="val_loss"))
    if not refuses:
        refuse_other_study(tmp_path, other)
        return
    there, here = "test_accuracy (higher is better) there", "val_loss (lower is better) here"
    with pytest.raises(RecordError, match=re.escape(f"holds another study (stats.metric: {there}, {here})")):
        refuse_other_study(tmp_path, other)
    refuse_other_study(tmp_path, replace(plan, stats=StatsConfig(alpha=0.01, margin_pp=2.0)))


# -- what is gone ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "says"), [("t", False), ("bca", True)])
def test_a_study_from_before_the_t_interval_was_the_only_one(
    kind: str, says: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_own_study(tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(path.read_text().replace("  test: t\n", f"  test: t\n  interval: {kind}\n"))
    assert read_plan(tmp_path).stats == StatsConfig()
    printed = "".join(capsys.readouterr())
    assert (f"stats.interval={kind} is no longer there; the report's intervals are t intervals" in printed) == says
    assert cnn_ablation.load_runs(tmp_path).shape[0] == 9


def test_errors_of_the_metric_are_of_two_kinds() -> None:
    """A wrong setting is a ConfigError, a wrong table a RecordError, as everywhere."""
    frame = runs_of("baseline", BASELINE)
    with pytest.raises(ConfigError):
        ablation_table(frame, metric="nothing")
    with pytest.raises(RecordError):
        ablation_table(frame)


def test_the_caption_says_what_became_of_runs_that_diverged() -> None:
    settings = StatsConfig(metric="val_loss")

    def said(*losses: float) -> str:
        runs = pd.concat([runs_of("baseline", np.array([1.0, 1.1, 1.2])), runs_of("a", np.array(losses))])
        runs.loc[(runs["arm"] == "a") & ~(runs["val_loss"] < 5), "status"] = "diverged"
        return caption(runs, ablation_table(runs, metric="val_loss"), settings)

    assert "1 of 6 runs diverged and have no val_loss." in said(0.9, math.nan, 1.0)
    assert "1 of 6 runs diverged and count as what they scored." in said(0.9, 9.0, 1.0)
    assert "2 of 6 runs diverged and count as what they scored; 1 of them have no val_loss." in said(0.9, 9.0, math.nan)
