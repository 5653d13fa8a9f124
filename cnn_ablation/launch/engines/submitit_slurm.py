"""Slurm, through submitit: one job array for all batches."""

from __future__ import annotations

import math
import os
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from cnn_ablation.common import progress
from cnn_ablation.common.errors import ConfigError, Problem, UserError
from cnn_ablation.config import CONDUCT, setting
from cnn_ablation.launch.engines import Engine, JobState, slurm, submitit_jobs

PROGRAMS = ("sbatch", "srun", "squeue", "scancel")

_MEBIBYTE = 2**20
_NAME = "cnn_ablation-"
"""What the name of an array begins with, which is that of its folder too."""
_QUIET_SIGNAL = "CONT@1"
"""What Slurm sends before a job's time is over; it does nothing. The one that submitit asks for would fail the job, and
Slurm would not say that it was out of time."""
_UNSURE = re.compile(r"timed? ?out|unable to contact|zero bytes|communication|connection", re.IGNORECASE)
"""Words of sbatch after which a job may have been submitted all the same."""
_REFUSED_AT_ONCE = re.compile(r"batch job submission failed|unrecognized option", re.IGNORECASE)
"""Words of sbatch after which, unless it is unsure, there is no job, although Slurm may show one that failed."""
_LATE_SECONDS = 15.0
"""How long such a job is looked for: the controller may still have it to do."""

_OF_ENGINE = ("array", "chdir", "error", "export", "job-name", "open-mode", "output", "parsable", "wait", "wrap")
_OF_SETTING = {
    "account": "account", "constraint": "constraint", "cpus-per-task": "cpus", "gpus": "gpus", "gpus-per-node": "gpus",
    "mem": "memory_gb", "partition": "partition", "qos": "qos", "time": "minutes",
}  # fmt: skip

_REFUSED = (
    (r"job array specification|MaxSubmit", "jobs"),
    (r"violates accounting/QOS policy", ""),  # of time, size or number: all that it says
    (r"invalid account", "account"),
    (r"partition", "partition"),
    (r"qos", "qos"),
    (r"generic resource|gres", "gpus"),
    (r"feature|constraint", "constraint"),
    (r"time limit", "minutes"),
    (r"memory", "memory_gb"),
    (r"CPU count", "cpus"),
    (r"node name", "extra.nodelist"),
)
"""Words of sbatch, and the key that they are about; the first that fits."""


