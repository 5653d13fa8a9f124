"""What is in a store, and removing some of it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cnn_ablation.common.errors import ConfigError, RecordError
from cnn_ablation.runs import provenance
from cnn_ablation.runs.neighbours import TRAINING
from cnn_ablation.runs.records import Run, read_run
from cnn_ablation.runs.store import CHECKPOINT_FILE, LOCKS, RUN_FILE, RunStore
from cnn_ablation.runs.store.looks import LOOKS
from cnn_ablation.runs.task import task_of_settings


@dataclass(frozen=True)
class Entry:
    """One run in the store."""

    fingerprint: str
    state: str
    """`finished`, `unfinished` (a checkpoint), `damaged` or `empty`."""
    run: Run | None
    current: bool
    """Made with this training code and these libraries: the only runs that can be reused."""
    num_bytes: int
    age_days: float


def entries(folder: Path) -> list[Entry]:
    """Everything in a store, the oldest first; locks, looks and notes of what is in training are not runs."""
    others = (LOCKS, LOOKS, TRAINING)
    found = [_entry(path) for path in folder.glob("*") if path.is_dir() and path.name not in others]
    return sorted(found, key=lambda entry: -entry.age_days)


def _entry(folder: Path) -> Entry:
    files = [path for path in folder.iterdir() if path.is_file()]
    stats = [path.stat() for path in files]
    run, state = None, "empty"
    if (folder / RUN_FILE).exists():
        try:
            run, state = read_run(folder / RUN_FILE), "finished"
        except RecordError:
            state = "damaged"
    elif (folder / CHECKPOINT_FILE).exists():
        state = "unfinished"
    made_with = run.provenance.get("identity", {}) if run else {}
    now = _installed(run) if run else {}
    return Entry(
        fingerprint=folder.name,
        state=state,
        run=run,
        current=all(made_with.get(key) == value for key, value in now.items()),
        num_bytes=sum(stat.st_size for stat in stats),
        age_days=(time.time() - max((stat.st_mtime for stat in stats), default=time.time())) / 86400,
    )


def _installed(run: Run) -> dict[str, Any]:
    """The identity of what is installed now, of a run's task; of a task that is not known here, none that fits."""
    try:
        task = task_of_settings(run.settings)
    except ConfigError:
        return {"code": None}
    return provenance.code_identity(task.CODE, task.LIBRARIES)


def prune(folder: Path, selected: list[Entry]) -> list[Entry]:
    """Removes runs from a store, except those that some process is training now. Looks on record stay.

    Returns:
        What was removed.

    Raises:
        RecordError: a run cannot be removed.
    """
    store, removed = RunStore(folder), []
    for entry in selected:
        lock = FileLock(store.lock_path(entry.fingerprint))
        try:
            Path(lock.lock_file).parent.mkdir(exist_ok=True)
            with lock.acquire(timeout=0):
                shutil.rmtree(folder / entry.fingerprint)
        except Timeout:
            continue
        except OSError as error:
            raise RecordError(f"cannot remove {folder / entry.fingerprint}: {error.strerror or error}") from error
        removed.append(entry)
    return removed
