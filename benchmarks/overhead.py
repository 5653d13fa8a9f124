"""What the harness costs beside training: per command, per run, per table, and how that grows.

    python benchmarks/overhead.py --out docs/overhead.md --picture docs/images/overhead.png

Overhead of a run is its wall-clock time less training steps and evaluation: identity, store, building, warm-up,
diagnoses, record. Tables are built from records on disk, written here by copying one real run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import cnn_ablation
from cnn_ablation.analysis.tables.input import LOSSES
from cnn_ablation.config import all_settings
from cnn_ablation.report.markdown import markdown
from cnn_ablation.runs import provenance, records
from cnn_ablation.runs import run as runs
from cnn_ablation.study import plans
from cnn_ablation.study.designs import knob, one_at_a_time
from cnn_ablation.tasks.image_classification import data, devices, training
from cnn_ablation.tasks.image_classification.identity import LIBRARIES

COMMANDS = {
    "import cnn_ablation": ["-c", "import cnn_ablation"],
    "--help": ["-m", "cnn_ablation", "--help"],
    "--version": ["-m", "cnn_ablation", "--version"],
    "--cfg job": ["-m", "cnn_ablation", "--cfg", "job"],
    "dry run of study=knobs": ["-m", "cnn_ablation", "-m", "study=knobs", "dry_run=true"],
}
FIRST = ["-m", "cnn_ablation", "-m", "model.activation=relu,leaky"]
TINY = ["data=shapes", "data.image_size=8", "data.train_images=60", "data.test_images=40", "model.filters=[4]",
        "model.kernel_sizes=[3]", "model.hidden=[8]", "train.epochs=2", "train.batch_size=16"]  # fmt: skip
RATES = ",".join(f"{rate}e-3" for rate in range(1, 11))
STUDIES = {
    "a study of 6 runs that are all there": FIRST,
    "a study of 500 runs that are all there": ["-m", "cnn_ablation", "-m", *TINY, f"optimizer.lr={RATES}",
                                               "replicates=50"],
}  # fmt: skip
TABLES = ((10, 10), (100, 10), (1000, 10), (100, 100))  # arms, seeds
IMAGES = (1_000, 4_000, 16_000)
REPEATS = 5
BUILD_TABLE = """
import json, sys, time

started = time.perf_counter()
from cnn_ablation.analysis import tables  # as the process of a study has it, without torch

