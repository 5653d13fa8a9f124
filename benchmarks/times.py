"""How often time verdicts are wrong, and how soon they are right, in real studies.

    python benchmarks/times.py --out docs/times.md

Equal arms: studies whose arms differ from the baseline by a millionth of the learning rate, which costs no time, so
that every `slower` or `faster` is false. A true ratio: studies with an arm of 10 % more updates, one run at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy import stats as scipy_stats

import cnn_ablation
from cnn_ablation.analysis.tables.rows import runs_by_arm
from cnn_ablation.analysis.tables.times import compare_times, with_occasions
from cnn_ablation.common import machine
from cnn_ablation.common.words import counted
from cnn_ablation.config import StatsConfig, with_settings
from cnn_ablation.launch.execution import NumberedJob, Study, on_this_machine
from cnn_ablation.launch.planning import Planning
from cnn_ablation.study.designs import BASELINE, Knob, knob, seed_by_seed
from cnn_ablation.study.plans import write_plan

RATIO = 1.1
TESTS = ("t", "anytime")
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    families: int
    arms: int
    seeds: int
    studies: int
    """Of the true ratio."""
    most_seeds: int
    updates: int
    """Of a baseline's run."""


def studied(varied: Knob, size: Size, *, seeds: int, timing: str) -> pd.DataFrame:
    """The table of runs of a study of its own, with a store of its own: nothing is reused. Without its report."""
    with tempfile.TemporaryDirectory() as place:
        told = [f"train.updates={size.updates}", f"replicates={seeds}", f"timing={timing}", "keep_weights=false"]
        config = cnn_ablation.compose([*told, f"store={place}/store"])
        planning = Planning("one_at_a_time", [varied], lambda arm: with_settings(config, arm.settings))
        study = Study(Path(place) / "study", planning)
        jobs = seed_by_seed(study.plan.arms, study.plan.seeds, back_and_forth=timing == "isolated")
        planning.task.load(planning.configs.values())
        write_plan(study.folder, study.plan)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            on_this_machine(study)([NumberedJob(number, job) for number, job in enumerate(jobs)])
        return cnn_ablation.load_runs(study.folder)


def equal_arms(size: Size, timing: str) -> Iterator[pd.DataFrame]:
    """The table of runs of each family."""
    rates = [1e-3 * (1 + 1e-6 * number) for number in range(1, size.arms + 1)]
    for _ in range(size.families):
        yield studied(knob("optimizer.lr", rates), size, seeds=size.seeds, timing=timing)


def true_ratios(size: Size) -> Iterator[pd.DataFrame]:
    """The table of runs of each study whose one arm takes 1.10 times as long."""
    for _ in range(size.studies):
        longer = knob("train.updates", [round(RATIO * size.updates)])
        yield studied(longer, size, seeds=size.most_seeds, timing="isolated")


def share(count: int, total: int) -> str:
    """`3 of 40 (8 % [2, 20])`: with the exact 95 % interval (Clopper and Pearson 1934)."""
    if not total:
        return "0 of 0"
    limits = scipy_stats.binomtest(count, total).proportion_ci(0.95, "exact")
    return f"{count} of {total} ({100 * count / total:.0f} % [{100 * limits.low:.0f}, {100 * limits.high:.0f}])"


def row_of_equal_arms(families: Sequence[pd.DataFrame], timing: str, test: str) -> dict[str, str]:
    tables = [cnn_ablation.ablation_table(runs, test=test).iloc[1:] for runs in families]
    arms = pd.concat(tables, ignore_index=True)
    false = [bool(table["time_verdict"].isin(["slower", "faster"]).any()) for table in tables]
    with_interval = arms.dropna(subset=["time_ratio_ci_low"])
    missing = (with_interval["time_ratio_ci_low"] > 1) | (with_interval["time_ratio_ci_high"] < 1)
    return {
        "timing": timing,
        "test": test,
        "families with a false verdict": share(sum(false), len(false)),
        "intervals without 1": share(int(missing.sum()), len(with_interval)),
        "equal": share(int((arms["time_verdict"] == "equal").sum()), len(arms)),
        "not compared": share(int((arms["time_verdict"] == "").sum()), len(arms)),
    }


