"""What the seeds of an arm vary, where a study varies that itself: `-m vary=[init],[order]`. Pure."""

from __future__ import annotations

VARY = "vary"
"""The key that names the sources of chance which follow a run's seed, and the column of the table of runs."""


def sources(level: str) -> tuple[str, ...]:
    """The sources that a level of `vary` names: `[init,order]` -> init, order."""
    return tuple(name for name in level.strip("[] ").replace(" ", "").split(",") if name)
