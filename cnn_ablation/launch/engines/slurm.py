"""What Slurm says of jobs: one question for all of them, its words in a person's.

`squeue` answers from the controller's memory, also of jobs that ended minutes ago (MinJobAge); where it has forgotten
one, `sacct` is asked, if the cluster keeps accounts.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cnn_ablation.common import progress
from cnn_ablation.launch.engines import JobState

FORGOTTEN = JobState(is_over=True, reason="Slurm no longer knows it")
NEVER_BEGUN = JobState(is_over=True, reason="cancelled before it began")
"""Of a job of an array that was cancelled while it waited, Slurm keeps nothing."""

_COLUMNS = {"JobArrayID": 48, "State": 24, "exit_code": 16, "Reason": 160}  # widths that cut nothing
_SECONDS = 120.0  # a controller that is busy may take a minute for an answer
_RECENT_SECONDS = 120.0
"""What waited so long ago cannot have begun, ended and been forgotten since: controllers remember for 300 seconds."""
_SECONDS_OF_SILENCE = 5.0  # between two questions that are not answered
_IDS_PER_CALL = 500  # a command line has no room for more than a few thousand

_OVER = {
    "COMPLETED": "",
    "TIMEOUT": "out of time",
    "OUT_OF_MEMORY": "out of memory",
    "CANCELLED": "cancelled",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "DEADLINE": "past its deadline",
    "REVOKED": "taken over by another cluster",
    "FAILED": "failed",
}
_RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING")

_MAY_WAIT_FOR_EVER = {
    r"PartitionTimeLimit": "its partition allows less time than it asks for",
    r"PartitionNodeLimit": "its partition allows fewer nodes than it asks for",
    r"PartitionConfig": "no node of its partition has what it asks for",
    r"Partition(Down|Inactive)": "its partition takes no jobs",
    r"BadConstraints": "no node is what it asks for",
    r"ReqNodeNotAvail.*": "a node that it asks for is not available",
    r"DependencyNeverSatisfied": "what it depends on did not end as it wants",
    r"JobHeldUser": "it is held until `scontrol release` lets it go",
    r"JobHeldAdmin": "an administrator holds it",
    r"(JobLaunchFailure|launch failed requeued held)": "it could not be started, and is held",
    r"job requeued in held state": "it is held until `scontrol release` lets it go",
    r"(AccountNotAllowed|InvalidAccount)": "its account may not use this partition",
    r"(QOSNotAllowed|InvalidQOS)": "its quality of service may not be used here",
    r"(QOS|Assoc)Max\w*Per(Job|User)\w*": "it asks for more than a person may have",
    r"(QOS|Assoc)MaxWallDuration\w*": "it asks for more time than a person may have",
}
"""Reasons of jobs that wait, for which nothing has to happen that lets them go on; other reasons pass by themselves."""


@dataclass
class Queue:
    """The jobs of a person, as Slurm's commands tell of them; what it said last stands while Slurm does not answer."""

    known: dict[str, JobState] = field(default_factory=dict)
    heard: float = 0.0
    """When it was last told of them, by a clock that only goes on."""
    is_silent: bool = False
    has_accounts: bool = True

    def submitted(self, ids: Sequence[str]) -> None:
        """Jobs that wait from now on."""
        self.known.update(dict.fromkeys(ids, JobState(is_over=False)))
        self.heard = time.monotonic()

    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        """What has become of jobs; an answer is waited for where nothing was ever heard of one."""
        open_ids = [each for each in ids if each not in self.known or not self.known[each].is_over]
        if open_ids:
            self._ask(open_ids)
        while not self.known.keys() >= set(ids):
            time.sleep(_SECONDS_OF_SILENCE)
            self._ask(open_ids)
        return {each: self.known[each] for each in ids}

    def _ask(self, ids: Sequence[str]) -> None:
        found = self._squeue(arrays_of(ids))
        if found is None:
            return
        self.known.update({each: found[each] for each in ids if each in found})
        forgotten = [each for each in ids if each not in found]
        if forgotten:
            kept = self._sacct(arrays_of(forgotten))
            self.known.update({each: kept.get(each, self._vanished(each)) for each in forgotten})
        self.heard = time.monotonic()

    def _vanished(self, name: str) -> JobState:
        before = self.known.get(name, FORGOTTEN)
        waited = not before.is_over and not before.is_running
        return NEVER_BEGUN if waited and time.monotonic() - self.heard < _RECENT_SECONDS else FORGOTTEN

    def _squeue(self, arrays: Sequence[str]) -> dict[str, JobState] | None:
        """None where the controller does not answer."""
        columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
        flags = ["--noheader", "--array", "--states=all", f"--Format={columns}"]
        answer = ask("squeue", *flags, f"--jobs={','.join(arrays)}")
        if answer.returncode == 0:
            self.is_silent = False
            return dict(read_squeue(answer.stdout.splitlines()))
        if "Invalid job id" in answer.stderr:  # of one that it has forgotten; of several it leaves those out
            self.is_silent = False
            return {}
        if not self.is_silent:
            self.is_silent = True
            progress.warn(f"Slurm does not answer ({words(answer)}); its jobs go on, and it is asked again")
        return None

    def _sacct(self, arrays: Sequence[str]) -> dict[str, JobState]:
        if not self.has_accounts:
            return {}
        flags = ["--noheader", "--parsable2", "--allocations", "--format=JobID,State,ExitCode"]
        answer = ask("sacct", *flags, f"--jobs={','.join(arrays)}")
        self.has_accounts = answer.returncode == 0
        return dict(read_sacct(answer.stdout.splitlines())) if self.has_accounts else {}


