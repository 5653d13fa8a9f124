"""Engines that run jobs elsewhere, behind one protocol. An engine knows nothing of studies: it is given files."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.common.machine import Allocation
from cnn_ablation.common.words import nearest
from cnn_ablation.config.schema import CONDUCT, Section, setting
from cnn_ablation.config.values import value_problems

ENGINES = {
    "joblib": "cnn_ablation.launch.engines.joblib.Joblib",
    "ray": "cnn_ablation.launch.engines.ray.Ray",
    "submitit_local": "cnn_ablation.launch.engines.submitit_local.SubmititLocal",
    "submitit_slurm": "cnn_ablation.launch.engines.submitit_slurm.SubmititSlurm",
}
"""Engines by the name of their launcher: where the class of each is, which is imported when it is asked for."""

CONTINUE, CANCEL = "continue", "cancel"
_GIGABYTE = 10**9
_SECONDS_PER_JOB = 120.0
"""A job trains at least so long where it can: its start takes five to ten."""
_RUNS_PER_PLACE = 4
"""Where nobody knows how long a run takes: one after the other in each place of a job."""


@dataclass(frozen=True)
class JobState:
    """What an engine says of one of its jobs."""

    is_over: bool
    is_running: bool = False
    reason: str = ""
    """Of a job that is over: why it did not end well (`out of time`, `out of memory`, `cancelled`, `preempted`, `its
    node failed`). Of one that waits: what for, if it may wait for ever."""


@dataclass(kw_only=True)
class Engine(Section, ABC):
    """What every engine can be told under `hydra.launcher`, and do.

    `jobs`: into how many jobs the runs of a study are divided, at most; null is for the engine to say. `cpus`, `gpus`,
    `memory_gb`: what each job is given. `on_detach`: whether jobs go on when the submitting process is interrupted.
    `allow_other_versions`: a node may have other versions of the libraries than the submitting side.
    """

    jobs: int | None = setting(None, at_least=1, role=CONDUCT)
    cpus: int | None = setting(None, at_least=1, role=CONDUCT)
    gpus: int = setting(0, at_least=0, role=CONDUCT)
    memory_gb: float | None = setting(None, above=0, role=CONDUCT)
    on_detach: str = setting(CONTINUE, choices=(CONTINUE, CANCEL), role=CONDUCT)
    allow_other_versions: bool = setting(False, role=CONDUCT)
    poll_seconds: float = setting(2.0, above=0, role=CONDUCT)

    survives: ClassVar[bool] = True
    """Whether its jobs can go on without the submitting process."""

    @property
    def allocation(self) -> Allocation:
        """What each job is given, as far as it is asked for."""
        memory = None if self.memory_gb is None else round(self.memory_gb * _GIGABYTE)
        return Allocation(cpus=self.cpus, memory=memory, gpus=self.gpus)

    @property
    def goes_on(self) -> bool:
        """Whether jobs are left to go on when the submitting process ends."""
        return self.survives and self.on_detach == CONTINUE

    @property
    def is_here(self) -> bool:
        """Whether all its jobs run on this machine, which then tells what `auto` stands for and sees files at once."""
        return False

    def num_jobs(self, num_runs: int, seconds: float) -> int:
        """Into how many jobs runs are divided: where nobody said, as many as keep each busy for a while.

        Args:
            num_runs: at least one.
            seconds: that they take one after the other; NaN where unknown.
        """
        places = self.cpus or 1  # runs side by side in a job
        most = math.ceil(num_runs / places)
        if self.jobs:
            return min(self.jobs, num_runs)
        if math.isnan(seconds):
            return math.ceil(most / _RUNS_PER_PLACE)
        return max(1, min(most, round(seconds / places / _SECONDS_PER_JOB)))

    def check(self) -> None:
        """Refuses what this engine cannot be asked for, before anything is planned.

        Raises:
            ConfigError: a value is wrong, or the engine is not installed.
        """
        if problems := value_problems(self, "hydra.launcher."):
            raise ConfigError(problems)

    @abstractmethod
    def submit(self, batches: Sequence[Path], folder: Path) -> list[str]:
        """Starts one job for each batch, which calls `launch.batches.carry_out` with it; returns their ids.

        Args:
            batches: absolute paths that the nodes see too.
            folder: for what the engine itself writes.

        Raises:
            UserError: the engine takes no job, with its words and a remedy.
        """

    @abstractmethod
    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        """What has become of jobs, also of those that another process submitted; without those nobody can tell."""

    @abstractmethod
    def cancel(self, ids: Sequence[str]) -> None:
        """Ends jobs, also those that have not begun."""

    def cancel_all(self, folder: Path) -> None:
        """Ends the jobs, whatever their ids, whose batches are in a folder that was handed to `submit`."""

    def close(self) -> None:
        """Lets go of the engine at the end of a study; jobs that are to go on do."""


def engine(target: str, settings: Mapping[str, Any]) -> Engine:
    """An engine with its settings, checked.

    Args:
        target: a value of `ENGINES`.
        settings: what is set under `hydra.launcher`.

    Raises:
        ConfigError: a key is unknown, a value is wrong, or the engine is not installed.
    """
    module, _, name = target.rpartition(".")
    kind: type[Engine] = getattr(import_module(module), name)
    known = [item.name for item in fields(kind)]  # what is told of the class itself is no setting
    if unknown := [key for key in settings if key not in known]:
        key = unknown[0]
        close = nearest(key, known)
        problem = Problem(
            f"hydra.launcher.{key}",
            settings[key],
            ", ".join(known),
            nearest=f"hydra.launcher.{close}={settings[key]}" if close else None,
        )
        raise ConfigError([problem])
    found = kind(**settings)
    found.check()
    return found


def check_engine(found: object) -> None:
    """Refuses an engine of a script that is none, or that cannot be used.

    Raises:
        ConfigError: as `Engine.check`.
    """
    if found is None:
        return
    if not isinstance(found, Engine):
        allowed = f"None (this machine), or an object of {', '.join(ENGINES.values())}"
        close = ENGINES.get(found) if isinstance(found, str) else None
        remedy = f"engine={close.rpartition('.')[2]}() from {close.rpartition('.')[0]}" if close else None
        raise ConfigError([Problem("engine", repr(found), allowed, remedy=remedy)])
    found.check()
