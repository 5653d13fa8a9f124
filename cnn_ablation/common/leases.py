"""Leases: what one process at a time may do, told by files alone, on one machine or on many that share a folder.

No lock of the operating system is used: some shared file systems refuse them, and on some two hosts get the same one.
Three things are relied on, which NFS has promised since version 3: a file is created exclusively once (O_EXCL), what is
opened anew shows what was closed elsewhere before, and what was found is there. Not relied on: that what is not found
is not there, lists of folders, times of files, clocks of other hosts.

A lease NAME is a chain of files `NAME.1`, `NAME.2`, ... without gaps. Who creates the next one has the lease; the file
says who that is. Nobody writes into, renames or removes the file of another, so that a process that was stopped and
comes back cannot do harm; it sees a later file and knows that it has lost the lease. What such a process writes
afterwards must not replace anything: see `files.write_if_none`.

The file of a holder changes every few seconds. On the same machine the holder is judged by its process: gone, and the
lease is free at once; there, and it is held, however long the process is stopped. From another machine it is judged by
its file: held until somebody who waits has watched it for 45 s without a change, by the waiter's own clock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cnn_ablation.common import processes
from cnn_ablation.common.files import make_folder

BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 45.0
_MAX_GAP_SECONDS = 3.0
"""Of a waiter's watching: what is longer (a waiter that was stopped, a server that did not answer) counts as this."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_LENGTH = 1024
"""Bytes of a file; the same for all states, so that a full disk does not stop a holder from letting go."""
_NEW, _OPEN = os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_RDWR
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class Owner:
    """Who has a lease."""

    host: str
    place: str
    process: int
    began: str
    """When its process started, as `processes.started` says."""
    job: str
    since: float
    """Seconds since 1970, by its own clock; for messages alone."""
    nonce: str

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return ", ".join([f"process {self.process} on {self.host}", *([self.job] if self.job else []), f"since {when}"])


def _this_process() -> Owner:
    process, host = os.getpid(), processes.host()
    who = (_short(host), _place(host), process, _began(process), _short(processes.job()))
    return Owner(*who, since=round(time.time(), 1), nonce=uuid.uuid4().hex)


def _short(name: str) -> str:
    """What leaves room in a file, however a system names things."""
    return name.encode("ascii", "replace").decode()[:100]


@cache
def _place(_host: str) -> str:
    return processes.place()


@cache
def _began(process: int) -> str:
    return processes.started(process)


OnWait = Callable[[Owner | None], None]


class HeldError(Exception):
    """Somebody else has the lease."""

    def __init__(self, owner: Owner | None):
        super().__init__(str(owner or "a process that cannot be seen yet"))
        self.owner = owner


@dataclass(frozen=True)
class _Found:
    """The newest file of a chain, as it is seen here."""

    generation: int
    owner: Owner | None
    """None where the file is empty: just created, or its creator died."""
    beat: int = 0
    is_released: bool = False
    left: bool = False


@dataclass
class Lease:
    """A lease of this process."""

    path: Path
    generation: int
    owner: Owner
    before: _Found | None
    """The last holder."""
    _beat: int = 0
    _is_released: bool = False
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    @property
    def was_left(self) -> bool:
        """Whether the last holder let go of it on another host, and said that it left what it was to make."""
        before = self.before
        return bool(before and before.left and before.owner and before.owner.place != self.owner.place)

    def is_ours(self) -> bool:
        """Whether this process has it still, and not somebody who took this process for dead."""
        if self._is_released or os.getpid() != self.owner.process:
            return False
        found = _read(self.path, self.generation)
        is_same = found is not None and found.owner is not None and found.owner.nonce == self.owner.nonce
        return is_same and not _file(self.path, self.generation + 1).exists()

    def release(self, *, left: bool = False) -> None:
        """Lets go of it; without effect in a process that was forked from the holder.

        Args:
            left: what it was held for is there now, whether it can be seen or not.
        """
        if os.getpid() != self.owner.process:
            return
        with self._mutex:
            if not self._is_released:
                self._is_released = True
                with contextlib.suppress(OSError):  # without it the lease ends with the process, or expires
                    self._write(left=left)
        _HOLDER.drop(self)

    def beat(self) -> None:
        """Shows other hosts that its process lives."""
        with self._mutex:
            if not self._is_released:
                self._beat += 1
                with contextlib.suppress(OSError):  # the server does not answer; the next one may come through
                    self._write()

    def _write(self, *, left: bool = False) -> None:
        """Into its own file, if that is there still: opened and closed, which is what shows it to other hosts."""
        file = os.open(_file(self.path, self.generation), _OPEN | _BINARY)
        try:
            found = _parsed(self.generation, os.read(file, _LENGTH))
            if found.owner and found.owner.nonce == self.owner.nonce:
                os.lseek(file, 0, os.SEEK_SET)
                os.write(file, _content(self.owner, self._beat, is_released=self._is_released, left=left))
        finally:
            os.close(file)


