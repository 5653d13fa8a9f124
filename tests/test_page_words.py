"""The words and numbers of report.html: sentences, names, intervals, curves, tables."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cnn_ablation.analysis.tables import ablation_table
from cnn_ablation.config import StatsConfig
from cnn_ablation.report.caption import described
from cnn_ablation.report.findings import Findings
from cnn_ablation.report.page import answers, classes, curves, numbers, protocol, rows, side_effects
from cnn_ablation.report.page.citation import citation
from cnn_ablation.report.page.names import Names
from cnn_ablation.study.designs import Arm
from cnn_ablation.study.metric import Metric
from cnn_ablation.study.plans import PathStep, Plan

NAN = math.nan


def runs_of(scores: dict[str, list[float]], metric: str = "test_accuracy") -> pd.DataFrame:
    rows_ = [
        {"arm": arm, "knob": arm.partition("=")[0] if "=" in arm else "", "level": arm.partition("=")[2], "seed": seed,
         "status": "ok", "val_accuracy": 0.5, "test_accuracy": 0.5, "train_seconds": 10.0, metric: score}
        for arm, values in scores.items()
        for seed, score in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows_)


def table(arms: dict[str, dict[str, Any]], metric: str = "test_accuracy", **settings: Any) -> pd.DataFrame:
    """A table of arms beside the baseline with these values in its columns."""
    frame = runs_of({"baseline": [0.90, 0.91, 0.92], **{arm: [0.90, 0.91, 0.925] for arm in arms}}, metric)
    found = ablation_table(frame, metric=metric, **settings)
    blank = {"time_verdict": "", "notes": "", "seeds_needed": NAN, "seeds_needed_low": NAN, "p_holm": 0.5}
    for row, values in enumerate(arms.values(), start=1):
        for column, value in {**blank, **values}.items():
            found.loc[row, column] = value
    return found


def difference(mean: float, low: float, high: float, verdict: str, **others: Any) -> dict[str, Any]:
    return {"delta_pp": mean, "delta_ci_low_pp": low, "delta_ci_high_pp": high, "verdict": verdict, **others}


SENTENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "better and slower": (
        "Batch norm: +3.3 points [2.4, 4.2], better; 2.2 times the time",
        difference(3.33, 2.44, 4.23, "better", time_ratio=2.19, time_verdict="slower"),
    ),
    "worse": ("Batch norm: −16.8 points [−21.2, −15.5], worse", difference(-16.78, -21.17, -15.50, "worse")),
    "close": ("Batch norm: +0.67 points [0.08, 1.35], better", difference(0.67, 0.08, 1.35, "better")),
    "equivalent": (
        "Batch norm: −0.01 points [−0.40, 0.25], equivalent within ±0.5 points; the same time",
        difference(-0.01, -0.40, 0.25, "equivalent", time_ratio=1.01, time_verdict="equal"),
    ),
    "undecided": (
        "Batch norm: cannot tell yet: +0.18 points [−0.33, 0.63]; 47 to 80 more seeds would probably tell; "
        "1.07 times the time",
        difference(0.18, -0.33, 0.63, "undecided", n=30, seeds_needed_low=77, seeds_needed=110, time_ratio=1.07,
                   time_verdict="slower"),
    ),
    "one more seed": (
        "Batch norm: cannot tell yet: +0.18 points [−0.33, 0.63]; 1 more seed would probably tell",
        difference(0.18, -0.33, 0.63, "undecided", n=3, seeds_needed_low=4, seeds_needed=4),
    ),
    "out of reach": (
        "Batch norm: cannot tell yet: +0.00 points [−0.33, 0.63]; more than 997 more seeds would be needed",
        difference(-0.001, -0.33, 0.63, "undecided", n=3, seeds_needed_low=1000, seeds_needed=1000),
    ),
    "unknown": (
        "Batch norm: cannot tell yet: +0.18 points [−0.33, 0.63]; too early to say how many more seeds would tell",
        difference(0.18, -0.33, 0.63, "undecided", n=3, seeds_needed_low=9, seeds_needed=NAN),
    ),
    "no interval": ("Batch norm: cannot tell yet: +0.18 points", difference(0.18, NAN, NAN, "undecided")),
    "no test": (
        "Batch norm: cannot tell yet: +0.18 points; the same difference for every seed: no test possible",
        difference(0.18, NAN, NAN, "undecided", notes="another; the same difference for every seed: no test possible"),
    ),
    "times undecided": (
        "Batch norm: +3.3 points [2.4, 4.2], better",
        difference(3.33, 2.44, 4.23, "better", time_ratio=2.19, time_verdict="undecided"),
    ),
    "runs that diverged": (
        "Batch norm: −69.9 points [−71.2, −68.6], worse; 5 of 5 runs diverged at epoch 2",
        difference(-69.86, -71.16, -68.56, "worse", notes="+18 % parameters; 5 of 5 runs diverged at epoch 2"),
    ),
    "runs that failed": (
        "Batch norm: cannot tell yet: +0.18 points [−0.33, 0.63]; 2 of 3 runs failed",
        difference(0.18, -0.33, 0.63, "undecided", notes="2 of 3 runs failed"),
    ),
    "no common seed": (
        "Batch norm: not compared: 0 seeds to compare: a verdict needs two or more",
        difference(NAN, NAN, NAN, "undecided",
                   notes="+18 % parameters; times are not compared: other hardware; "
                         "0 seeds to compare: a verdict needs two or more"),
    ),
    "the same runs": (
        "Batch norm: not compared: its runs are the baseline's bit for bit: the knob did nothing here",
        difference(NAN, NAN, NAN, "undecided",
                   notes="its runs are the baseline's bit for bit: the knob did nothing here; another note"),
    ),
    "no score": (
        "Batch norm: not compared: no test score",
        difference(NAN, NAN, NAN, "undecided", notes="no test score: not compared"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sentence", "row"), SENTENCES.values(), ids=SENTENCES)
def test_an_arm_has_its_answer_in_a_sentence(sentence: str, row: dict[str, Any]) -> None:
    arms = table({"model.batch_norm=true": row})
    (answer,) = answers.answers(arms, Names(arms))
    assert f"{answer.name}: {answer.text}" == sentence


def test_another_metric_is_named_with_its_differences() -> None:
    arms = table({"settings.lr=0.01": {}}, metric="val_loss", margin=0.01)
    arms.loc[1, ["delta", "delta_ci_low", "delta_ci_high", "verdict"]] = [-0.0312, -0.041, -0.021, "equivalent"]
    (answer,) = answers.answers(arms, Names(arms))
    assert answer.name == "Learning rate 0.01"
    assert answer.text.startswith("−0.031")
    assert answer.text.endswith("in val_loss [−0.041, −0.021], equivalent within ±0.01")


def test_answers_stand_by_how_decided_they_are() -> None:
    arms = table({
        "k=undecided": difference(9.0, -1.0, 19.0, "undecided", p_holm=0.3),
        "k=none": difference(NAN, NAN, NAN, "undecided", p_holm=NAN),
        "k=equal": difference(0.1, -0.1, 0.3, "equivalent", p_holm=0.9),
        "k=worse": difference(-1.0, -1.5, -0.5, "worse", p_holm=0.001),
        "k=better": difference(5.0, 4.0, 6.0, "better", p_holm=0.02),
        "k=far": difference(9.0, 8.9, 9.1, "better", p_holm=0.02),
    })  # fmt: skip
    found = [answer.arm for answer in answers.answers(arms, Names(arms))]
    assert found == ["k=worse", "k=far", "k=better", "k=equal", "k=undecided", "k=none"]


def test_many_answers_are_grouped_by_knob() -> None:
    few = {f"a={level}": difference(1.0, 0.5, 1.5, "better") for level in range(6)}
    many = few | {f"b={level}": difference(1.0, -0.5, 1.5, "undecided") for level in range(7)}
    arms = table(many)
    groups = answers.grouped(answers.answers(arms, Names(arms)), Names(arms))
    assert [(group.knob, group.summary) for group in groups] == [("a", "6 better"), ("b", "7 undecided")]
    arms = table(few)
    assert len(answers.grouped(answers.answers(arms, Names(arms)), Names(arms))) == 1
    arms = table({f"a={level}": difference(1.0, -0.5, 1.5, "undecided") for level in range(15)})
    groups = answers.grouped(answers.answers(arms, Names(arms)), Names(arms))
    assert [(group.knob, len(group.answers)) for group in groups] == [("", 12), ("3 more", 3)]


@pytest.mark.parametrize(
    ("words", "verdicts"),
    [
        ("Neither of 2 other arms can be told from it yet.", ["undecided", "undecided"]),
        ("Both other arms are worse.", ["worse", "worse"]),
        ("All 3 other arms are worse.", ["worse", "worse", "worse"]),
        ("Of 3 other arms 1 is better, 1 is equivalent and 1 cannot be told from it yet.",
         ["undecided", "better", "equivalent"]),
        ("", ["better"]),
    ],
)  # fmt: skip
def test_a_sentence_counts_the_verdicts(words: str, verdicts: list[str]) -> None:
    arms = table({f"k={number}": difference(1.0, 0.0, 2.0, verdict) for number, verdict in enumerate(verdicts)})
    assert " ".join(answers.conclusion(arms, answers.answers(arms, Names(arms)))[1:]) == words


def test_a_study_of_chance_answers_with_what_each_source_does() -> None:
    rows_ = [
        ("all together", 4, 1.25, 0.71, 4.66, 1.0, "init, order"),
        ("init", 4, 0.625, 0.35, 2.3, 0.25, ""),
        ("order", 4, 0.0, NAN, NAN, 0.0, "the same score for every seed"),
        ("sum of the single ones", NAN, 1, 1, 1, 1, ""),
    ]
    names = ("source", "n", "std_pp", "std_ci_low_pp", "std_ci_high_pp", "share", "note")
    variance = pd.DataFrame(rows_, columns=list(names))
    found = answers.of_variance(variance, Metric("test_accuracy"))
    assert [f"{answer.name}: {answer.text}" for answer in found] == [
        "All together: standard deviation 1.25 points [0.71, 4.66]",
        "Init: standard deviation 0.62 points [0.35, 2.30]; 25 % of all variance",
        "Order: no spread: the same score for every seed",
    ]  # fmt: skip


QUESTIONS = {
    "one knob": (["model.activation=leaky"], "What does activation do to test accuracy?"),
    "two": (["model.activation=leaky", "optimizer.lr=1"], "What do activation and learning rate do to test accuracy?"),
    "five": ([f"k{n}=1" for n in range(5)], "What do five knobs do to test accuracy?"),
    "thirteen": ([f"k{n}=1" for n in range(13)], "What do 13 knobs do to test accuracy?"),
    "none": ([], "Test accuracy of one configuration"),
    "chance": (["vary=[init]", "vary=[order]"], "What makes test accuracy differ from seed to seed?"),
    "two of a name": (["data.scale=1", "train.scale=2"], "What do data scale and train scale do to test accuracy?"),
}


@pytest.mark.parametrize(("arms", "words"), QUESTIONS.values(), ids=QUESTIONS)
def test_the_heading_asks_what_the_study_asks(arms: list[str], words: str) -> None:
    frame = table({arm: difference(1.0, 0.0, 2.0, "undecided") for arm in arms})
    assert answers.question(frame, Names(frame)) == words


ARMS = {
    "the reference": ("baseline", "", "", "Baseline"),
    "full": ("full", "", "", "Full configuration"),
    "left out": ("full without model.dropout", "model.dropout", "baseline", "Full without dropout"),
    "switched on": ("model.batch_norm=true", "model.batch_norm", "true", "Batch norm"),
    "switched off": ("train.shuffle=false", "train.shuffle", "false", "Shuffle off"),
    "a list": ("model.filters=[4,8]", "model.filters", "[4,8]", "Filters [4,8]"),
    "zipped": ("zip={a.b:1,c:2e-3}", "zip", "{a.b:1,c:2e-3}", "Zip (b 1, c 2e-3)"),
    "a list zipped": ("z={m.f:[1,2],b:true}", "z", "{m.f:[1,2],b:true}", "Z (f [1,2], b)"),
    "a grid": ("a.b=1,c=true", "a.b,c", "1,true", "B 1, c"),
    "on top": ("a.b=[1,2],model.x=3", "model.x", "3", "B [1,2], x 3"),
    "an equals sign": ("k=a=b,c=d", "k", "a=b,c=d", "K a=b,c=d"),
    "free text": ("<b>any</b>", "", "", "<b>any</b>"),
    "nothing behind the dot": ("a.=1", "a.", "1", "A. 1"),
}


@pytest.mark.parametrize(("arm", "knob", "level", "words"), ARMS.values(), ids=ARMS)
def test_an_arm_has_a_short_name(arm: str, knob: str, level: str, words: str) -> None:
    frame = pd.DataFrame({"arm": [arm], "knob": [knob], "level": [level]})
    assert Names(frame).arm(arm) == words


def test_arms_whose_short_names_are_the_same_keep_their_own() -> None:
    names = ["k=true", "k"]
    frame = pd.DataFrame({"arm": names, "knob": ["k", ""], "level": ["true", ""]})
    assert [Names(frame).arm(arm) for arm in names] in (["K", "k"], names)
    frame = pd.DataFrame({"arm": ["a=x", "a=x,"], "knob": ["a", ""], "level": ["x", ""]})
    assert len({Names(frame).arm(arm) for arm in frame["arm"]}) == 2


@pytest.mark.parametrize(
    ("words", "value", "form"),
    [
        ("+3.3", 3.33, "{:+.1f}"), ("−3.3", -3.33, "{:+.1f}"), ("+0.00", -0.001, "{:+.2f}"), ("0.00", -0.0, "{:.2f}"),
        ("", NAN, "{:.2f}"), ("", math.inf, "{:.2f}"), ("1.2e−05", 1.2e-5, "{:.1e}"), ("−1.2e+08", -1.2e8, "{:.1e}"),
    ],
)  # fmt: skip
def test_a_number_is_written_with_a_minus_sign(words: str, value: float, form: str) -> None:
    assert numbers.written(value, form) == words


@pytest.mark.parametrize(
    ("words", "note"),
    [("−84 % parameters", "-84 % parameters"), ("7-19 seeds", "7-19 seeds"), ("x=1e-3", "x=1e-3"), ("k=-1", "k=-1"),
     ("skewed (−1.5): worse", "skewed (-1.5): worse"), ("a-1", "a-1")],
)  # fmt: skip
def test_a_note_has_minus_signs_where_numbers_are_negative(words: str, note: str) -> None:
    assert numbers.with_minus(note) == words


@pytest.mark.parametrize(
    ("words", "ratio"),
    [
        ("2.2 times", 2.19),
        ("1.07 times", 1.07),
        ("0.50 times", 0.5),
        ("12 times", 12.4),
        ("1.2 times", 1.2),
        ("0.0042 times", 0.0042),
    ],
)
def test_a_ratio_has_two_digits_and_a_third_near_one(words: str, ratio: float) -> None:
    assert numbers.times(ratio) == words


# -- the table ---------------------------------------------------------------------------------------------------------


def test_an_interval_is_drawn_where_its_numbers_are() -> None:
    arms = table({"k=1": difference(2.0, 1.0, 3.0, "better"), "k=2": difference(-1.0, -2.0, 0.0, "worse")})
    shown = rows.table_of_arms(arms, Names(arms))
    assert shown.scale is not None
    low, high = -2 - 0.06 * 5, 3 + 0.06 * 5  # from the lowest limit to the highest, and some room
    x = [160 * (value - low) / (high - low) for value in (1.0, 2.0, 3.0)]
    drawn = shown.groups[0].rows[1].drawn
    assert drawn is not None
    assert (drawn.low, drawn.mean, drawn.high) == pytest.approx(x, abs=0.01)
    assert not drawn.is_cut_low
    assert not drawn.is_cut_high
    assert shown.scale.zero == pytest.approx(160 * (0 - low) / (high - low), abs=0.01)
    assert shown.scale.band == pytest.approx((160 * (-0.5 - low) / (high - low), 160 / (high - low)), abs=0.01)
    assert shown.groups[0].rows[0].drawn is None


def test_an_interval_without_end_leaves_room_for_the_others() -> None:
    wide = table({"k=1": difference(1.0, -500.0, 500.0, "undecided"), "k=2": difference(-1.0, -2.0, 0.0, "worse")})
    shown = rows.table_of_arms(wide, Names(wide))
    first, second = shown.groups[0].rows[1:]
    assert first.drawn is not None
    assert second.drawn is not None
    assert (first.drawn.is_cut_low, first.drawn.is_cut_high) == (True, True)
    assert (first.drawn.low, first.drawn.high) == (0, 160)
    assert second.drawn.high - second.drawn.low > 160 / 6


@pytest.mark.parametrize("mean", [0.0, NAN], ids=["no difference", "not compared"])
def test_a_table_without_differences_is_drawn_all_the_same(mean: float) -> None:
    arms = table({"k=1": difference(mean, mean, mean, "undecided")}, metric="val_loss")
    arms[["delta", "delta_ci_low", "delta_ci_high"]] = mean
    shown = rows.table_of_arms(arms, Names(arms))
    assert (shown.scale is None) == math.isnan(mean)
    assert [column.key for column in shown.columns].count("verdict") == (0 if math.isnan(mean) else 1)


def test_notes_are_told_apart_and_columns_without_content_left_out() -> None:
    arms = table({"k=1": difference(2.0, 1.0, 3.0, "better", notes="one; two", train_seconds_mean=NAN)})
    arms.loc[0, "train_seconds_mean"] = NAN
    shown = rows.table_of_arms(arms, Names(arms))
    assert shown.groups[0].rows[1].notes == ["one", "two"]
    assert {column.key for column in shown.columns} >= {"arm", "difference", "verdict", "p", "score", "n"}
    assert "seconds" not in {column.key for column in shown.columns}
    seeds = {"seeds_needed_low": 17.0, "seeds_needed": 38.0, "n": 3}
    arms = table({"k=1": difference(0.2, -0.1, 0.3, "undecided", **seeds)})
    assert rows.table_of_arms(arms, Names(arms)).groups[0].rows[1].cells["verdict"].interval == "14 to 35 more seeds"


# -- curves, classes, side effects -------------------------------------------------------------------------------------


def findings(arms: pd.DataFrame, runs: pd.DataFrame, shown: pd.DataFrame, **settings: Any) -> Findings:
    stats = StatsConfig(**settings)
    return Findings(runs, arms, described(runs, arms, stats), stats, curves=shown)


def curve_frame(values: dict[str, list[list[float]]], column: str) -> pd.DataFrame:
    return pd.DataFrame([
        {"arm": arm, "seed": seed, "epoch": epoch, column: value}
        for arm, seeds in values.items()
        for seed, points in enumerate(seeds)
        for epoch, value in enumerate(points, start=1)
    ])  # fmt: skip


def test_a_learning_curve_goes_through_its_values() -> None:
    runs = runs_of({"baseline": [0.5, 0.6], "k=1": [0.5, 0.7]})
    shown = curve_frame({"baseline": [[0.1, 0.2, 0.5], [0.1, 0.4, 0.7]], "k=1": [[0.1, 0.1, 0.9]]}, "val_accuracy")
    arms = ablation_table(runs)
    found = curves.curves_of(findings(arms, runs, shown), Names(arms), ["k=1"])
    assert found is not None
    x = [38, 38 + (240 - 38 - 8) / 2, 240 - 8]
    y = [round(110 - (value - 10) / 80 * (130 - 8 - 20), 1) for value in (10, 30, 60)]  # means, between 10 and 90 %
    assert found.panels[0].mean == f"M{' '.join(f'{a:g},{b:g}' for a, b in zip(x, y, strict=True))}"
    assert found.reference == found.panels[0].mean
    assert [line.title for line in found.panels[0].lines] == [
        "seed 0: 50.00 % after epoch 3",
        "seed 1: 70.00 % after epoch 3",
    ]
    assert found.panels[1].band == ""
    assert found.title == "Validation accuracy, %"


def test_a_curve_that_leaves_all_bounds_leaves_the_others_room() -> None:
    runs = runs_of({"baseline": [0.5, 0.6], "k=1": [0.5, 0.7]}, "loss")
    usual, wild = [[1.0 / epoch for epoch in range(1, 41)]] * 2, [[1.0, 1e12, NAN, math.inf]]
    shown = curve_frame({"baseline": usual, "k=1": wild}, "loss")
    arms = ablation_table(runs, metric="loss")
    found = curves.curves_of(findings(arms, runs, shown, metric="loss"), Names(arms), [])
    assert found is not None
    heights = [float(point.partition(",")[2]) for point in found.panels[0].mean[1:].split()]
    assert max(heights) - min(heights) > 40
    assert found.panels[1].last == "1e+12 after epoch 2"


def test_the_best_curve_of_an_accuracy_is_shown_however_few_learn() -> None:
    names = ["baseline", *(f"k={number}" for number in range(30))]
    runs = runs_of({name: [0.1, 0.1] for name in names})
    low = {name: [[0.1, 0.1 + 0.0001 * place]] for place, name in enumerate(names)}
    shown = curve_frame({**low, "k=29": [[0.9, 0.9]]}, "val_accuracy")
    arms = ablation_table(runs)
    found = curves.curves_of(findings(arms, runs, shown), Names(arms), names)
    assert found is not None
    assert found.ticks[-1][1] in ("80", "90")


def test_many_arms_wait_to_be_chosen_and_too_many_are_left_out() -> None:
    def curves_for(count: int) -> curves.Curves | None:
        scores = {"baseline": [0.5], **{f"k={number}": [0.5] for number in range(count - 1)}}
        runs = runs_of(scores)
        arms = ablation_table(runs)
        shown = curve_frame({arm: [[0.1, 0.2]] for arm in scores}, "val_accuracy")
        return curves.curves_of(findings(arms, runs, shown), Names(arms), list(reversed(scores)))

    found = curves_for(20)
    assert found is not None
    assert [panel.is_shown for panel in found.panels] == [True] + 8 * [False] + 11 * [True]
    assert curves_for(101) is None


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0, 20, 40, 60, 80, 100], 0, 100), ([0.2, 0.4, 0.6, 0.8], 0.11, 0.93), ([96, 97, 98], 95.6, 98.4),
        ([-1, 0, 1], -1.2, 1.4), ([1000, 2000], 800, 2100), ([95.62, 95.64, 95.66, 95.68, 95.7], 95.615, 95.705),
    ],
)  # fmt: skip
def test_axes_have_round_values(values: list[float], low: float, high: float) -> None:
    found = curves.round_values(low, high)
    assert set(np.round(found, 6)) <= set(np.round(values, 6))
    assert 2 <= len(found) <= 5


def test_every_arm_has_its_classes_and_no_name_ends_the_data() -> None:
    runs = runs_of({"baseline": [0.5, 0.6], "k=1": [0.5, 0.7]})
    arms = ablation_table(runs)
    found = findings(arms, runs, pd.DataFrame())
    names = ["</script>", "b"]
    figures_ = {"precision": 0.5, "recall": NAN, "f1": 0.25, "auc": 1.0, "n": 2}
    per_class = [{"arm": arm, "part": "test", "class": name, **figures_}
                 for arm in ("baseline", "k=1") for name in (*names, "weighted")]  # fmt: skip
    matrices = {("k=1", "test"): (np.array([[3.0, 1.0], [0.0, 4.5]]), names),
                ("baseline", "test"): (np.eye(2), names)}  # fmt: skip
    found.__dict__.update(per_class=pd.DataFrame(per_class), confusions=matrices)
    shown = classes.classes_of(found, Names(arms))
    assert shown is not None
    assert "</script>" not in shown.data
    figures = [["50.0", "", "25.0", "100.0"]] * 2
    assert json.loads(shown.data) == [[0, "test", "2 seeds", [[1, 0], [0, 1]], figures],
                                      [1, "test", "2 seeds", [[3, 1], [0, 4.5]], figures]]  # fmt: skip
    assert shown.arms == ["Baseline", "K 1"]
    assert classes.share([3.0, 1.0], 0) == 75
    assert classes.share([0.0, 0.0], 0) == 0


def test_what_an_arm_changed_besides_its_knob_is_counted_and_said() -> None:
    runs = runs_of({"baseline": [0.5, 0.6], "k=1": [0.5, 0.7]}).assign(
        num_params=[1000, 1000, 160, 160],
        updates=100,
        multiply_adds=[50, 50, 100, 100],
        dead_units=[0.1, 0.3, NAN, NAN],
    )
    arms = ablation_table(runs)
    found = side_effects.costs(runs, arms, Names(arms))
    assert found.columns == ["Arm", "Parameters", "Updates", "Multiply-adds per image", "Changed besides the knob"]
    assert found.rows == [
        ["Baseline", "1,000", "100", "50", ""],
        ["K 1", "160", "100", "100", "−84 % parameters; 2x the work per image"],
    ]
    assert side_effects.diagnoses(runs, arms, Names(arms)).columns == ["Arm", "Validation accuracy, %", "Dead units, %"]
    assert [row[2] for row in side_effects.diagnoses(runs, arms, Names(arms)).rows] == ["20.0", ""]


def test_runs_without_a_full_training_are_named_with_their_errors() -> None:
    runs = runs_of({"baseline": [0.5, 0.6], "k=1": [0.5, 0.7, 0.5]}).assign(
        status=["ok", "ok", "failed", "diverged", "diverged"], error=["", "", "x" * 700, "", ""], epochs=[1, 1, 0, 3, 0]
    )
    found, more = side_effects.failures(runs, Names(runs))
    assert found.rows == [
        ["K 1", "0", "failed", f"{'x' * 600} …"],
        ["K 1", "1", "diverged", "a loss was not finite in epoch 3"],
        ["K 1", "2", "diverged", "a loss was not finite"],
    ]
    assert more == ""
    assert side_effects.failures(pd.concat([runs] * 40), Names(runs))[1] == "20 more are in runs.csv."


# -- the protocol ------------------------------------------------------------------------------------------------------


def test_the_steps_of_a_greedy_study_are_told() -> None:
    path = [
        PathStep("model.activation", "baseline", ["model.activation=elu"], "baseline"),
        PathStep("model.dropout", "baseline", ["model.dropout=0.3", "model.dropout=0.5"], "model.dropout=0.5"),
        PathStep("k", "model.dropout=0.5", [], None),
    ]
    plan = Plan("greedy", {}, [], [Arm("baseline")], [0], {}, path=path)
    steps = [
        "step 1: dropped, -0.42 pp on validation",
        "step 2: dropped, no score",
        "step 2: kept, +1.00 pp on validation",
    ]
    arms = table(
        {name: difference(NAN, NAN, NAN, "undecided", notes=note) for name, note in
         zip(("model.activation=elu", "model.dropout=0.3", "model.dropout=0.5"), steps, strict=True)}
    )  # fmt: skip
    assert list(protocol.steps(plan, arms, Names(arms))) == [
        "activation, on top of Baseline: tried Activation elu (−0.42 pp on validation); Baseline stays.",
        "dropout, on top of Baseline: tried Dropout 0.3 (no score) and Dropout 0.5 (+1.00 pp on validation); "
        "Dropout 0.5 is kept.",
        "k, on top of Dropout 0.5: tried nothing new; not decided yet.",
    ]


def test_settings_are_those_that_can_change_a_result() -> None:
    baseline = {"task.name": "image_classification", "train.epochs": 3, "store": "/home/me/.ablation_runs",
                "optimizer.name": "adam", "data.name": "digits", "timing": "packed", "mine": "x"}  # fmt: skip
    plan = Plan("grid", {}, [], [Arm("baseline")], [0], baseline)
    assert [key for key, _ in protocol.settings(plan)] == [
        "task.name", "train.epochs", "optimizer.name", "data.name", "mine",
    ]  # fmt: skip


def test_a_citation_names_the_version_that_trained() -> None:
    found = citation({"cnn_ablation": "0.0.7"})
    assert "version 0.0.7" in found.text
    assert "  version = {0.0.7}," in found.bibtex
    assert found.bibtex.startswith("@software{cnn_ablation,\n")
    assert "cnn\\_ablation" in found.bibtex
