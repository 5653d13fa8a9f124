"""What `ablation_table`, `load_runs` and `load_curves` refuse, and in which words: nothing wrong goes in silently."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cnn_ablation
from cnn_ablation.common.errors import ConfigError, RecordError, UserError
from cnn_ablation.runs.records import Run, record_path, write_run
from cnn_ablation.study.designs import Arm
from cnn_ablation.study.plans import Plan, write_plan

SCORES = {"baseline": [0.90, 0.91, 0.89, 0.92], "k=v": [0.93, 0.92, 0.94, 0.93]}


def runs(**columns: Any) -> pd.DataFrame:
    """Two arms with four seeds; `columns` take the place of what is there, or are added."""
    rows = [
        {"arm": arm, "knob": "" if arm == "baseline" else "k", "level": "" if arm == "baseline" else "v", "seed": seed,
         "status": "ok", "val_accuracy": score - 0.01, "test_accuracy": score, "train_seconds": 10.0 + seed}
        for arm, scores in SCORES.items()
        for seed, score in enumerate(scores)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**columns)


def with_value(column: str, value: object, row: int = 5) -> pd.DataFrame:
    """The same with one wrong value, in the second seed of `k=v`."""
    frame = runs()
    if column not in frame:
        frame[column] = 1.0
    frame[column] = frame[column].astype(object)
    frame.at[row, column] = value
    return frame


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "alpha above its bound": ({"alpha": 5}, "alpha=5.0\n  allowed: above 0 and below 0.5"),
    "alpha zero": ({"alpha": 0}, "alpha=0.0\n  allowed: above 0 and below 0.5"),
    "alpha negative": ({"alpha": -0.05}, "alpha=-0.05\n  allowed: above 0"),
    "alpha nan": ({"alpha": math.nan}, "alpha=nan\n  allowed: a finite number, above 0 and below 0.5"),
    "alpha text": ({"alpha": "0.05"}, "alpha='0.05'\n  allowed: float, above 0 and below 0.5"),
    "alpha none": ({"alpha": None}, "alpha=null\n  allowed: float, above 0"),
    "alpha switch": ({"alpha": True}, "alpha=true\n  allowed: float, above 0"),
    "alpha list": ({"alpha": [0.05, 0.01]}, "alpha=[0.05, 0.01]\n  allowed: float, above 0"),
    "alpha frame": ({"alpha": runs()}, "  allowed: float, above 0"),
    "margin zero": ({"margin_pp": 0}, "margin_pp=0.0\n  allowed: above 0"),
    "margin infinite": ({"margin_pp": math.inf}, "margin_pp=inf\n  allowed: a finite number, above 0"),
    "test unknown": ({"test": "foo"}, "test=foo\n  allowed: t, sign_flip, anytime, dunnett"),
    "test misspelt": ({"test": "signflip"}, "did you mean: test=sign_flip"),
    "test none": ({"test": None}, "test=null\n  allowed: str, t, sign_flip, anytime, dunnett"),
    "test list": ({"test": ["t"]}, "test=['t']\n  allowed: str, t, sign_flip, anytime, dunnett"),
    "metric misspelt": ({"metric": "tain_seconds"}, "did you mean: metric=train_seconds"),
    "metric a label": ({"metric": "seed"}, "metric=seed\n  allowed: a column of numbers of the table of runs: val_acc"),
    "metric none": ({"metric": None}, "metric=null\n  allowed: str"),
    "direction misspelt": (
        {"direction": "lowr"},
        "direction=lowr\n  allowed: higher, lower\n  did you mean: direction=lower",
    ),
    "margin of an accuracy": ({"margin": 0.5}, "margin=0.5\n  allowed: null with metric=test_accuracy"),
    "margin of seconds zero": ({"metric": "train_seconds", "margin": 0}, "margin=0.0\n  allowed: above 0"),
    "margin of seconds nan": (
        {"metric": "train_seconds", "margin": math.nan},
        "margin=nan\n  allowed: a finite number",
    ),
    "simultaneous number": ({"simultaneous": 3}, "simultaneous=3\n  allowed: bool"),
    "simultaneous text": ({"simultaneous": "false"}, "simultaneous='false'\n  allowed: bool"),
    "path text": ({"path": "step"}, "path=str\n  allowed: a list of PathStep"),
    "path of names": ({"path": ["k=v"]}, "path=list\n  allowed: a list of PathStep"),
    "two at once": ({"alpha": 5, "test": "foo"}, "test=foo"),
}


@pytest.mark.parametrize(("settings", "message"), SETTINGS.values(), ids=SETTINGS)
def test_settings_are_held_to_their_bounds(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        cnn_ablation.ablation_table(runs(), **settings)
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 10


FRAMES: dict[str, tuple[Callable[[], Any], str]] = {
    "a list": (lambda: [1, 2], r"a table of runs is a pandas DataFrame, not list \(\[1, 2\]\)"),
    "a folder": (lambda: "multirun/x", r"not str \('multirun/x'\)\n  remedy: cnn_ablation.load_runs\(DIR\)"),
    "nothing": (lambda: None, "not NoneType"),
    "a series": (lambda: runs()["arm"], "not Series"),
    "no columns": (pd.DataFrame, "lacks the columns arm, knob, level, seed, status, val_accuracy"),
    "no rows": (lambda: runs()[:0], "the table of runs has no rows"),
    "a column twice": (lambda: pd.concat([runs(), runs()[["seed"]]], axis=1), "has the column seed more than once"),
    "one accuracy of 1.7": (
        lambda: with_value("test_accuracy", 1.7),
        r"arm 'k=v', seed 1: test_accuracy is 1.7; a fraction in 0..1 is wanted\n"
        r"  remedy: accuracies are fractions; divide percentages by 100",
    ),
    "percent": (
        lambda: runs(test_accuracy=100 * runs()["test_accuracy"]),
        r"arm 'baseline', seed 0: test_accuracy is 90; a fraction in 0..1 is wanted \(and 7 more runs\)\n.*by 100",
    ),
    "validation percent": (lambda: with_value("val_accuracy", 93), "seed 1: val_accuracy is 93; .*\n.*by 100"),
    "training percent": (lambda: with_value("train_accuracy", 99.0), "seed 1: train_accuracy is 99; .*\n.*by 100"),
    "negative accuracy": (lambda: with_value("test_accuracy", -0.1), "seed 1: test_accuracy is -0.1; a fraction"),
    "infinite accuracy": (lambda: with_value("test_accuracy", math.inf), "seed 1: test_accuracy is inf; a fraction"),
    "accuracy as text": (lambda: with_value("test_accuracy", "0.93"), "seed 1: test_accuracy is '0.93'; a number"),
    "all accuracies text": (
        lambda: runs(test_accuracy=runs()["test_accuracy"].astype(str)),
        r"arm 'baseline', seed 0: test_accuracy is '0.9'; a number is wanted \(and 7 more runs\)",
    ),
    "accuracy true": (lambda: with_value("test_accuracy", True), "seed 1: test_accuracy is True; a number"),
    "accuracy complex": (lambda: runs(test_accuracy=0.5 + 0j), "test_accuracy is .*; a number"),
    "accuracy date": (lambda: runs(test_accuracy=pd.Timestamp(0)), "test_accuracy is .*; a number"),
    "status unknown": (lambda: with_value("status", "done"), "seed 1: status is 'done'; one of ok, diverged, failed"),
    "status missing": (lambda: with_value("status", None), "seed 1: status is None; one of ok, diverged, failed"),
    "status number": (lambda: runs(status=1), "status is .*1.*; one of ok, diverged, failed"),
    "seed half": (lambda: with_value("seed", 1.5), "arm 'k=v': seed is 1.5; a whole number"),
    "seed missing": (lambda: with_value("seed", math.nan), "arm 'k=v': seed is nan; a whole number"),
    "seed text": (lambda: with_value("seed", "one"), "arm 'k=v': seed is 'one'; a number"),
    "seed infinite": (lambda: with_value("seed", math.inf), "arm 'k=v': seed is inf; a whole number"),
    "seconds negative": (lambda: with_value("train_seconds", -1.0), "train_seconds is -1; a number that is at least 0"),
    "seconds text": (lambda: with_value("train_seconds", "10 s"), "train_seconds is '10 s'; a number"),
    "seconds infinite": (lambda: with_value("train_seconds", math.inf), "train_seconds is inf; a number that is at"),
    "seconds as durations": (lambda: runs(train_seconds=pd.Timedelta(seconds=3)), "train_seconds is .*; a number"),
    "arm missing": (lambda: with_value("arm", None), "row 6 of the table of runs: arm is None; the name of an arm"),
    "arm empty": (lambda: with_value("arm", " "), "row 6 of the table of runs: arm is ' '; the name of an arm"),
    "loss as text": (lambda: with_value("val_loss", "low"), "seed 1: val_loss is 'low'; a number"),
    "parameters as text": (lambda: with_value("num_params", "1e6 "), "seed 1: num_params is '1e6 '; a number"),
    "negative updates": (lambda: with_value("updates", -3.0), "seed 1: updates is -3; a number that is at least 0"),
    "dead units in percent": (lambda: with_value("dead_units", 31.0), "seed 1: dead_units is 31; a fraction in 0..1"),
    "reused as text": (lambda: with_value("reused", "no"), "seed 1: reused is 'no'; true or false"),
    "no baseline": (
        lambda: runs(arm=["base"] * 4 + ["k=v"] * 4),
        "no finished run of the arm 'baseline'.*\n.*the arms 'base', 'k=v'; others are compared with 'baseline', or",
    ),
    "baseline without scores": (
        lambda: runs(test_accuracy=[math.nan] * 4 + [0.9] * 4),
        "no run of the arm 'baseline' has a test_accuracy",
    ),
    "failed full": (
        lambda: runs(arm=["full"] * 4 + ["k=v"] * 4, status=["failed"] * 4 + ["ok"] * 4),
        "no finished run of the arm 'full'",
    ),
}


@pytest.mark.parametrize(("frame", "message"), FRAMES.values(), ids=FRAMES)
def test_tables_of_runs_are_checked_at_the_entry(frame: Callable[[], Any], message: str) -> None:
    with pytest.raises(RecordError) as raised:
        cnn_ablation.ablation_table(frame())
    assert re.search(message, str(raised.value)), str(raised.value)
    assert len(str(raised.value).splitlines()) <= 10


GOOD: dict[str, dict[str, Any]] = {
    "seeds as floats": {"seed": [0.0, 1.0, 2.0, 3.0] * 2},
    "nullable seeds": {"seed": pd.array([0, 1, 2, 3] * 2, dtype="Int64")},
    "nullable accuracies": {"test_accuracy": pd.array([*SCORES["baseline"], *SCORES["k=v"]], dtype="Float64")},
    "objects": {"test_accuracy": np.array([*SCORES["baseline"], *SCORES["k=v"]], dtype=object)},
    "categories": {"arm": pd.Categorical(["baseline"] * 4 + ["k=v"] * 4)},
    "empty cells as pandas reads them": {"knob": [math.nan] * 4 + ["k"] * 4, "level": [math.nan] * 4 + ["v"] * 4},
    "an index of its own": {"note": list("abcdefgh")},
}


@pytest.mark.parametrize("columns", GOOD.values(), ids=GOOD)
def test_the_same_numbers_in_other_types_give_the_same_table(columns: dict[str, Any]) -> None:
    frame = runs(**columns)
    if "note" in frame:
        frame = frame.set_index("note")
    pd.testing.assert_frame_equal(cnn_ablation.ablation_table(frame), cnn_ablation.ablation_table(runs()))


def test_the_table_that_came_in_stays_as_it_was() -> None:
    frame = runs(seed=[0.0, 1.0, 2.0, 3.0] * 2)
    before = frame.copy(deep=True)
    cnn_ablation.ablation_table(frame)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("load", [cnn_ablation.load_runs, cnn_ablation.load_curves], ids=["runs", "curves"])
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (None, "a study's folder is text or a path, not None"),
        (3, "a study's folder is text or a path, not 3"),
        (["a"], r"a study's folder is text or a path, not \['a'\]"),
        ("a\0b", "a study's folder is text or a path, not 'a.x00b'"),
        ("nowhere", "nowhere is no study: there is no study.yaml in it"),
        ("study.yaml", "study.yaml is a file; a study's folder is wanted\n  remedy: the folder that holds study.yaml"),
        ("0", "0 is no study: there is no study.yaml in it\n  remedy: .* holds one; give that folder"),
    ],
    ids=["none", "number", "list", "nul", "missing", "a file", "a job's folder"],
)
def test_folders_that_hold_no_study_are_refused(
    load: Callable[[Any], pd.DataFrame], folder: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordError, match=message):
        load(folder)


def write_study(folder: Path) -> None:
    """A baseline with two seeds."""
    write_plan(folder, Plan("one_at_a_time", {}, [], [Arm("baseline")], [0, 1], {"train.epochs": 1}))
    for seed in (0, 1):
        write_run(record_path(folder / str(seed), seed), Run("baseline", "", "", seed, "ok", test_accuracy=0.9))


DAMAGES: dict[str, tuple[str, str, str]] = {
    "binary": (".*", "\x00\x01", "ReaderError"),
    "cut short": (r"arms:.*", "arms: [", "ParserError"),
    "empty": (".*", "", "TypeError"),
    "a list": (".*", "- 1", "TypeError"),
    "a word": (".*", "hello", "TypeError"),
    "no arms": (r"arms:\n(- .*\n(  .*\n)*)*", "arms: []\n", "arms: none"),
    "arm without name": (r"- name: baseline", "- name: null", "arms: "),
    "arm with a number": (r"- name: baseline", "- name: 3", r"arms: \(3, '', ''\)"),
    "no such date": (r"design: one_at_a_time", "design: 2026-13-45", "ValueError"),
    "seeds a word": (r"seeds:\n- 0\n- 1\n", "seeds: two\n", "seeds: 'two'"),
    "seeds halves": (r"seeds:\n- 0\n- 1\n", "seeds: [0.5]\n", r"seeds: \[0.5\]"),
    "seeds twice": (r"seeds:\n- 0\n- 1\n", "seeds: [1, 1]\n", r"seeds: \[1, 1\]; different whole numbers"),
    "no seeds": (r"seeds:\n- 0\n- 1\n", "seeds: []\n", r"seeds: \[\]"),
    "keys a number": (r"keys: \[\]", "keys: 3", "keys: 3"),
    "path a number": (r"path: \[\]", "path: 3", "TypeError"),
    "path of numbers": (r"path: \[\]", "path: [3]", "TypeError"),
    "step without names": (
        r"path: \[\]",
        "path: [{knob: k, before: 1, candidates: x, kept: null}]",
        r"path: PathStep\(",
    ),
    "baseline a list": (r"baseline:\n  train.epochs: 1\n", "baseline: [1]\n", "a table of keys is missing"),
    "baseline null": (r"baseline:\n  train.epochs: 1\n", "baseline: null\n", "a table of keys is missing"),
    "scale a word": (r"train.epochs: 1", "train.scale: half", "baseline: train.scale: 'half'"),
    "paper a number": (r"train.epochs: 1", "paper: 3", "baseline: paper: 3"),
    "alpha too large": (r"alpha: 0.05", "alpha: 5", "stats.alpha=5.0;   allowed: above 0 and below 0.5"),
    "alpha a word": (r"alpha: 0.05", "alpha: x", "stats.alpha='x';   allowed: float"),
    "test unknown": (r"test: t\b", "test: u", "stats.test=u;   allowed: t, sign_flip, anytime, dunnett"),
    "unknown key": (r"design:", "colour: red\ndesign:", "TypeError"),
    "knobs a word": (r"knobs: \{\}", "knobs: k", "a table of keys is missing"),
}


@pytest.mark.parametrize(("part", "instead", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_plan_is_named(part: str, instead: str, message: str, tmp_path: Path) -> None:
    write_study(tmp_path)
    path = tmp_path / "study.yaml"
    flags = re.DOTALL if part in {".*", "arms:.*"} else 0
    text, count = re.subn(part, instead, path.read_text(), count=1, flags=flags)
    assert count == 1
    path.write_text(text)
    with pytest.raises(UserError, match=r"study\.yaml is damaged or unreadable") as raised:
        cnn_ablation.load_runs(tmp_path)
    assert re.search(message, str(raised.value)), str(raised.value)
    assert len(str(raised.value).splitlines()) <= 10