def _file(path: Path, generation: int) -> Path:
    return path.with_name(f"{path.name}.{generation}")


def _content(owner: Owner, beat: int = 0, *, is_released: bool = False, left: bool = False) -> bytes:
    text = json.dumps({**asdict(owner), "beat": beat, "is_released": is_released, "left": left})
    return text.encode().ljust(_LENGTH - 1) + b"\n"


def _parsed(generation: int, content: bytes) -> _Found:
    try:
        values: dict[str, Any] = json.loads(content)
        state = (int(values.pop("beat")), bool(values.pop("is_released")), bool(values.pop("left")))
        return _Found(generation, Owner(**values), *state)
    except (ValueError, TypeError, KeyError, AttributeError):  # empty, or read while it was written
        return _Found(generation, None)


def _read(path: Path, generation: int) -> _Found | None:
    """A file opened anew; None if there is none, as far as can be seen."""
    try:
        return _parsed(generation, _file(path, generation).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # removed on another host this moment
            return None
        raise


def _newest(path: Path, known: int) -> int:
    """The last file of a chain that can be seen from here, behind one that is known; steps double, then halve."""
    step = 1
    while _file(path, known + step).exists():
        known, step = known + step, 2 * step
    while step > 1:
        step //= 2
        if _file(path, known + step).exists():
            known += step
    return known


class _Holder:
    """The leases of this process, and the thread that shows other hosts that it lives."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        with self._lock:
            self._leases[lease.owner.nonce] = lease
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)
                self._thread.start()

    def drop(self, lease: Lease) -> None:
        with self._lock:
            self._leases.pop(lease.owner.nonce, None)

    def has(self, nonce: str) -> bool:
        with self._lock:
            return nonce in self._leases

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            with self._lock:
                leases = list(self._leases.values())
            for lease in leases:
                lease.beat()


_HOLDER = _Holder()


def _forget() -> None:
    """In a forked process: the leases are its parent's, and so is the thread."""
    global _HOLDER  # noqa: PLW0603  a process has one
    _HOLDER = _Holder()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _lives(found: _Found) -> bool | None:
    """Whether a lease is held, as far as this place knows; None if only watching its file can tell."""
    if found.is_released:
        return False
    owner = found.owner
    if owner is None or owner.place != processes.place():
        return None
    if owner.process == os.getpid():
        return _HOLDER.has(owner.nonce)
    return processes.is_alive(owner.process, owner.began)


class _Wait:
    """A waiter, and how long it has seen no change of a lease, by its own clock."""

    def __init__(self, path: Path, patience: float | None, watches: bool, on_wait: OnWait | None):
        self.path, self.patience, self.watches, self.on_wait = path, patience, watches, on_wait
        self._seen: _Found | None = None
        self._has_changed = False
        self._unchanged = self._known_to_live = 0.0
        self._looked = time.monotonic()
        self._pause = _FIRST_PAUSE

    def until_free(self, before: _Found | None) -> _Found | None:
        """The file that can be followed, once there is one; where none can be seen, after a while, what was known.

        Args:
            before: behind this there is a file already; None: there is a first file.

        Raises:
            HeldError: patience is at its end.
        """
        known = before.generation if before else 0
        while True:
            newest = _newest(self.path, known)
            found = _read(self.path, newest) if newest > known else None
            lives = self._judged(found)
            if found and lives is False:
                return found
            self._go_on_waiting(found, lives)
            if found is None:  # it cannot be seen yet, or the chain was removed
                return before if before and _is_there(self.path, before) else None

    def _judged(self, found: _Found | None) -> bool | None:
        """Looks at a lease: held, free, or not known yet."""
        now = time.monotonic()
        if found != self._seen:
            self._has_changed |= self._seen is not None and found is not None
            self._seen, self._unchanged = found, 0.0
        else:
            self._unchanged += min(now - self._looked, _MAX_GAP_SECONDS)
        self._looked = now
        lives = _lives(found) if found else None
        if found is None or lives is not None:
            return lives
        if self._unchanged >= EXPIRY_SECONDS:
            return False
        return True if self._has_changed else None

    def _go_on_waiting(self, found: _Found | None, lives: bool | None) -> None:
        owner = found.owner if found else None
        if not self.watches or (lives and self.patience is not None and self._known_to_live >= self.patience):
            raise HeldError(owner)
        if self.on_wait:
            self.on_wait(owner)
            self.on_wait = None
        time.sleep(self._pause)
        self._known_to_live += self._pause if lives else 0.0
        self._pause = min(1.5 * self._pause, _LONGEST_PAUSE)


def acquire(path: Path, *, patience: float | None = None, watches: bool = True, on_wait: OnWait | None = None) -> Lease:
    """Waits for a lease and takes it.

    Args:
        path: names it; its files lie beside this, in a folder that is made.
        patience: seconds to wait for a holder that is known to live. One of another host is watched until it shows that
            it lives, or has expired.
        watches: False gives up at once where somebody may have it.
        on_wait: called once, with the holder as far as it is known, where it has to be waited for.

    Raises:
        HeldError: it was waited for in vain.
        OSError: its file cannot be written.
    """
    wait = _Wait(path, patience, watches, on_wait)
    before: _Found | None = None
    while (lease := _taken(path, before)) is None:
        before = wait.until_free(before)
    return lease


def wait_until_free(path: Path) -> None:
    """Waits until a lease that somebody has is free, and does not take it; nothing is written."""
    wait = _Wait(path, patience=None, watches=True, on_wait=None)
    while wait.until_free(None) is None:  # it cannot be seen yet
        pass


def _taken(path: Path, before: _Found | None) -> Lease | None:
    """The lease, by the file that follows `before`; None where somebody else was first, or the chain was removed."""
    lease = Lease(path, before.generation + 1 if before else 1, _this_process(), before)
    _HOLDER.add(lease)  # before its file is there: another thread would take its holder for gone
    try:
        is_taken = _create(lease)
    except BaseException:
        _HOLDER.drop(lease)
        raise
    if not is_taken:
        _HOLDER.drop(lease)
        return None
    return lease


def _create(lease: Lease) -> bool:
    path = _file(lease.path, lease.generation)
    try:
        file = _opened_new(path, makes_folder=lease.before is None)
    except FileExistsError:
        return False
    except FileNotFoundError:
        if lease.before is None:
            raise
        return False
    try:
        os.write(file, _content(lease.owner))
    finally:
        os.close(file)
    if lease.before is None or _is_there(lease.path, lease.before):
        return True
    mine = _read(lease.path, lease.generation)  # the chain was removed, and this file belongs to no other
    if mine and mine.owner == lease.owner:
        path.unlink(missing_ok=True)
    return False


def _opened_new(path: Path, *, makes_folder: bool) -> int:
    try:
        return os.open(path, _NEW | _BINARY, 0o644)
    except FileNotFoundError:
        if not makes_folder:
            raise
    make_folder(path.parent)
    return os.open(path, _NEW | _BINARY, 0o644)


def _is_there(path: Path, found: _Found) -> bool:
    """Whether the file that was found is there still, and not one of a chain that was begun anew."""
    again = _read(path, found.generation)
    return again is not None and (again.owner is None or found.owner is None or again.owner == found.owner)