def row_of_true_ratios(studies: Sequence[pd.DataFrame], num_seeds: int) -> dict[str, str]:
    """How many studies of so many seeds say `slower`; of anytime, how many have said so by then."""
    row = {"seeds": str(num_seeds)}
    for test in TESTS:
        looks = range(FEWEST_SEEDS if test == "anytime" else num_seeds, num_seeds + 1)
        said = [any(time_verdict(runs, seeds, test) == "slower" for seeds in looks) for runs in studies]
        row[f"slower ({'by then, ' if test == 'anytime' else ''}{test})"] = share(sum(said), len(said))
    return row


def time_verdict(runs: pd.DataFrame, num_seeds: int, test: str) -> str:
    """Of the one arm, from the first seeds; without the rest of the table, which takes most of its time."""
    arms = runs_by_arm(with_occasions(runs[runs["seed"] < num_seeds]), "test_accuracy", "val_accuracy")
    compared = compare_times(arms, arms[BASELINE], StatsConfig(test=test))
    return next(found.verdict for name, found in compared.items() if name != BASELINE)


def page(size: Size) -> Iterator[str]:
    """Line by line."""
    equal = {timing: list(equal_arms(size, timing)) for timing in ("packed", "isolated")}
    yield from report(size, equal, list(true_ratios(size)))


def report(size: Size, equal: dict[str, list[pd.DataFrame]], true: list[pd.DataFrame]) -> Iterator[str]:
    """The page of what was trained."""
    yield "# Time verdicts in real studies\n"
    arms, seeds = counted(size.arms, "arm"), counted(size.seeds, "seed")
    yield f"Families of {arms} with {seeds} that take as long as their baseline: `slower` and `faster` are false.\n"
    rows = [row_of_equal_arms(found, timing, test) for timing, found in equal.items() for test in TESTS]
    yield str(pd.DataFrame(rows).to_markdown(index=False))
    yield f"\nOne arm of {RATIO:g} times the updates, one run at a time (`timing=isolated`).\n"
    counts = range(FEWEST_SEEDS, size.most_seeds + 1)
    yield str(pd.DataFrame([row_of_true_ratios(true, number) for number in counts]).to_markdown(index=False))
    trained = pd.concat([*equal["packed"], *equal["isolated"], *true])
    waited = (trained["cpu_seconds"] / (trained["train_seconds"] * trained["threads"])).quantile([0.05, 0.5])
    settings = StatsConfig()
    yield (
        f"\nRuns of {size.updates} updates; margin {settings.time_margin:g}, level {settings.alpha:g}; shares "
        f"with exact 95 % intervals. Half of the runs had the processor for {100 * waited[0.5]:.0f} % of their time or "
        f"more, one in twenty for {100 * waited[0.05]:.0f} % or less. {machine.cpu_name()}, "
        f"{counted(machine.cores(), 'core')}, cnn_ablation {cnn_ablation.__version__}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--families", type=int, default=40, help="of equal arms, for each timing")
    parser.add_argument("--arms", type=int, default=9, help="of a family")
    parser.add_argument("--seeds", type=int, default=5, help="of a family")
    parser.add_argument("--studies", type=int, default=20, help="with an arm of 1.10 times the updates")
    parser.add_argument("--most-seeds", type=int, default=12, help="of those")
    parser.add_argument("--updates", type=int, default=100, help="of a baseline's run")
    parser.add_argument("--out", type=Path, help="write the page there instead of printing it")
    options = vars(parser.parse_args())
    out = options.pop("out")
    text = "\n".join(page(Size(**options))) + "\n"
    if out:
        out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
