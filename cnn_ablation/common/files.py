"""Files written whole or not at all, in place of others or only where there is none."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cnn_ablation.common.errors import RecordError

VISIBLE_SECONDS = 60.0
"""How long what another host has made may stay unseen: NFS keeps that a name was not found for as long."""
_PAUSE_SECONDS = 0.2
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: to a temporary name, to the disk, then renamed.

    Raises:
        RecordError: the file cannot be written.
    """
    _write(path, content, os.replace)


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


def _write(path: Path, content: bytes, put: Callable[[str, Path], None]) -> None:
    temporary = None
    try:
        make_folder(path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        put(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if temporary and isinstance(error, FileExistsError):
            raise
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error


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
