"""A table of texts whose first column names its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SimpleTable:
    """Rows of texts below headings."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    texts: frozenset[int] = frozenset()
    """Places of columns of words, besides the first; the others are numbers."""

    @property
    def is_worth_showing(self) -> bool:
        return bool(self.rows) and len(self.columns) > 1


def with_content(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], texts: set[int]) -> SimpleTable:
    """A table without the columns that are empty in all rows; the first stays."""
    rows = [list(row) for row in rows]
    kept = [place for place in range(len(columns)) if place == 0 or any(row[place] for row in rows)]
    return SimpleTable(
        caption,
        [columns[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
        frozenset(new for new, old in enumerate(kept) if old in texts),
    )
