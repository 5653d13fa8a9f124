"""joblib's jobs: real processes on this machine, and what can be asked of them."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from batch_jobs import batch, is_done, started, told, until

from cnn_ablation.app.composition import CONF_DIR
from cnn_ablation.common import machine
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.common.machine import Allocation
from cnn_ablation.config import default_of
from cnn_ablation.launch.engines import ENGINES, JobState, engine
from cnn_ablation.launch.engines.joblib import Joblib, Pool

WAITING, RUNNING, ENDED_WELL = JobState(is_over=False), JobState(False, is_running=True), JobState(is_over=True)
GIB = 2**30


@pytest.fixture
def joblib(tmp_path: Path) -> Iterator[Callable[[int], Joblib]]:
    """Engines whose jobs do as they are told, and that are closed afterwards."""
    made = []

    def make(jobs: int) -> Joblib:
        made.append(Joblib(jobs=jobs, cpus=1))
        return made[-1]

    with told(tmp_path / "jobs"):
        yield make
        for each in made:
            each.close()


def over(engine: Joblib, ids: list[str]) -> list[JobState]:
    """The states of jobs once all are over."""
    until(lambda: all(state.is_over for state in engine.states(ids).values()))
    return list(engine.states(ids).values())


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_file_names_every_key_with_its_default() -> None:
    told = yaml.safe_load((Path(CONF_DIR) / "hydra" / "launcher" / "joblib.yaml").read_text())
    assert told.pop("_target_") == ENGINES["joblib"]
    assert told == {item.name: default_of(item) for item in dataclasses.fields(Joblib)}


def test_jobs_run_in_turn_in_processes_that_stay(joblib: Callable[[int], Joblib], tmp_path: Path) -> None:
    batches = [batch(tmp_path, f"{number}", seconds=0.1) for number in range(3)]
    engine = joblib(1)
    ids = engine.submit(batches, tmp_path / "logs")
    assert list(engine.states(ids).values()) == [RUNNING, WAITING, WAITING]
    assert over(engine, ids) == [ENDED_WELL] * 3
    assert all(map(is_done, batches))
    assert len({started(each)["pid"] for each in batches}) == 1
    assert started(batches[0])["environment"]["OMP_NUM_THREADS"] == "1"
    assert [(tmp_path / "logs" / f"{n}.log").read_text() for n in range(3)] == [
        f"carrying out {each}\n" for each in batches
    ]


def test_a_process_that_dies_costs_its_own_job_alone(joblib: Callable[[int], Joblib], tmp_path: Path) -> None:
    batches = [
        batch(tmp_path, "0", seconds=60),
        batch(tmp_path, "1", seconds=0.5),
        batch(tmp_path, "2", exit_code=3),
        batch(tmp_path, "3", error="no such net"),
        batch(tmp_path, "4"),
    ]
    engine = joblib(2)
    ids = engine.submit(batches, tmp_path)
    os.kill(until(lambda: started(batches[0]))["pid"], signal.SIGKILL)
    assert [state.reason for state in over(engine, ids)] == [
        "its process ended (signal SIGKILL)",
        "",
        "its process ended (exit code 3)",
        "ValueError: no such net",
        "",
    ]
    assert [is_done(each) for each in batches] == [False, True, False, False, True]


def test_a_process_that_dies_while_idle_costs_nothing(joblib: Callable[[int], Joblib], tmp_path: Path) -> None:
    first, second = batch(tmp_path, "0"), batch(tmp_path, "1")
    engine = joblib(1)
    over(engine, engine.submit([first], tmp_path))
    idle = started(first)["pid"]
    os.kill(idle, signal.SIGKILL)
    until(lambda: engine._pool.idle[0]._flags.broken)  # loky has seen it
    assert over(engine, engine.submit([second], tmp_path)) == [ENDED_WELL]
    assert is_done(second)


def test_jobs_are_cancelled_whether_they_run_or_wait_and_others_come_next(
    joblib: Callable[[int], Joblib], tmp_path: Path
) -> None:
    batches = [batch(tmp_path, "0", seconds=60), batch(tmp_path, "1", seconds=60), batch(tmp_path, "2")]
    engine = joblib(1)
    ids = engine.submit(batches, tmp_path)
    process = until(lambda: started(batches[0]))["pid"]
    engine.cancel(ids[:2])
    assert not is_alive(process)
    cancelled = JobState(is_over=True, reason="cancelled")
    assert over(engine, ids) == [cancelled, cancelled, ENDED_WELL]


def test_closing_ends_what_runs_at_once(joblib: Callable[[int], Joblib], tmp_path: Path) -> None:
    batches = [batch(tmp_path, f"{number}", seconds=60) for number in range(3)]
    engine = joblib(2)
    engine.submit(batches, tmp_path)
    processes = [until(lambda each=each: started(each))["pid"] for each in batches[:2]]
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 30
    assert not any(map(is_alive, processes))
    assert not started(batches[2])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_processes_do_not_outlive_the_one_that_started_them(tmp_path: Path, how: signal.Signals) -> None:
    only = batch(tmp_path, "0", seconds=60)
    code = (
        "import signal, sys, time; from contextlib import closing; from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what runs in a shell's background ignores it
        "from cnn_ablation.launch.engines.joblib import Joblib\n"
        "with closing(Joblib(jobs=1)) as engine:\n"
        "    engine.submit([Path(sys.argv[1])], Path(sys.argv[1]).parent)\n"
        "    Path('submitted').touch()\n"
        "    time.sleep(60)"
    )
    with told(tmp_path / "jobs"):
        front = subprocess.Popen([sys.executable, "-c", code, str(only)], cwd=tmp_path, stderr=subprocess.DEVNULL)
    until((tmp_path / "submitted").exists)  # an interruption in the middle of that may be lost inside loky
    process = until(lambda: started(only))["pid"]
    front.send_signal(how)
    assert front.wait(60) in (-signal.SIGKILL, -signal.SIGINT)
    until(lambda: not is_alive(process))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="signals of a process are read from /proc")
def test_processes_are_deaf_to_ctrl_c_from_their_first_line(tmp_path: Path) -> None:
    """A front end of its own: the first process that it starts brings Python's tracker of resources along."""
    only = batch(tmp_path, "0")
    code = (
        "import sys; from contextlib import closing; from pathlib import Path\n"
        "from cnn_ablation.launch.engines.joblib import Joblib\n"
        "with closing(Joblib(jobs=1)) as engine:\n"
        "    ids = engine.submit([Path(sys.argv[1])], Path(sys.argv[1]).parent)\n"
        "    (executor,) = engine._pool.busy.values()\n"
        "    (process,) = executor._processes\n"
        "    print(Path(f'/proc/{process}/status').read_text())"
    )
    with told(tmp_path / "jobs"):
        done = subprocess.run([sys.executable, "-c", code, str(only)], capture_output=True, text=True, check=True)
    (blocked,) = (int(line.split()[1], 16) for line in done.stdout.splitlines() if line.startswith("SigBlk"))
    assert blocked >> (signal.SIGINT - 1) & 1


