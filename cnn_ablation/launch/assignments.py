"""What a job of a study is told, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cnn_ablation.config import StudyConfig


@dataclass(frozen=True)
class Assignment:
    """One job: what `runs.run` is called with."""

    config: StudyConfig
    folder: Path
    study: Path


OnEnd = Callable[[Assignment], None]
