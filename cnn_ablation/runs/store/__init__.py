"""The store of finished runs: one folder per fingerprint, with a lease and a checkpoint while a run is in training.

`python -m cnn_ablation.store` lists and prunes it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cnn_ablation.common import files, leases, progress
from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.files import write_atomically
from cnn_ablation.common.leases import HeldError, Lease, Owner
from cnn_ablation.runs.records import Run, read_run, write_run

RUN_FILE, CHECKPOINT_FILE, WEIGHTS_FILE = "run.json", "checkpoint.pt", "weights.pt"
LEASE = ".lease"
_LOOK_SECONDS = 0.1


class BusyError(Exception):
    """Another process is training this run."""


@dataclass(frozen=True)
class Hold:
    """A run that this process has for itself."""

    lease: Lease
    had_record: bool
    """When it came to have it: a record that is damaged, or that it was not to reuse."""

    @property
    def may_replace(self) -> bool:
        """Whether the record may be replaced: the first that was finished counts, whoever lost the run meanwhile."""
        return self.had_record and self.lease.is_ours()


class RunStore:
    """Finished runs by fingerprint, shared by any number of processes."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run_path(self, fingerprint: str) -> Path:
        return self.folder / fingerprint / RUN_FILE

    def checkpoint_path(self, fingerprint: str) -> Path:
        return self.folder / fingerprint / CHECKPOINT_FILE

    def weights_path(self, fingerprint: str) -> Path:
        return self.folder / fingerprint / WEIGHTS_FILE

    def check(self) -> None:
        """Makes sure that runs can be kept.

        Raises:
            RecordError: the store cannot be made or written to.
        """
        try:
            files.make_folder(self.folder)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise RecordError(f"{self._unwritable(error)}\n  remedy: store=DIR names another folder") from error

    def _unwritable(self, error: OSError) -> str:
        return f"cannot write to the store {self.folder}: {error.strerror or error}"

    def find(self, fingerprint: str) -> Run | None:
        """The finished run, or None; a damaged or unreadable one is named and counts as none."""
        path = self.run_path(fingerprint)
        try:
            return read_run(path) if path.exists() else None
        except (RecordError, OSError) as error:
            progress.warn_once(f"{error}; training this run again")
            return None

    def keep(self, fingerprint: str, run: Run, weights: bytes | None = None, *, replace: bool = False) -> bool:
        """Stores a finished run, and its weights if there are any; its checkpoint is no longer needed.

        Args:
            fingerprint: of the run.
            run: one that has a result.
            weights: a file's content.
            replace: a record that is there; otherwise that stays, with its weights.

        Returns:
            Whether it was stored.

        Raises:
            RecordError: it cannot be written.
        """
        assert run.status != "failed", "a failed run is no result"
        path = self.run_path(fingerprint)
        is_kept = replace or not path.exists()
        if is_kept and weights is not None:
            write_atomically(self.weights_path(fingerprint), weights)
        is_kept = is_kept and write_run(path, run, replace=replace)
        self.checkpoint_path(fingerprint).unlink(missing_ok=True)
        return is_kept

    @contextmanager
    def locked(self, fingerprint: str, *, wait: bool = True) -> Iterator[Hold]:
        """Keeps a run for this process; while another process trains it, on whatever host, waits and says so.

        A record that another host has left is waited for until it can be seen here.

        Raises:
            BusyError: another process trains it, and `wait` is false.
            RecordError: the store cannot be written to.
        """
        try:
            lease = leases.acquire(self.lease_path(fingerprint), watches=wait, on_wait=_say_who_trains)
        except HeldError as error:
            raise BusyError(fingerprint) from error
        except OSError as error:
            raise RecordError(self._unwritable(error)) from error
        path = self.run_path(fingerprint)
        try:
            if lease.was_left:
                wait_for(path)
            yield Hold(lease, path.exists())
        finally:
            lease.release(left=path.exists())

    def lease_path(self, fingerprint: str) -> Path:
        return self.folder / fingerprint / LEASE


def _say_who_trains(owner: Owner | None) -> None:
    who = f" ({owner})" if owner else ""
    progress.say(f"another process is training this run{who}; waiting for its result")


def wait_for(path: Path) -> None:
    """Until a record that another host has left can be seen here; in vain where somebody removed it."""
    until = time.monotonic() + files.VISIBLE_SECONDS
    has_said = False
    while not path.exists() and time.monotonic() < until:
        if not has_said:
            progress.say(f"{path} was written on another host; waiting up to {files.VISIBLE_SECONDS:.0f} s to see it")
            has_said = True
        time.sleep(_LOOK_SECONDS)
