"""Notes of a table's rows below the table: numbered, each of them once. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_PARTIAL = re.compile(r"time ratio from (\d+) of (\d+) seeds: (.+)")
"""The one note of which rows differ in nothing but how many seeds (`analysis.notes.uncompared_times`)."""


@dataclass(frozen=True)
class NumberedNotes:
    """What stands below a table, and which of it each row points to."""

    texts: list[str]
    """Note 1, note 2, ..., in the order of the rows that have them."""
    numbers: list[list[int]]
    """Of each row, in ascending order, counted from 1."""

    def marks(self, row: int) -> str:
        """What a row points to: `1, 3`."""
        return ", ".join(map(str, self.numbers[row]))

    def items(self) -> list[tuple[int, str]]:
        """Numbers with their texts."""
        return list(enumerate(self.texts, start=1))


def numbered(rows: Sequence[Sequence[str]]) -> NumberedNotes:
    """Numbers what rows have to say.

    Args:
        rows: the notes of each row.
    """
    alike: dict[str, list[str]] = {}
    for note in (note for notes in rows for note in notes):
        alike.setdefault(_kind(note), []).append(note)
    number = {kind: count for count, kind in enumerate(alike, start=1)}
    return NumberedNotes(
        [_together(notes) for notes in alike.values()],
        [sorted({number[_kind(note)] for note in notes}) for notes in rows],
    )


def apart(rows: Sequence[Sequence[str]]) -> tuple[list[list[str]], NumberedNotes]:
    """Notes of single rows as they are, and those that several rows share, numbered.

    Args:
        rows: the notes of each row.
    """
    counts = Counter(kind for notes in rows for kind in {_kind(note) for note in notes})
    own = [[note for note in notes if counts[_kind(note)] == 1] for notes in rows]
    shared = [[note for note in notes if counts[_kind(note)] > 1] for notes in rows]
    return own, numbered(shared)


def _kind(note: str) -> str:
    """Equal for notes that become one."""
    found = _PARTIAL.fullmatch(note)
    return f"time ratio: {found[3]}" if found else note


def _together(notes: Sequence[str]) -> str:
    """Notes of one kind in one text, with the range of what they differ in."""
    if len(set(notes)) == 1:
        return notes[0]
    found = [match for note in notes if (match := _PARTIAL.fullmatch(note))]
    seeds = sorted({(int(match[1]), int(match[2])) for match in found}, key=lambda pair: (pair[0] / pair[1], pair[1]))
    (least, of_least), (most, of_most) = seeds[0], seeds[-1]
    return f"time ratio from {least} of {of_least} to {most} of {of_most} seeds: {found[0][3]}"
