"""How much room letters take: a picture's size is known, and its names are folded, before matplotlib is imported."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

SMALL = 8.33
"""Points, of names and numbers: what matplotlib calls small beside its usual 10."""
LINE = 0.147
"""Inches from one line of such letters to the next."""

# Advances of DejaVu Sans, matplotlib's own font, in hundredths of an em, rounded up; letters of other alphabets are
# taken for as wide as high.
_ADVANCES = {
    28: "'ijl",
    32: " ,.IJ",
    34: "/:;\\|",
    37: "-f",
    41: "()[]!rt",
    50: '*_`"',
    56: "?Lcsz",
    62: "FPTYaekovxy",
    66: "$0123456789EKSbdghnpqu{}",
    70: "ABCRVXZ",
    79: "&DGHNOQU",
    84: "#+<=>^w~",
    87: "M",
    100: "%@Wm",
}
_ADVANCE = {letter: hundredths / 100 for hundredths, letters in _ADVANCES.items() for letter in letters}
_BREAK_BEFORE = re.compile(r",(?=[\w.]+=)")
_BREAK_AFTER = ",;:/._=-}]) "
_ELLIPSIS = "\u2026"


def points(text: str, size: float = SMALL) -> float:
    """The width of a text in points; of several lines that of the longest."""
    return max(sum(_ADVANCE.get(letter, 1.0) for letter in line) * size for line in text.split("\n"))


def lines_of(text: str) -> int:
    """How many lines a text has."""
    return 1 + text.count("\n")


def folded(arm: str, room: float = math.inf) -> str:
    """An arm's name with one setting per line; commas inside lists and dictionaries stay, and $ starts no formula.

    Args:
        arm: its name.
        room: points that a line may take; a longer setting goes on in the next one.
    """
    settings = _BREAK_BEFORE.sub(",\n", arm.replace("\n", " ")).split("\n")
    return as_text("\n".join(line for setting in settings for line in _broken(setting, room)))


def as_text(text: str) -> str:
    """As matplotlib takes it: $ starts no formula, and no character is half of one."""
    return text.encode(errors="replace").decode().replace("$", r"\$")


def wrapped(text: str, room: float, size: float = SMALL) -> str:
    """A sentence in lines of at most so many points, broken between words."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and points(longer, size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def shortened(names: Sequence[str], room: float) -> list[str]:
    """Names of at most so many points: the middle of a longer one is left out, its place in the list told instead where
    others would read the same.
    """
    short = [_without_the_middle(name, room) for name in names]
    return [
        text if short.count(text) == 1 else _without_the_middle(f"({place}) {name}", room)
        for place, (text, name) in enumerate(zip(short, names, strict=True), start=1)
    ]


def _without_the_middle(name: str, room: float) -> str:
    if points(name) <= room:
        return name
    head, tail = "", ""
    while points(head + _ELLIPSIS + tail) < room - SMALL:
        if len(tail) < len(head):
            tail = name[-1 - len(tail) :]
        else:
            head = name[: len(head) + 1]
    return head + _ELLIPSIS + tail


def _broken(text: str, room: float) -> list[str]:
    """A text in pieces of at most so many points, broken where a mark ends or, where there is none, anywhere."""
    lines, start = [], 0
    while start < len(text):
        end = _end_of_line(text, start, room)
        lines.append(text[start:end])
        start = end
    return lines or [""]


def _end_of_line(text: str, start: int, room: float) -> int:
    width, last_mark, last_comma = 0.0, start, start
    for place in range(start, len(text)):
        width += _ADVANCE.get(text[place], 1.0) * SMALL
        if width > room and place > start:
            far_enough = start + (place - start) // 2
            return next((mark for mark in (last_comma, last_mark) if mark > far_enough), place)
        if text[place] in _BREAK_AFTER and not (text[place] in ".-" and text[place + 1 : place + 2].isdigit()):
            last_mark = place + 1
            last_comma = place + 1 if text[place] in ", " else last_comma
    return len(text)
