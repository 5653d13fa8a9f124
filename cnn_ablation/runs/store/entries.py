"""What is in a store, and removing some of it."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_ablation.common import leases
from cnn_ablation.common.errors import ConfigError, RecordError
from cnn_ablation.common.leases import HeldError
from cnn_ablation.runs import provenance
from cnn_ablation.runs.neighbours import TRAINING
from cnn_ablation.runs.records import Run, read_run
from cnn_ablation.runs.store import CHECKPOINT_FILE, LEASE, RUN_FILE, RunStore
from cnn_ablation.runs.store.looks import LOOKS
from cnn_ablation.runs.store.memory import FOLDERS
from cnn_ablation.runs.task import task_of_settings

SUBMITTED = "submitted"
"""Which study was begun in which folder, while its jobs are elsewhere (`launch.submissions`)."""
_OLD_LOCKS = "locks"
"""What earlier versions kept their locks in."""
_REMOVED = ".removed-"


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
    """Everything in a store, the oldest first; looks and notes of what is in training or submitted are no runs."""
    found = [_entry(path) for path in _run_folders(folder) if not _is_only_leased(path)]
    return sorted(found, key=lambda entry: -entry.age_days)


def _run_folders(folder: Path) -> list[Path]:
    others = (_OLD_LOCKS, LOOKS, SUBMITTED, TRAINING, *FOLDERS)
    return [path for path in folder.glob("*") if path.is_dir() and path.name not in others and path.name[0] != "."]


def _is_only_leased(folder: Path) -> bool:
    """Whether nothing is there of a run: it has just begun to train, or failed."""
    names = os.listdir(folder)
    return bool(names) and all(_is_lease(name) for name in names)


def _is_lease(name: str) -> bool:
    return name.startswith(f"{LEASE}.")


def _entry(folder: Path) -> Entry:
    files = [path for path in folder.iterdir() if path.is_file() and not _is_lease(path.name)]
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

    Removes besides what failed runs, earlier versions and an interrupted removal have left, and what can be worked out
    again (`memory`).

    Returns:
        What was removed.

    Raises:
        RecordError: a run cannot be removed.
    """
    removed = [entry for entry in selected if _remove(folder, entry.fingerprint)]
    for path in _run_folders(folder):
        if _is_only_leased(path):
            _remove(folder, path.name)
    for path in (*(folder / name for name in (_OLD_LOCKS, *FOLDERS)), *folder.glob(f"{_REMOVED}*")):
        shutil.rmtree(path, ignore_errors=True)
    return removed


def _remove(store: Path, fingerprint: str) -> bool:
    """Removes a run with its lease, all at once, unless somebody has it or it is only now coming into sight.

    Its folder gets another name first: files that go one by one would leave a lease that two can have.
    """
    folder = store / fingerprint
    try:
        lease = leases.acquire(RunStore(store).lease_path(fingerprint), watches=False)
    except HeldError:
        return False
    except OSError as error:
        raise _not_removed(folder, error) from error
    is_unseen = lease.was_left and not (folder / RUN_FILE).exists()
    try:
        if is_unseen or not lease.is_ours():
            return False
        gone = folder.rename(store / f"{_REMOVED}{lease.owner.nonce}")
        shutil.rmtree(gone)
        return True
    except OSError as error:
        raise _not_removed(folder, error) from error
    finally:
        lease.release(left=is_unseen)


def _not_removed(folder: Path, error: OSError) -> RecordError:
    return RecordError(f"cannot remove {folder}: {error.strerror or error}")
