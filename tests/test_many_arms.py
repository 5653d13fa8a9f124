"""A study of a thousand arms: what a person is shown of it, and what is looked for on disk."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Answer
from matplotlib.figure import Figure

import cnn_ablation
from cnn_ablation.analysis.tables.arms import open_arms
from cnn_ablation.common import progress
from cnn_ablation.config import StatsConfig
from cnn_ablation.launch.arrivals import Arrivals
from cnn_ablation.launch.execution import Study
from cnn_ablation.launch.planning import Planning
from cnn_ablation.report import figures, pictures
from cnn_ablation.report.html_table import html_page
from cnn_ablation.report.pictures import left_out, write_pictures
from cnn_ablation.report.terminal import print_table
from cnn_ablation.report.tex_table import tex_table
from cnn_ablation.report.text import readable_table
from cnn_ablation.runs.records import failed_run, record_path, write_run
from cnn_ablation.study.designs import Arm, ordered
from cnn_ablation.study.plans import Plan, read_plan, shortened, write_plan
from cnn_ablation.tasks.image_classification.config import Config


def runs_of(num_arms: int, seeds: int = 2) -> pd.DataFrame:
    """Arm k has a dropout of k / 1000 and is k / 10000 better than the baseline, in a shuffled order."""
    order = np.random.default_rng(0).permutation(np.arange(1, num_arms))
    rows = [
        {
            "arm": "baseline" if k == 0 else f"model.dropout={k / 1000}", "knob": "" if k == 0 else "model.dropout",
            "level": "" if k == 0 else str(k / 1000), "seed": seed, "status": "ok", "train_seconds": 1.0 + k / 100,
            "test_accuracy": 0.5 + k / 10000 + seed / 1000, "val_accuracy": 0.5, "model.dropout": k / 1000,
        }
        for seed in range(seeds)
        for k in (0, *order)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, ["0"]),
        (40, [str(n) for n in range(40)]),
        (41, [*map(str, range(20)), "... 1 more ...", *map(str, range(21, 41))]),
    ],
    ids=["one", "just few", "just many"],
)
def test_of_many_lines_the_first_and_the_last_are_shown(count: int, expected: list[str]) -> None:
    assert shortened([str(number) for number in range(count)]) == expected


def test_a_plan_of_many_arms_is_short_on_the_terminal(cli: Callable[..., Answer]) -> None:
    levels = ",".join(f"{number / 1000:g}" for number in range(1, 301))
    answer = cli("-m", f"model.dropout={levels}", "replicates=2", "dry_run=true")
    lines = answer.out.splitlines()
    assert lines[0] == "one_at_a_time: 301 arms x 2 seeds (0, 1) = 602 runs"
    assert (lines[1], lines[20], lines[21]) == (
        "  baseline (model.dropout=0.0)", "  model.dropout=0.019", "  ... 261 more ...",
    )  # fmt: skip
    assert lines[41] == "  model.dropout=0.3"
    assert "would reuse 0 of 602 runs" in answer.out


def test_a_table_of_many_arms_shows_the_best_and_the_worst(capsys: pytest.CaptureFixture[str]) -> None:
    arms = cnn_ablation.ablation_table(runs_of(61))
    print_table(arms, "A caption.")
    printed = capsys.readouterr().out
    named = re.findall(r"model\.dropout=[\d.]+", printed)
    by_hand = {f"model.dropout={k / 1000}" for k in (*range(1, 21), *range(41, 61))}
    assert set(named) == by_hand
    assert named == [name for name in arms["arm"] if name in by_hand]  # in the order of the whole table
    said = " ".join(printed.split())
    assert (
        "20 of the 61 arms with the best and with the worst test_accuracy, and baseline; all are in ablation.md" in said
    )
    assert len(readable_table(arms)) == 61


def test_a_table_of_few_arms_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(cnn_ablation.ablation_table(runs_of(41)), "A caption.")
    printed = capsys.readouterr().out
    assert len(re.findall(r"model\.dropout=[\d.]+", printed)) == 40
    assert "Here are" not in printed


@pytest.mark.parametrize(("num_arms", "names_arms"), [(5, True), (6, False)])
def test_pictures_of_many_arms_name_none(
    num_arms: int, names_arms: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_MOST_ARMS", 5)
    runs = runs_of(num_arms)
    arms = cnn_ablation.ablation_table(runs)
    written = {path.stem for path in write_pictures(tmp_path, runs, arms, pd.DataFrame(), StatsConfig())}
    assert written == {"levels_model.dropout"} | ({"differences", "accuracy_against_time"} if names_arms else set())
    sentence = "pictures that name every arm are left out: at most 5 names can be read, here are 6"
    assert left_out(arms) == ("" if names_arms else sentence)


@pytest.mark.parametrize("num_arms", [5, 40])
def test_levels_stand_where_their_values_are(num_arms: int) -> None:
    runs = runs_of(num_arms, seeds=3)
    arms = cnn_ablation.ablation_table(runs)
    ax = Figure().add_subplot()
    figures.plot_levels(arms, figures.numeric_levels(runs, arms)["model.dropout"], ax, key="model.dropout")
    drawn = {(round(x, 6), round(y, 6)) for line in ax.lines[1:] for x, y in zip(*line.get_data(), strict=True)}
    means = runs.groupby("model.dropout")["test_accuracy"].mean()
    assert drawn >= {(round(x, 6), round(100 * y, 6)) for x, y in means.items()}
    assert len(ax.get_xticks()) == 5 if num_arms == 5 else len(ax.get_xticks()) <= 30


def test_many_items_are_counted_and_the_last_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    items = list(range(1000))
    with progress.watch("runs", len(items), lambda: items, str):
        pass
    assert capsys.readouterr().err.splitlines() == ["[1000/1000] 999"]


def test_few_items_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.watch("runs", 3, lambda: ["a", "b", "c"], str):
        pass
    assert capsys.readouterr().err.splitlines() == ["[1/3] a", "[2/3] b", "[3/3] c"]


def test_looks_that_take_long_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PAUSE", 0.001)
    looks = list[float]()

    def slow() -> list[int]:
        looks.append(time.perf_counter())
        time.sleep(0.02)
        return []

    began = time.perf_counter()
    with progress.watch("runs", 1, slow, str):
        time.sleep(0.3)
    seconds = time.perf_counter() - began
    assert len(looks) <= 2 + seconds / (21 * 0.02)  # without a pause after it there would be fourteen


def test_a_record_that_was_found_is_not_looked_for_again(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path, Planning("one_at_a_time", [], lambda arm: tiny_config))
    first, second = (record_path(tmp_path / "0", seed) for seed in (0, 1))
    write_run(first, failed_run(tiny_config, 0, "an error"))
    assert study._written([first, second]) == [first]
    asked = list[Path]()
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **options: asked.append(path) or stat(path, **options))
    assert study._written([first, second]) == [first]
    assert asked == [second]
    write_run(second, failed_run(tiny_config, 1, "an error"))
    assert study._written([second, first]) == [second, first]


def test_records_are_looked_for_where_their_jobs_have_folders(tmp_path: Path) -> None:
    paths = [record_path(tmp_path / str(job), seed) for job in range(100) for seed in (0, 1)]
    asked, there = list[Path](), set[Path]()
    arrivals = Arrivals(tmp_path, paths, lambda path: asked.append(path) or path in there)
    assert (arrivals(), asked) == ([], [])
    for job in (7, 50):
        (tmp_path / str(job)).mkdir()
    there |= {paths[15], paths[100]}
    assert arrivals() == [paths[15], paths[100]]
    assert asked == [paths[14], paths[15], paths[100], paths[101]]
    asked.clear()
    there |= {paths[14]}
    assert arrivals() == [paths[15], paths[100], paths[14]]
    assert asked == [paths[14], paths[101]]  # what has come is not looked for again
    asked.clear()
    arrivals()
    assert asked == [paths[101]]


def test_a_study_that_was_moved_away_has_the_records_that_had_come(tmp_path: Path) -> None:
    path = record_path(tmp_path / "study" / "0", 0)
    path.parent.mkdir(parents=True)
    arrivals = Arrivals(tmp_path / "study", [path], lambda path: True)
    assert arrivals() == [path]
    (tmp_path / "study").rename(tmp_path / "elsewhere")
    assert arrivals() == [path]


def test_records_of_an_earlier_attempt_do_not_count(tiny_config: Config, tmp_path: Path) -> None:
    path = record_path(tmp_path / "0", 0)
    write_run(path, failed_run(tiny_config, 0, "an error"))
    study = Study(tmp_path, Planning("one_at_a_time", [], lambda arm: tiny_config))
    assert study._written([path]) == []
    write_run(path, failed_run(tiny_config, 0, "another error"))
    assert study._written([path]) == [path]


def test_a_plan_of_many_arms_comes_back_from_its_file(tmp_path: Path) -> None:
    values = ["yes", "1", "1e-3", "a: b", "x" * 200, "ü", "'q'", "null", "a # b", *map(str, range(300))]
    arms = [Arm("baseline"), *(Arm(f"k={value}", "k", value, (("k", value),)) for value in values)]
    plan = Plan("one_at_a_time", {"k": values}, ["k"], arms, [0, 1], {"k": 1, "a.b": [1, 2], "c": None})
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan


def test_arms_that_go_together_are_found_in_linear_time() -> None:
    arms = [Arm(f"k={number}", "k", str(number), (("k", number),)) for number in range(4000)]
    jobs = ordered(arms, [0, 1], lambda arm: int(arm.level) % 2 == 0)
    assert [job.arm.level for job in jobs[:2000]] == [str(number) for number in range(0, 4000, 2)]
    assert {job.seeds for job in jobs[:2000]} == {(0, 1)}
    assert len(jobs) == 2000 + 2 * 2000


def test_the_forecast_of_an_arm_asks_for_its_identity_once(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the store has no run with its settings, no seed of it can be there either."""
    from cnn_ablation.runs import provenance

    asked = list[int]()
    identity = provenance.identity
    monkeypatch.setattr(provenance, "identity", lambda *args, **kw: asked.append(1) or identity(*args, **kw))
    cnn_ablation.ablate(replace(tiny_config, dry_run=True), {"model.dropout": [0.1, 0.2, 0.3]})
    assert "would reuse 0 of 8 runs" in capsys.readouterr().out
    assert len(asked) <= 4


