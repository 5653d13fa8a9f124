"""A worker's own life: a process that trains what its parent gives it, and says how far it is. No torch here.

It has one job at a time, or several, a thread each (`common.lanes`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from cnn_ablation.common import lanes, machine, progress
from cnn_ablation.common.allocation import VISIBLE_GPUS
from cnn_ablation.common.device_names import kind_of
from cnn_ablation.common.errors import one_line
from cnn_ablation.launch import sharing
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.log_files import LOG_FILE, logging_to
from cnn_ablation.launch.packing import Packing
from cnn_ablation.runs.run import ConcurrentJobs, run
from cnn_ablation.runs.task import How, Task, task_named


class World(NamedTuple):
    """What a worker is told when it begins."""

    task: str
    how: Packing
    visible: str | None
    """The GPUs that it may see, as `CUDA_VISIBLE_DEVICES` names them; None for all."""
    asked: machine.Allocation | None
    """What its parent sees this machine as."""
    first: Assignment | None
    """One of the jobs that its threads train side by side; None where it trains one after the other."""


def work(connections: Sequence[Connection], world: World) -> None:
    """A worker's life: trains what it is given, until its connections are closed or its parent dies."""
    _see(world.visible)
    with machine.seen_as(world.asked) if world.asked else nullcontext():
        _live(connections, world)


def _see(visible: str | None) -> None:
    """CUDA reads the variable when it is first used, which the server that workers are forked from does not.

    That server may have been started when another job of this process saw other GPUs.
    """
    os.environ.pop(VISIBLE_GPUS, None)
    if visible is not None:
        os.environ[VISIBLE_GPUS] = visible


def _live(connections: Sequence[Connection], world: World) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.raiseExceptions = False  # a log that a full disk cannot take is no reason for a traceback
    task, how = task_named(world.task), world.how
    task.limit_threads(how.threads)
    try:
        task.take_over(sharing.receive(connections[0]))
    except (EOFError, OSError):  # the parent was interrupted meanwhile
        return
    send = lanes.send if world.first else connections[0].send
    progress.send_to(send)

    @cache
    def concurrent_jobs(decided: How) -> int:
        if not how.by_memory:
            return how.processes
        fit = min(how.processes, 1 + task.room_for_more(decided))
        send(("fit", fit))
        return fit

    serving = partial(serve, task=task, how=how, concurrent_jobs=concurrent_jobs)
    if world.first is None:
        serving(connections[0])
        return
    logging.getLogger().setLevel(logging.INFO)  # as each job sets it, and puts back what was there before
    with task.computing_as(task.resolve(as_seen(world.first, how).config, threads=how.threads)):  # likewise
        lanes.serve(connections, serving)


def serve(connection: Connection, task: Task, how: Packing, concurrent_jobs: ConcurrentJobs) -> None:
    """Trains what it is given until the connection is closed, or the GPU does nothing more for this process.

    In a lane an error sends its job to a process of its own, which asks the GPU.
    """
    is_asked = len(how.devices) > 1 and not lanes.in_one()  # first, where others can take its place
    while True:
        try:
            assignment = as_seen(connection.recv(), how)
        except (EOFError, OSError):
            return
        if is_asked and (trouble := task.trouble(assignment.config)):
            connection.send(("not begun", trouble))
            return
        is_asked = False
        try:
            raised = _carry_out(assignment, how, concurrent_jobs)
        except Exception as error:
            connection.send(("apart", one_line(error)))
            continue
        trouble = "" if lanes.in_one() else task.trouble(assignment.config)
        connection.send(("done", raised, trouble))
        if trouble:
            return


def as_seen(assignment: Assignment, how: Packing) -> Assignment:
    """A job as a process has it that sees one GPU: that is the first, and `auto`, for which the study took it."""
    config = assignment.config
    device = "cuda" if config.device == "auto" else kind_of(config.device)
    return replace(assignment, config=replace(config, device=device)) if how.devices else assignment


def _carry_out(assignment: Assignment, how: Packing, concurrent_jobs: ConcurrentJobs) -> list[str]:
    """Returns what was raised instead of leaving a record; in a lane, raises it."""
    config, folder, study = assignment.config, assignment.folder, assignment.study
    try:
        with logging_to(folder / LOG_FILE):
            run(config, folder, study=study, concurrent_jobs=concurrent_jobs, threads=how.threads)
    except (Exception, KeyboardInterrupt) as error:  # the parent reports it; Ctrl-C is not heard here
        if lanes.in_one():
            raise
        return [f"{type(error).__name__}: {error}"]
    return []


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        wait([parent.sentinel])
        os._exit(1)
