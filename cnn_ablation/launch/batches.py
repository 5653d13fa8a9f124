"""Batches: what one job of an engine trains, as a file that its node reads. Records on disk are what comes back."""

from __future__ import annotations

import os
import pickle
import platform
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from cnn_ablation.common import extensions, leases, machine
from cnn_ablation.common.errors import ConfigError, Problem, RecordError, UserError, one_line
from cnn_ablation.common.files import VISIBLE_SECONDS, write_atomically
from cnn_ablation.common.leases import Lease
from cnn_ablation.common.looks import one_look
from cnn_ablation.common.machine import Allocation
from cnn_ablation.config import StudyConfig
from cnn_ablation.launch import children
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.crew import Crew
from cnn_ablation.launch.packing import ONE_AT_A_TIME, packing_of_job
from cnn_ablation.runs import places, provenance
from cnn_ablation.runs.records import deferred_file, is_stopped
from cnn_ablation.runs.run import run
from cnn_ablation.runs.task import Task, task_named

STUDY_LEASE = ".lease"
"""Of who carries out a study, in its folder."""
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Batch:
    """The runs of one job, and all that its node has to know before it can read their configurations."""

    study: Path
    task: str
    num_runs: int
    """Of the whole study, at most: how many threads a run has does not depend on how a study is divided."""
    folder: Path
    """The working directory of the submitting side; relative paths and a person's own modules are found from there."""
    token: Path
    """A file that the submitting side left in the store: a node that does not see it has another store."""
    extensions: tuple[str, ...]
    asked: Allocation
    made_with: dict[str, Any]
    """Versions of the submitting side (`made_with`)."""
    allow_other_versions: bool
    ends_with_study: bool
    """Nobody wants what it trains once the submitting side is gone."""
    baseline: StudyConfig | None = None
    assignments: tuple[Assignment, ...] = ()


def made_with(task: Task) -> dict[str, Any]:
    """The installation of this process, as far as it can change what a run computes."""
    return {"python": platform.python_version(), **provenance.code_identity(task.CODE, task.LIBRARIES)}


def write(path: Path, batch: Batch) -> None:
    """Writes a batch; configurations apart, because a node can read them only once it has a person's modules.

    Raises:
        RecordError: the file cannot be written.
    """
    header = replace(batch, baseline=None, assignments=())
    write_atomically(path, pickle.dumps((header, pickle.dumps((batch.baseline, batch.assignments)))))


def error_file(path: Path) -> Path:
    """Where a job says what it met instead of leaving records."""
    return path.with_suffix(".error")


def carry_out(path: Path | str) -> None:
    """The whole work of a job: trains a batch, or leaves a word why not. Called again, it goes on.

    A job may be ended at any moment and started anew by its engine: runs that are finished are taken from the store.
    """
    path = Path(path)
    error_file(path).unlink(missing_ok=True)
    try:
        raised = _carried_out(path)
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        raised = [one_line(error)]
    if raised and path.parent.is_dir():  # else this node does not see the study's folder, and must not make it
        write_atomically(error_file(path), "\n".join(dict.fromkeys(raised)).encode())


def _carried_out(path: Path) -> list[str]:
    """What was raised instead of leaving a record."""
    _wait_for(path, "the file of this job")  # it was written on another host
    header, configurations = pickle.loads(path.read_bytes())
    _go_to(header)
    if header.ends_with_study:
        _end_with(header.study)
    extensions.load(header.extensions)
    task = task_named(header.task)
    _check_versions(header, task)
    baseline, assignments = pickle.loads(configurations)
    with machine.seen_as(header.asked), one_look():
        return _trained(header, baseline, assignments)


def _go_to(header: Batch) -> None:
    """To where the submitting side was, and makes sure that the store is the same.

    Raises:
        RecordError: this node does not see the working directory or the store.
    """
    try:
        os.chdir(header.folder)
    except OSError as error:
        raise RecordError(
            f"{header.folder} is not on {platform.node()} ({error.strerror or error}): the study was submitted there\n"
            "  remedy: submit from a folder that all nodes share"
        ) from error
    _wait_for(header.token, "the store (store=DIR names a folder that all nodes share)")


@cache
def _end_with(study: Path) -> None:
    """Ends this process once the submitting side does not carry out the study any more, however that ended."""

    def watch() -> None:
        leases.wait_until_free(study / STUDY_LEASE)
        os._exit(1)

    threading.Thread(target=watch, name="study", daemon=True).start()


def study_lease(study: Path, **how: Any) -> Lease:
    """Of who carries out a study, once nobody else does; `how` as `leases.acquire` takes it."""
    return leases.acquire(study / STUDY_LEASE, **how)


def _wait_for(path: Path, what: str) -> None:
    """Waits until a file that was written elsewhere can be seen here.

    Raises:
        RecordError: it cannot.
    """
    end = time.monotonic() + VISIBLE_SECONDS
    while not _is_listed(path):
        if time.monotonic() > end:
            raise RecordError(f"{platform.node()} does not see {path}: {what}")
        time.sleep(_POLL_SECONDS)


def _is_listed(path: Path) -> bool:
    """Looked up in its folder: a shared file system may keep for a minute that a name was not there."""
    try:
        return path.name in os.listdir(path.parent)
    except OSError:
        return False


def _check_versions(header: Batch, task: Task) -> None:
    here, there = made_with(task), header.made_with
    if here == there or header.allow_other_versions:
        return
    differing = [
        f"{name} {_version(here, name)} in place of {_version(there, name)}"
        for name in ("python", *task.LIBRARIES, "code")
        if _version(here, name) != _version(there, name)
    ]
    allowed = "the versions of the submitting side; the results of others are not comparable"
    key = "hydra.launcher.allow_other_versions"
    remedy = f"the same environment on {platform.node()}, which has {', '.join(differing)}; or {key}=true"
    raise ConfigError([Problem(key, False, allowed, remedy=remedy)])


def _version(installation: dict[str, Any], name: str) -> str:
    return str(installation["libraries"].get(name) or installation.get(name))


def _trained(header: Batch, baseline: StudyConfig, assignments: Sequence[Assignment]) -> list[str]:
    """Shares out what the job was given among its runs, as the same study on one machine does."""
    task, configs = task_named(header.task), [each.config for each in assignments]
    if problems := places.missing(configs):
        raise ConfigError(problems)
    task.check_available(configs)
    how = packing_of_job(baseline, header.num_runs, len(assignments), configs)
    packed = how is not ONE_AT_A_TIME
    if packed:
        children.start_loading(task.PRELOADED)
    task.load(configs)
    raised, pending = list[str](), list(assignments)
    crew = Crew(header.task, how)
    with crew if packed else nullcontext():
        for _ in range(2):  # the second time those that another process was training, which are waited for then
            if pending and not is_stopped(header.study):
                raised += crew.train(pending) if packed else _one_after_the_other(pending)
                pending = [each for each in pending if _was_deferred(each)]
    return raised


def _one_after_the_other(assignments: Sequence[Assignment]) -> list[str]:
    raised = []
    for each in assignments:
        try:
            run(each.config, each.folder, study=each.study)
        except Exception as error:  # it costs this run, and none that comes after it
            raised.append(one_line(error))
    return raised


def _was_deferred(assignment: Assignment) -> bool:
    """Whether another process was training one of its runs; now it is waited for."""
    return any(deferred_file(assignment.folder, seed).exists() for seed in assignment.config.seeds)
