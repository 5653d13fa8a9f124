"""Does the note "differences are skewed" stand where verdicts are false, and how often where nothing is wrong?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cnn_ablation.analysis import anytime, notes, skewness
from cnn_ablation.config import StatsConfig

ALPHA = StatsConfig().alpha
AT = (10, 20, 40)
"""Numbers of seeds at which a table is made."""


def told(differences: np.ndarray, margin: float) -> list[int]:
    """For each number of seeds, studies in which: skewness is marked; a false verdict stands without the note.

    Args:
        differences: (studies, m, looks) with a true mean of 0.
        margin: of the truth of all arms, for the verdict that they are equivalent, which is false at +margin.

    Returns:
        Three counts for each of `AT`: marked, false differences without the note, false equivalences without it.
    """
    return [count for number in AT for count in _told(differences[..., :number], margin)]


def _told(differences: np.ndarray, margin: float) -> Iterator[int]:
    num_arms = differences.shape[1]
    skew = skewness.marked(list(np.moveaxis(differences, 1, 0)))
    low, high = anytime.limits(differences, ALPHA / num_arms)
    is_above = differences.mean(axis=-1) > 0  # evidence for the side where the mean was before gives no verdict now
    differs = ~np.where(is_above, low <= 0, high >= 0)
    verdicts = np.where(differs, np.where(is_above, "better", "worse"), "undecided")
    yield int((skew != 0).sum())
    yield int(_without_note(verdicts, skew, differences).sum())
    low, high = anytime.limits(differences, 2 * ALPHA / num_arms)
    is_inside = ~((low <= -2 * margin) | (high >= 0))
    yield int(_without_note(np.where(is_inside, "equivalent", "undecided"), skew, differences + margin).sum())


def _without_note(verdicts: np.ndarray, skew: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """Studies (studies,) with a verdict that stands without the note."""
    found = np.zeros(len(verdicts), dtype=bool)
    means = differences.mean(axis=-1)
    for study, arm in np.argwhere(verdicts != "undecided"):
        found[study] |= not list(notes.skewed(skew[study], verdicts[study, arm], means[study, arm]))
    return found
