"""Jobs of a study that are trained by an engine: by real processes here, which know only the file of their batch."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cnn_ablation
from cnn_ablation import ablate
from cnn_ablation.common import processes
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.common.machine import Allocation
from cnn_ablation.config import with_settings
from cnn_ablation.config.schema import CONDUCT, setting
from cnn_ablation.launch import batches, folders, submissions
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.contents import Contents
from cnn_ablation.launch.dispatch import Dispatch
from cnn_ablation.launch.engines import Engine, JobState, engine
from cnn_ablation.launch.engines.joblib import Joblib
from cnn_ablation.launch.execution import StudyFailedError
from cnn_ablation.launch.planning import Planning
from cnn_ablation.launch.submissions import Submission
from cnn_ablation.launch.trained_before import TrainedBefore
from cnn_ablation.runs.records import deferred_file, read_run, record_paths
from cnn_ablation.study.checks.knobs import read_knobs
from cnn_ablation.tasks.function import signature
from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.config import ArraysConfig, Config

MODULE = """
import os
import signal
import time
from pathlib import Path


def train(shift: float = 0.0, word: str = "", *, seed):
    with open("trained.txt", "a") as file:
        file.write(f"{shift} {word} {seed}\\n")
    while word == "waits" and not Path("go").exists():
        time.sleep(0.02)
    if word == "dies" and seed == 1 and not Path("spared").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return {"loss": (seed * 37 % 29) / 29 + shift, "host": 1.0}
"""


PIXELS = """
from pathlib import Path

import numpy as np


def load():
    draw = np.random.default_rng(int(Path("seed.txt").read_text()))
    of = {"train": 60, "test": 40}
    return {part: (draw.integers(0, 256, (n, 8, 8), np.uint8), np.arange(n) % 4) for part, n in of.items()}
