"""The table of arms as a reader wants it: rounded, with intervals, and with a caption that says what was done."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from cnn_ablation.config import StatsConfig
from cnn_ablation.designs import FULL
from cnn_ablation.plans import counted

TEXT_COLUMNS = {"arm", "verdict", "notes", "figure", "the paper's is", "printed in", "why"}


def readable_table(arms: pd.DataFrame) -> pd.DataFrame:
    """The table of arms as text, one column per question a reader asks; empty where a number cannot be computed."""
    return pd.DataFrame([_readable(row) for _, row in arms.iterrows()])


def _readable(row: pd.Series[Any]) -> dict[str, str]:
    accuracy, is_baseline = "test_accuracy", row["verdict"] == "baseline"
    return {
        "arm": row["arm"],
        "n": str(row["n"]),
        "test accuracy %": _with_interval(
            100 * row[[f"{accuracy}_mean", f"{accuracy}_ci_low", f"{accuracy}_ci_high"]], "{:.2f}"
        ),
        "difference pp": _with_interval(row[["delta_pp", "delta_ci_low_pp", "delta_ci_high_pp"]], "{:+.2f}"),
        "p (Holm)": _p_value(row["p_holm"]),
        "verdict": row["verdict"],
        "more seeds": _more_seeds(row),
        "train s": _number(row["train_seconds_mean"], "{:.2f}"),
        "time ratio": ""
        if is_baseline
        else _with_interval(row[["time_ratio", "time_ratio_ci_low", "time_ratio_ci_high"]], "{:.2f}"),
        "notes": row["notes"],
    }


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _with_interval(estimate: pd.Series[Any], form: str) -> str:
    """`95.81 [93.80, 97.82]` from mean, low and high; says so where there is no interval."""
    mean, low, high = (_number(float(value), form) for value in estimate)
    if not mean:
        return ""
    return f"{mean} [{low}, {high}]" if low else f"{mean} [no interval]"


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else _number(value, "{:.3f}")


def _more_seeds(row: pd.Series[Any]) -> str:
    """How many more seeds would probably decide an undecided arm."""
    more = row["seeds_needed"] - row["n"]
    return f"{more:.0f}" if row["verdict"] == "undecided" and more > 0 else ""


MIN_SEEDS_FOR_BCA = 20  # with 10, "95 %" intervals hold the truth in 90 % of simulated studies, with 3 in 73 %
_TEST_NAMES = {"t": "a paired t test", "sign_flip": "an exact paired sign-flip test"}
_INTERVAL_NAMES = {"t": "t interval", "bca": "BCa bootstrap interval"}


def caption(
    runs: pd.DataFrame,
    arms: pd.DataFrame,
    settings: StatsConfig,
    *,
    chosen_by_validation: bool = False,
    made_with: str = "",
) -> str:
    """What was measured and how, in the words of a paper's table caption.

    Args:
        runs: the table of runs.
        arms: the table of arms made from it.
        settings: as used for `arms`.
        chosen_by_validation: whether arms came from a greedy study.
        made_with: hardware and versions.
    """
    sentences = [*_measured(arms, settings), *_compared(arms, settings), _CHOICE[chosen_by_validation]]
    if arms["seeds_needed"].notna().any():
        sentences.append("More seeds is how many would probably decide it (80 % power at the observed spread).")
    sentences.append(_timed(runs))
    failed = int((runs["status"] == "failed").sum())
    if failed:
        sentences.append(f"{failed} of {len(runs)} runs failed and have no score.")
    diverged = int((runs["status"] == "diverged").sum())
    if diverged:
        sentences.append(f"{diverged} of {len(runs)} runs diverged and count as what they scored.")
    reused = int(runs["reused"].astype(bool).sum()) if "reused" in runs.columns else 0
    if reused:
        sentences.append(f"{reused} of {len(runs)} runs were reused from earlier studies, with their times of then.")
    return " ".join([*sentences, made_with]).strip()


def _timed(runs: pd.DataFrame) -> str:
    trained = runs[runs["status"] != "failed"]
    counts = sorted(set(trained["concurrent_runs"])) if "concurrent_runs" in runs.columns else []
    words = ["one run at a time" if count == 1 else f"{count} runs side by side" for count in counts]
    how = f", measured with {' and with '.join(words)}" if words else ""
    return f"Train s is the time of training steps alone{how}."


_CHOICE = {
    False: "All arms were fixed before the first run; the study chose nothing by a score.",
    True: "At each step the level with the best mean validation accuracy was kept and the next knob tried on top; test "
    "scores are shown only for what validation kept. The seeds that chose also report, which flatters what was kept.",
}


def reference_words(arms: pd.DataFrame) -> str:
    """What the arms of a table are compared with."""
    return "the full configuration" if FULL in set(arms["arm"]) else "the baseline"


def _measured(arms: pd.DataFrame, settings: StatsConfig) -> Iterator[str]:
    confidence, counts = f"{100 * (1 - settings.alpha):g} %", sorted(set(arms["n"]))
    how_many = f"n = {counts[0]}" if len(counts) == 1 else f"n from {counts[0]} to {counts[-1]}"
    yield (
        f"Top-1 test accuracy at the end of training, mean and {confidence} {_INTERVAL_NAMES[settings.interval]} over "
        f"seeds ({how_many}), which differ in initial weights, order of images and dropout, not in the split of data."
    )
    if settings.interval == "bca" and counts[0] < MIN_SEEDS_FOR_BCA:
        yield f"BCa intervals from fewer than {MIN_SEEDS_FOR_BCA} seeds are too narrow; t intervals are not."


def _compared(arms: pd.DataFrame, settings: StatsConfig) -> Iterator[str]:
    """Test, correction and bars of the differences; nothing where there is nothing to compare."""
    comparisons = int((arms["p_value"].notna() | arms["delta_pp"].notna() | (arms["n"] == 0)).sum())
    if not comparisons:
        return
    bars, test = "simultaneous" if settings.simultaneous else "individual", _TEST_NAMES[settings.test]
    yield (
        f"Differences from {reference_words(arms)} are paired by seed, with {bars} intervals, {test} and "
        f"Holm's correction over {counted(comparisons, 'comparison')} at {settings.alpha:g}; equivalent means two "
        f"one-sided tests inside ±{settings.margin_pp:g} percentage points, corrected likewise."
    )
