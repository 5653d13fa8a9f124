"""The folder of a study: a new one, or where its jobs are already, and kept for one process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cnn_ablation.common import leases, progress
from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.leases import HeldError, Owner
from cnn_ablation.launch import submissions
from cnn_ablation.launch.batches import study_lease
from cnn_ablation.launch.engines import Engine
from cnn_ablation.launch.planning import Planning
from cnn_ablation.study.plans import ANOTHER_FOLDER


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps a study's folder for this process, as long as that lives.

    What a process of another host has left is taken over once nothing has moved there for `leases.EXPIRY_SECONDS`.

    Raises:
        RecordError: another process is writing a study into the folder, or it cannot be created.
    """
    try:
        lease = study_lease(folder, patience=0, on_wait=partial(_say_who_writes, folder))
    except HeldError as error:
        raise RecordError(
            f"another study is being written to {folder}\n  by: {error}\n  remedy: wait for it, or {ANOTHER_FOLDER}"
        ) from error
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        yield
    finally:
        lease.release()


def _cannot_write(folder: Path, error: OSError) -> RecordError:
    return RecordError(f"cannot write to {folder}: {error.strerror or error}\n  remedy: {ANOTHER_FOLDER}")


def _say_who_writes(folder: Path, owner: Owner | None) -> None:
    """Where its process cannot be asked: on another host."""
    who, seconds = owner or "a process that cannot be seen yet", leases.EXPIRY_SECONDS
    progress.say(f"{folder} was in use by {who}; looking up to {seconds:.0f} s whether it still is")


def new_folder(wanted: Path) -> Path:
    """A folder that was not there before: `wanted`, or `wanted-2`, ... where studies start in the same second.

    Raises:
        RecordError: it cannot be created.
    """
    for folder in itertools.chain([wanted], (wanted.with_name(f"{wanted.name}-{n}") for n in itertools.count(2))):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _cannot_write(folder, error) from error
        return folder
    raise AssertionError("the names never end")


def folder_for(wanted: Path, planning: Planning, engine: Engine | None = None) -> Path:
    """The folder of a study for which none was chosen: where its jobs are at an engine already, or a new one.

    Raises:
        RecordError: it cannot be created.
    """
    if engine:
        key = submissions.key_of(planning.plan(), engine)
        found = submissions.unfinished(Path(planning.baseline.store).absolute(), key)
        if found and not _is_carried_out(found):
            progress.say(f"going on with the same study in {found}")
            return found
    return new_folder(wanted)


def _is_carried_out(folder: Path) -> bool:
    """Whether another command is at work on a study, as far as can be said at once."""
    try:
        study_lease(folder, watches=False).release()
    except (HeldError, OSError):
        return True
    return False