"""


@dataclass(kw_only=True)
class Processes(Engine):
    """One process for each job, in a session of its own: what any engine does at heart."""

    poll_seconds: float = 0.02
    cpus: int | None = setting(1, at_least=1, role=CONDUCT)  # a job of one core trains in its own process
    is_far: bool = False
    dies: bool = False
    """While it submits: nobody is told of its jobs."""

    @property
    def is_here(self) -> bool:
        return not self.is_far

    def num_jobs(self, num_runs: int, seconds: float) -> int:
        return min(self.jobs or 2, num_runs)

    def submit(self, batches: Sequence[Path], folder: Path) -> list[str]:
        program = "import sys; from cnn_ablation.launch import batches; batches.carry_out(sys.argv[1])"
        ids = []
        for path in batches:
            with open(folder / f"{path.stem}.log", "w") as log:
                command = [sys.executable, "-c", program, str(path)]
                process = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, start_new_session=True)
            _children[str(process.pid)] = process
            ids.append(str(process.pid))
        (folder / "pids").write_text(" ".join(ids))
        if self.dies:
            raise KeyboardInterrupt
        return ids

    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        return {each: JobState(is_over=not _runs(each), is_running=_runs(each), reason=_reason(each)) for each in ids}

    def cancel(self, ids: Sequence[str]) -> None:
        for each in ids:
            os.killpg(int(each), signal.SIGKILL)
            _children[each].wait()

    def cancel_all(self, folder: Path) -> None:
        self.cancel((folder / "pids").read_text().split())


_children: dict[str, subprocess.Popen[bytes]] = {}


def _runs(job: str) -> bool:
    return (
        _children[job].poll() is None
        if job in _children
        else bool(processes.is_alive(int(job), processes.started(int(job))))
    )


def _reason(job: str) -> str:
    code = _children[job].poll() if job in _children else None
    return signal.Signals(-code).name if code else ""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Iterator[Path]:
    (tmp_path / "far.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for process in _children.values():
        process.kill()
        process.wait()
    _children.clear()
    sys.modules.pop("far", None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]
    for kept in (signature.parameters, signature._schema):
        kept.cache_clear()


def composed(*overrides: str) -> Any:
    task = ["task=function", "task.target=far.train", "stats.metric=loss", "device=cpu", "replicates=3"]
    return cnn_ablation.compose([*task, *overrides])


def trained(here: Path) -> list[str]:
    """What was really trained, run by run."""
    file = here / "trained.txt"
    return sorted(file.read_text().splitlines()) if file.exists() else []


SHIFTS = {"settings.shift": [1.0, 2.0]}


def test_a_study_by_an_engine_is_the_study_here(here: Path) -> None:
    there = ablate(composed("store=a"), SHIFTS, here / "there", engine=Processes())
    at_home = ablate(composed("store=b", "timing=isolated"), SHIFTS, here / "here")
    same = ["arm", "n", "metric_mean", "delta", "delta_ci_low", "p_holm", "verdict"]
    pd.testing.assert_frame_equal(there[same], at_home[same])
    assert len(trained(here)) == 2 * 9
    assert sorted(path.name for path in (here / "there" / "jobs" / "0").glob("*.batch")) == ["0.batch", "1.batch"]


def test_nothing_is_trained_twice(here: Path) -> None:
    ablate(composed(), SHIFTS, here / "study", engine=Processes())
    ablate(composed(), SHIFTS, here / "study", engine=Processes(jobs=1))
    ablate(composed(), {"settings.shift": [1.0, 2.0, 3.0]}, here / "more", engine=Processes())
    assert trained(here) == sorted(f"{shift} {''} {seed}" for shift in (0.0, 1.0, 2.0, 3.0) for seed in range(3))
    runs = [read_run(path) for path in record_paths(here / "study")]
    assert all(run.reused and run.status == "ok" for run in runs)


def test_seeds_until_decided(here: Path) -> None:
    config = composed("replicates=auto", "max_replicates=6")
    table = ablate(config, SHIFTS, here / "study", engine=Processes())
    assert table["n"].tolist()[0] > 3, "a second round went to the engine too"
    assert len(list((here / "study" / "jobs").iterdir())) > 1


def test_a_job_that_dies_is_a_row_that_says_so_and_the_same_command_goes_on(here: Path) -> None:
    """A job of one core trains in its own process."""
    config, words = composed(), {"settings.word": ["dies"]}
    with pytest.raises(StudyFailedError, match="of 6 runs failed"):
        ablate(config, words, here / "study", engine=Processes(jobs=1))
    runs = [read_run(path) for path in record_paths(here / "study")]
    failed = [run for run in runs if run.status == "failed"]
    assert len(failed) >= 1
    assert {run.error for run in failed} == {"left no record: SIGKILL"}
    (here / "spared").touch()
    assert ablate(config, words, here / "study", engine=Processes(jobs=1))["n"].tolist() == [3, 3]
    assert len(trained(here)) == 7, "one run twice: that in which the job died"


def test_a_dead_worker_costs_one_run(here: Path) -> None:
    with pytest.raises(StudyFailedError, match="1 of 6 runs failed"):
        ablate(composed("threads=1"), {"settings.word": ["dies"]}, here / "study", engine=Processes(jobs=1, cpus=2))
    errors = [run.error for path in record_paths(here / "study") if (run := read_run(path)).status == "failed"]
    assert errors == ["left no record: its process ended (signal SIGKILL)"]


@pytest.mark.parametrize("goes_on", [True, False], ids=["continue", "cancel"])
def test_an_interrupted_command_leaves_its_jobs_or_ends_them(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], goes_on: bool
) -> None:
    def interrupt(*_: object) -> None:
        _until(lambda: len(trained(here)) >= 2)
        raise KeyboardInterrupt

    config, levels = composed(), {"settings.word": ["waits"]}
    used = Processes(on_detach="continue" if goes_on else "cancel")
    with monkeypatch.context() as patch:
        patch.setattr(Dispatch, "_pause", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ablate(config, levels, engine=used)
    said = capsys.readouterr().err
    alive = [job for job in _children if _runs(job)]
    assert ("may go on without this process" in said) == goes_on
    assert bool(alive) == goes_on
    (here / "go").touch()
    table = ablate(config, levels, engine=used)
    said = capsys.readouterr().err
    assert "going on with the same study in " in said
    assert ("attached to job" in said) == goes_on
    assert table["n"].tolist() == [3, 3]
    assert len(list((here / "multirun").glob("*/*"))) == 1
    if goes_on:
        assert len(trained(here)) == 6


def test_jobs_that_were_submitted_and_never_written_down_are_ended(here: Path) -> None:
    config, levels = composed(), {"settings.word": ["waits"]}
    with pytest.raises(KeyboardInterrupt):
        ablate(config, levels, here / "study", engine=Processes(dies=True))
    unknown = list(_children)
    assert len(unknown) == 2
    assert all(map(_runs, unknown))
    (here / "study" / "jobs" / "0" / "left").touch()
    (here / "go").touch()
    assert ablate(config, levels, here / "study", engine=Processes())["n"].tolist() == [3, 3]
    assert not any(map(_runs, unknown))
    assert not (here / "study" / "jobs" / "0" / "left").exists()
    assert len(list((here / "study" / "jobs").iterdir())) == 1


def _left_to_its_jobs(
    here: Path, monkeypatch: pytest.MonkeyPatch, config: Any, levels: dict[str, Any], used: Processes
) -> None:
    """A study that is interrupted once its jobs have begun; they go on."""

    def interrupt(*_: object) -> None:
        _until(lambda: trained(here))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Dispatch, "_pause", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ablate(config, levels, here / "study", engine=used)


@pytest.mark.parametrize("reuse", ["true", "false"])
def test_what_jobs_finished_without_the_command_needs_no_other_job(
    here: Path, monkeypatch: pytest.MonkeyPatch, reuse: str
) -> None:
    config, levels = composed(f"reuse={reuse}"), {"settings.word": ["waits"]}
    _left_to_its_jobs(here, monkeypatch, config, levels, Processes())
    (here / "go").touch()
    _until(lambda: not any(map(_runs, _children)))
    assert ablate(config, levels, here / "study", engine=Processes())["n"].tolist() == [3, 3]
    assert not any(read_run(path).reused for path in record_paths(here / "study"))
    assert (len(trained(here)), len(_children)) == (6, 2)
    ablate(config, levels, here / "study", engine=Processes())
    assert len(trained(here)) == (6 if reuse == "true" else 12), "once they are in a table, the store tells of them"


@pytest.mark.parametrize(
    ("levels", "code", "used"),
    [
        (["waits", "more"], MODULE, Processes()),
        (["waits"], MODULE.replace("* 37", "*  31"), Processes()),
        (["waits"], MODULE, Processes(cpus=2)),
    ],
    ids=["runs", "code", "request"],
)
def test_jobs_that_train_something_else_are_ended(
    here: Path, monkeypatch: pytest.MonkeyPatch, levels: list[str], code: str, used: Processes
) -> None:
    """They would leave records where this study has other runs."""
    config = composed()
    _left_to_its_jobs(here, monkeypatch, config, {"settings.word": ["waits"]}, Processes())
    before, submit = list(_children), Processes.submit

    def checked(*arguments: Any) -> list[str]:
        assert not any(map(_runs, before)), "nothing is submitted before they are over"
        (here / "go").touch()
        return submit(*arguments)

    (here / "far.py").write_text(code)
    sys.modules.pop("far")
    monkeypatch.setattr(Processes, "submit", checked)
    table = ablate(config, {"settings.word": levels}, here / "study", engine=used)
    assert table["n"].tolist() == [3] * (1 + len(levels))
    assert -signal.SIGKILL in {_children[each].poll() for each in before}


def test_jobs_that_nobody_would_find_again_are_ended(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cnn_ablation.launch.submissions.Submission.keep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ablate(composed(), {"settings.word": ["waits"]}, here / "study", engine=Processes())
    assert len(_children) == 2
    assert not any(map(_runs, _children))


def test_a_run_that_was_passed_over_and_died_is_no_reason_to_go_on_for_ever(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a row, and no job is left behind that trains it once more."""
    config, words = composed("threads=1", "replicates=1", "seed=1"), {"settings.word": ["dies"]}
    for job in "01":
        deferred = deferred_file(here / "study" / job, 1)
        deferred.parent.mkdir(parents=True)
        deferred.touch()
    with pytest.raises(StudyFailedError, match="1 of 2 runs failed"):
        ablate(config, words, here / "study", engine=Processes(cpus=2))
    assert len(_children) == 2
    assert trained(here).count("0.0 dies 1") == 2, "it was waited for once"


