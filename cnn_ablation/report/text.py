"""The table of arms as a reader wants it: rounded, with intervals, and with a caption that says what was done."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

TEXT_COLUMNS = {"arm", "verdict", "notes"}


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


def caption(runs: pd.DataFrame, arms: pd.DataFrame, *, alpha: float, margin_pp: float, made_with: str = "") -> str:
    """What was measured and how, in the words of a paper's table caption.

    Args:
        runs: the table of runs.
        arms: the table of arms made from it.
        alpha: as used for `arms`.
        margin_pp: as used for `arms`.
        made_with: hardware and versions.
    """
    confidence = f"{100 * (1 - alpha):g} %"
    comparisons = len(arms) - 1
    sentences = [
        f"Top-1 test accuracy at the end of training, mean and {confidence} t interval over n seeds; "
        "seeds differ in initial weights, order of images and dropout, not in the split of the data.",
        f"Differences from the baseline are paired by seed, with a paired t test and Holm's correction over "
        f"{comparisons} comparison{'' if comparisons == 1 else 's'} at {alpha:g}; "
        f"equivalent means two one-sided tests inside ±{margin_pp:g} percentage points, corrected likewise.",
        "More seeds is how many would probably decide it (80 % power at the observed spread).",
        "All arms were fixed before the first run; the study chose nothing by a score.",
        "Train s is the time of training steps alone.",
    ]
    failed = int((runs["status"] == "failed").sum())
    if failed:
        sentences.append(f"{failed} of {len(runs)} runs failed and have no score.")
    reused = int(runs["reused"].astype(bool).sum()) if "reused" in runs.columns else 0
    if reused:
        sentences.append(f"{reused} of {len(runs)} runs were reused from earlier studies, with their times of then.")
    if made_with:
        sentences.append(made_with)
    return " ".join(sentences)