@dataclass(kw_only=True)
class SubmititSlurm(Engine):
    """A cluster with Slurm.

    `cpus`: of each job; Slurm gives one where nobody asks. `minutes`, `partition`, `account`, `qos`, `constraint`: as
    sbatch takes them; null is the cluster's own. `array_parallelism`: jobs at once, at most; null is for Slurm to say.
    `python`: what starts Python on a node; null is the Python of the submitting side. `setup`: lines of a shell before
    it. `extra`: further options of sbatch by their long names: `{nodelist: n1, requeue: true}`.
    """

    cpus: int | None = setting(1, at_least=1, role=CONDUCT)
    poll_seconds: float = setting(5.0, above=0, role=CONDUCT)
    minutes: int | None = setting(None, at_least=1, role=CONDUCT)
    partition: str | None = setting(None, role=CONDUCT)
    account: str | None = setting(None, role=CONDUCT)
    qos: str | None = setting(None, role=CONDUCT)
    constraint: str | None = setting(None, role=CONDUCT)
    array_parallelism: int | None = setting(None, at_least=1, role=CONDUCT)
    python: str | None = setting(None, role=CONDUCT)
    setup: list[str] = setting([], role=CONDUCT)
    extra: dict[str, Any] | None = setting(None, role=CONDUCT)  # Hydra adds no keys to a dictionary

    def check(self) -> None:
        """As every engine, and that Slurm's commands are here and take what is asked for."""
        super().check()
        submitit_jobs.check_installed("submitit_slurm")
        if absent := [name for name in PROGRAMS if not shutil.which(name)]:
            remedy = "start where Slurm's commands are, on a login node; submitit_local uses this machine alone"
            allowed = f"machines with {', '.join(PROGRAMS)}; there is no {absent[0]} in PATH"
            raise ConfigError([Problem("hydra/launcher", "submitit_slurm", allowed, remedy=remedy)])
        if problems := [problem for key, value in self._extra.items() if (problem := _problem_of_extra(key, value))]:
            raise ConfigError(problems)

    def submit(self, batches: Sequence[Path], folder: Path) -> list[str]:
        """One array, under a name of its own: sbatch may report a failure although it has submitted.

        Raises:
            UserError: Slurm took no job.
        """
        try:
            return self._submitted(batches, folder)
        except _NotSubmittedError as error:
            if not error.was_taken:
                raise self._refusal(error.words) from error
            progress.warn(f"sbatch failed ({error.words}) although Slurm had taken the jobs: submitted again")
        try:
            return self._submitted(batches, folder)
        except _NotSubmittedError as error:
            raise self._refusal(error.words) from error

    def _submitted(self, batches: Sequence[Path], folder: Path) -> list[str]:
        """What Slurm took under a name, or nothing.

        Raises:
            _NotSubmittedError: sbatch failed; whatever it has submitted all the same is cancelled.
        """
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        name = f"{_NAME}{secrets.token_hex(4)}"
        executor = SlurmExecutor(folder / name, python=self.python or shlex.quote(sys.executable))
        executor.update_parameters(**self._parameters(name, len(batches)))
        functions = [submitit_jobs.FUNCTION] * len(batches)
        try:
            with _as_from_a_login_node(), redirect_stderr(StringIO()):  # submitit prints what it raises
                jobs = executor.map_array(submitit_jobs.carry_out, [str(path) for path in batches], functions)
        except (FailedJobError, FailedSubmissionError) as error:
            words = " ".join(str(error).split()) or "no words"
            was_taken = _is_taken(name, words)
            _drop(name, folder)
            raise _NotSubmittedError(words, was_taken=was_taken) from error
        except BaseException:  # interrupted: nobody would know of these jobs
            _drop(name, folder)
            raise
        ids = [job.job_id for job in jobs]
        self._queue.submitted(ids)
        return ids

    def _parameters(self, name: str, num_jobs: int) -> dict[str, Any]:
        """Of submitit, which are those of sbatch."""
        memory = self.allocation.memory
        extra = {key.replace("_", "-"): True if value in ("", None) else value for key, value in self._extra.items()}
        return {
            "job_name": name,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "mem": None if memory is None else f"{math.ceil(memory / _MEBIBYTE)}M",
            "time": self.minutes,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "array_parallelism": self.array_parallelism or num_jobs,
            "setup": self.setup or None,
            "wckey": None,  # where keys are kept, submitit's own is refused
            "use_srun": False,  # a step would be given one CPU since Slurm 22.05, and the controller has one thing less
            "additional_parameters": {
                "signal": _QUIET_SIGNAL, **{key: value for key, value in extra.items() if value is not False},
            },
        }  # fmt: skip

    def _refusal(self, words: str) -> UserError:
        """What sbatch said, with the key that it is about where its words tell."""
        if found := re.search(r"option '?--([\w-]+)", words):
            options = [name for name in self._extra if name.replace("_", "-") == found[1]]
            key = f"extra.{options[0]}" if options else ""
        else:
            key = next((name for pattern, name in _REFUSED if re.search(pattern, words, re.IGNORECASE)), "")
        if key:
            return self._about(key, words)
        return UserError(f"Slurm took no job: {words}\n  remedy: once that is mended, the same command again")

    def _about(self, key: str, words: str) -> ConfigError:
        section, _, name = key.partition(".")
        value = self._extra.get(name) if name else getattr(self, section)
        allowed = f"what this Slurm takes{_known(key)}; sbatch said: {words[:300]}"
        remedy = _REMEDIES.get(key, "sbatch --help lists the options")
        return ConfigError([Problem(f"hydra.launcher.{key}", value, allowed, remedy=remedy)])

    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        return self._queue.states(ids)

    def cancel(self, ids: Sequence[str]) -> None:
        slurm.cancel(ids)

    @property
    def _extra(self) -> dict[str, Any]:
        return self.extra or {}

    def cancel_all(self, folder: Path) -> None:
        for path in folder.glob(f"{_NAME}*"):
            slurm.ask("scancel", f"--name={path.name}")

    @cached_property
    def _queue(self) -> slurm.Queue:
        return slurm.Queue()


