"""Images per second of whole studies: ours beside what a user would pick instead, in the same sitting.

    pip install -e ".[benchmark]"
    python benchmarks/throughput.py --out docs/throughput.md data=cifar10

Everything counts: start of the command, imports, data, training, validation after every epoch, test, tables. All train
the same network on the same images with the same batch size, epochs and number of seeds. Contenders take turns; ratios
are made within a turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import bare_kernels
import numpy as np
import pandas as pd

import cnn_ablation
from cnn_ablation.analysis.stats import log_ratio_interval, mean_interval
from cnn_ablation.report.markdown import markdown
from cnn_ablation.runs import provenance
from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.identity import LIBRARIES

HERE = Path(__file__).parent
PEERS = {
    "plain script, 0 workers": ["plain.py"],
    "plain script, 2 workers": ["plain.py", "--workers", "2"],
    "Lightning": ["lightning_script.py"],
    "mushin, plain script": ["mushin_sweep.py"],
}
OURS = "cnn_ablation"
LIMIT = "bare eager kernels"


@dataclass(frozen=True)
class Work:
    """What every contender trains."""

    filters: Sequence[int]
    epochs: int
    seeds: int
    train_images: int
    overrides: Sequence[str]

    @property
    def images(self) -> int:
        return self.train_images * self.epochs * self.seeds


@dataclass
class Times:
    """Of one contender, one entry per turn."""

    images_per_second: list[float] = field(default_factory=list)
    test_accuracies: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--filters", type=int, nargs=3, default=[24, 48, 96])
    parser.add_argument("--without", nargs="*", default=[], choices=[*PEERS, LIMIT], help="contenders to leave out")
    parser.add_argument("--out", type=Path)
    parser.add_argument("overrides", nargs="*", default=["data=shapes", "data.train_images=50000"])
    told, more = parser.parse_known_args()
    overrides = [*told.overrides, *more]
    config = cnn_ablation.compose(overrides)
    with tempfile.TemporaryDirectory() as folder:
        path = export(data.load(config.data), Path(folder))
        train_images = len(data.load(config.data).train)
        work = Work(told.filters, told.epochs, told.seeds, train_images, overrides)
        contenders: dict[str, Callable[[], tuple[float, list[float]]]] = {
            OURS: lambda: ours(work, Path(folder)),
            **{name: (lambda script=script: peer(script, path, work)) for name, script in PEERS.items()},
            LIMIT: lambda: limit(work),
        }
        contenders = {name: run for name, run in contenders.items() if name not in told.without}
        times = {name: Times() for name in contenders}
        for turn in range(told.turns):
            for name in np.roll(list(contenders), -turn):
                rate, accuracies = contenders[str(name)]()
                times[str(name)].images_per_second.append(rate)
                times[str(name)].test_accuracies += accuracies if turn == 0 else []
                print(f"turn {turn + 1}, {name}: {rate:.0f} images/s", flush=True)
    page = as_markdown(times, work)
    print(page)
    if told.out:
        told.out.write_text(page)


def export(images: data.ImageData, folder: Path) -> Path:
    """The data for the peers, as they would hold them in memory."""
    path, arrays = folder / "data.npz", {}
    for part in ("train", "val", "test"):
        split = getattr(images, part)
        arrays |= {f"{part}_images": split.images.transpose(0, 2, 3, 1), f"{part}_labels": split.labels}
    np.savez(path, **arrays)
    return path


def timed(command: Sequence[str], folder: Path) -> tuple[float, str]:
    """Seconds from start to end of a command, and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    return time.perf_counter() - started, done.stdout


def ours(work: Work, folder: Path) -> tuple[float, list[float]]:
    study = folder / "study"
    seconds, _ = timed(
        [
            sys.executable, "-m", "cnn_ablation", *work.overrides, f"model.filters={list(work.filters)}",
            f"train.epochs={work.epochs}", f"replicates={work.seeds}", "reuse=false", f"hydra.run.dir={study}",
        ],
        folder,
    )  # fmt: skip
    return work.images / seconds, cnn_ablation.load_runs(study)["test_accuracy"].tolist()


def peer(script: Sequence[str], path: Path, work: Work) -> tuple[float, list[float]]:
    told = [str(path), "--filters", *work.filters, "--epochs", work.epochs, "--seeds", *range(work.seeds)]
    command = [sys.executable, str(HERE / "peers" / script[0]), *map(str, told), *script[1:]]
    seconds, printed = timed(command, path.parent)
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith('{"seed"')]
    return work.images / seconds, [line["test_accuracy"] for line in lines]


@cache
def best_setting(filters: tuple[int, ...]) -> bare_kernels.Setting:
    """Of the bare kernels, found in the first turn."""
    rates = bare_kernels.all_settings(filters)
    return max(rates, key=lambda setting: rates[setting])


def limit(work: Work) -> tuple[float, list[float]]:
    return bare_kernels.images_per_second(work.filters, best_setting(tuple(work.filters))), []


def as_markdown(times: dict[str, Times], work: Work) -> str:
    """Rates, ratios with intervals, accuracies, and where they come from."""
    ours_rate = np.array(times[OURS].images_per_second)
    rows = []
    for name, found in times.items():
        rate = np.array(found.images_per_second)
        ratio = log_ratio_interval(ours_rate, rate, 0.05)
        accuracy = mean_interval(np.array(found.test_accuracies), 0.05)
        rows.append(
            {
                "contender": name,
                "images/s": f"{rate.mean():,.0f} (± {rate.std(ddof=1):,.0f})" if len(rate) > 1 else f"{rate[0]:,.0f}",
                "ours is faster by": "" if name == OURS else f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
                "test accuracy %": f"{100 * accuracy.mean:.2f} [{100 * accuracy.low:.2f}, {100 * accuracy.high:.2f}]"
                if found.test_accuracies
                else "",
            }
        )
    from cnn_ablation.tasks.image_classification import devices

    environment = provenance.environment(LIBRARIES)
    versions = environment["versions"]
    return (
        f"### {'-'.join(map(str, work.filters))} filters\n\n{markdown(pd.DataFrame(rows))}\n\n"
        f"{work.seeds} seeds x {work.epochs} epochs x {work.train_images:,} images, batch 64; {len(ours_rate)} turns "
        f"(mean, standard deviation; ratio with 95 % t interval on the log scale). "
        f"{devices.hardware_name(devices.choose('cpu'))}, {os.cpu_count()} cores; Python {versions['python']}, torch "
        f"{versions['torch']}, commit {str(environment['git_commit'])[:10]}.\n"
    )


if __name__ == "__main__":
    main()