def test_a_run_that_raises_costs_none_that_comes_after_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what nobody foresaw, in a job that trains in its own process."""
    header = _header(here, monkeypatch)
    first, *others = header.assignments
    for path in record_paths(here / "study"):
        path.unlink()
    broken = replace(first, config=replace(first.config, arm=None))  # type: ignore[arg-type]
    batches.write(here / "one.batch", replace(header, assignments=(broken, *others)))
    batches.carry_out(here / "one.batch")
    assert len(record_paths(here / "study")) == len(others)
    assert "AttributeError" in batches.error_file(here / "one.batch").read_text()


@pytest.mark.parametrize(
    ("expected", "jobs"), [("1 job with 1 core", 1), ("2 jobs, each with 1 core", 2)], ids=["one", "two"]
)
def test_a_dry_run_says_how_many_jobs_there_will_be(
    here: Path, capsys: pytest.CaptureFixture[str], expected: str, jobs: int
) -> None:
    ablate(composed("dry_run=true"), SHIFTS, here / "study", engine=Processes(is_far=True, jobs=jobs))
    assert capsys.readouterr().out.splitlines()[-1] == expected
    assert not _children


@pytest.mark.parametrize(
    ("expected", "stored", "is_far"),
    [
        ("no job: all runs would be reused, nothing would be trained", [1.0, 2.0], False),
        ("at most 2 jobs, each with 1 core: all runs would be reused, nothing would be trained", [1.0, 2.0], True),
        ("1 job with 1 core", [1.0], False),
    ],
    ids=["here", "elsewhere, where a job finds them", "one run is left"],
)
def test_a_dry_run_counts_no_job_for_what_is_reused(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    expected: str,
    stored: list[float],
    is_far: bool,
) -> None:
    ablate(composed("replicates=1", "threads=1", "timing=isolated"), {"settings.shift": stored}, here / "first")
    capsys.readouterr()
    planned = composed("replicates=1", "threads=1", "dry_run=true")
    ablate(planned, SHIFTS, here / "study", engine=Processes(is_far=is_far))
    assert capsys.readouterr().out.splitlines()[-1] == expected
    assert not _children


@pytest.mark.parametrize(("expected", "seeds"), [(2, 1), (6, 3)], ids=["a run each", "on a GPU, an arm with its seeds"])
def test_jobs_are_divided_by_what_their_runs_take(here: Path, expected: int, seeds: int) -> None:
    class Counted(Processes):
        def num_jobs(self, num_runs: int, seconds: float) -> int:
            return Engine.num_jobs(self, num_runs, seconds)

    config = composed(f"replicates={seeds}")
    dispatch = Dispatch(here, config, Counted(), here, num_runs=100, before={}, seconds_per_run=40.0)
    parts = dispatch._divided([Assignment(config, here / f"{number}", study=here) for number in range(6)])
    assert len(parts) == expected


def test_jobs_that_are_to_end_with_the_command_do_so_even_where_it_is_killed(here: Path) -> None:
    """It cannot cancel them then; they see that its lease has no owner any more."""
    program = (
        "from test_dispatch import Processes, composed; from cnn_ablation import ablate; "
        "engine = Processes(on_detach='cancel'); "
        "ablate(composed(), {'settings.word': ['waits']}, 'study', engine=engine)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: len(trained(here)) >= 2 and list((here / "study" / "jobs").glob("*/submitted.json")))
        (ledger,) = (here / "study" / "jobs").glob("*/submitted.json")
        jobs = list(json.loads(ledger.read_bytes())["jobs"].values())
        assert all(map(_runs, jobs))
    finally:
        command.kill()
        command.wait()
    _until(lambda: not any(map(_runs, jobs)))


def _until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@dataclass(kw_only=True)
class OtherProcesses(Processes):
    """An engine of another kind."""


def test_another_engine_in_the_same_folder_is_refused_while_jobs_may_go_on(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, levels = composed(), {"settings.word": ["waits"]}
    _left_to_its_jobs(here, monkeypatch, config, levels, Processes(is_far=True))
    with pytest.raises(ConfigError, match=r"allowed: Processes in .*study, where jobs of its own may be going on"):
        ablate(config, levels, here / "study", engine=OtherProcesses(is_far=True))
    (here / "go").touch()
    ablate(config, levels, here / "study", engine=Processes(is_far=True))
    assert ablate(config, levels, here / "study", engine=OtherProcesses(is_far=True))["n"].tolist() == [3, 3]
    assert len(trained(here)) == 6


@pytest.mark.parametrize("written_down", [True, False], ids=["submitted", "killed while it submitted"])
def test_a_command_without_an_engine_is_refused_while_jobs_may_go_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, written_down: bool
) -> None:
    """It would train beside them, and write its records where theirs go."""
    config, levels = composed(), {"settings.word": ["waits"]}
    if written_down:
        _left_to_its_jobs(here, monkeypatch, config, levels, Processes())
    else:
        with pytest.raises(KeyboardInterrupt):
            ablate(config, levels, here / "study", engine=Processes(dies=True))
    allowed = re.escape(
        f"hydra/launcher=basic\n  allowed: Processes in {here / 'study'}, where jobs of its own may be "
    )
    with pytest.raises(ConfigError, match=allowed) as refused:
        ablate(config, levels, here / "study")
    (here / "go").touch()
    assert f"as in a copy of the folder, remove {here / 'study' / 'jobs'}" in str(refused.value)
    shutil.copytree(here / "study", here / "copy")
    shutil.rmtree(here / "copy" / "jobs")
    assert ablate(config, levels, here / "copy")["n"].tolist() == [3, 3]
    assert ablate(config, levels, here / "study", engine=Processes())["n"].tolist() == [3, 3]
    table = ablate(replace(config, replicates=4), levels, here / "study")
    assert table["n"].tolist() == [4, 4]


@dataclass(kw_only=True)
class Refusing(Processes):
    """As Slurm where there is no such partition."""

    def submit(self, batches: Sequence[Path], folder: Path) -> list[str]:
        super().submit(batches[:1], folder)
        raise ConfigError([])


def test_a_refused_submission_is_in_nobodys_way(here: Path) -> None:
    """What it has taken of it is ended."""
    config, levels = composed("replicates=2"), {"settings.word": ["waits"]}
    with pytest.raises(ConfigError):
        ablate(config, levels, here / "study", engine=Refusing())
    assert not any(map(_runs, _children))
    (here / "go").touch()
    assert ablate(config, levels, here / "study")["n"].tolist() == [2, 2]


def test_a_command_killed_while_it_submitted_to_joblib_is_in_nobodys_way(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs ended with it. Of another engine's that go on only that engine can tell."""
    config, levels = composed("replicates=2"), {"settings.shift": [1.0]}

    def killed(*_: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Joblib, "submit", killed)
    with pytest.raises(KeyboardInterrupt):
        ablate(config, levels, here / "study", engine=Joblib(jobs=1, cpus=1))
    assert len(submissions.unknown(here / "study")) == 1
    assert ablate(config, levels, here / "study")["n"].tolist() == [2, 2]
    with pytest.raises(KeyboardInterrupt):
        ablate(composed("replicates=3"), levels, here / "study", engine=Processes(dies=True))
    with pytest.raises(ConfigError, match="allowed: Processes in "):
        ablate(composed("replicates=3"), levels, here / "study", engine=OtherProcesses())


