"""The table of arms as a reader wants it: rounded, with intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cnn_ablation.report.numbered_notes import NumberedNotes, numbered
from cnn_ablation.study.metric import Metric, metric_of_table

TEXT_COLUMNS = {"arm", "verdict", "notes", "figure", "the paper's is", "printed in", "why"}
ELSEWHERE = "Intervals of the means and times in seconds are in ablation.csv."
"""What a narrow table leaves out."""
NOT_YET = "cannot be said yet"
"""How many more seeds an arm needs where those so far are too few to say."""


def readable_table(arms: pd.DataFrame) -> pd.DataFrame:
    """The table of arms as text, one column per question a reader asks; empty where a number cannot be computed."""
    metric = metric_of_table(arms.attrs, arms.columns)
    score, difference = score_formats(arms, metric)
    readable = pd.DataFrame([_readable(row, metric, score, difference) for row in arms.to_dict("records")])
    return readable.rename(columns={"p_holm": "p (Dunnett)" if arms.attrs.get("test") == "dunnett" else "p (Holm)"})


def narrow_table(arms: pd.DataFrame) -> tuple[pd.DataFrame, NumberedNotes]:
    """The same in few columns, for a page: scores without intervals, which `ELSEWHERE` says, and notes by number."""
    whole, notes = readable_table(arms), numbered(row_notes(arms, more_seeds_too=True))
    score, difference, p_value = whole.columns[2:5]
    columns = ["arm", "n", score, difference, p_value, "verdict", "time ratio"]
    narrow = whole[columns].assign(**{score: whole[score].str.partition(" ")[0]})
    marks = [notes.marks(row) for row in range(len(whole))]
    return (narrow.assign(notes=marks) if notes.texts else narrow), notes


def row_notes(arms: pd.DataFrame, *, more_seeds_too: bool = False) -> list[list[str]]:
    """The notes of every arm, one by one.

    Args:
        arms: the table of arms.
        more_seeds_too: with how many seeds an undecided arm lacks, for a table that has no column of them.
    """
    of_arms = arms["notes"].tolist()  # of a table that was read from a file those that are empty are no text
    found = [notes.split("; ") if isinstance(notes, str) and notes else [] for notes in of_arms]
    if not more_seeds_too:
        return found
    seeds = map(more_seeds, arms.to_dict("records"))
    return [notes + [f"more seeds: {words}"] * bool(words) for notes, words in zip(found, seeds, strict=True)]


def _readable(row: Mapping[Any, Any], metric: Metric, score: str, difference: str) -> dict[str, str]:
    mean, _, low, high = metric.estimate
    names = (f"{metric.words} %", "difference pp") if metric.is_accuracy else (f"mean {metric.column}", "difference")
    return {
        "arm": row["arm"],
        "n": str(row["n"]),
        names[0]: with_interval([metric.factor * row[name] for name in (mean, low, high)], score),
        names[1]: with_interval([row[name] for name in metric.delta], difference),
        "p_holm": _p_value(row["p_holm"]),
        "verdict": row["verdict"],
        "more seeds": more_seeds(row),
        "train s": _number(row["train_seconds_mean"], "{:.2f}"),
        "time ratio": "" if row["verdict"] == "baseline" else _time_ratio(row),
        "notes": row["notes"],
    }


_BREAKS = re.compile(r"(?<=[,=_/:;\])}|&])(?=.)|(?<=[.-])(?=[A-Za-z])|(?<=[0-9A-Za-z])(?=[\[({])")
_LONGEST_PIECE = 16


def name_pieces(name: str) -> list[str]:
    """The pieces of an arm's name between which it may go on in the next line: behind punctuation, not in numbers."""
    return [
        piece[start : start + _LONGEST_PIECE]
        for piece in _BREAKS.split(name)
        for start in range(0, len(piece), _LONGEST_PIECE)
    ]


def difference_words(arms: pd.DataFrame, arm: str) -> str:
    """An arm's difference from the baseline as the table shows it, in one phrase: `+1.23 pp [+0.31, +2.15]`."""
    metric = metric_of_table(arms.attrs, arms.columns)
    row = arms[arms["arm"] == arm].iloc[0]
    mean, _, interval = with_interval(row[list(metric.delta)], score_formats(arms, metric)[1]).partition(" ")
    return f"{mean} {'pp' if metric.is_accuracy else f'in {metric.column}'} {interval}".strip()


def _time_ratio(row: Mapping[Any, Any]) -> str:
    """`1.44 [1.33, 1.56] slower`; a table of arms from before there were verdicts on times has none."""
    names = ("time_ratio", "time_ratio_ci_low", "time_ratio_ci_high")
    ratio = with_interval([row[name] for name in names], "{:.2f}")
    return f"{ratio} {row.get('time_verdict', '')}".strip()


def score_formats(arms: pd.DataFrame, metric: Metric) -> tuple[str, str]:
    """How the metric and its differences are written: accuracies with two decimals, others as exact as they are."""
    if metric.is_accuracy:
        return "{:.2f}", "{:+.2f}"
    mean, _, low, high = metric.estimate
    score, difference = (number_format(arms[list(columns)]) for columns in ((mean, low, high), metric.delta))
    return score, difference.replace("{:", "{:+")


def number_format(estimates: pd.DataFrame) -> str:
    """Decimals that show two digits of the middle one of the intervals' half-widths, or four digits without intervals.

    Args:
        estimates: mean, low and high of every arm.
    """
    means, lows, highs = (estimates[name].to_numpy(np.float64) for name in estimates)
    halves, sizes = _positive((highs - lows) / 2), _positive(np.abs(means))
    if not len(sizes):
        return "{:g}"
    largest = math.floor(math.log10(sizes.max()))
    last = math.floor(math.log10(np.median(halves))) - 1 if len(halves) else largest - 3
    if largest >= _LARGEST_PLAIN or largest <= _SMALLEST_PLAIN:
        return f"{{:.{max(largest - last, 0)}e}}"
    return f"{{:.{max(-last, 0)}f}}"


_LARGEST_PLAIN, _SMALLEST_PLAIN = 7, -4  # powers of ten beyond which numbers are written as 1.23e+08


def _positive(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = values[np.isfinite(values) & (values > 0)]
    return found


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def with_interval(estimate: Iterable[float], form: str) -> str:
    """`95.81 [93.80, 97.82]` from mean, low and high; says so where there is no interval."""
    mean, low, high = (_number(float(value), form) for value in estimate)
    if not mean:
        return ""
    return f"{mean} [{low}, {high}]" if low else f"{mean} [no interval]"


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else _number(value, "{:.3f}")


def more_seeds(row: Mapping[Any, Any]) -> str:
    """How many more seeds decide an undecided arm, in half and in 80 % of what is possible now: `7-22`."""
    from cnn_ablation.analysis.stats import MAX_SEEDS_NEEDED

    low, high = row["seeds_needed_low"] - row["n"], row["seeds_needed"] - row["n"]
    if row["verdict"] != "undecided" or math.isnan(low):
        return ""
    if row["seeds_needed_low"] >= MAX_SEEDS_NEEDED:
        return f">{low:.0f}" if low > 0 else ""
    if math.isnan(high):
        return NOT_YET
    least = max(low, 1)
    return f"{least:.0f}-{high:.0f}" if high > least else f"{high:.0f}" if high > 0 else ""
