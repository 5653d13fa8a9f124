"""Memory of a whole study: of the process that carries it out, and of each that trains.

    pip install -e ".[benchmark]"
    python benchmarks/memory.py --out docs/memory.md data=cifar10

Every fifth of a second the processes of one command are asked for their resident set (RSS: all pages they map, shared
ones in each) and for their proportional one (PSS: shared pages divided among those that map them, so that a sum counts
no page twice). Linux.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil

import cnn_ablation
from cnn_ablation.report.markdown import markdown
from cnn_ablation.runs import provenance
from cnn_ablation.tasks.image_classification import data, devices
from cnn_ablation.tasks.image_classification.identity import LIBRARIES

PAUSE = 0.2  # seconds
MIB = 2**20
STUDY = ["-m", "cnn_ablation", "-m", "model.activation=relu,leaky", "train.epochs=1", "reuse=false"]
TRAINING, SERVER, PARENT = "each process that trains", "the server that they are forked from", "the command itself"


@dataclass
class Peaks:
    """Largest values seen, in bytes."""

    rss: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    """By role and process."""
    pss: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    sum_pss: int = 0

    def take(self, processes: Sequence[tuple[str, psutil.Process]]) -> None:
        total = 0
        for role, process in processes:
            with suppress(psutil.Error):  # it has ended meanwhile
                now, key = process.memory_full_info(), (role, process.pid)
                self.rss[key] = max(self.rss[key], now.rss)
                self.pss[key] = max(self.pss[key], now.pss)
                total += now.pss
        self.sum_pss = max(self.sum_pss, total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("overrides", nargs="*", default=["data=shapes", "data.train_images=50000"])
    told, more = parser.parse_known_args()
    overrides = [*told.overrides, *more]
    peaks = peaks_of([sys.executable, *STUDY, *overrides, f"replicates={told.seeds}"])
    page = as_markdown(peaks, overrides)
    print(page)
    if told.out:
        told.out.write_text(page)


def peaks_of(command: Sequence[str]) -> Peaks:
    """Of a command and all processes that it starts, until it ends."""
    peaks = Peaks()
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(command, cwd=folder) as process:
        while process.poll() is None:
            peaks.take([*roles(psutil.Process(process.pid))])
            time.sleep(PAUSE)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return peaks


def roles(parent: psutil.Process) -> Iterator[tuple[str, psutil.Process]]:
    """The command, and below it the server with the processes that it has forked."""
    yield PARENT, parent
    with suppress(psutil.Error):
        for child in parent.children(recursive=True):
            with suppress(psutil.Error):
                if child.ppid() != parent.pid:
                    yield TRAINING, child
                elif any("forkserver" in word for word in child.cmdline()):
                    yield SERVER, child


def as_markdown(peaks: Peaks, overrides: Sequence[str]) -> str:
    images = data.load(cnn_ablation.compose(list(overrides)).data)
    size = sum(getattr(images, part).images.nbytes for part in ("train", "val", "test"))
    rows = []
    for role in (PARENT, SERVER, TRAINING):
        resident = [value for (other, _), value in peaks.rss.items() if other == role]
        own = [value for (other, _), value in peaks.pss.items() if other == role]
        if resident:
            counted = f"{len(resident)}" if role == TRAINING else "1"
            rows.append(
                {
                    "process": role,
                    "processes seen": counted,
                    "peak resident, MiB": round(max(resident) / MIB),
                    "peak proportional, MiB": round(max(own) / MIB),
                }
            )
    versions = provenance.environment(LIBRARIES)["versions"]
    return (
        "# Memory of a study\n\n"
        f"From `python benchmarks/memory.py {' '.join(overrides)}`: "
        f"{devices.hardware_name(devices.choose('cpu'))}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"torch {versions['torch']}, commit {str(provenance.environment(LIBRARIES)['git_commit'])[:10]}. One study.\n\n"
        f"{markdown(pd.DataFrame(rows))}\n\n"
        f"All processes together held at most {round(peaks.sum_pss / MIB):,} MiB, each page counted once; the images "
        f"are {round(size / MIB)} MiB.\n"
    )


if __name__ == "__main__":
    main()
