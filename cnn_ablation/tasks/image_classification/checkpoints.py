"""Checkpoints of a run in training: written now and then, whole or not at all, and read without unpickling code."""

from __future__ import annotations

import io
import pickle
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from cnn_ablation.common import lanes, progress
from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.files import write_atomically

DAMAGED = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile)
"""What reading a truncated, foreign or otherwise unusable checkpoint can raise."""


class Checkpoints:
    """The checkpoint of one run.

    Args:
        path: its file; None keeps none.
        every_seconds: between two checkpoints.
        identity: the run's fingerprint; a checkpoint of another run is refused.
    """

    def __init__(self, path: Path | None = None, every_seconds: float = 60.0, identity: str = ""):
        self.path, self.every_seconds, self.identity = path, every_seconds, identity
        self._elapsed_before, self._started = 0.0, time.monotonic()
        self._last = self._started

    @property
    def elapsed_seconds(self) -> float:
        """Wall-clock time of the run, with what it took before it was interrupted."""
        return self._elapsed_before + time.monotonic() - self._started

    def due(self) -> bool:
        """Whether it is time to save."""
        return self.path is not None and time.monotonic() - self._last >= self.every_seconds

    def save(self, state: dict[str, Any]) -> None:
        """Writes a state of tensors, numbers, strings, lists and dictionaries; a failure is named and costs no run."""
        if self.path is None:
            return
        buffer = io.BytesIO()
        torch.save({"identity": self.identity, "elapsed_seconds": self.elapsed_seconds, "state": state}, buffer)
        try:
            write_atomically(self.path, buffer.getvalue())
        except RecordError as error:
            progress.warn(f"{error}; going on without a checkpoint")
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The saved state on the CPU, or None; one that cannot be used is named and counts as none."""
        if self.path is None or not self.path.exists():
            return None
        try:
            with lanes.turn, warnings.catch_warnings():  # an odd file is refused below, without torch's remarks
                warnings.simplefilter("ignore")
                content = torch.load(self.path, map_location="cpu", weights_only=True)
            if content["identity"] != self.identity:
                raise ValueError("it belongs to another run")
            state: dict[str, Any] = content["state"]
            self._elapsed_before = float(content["elapsed_seconds"])
        except DAMAGED as error:
            self.refuse(error)
            return None
        return state

    def refuse(self, error: Exception) -> None:
        """Names a checkpoint that cannot be used."""
        reason = " ".join(str(error).split())[:200]
        progress.warn(
            f"{self.path} is damaged or unreadable ({type(error).__name__}: {reason}); starting this run anew"
        )
        self._elapsed_before = 0.0
