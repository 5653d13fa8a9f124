"""How many seeds each arm of a study has, where they are added until it has a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cnn_ablation.common.words import counted
from cnn_ablation.config import AUTO, StudyConfig


@dataclass(frozen=True)
class AddedSeeds:
    """The plan of a study with `replicates=auto`: the seeds of every arm begin with the study's first."""

    min_replicates: int
    """Of every arm."""
    max_replicates: int
    """Of an arm that has no verdict before."""
    replicates: dict[str, int]
    """Arm -> how many of the study's seeds it has so far, trained or about to be."""

    def check(self, arms: Iterable[str], num_seeds: int) -> None:
        """Refuses what no study would write, because a person may have edited it.

        Args:
            arms: of the plan.
            num_seeds: of the plan.

        Raises:
            ValueError: with the first mistake.
        """
        bounds = (self.min_replicates, self.max_replicates)
        if any(type(bound) is not int for bound in bounds) or not 1 < bounds[0] <= bounds[1]:
            raise ValueError(f"auto: min_replicates {bounds[0]!r} and max_replicates {bounds[1]!r}")
        counts: Any = self.replicates
        for arm in arms:
            count = counts.get(arm) if isinstance(counts, dict) else counts
            if type(count) is not int or not 1 <= count <= num_seeds:
                raise ValueError(f"auto: replicates of {arm}: {count!r}; 1 to {num_seeds} are wanted")

    def words(self) -> str:
        """How many arms have how many seeds: `3 arms have 3, 1 arm has 7`."""
        counts = sorted(self.replicates.values())
        numbers = [(count, counts.count(count)) for count in dict.fromkeys(counts)]
        return ", ".join(f"{counted(arms, 'arm')} {'has' if arms == 1 else 'have'} {count}" for count, arms in numbers)


def added_seeds(baseline: StudyConfig, replicates: Mapping[str, int]) -> AddedSeeds | None:
    """The plan's entry; None for a study with a fixed number of seeds."""
    if not baseline.adds_seeds:
        return None
    return AddedSeeds(baseline.min_replicates, baseline.max_replicates, dict(replicates))


def idle_keys(baseline: StudyConfig) -> Iterator[str]:
    """What is given and has no effect, in words."""
    if baseline.adds_seeds:
        return
    for key in ("min_replicates", "max_replicates"):
        value, default = getattr(baseline, key), getattr(StudyConfig(), key)
        if value != default:
            yield f"{key}={value} has no effect without replicates={AUTO}"
