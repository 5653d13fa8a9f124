"""Words in messages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def nearest(word: str, candidates: list[str]) -> str | None:
    """The candidate spelled most like `word`, or None if none is close."""
    in_small = {candidate.lower(): candidate for candidate in reversed(candidates)}
    found = difflib.get_close_matches(word.lower(), in_small, n=1, cutoff=0.6)
    return in_small[found[0]] if found else None
