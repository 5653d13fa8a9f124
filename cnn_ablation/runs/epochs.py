"""Learning curves of runs in training, for who follows a study: a line per epoch, in a file beside the record to come.

Nothing is written unless somebody follows. Whoever trains writes: this process, one beside it, a job on another host.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

Tell = Callable[[Mapping[str, float]], None]
"""Takes a point of the learning curves: `epoch`, and figures by name."""


def followed_file(study: Path) -> Path:
    """Present while somebody follows the epochs of a study's runs."""
    return study / ".followed"


def epochs_path(folder: Path, seed: int) -> Path:
    """The epochs so far of one seed in a job's folder; gone once its record has been told of."""
    return folder / f"epochs-seed{seed}.jsonl"


@dataclass(frozen=True)
class EpochLog:
    """Takes the points of one run: in a process of its own too, where a function hands it on."""

    path: Path

    def __call__(self, point: Mapping[str, float]) -> None:
        with suppress(OSError), self.path.open("a") as file:
            file.write(json.dumps(dict(point)) + "\n")


def log_of(study: Path, folder: Path, seed: int, fingerprint: str) -> EpochLog | None:
    """Begins the file of a run in training; None where nobody follows.

    A disk that is full costs no run: what is missing here is in the record.
    """
    if not followed_file(study).exists():
        return None
    path = epochs_path(folder, seed)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"fingerprint": fingerprint}) + "\n")
    return EpochLog(path)


@dataclass
class EpochFile:
    """What has been read so far of the epochs of one run."""

    path: Path
    fingerprint: str = ""
    num_read: int = 0
    """Of its bytes."""

    num_points: int = 0
    """Of them, since the run began or began anew."""

    def new(self) -> list[tuple[int, dict[str, float]]]:
        """The points that have come since, each with its place; a run that began anew is read from its start."""
        try:
            size = self.path.stat().st_size
            if size == self.num_read:
                return []
            self.num_read = self.num_read if size > self.num_read else 0
            with self.path.open("rb") as file:
                file.seek(self.num_read)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]  # the last line may be half written
        self.num_read += len(whole)
        return [point for line in whole.splitlines() if (point := self._point(line))]

    def _point(self, line: bytes) -> tuple[int, dict[str, float]] | None:
        try:
            found = json.loads(line)
        except ValueError:  # another process began the file anew while it was read
            return None
        if "epoch" not in found:
            self.fingerprint, self.num_points = str(found.get("fingerprint", "")), 0
            return None
        self.num_points += 1
        return self.num_points - 1, dict(found)
