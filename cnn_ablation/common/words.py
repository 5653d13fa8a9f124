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


def is_slip(word: str, meant: str) -> bool:
    """Whether it differs in capitals alone, or by a letter too many, too few, or two that changed places.

    Names with another letter, as `size_x` and `size_y`, or with another digit, as `lr` and `lr2`, are often of a kind;
    names of one letter are all alike.
    """
    word, meant = word.lower(), meant.lower()
    if word == meant:
        return True
    short, long = sorted((word, meant), key=len)
    if len(short) < 2 or len(long) - len(short) > 1 or any(map(str.isdigit, set(word) ^ set(meant))):
        return False
    if len(short) < len(long):
        return any(long[:place] + long[place + 1 :] == short for place in range(len(long)))
    swapped = (word[:place] + word[place + 1] + word[place] + word[place + 2 :] for place in range(len(word) - 1))
    return meant in swapped


def nearest(word: str, candidates: list[str]) -> str | None:
    """The candidate spelled most like `word`, or None if none is close."""
    in_small = {candidate.lower(): candidate for candidate in reversed(candidates)}
    found = difflib.get_close_matches(word.lower(), in_small, n=1, cutoff=0.6)
    return in_small[found[0]] if found else None
