"""The store of finished runs: one folder per fingerprint, with a checkpoint and a lock while a run is in training.

`python -m cnn_ablation.store` lists and prunes it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cnn_ablation.common import progress
from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.files import write_atomically
from cnn_ablation.runs.records import Run, read_run, write_run

RUN_FILE, CHECKPOINT_FILE, WEIGHTS_FILE = "run.json", "checkpoint.pt", "weights.pt"
LOCKS = "locks"


class BusyError(Exception):
    """Another process is training this run."""


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
            (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder / LOCKS):
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
            progress.warn(f"{error}; training this run again")
            return None

    def keep(self, fingerprint: str, run: Run, weights: bytes | None = None) -> None:
        """Stores a finished run, and its weights if there are any; its checkpoint is no longer needed.

        Raises:
            RecordError: it cannot be written.
        """
        if weights is not None:
            write_atomically(self.weights_path(fingerprint), weights)
        write_run(self.run_path(fingerprint), run)
        self.checkpoint_path(fingerprint).unlink(missing_ok=True)

    @contextmanager
    def locked(self, fingerprint: str, *, wait: bool = True) -> Iterator[None]:
        """Keeps a run for this process; while another process trains it, waits and says so.

        The system lets go of the lock when its process ends, however it ends. Lock files stay, in a folder of their
        own: deleting one while another process waits for it would let both in.

        Raises:
            BusyError: another process trains it, and `wait` is false.
            RecordError: the store cannot be written to.
        """
        lock = FileLock(self.lock_path(fingerprint))
        try:
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not wait:
                    raise BusyError(fingerprint) from None
                progress.say("another process is training this run; waiting for its result")
                lock.acquire()
        except OSError as error:
            raise RecordError(self._unwritable(error)) from error
        try:
            yield
        finally:
            lock.release()

    def lock_path(self, fingerprint: str) -> Path:
        return self.folder / LOCKS / f"{fingerprint}.lock"
