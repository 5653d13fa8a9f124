"""Names of devices as PyTorch writes them: a kind, or one of several of a kind by its place (`cuda:1`)."""

from __future__ import annotations

import re

_NUMBERED = re.compile(r"(\w+):(0|[1-9][0-9]*)", re.ASCII)


def kind_of(name: str) -> str:
    """`cuda:1` -> `cuda`; a name without a place as it is."""
    found = _NUMBERED.fullmatch(name)
    return found[1] if found else name


def place_of(name: str) -> int | None:
    """`cuda:1` -> 1, counted from 0; None where a name says none."""
    found = _NUMBERED.fullmatch(name)
    return int(found[2]) if found else None
