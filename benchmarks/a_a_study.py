"""An A/A study: one configuration as twelve "different" arms with seeds of their own. Every verdict is a false one.

    python benchmarks/a_a_study.py --out docs/a_a_study.md

Real training on the embedded data. The baseline takes the first n seeds, each arm the next n; the k-th seed of an arm
is paired with the k-th of the baseline, as in a study.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import cnn_ablation
from cnn_ablation.config import StatsConfig
from cnn_ablation.report import caption, markdown, readable_table
from cnn_ablation.runs.task import task_of
from cnn_ablation.study.designs import BASELINE
from cnn_ablation.tasks.image_classification.config import Config

NUM_ARMS = 12


def train(num_seeds: int, store: str) -> pd.DataFrame:
    """The table of runs, every arm with the seeds 0 to n - 1 by name."""
    arms = [BASELINE, *(f"copy {number}" for number in range(1, NUM_ARMS + 1))]
    config = cnn_ablation.compose([f"replicates={num_seeds * len(arms)}", f"store={store}", "keep_weights=false"])
    with tempfile.TemporaryDirectory() as folder:
        runs = cnn_ablation.run(config, Path(folder) / "0")
    rows = [
        {"arm": arms[run.seed // num_seeds], "knob": "copy", "level": "", "seed": run.seed % num_seeds,
         "status": run.status, "val_accuracy": run.val_accuracy, "test_accuracy": run.test_accuracy,
         "train_seconds": run.train_seconds, "train_started": run.train_started, "train_ended": run.train_ended}
        for run in runs
    ]  # fmt: skip
    made_on = runs[0].provenance
    frame = pd.DataFrame(rows)
    frame.attrs["chance"] = task_of(config).chance([run.settings for run in runs])
    versions = made_on["versions"]
    frame.attrs["made_with"] = (
        f"{made_on['hardware']}, torch {versions['torch']}, cnn_ablation {versions['cnn_ablation']} "
        f"({str(made_on['git_commit'])[:12]})"
    )
    return frame


def report(runs: pd.DataFrame) -> Iterator[str]:
    """The page, line by line."""
    settings = StatsConfig()
    arms = cnn_ablation.ablation_table(runs, settings.alpha, settings.margin_pp)
    counts = arms["verdict"].value_counts().drop("baseline")
    false = int(counts.reindex(["better", "worse"]).fillna(0).sum())
    others = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if verdict not in ("better", "worse"))
    raw = int((arms["p_value"] <= settings.alpha).sum())
    yield "# A/A study: twelve arms that differ in nothing but their seeds\n"
    yield f"`better` or `worse`, which could only be false: **{false} of {NUM_ARMS}** ({others}). Uncorrected p-values"
    yield f"at or below {settings.alpha:g}: {raw}, where {NUM_ARMS * settings.alpha:g} are expected.\n"
    yield markdown(readable_table(arms).drop(columns=["more seeds", "time ratio"]))
    yield ""
    made_with, chance = f"Trained on {runs.attrs['made_with']}.", runs.attrs["chance"]
    yield caption(runs, arms, settings, made_with=made_with, chance=chance)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--replicates", type=int, default=5, help="seeds per arm")
    parser.add_argument("--store", default=Config.store, help="where finished runs are kept")
    parser.add_argument("--out", type=Path, help="write the page there instead of printing it")
    options = parser.parse_args()
    page = "\n".join(report(train(options.replicates, options.store))) + "\n"
    if options.out:
        options.out.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
