"""Which times are compared with which, and when an arm is called slower or faster."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from cnn_ablation import ablation_table
from cnn_ablation.analysis.notes import uncompared_times, waited
from cnn_ablation.config import StatsConfig
from cnn_ablation.report.__main__ import main as report
from cnn_ablation.report.caption import caption
from cnn_ablation.report.text import readable_table

WOBBLE = np.array([0.012, -0.008, 0.003, -0.011, 0.006])
BASE = 10 * np.exp(np.array([0.30, -0.20, 0.05, 0.15, -0.10]))
DAY = 86400.0


def runs_of(arm: str, seconds: Sequence[float], **columns: Any) -> pd.DataFrame:
    count = len(seconds)
    scores = 0.9 + 0.01 * np.random.default_rng(len(arm)).random(count)
    return pd.DataFrame(
        {"arm": arm, "knob": "k", "level": "v", "seed": range(count), "status": "ok", "val_accuracy": scores,
         "test_accuracy": scores, "train_seconds": seconds, **columns}
    )  # fmt: skip


def table(*frames: pd.DataFrame, **settings: Any) -> pd.DataFrame:
    return ablation_table(pd.concat(frames, ignore_index=True), **settings).set_index("arm")


def time_note(row: pd.Series[Any]) -> str:
    """What the notes say of times, and nothing else."""
    return "; ".join(note for note in row["notes"].split("; ") if "time" in note and "pairing" not in note)


def holm_by_hand(p_values: dict[str, float]) -> dict[str, float]:
    found, largest = {}, 0.0
    for rank, (name, value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * value))
        found[name] = largest
    return found


RATIOS = {"slower": 1.4, "faster": 0.7, "equal": 1.0, "undecided": 1.06}


def arms_of_all_kinds() -> list[pd.DataFrame]:
    """Arms named after the verdict they should get; that of `undecided` varies too much for one."""
    widths = {"undecided": 10.0}
    arms = [runs_of(name, BASE * ratio * np.exp(widths.get(name, 1.0) * WOBBLE)) for name, ratio in RATIOS.items()]
    return [runs_of("baseline", BASE), *arms]


def test_verdicts_are_those_of_the_logarithms_of_the_ratios() -> None:
    frames = arms_of_all_kinds()
    logs = {
        name: np.log(frame["train_seconds"].to_numpy() / BASE) for name, frame in zip(RATIOS, frames[1:], strict=True)
    }
    margin = math.log(1.05)
    differs = holm_by_hand({name: scipy_stats.ttest_1samp(each, 0).pvalue for name, each in logs.items()})
    within = holm_by_hand({
        name: max(scipy_stats.ttest_1samp(each, -margin, alternative="greater").pvalue,
                  scipy_stats.ttest_1samp(each, margin, alternative="less").pvalue)
        for name, each in logs.items()
    })  # fmt: skip
    expected = {
        name: "equal" if within[name] <= 0.05
        else ("slower" if each.mean() > 0 else "faster") if differs[name] <= 0.05 else "undecided"
        for name, each in logs.items()
    }  # fmt: skip
    found = table(*frames)
    assert expected == {name: name for name in RATIOS}
    assert found["time_verdict"].to_dict() == {"baseline": "", **expected}
    for name, each in logs.items():
        half = scipy_stats.sem(each) * scipy_stats.t.ppf(0.975, 4)
        limits = np.exp([each.mean(), each.mean() - half, each.mean() + half])
        assert found.loc[name, ["time_ratio", "time_ratio_ci_low", "time_ratio_ci_high"]].tolist() == pytest.approx(
            limits
        )


def test_verdicts_are_corrected_for_the_number_of_arms() -> None:
    """P = 0.02 of one arm is a verdict, of one among five it is none."""
    spread = np.array([1.0, -1.0, 0.5, -0.5, 0.0])
    shift = 0.2 * spread.std(ddof=1) / math.sqrt(5) * scipy_stats.t.ppf(1 - 0.01, 4)
    arm = runs_of("k=0", BASE * np.exp(0.2 * spread + shift))
    assert scipy_stats.ttest_1samp(np.log(arm["train_seconds"] / BASE), 0).pvalue == pytest.approx(0.02)
    others = [runs_of(f"k={number}", BASE * np.exp(np.roll(0.2 * spread, number))) for number in range(1, 5)]
    base = runs_of("baseline", BASE)
    assert table(base, arm).loc["k=0", "time_verdict"] == "slower"
    assert table(base, arm, *others).loc["k=0", "time_verdict"] == "undecided"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "undecided"),
        ({"time_margin": 0.3}, "equal"),
        ({"alpha": 0.45}, "slower"),
        ({"test": "sign_flip"}, "undecided"),
        ({"test": "anytime"}, "undecided"),
        ({"test": "dunnett"}, "undecided"),
        ({"metric": "val_accuracy"}, "undecided"),
    ],
    ids=[
        "by default",
        "a wide margin",
        "a loose level",
        "the exact test",
        "at any time",
        "a test that pairs nothing",
        "another metric",
    ],
)
def test_settings_reach_the_times(settings: dict[str, Any], expected: str) -> None:
    found = table(*arms_of_all_kinds(), **settings)
    assert found.loc["undecided", "time_verdict"] == expected


def test_the_test_that_always_holds_decides_times_too() -> None:
    """It needs more seeds than a t test: five do not decide what twelve do."""
    wobble = np.resize(WOBBLE, 12)
    base = runs_of("baseline", np.resize(BASE, 12))
    arm = runs_of("k=v", np.resize(BASE, 12) * 1.1 * np.exp(4 * wobble))
    few = [frame[frame["seed"] < 3] for frame in (base, arm)]
    verdicts = {test: (table(*few, test=test).loc["k=v"], table(base, arm, test=test).loc["k=v"])
                for test in ("t", "anytime")}  # fmt: skip
    assert [row["time_verdict"] for row in verdicts["anytime"]] == ["undecided", "slower"]
    widths = {test: rows[1]["time_ratio_ci_high"] - rows[1]["time_ratio_ci_low"] for test, rows in verdicts.items()}
    assert widths["anytime"] > widths["t"]


def in_rounds(place: float, count: int = 5, length: float = 10.0, pause: float = 0.0) -> dict[str, Any]:
    """When an arm was trained that has this place, 0 or 1, in each of its study's rounds."""
    started = 1e9 + np.arange(count) * (2 * length + pause) + place * length
    return {"train_started": started, "train_ended": started + length}


