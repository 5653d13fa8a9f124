"""What jobs of tests do instead of training: the words of their batch, and a line of who did it."""

from __future__ import annotations

import os
import time
from pathlib import Path


def carry_out(batch: str) -> None:
    """`sleep 2`, `exit 3`, `raise text`, or `eat 600` (MB); before that a line is added beside the batch."""
    word, _, value = Path(batch).read_text().partition(" ")
    with Path(f"{batch}.log").open("a") as log:
        log.write(
            f"{os.environ.get('SLURMD_NODENAME', 'here')} {os.environ.get('SLURM_CPUS_PER_TASK', '')} {os.getpid()}\n"
        )
    if word == "sleep":
        time.sleep(float(value))
    if word == "exit":
        raise SystemExit(int(value))
    if word == "raise":
        raise ValueError(value)
    if word == "eat":
        eaten = bytearray(int(value) * 10**6)
        time.sleep(5 if eaten else 0)


def written(folder: Path, *texts: str) -> list[Path]:
    """A batch for each text."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.batch" for number, _ in enumerate(texts)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def log_of(batch: Path) -> list[str]:
    """A line for every time that it was begun."""
    path = Path(f"{batch}.log")
    return path.read_text().splitlines() if path.exists() else []
