"""Who is told how a study goes: what, when, and at whose cost."""

from __future__ import annotations

import json
import math
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from conftest import TINY, UNDRAWN_COMMAND, Answer

import cnn_ablation
from cnn_ablation.common import progress
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.config import ANYTIME, StudyConfig, bounds_of, fields_of
from cnn_ablation.launch import alone, execution, listening, observers, submissions
from cnn_ablation.launch.engines.joblib import Joblib
from cnn_ablation.launch.observers import ObservedRun, ObservedStudy, makers
from cnn_ablation.launch.planning import Planning
from cnn_ablation.runs.epochs import EpochFile, epochs_path, followed_file, log_of
from cnn_ablation.runs.records import read_run, record_paths
from cnn_ablation.tasks.image_classification import engine
from cnn_ablation.tasks.image_classification.config import Config

Cli = Callable[..., Answer]

TRAIN = """
import time
from pathlib import Path


def train(lr: float = 0.1, waits: bool = False, fails: float = -1.0, noise: float = 0.0, *, seed: int, run):
    for epoch in (1, 2, 3):
        run.report(epoch, loss=lr / epoch, test_loss=2 * lr / epoch)
    if lr == fails:
        raise RuntimeError("no such luck")
    seen, until = False, time.monotonic() + 60
    while waits and not seen and time.monotonic() < until:
        time.sleep(0.02)
        told = Path("told.txt")
        seen = told.exists() and f"epoch 3 of lr={lr} seed {seed}" in told.read_text()
    return {"score": 10 * lr + seed + noise * (seed * 7919 % 13 - 6), "test_score": 1.0, "seen": float(seen)}
"""

TRACKER = """
from pathlib import Path


class Noting:
    def on_epoch(self, arm, seed, epoch, metrics):
        with Path("told.txt").open("a") as file:
            print(f"epoch {epoch} of lr={metrics['loss'] * epoch:g} seed {seed}", file=file)


class Idle:
    name = "no observer"


number = 3
"""


