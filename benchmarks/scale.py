"""What many arms cost: whole commands, from planning to the table, and what each of their stages takes.

    python benchmarks/scale.py --arms 1000 --seeds 10 --images 1000 --folder /dev/shm --out docs/scale.md

A folder in memory, because a run makes some ten files: on a disk with ext4, a new file takes up to ten times as long
while the numbers of files that were removed in the last minutes are not given again, and times are of what somebody
removed before.

Every figure is of one command in a process of its own and a folder of its own. Stages are told by when files were
written: planning ends with the first job's folder, starting with the first record, training with the last, collecting
with the first file of the report.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cnn_ablation.common import machine
from cnn_ablation.runs import provenance
from cnn_ablation.runs.records import read_run, record_paths

MODULE = "quick"
FUNCTION = '''"""A training that takes a millisecond."""
import random, time

def train(rate: float = 0.5, *, seed: int) -> dict[str, float]:
    time.sleep(0.001)
    return {"test_loss": (rate - 0.3) ** 2 + random.Random(seed).gauss(0, 0.1)}
'''
OF_FUNCTION = ["task=function", f"task.target={MODULE}.train", "stats.metric=test_loss", "hydra.sweep.dir=out"]
SMALLEST = [
    "data=shapes", "data.image_size=8", "data.train_images=60", "data.test_images=40", "model.filters=[4]",
    "model.kernel_sizes=[3]", "model.hidden=[8]", "train.epochs=1", "train.batch_size=16", "hydra.sweep.dir=out",
]  # fmt: skip

_HEAD = """# Many arms

Made by `python benchmarks/scale.py`. The function sleeps for a millisecond; the smallest network has one layer of four
filters and one epoch of 60 pictures of 8x8. Every command runs in a process of its own; CPU seconds and memory are of
that process, without its workers. Stages are told by when files were written. Files lay in memory: on a disk the same
commands take up to three times as long, depending on how much was removed from it in the minutes before.
"""


@dataclass(frozen=True)
class Command:
    """What a command took of the machine."""

    seconds: float
    cpu_seconds: float
    """Of the process, without its workers."""
    peak_mib: float
    """Of the process alone: what plans, collects and reports."""
    started: float
    """Seconds since 1970."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--images", type=int, default=0, help="arms of the smallest network, with one seed; 0 for none")
    parser.add_argument("--folder", help="where studies are made; the system's temporary one")
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    tempfile.tempdir = told.folder
    rows = pd.DataFrame(measured(told.arms, told.seeds, told.images)).fillna("")
    page = f"{_HEAD}\n{rows.to_markdown(index=False, disable_numparse=True)}\n\n{_machine()}\n"
    print(page)
    if told.out:
        told.out.write_text(page)


def measured(arms: int, seeds: int, image_arms: int) -> Iterator[dict[str, str]]:
    """One row per command and per stage."""
    levels, seed_words = f"settings.rate={_levels(arms)}", f"replicates={seeds}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / f"{MODULE}.py").write_text(FUNCTION)
        study = [*OF_FUNCTION, levels, seed_words]
        size = f"a function, {arms} arms x {seeds} seeds"
        yield _row(f"dry run: {size}", command(folder, [*study, "dry_run=true"]))
        whole = command(folder, study)
        yield _row(f"whole study: {size}", whole)
        yield from stages(folder / "out", whole)
        yield _row("the same, all reused", command(folder, study))
        yield _row("its report alone", command(folder, ["out"], module="cnn_ablation.report"))
    yield from of_images(image_arms or arms, trains=bool(image_arms))


def of_images(arms: int, *, trains: bool) -> Iterator[dict[str, str]]:
    """Of a grid of rates and dropouts: the dry run, and the whole with what each run takes besides training."""
    first = max(1, round(arms**0.5))
    lines = [f"optimizer.lr={_levels(first)}", f"model.dropout={_levels(-(-arms // first))}", "replicates=1"]
    study = [*SMALLEST, *lines, "hydra.sweeper.design=grid"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield _row(f"dry run: the smallest network, {arms} arms x 1 seed", command(folder, [*study, "dry_run=true"]))
        if not trains:
            return
        whole = command(folder, study)
        yield _row(f"whole study: the smallest network, {arms} arms x 1 seed", whole)
        yield from stages(folder / "out", whole)
        runs = [read_run(path, details=False) for path in record_paths(folder / "out")]
        own = statistics.mean(run.train_seconds for run in runs)
        spent = whole.seconds * statistics.mean(run.concurrent_runs for run in runs) / len(runs)
        yield {"what": "a run's share of the whole command, less its training steps", "seconds": f"{spent - own:.3f}"}


def command(folder: Path, words: Sequence[str], module: str = "cnn_ablation") -> Command:
    """Runs a command in a folder.

    Raises:
        RuntimeError: it ended with an error.
    """
    flags = ["-m"] if module == "cnn_ablation" else []
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    started, clock = time.time(), time.perf_counter()
    process = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), sys.executable, "-m", module, *flags, *words],
        dict(os.environ),
        file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
    )
    _, status, used = os.wait4(process, 0)
    os.close(log)
    if status:
        raise RuntimeError((folder / "log.txt").read_text()[-2000:])
    cpu = used.ru_utime + used.ru_stime
    return Command(time.perf_counter() - clock, cpu, used.ru_maxrss / 1024, started)


def stages(study: Path, whole: Command) -> Iterator[dict[str, str]]:
    """What the stages of a command took that carried out a study in a new folder."""
    records = [path.stat().st_mtime for path in record_paths(study)]
    begun = min(path.stat().st_mtime for path in study.glob("*/.hydra/config.yaml"))
    report = (study / "runs.csv").stat().st_mtime  # the first of its files
    ends = {
        "planning": begun,
        "starting": min(records),
        "training": max(records),
        "collecting, table": report,
        "writing the report": whole.started + whole.seconds,
    }
    before = whole.started
    for name, end in ends.items():
        per_run = f", {1000 * (end - before) / len(records):.1f} ms a run" if name == "training" else ""
        yield {"what": f"  {name}{per_run}", "seconds": f"{end - before:.1f}"}
        before = end


def _levels(count: int) -> str:
    return ",".join(f"{number / (count + 1):.5f}" for number in range(1, count + 1))


def _row(what: str, of: Command) -> dict[str, str]:
    return {
        "what": what,
        "seconds": f"{of.seconds:.1f}",
        "CPU seconds": f"{of.cpu_seconds:.1f}",
        "peak memory, MiB": f"{of.peak_mib:.0f}",
    }


def _machine() -> str:
    versions = provenance.versions(("cnn_ablation", "hydra-core", "pandas"))
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    load = os.getloadavg()[0]
    return (
        f"{machine.cpu_name()}, {machine.cores()} cores, load {load:.1f} at the end; "
        f"Python {platform.python_version()}, {named}."
    )


if __name__ == "__main__":
    main()
