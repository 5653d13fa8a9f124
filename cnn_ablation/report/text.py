"""The table of arms as a reader wants it: rounded, with intervals, and with a caption that says what was done."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd


def readable_table(arms: pd.DataFrame) -> pd.DataFrame:
    """The table of arms as text, one column per question a reader asks; empty where a number cannot be computed."""
    return pd.DataFrame(
        {
            "arm": arms["arm"],
            "n": arms["n"].astype(str),
            "test accuracy %": [
                _with_interval(row, "test_accuracy_mean", "test_accuracy_ci_low", "test_accuracy_ci_high", 100, "{:.2f}")
                for row in _rows(arms)
            ],
            "difference pp": [
                _with_interval(row, "delta_pp", "delta_ci_low_pp", "delta_ci_high_pp", 1, "{:+.2f}")
                for row in _rows(arms)
            ],
            "p (Holm)": [_p_value(row["p_holm"]) for row in _rows(arms)],
            "verdict": [_verdict(row) for row in _rows(arms)],
            "train s": [_number(row["train_seconds_mean"], "{:.2f}") for row in _rows(arms)],
            "time ratio": [
                _with_interval(row, "time_ratio", "time_ratio_ci_low", "time_ratio_ci_high", 1, "{:.2f}")
                if row["verdict"] != "baseline"
                else ""
                for row in _rows(arms)
            ],
            "notes": arms["notes"],
        }
    )


def _rows(arms: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in arms.to_dict("records")]


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _with_interval(row: dict[str, Any], mean: str, low: str, high: str, factor: float, form: str) -> str:
    """`95.81 [93.80, 97.82]`; the brackets say so where there is no interval."""
    if math.isnan(row[mean]):
        return ""
    if math.isnan(row[low]):
        return f"{form.format(factor * row[mean])} [no interval]"
    return f"{form.format(factor * row[mean])} [{form.format(factor * row[low])}, {form.format(factor * row[high])}]"


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else _number(value, "{:.3f}")


def _verdict(row: dict[str, Any]) -> str:
    """An undecided arm says how many more seeds would probably decide it."""
    needed = row["seeds_needed"]
    if row["verdict"] != "undecided" or math.isnan(needed) or needed <= row["n"]:
        return str(row["verdict"])
    more = int(needed) - int(row["n"])
    return f"undecided (about {more} more seed{'' if more == 1 else 's'})"


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
        "Levels were fixed in advance; nothing was chosen by a test score.",
        "Train s is the time of training steps alone.",
    ]
    failed = int((runs["status"] == "failed").sum())
    if failed:
        sentences.append(f"{failed} of {len(runs)} runs failed and have no score.")
    if made_with:
        sentences.append(made_with)
    return " ".join(sentences)
