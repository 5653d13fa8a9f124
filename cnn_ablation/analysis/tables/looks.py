"""Comparisons over looks at a table: alpha is divided between the first look and all later ones (Bonferroni).

The first look is judged by the test that was chosen, for the number of seeds that was fixed beforehand, at its share of
alpha. Seeds that are added are judged by the test that holds at every number of seeds, at the share that is reserved.
What the first look decided is computed again from its own seeds, so that it stays decided. By the union bound all looks
together are wrong with a probability of at most alpha, whenever one stops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cnn_ablation.analysis import stats
from cnn_ablation.config import ANYTIME, StatsConfig
from cnn_ablation.study.metric import metric_of

Stage = str
FIRST, LATER, BEFORE = "first", "later", "before"
"""An arm whose seeds are those of its first look; one with more; one of which planned runs of it are missing."""

ATTRIBUTE = "looks"
"""Of a table of arms: how many arms there are in each stage, and the numbers of seeds of their first looks."""

Tested = tuple[stats.Comparison, stats.Comparison]
"""A comparison, with p-values of its own and with those that are corrected for the number of comparisons."""

Judged = tuple[stats.Comparison, float, str]
"""The comparison that a table shows, its corrected p-value, and the verdict."""


@dataclass(frozen=True)
class Alpha:
    """How alpha is divided. A test that holds at every look spends it as it goes, and reserves nothing."""

    settings: StatsConfig

    @property
    def reserve(self) -> float:
        """The share for seeds that are added."""
        return 0.0 if self.settings.test == ANYTIME else self.settings.reserve

    @property
    def first(self) -> float:
        return (1 - self.reserve) * self.settings.alpha

    @property
    def reserved(self) -> float:
        return self.reserve * self.settings.alpha

    @property
    def later(self) -> StatsConfig:
        """What judges later looks. Intervals keep their confidence."""
        return replace(self.settings, test=ANYTIME)

    @property
    def for_more_seeds(self) -> StatsConfig:
        """What would judge seeds that are added; with nothing reserved those of a study that is planned anew."""
        return replace(self.later, alpha=self.reserved) if self.reserved else self.settings

    def level(self, stage: Stage) -> tuple[str, float]:
        """The test that may still decide an arm, and its level before any correction."""
        return (self.settings.test, self.first) if stage == FIRST else (ANYTIME, self.reserved)

    def divided(self, first: float, later: float) -> tuple[float, float]:
        """The p-values of both tests, each as what it says of the whole of alpha."""
        shares = ((first, 1 - self.reserve), (later, self.reserve))
        once, since = (min(p / share, 1.0) if share else 1.0 + 0 * p for p, share in shares)
        return once, since


def judged(first: Sequence[Tested], later: Sequence[Tested], alpha: Alpha) -> list[Judged]:
    """Every arm by the smaller of its p-values, each corrected among its own kind and divided by its share of alpha.

    Args:
        first: on the seeds of the first look; of no seeds where planned runs of it are missing.
        later: on all seeds, by the test that always holds; of no seeds where all are those of the first look.
        alpha: how it is divided.
    """
    return [_judged(alpha, *once, *since) for once, since in zip(first, later, strict=True)]


def _judged(
    alpha: Alpha,
    first: stats.Comparison,
    first_corrected: stats.Comparison,
    later: stats.Comparison,
    later_corrected: stats.Comparison,
) -> Judged:
    """What a table shows: the later comparison where there is one, its uncorrected p-value put together likewise."""
    p_values = alpha.divided(first_corrected.p_value, later_corrected.p_value)
    equivalences = alpha.divided(first_corrected.p_equivalence, later_corrected.p_equivalence)
    is_later = not math.isnan(later.difference.mean)
    decided_first = not is_later or p_values[0] <= alpha.settings.alpha  # which side it was found on stays, too
    mean = (first if decided_first else later).difference.mean
    p_holm = _smaller(p_values)
    verdict = stats.verdict(metric_of(alpha.settings), mean, p_holm, _smaller(equivalences), alpha.settings.alpha)
    p_value = _smaller(alpha.divided(first.p_value, later.p_value))
    return replace(later if is_later else first, p_value=p_value), p_holm, verdict


def _smaller(p_values: tuple[float, float]) -> float:
    """NaN where no test was possible."""
    return float(np.fmin(*p_values))