@pytest.mark.parametrize(
    "lines", [["data=shapes"], ["task=function", "task.target=own_training.train"]], ids=["images", "function"]
)
def test_an_identity_differs_from_that_of_another_seed_in_the_seed_alone(
    lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the forecast of many seeds goes by."""
    from cnn_ablation.runs.task import task_of

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_training.py").write_text(
        "def train(x: int = 1, *, seed: int) -> dict[str, float]:\n    return {}\n"
    )
    config = cnn_ablation.compose([*lines, "device=cpu"])
    task = task_of(config)
    first, other = (
        task.identity(config, task.resolve(config, planned=True), seed=seed, planned=True) for seed in (0, 7)
    )
    assert other == {**first, "seed": 7}


def calls_of(work: Callable[[], object]) -> int:
    """Functions that are called, Python's own among them: what a machine's load does not change."""
    count = 0

    def one_more(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(one_more)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "table", [tex_table, html_page, lambda arms, _: readable_table(arms)], ids=["TeX", "HTML", "text"]
)
def test_a_table_of_twice_as_many_arms_takes_twice_the_work(table: Callable[[pd.DataFrame, str], object]) -> None:
    few, many = (cnn_ablation.ablation_table(runs_of(count)) for count in (100, 200))
    table(few, "A caption.")  # what is imported or remembered then counts for neither
    assert calls_of(lambda: table(many, "A caption.")) < 2.2 * calls_of(lambda: table(few, "A caption."))


def test_attributes_of_a_table_are_not_copied_arm_by_arm() -> None:
    """Pandas copies them for every column that is taken from a table."""
    few, many = (cnn_ablation.ablation_table(runs_of(count)) for count in (50, 200))
    assert len(open_arms(many)) == 199
    assert calls_of(lambda: many["arm"]) == calls_of(lambda: few["arm"])
    assert open_arms(many[["arm"]]) == open_arms(many)