def in_a_block(first: float, count: int = 5, length: float = 10.0) -> dict[str, Any]:
    started = 1e9 + first + np.arange(count) * length
    return {"train_started": started, "train_ended": started + length}


SIDE_BY_SIDE = "the runs were not side by side with equally many others"
OTHER_MEMORY = "the images lay on the GPU for one run, in host memory for the other"
OTHER_HARDWARE = "the runs were on other hardware, or with another number of threads"
APART = "the runs were not trained next to each other in time"
ALL, NONE = "", "times are not compared: {}"


def from_seeds(count: int, why: str) -> str:
    return f"time ratio from {count} of 5 seeds: in the others {why}"


@pytest.mark.parametrize(
    ("expected", "note", "base", "arm"),
    [
        (5, ALL, {}, {}),
        (5, ALL, {"hardware": "x", "threads": 1}, {"hardware": "x", "threads": 1}),
        (0, NONE.format(OTHER_HARDWARE), {"hardware": "x"}, {"hardware": "y"}),
        (0, NONE.format(OTHER_HARDWARE), {"hardware": "x"}, {"hardware": ""}),
        (3, from_seeds(3, OTHER_HARDWARE), {"threads": 1}, {"threads": [1, 1, 2, 2, 1]}),
        (5, ALL, {"images_in_host_memory": True}, {"images_in_host_memory": True}),
        (0, NONE.format(OTHER_MEMORY), {"images_in_host_memory": False}, {"images_in_host_memory": True}),
        (2, from_seeds(2, OTHER_MEMORY), {"images_in_host_memory": True},
         {"images_in_host_memory": [True, False, False, False, True]}),
        (3, from_seeds(3, SIDE_BY_SIDE), {"concurrent_runs": 2}, {"concurrent_runs": [2, 2, 1, 2, 1]}),
        (5, ALL, {"neighbours": 0.99}, {"neighbours": [1, 0.9, 0.8, 0.75, 0.74]}),
        (2, from_seeds(2, SIDE_BY_SIDE), {"neighbours": 1.0}, {"neighbours": [0.76, 1.24, 0.74, 1.26, 0]}),
        (4, from_seeds(4, SIDE_BY_SIDE), {"neighbours": 15}, {"neighbours": [15, 14, 13.6, 14.5, 13.4]}),
        (5, ALL, {"neighbours": math.nan}, {"neighbours": math.nan}),
        (0, NONE.format(SIDE_BY_SIDE), {"neighbours": 0.0}, {"neighbours": math.nan}),
        (5, ALL, in_rounds(0), in_rounds(1)),
        (5, ALL, in_rounds(0, pause=DAY), in_rounds(1, pause=DAY)),
        (0, NONE.format(APART), in_a_block(0), in_a_block(50)),
        (0, NONE.format(APART), in_a_block(50), in_a_block(0)),
        (0, NONE.format(APART), in_rounds(0, pause=2 * DAY), in_rounds(0, pause=2 * DAY) | {
            name: value + DAY for name, value in in_rounds(0, pause=2 * DAY).items()}),
        (5, ALL, in_a_block(0), in_a_block(5)),
        (4, from_seeds(4, f"{OTHER_HARDWARE}"), {"hardware": "x", "neighbours": 1},
         {"hardware": ["x", "x", "x", "x", "y"], "neighbours": [1, 1, 1, 1, 0]}),
        (3, from_seeds(3, f"{OTHER_HARDWARE}, or {SIDE_BY_SIDE}"), {"hardware": "x", "neighbours": 1},
         {"hardware": ["x", "x", "x", "x", "y"], "neighbours": [1, 1, 1, 0, 1]}),
    ],
    ids=["nothing is known", "alike", "another processor", "a processor that nobody knows", "threads",
         "both in host memory", "one in host memory", "some in host memory", "as planned",
         "a little fewer neighbours", "other neighbours", "many neighbours", "nobody counted", "one was interrupted",
         "seed by seed", "seed by seed, a day for each", "block after block", "block before block",
         "a day between the two", "blocks side by side", "the first reason counts", "two reasons"],
)  # fmt: skip
def test_only_like_runs_are_compared(expected: int, note: str, base: dict[str, Any], arm: dict[str, Any]) -> None:
    """The time ratio is that of the seeds whose runs are alike, and the note says why the others are not."""
    times = BASE * np.array([1.1, 1.2, 1.3, 1.4, 1.5])
    row = table(runs_of("baseline", BASE, **base), runs_of("k=v", times, **arm)).loc["k=v"]
    assert time_note(row) == note
    if expected == 0:
        assert math.isnan(row["time_ratio"])
        assert row["time_verdict"] == ""
    if expected == 5:
        assert row["time_ratio"] == pytest.approx(scipy_stats.gmean([1.1, 1.2, 1.3, 1.4, 1.5]))
        assert row["time_verdict"] == "slower"


