"""Runs that the store has, taken by the study's own process: no worker, no data, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.log_files import LOG_FILE, logging_to
from cnn_ablation.runs.run import LOGGER, known_runs, leave, log_run

Item = TypeVar("Item")
_WRITERS = 8  # write 500 records in 0.1 s, where one after the other took 1.4 s


@dataclass(frozen=True)
class Taking(Generic[Item]):
    """What a study has to know of its jobs to take their runs from the store."""

    assignment: Callable[[Item], Assignment]
    """What a job is called with, where it is started."""
    leave_folder: Callable[[Item], None]
    """Makes its folder as whoever starts it does."""
    has_log: bool
    """Whether its process keeps one in its folder."""
    was_taken: Callable[[Item], None] | None = None
    """Called for each job whose records are there, once they are."""


def take(
    jobs: Iterable[Item], how: Taking[Item], threads: int | None, on_first_left: Callable[[], None]
) -> dict[Item, bool]:
    """Leaves the records of those jobs whose runs the store has.

    Args:
        jobs: of a study, in their order.
        how: they are started.
        threads: as `runs.run` is told.
        on_first_left: called as soon as there is one to be trained.

    Returns:
        The others in their order, each with whether it may be among the store's all the same: that can be told once
        data are loaded, or by the job itself.

    Raises:
        RecordError: a record cannot be written.
        OSError: a folder cannot be made.
    """
    left, taken = dict[Item, bool](), list[Item]()
    with writers() as write:
        for job in jobs:
            each = how.assignment(job)
            runs = known_runs(each.config, threads=threads)
            if runs:
                taken.append(job)
                how.leave_folder(job)
                write(leave, runs, each.folder, Path(each.config.store))
                with logging_to(each.folder / LOG_FILE, LOGGER) if how.has_log else nullcontext():
                    for found in runs:
                        log_run(found)
                continue
            if not left:
                on_first_left()
            left[job] = runs is None
    if how.was_taken:
        for job in taken:
            how.was_taken(job)
    return left


@contextmanager
def writers() -> Iterator[Callable[..., None]]:
    """Calls functions at once in several threads: a disk makes many files safe in the time of a few.

    Raises:
        Exception: what the first of them raised.
    """
    pool, calls = ThreadPoolExecutor(_WRITERS), list[Future[None]]()
    try:
        yield lambda function, *given: calls.append(pool.submit(function, *given))
        for call in calls:
            call.result()
    finally:
        pool.shutdown(cancel_futures=True)