def test_jobs_that_ended_with_their_command_are_in_nobodys_way(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """joblib's: the command was killed before it could say that it had waited for them."""
    config = composed("replicates=2")
    with monkeypatch.context() as patch:
        patch.setattr(submissions.Submission, "settle", lambda _: None)
        ablate(config, {"settings.shift": [1.0]}, here / "study", engine=Joblib(jobs=1, cpus=1))
    assert [each.engine for each in submissions.read(here / "study")] == ["Joblib"]
    for used in (Processes(), None):
        assert ablate(config, {"settings.shift": [1.0]}, here / "study", engine=used)["n"].tolist() == [2, 2]


def test_what_jobs_have_trained_is_taken_without_a_job(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On whose processors nobody knows here; a table is made again and again, in any folder, and extended."""
    far = Processes(is_far=True)
    first = ablate(composed(), SHIFTS, here / "first", engine=far)
    count = len(_children)
    for folder in ("first", "second", "third"):
        again = ablate(composed(), SHIFTS, here / folder, engine=far)
        pd.testing.assert_frame_equal(again[["arm", "n", "metric_mean"]], first[["arm", "n", "metric_mean"]])
        runs = [read_run(path) for path in record_paths(here / folder)]
        assert [run.reused for run in runs] == [True] * 9
        assert "9 runs taken from the store, as jobs like these have left them" in capsys.readouterr().err
    assert (len(_children), len(trained(here))) == (count, 9)
    assert ablate(composed("replicates=4"), SHIFTS, here / "second", engine=far)["n"].tolist() == [4, 4, 4]
    said = capsys.readouterr().err
    assert "9 runs taken from the store" in said
    assert "3 runs in 2 jobs" in said
    assert len(trained(here)) == 12


@pytest.mark.parametrize("change", ["code", "request", "engine", "reuse", "store"])
def test_what_other_jobs_have_trained_is_asked_of_jobs(here: Path, change: str) -> None:
    """They know on which processor they are, and tell from the store's runs whether it is theirs."""
    config, used = composed("replicates=2"), Processes(is_far=True, jobs=1)
    ablate(config, {"settings.shift": [1.0]}, here / "first", engine=used)
    count = len(_children)
    if change == "code":
        (here / "far.py").write_text(MODULE.replace("* 37", "*  31"))
        sys.modules.pop("far")
    elif change == "store":
        for path in (here / ".ablation_runs").glob("*/run.json"):
            path.unlink()
    config = composed("replicates=2", "reuse=false") if change == "reuse" else config
    other = {"request": Processes(is_far=True, jobs=1, cpus=2), "engine": OtherProcesses(is_far=True, jobs=1)}
    arms = ablate(config, {"settings.shift": [1.0]}, here / "second", engine=other.get(change, used))
    assert arms["n"].tolist() == [2, 2]
    assert len(_children) == count + 1
    assert len(trained(here)) == (4 if change in ("engine", "request") else 8)


@pytest.mark.parametrize("folder", ["study", "other"])
def test_a_record_that_was_written_over_tells_nothing_of_what_was_there_before(here: Path, folder: str) -> None:
    """Code that is changed and changed back, with a study in the same folder each time."""
    used, found = Processes(is_far=True, jobs=1), []
    # Of another size, for Python takes what it compiled of a source of the same second and size.
    for to, code in (("study", MODULE), ("study", MODULE.replace("* 37", "*  31")), (folder, MODULE)):
        (here / "far.py").write_text(code)
        sys.modules.pop("far", None)
        ablate(composed("replicates=2"), {"settings.shift": [1.0]}, here / to, engine=used)
        found.append({(run.arm, run.seed): run.fingerprint for run in map(read_run, record_paths(here / to))})
    assert not set(found[1].values()) & set(found[0].values())
    assert found[2] == found[0]


def test_other_data_are_other_runs(here: Path, tiny_config: Config) -> None:
    """As in a folder of pictures of which some were replaced; told from what is loaded, not from names."""
    (here / "pixels.py").write_text(PIXELS)
    (here / "seed.txt").write_text("0")
    config = replace(tiny_config, data=ArraysConfig(target="pixels.load"), replicates=2, threads=1)
    first, second = (Assignment(config, here / name / "0", here / name) for name in ("first", "second"))
    cnn_ablation.run(config, first.folder)
    contents = Contents(Allocation(cpus=1))
    ledger = Submission(submissions.new_folder(first.study), "Processes")
    ledger.runs["0"] = {f"0/run-seed{seed}.json": contents.of(first) for seed in (0, 1)}
    ledger.keep()
    for seed, taken in ((0, [second]), (1, [])):
        (here / "seed.txt").write_text(f"{seed}")
        data.forget()
        assert TrainedBefore([here / "gone", first.study], "Processes", contents).take([second]) == taken
        assert TrainedBefore([first.study], "Other", contents).take([second]) == []
    assert [read_run(path).reused for path in record_paths(second.study)] == [True, True]
    sys.modules.pop("pixels", None)
    data.forget()


def test_jobs_beside_each_other_are_not_isolated(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"timing=isolated\n.*\n  remedy: hydra\.launcher\.jobs=1"):
        ablate(composed("timing=isolated"), SHIFTS, here / "study", engine=Processes())
    assert not (here / "study").exists()
    table = ablate(composed("timing=isolated"), SHIFTS, here / "study", engine=Processes(jobs=1))
    assert table["n"].tolist() == [3, 3, 3]


def test_the_same_command_while_another_is_at_work_gets_a_folder_of_its_own(here: Path) -> None:
    config, levels = composed(), {"settings.shift": [1.0]}
    ablate(config, levels, here / "first", engine=Processes(is_far=True))
    planning = Planning("one_at_a_time", read_knobs(levels), lambda arm: with_settings(config, arm.settings))
    key = submissions.key_of(planning.plan(), Processes())
    submissions.token_path(here / config.store, key).write_text(
        json.dumps({"folder": str(here / "first"), "complete": False})
    )
    assert folders.folder_for(here / "new", planning, Processes()) == here / "first"
    with folders.claimed(here / "first"):
        assert folders.folder_for(here / "new", planning, Processes()) == here / "new"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"made_with": {"python": "2.7", "code": "x", "libraries": {}}}, "2.7"),
        ({"folder": Path("/nowhere/at/all")}, "is not on"),
        ({"extensions": ("no_such_module",)}, "no_such_module"),
    ],
    ids=["versions", "folder", "extensions"],
)
def test_a_node_that_is_not_like_here_says_so_in_every_row(
    here: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    write = batches.write
    monkeypatch.setattr(batches, "write", lambda path, batch: write(path, replace(batch, **change)))
    with pytest.raises(StudyFailedError, match="6 of 6 runs failed"):
        ablate(composed(), {"settings.shift": [1.0]}, here / "study", engine=Processes())
    errors = {read_run(path).error for path in record_paths(here / "study")}
    assert all(message in error for error in errors)
    assert trained(here) == []


def test_a_store_that_takes_nothing_any_more_costs_no_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with submissions.begun(here, "key", here / "study") as token:
        token.unlink()
        token.parent.rmdir()
        token.parent.touch()
    assert f"cannot write {token}" in capsys.readouterr().err


def test_other_versions_can_be_allowed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "made_with", lambda task: {"python": "2.7", "code": "x", "libraries": {}})
    used = Processes(allow_other_versions=True)
    assert ablate(composed(), {"settings.shift": [1.0]}, here / "study", engine=used)["n"].tolist() == [3, 3]


