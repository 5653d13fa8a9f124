"""A folder as another host sees it: `python slow_folder.py BACKING MOUNT SECONDS` shows BACKING at MOUNT.

Two mounts of one backing folder are two hosts with a shared file system that is slower and stricter than NFS:

- a name that was looked up in vain stays missing for SECONDS;
- a file or folder that another mount has made is missing for SECONDS, even where nobody has looked it up before;
- attributes are SECONDS old, unless the file was opened since; what is opened anew has its present content (close to
  open), and what is open keeps the content it had then;
- a list of a folder is SECONDS old, but for what this mount has done itself;
- flock and fcntl locks are refused (ENOLCK).

What is made exclusively (O_EXCL, mkdir, link) is refused at once where it exists, seen or not: the server knows.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mfusepy

_MADE = "user.made"  # of a backing file: when it was made or named, and by which mount
_STATS = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")


class SlowFolder(mfusepy.Operations):
    """Operations on the backing folder, with the memory of one host."""

    use_ns = True

    def __init__(self, backing: Path, seconds: float):
        self.backing, self.seconds = backing, seconds
        self.name = str(os.getpid())
        self.missing: dict[str, float] = {}
        self.attributes: dict[str, tuple[float, dict[str, int]]] = {}
        self.lists: dict[str, tuple[float, set[str]]] = {}
        self.contents: dict[int, bytes] = {}

    def _real(self, path: str) -> str:
        return f"{self.backing}{path}"

    def _is_fresh(self, since: float) -> bool:
        return time.monotonic() - since < self.seconds

    def _is_hidden(self, path: str) -> bool:
        """Whether another mount has made it just now."""
        try:
            made, maker = os.getxattr(self._real(path), _MADE).decode().split()
        except (OSError, ValueError):
            return False
        return maker != self.name and time.time() - float(made) < self.seconds

    def _made(self, path: str) -> None:
        """By this mount, which sees it at once."""
        os.setxattr(self._real(path), _MADE, f"{time.time()} {self.name}".encode())
        self._known(path)

    def _known(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        self.missing.pop(path, None)
        self.attributes.pop(path, None)
        if folder in self.lists:
            self.lists[folder][1].add(name)

    def _gone(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        self.attributes.pop(path, None)
        if folder in self.lists:
            self.lists[folder][1].discard(name)

    def _refuse_unseen(self, path: str) -> None:
        if self._is_fresh(self.missing.get(path, -self.seconds)):
            raise mfusepy.FuseOSError(errno.ENOENT)
        if not os.path.lexists(self._real(path)) or self._is_hidden(path):
            self.missing[path] = time.monotonic()
            self._gone(path)
            raise mfusepy.FuseOSError(errno.ENOENT)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        if fh is not None:
            return _plain(os.fstat(fh))
        since, found = self.attributes.get(path, (-self.seconds, {}))
        if self._is_fresh(since):
            return found
        self._refuse_unseen(path)
        found = _plain(os.lstat(self._real(path)))
        self.attributes[path] = (time.monotonic(), found)
        return found

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        folder = path.rstrip("/")
        since, names = self.lists.get(folder, (-self.seconds, set()))
        if not self._is_fresh(since):
            names = {name for name in os.listdir(self._real(path)) if not self._is_hidden(f"{folder}/{name}")}
            self.lists[folder] = (time.monotonic(), names)
        for number, name in enumerate([".", "..", *sorted(names)], start=1):
            yield name, {"st_ino": number}, 0  # a name without a number is passed over

    def open(self, path: str, flags: int) -> int:
        self._refuse_unseen(path)
        file = os.open(self._real(path), flags & ~os.O_NOFOLLOW)
        self.attributes.pop(path, None)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            size = os.fstat(file).st_size
            self.contents[file] = os.pread(file, size, 0) if size < 2**20 else b""
        return file

    def create(self, path: str, mode: int, flags: int) -> int:
        file = os.open(self._real(path), flags, mode)
        self._made(path)
        return file

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        content = self.contents.get(fh)
        return content[offset : offset + size] if content else os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self.attributes.pop(path, None)
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._real(path) if fh is None else fh, length)
        self.attributes.pop(path, None)

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        os.fsync(fh)

    def release(self, path: str, fh: int) -> None:
        self.contents.pop(fh, None)
        os.close(fh)

    def link(self, target: str, source: str) -> None:
        os.link(self._real(source), self._real(target))
        self.attributes.pop(source, None)
        self._made(target)

    def symlink(self, target: str, source: str) -> None:
        os.symlink(source, self._real(target))
        self._known(target)

    def readlink(self, path: str) -> str:
        return os.readlink(self._real(path))

    def rename(self, old: str, new: str) -> None:
        replaces = os.path.lexists(self._real(new))
        os.rename(self._real(old), self._real(new))
        for known in [each for each in self.attributes if each.startswith((f"{old}/", f"{new}/"))]:
            del self.attributes[known]
        self._gone(old)
        self._made(new)
        if replaces:  # the name was there before
            os.removexattr(self._real(new), _MADE)

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._real(path), mode)
        self._made(path)

    def unlink(self, path: str) -> None:
        os.unlink(self._real(path))
        self._gone(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._real(path))
        self._gone(path)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._real(path), mode)
        self.attributes.pop(path, None)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self._real(path), uid, gid)
        self.attributes.pop(path, None)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(self._real(path), ns=times or (time.time_ns(),) * 2)
        self.attributes.pop(path, None)

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._real(path))
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}

    def lock(self, path: str, fh: int, cmd: int, lock: Any) -> int:
        raise mfusepy.FuseOSError(errno.ENOLCK)

    def flock(self, path: str, fh: int, op: int) -> int:
        raise mfusepy.FuseOSError(errno.ENOLCK)


def _plain(found: os.stat_result) -> dict[str, int]:
    times = {name: getattr(found, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")}
    return {**{name: getattr(found, name) for name in _STATS}, **times}


def main(backing: str, mount: str, seconds: str) -> None:
    """Serves one mount until it is unmounted."""
    serve: Callable[..., Any] = mfusepy.FUSE
    serve(
        SlowFolder(Path(backing), float(seconds)), mount,
        foreground=True, nothreads=True, hard_remove=True, use_ino=True, direct_io=True,
        entry_timeout=0, attr_timeout=0, negative_timeout=0, ac_attr_timeout=0,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