def test_the_seeds_that_are_left_are_the_right_ones() -> None:
    times = BASE * np.array([1.1, 1.2, 1.3, 1.4, 1.5])
    arm = runs_of("k=v", times, neighbours=[1, 0, 1, 0, 0])
    row = table(runs_of("baseline", BASE, neighbours=1), arm).loc["k=v"]
    assert row["time_ratio"] == pytest.approx(math.sqrt(1.1 * 1.3))


def test_an_arm_that_is_added_later_is_not_compared_but_the_old_ones_still_are() -> None:
    base, old = runs_of("baseline", BASE, **in_rounds(0)), runs_of("k=1", 1.4 * BASE * np.exp(WOBBLE), **in_rounds(1))
    new = runs_of("k=2", 1.4 * BASE * np.exp(WOBBLE), **in_a_block(200))
    found = table(base, old, new)
    assert found["time_verdict"].tolist() == ["", "slower", ""]
    assert time_note(found.loc["k=2"]) == NONE.format(APART)


def test_a_study_that_is_extended_by_seeds_keeps_its_times() -> None:
    """Two rounds today, three next week: each pair was trained side by side."""

    def on_two_days(place: int) -> dict[str, Any]:
        found = in_rounds(place)
        return {name: value + np.array([0, 0, 7, 7, 7]) * DAY for name, value in found.items()}

    row = table(runs_of("baseline", BASE, **on_two_days(0)), runs_of("k=v", 1.4 * BASE, **on_two_days(1))).loc["k=v"]
    assert (time_note(row), row["time_ratio"]) == ("", pytest.approx(1.4))