def test_another_store_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnn_ablation.launch.batches.VISIBLE_SECONDS", 0.0)
    header = _header(here, monkeypatch)
    path = here / "one.batch"
    batches.write(path, replace(header, token=here / "elsewhere" / "token"))
    batches.carry_out(path)
    assert "the store (store=DIR names a folder that all nodes share)" in batches.error_file(path).read_text()


def _header(here: Path, monkeypatch: pytest.MonkeyPatch) -> batches.Batch:
    kept = []
    write = batches.write
    with monkeypatch.context() as patch:
        patch.setattr(batches, "write", lambda path, batch: (kept.append(batch), write(path, batch)))
        ablate(composed(), {"settings.shift": [1.0]}, here / "study", engine=Processes(jobs=1))
    return kept[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpu": 2}, r"hydra\.launcher\.cpu=2\n  allowed: jobs, cpus"),
        ({"cpus": 0}, r"hydra\.launcher\.cpus=0\n  allowed: at least 1"),
        ({"on_detach": "stay"}, r"hydra\.launcher\.on_detach=stay\n  allowed: continue, cancel"),
        ({"gpus": "many"}, r"hydra\.launcher\.gpus='many'\n  allowed: int"),
    ],
    ids=str,
)
def test_settings_of_an_engine_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        engine(f"{__name__}.Processes", settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("joblib", r"engine='joblib'\n  allowed: None.*\n  remedy: engine=Joblib\(\) from cnn_ablation.launch.engines"),
        (Processes, r"engine=<class .*\n  allowed: None \(this machine\), or an object of cnn_ablation"),
        (Processes(jobs=0), r"hydra\.launcher\.jobs=0\n  allowed: at least 1"),
    ],
    ids=["name", "class", "settings"],
)
def test_an_engine_of_a_script_is_checked(here: Path, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ablate(composed(), SHIFTS, here / "study", engine=given)
    assert not (here / "study").exists()


@pytest.mark.parametrize(
    ("expected", "settings", "num_runs", "seconds"),
    [
        (3, {"jobs": 3}, 50, 1e6),
        (2, {"jobs": 3}, 2, 1e6),
        (13, {}, 50, float("nan")),  # four runs one after the other
        (4, {"cpus": 4}, 50, float("nan")),
        (1, {}, 50, 100.0),
        (10, {}, 50, 1200.0),
        (50, {}, 50, 1e6),
        (13, {"cpus": 4}, 50, 1e6),  # no place of a job stays empty
    ],
    ids=str,
)
def test_jobs_are_long_enough_to_pay_for_their_start(
    expected: int, settings: dict[str, Any], num_runs: int, seconds: float
) -> None:
    assert Engine.num_jobs(Processes(**settings), num_runs, seconds) == expected
