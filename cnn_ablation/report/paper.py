"""The section "paper against ours": a paper's figures beside a study's."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from cnn_ablation.papers import COUNT, DIFFERENT, EQUAL, HIGHER, INSIDE, LOWER, UNKNOWN, Paper
from cnn_ablation.report.files import markdown


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
        "ours": f"{ours} [{low}, {high}]" if row["agreement"] in (INSIDE, HIGHER, LOWER) else ours,
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
        f"Of the paper's {len(comparison)} figures {summary}. Intervals are t intervals over our seeds.",
    ]
    return "\n\n".join(lines) + "\n"


_COUNTED = {
    EQUAL: "are counts that are equal",
    DIFFERENT: "are counts that differ",
    INSIDE: "lie inside our interval",
    HIGHER: "lie above it",
    LOWER: "lie below it",
    UNKNOWN: "have no interval of ours to compare with (one seed)",
}


def print_section(paper: Paper, comparison: pd.DataFrame, departures: Iterable[str]) -> None:
    """Prints the section, without figures of single classes."""
    is_terminal = sys.stdout.isatty()
    console = Console(force_terminal=is_terminal, width=None if is_terminal else 160, highlight=False, markup=False)
    whole = readable_comparison(comparison[comparison["class"] == ""])
    otherwise = "; ".join(departures)
    table = Table(
        title=f"Paper against ours: {paper.source}",
        title_justify="left",
        caption=f"Otherwise than in the paper: {otherwise}." if otherwise else None,
        caption_justify="left",
        box=box.SIMPLE,
    )
    for name in whole.columns:
        table.add_column(name, justify="right" if name in ("paper", "ours", "n") else "left", overflow="fold")
    for row in whole.itertuples(index=False):
        table.add_row(*row)
    console.print(table)
