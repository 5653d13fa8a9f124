"""Files written whole or not at all, in place of others or only where there is none."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cnn_ablation.common.errors import RecordError

VISIBLE_SECONDS = 60.0
"""How long what another host has made may stay unseen: NFS keeps that a name was not found for as long."""
_PAUSE_SECONDS = 0.2
_WRITERS = 8  # a disk makes so many files safe in the time of a few
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


def write_atomically(path: Path, content: bytes, *, to_disk: bool = True) -> None:
    """Writes a file whole or not at all: to a temporary name, to the disk, then renamed.

    Args:
        path: of the file.
        content: of the file.
        to_disk: False does not wait for the disk: the file may be torn where the machine stops, not where a process
            does.

    Raises:
        RecordError: the file cannot be written.
    """
    _write(path, content, os.replace, to_disk=to_disk)


def write_if_none(path: Path, content: bytes) -> bool:
    """Writes a file whole unless there is one, also one of another host that cannot be seen yet.

    Returns:
        Whether it was written.

    Raises:
        RecordError: the file cannot be written.
    """
    try:
        _write(path, content, _link)
    except FileExistsError:
        return False
    return True


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Writes files all or none, so that what belongs together is of one time.

    All go to temporary names first, which is where a full disk ends it; renaming takes no room.

    Raises:
        RecordError: one of them cannot be written; the message names those that are there and still as they were.
    """
    coming, left = list[Future[str]](), list(contents)
    try:
        with ThreadPoolExecutor(_WRITERS) as pool:
            coming += [pool.submit(_staged, path, content) for path, content in contents.items()]
        for temporary in [each.result() for each in coming]:
            _replace(temporary, left[0])
            del left[0]
    except RecordError as error:
        older = ", ".join(path.name for path in left if path.exists())
        raise RecordError(f"{error}\n  as they were before: {older}" if older else str(error)) from error
    finally:
        for each in coming:
            if not each.exception():
                Path(each.result()).unlink(missing_ok=True)  # one that was renamed is not there any more


def _replace(temporary: str, path: Path) -> None:
    try:
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _write(path: Path, content: bytes, put: Callable[[str, Path], None], *, to_disk: bool = True) -> None:
    temporary = _staged(path, content, to_disk=to_disk)
    try:
        put(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise
        raise _cannot_write(path, error) from error


def _staged(path: Path, content: bytes, *, to_disk: bool = True) -> str:
    """Writes a file under a temporary name beside its own, to the disk; of one that cannot be written nothing stays.

    Raises:
        RecordError: it cannot be written.
    """
    temporary = None
    try:
        make_folder(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with open(handle, "wb") as file:
            file.write(content)
            if to_disk:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise _cannot_write(path, error) from error
    return temporary


def _cannot_write(path: Path, error: OSError) -> RecordError:
    return RecordError(f"cannot write {path}: {error.strerror or error}")


def _link(temporary: str, path: Path) -> None:
    """Gives a file a second name, if nobody has it, and takes the first away.

    Raises:
        FileExistsError: somebody has it.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        if os.stat(temporary).st_nlink < 2:  # else the server's answer was lost, and this is that to the second request
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _copy_exclusively(temporary, path)
    os.unlink(temporary)


def _copy_exclusively(temporary: str, path: Path) -> None:
    """For file systems without links: a writer that is killed meanwhile leaves a damaged file."""
    with open(path, "xb") as file:
        try:
            file.write(Path(temporary).read_bytes())
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise


def make_folder(folder: Path) -> None:
    """Makes a folder with those above it; one that another host has just made, and that cannot be seen yet, is awaited.

    Raises:
        OSError: it cannot be made.
    """
    waited_until = time.monotonic() + VISIBLE_SECONDS
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return
        except FileExistsError:
            if folder.is_dir():  # it came into sight this moment
                return
            if os.path.lexists(folder) or time.monotonic() > waited_until:
                raise
        time.sleep(_PAUSE_SECONDS)
