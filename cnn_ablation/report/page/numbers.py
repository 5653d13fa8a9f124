"""Numbers as a page shows them: with a minus sign, and with as many digits as their interval lets one believe."""

from __future__ import annotations

import math
import re

MINUS = "\u2212"


def written(value: float, form: str) -> str:
    """A number by a format of `report.text`, `{:+.2f}`; empty where there is none, without the sign of a zero."""
    if not math.isfinite(value):
        return ""
    text = form.format(value)
    if not any(digit in text for digit in "123456789"):
        text = text.replace("-", "+" if "{:+" in form else "")
    return text.replace("-", MINUS)


def with_minus(words: str) -> str:
    """A note with a minus sign before its negative numbers; ranges, names and powers of ten stay."""
    return re.sub(r"(?<![\w\])}=-])-(?=\d)", MINUS, words)


def interval(low: float, high: float, form: str) -> str:
    """`[2.4, 4.2]`; empty where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    plain = form.replace("+", "", 1)
    return f"[{written(low, plain)}, {written(high, plain)}]"


def points_format(difference: float, half_width: float) -> str:
    """Of a difference in percentage points: a second decimal where it is small, and its interval too."""
    return "{:+.1f}" if max(abs(difference) / 2, half_width) >= 1 else "{:+.2f}"


def times(ratio: float) -> str:
    """`2.2 times`, `1.07 times`, `12 times`: two digits, and a third one near 1."""
    if ratio >= 9.95:
        return f"{ratio:.0f} times"
    if ratio < 0.0995:
        return f"{ratio:.2g} times"
    return f"{ratio:.2f} times" if ratio < 1.095 else f"{ratio:.1f} times"


def counted_in_words(number: int) -> str:
    """`three`; figures beyond twelve."""
    return _WORDS[number] if 0 <= number < len(_WORDS) else str(number)


_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
