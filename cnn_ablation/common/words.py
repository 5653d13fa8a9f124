"""Words in messages."""

from __future__ import annotations

import difflib


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def nearest(word: str, candidates: list[str]) -> str | None:
    """The candidate spelled most like `word`, or None if none is close."""
    in_small = {candidate.lower(): candidate for candidate in reversed(candidates)}
    found = difflib.get_close_matches(word.lower(), in_small, n=1, cutoff=0.6)
    return in_small[found[0]] if found else None
