"""How many seeds a verdict probably takes, where they are added until there is one: from runs that are there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.analysis import anytime
from cnn_ablation.analysis.anytime import Floats
from cnn_ablation.config import StatsConfig
from cnn_ablation.study.metric import metric_of

FEWEST_RUNS = 3
"""Below which a spread says nothing."""
_FUTURES = 400


@dataclass(frozen=True)
class ExpectedSeeds:
    """The 10th, 50th and 90th percentile of the number of seeds until a verdict; infinite beyond the most."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Rule:
    """When a study of so many comparisons stops adding seeds to an arm."""

    settings: StatsConfig
    num_comparisons: int
    fewest: int
    most: int

    def expected(self, futures: Floats) -> ExpectedSeeds:
        """Args: (futures, most) differences from the baseline, in the metric's unit as it is shown."""
        numbers = np.arange(2, self.most + 1)
        decided = self._decided(futures) & (numbers >= self.fewest)
        stops = np.where(decided.any(axis=-1), numbers[np.argmax(decided, axis=-1)], math.inf)
        return ExpectedSeeds(*(float(each) for each in np.quantile(stops, (0.1, 0.5, 0.9), method="nearest")))

    def _decided(self, futures: Floats) -> npt.NDArray[np.bool_]:
        """Whether the first 2, 3, ... seeds suffice, with Bonferroni's correction, the largest step of Holm's."""
        level, margin = self.settings.alpha / max(self.num_comparisons, 1), metric_of(self.settings).margin

        differs: npt.NDArray[np.bool_] = anytime.p_values(futures, "two-sided") <= level
        if margin is None:
            return differs
        above, below = anytime.p_values(futures + margin, "greater"), anytime.p_values(futures - margin, "less")
        equivalent: npt.NDArray[np.bool_] = np.maximum(above, below) <= level
        return differs | equivalent


def of_arm(differences: Floats, rule: Rule) -> ExpectedSeeds:
    """Of an arm, given its differences (n,) from the baseline in the first seeds: these, then what they make likely.

    Mean and spread of what is to come are drawn from their posterior under Jeffreys' prior, for normal differences.
    """
    generator, count = np.random.default_rng(0), len(differences)
    spread = _spreads(np.std(differences, ddof=1), count - 1, generator)
    mean = np.mean(differences) + spread * generator.standard_normal((_FUTURES, 1)) / math.sqrt(count)
    futures = mean + spread * generator.standard_normal((_FUTURES, rule.most))
    known = min(count, rule.most)
    futures[:, :known] = differences[:known]
    return rule.expected(futures)


def of_effect(effect: float, scores: Floats, rule: Rule) -> ExpectedSeeds:
    """Of an arm of which nothing is known but the scores (n,) of the baseline, if pairing by seed gains nothing.

    Args:
        effect: the true difference.
        scores: in the unit of the effect; the difference of two such scores has twice their variance.
        rule: of the study.
    """
    generator = np.random.default_rng(0)
    spread = math.sqrt(2) * _spreads(np.std(scores, ddof=1), len(scores) - 1, generator)
    return rule.expected(effect + spread * generator.standard_normal((_FUTURES, rule.most)))


def _spreads(observed: Any, freedom: int, generator: np.random.Generator) -> Floats:
    """True deviations (futures, 1) that an observed one makes likely."""
    found: Floats = observed * np.sqrt(freedom / generator.chisquare(freedom, (_FUTURES, 1)))
    return found