@pytest.mark.parametrize(
    ("base", "arm", "ratio", "note"),
    [
        ([0, 0, 0, 0, 0], [1, 1, 1, 1, 1], 1.1, "5 seeds trained in one go: one measurement of time"),
        ([0, 0, 0, 2, 2], [1, 1, 1, 3, 3], math.sqrt(1.1 * 1.4),
         "5 seeds trained in one go: 2 measurements of time"),
        ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], None, ""),
    ],
    ids=["all", "two groups", "each has its own"],
)  # fmt: skip
def test_seeds_trained_in_one_go_are_one_measurement(
    base: list[int], arm: list[int], ratio: float | None, note: str
) -> None:
    times = BASE * np.array([1.1, 1.2, 1.3, 1.4, 1.5])

    def moments(places: list[int]) -> dict[str, Any]:
        started = 1e9 + 10.0 * np.array(places)
        return {"train_started": started, "train_ended": started + 10}

    row = table(runs_of("baseline", BASE, **moments(base)), runs_of("k=v", times, **moments(arm))).loc["k=v"]
    assert time_note(row) == note
    expected = ratio or scipy_stats.gmean([1.1, 1.2, 1.3, 1.4, 1.5])
    assert row["time_ratio"] == pytest.approx(expected)
    assert (row["time_verdict"] == "") == (note.endswith("one measurement of time"))


def test_times_as_a_metric_are_paired_alike() -> None:
    base = runs_of("baseline", BASE, cpu_seconds=BASE, neighbours=1)
    arm = runs_of("k=v", BASE, cpu_seconds=BASE + np.array([1.0, 1.1, 0.9, 5.0, 5.0]), neighbours=[1, 1, 1, 0, 0])
    assert table(base, arm, metric="cpu_seconds").loc["k=v", "delta"] == pytest.approx(1.0)


@pytest.mark.parametrize("column", ["neighbours", "train_started", "threads", "cpu_seconds"])
def test_circumstances_are_numbers_that_are_at_least_0(column: str) -> None:
    frame = runs_of("baseline", BASE, **{column: [1.0, 1.0, -1.0, 1.0, 1.0]})
    with pytest.raises(Exception, match=f"arm 'baseline', seed 2: {column} is -1; a number that is at least 0"):
        ablation_table(frame)


WAITED = "had the processor for"