class _NotSubmittedError(Exception):
    """sbatch failed."""

    def __init__(self, words: str, *, was_taken: bool):
        super().__init__(words)
        self.words, self.was_taken = words, was_taken


_REMEDIES = {
    "partition": "sinfo lists the partitions",
    "account": "sacctmgr show associations user=$USER lists your accounts",
    "qos": "sacctmgr show qos lists them",
    "jobs": "fewer jobs with more runs each: hydra.launcher.jobs=100",
    "gpus": "sinfo --Format=partition,gres shows which partition has GPUs",
    "constraint": "sinfo --Format=partition,features lists them",
    "minutes": "sinfo --Format=partition,time shows what each partition allows",
    "memory_gb": "sinfo --Format=partition,memory shows what nodes have, in MB",
    "cpus": "sinfo --Format=partition,cpus shows what nodes have",
    "extra.nodelist": "sinfo --Node lists the nodes",
}


def _known(key: str) -> str:
    """The partitions that there are, where the partition is wrong."""
    answer = slurm.ask("sinfo", "--noheader", "--format=%R") if key == "partition" else None
    names = sorted(set(answer.stdout.split())) if answer else []
    return f" ({', '.join(names[:12])})" if names else ""


def _problem_of_extra(key: str, value: object) -> Problem | None:
    """What stands in the way of an option: what the engine needs itself, and what has a key of its own."""
    option, name = key.replace("_", "-"), f"hydra.launcher.extra.{key}"
    if option in _OF_ENGINE:
        return Problem(name, value, f"options of sbatch apart from {', '.join(_OF_ENGINE)}, which are set here")
    if option in _OF_SETTING:
        remedy = f"hydra.launcher.{_OF_SETTING[option]}={value if option not in ('mem', 'time') else '...'}"
        return Problem(name, value, "options of sbatch that have no key of their own", remedy=remedy)
    if not isinstance(value, str | int | float | None):
        return Problem(name, value, "a text, a number, true or false", remedy=f"hydra.launcher.extra.{key}=true")
    return None


@contextmanager
def _as_from_a_login_node() -> Iterator[None]:
    """Within it a job of Slurm submits as a login node does: its own allocation is no request for others."""
    is_job, prefixes = "SLURM_JOB_ID" in os.environ, ("SLURM_", "SUBMITIT_")
    names = [name for name in os.environ if is_job and name.startswith(prefixes) and name != "SLURM_CONF"]
    kept = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(kept)


def _is_taken(name: str, words: str) -> bool:
    """Whether there are jobs of this name, although sbatch failed with these words; they may be some time coming."""
    unsure = bool(_UNSURE.search(words))
    if _REFUSED_AT_ONCE.search(words) and not unsure:
        return False
    deadline = time.monotonic() + (_LATE_SECONDS if unsure else 0.0)
    while True:
        answer = slurm.ask("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%i")
        if answer.stdout.strip():
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(1.0)


def _drop(name: str, folder: Path) -> None:
    """Cancels what there is of this name, with its files."""
    slurm.ask("scancel", f"--name={name}")
    shutil.rmtree(folder / name, ignore_errors=True)
