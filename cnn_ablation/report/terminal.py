"""The ablation table on the terminal."""

from __future__ import annotations

import sys

import pandas as pd
from rich.console import Console
from rich.table import Table

from cnn_ablation.report.text import TEXT_COLUMNS, readable_table

_COLOURS = {"better": "green", "worse": "red", "equivalent": "cyan", "undecided": "yellow", "baseline": "bold"}
_WIDTH_WITHOUT_TERMINAL = 200


def print_table(arms: pd.DataFrame, caption: str) -> None:
    """Prints the table of arms to standard output, coloured by verdict on a terminal."""
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    table = Table(caption=caption, caption_justify="left", header_style="bold")
    readable = readable_table(arms)
    readable = readable.drop(columns=[name for name in ("more seeds", "notes") if not readable[name].any()])
    for column in readable.columns:
        table.add_column(column, justify="left" if column in TEXT_COLUMNS else "right", overflow="fold")
    for verdict, values in zip(arms["verdict"], readable.itertuples(index=False), strict=True):
        table.add_row(*values, style=_COLOURS[verdict])
    Console(width=width, highlight=False, markup=False).print(table)
