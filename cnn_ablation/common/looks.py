"""One look at the files of a data source, shared by everything that asks for them until the look ends.

A study and a run each take one look, so that a folder of 50,000 pictures is listed once and not once per arm. Outside
a look, whoever asks sees what lies there now.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from cnn_ablation.common.errors import DataError

T = TypeVar("T")

_seen: ContextVar[dict[Any, Any] | None] = ContextVar("what the present look has seen", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """Sources are looked at once within it, or within a call that it decorates; an outer look holds for inner ones."""
    if _seen.get() is not None:
        yield
        return
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def seen(key: Any, look: Callable[[], T]) -> T:
    """What `look` returned when it was first called for `key` within the present look."""
    found = _seen.get()
    if found is None:
        return look()
    if key not in found:
        found[key] = look()
    answer: T = found[key]
    return answer


def folder(key: str, value: str) -> Path:
    """A folder named by a setting, absolute; `~` is the user's home.

    Raises:
        DataError: it names the home of a user who is not known here.
    """
    try:
        return Path(os.path.abspath(Path(value).expanduser()))
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{key}={value}: {error}\n  allowed: the name of a folder") from error


def cannot_write(folder: Path) -> str | None:
    """Why no file can be written into a folder, which need not be there yet; None where one can."""
    existing = folder
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        return f"{existing} is a file"
    return None if os.access(existing, os.W_OK | os.X_OK) else f"no permission to write to {existing}"


def stamp_of(path: str) -> str:
    """Of a file: changes when it is written, replaced or renamed, even if its size and time of writing are put back."""
    try:
        status = os.stat(path)
    except OSError:  # a link to nowhere
        return f"{path}/-\n"
    return f"{path}/{status.st_size}/{status.st_mtime_ns}/{status.st_ctime_ns}/{status.st_ino}\n"


def folder_stamp(folders: Iterable[Path]) -> str:
    """Of all files that lie directly in these folders; a folder that is not there has none."""
    stamps = []
    for path in folders:
        try:
            with os.scandir(path) as entries:
                stamps += sorted(stamp_of(entry.path) for entry in entries if not entry.is_dir())
        except OSError:
            stamps.append("no folder\n")
    return "".join(stamps)
