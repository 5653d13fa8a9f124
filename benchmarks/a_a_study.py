"""A/A studies: one configuration as twelve "different" arms with seeds of their own. Every better or worse is false.

    python benchmarks/a_a_study.py --out docs/a_a_study.md

Real training on the embedded data, in real studies: one with a fixed number of seeds, one with `replicates=auto`. The
k-th seed of an arm is paired with the k-th of the baseline, as ever; but their networks begin with other weights, and
see the images in another order, so that nothing is shared but the configuration.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import cnn_ablation
from cnn_ablation.config import StatsConfig
from cnn_ablation.runs import provenance
from cnn_ablation.tasks.image_classification.identity import LIBRARIES

NUM_ARMS = 12
_FAR_APART = 10_000  # seeds of one copy and of the next


def train(copy: int = 0, epochs: int = 6, *, seed: int) -> dict[str, float]:
    """One run of the package's baseline, with a seed that no other copy has."""
    config = cnn_ablation.compose([f"train.epochs={epochs}", f"seed={seed + _FAR_APART * copy}", "replicates=1"])
    config.threads, config.reuse, config.keep_weights = 1, False, False
    with tempfile.TemporaryDirectory() as folder:
        config.store = f"{folder}/store"
        (run,) = cnn_ablation.run(config, Path(folder) / "0")
    return {"test_accuracy": run.test_accuracy, "val_accuracy": run.val_accuracy}


def studied(replicates: str, epochs: int) -> tuple[pd.DataFrame, str]:
    """The table of arms of a study of copies, and its page: table and caption."""
    told = ["task=function", "task.target=a_a_study.train", f"settings.epochs={epochs}", f"replicates={replicates}"]
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        baseline = cnn_ablation.compose([*told, f"store={place}/store"])
        arms = cnn_ablation.ablate(baseline, {"settings.copy": list(range(1, NUM_ARMS + 1))}, f"{place}/study")
        return arms, (Path(place) / "study" / "ablation.md").read_text()


def section(arms: pd.DataFrame, text: str) -> Iterator[str]:
    """How many verdicts are false, then the table."""
    alpha = StatsConfig().alpha
    counts = arms["verdict"].value_counts().drop("baseline")
    false = int(counts.reindex(["better", "worse"]).fillna(0).sum())
    others = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if verdict not in ("better", "worse"))
    raw, seeds = int((arms["p_value"] <= alpha).sum()), int(arms["n"].sum())
    yield f"`better` or `worse`, which could only be false: **{false} of {NUM_ARMS}** ({others}); {seeds} runs in all."
    yield f"Uncorrected p-values at or below {alpha:g}: {raw}, where at most {NUM_ARMS * alpha:g} are expected.\n"
    yield text


def page(replicates: str, epochs: int) -> Iterator[str]:
    """Both studies."""
    made_with = provenance.environment(LIBRARIES)
    yield "# A/A studies: twelve arms that differ in nothing but their seeds\n"
    yield f"From `python benchmarks/a_a_study.py`, cnn_ablation {made_with['versions']['cnn_ablation']}"
    yield f"({str(made_with['git_commit'])[:12]}).\n"
    yield f"## {replicates} seeds, fixed beforehand\n"
    yield from section(*studied(replicates, epochs))
    yield "## `replicates=auto`: looked at after every seed, up to 30\n"
    yield from section(*studied("auto", epochs))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--replicates", default="5", help="seeds per arm of the first study")
    parser.add_argument("--epochs", type=int, default=6, help="of a run")
    parser.add_argument("--out", type=Path, help="write the page there instead of printing it")
    options = parser.parse_args()
    text = "\n".join(page(options.replicates, options.epochs)) + "\n"
    if options.out:
        options.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
