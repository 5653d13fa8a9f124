"""This machine, through submitit: jobs that go on when the process that submitted them ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_ablation.common import machine
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.common.machine import Allocation
from cnn_ablation.config import CONDUCT, setting
from cnn_ablation.launch.engines import Engine, JobState, submitit_jobs

if TYPE_CHECKING:
    from submitit.local.local import LocalJob

_ALONE = ["trap '' INT HUP", "exec </dev/null >/dev/null 2>&1"]
"""Ctrl-C and the end of a terminal reach every process started in it, and our output ends with its last writer."""
_MINUTES = 10 * 365 * 24 * 60.0  # submitit would end a job after two
_SECONDS_TO_END = 3.0
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(kw_only=True)
class SubmititLocal(Engine):
    """Jobs on this machine that survive the submitting process.

    `jobs`: all start at once, and each packs its runs, so that one has the machine to itself. `cpus`, `gpus`,
    `memory_gb`: of each job; null is its share of the machine.
    """

    jobs: int | None = setting(1, at_least=1, role=CONDUCT)
    gpus: int | None = setting(None, at_least=0, role=CONDUCT)  # type: ignore[assignment]  # null: what there is

    @property
    def is_here(self) -> bool:
        return True

    @property
    def allocation(self) -> Allocation:
        return self._share

    def num_jobs(self, num_runs: int, seconds: float) -> int:
        return min(self._jobs, num_runs)

    def check(self) -> None:
        """As every engine, and that all jobs can train at once on this machine."""
        super().check()
        submitit_jobs.check_installed("submitit_local")
        if os.name != "posix":
            allowed = "systems with processes as Linux and macOS have them"
            raise ConfigError([Problem("hydra/launcher", "submitit_local", allowed, remedy="hydra/launcher=joblib")])
        share, cores = self._share, machine.cores()
        if self._jobs * (share.cpus or 1) > cores:
            key, value = ("cpus", self.cpus) if self.cpus else ("jobs", self.jobs)
            allowed = f"jobs times cpus at most {cores}, which this machine has: all jobs train at once"
            remedy = _remedy("cpus", self.cpus or 1, cores)
            raise ConfigError([Problem(f"hydra.launcher.{key}", value, allowed, remedy=remedy)])
        gpus = len(_devices())
        if self.gpus and self._jobs * self.gpus > gpus:
            allowed = f"jobs times gpus at most {gpus}, which this machine has"
            raise ConfigError(
                [Problem("hydra.launcher.gpus", self.gpus, allowed, remedy=_remedy("gpus", self.gpus, gpus))]
            )

    def submit(self, batches: Sequence[Path], folder: Path) -> list[str]:
        """As every engine; an id is a process and when it began, because numbers of processes come again."""
        from submitit import LocalExecutor

        executor = LocalExecutor(folder)
        executor.update_parameters(timeout_min=_MINUTES, setup=_ALONE)
        paths, functions = [str(path) for path in batches], [submitit_jobs.FUNCTION] * len(batches)
        jobs: list[Any] = executor.map_array(submitit_jobs.carry_out, paths, functions, self._variables(len(batches)))
        started = {_begun(int(job.job_id)): job for job in jobs}
        self._started.update(started)
        return list(started)

    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        return {each: self._state(each) for each in ids}

    def cancel(self, ids: Sequence[str]) -> None:
        """Tells them to end, and ends what has not done so after a while."""
        alive = [each for each in ids if self._is_alive(each)]
        self._cancelled.update(alive)
        for process in [process for each in alive for process in _family(_process(each))]:
            _send(process, signal.SIGTERM)
        deadline = time.monotonic() + _SECONDS_TO_END
        while any(map(self._is_alive, alive)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in [process for each in alive if self._is_alive(each) for process in _family(_process(each))]:
            _send(process, signal.SIGKILL)

    @property
    def _jobs(self) -> int:
        return self.jobs or 1

    @cached_property
    def _share(self) -> Allocation:
        """Of one job; told once, because what a machine has is asked for again as if it were a job's."""
        asked, memory = super().allocation, machine.memory()
        if self._jobs > 1 and asked.memory is None and memory is not None:
            asked = Allocation(asked.cpus, memory // self._jobs, asked.gpus)
        gpus = len(_devices()) // self._jobs if self._jobs > 1 and asked.gpus is None else asked.gpus
        return Allocation(asked.cpus or max(1, machine.cores() // self._jobs), asked.memory, gpus)

    def _variables(self, num_jobs: int) -> list[dict[str, str | None]]:
        """What each job sees of the GPUs; where nobody divides them, what we see: submitit would hide them."""
        each = self._share.gpus
        if each is None:
            return [{_VISIBLE: os.environ.get(_VISIBLE)}] * num_jobs
        devices = _devices()
        return [{_VISIBLE: ",".join(devices[number * each : (number + 1) * each])} for number in range(num_jobs)]

    @cached_property
    def _started(self) -> dict[str, LocalJob[None]]:
        """Jobs of this process, of which more is known than whether they live."""
        return {}

    @cached_property
    def _cancelled(self) -> set[str]:
        return set()

    def _state(self, name: str) -> JobState:
        if self._is_alive(name):
            return JobState(is_over=False, is_running=True)
        if name in self._cancelled:
            return JobState(is_over=True, reason="cancelled")
        return JobState(is_over=True, reason=_reason(self._started[name]) if name in self._started else "")

    def _is_alive(self, name: str) -> bool:
        if name in self._started and self._started[name].done():  # which also lets a dead child go
            return False
        return _name(_process(name)) == name


def _remedy(key: str, of_each: int, there: int) -> str:
    """What fits this machine: fewer jobs, or each with its share."""
    return f"hydra.launcher.jobs={there // of_each}" if of_each <= there else f"hydra.launcher.{key}=null"


def _reason(job: LocalJob[None]) -> str:
    """Why a job did not end well, as its result says; without one it was killed."""
    from submitit.core.utils import pickle_load

    if not job.paths.result_pickle.exists():
        return "its process was killed"
    outcome, content = pickle_load(job.paths.result_pickle)
    return str(content).strip().splitlines()[-1] if outcome == "error" else ""


def _process(name: str) -> int:
    return int(name.partition("-")[0])


def _begun(process: int) -> str:
    """The name of a job that this process has started, which may be over by now."""
    fields = _stat(process)
    return f"{process}-{fields[19] if fields else 0}" if os.path.isdir("/proc/self") else str(process)


def _name(process: int) -> str:
    """A process by its number and when it began, because numbers come again; by its number where nobody tells more."""
    fields = _stat(process)
    if fields:
        return f"{process}-{fields[19]}" if fields[0] != "Z" else ""
    if os.path.isdir("/proc/self"):
        return ""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:  # it is there, and somebody else's
        pass
    return str(process)


def _stat(process: int) -> list[str]:
    """What Linux says of a process, from its state on; nothing where there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _family(process: int) -> list[int]:
    """A process and those that it started, the youngest first."""
    found = [process]
    for each in found:
        try:
            found += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
        except OSError:
            continue
    return found[::-1]


def _send(process: int, how: signal.Signals) -> None:
    try:
        os.kill(process, how)
    except (ProcessLookupError, PermissionError):
        return


def _devices() -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    told = os.environ.get(_VISIBLE)
    if told is not None:
        return [each.strip() for each in told.split(",") if each.strip() not in ("", "-1")]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))] if machine.may_have_gpu() else []