def arrays_of(ids: Iterable[str]) -> list[str]:
    """`12_0`, `12_1`, `15` -> `12`, `15`: what is asked for is short, however many jobs an array has."""
    return list(dict.fromkeys(each.partition("_")[0] for each in ids))


def ask(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The answer of one of Slurm's commands; one that is missing or takes too long has failed, and says so."""
    filters = ("SQUEUE_", "SACCT_", "SCANCEL_")  # a person's own would hide jobs
    variables = {name: value for name, value in os.environ.items() if not name.startswith(filters)}
    command = [program, *arguments]
    try:
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{program} took more than {_SECONDS:.0f} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", f"{program}: {error.strerror}")


def words(answer: subprocess.CompletedProcess[str]) -> str:
    """What a command complained of, in one line."""
    return " ".join(answer.stderr.split()) or f"{answer.args[0]} failed with exit code {answer.returncode}"


def cancel(ids: Sequence[str]) -> None:
    """Ends jobs; those that are over stay as they are."""
    for first in range(0, len(ids), _IDS_PER_CALL):
        answer = ask("scancel", *ids[first : first + _IDS_PER_CALL])
        if answer.returncode and "Invalid job id" not in answer.stderr:
            progress.warn(f"Slurm cancelled not every job ({words(answer)})")


def read_squeue(lines: Iterable[str]) -> Iterator[tuple[str, JobState]]:
    """(id, state) of every line of `squeue --array --Format=...`, which has the columns above."""
    for line in lines:
        values, start = [], 0
        for width in _COLUMNS.values():
            values.append(line[start : start + width].strip())
            start += width
        name, state, status, reason = values
        if name:
            yield name, job_state(state, exit_code=_exit_code(status), reason=reason)


def read_sacct(lines: Iterable[str]) -> Iterator[tuple[str, JobState]]:
    """(id, state) of every line of `sacct --parsable2 --format=JobID,State,ExitCode`; one may stand for several."""
    for line in lines:
        name, state, codes, *_ = [*line.split("|"), "", ""]
        state, _, by = state.partition(" by ")
        code, _, number = codes.partition(":")
        told = -int(number) if number.isdigit() and int(number) else int(code) if code.isdigit() else 0
        for each in _elements(name):
            yield each, job_state(state, exit_code=told, by=_name_of(by))


def job_state(state: str, *, exit_code: int = 0, reason: str = "", by: str = "") -> JobState:
    """A state of Slurm's.

    Args:
        state: its name; unknown ones count as not over.
        exit_code: of a job that failed; of a signal, below zero.
        reason: why it waits, as Slurm names it.
        by: who cancelled it.
    """
    if state in _OVER:
        return JobState(is_over=True, reason=_reason(state, exit_code, by))
    if state in _RUNNING:
        return JobState(is_over=False, is_running=True)
    found = next((text for name, text in _MAY_WAIT_FOR_EVER.items() if re.fullmatch(name, reason)), "")
    return JobState(is_over=False, reason=f"{found} ({reason})" if found else "")


def _reason(state: str, exit_code: int, by: str) -> str:
    if state == "FAILED":
        return f"failed ({_signal(-exit_code) if exit_code < 0 else f'exit code {exit_code}'})"
    return f"{_OVER[state]} by {by}" if by else _OVER[state]


def _signal(number: int) -> str:
    known = {each.value: each.name for each in signal.Signals}
    return f"signal {known.get(number, number)}"


def _exit_code(status: str) -> int:
    """Of the status that Slurm keeps, which is that of `waitpid`."""
    number = int(status) if status.isdigit() else 0
    return -(number & 0x7F) if number & 0x7F else number >> 8


def _name_of(user: str) -> str:
    """A person's name for her number, where this machine knows it."""
    try:
        return pwd.getpwuid(int(user)).pw_name
    except (ValueError, KeyError):
        return user


def _elements(name: str) -> list[str]:
    """`12_[0-2,7%4]` -> `12_0`, `12_1`, `12_2`, `12_7`; any other id stands for itself."""
    found = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", name)
    if not found:
        return [name]
    parts = [part.partition("-") for part in found[2].split(",")]
    return [f"{found[1]}_{each}" for low, _, high in parts for each in range(int(low), int(high or low) + 1)]