imported = time.perf_counter()
runs = tables.load_runs(sys.argv[1])
loaded = time.perf_counter()
arms = tables.ablation_table(runs)
ended = time.perf_counter()
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]  # rusage has the parent's
print(json.dumps({
    "imports, s": round(imported - started, 2),
    "records -> runs, s": round(loaded - imported, 2),
    "runs -> table, s": round(ended - loaded, 2),
    "peak memory, MiB": round(int(peak) / 1024),
    "rows": [len(runs), len(arms)],
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    told = parser.parse_args()
    times = {name: command_times(call) for name, call in (COMMANDS | STUDIES).items()}
    times["README's first command, and kernels to compile"] = first_times()
    commands = pd.DataFrame([{"command": name, "seconds": spread(seconds)} for name, seconds in times.items()])
    of_runs = pd.DataFrame([run_overheads(count) for count in IMAGES])
    of_tables = pd.DataFrame([table_cost(arms, seeds) for arms, seeds in TABLES])
    page = as_markdown(commands, of_runs, of_tables)
    print(page)
    if told.out:
        told.out.write_text(page)
    if told.picture:
        draw(of_runs, of_tables, told.picture)


def command_times(call: list[str]) -> list[float]:
    """Seconds of a command, after one that is thrown away, in a folder of its own: a study finds its runs there."""
    with tempfile.TemporaryDirectory() as folder:
        return [seconds_of(call, folder) for _ in range(REPEATS + 1)][1:]


def first_times() -> list[float]:
    """Seconds of README's first command, each time without a store and without compiled kernels."""
    times = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            times.append(seconds_of(FIRST, folder, XDG_CACHE_HOME=f"{folder}/cache"))
    return times


def seconds_of(call: list[str], folder: str, **variables: str) -> float:
    started = time.perf_counter()
    command, environment = [sys.executable, *call], {**os.environ, **variables}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def run_overheads(train_images: int) -> dict[str, Any]:
    """Seconds of runs that are not training and not evaluation, after one run that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        config = cnn_ablation.compose(
            [
                "data=shapes", f"data.train_images={train_images}", f"data.test_images={train_images // 5}",
                "train.epochs=1", f"store={folder}/store",
            ]
        )  # fmt: skip
        data.load(config.data)
        evaluating = Stopwatch(training.score)
        training.score = evaluating  # the loop looks the function up by this name
        try:
            found = []
            for seed in range(REPEATS + 1):
                evaluating.seconds, started = 0.0, time.perf_counter()
                [run] = runs.run(dataclasses.replace(config, seed=seed, replicates=1), Path(folder) / "runs")
                found.append((time.perf_counter() - started, run.train_seconds, evaluating.seconds))
        finally:
            training.score = evaluating.function
    whole, training_steps, evaluation = np.array(found[1:]).T
    overhead = whole - training_steps - evaluation
    return {
        "training images": train_images,
        "training s": spread(training_steps),
        "evaluation s": spread(evaluation),
        "overhead s": spread(overhead),
        "mean": overhead.mean(),
    }


class Stopwatch:
    """A function that sums the time spent in it."""

    def __init__(self, function: Callable[..., Any]):
        self.function, self.seconds = function, 0.0

    def __call__(self, *given: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return self.function(*given, **named)
        finally:
            self.seconds += time.perf_counter() - started


def table_cost(arms: int, seeds: int) -> dict[str, Any]:
    """Seconds from records on disk to the table of arms, and the peak memory of a process that does nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        write_study(Path(folder), arms, seeds)
        command = [sys.executable, "-c", BUILD_TABLE, f"{folder}/study"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found.pop("rows") == [arms * seeds, arms]
    return {"arms": arms, "seeds": seeds, "runs": arms * seeds, **found}


def write_study(folder: Path, arms: int, seeds: int) -> None:
    """A study of one knob, its records copies of one real run with other names and scores."""
    overrides = ["data=shapes", "data.train_images=200", "data.test_images=50", "train.batch_size=16", "replicates=1"]
    config = cnn_ablation.compose([*overrides, f"store={folder}/store"])
    [template] = runs.run(config, folder / "template")
    found = one_at_a_time([knob("optimizer.lr", [f"{level / 10_000:g}" for level in range(1, arms)])])
    plan = plans.Plan(
        design="one_at_a_time", knobs={"optimizer.lr": [arm.level for arm in found[1:]]}, keys=["optimizer.lr"],
        arms=found, seeds=list(range(seeds)), baseline=all_settings(config), stats=config.stats, path=[],
        provenance=provenance.environment(LIBRARIES),
    )  # fmt: skip
    plans.write_plan(folder / "study", plan)
    noise = np.random.default_rng(0).normal(0.6, 0.01, (arms, seeds))
    for number, (arm, seed) in enumerate((arm, seed) for arm in range(arms) for seed in range(seeds)):
        changed = {"arm": found[arm].name, "knob": found[arm].knob, "level": found[arm].level, "seed": seed}
        losses = {name: getattr(template, name) * (2 - noise[arm, seed]) for name in LOSSES}
        run = dataclasses.replace(template, **changed, **losses, test_accuracy=noise[arm, seed])
        path = records.record_path(folder / "study" / str(number), seed)
        path.parent.mkdir()
        path.write_text(records.as_json(run))


def spread(seconds: Any) -> str:
    """Median with the smallest and the largest."""
    return f"{np.median(seconds):.3f} [{np.min(seconds):.3f}, {np.max(seconds):.3f}]"


def as_markdown(commands: pd.DataFrame, of_runs: pd.DataFrame, of_tables: pd.DataFrame) -> str:
    environment = provenance.environment(LIBRARIES)
    versions = environment["versions"]
    return (
        "# What the harness costs\n\nFrom `python benchmarks/overhead.py`: "
        f"{devices.hardware_name(devices.choose('cpu'))}, {os.cpu_count()} cores; Python {versions['python']}, torch "
        f"{versions['torch']}, pandas {pd.__version__}, commit {str(environment['git_commit'])[:10]}. Median, smallest "
        f"and largest of {REPEATS}; tables once.\n\n"
        f"## Commands\n\n{markdown(commands)}\n\n"
        "## A run\n\nWall-clock time that is neither training nor evaluation: identity, store, building the network, "
        f"warm-up, diagnoses, record.\n\n{markdown(of_runs.drop(columns='mean').astype(str))}\n\n"
        "## A table\n\nFrom records on disk to the table of arms, in a process without torch, as at the end of "
        "a study; before it the imports of pandas and scipy.\n\n"
        f"{markdown(of_tables.astype(str))}\n\n"
        "![Overhead of runs and tables](images/overhead.png)\n"
    )


def draw(of_runs: pd.DataFrame, of_tables: pd.DataFrame, path: Path) -> None:
    """Overhead of a run as images grow, seconds of a table as arms and seeds grow."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(of_runs["training images"], of_runs["mean"], marker="o")
    left.set(
        xscale="log", ylim=(0, 1.2 * of_runs["mean"].max()), xlabel="training images", ylabel="overhead of a run, s"
    )
    for column in ("records -> runs, s", "runs -> table, s"):
        for seeds, rows in of_tables.groupby("seeds"):
            right.plot(rows["runs"], rows[column], marker="o", linestyle="", label=f"{column[:-3]}, {seeds} seeds")
    right.set(xscale="log", yscale="log", xlabel="runs", ylabel="seconds")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