class Noting:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.study: ObservedStudy | None = None
        self.runs: list[ObservedRun] = []
        self.arms = pd.DataFrame()

    def on_study(self, study: ObservedStudy) -> None:
        self.study = study
        self.told.append(("study",))

    def on_start(self, run: ObservedRun) -> None:
        self.told.append(("start", run.arm, run.seed, run.status, run.reused))

    def on_epoch(self, arm: str, seed: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self.told.append(("epoch", arm, seed, epoch, dict(metrics)))

    def on_run(self, run: ObservedRun) -> None:
        self.runs.append(run)
        self.told.append(("run", run.arm, run.seed, run.status, run.reused))

    def on_report(self, folder: Path, arms: pd.DataFrame) -> None:
        self.arms = arms
        self.told.append(("report", sorted(path.name for path in observers.artefacts(folder))))

    def close(self) -> None:
        self.told.append(("close",))

    def of(self, arm: str, seed: int) -> list[tuple[Any, ...]]:
        return [word for word in self.told if word[1:3] == (arm, seed)]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are slow, and no part of this; nor is what stands on the page."""
    for name in ("picture_files", "confusion_files"):
        monkeypatch.setattr(f"cnn_ablation.report.study.{name}", lambda *_, **__: {})
    monkeypatch.setattr("cnn_ablation.report.page.files", lambda _: {"report.html": b"a page"})
    monkeypatch.setattr(progress, "_warned", set())


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A person's function and trackers in her working directory."""
    (tmp_path / "obs_train.py").write_text(TRAIN)
    (tmp_path / "obs_tracker.py").write_text(TRACKER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("obs_train", "obs_tracker"):
        sys.modules.pop(name, None)


def function(*overrides: str) -> Any:
    return cnn_ablation.compose(["task=function", "task.target=obs_train.train", "replicates=2", *overrides])


def words_of(arm: str, seed: int, lr: float, *, reused: bool = False) -> list[tuple[Any, ...]]:
    """What is told of a run of the function above."""
    return [
        ("start", arm, seed, "running", reused),
        *(("epoch", arm, seed, n, {"loss": lr / n, "test_loss": 2 * lr / n}) for n in (1, 2, 3)),
        ("run", arm, seed, "ok", reused),
    ]


@pytest.mark.parametrize("timing", ["isolated", "packed"], ids=["in this process", "side by side"])
def test_all_that_happens_is_told_once_and_in_order(own: None, tmp_path: Path, timing: str) -> None:
    noting = Noting()
    arms = cnn_ablation.ablate(
        function(f"timing={timing}", "threads=1"), {"settings.lr": [0.2]}, tmp_path / "out", observers=[noting]
    )
    for arm, lr in (("baseline", 0.1), ("settings.lr=0.2", 0.2)):
        for seed in (0, 1):
            assert noting.of(arm, seed) == words_of(arm, seed, lr)
    assert noting.told[0] == ("study",)
    tables = [f"ablation.{kind}" for kind in ("csv", "html", "md", "tex")]
    assert noting.told[-2:] == [("report", [*tables, "report.html", "runs.csv", "study.yaml"]), ("close",)]
    assert noting.arms["verdict"].tolist() == arms["verdict"].tolist()
    records = {(each.arm, each.seed): each for each in map(read_run, record_paths(tmp_path / "out"))}
    assert {(run.arm, run.seed): run.fingerprint for run in noting.runs} == {
        key: each.fingerprint for key, each in records.items()
    }
    last = noting.runs[-1]
    assert last.metrics == {"score": 10 * last.settings["settings.lr"] + last.seed, "test_score": 1.0, "seen": 0.0}
    assert last.train_seconds == records[last.arm, last.seed].train_seconds


def test_a_study_is_told_with_all_that_makes_it(own: None, tmp_path: Path) -> None:
    noting = Noting()
    cnn_ablation.ablate(function("timing=isolated"), {"settings.lr": [0.2]}, tmp_path / "out", observers=[noting])
    study = noting.study
    assert study is not None
    assert (study.name, study.folder, study.design) == ("settings.lr", tmp_path / "out", "one_at_a_time")
    assert study.knobs == {"settings.lr": ["0.2"]}
    assert study.arms == {"baseline": {}, "settings.lr=0.2": {"settings.lr": 0.2}}
    assert (list(study.seeds), study.metric, study.direction) == ([0, 1], "test_accuracy", "higher")
    assert study.baseline["task.target"] == "obs_train.train"
    first, noting = study.id, Noting()
    cnn_ablation.ablate(function("timing=isolated"), {"settings.lr": [0.2]}, tmp_path / "out", observers=[noting])
    assert noting.study is not None
    assert (len(first), noting.study.id) == (12, first)


def test_epochs_are_told_while_a_run_trains_beside_this_process(own: None, cli: Cli, tmp_path: Path) -> None:
    """Each run goes on until somebody has written down its third epoch."""
    answer = cli(
        "-m", "task=function", "task.target=obs_train.train", "settings.lr=0.1,0.2", "settings.waits=true",
        "replicates=1", "timing=packed", "threads=1", "trackers=[obs_tracker.Noting]", "hydra.sweep.dir=out",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert pd.read_csv(tmp_path / "out" / "runs.csv")["seen"].tolist() == [1.0, 1.0]
    wanted = [f"epoch {n} of lr={lr} seed 0" for lr in (0.1, 0.2) for n in (1, 2, 3)]
    assert sorted((tmp_path / "told.txt").read_text().splitlines(), key=lambda line: line[8:]) == wanted


def test_runs_of_the_store_are_told_with_their_curves(own: None, tmp_path: Path) -> None:
    """And a study with observers reuses what one without has trained: nobody who looks changes what a run is."""
    plain = cnn_ablation.ablate(function("timing=isolated"), {"settings.lr": [0.2]}, tmp_path / "a")
    noting = Noting()
    told = cnn_ablation.ablate(
        function("timing=isolated", "replicates=3"), {"settings.lr": [0.2]}, tmp_path / "b", observers=[noting]
    )
    assert plain["n"].tolist() == [2, 2]
    assert told["n"].tolist() == [3, 3]
    assert noting.of("baseline", 1) == words_of("baseline", 1, 0.1, reused=True)
    assert noting.of("settings.lr=0.2", 2) == words_of("settings.lr=0.2", 2, 0.2)
    assert [run.reused for run in sorted(noting.runs, key=lambda run: (run.arm, run.seed))] == [True, True, False] * 2
    assert all(len(run.curves) == 3 for run in noting.runs)


def test_who_is_told_is_no_part_of_a_run(own: None, tmp_path: Path) -> None:
    first, second = (function("timing=isolated", "replicates=1", f"store={name}") for name in "ab")
    second = replace(second, trackers=["obs_tracker.Noting"])
    fingerprints = []
    for config, name in ((first, "one"), (second, "two")):
        cnn_ablation.ablate(config, {"settings.lr": [0.2]}, tmp_path / name)
        fingerprints.append([read_run(path).fingerprint for path in record_paths(tmp_path / name)])
    assert fingerprints[0] == fingerprints[1]
    assert (tmp_path / "told.txt").exists()
    key = [
        submissions.key_of(Planning("one_at_a_time", [], lambda arm, each=each: each).plan(), Joblib(jobs=1))
        for each in (first, replace(first, trackers=["obs_tracker.Noting"]))
    ]
    assert key[0] == key[1]


def test_without_observers_nothing_is_there(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("nobody is to be told")

    for module in (alone, execution):
        for name in ("Observation", "observed_study"):
            monkeypatch.setattr(module, name, refused)
    monkeypatch.setattr("cnn_ablation.runs.epochs.epochs_path", refused)
    config = replace(tiny_config, timing="isolated", replicates=1)
    cnn_ablation.ablate(config, {"model.dropout": [0.5]}, tmp_path / "out")
    cnn_ablation.run(config, tmp_path / "alone")
    hidden = [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    assert [name for name in hidden if not name.startswith(".lease")] == []


def test_nothing_is_left_once_a_study_is_over(own: None, tmp_path: Path) -> None:
    cnn_ablation.ablate(function("timing=isolated"), {"settings.lr": [0.2]}, tmp_path / "out", observers=[Noting()])
    assert not followed_file(tmp_path / "out").exists()
    assert list((tmp_path / "out").rglob("epochs-*")) == []
    assert [each.name for each in threading.enumerate() if each.name.startswith(("tracker", "follower"))] == []


def test_what_a_killed_command_left_makes_nobody_write(own: None, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    followed_file(tmp_path / "out").touch()
    cnn_ablation.ablate(function("timing=isolated"), {"settings.lr": [0.2]}, tmp_path / "out")
    assert list((tmp_path / "out").rglob("epochs-*")) == []


def test_images_and_seeds_trained_in_one_go_have_their_curves_told(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "trains_together", lambda *_: True)
    config = replace(tiny_config, timing="packed", threads=1)
    noting = Noting()
    cnn_ablation.run(config, tmp_path / "0", observers=[noting])
    for seed in (0, 1):
        curves = read_run(tmp_path / "0" / f"run-seed{seed}.json").curves
        told = [(word[3], word[4]) for word in noting.of("baseline", seed) if word[0] == "epoch"]
        assert told == [(n, {key: value for key, value in curves[n - 1].items() if key != "epoch"}) for n in (1, 2)]
    assert noting.told[-1] == ("close",)


@pytest.mark.parametrize("way", ["alone", "by the command line"])
def test_a_single_configuration_is_told(tiny_config: Config, tmp_path: Path, cli: Cli, own: None, way: str) -> None:
    if way == "alone":
        noting = Noting()
        [run] = cnn_ablation.run(replace(tiny_config, replicates=1), tmp_path / "out", observers=[noting])
        assert [word[0] for word in noting.told] == ["study", "start", "epoch", "epoch", "run", "close"]
        assert noting.runs[0].metrics["test_accuracy"] == run.test_accuracy
        assert "train_accuracy" in noting.runs[0].metrics
    else:
        words = ("task=function", "task.target=obs_train.train", "replicates=1", "trackers=[obs_tracker.Noting]")
        answer = cli(*words, "hydra.run.dir=out")
        assert answer.code == 0, answer.err
        assert len((tmp_path / "told.txt").read_text().splitlines()) == 3


def test_a_run_that_fails_is_told(own: None, tmp_path: Path) -> None:
    noting = Noting()
    config = function("timing=isolated", "replicates=1", "settings.fails=0.2")
    with pytest.raises(cnn_ablation.common.errors.UserError, match="1 of 2 runs failed"):
        cnn_ablation.ablate(config, {"settings.lr": [0.2]}, tmp_path / "out", observers=[noting])
    failed = next(run for run in noting.runs if run.arm != "baseline")
    assert (failed.status, failed.error, failed.metrics) == ("failed", "RuntimeError: no such luck", {})
    assert len(failed.fingerprint) == 32
    assert [word[0] for word in noting.of("settings.lr=0.2", 0)] == ["start", "epoch", "epoch", "epoch", "run"]
    assert [word[0] for word in noting.told[-2:]] == ["report", "close"]


def test_a_greedy_study_tells_no_test_figure_of_a_run(own: None, tmp_path: Path) -> None:
    noting = Noting()
    config = function("timing=isolated", "stats.metric=score", "replicates=1")
    cnn_ablation.ablate(config, {"settings.lr": [0.2]}, tmp_path / "out", design="greedy", observers=[noting])
    assert {name for run in noting.runs for name in run.metrics} == {"score", "seen"}
    assert {name for word in noting.told if word[0] == "epoch" for name in word[4]} == {"loss"}
    assert {name for run in noting.runs for point in run.curves for name in point} == {"epoch", "loss"}
    assert noting.arms["arm"].tolist() == ["baseline", "settings.lr=0.2"]


def test_seeds_that_are_added_are_told(own: None, tmp_path: Path) -> None:
    noting = Noting()
    config = function("timing=isolated", "replicates=auto", "max_replicates=5", "stats.metric=score")
    assert config.stats.test != ANYTIME
    cnn_ablation.ablate(config, {"settings.noise": [1.0]}, tmp_path / "out", observers=[noting])
    found = sorted((run.arm, run.seed) for run in noting.runs)
    table = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert found == sorted(table[["arm", "seed"]].itertuples(index=False, name=None))
    assert len(found) > 6
    assert [word[0] for word in noting.told].count("report") == 1


def test_jobs_of_an_engine_are_told(own: None, tmp_path: Path) -> None:
    noting = Noting()
    config = function("replicates=1")
    cnn_ablation.ablate(
        config, {"settings.lr": [0.2]}, tmp_path / "out", engine=Joblib(jobs=1, cpus=1), observers=[noting]
    )
    for arm, lr in (("baseline", 0.1), ("settings.lr=0.2", 0.2)):
        assert noting.of(arm, 0) == words_of(arm, 0, lr)


def broken(method: str) -> Any:
    """An observer whose method raises."""

    def raising(*_: Any) -> None:
        raise SystemExit("no\nmore")

    return SimpleNamespace(**dict.fromkeys(observers.METHODS, lambda *_: None) | {method: raising})


@pytest.mark.parametrize("method", observers.METHODS)
def test_an_observer_that_raises_costs_nobody_a_run(
    own: None, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    noting, config = Noting(), function("timing=isolated", "replicates=1")
    arms = cnn_ablation.ablate(config, {"settings.lr": [0.2]}, tmp_path, observers=[broken(method), noting])
    assert arms["n"].tolist() == [1, 1]
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert said == [f"warning: tracker SimpleNamespace is left out from here on: {method}: SystemExit: no more"]
    assert len(noting.runs) == 2
    assert noting.told[-1] == ("close",)


def test_a_tracker_that_cannot_be_made_costs_nobody_a_run(own: None, tmp_path: Path, cli: Cli) -> None:
    text = "class Tracker:\n    def __init__(self):\n        raise OSError(28, 'No space left')\n    on_run = print\n"
    (tmp_path / "obs_broken.py").write_text(text)
    answer = cli("-m", "task=function", "task.target=obs_train.train", "settings.lr=0.1,0.2", "replicates=1",
                 "trackers=[obs_broken.Tracker,obs_tracker.Noting]")  # fmt: skip
    assert answer.code == 0, answer.err
    why = "beginning: OSError: [Errno 28] No space left"
    assert f"warning: tracker obs_broken.Tracker is left out from here on: {why}" in answer.err
    assert len((tmp_path / "told.txt").read_text().splitlines()) == 6


def test_an_observer_that_hangs_is_not_waited_for(
    own: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "PATIENCE_SECONDS", 0.2)
    free = threading.Event()
    hanging, noting = SimpleNamespace(on_run=lambda run: free.wait(30)), Noting()
    started = time.monotonic()
    config = function("timing=isolated", "replicates=1")
    cnn_ablation.ablate(config, {"settings.lr": [0.2]}, tmp_path, observers=[hanging, noting])
    assert time.monotonic() - started < 25
    assert "tracker SimpleNamespace has been at on_run for" in capsys.readouterr().err
    assert noting.told[-1] == ("close",)
    free.set()
    for thread in threading.enumerate():
        if thread.name.startswith("tracker"):
            thread.join(60)


def test_a_slow_observer_is_waited_for_while_it_gets_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of the test's own: each call takes 40 s, during which somebody looks whether it has ended."""
    now, looked = [0.0], threading.Event()

    def sleep(seconds: float) -> None:
        looked.set()
        time.sleep(seconds)

    def slowly(number: int) -> None:
        looked.clear()
        looked.wait(60)
        now[0] += 40
        heard.append(number)

    monkeypatch.setattr(listening, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    slow, heard, until = SimpleNamespace(on_run=slowly), list[int](), time.monotonic() + 60
    listeners = listening.Listeners({"slow": lambda: slow})
    while listeners._all[0]._busy_since is not None:
        assert time.monotonic() < until
        time.sleep(0.001)
    now[0] += 100  # idle for longer than anybody would wait
    for number in range(5):
        listeners.tell("on_run", number)
    listeners.end()
    assert heard == [0, 1, 2, 3, 4]
    said = capsys.readouterr().err
    assert "waiting for what trackers have to send: slow" in said
    assert "has been at" not in said


PAGE = (Path(__file__).parent.parent / "docs" / "trackers.md").read_text()


def test_the_class_of_the_page_writes_what_it_is_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(name, text)] = re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, flags=re.DOTALL)
    [command] = [line for line in PAGE.splitlines() if "my_tracker.Lines" in line and line.startswith("python -m")]
    (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    answer = cli(*shlex.split(command)[3:], *TINY, "hydra.sweep.dir=out")
    sys.modules.pop("my_tracker", None)
    assert answer.code == 0, answer.err
    lines = (tmp_path / "out" / "lines.txt").read_text().splitlines()
    starts = [f"{arm} {seed} {word} {{" for arm in ("baseline", "model.activation=leaky") for seed in (0, 1)
              for word in ("1", "2", "ok")]  # fmt: skip
    assert [sum(line.startswith(start) for line in lines) for start in starts] == [1] * len(starts)
    assert lines[-2].split() == ["0", "baseline", "baseline"]
    assert lines[-1].split()[:2] == ["1", "model.activation=leaky"]


def test_the_page_and_the_help_name_all_there_is() -> None:
    methods = re.findall(r"^\| `(\w+)\(", PAGE, flags=re.MULTILINE)
    assert tuple(methods) == observers.METHODS
    for owner in (ObservedStudy, ObservedRun):
        assert [name for name in fields_of(owner) if f"`{name}`" not in PAGE] == []
    assert str(bounds_of(fields_of(StudyConfig)["trackers"])) == "each tensorboard, mlflow, wandb or MODULE.CLASS"
    assert list(observers.TRACKERS) == ["tensorboard", "mlflow", "wandb"]


REFUSED = {
    "misspelt": (
        ["tensorbord"],
        ["trackers=[tensorbord]", "allowed: tensorboard, mlflow, wandb, or my_module.MyTracker, a class of your own",
         "did you mean: trackers=[tensorboard]"],
    ),
    "one of several": (["obs_tracker.Noting", "wanb"], ["did you mean: trackers=[obs_tracker.Noting,wandb]"]),
    "unknown": (["comet_ml"], ["trackers=[comet_ml]", "remedy: trackers=[tensorboard]"]),
    "no module": (["obs_traker.Noting"], ["did you mean: trackers=[obs_tracker.Noting]"]),
    "no class": (["obs_tracker.Notin"], ["what obs_tracker defines", "did you mean: trackers=[obs_tracker.Noting]"]),
    "no observer": (
        ["obs_tracker.Idle"],
        ["trackers=[obs_tracker.Idle]", "a class with one of the methods on_study, on_start, on_epoch, on_run"],
    ),
    "no class but a number": (["obs_tracker.number"], ["a class with one of the methods"]),
}  # fmt: skip


@pytest.mark.parametrize(("names", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_tracker_is_refused_before_anything_is_trained(
    own: None, cli: Cli, tmp_path: Path, names: list[str], words: list[str]
) -> None:
    listed = f"trackers=[{','.join(names)}]"
    answer = cli("-m", "task=function", "task.target=obs_train.train", "settings.lr=0.1,0.2", listed, "dry_run=true")
    assert answer.code == 2
    assert answer.err.startswith("configuration error: trackers=")
    assert [word for word in words if word not in answer.err] == []
    assert len(answer.err.splitlines()) <= 10
    assert not (tmp_path / "multirun").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trackers=mlflow"], ["trackers=mlflow", "remedy: trackers=[mlflow]; the default is []"]),
        (
            ["-m", "model.dropout=0,0.1", "trackers=mlflow,wandb"],
            ["trackers=mlflow,wandb", "one value: it is no knob", "remedy: one list for all arms, KEY=[A,B]"],
        ),
    ],
    ids=["a word", "a knob"],
)
def test_a_list_is_wanted_and_it_is_no_knob(cli: Cli, words: list[str], message: list[str]) -> None:
    answer = cli(*TINY, *words)
    assert answer.code == 2
    assert [word for word in message if word not in answer.err] == []
    assert len(answer.err.splitlines()) <= 10


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers, "find_spec", lambda name: None if name == "mlflow" else object())
    with pytest.raises(ConfigError) as refused:
        makers(["tensorboard", "mlflow"])
    assert str(refused.value).splitlines() == [
        "configuration error: trackers=[mlflow]",
        "  allowed: trackers whose package is installed: tensorboard, wandb; or "
        "my_module.MyTracker, a class of your own",
        '  remedy: pip install "cnn_ablation[mlflow]"',
    ]


@pytest.mark.parametrize("wrong", [3, Noting, SimpleNamespace(on_runs=print)], ids=["number", "class", "misspelt"])
def test_an_object_that_is_no_observer_is_refused(tiny_config: Config, tmp_path: Path, wrong: object) -> None:
    for refuse in (
        lambda: cnn_ablation.ablate(tiny_config, {"model.dropout": [0.5]}, tmp_path / "out", observers=[wrong]),
        lambda: cnn_ablation.run(tiny_config, tmp_path / "out", observers=[wrong]),
    ):
        with pytest.raises(ConfigError, match=r"configuration error: observers=.*\n.*objects with one of the methods"):
            refuse()
    assert not (tmp_path / "out").exists()


def test_epochs_are_read_whole_and_once(tmp_path: Path) -> None:
    followed_file(tmp_path).touch()
    log = log_of(tmp_path, tmp_path / "0", 7, "abc")
    assert log is not None
    file = EpochFile(epochs_path(tmp_path / "0", 7))
    assert (file.new(), file.fingerprint) == ([], "abc")
    log({"epoch": 1, "loss": math.nan})
    with file.path.open("a") as half:
        half.write('{"epoch": 2, "lo')
    [(place, point)] = file.new()
    assert (place, point["epoch"], math.isnan(point["loss"])) == (0, 1, True)
    assert file.new() == []
    with file.path.open("a") as half:
        half.write('ss": 0.5}\n')
    assert file.new() == [(1, {"epoch": 2, "loss": 0.5})]
    log = log_of(tmp_path, tmp_path / "0", 7, "def")  # begun anew
    assert log is not None
    log({"epoch": 1, "loss": 0.75})
    assert (file.new(), file.fingerprint) == ([(0, {"epoch": 1, "loss": 0.75})], "def")
    file.path.unlink()
    assert file.new() == []


def test_nobody_writes_where_nobody_follows(tmp_path: Path) -> None:
    assert log_of(tmp_path, tmp_path / "0", 0, "abc") is None
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_epochs_costs_no_run(tmp_path: Path) -> None:
    followed_file(tmp_path).touch()
    (tmp_path / "0").write_text("a file where the folder should be")
    log = log_of(tmp_path, tmp_path / "0", 0, "abc")
    assert log is not None
    log({"epoch": 1})
    assert json.dumps(EpochFile(epochs_path(tmp_path / "0", 0)).new()) == "[]"


CLOSING = """
class Noting:
    def _note(self, what):
        with open("noted.txt", "a") as file:
            print(what, file=file)

    def on_epoch(self, arm, seed, epoch, metrics):
        self._note(f"epoch {epoch}")

    def on_run(self, run):
        self._note(f"run {run.arm}")

    def on_report(self, folder, arms):
        self._note(f"report of {len(arms)}")

    def close(self):
        self._note("close")
"""
SLOW = """
import time


def train(lr: float = 0.1, *, seed: int, run):
    for epoch in range(1, 2 if lr == 0.1 else 1000):
        run.report(epoch, loss=1.0)
        time.sleep(0.02)
    return {"score": 1.0}
"""


def test_observers_hear_the_end_of_a_study_that_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "int_tracker.py").write_text(CLOSING)
    (tmp_path / "int_train.py").write_text(SLOW)
    command = [sys.executable, UNDRAWN_COMMAND, "-m", "task=function", "task.target=int_train.train",
               "settings.lr=0.1,0.2", "replicates=1", "threads=1", "trackers=[int_tracker.Noting]"]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until, noted = time.monotonic() + 60, tmp_path / "noted.txt"
    wanted = {"epoch 5", "run baseline"}  # either of the two runs may be the first to begin
    while not (noted.exists() and wanted <= {*noted.read_text().splitlines()}) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # what runs in the background of a shell ignores the other
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    lines = noted.read_text().splitlines()
    assert lines[-2:] == ["report of 1", "close"]
    assert [line for line in lines if line.startswith("run")] == ["run baseline"]
    assert "stopped after 1 of 2 runs" in said