def test_jobs_of_another_process_are_over(tmp_path: Path) -> None:
    with closing(Joblib(jobs=1)) as engine:
        assert engine.states(["0.batch"]) == {"0.batch": JobState(is_over=True, reason="its process has ended")}
    assert not engine.goes_on


@pytest.mark.parametrize(
    ("settings", "share", "num_jobs"),
    [
        ({}, Allocation(cpus=1, memory=2 * GIB, gpus=0), 32),
        ({"jobs": 2}, Allocation(cpus=4, memory=8 * GIB, gpus=0), 2),
        ({"cpus": 4}, Allocation(cpus=4, memory=8 * GIB, gpus=0), 2),
        ({"jobs": 2, "cpus": 1, "memory_gb": 1.5, "gpus": 1}, Allocation(cpus=1, memory=1_500_000_000, gpus=1), 8),
        ({"jobs": 16}, Allocation(cpus=1, memory=GIB, gpus=0), 50),
    ],
    ids=["all", "two jobs", "four threads", "all set", "more than cores"],
)
def test_each_process_has_its_share_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], share: Allocation, num_jobs: int
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "memory", lambda: 16 * GIB)
    made = engine(ENGINES["joblib"], settings)
    assert made.allocation == share
    monkeypatch.undo()
    with machine.seen_as(share):  # as a study is planned
        assert made.allocation == share
        assert made.num_jobs(50, float("nan")) == num_jobs


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"jobs": 0}, "hydra.launcher.jobs=0\n  allowed: at least 1"),
        ({"gpus": 2}, "hydra.launcher.gpus=2\n  allowed: at least 0 and at most 1"),
        (
            {"on_detach": "continue"},
            "hydra.launcher.on_detach=continue\n  allowed: cancel",
        ),
        (
            {"n_jobs": 2},
            "hydra.launcher.n_jobs=2\n  allowed: jobs, cpus, gpus, memory_gb, on_detach, allow_other_versions, "
            "poll_seconds\n  did you mean: hydra.launcher.jobs=2",
        ),
        (
            {"jobs": 4, "cpus": 2},
            "hydra.launcher.cpus=2\n  allowed: jobs times cpus at most 4, which this machine has: all processes train "
            "at once\n  remedy: hydra.launcher.jobs=2",
        ),
        (
            {"cpus": 6},
            "hydra.launcher.cpus=6\n  allowed: jobs times cpus at most 4, which this machine has: all processes train "
            "at once\n  remedy: hydra.launcher.cpus=null",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_asked_for_is_one_message(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    with pytest.raises(ConfigError) as refused:
        engine(ENGINES["joblib"], settings)
    assert str(refused.value) == f"configuration error: {expected}"


def process_of_its_own() -> int | None:
    """The exit code of a process that a job starts, as where its runs are trained side by side."""
    process = multiprocessing.get_context("spawn").Process(target=os.getpid)
    process.start()
    process.join(30)
    return process.exitcode


def test_a_job_starts_processes_of_its_own() -> None:
    """Processes would look for loky, which leaves its name as the way to start them."""
    executor = Pool(1, 1)._executor()
    try:
        assert executor.submit(process_of_its_own).result(60) == 0
    finally:
        executor.shutdown(wait=True, kill_workers=True)
