"""How many other runs were in training on this machine while a run was, in whatever study that shares its store.

`training/HOST/` in the store holds an empty file for each training: while it lasts, which is judged by its process, and
afterwards for as long as a training that it overlapped lasts. Names of the files say all there is to know, so that a
look at them is a look at a folder. A container has a folder of its own: another's processes cannot be seen from it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cnn_ablation.common import processes
from cnn_ablation.common.files import make_folder
from cnn_ablation.runs.records import NAN

TRAINING = "training"
_NAME = re.compile(r"(\d+)-(\d*)-(\d+)-(\d+)-(\d*)")
_MICRO = 10**6


@dataclass
class Training:
    """One training: of a run, or of several seeds in one go. Times are seconds since 1970."""

    started: float
    ended: float = NAN
    neighbours: float = NAN
    """Mean number of other runs in training meanwhile; NaN where the store could not be written to."""


class Entry(NamedTuple):
    """What the name of a file says of a training: `STARTED-ENDED-RUNS-PROCESS-BEGAN`.

    Times are microseconds since 1970.
    """

    started: int
    ended: int | None
    """None while it lasts."""
    num_runs: int
    process: int
    began: str = ""
    """When the process started, as `processes.started` says."""

    def __str__(self) -> str:
        return f"{self.started}-{self.ended or ''}-{self.num_runs}-{self.process}-{self.began}"


def mean_neighbours(own: Entry, others: Iterable[Entry]) -> float:
    """Runs in training beside one of a training's own, in the mean over its time.

    Args:
        own: has ended.
        others: those that last count up to its end.
    """
    ended = own.ended or own.started
    shared = sum(
        other.num_runs * max(0, min(ended, other.ended or ended) - max(own.started, other.started)) for other in others
    )
    return own.num_runs - 1 + shared / max(ended - own.started, 1)


@contextmanager
def in_training(store: Path, *, num_runs: int = 1) -> Iterator[Training]:
    """Counts the neighbours of what is trained within it; nothing that goes wrong here costs a run.

    Args:
        store: of the study, which other studies may share.
        num_runs: trained in one go.
    """
    process = os.getpid()
    own = Entry(_now(), None, num_runs, process, processes.started(process))
    training = Training(own.started / _MICRO)
    folder = store / TRAINING / processes.folder_name()
    is_counted = False
    with suppress(OSError):  # a full disk, a store without permission
        make_folder(folder)
        (folder / str(own)).touch()
        is_counted = True
    try:
        yield training
    finally:
        ended = own._replace(ended=_now())
        training.ended = (ended.ended or 0) / _MICRO
        if is_counted:
            with suppress(OSError):
                training.neighbours = mean_neighbours(ended, _others(folder, own))
                _leave(folder, own, ended)


def _now() -> int:
    return time.time_ns() // 1000


def _others(folder: Path, own: Entry) -> list[Entry]:
    """Trainings that last or have ended, without those whose process died and those of another kind of file."""
    found = [match.groups() for name in os.listdir(folder) if (match := _NAME.fullmatch(name))]
    entries = [Entry(int(start), int(end) if end else None, int(runs), int(process), began)
               for start, end, runs, process, began in found]  # fmt: skip
    return [entry for entry in entries if entry != own and (entry.ended or _lasts(folder, entry))]


def _lasts(folder: Path, entry: Entry) -> bool:
    """Whether the process of a training that has not ended is still there; the file of a dead one is removed."""
    if processes.is_alive(entry.process, entry.began) is not False:
        return True
    (folder / str(entry)).unlink(missing_ok=True)
    return False


def _leave(folder: Path, own: Entry, ended: Entry) -> None:
    """Puts a training that has ended in the place of the one that lasts, and drops what nobody asks for any more."""
    (folder / str(ended)).touch()
    (folder / str(own)).unlink(missing_ok=True)
    others = _others(folder, ended)
    oldest = min((entry.started for entry in others if entry.ended is None), default=_now())
    for entry in (ended, *others):
        if entry.ended and entry.ended <= oldest:
            (folder / str(entry)).unlink(missing_ok=True)
