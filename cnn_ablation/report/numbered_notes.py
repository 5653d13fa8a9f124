"""Notes of a table's rows below the table: numbered, each of them once. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_OF_MEASURING = re.compile(
    r"time ratio from \d+ of \d+ seeds: .+"
    r"|(seed \d+|\d+ of \d+ seeds) had the processor for .+"
    r"|\d+ seeds trained in one go: .+"
    r"|pairing widened the interval by .+"
)
"""Notes on how an arm was measured (`analysis.notes`): those that differ in nothing but numbers become one."""
_NUMBERS = re.compile(r"(?<!seed )\b(?:(\d+) of (\d+)|(\d+(?:\.\d+)?)(?: to (\d+))?)\b")
"""`4 of 5`, `12 to 17`, `1.4`; which seed it was is a name."""


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
    """Numbers what rows have to say: of each row one note of its own at most, and those that several rows share.

    Args:
        rows: the notes of each row.
    """
    own, shared = _own_and_shared(rows)
    return _counted([["; ".join(alone)] * bool(alone) + common for alone, common in zip(own, shared, strict=True)])


def apart(rows: Sequence[Sequence[str]]) -> tuple[list[list[str]], NumberedNotes]:
    """Notes of single rows as they are, and those that several rows share, numbered.

    Args:
        rows: the notes of each row.
    """
    own, shared = _own_and_shared(rows)
    return own, _counted(shared)


def _own_and_shared(rows: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Of each row the notes that no other has, and those that others have too, in the words of all of them."""
    counts = Counter(kind for notes in rows for kind in {_kind(note) for note in notes})
    alike: dict[str, list[str]] = {}
    for note in (note for notes in rows for note in notes):
        alike.setdefault(_kind(note), []).append(note)
    together = {kind: _together(notes) for kind, notes in alike.items()}
    own = [[note for note in dict.fromkeys(notes) if counts[_kind(note)] == 1] for notes in rows]
    shared = [[together[_kind(note)] for note in notes if counts[_kind(note)] > 1] for notes in rows]
    return own, shared


def _counted(rows: Sequence[Sequence[str]]) -> NumberedNotes:
    """Each text once, in the order of the rows that have it."""
    texts = list(dict.fromkeys(text for notes in rows for text in notes))
    number = {text: count for count, text in enumerate(texts, start=1)}
    return NumberedNotes(texts, [sorted({number[text] for text in notes}) for notes in rows])


def _kind(note: str) -> str:
    """Equal for notes that become one."""
    return _NUMBERS.sub(lambda found: "# of #" if found[1] else "#", note) if _OF_MEASURING.fullmatch(note) else note


def _together(notes: Sequence[str]) -> str:
    """Notes of one kind in one text, with the range of what they differ in."""
    if len(set(notes)) == 1:
        return notes[0]
    places = zip(*(list(_NUMBERS.finditer(note)) for note in notes), strict=True)
    ranges = iter([_range(found) for found in places])
    return _NUMBERS.sub(lambda _: next(ranges), notes[0])


def _range(found: Sequence[re.Match[str]]) -> str:
    """`3 of 5 to 4 of 5`, `12 to 17`."""
    if found[0][1]:
        shares = sorted({(int(each[1]), int(each[2])) for each in found}, key=lambda pair: (pair[0] / pair[1], pair[1]))
        ends = [f"{part} of {whole}" for part, whole in (shares[0], shares[-1])]
    else:
        numbers = [number for each in found for number in (each[3], each[4]) if number]
        ends = [min(numbers, key=float), max(numbers, key=float)]
    return " to ".join(dict.fromkeys(ends))
