"""Tables in Markdown."""

from __future__ import annotations

import re

import pandas as pd

from cnn_ablation.report.text import ELSEWHERE, TEXT_COLUMNS, narrow_table

_SPECIAL = re.compile(r"[\\|*`$~]|<(?=[A-Za-z/!?])|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|&(?=#?\w+;)")
"""What Markdown would take for markup; inside a word `_` is none, and most brackets are none."""


def markdown(readable: pd.DataFrame) -> str:
    """A table whose texts stay as they are: left for words, right for numbers."""
    sides = ["left" if name in TEXT_COLUMNS else "right" for name in readable.columns]
    return str(readable.to_markdown(index=False, disable_numparse=True, colalign=sides))


def markdown_page(arms: pd.DataFrame, caption: str) -> str:
    """The table of arms, its notes below it as a numbered list, and the caption."""
    narrow, notes = narrow_table(arms)
    below = "\n".join(f"{number}. {plain(text)}" for number, text in notes.items())
    parts = [_narrow(narrow.map(plain).rename(columns=plain)), below, f"{caption} {ELSEWHERE}".strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))


def _narrow(table: pd.DataFrame) -> str:
    """Columns as wide as their values, so that long headings make no row longer."""
    is_text = [name in TEXT_COLUMNS for name in table.columns]
    widths = [max(2, *table[name].str.len()) for name in table.columns]
    rule = [
        f":{'-' * (width - 1)}" if left else f"{'-' * (width - 1)}:"
        for left, width in zip(is_text, widths, strict=True)
    ]
    lines = []
    for row in [list(table.columns), rule, *map(list, table.itertuples(index=False))]:
        cells = (
            text.ljust(width) if left else text.rjust(width)
            for text, width, left in zip(row, widths, is_text, strict=True)
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