@pytest.mark.parametrize(
    ("expected", "columns"),
    [
        ("", {"cpu_seconds": 0.97 * BASE, "threads": 1, "device": "cpu", "images_per_second": 1.0}),
        (f"seed 2 {WAITED} 61 % of its training time",
         {"cpu_seconds": BASE * [1, 1, 0.61, 0.85, 1], "threads": 1, "device": "cpu", "images_per_second": 1.0}),
        (f"3 of 5 seeds {WAITED} 48 to 70 % of their training time",
         {"cpu_seconds": BASE * [0.7, 1, 0.48, 0.6, 1], "threads": 1, "device": "cpu", "images_per_second": 1.0}),
        (f"5 of 5 seeds {WAITED} 50 % of their training time",
         {"cpu_seconds": BASE * 0.5, "threads": 1, "device": "cpu", "images_per_second": 1.0}),
        ("", {"cpu_seconds": BASE * 0.5, "threads": 1, "device": "cpu"}),
        (f"seed 0 {WAITED} 50 % of its training time",
         {"cpu_seconds": BASE * [0.2, 0.4, 0.4, 0.4, 0.4], "threads": 1, "device": "cpu"}),
        ("", {"cpu_seconds": 2.4 * BASE, "threads": 4, "device": "cpu", "images_per_second": 1.0}),
        (f"seed 4 {WAITED} 50 % of its training time",
         {"cpu_seconds": BASE * [2.4, 2.4, 2.4, 2.4, 1.2], "threads": 4, "device": "cpu", "images_per_second": 1.0}),
        ("", {"cpu_seconds": BASE * [1, 1, 0.1, 1, 1], "threads": 0, "device": "cuda", "images_per_second": 1.0}),
        ("", {"cpu_seconds": math.nan, "threads": 1, "device": "cpu", "images_per_second": 1.0}),
        ("", {"cpu_seconds": BASE * 0.5}),
    ],
    ids=["undisturbed", "one seed", "some seeds", "all seeds", "a function that waits for files",
         "a function that was disturbed", "threads that wait for each other", "threads that were disturbed", "a GPU",
         "not measured", "no threads told"],
)  # fmt: skip
def test_runs_that_waited_for_the_processor_are_named(expected: str, columns: dict[str, Any]) -> None:
    assert table(runs_of("baseline", BASE, **columns)).loc["baseline", "notes"] == expected


def test_words_of_a_run_that_waited_are_those_of_its_seed() -> None:
    assert list(waited([7, 9], [0.79, 0.81])) == [f"seed 7 {WAITED} 79 % of its training time"]
    assert list(waited([7], [math.nan])) == list(uncompared_times(3, 3, [])) == []


def test_the_readable_table_and_its_caption_say_the_verdict() -> None:
    frames = arms_of_all_kinds()
    runs = pd.concat(frames, ignore_index=True)
    arms = ablation_table(runs)
    column = readable_table(arms)["time ratio"].tolist()
    assert column[0] == ""
    assert column[1].startswith("1.4")
    assert [text.rpartition("] ")[2] for text in column[1:]] == list(RATIOS)
    words = caption(runs, arms, StatsConfig(time_margin=0.1))
    assert ("Slower and faster hold after Holm's correction over 4 comparisons of times, a family of its own, at 0.05; "
            "equal means shown to lie between 0.909 and 1.1 times the baseline's.") in words  # fmt: skip
    alone = frames[0]
    assert "Slower" not in caption(alone, ablation_table(alone), StatsConfig())


def test_times_are_compared_with_what_differences_are_compared_with() -> None:
    runs = pd.concat(arms_of_all_kinds(), ignore_index=True).replace({"arm": {"baseline": "full"}})
    assert "1.05 times the full configuration's." in caption(runs, ablation_table(runs), StatsConfig())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda runs, out: report(["--runs", runs, "--out", out, "--time-margin", "0"]),
         "--time-margin 0.0: allowed is above 0"),
        (lambda runs, out: ablation_table(pd.read_csv(runs), time_margin=0), "time_margin=0.0\n  allowed: above 0"),
    ],
    ids=["report", "Python"],
)  # fmt: skip
def test_a_margin_without_width_is_refused(
    call: Callable[[str, str], Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.csv"
    runs_of("baseline", BASE).to_csv(path, index=False)
    said = ""
    try:
        call(str(path), str(tmp_path / "out"))
    except (Exception, SystemExit) as error:
        said = str(error)
    assert words in said + capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_the_report_takes_a_margin_for_times(tmp_path: Path) -> None:
    pd.concat(arms_of_all_kinds()).to_csv(tmp_path / "runs.csv", index=False)
    assert report(["--runs", str(tmp_path / "runs.csv"), "--out", str(tmp_path), "--time-margin", "0.3"]) == 0
    found = pd.read_csv(tmp_path / "ablation.csv", keep_default_na=False).set_index("arm")
    assert found["time_verdict"].to_dict() == {
        "baseline": "", "slower": "slower", "faster": "faster", "equal": "equal", "undecided": "equal",
    }  # fmt: skip
    for name in ("ablation.md", "ablation.html"):
        assert "] slower" in re.sub("<[^>]*>", "", (tmp_path / name).read_text())
