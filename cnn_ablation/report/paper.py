"""The section "paper against ours": a paper's figures beside a study's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table

from cnn_ablation.report.markdown import markdown
from cnn_ablation.report.papers import (
    CANNOT_TELL,
    COUNT,
    DIFFERENT,
    EQUAL,
    FEWEST_SEEDS,
    HIGHER,
    INSIDE,
    LOWER,
    UNKNOWN,
    WIDEST,
    Paper,
)
from cnn_ablation.report.terminal import printable, standard_output

_WIDTH_WITHOUT_TERMINAL = 160


def readable_comparison(comparison: pd.DataFrame) -> pd.DataFrame:
    """The frame of `papers.compare` as text: fractions in percent, differences in points, times in seconds."""
    return pd.DataFrame([_readable(row) for _, row in comparison.iterrows()])


def _readable(row: pd.Series[Any]) -> dict[str, str]:
    figure = str(row["figure"])
    unit, factor, form = _unit(figure)
    paper, ours, low, high = (form.format(factor * row[name]) for name in ("paper", "ours", "ci_low", "ci_high"))
    words = figure.removesuffix("_difference").replace("_", " ") + (f" of {row['class']}" if row["class"] else "")
    return {
        "arm": row["arm"],
        "figure": f"{words}{unit}",
        "paper": paper,
        "ours": ours if figure == COUNT or math.isnan(row["ci_low"]) else f"{ours} [{low}, {high}]",
        "n": str(row["n"]),
        "the paper's is": row["agreement"],
        "printed in": row["where"],
        "why": row["why"],
    }


def _unit(figure: str) -> tuple[str, float, str]:
    """What stands behind a figure's name, its factor and its form."""
    if figure == COUNT:
        return "", 1, "{:,.0f}"
    if figure.endswith("_seconds"):
        return ", s", 1, "{:.1f}"
    if figure.endswith("_difference"):
        return " minus the baseline's, pp", 100, "{:+.2f}"
    return ", %", 100, "{:.2f}"


def section(paper: Paper, comparison: pd.DataFrame, departures: Iterable[str]) -> str:
    """The whole section as Markdown: source, what our protocol does otherwise, one row per figure, a count."""
    otherwise = "; ".join(departures)
    counts = comparison["agreement"].value_counts()
    summary = ", ".join(f"{counts[word]} {_COUNTED[word]}" for word in _COUNTED if word in counts)
    lines = [
        "## Paper against ours",
        f"Figures of {paper.source}.",
        f"Otherwise than in the paper: {otherwise}." if otherwise else "Settings that the paper gives are the paper's.",
        markdown(readable_comparison(comparison)),
        f"Of the paper's {len(comparison)} figures {summary}.",
        HOW_TO_READ,
    ]
    return "\n\n".join(lines) + "\n"


HOW_TO_READ = (
    "A paper's figure is that of a single run. Our intervals are therefore prediction intervals: where one further "
    f"run of ours would lie. A comparison cannot tell with fewer than {FEWEST_SEEDS} seeds, inside an interval that is "
    f"wider than {100 * WIDEST:.0f} points or reaches down to guessing, and for seconds, which are of other hardware."
)
_COUNTED = {
    EQUAL: "are counts that are equal",
    DIFFERENT: "are counts that differ",
    INSIDE: "lie inside our interval",
    HIGHER: "lie above it",
    LOWER: "lie below it",
    UNKNOWN: "have no interval of ours to compare with (one seed, or no spread)",
    CANNOT_TELL: "cannot be compared",
}


def print_section(paper: Paper, comparison: pd.DataFrame, departures: Iterable[str]) -> None:
    """Prints the section, without figures of single classes."""
    console = standard_output(_WIDTH_WITHOUT_TERMINAL)
    whole = readable_comparison(comparison[comparison["class"] == ""]).map(printable)
    otherwise = printable("; ".join(departures))
    table = Table(
        title=printable(f"Paper against ours: {paper.source}"),
        title_justify="left",
        caption=" ".join([f"Otherwise than in the paper: {otherwise}."] * bool(otherwise) + [HOW_TO_READ]),
        caption_justify="left",
        box=box.SIMPLE,
    )
    for name in whole.columns:
        table.add_column(name, justify="right" if name in ("paper", "ours", "n") else "left", overflow="fold")
    for row in whole.itertuples(index=False):
        table.add_row(*row)
    console.print(table)
