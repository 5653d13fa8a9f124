"""The comparisons of a study: every arm against the one that others are compared with, corrected for their number."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cnn_ablation.analysis import assurance, dunnett, stats
from cnn_ablation.analysis.tables import looks
from cnn_ablation.analysis.tables.first_look import Seeds
from cnn_ablation.analysis.tables.rows import ArmRuns, Pair, paired_values
from cnn_ablation.analysis.tables.stacked import at_once
from cnn_ablation.analysis.tables.times import paired_times
from cnn_ablation.config import ANYTIME, StatsConfig
from cnn_ablation.study.metric import TIMES, Metric, metric_of


@dataclass(frozen=True)
class Family:
    """What all comparisons of a table share. Arms with equally many seeds are computed at once."""

    baseline: ArmRuns
    settings: StatsConfig
    tested: dict[str, ArmRuns]
    first_look: Mapping[str, Seeds] = field(default_factory=dict)
    """By arm; of one that is not named, all its seeds."""
    num_looked_at_beside: int = 0
    """Arms that an earlier table had besides; they count as comparisons."""

    @property
    def num_beside(self) -> int:
        return 0 if self.settings.test == ANYTIME else self.num_looked_at_beside

    @property
    def num_comparisons(self) -> int:
        return len(self.tested) + self.num_beside

    @property
    def metric(self) -> Metric:
        return metric_of(self.settings)

    @property
    def alpha(self) -> looks.Alpha:
        """How alpha is divided between the first look and later ones."""
        return looks.Alpha(self.settings)

    def paired_scores(self, arm: ArmRuns, among: Seeds = None) -> Pair:
        """The metric of an arm and of the baseline, seed by seed; of times as `paired_times`.

        Args:
            arm: compared with the baseline.
            among: the seeds that are wanted; None for all.
        """
        if arm.metric in TIMES:
            return paired_times(arm, self.baseline, arm.metric, chosen="scored", among=among).values
        return paired_values(arm.scored.of_seeds(among), self.baseline.scored, arm.metric)

    @cached_property
    def stages(self) -> dict[str, looks.Stage]:
        """Of every arm that is tested: whether its seeds are those of its first look, more, or not yet all of those."""
        return {name: self._stage(name) for name in self.tested}

    def _stage(self, name: str) -> looks.Stage:
        if self.settings.test == ANYTIME or name not in self.first_look:
            return looks.FIRST
        arm, first = self.tested[name], self.first_look[name]
        if first is None or not set(first) <= set(arm["seed"]) & set(self.baseline["seed"]):
            return looks.BEFORE
        return looks.LATER if len(self.paired_scores(arm)[0]) > len(self.paired_scores(arm, first)[0]) else looks.FIRST

    def level(self, name: str) -> tuple[str, float]:
        """The test that may still decide an arm, and its level when no other arm is decided."""
        test, level = self.alpha.level(self.stages[name])
        return test, level / max(self.num_comparisons, 1)

    def look_attributes(self) -> dict[str, Any]:
        """For the caption: how many arms are judged how, and after how many seeds the first look was."""
        firsts = {len(self.first_look[name] or ()) for name, stage in self.stages.items() if stage == looks.LATER}
        found = {"stages": dict(Counter(self.stages.values())), "first_seeds": sorted(firsts)}
        return {looks.ATTRIBUTE: {**found, "beside": self.num_beside}}

    def differences(self, arm: ArmRuns) -> stats.Floats:
        """The metric of an arm minus the baseline's, seed by seed, in the unit of differences."""
        return stats.paired_differences(*self.paired_scores(arm), self.metric.factor)

    @property
    def is_paired(self) -> bool:
        """Whether arms and baseline are compared seed by seed."""
        return self.settings.test != dunnett.DUNNETT

    def decided(self) -> dict[str, tuple[stats.Comparison, float, str]]:
        """Of every arm that is tested: its comparison, its corrected p-value and its verdict."""
        return {
            name: (comparison, p_value, self._without_the_lost(self.tested[name], verdict))
            for name, (comparison, p_value, verdict) in self._tests.items()
        }

    @cached_property
    def _tests(self) -> dict[str, tuple[stats.Comparison, float, str]]:
        """The same with what the tests say, whatever was lost."""
        return dict(zip(self.tested, self._judged(), strict=True))

    def open(self) -> list[str]:
        """Arms without a verdict to which more seeds may bring one: none of those whose every run failed, and none
        whose verdict only those of its diverged runs withhold that have no metric.
        """
        undecided = [name for name, (_, _, verdict) in self._tests.items() if verdict == _OPEN]
        return [name for name in undecided if len(self.tested[name].scored)]

    def _judged(self) -> list[looks.Judged]:
        """Every arm on the seeds of its first look, on all of them where there are others too, or on both."""
        at_first = self._in_pairs(self._pair_at_first_look, self.settings) if self.is_paired else self._all_at_once()
        since = self._in_pairs(self._pair_since, self.alpha.later)
        judged = looks.judged(at_first, since, self.alpha)
        needed = self._seeds_needed(judged)
        return [(_with(found, needed.get(name)), p, verdict)
                for name, (found, p, verdict) in zip(self.tested, judged, strict=True)]  # fmt: skip

    def _in_pairs(self, pair_of: Callable[[str], Pair], settings: StatsConfig) -> list[looks.Tested]:
        """Every arm by itself, then corrected for their number."""
        compared = self._compare([pair_of(name) for name in self.tested], settings)
        corrected = stats.corrected([*compared, *[stats.NO_COMPARISON] * self.num_beside])
        return list(zip(compared, corrected, strict=False))

    def _all_at_once(self) -> list[looks.Tested]:
        """All arms in one test, with all seeds of each at its first look, whichever the baseline has."""
        found = dunnett.compared(self._many_to_one, self.settings)
        correlations = at_once(stats.seed_correlation, [self.paired_scores(arm) for arm in self.tested.values()])
        return [
            (dataclasses.replace(raw, seed_correlation=alike), corrected)
            for (raw, corrected), alike in zip(found, correlations, strict=False)
        ]

    @cached_property
    def _many_to_one(self) -> dunnett.ManyToOne:
        """At the first look; an arm of which planned runs are missing has no values, and counts."""
        arms = [self.tested[name].with_metric.of_seeds(self._seeds_at_once(name)) for name in self.tested]
        seeds = [seed for name, arm in zip(self.tested, arms, strict=True) for seed in arm["seed"].tolist()]
        is_first = all(stage == looks.FIRST for stage in self.stages.values())
        baseline = self.baseline.with_metric.of_seeds(None if is_first or not seeds else set(seeds))
        values = [arm[self.baseline.metric] for arm in (baseline, *arms)]
        return dunnett.many_to_one([*values[1:], *[np.zeros(0)] * self.num_beside], values[0], self.metric.factor)

    def _seeds_at_once(self, name: str) -> Seeds:
        known = {looks.FIRST: None, looks.LATER: self.first_look.get(name), looks.BEFORE: ()}
        return known[self.stages[name]]

    def _pair_at_first_look(self, name: str) -> Pair:
        return self.paired_scores(self.tested[name], self._seeds_at_once(name))

    def _pair_since(self, name: str) -> Pair:
        return _NO_PAIR if self.stages[name] == looks.FIRST else self._pair_in_order(name)

    def _pair_in_order(self, name: str) -> Pair:
        """All seeds, those of the first look before others: evidence counts seeds in the order they were added."""
        arm, first = self.tested[name], self.first_look.get(name) or ()
        others = [seed for seed in arm["seed"].tolist() if seed not in first]
        parts = self.paired_scores(arm, first), self.paired_scores(arm, others)
        ours, baselines = (np.concatenate(sides) for sides in zip(*parts, strict=True))
        return ours, baselines

    def _seeds_needed(self, judged: Sequence[looks.Judged]) -> dict[str, assurance.SeedsNeeded]:
        """Of every undecided arm, by the test that judges seeds that are added."""
        undecided = [name for name, (*_, verdict) in zip(self.tested, judged, strict=True) if verdict == _OPEN]
        settings = self.alpha.for_more_seeds
        if settings.test == dunnett.DUNNETT:
            needed = assurance.seeds_needed_at_once(self._many_to_one, settings)
            return {name: seeds for name, seeds in zip(self.tested, needed, strict=False) if name in undecided}
        found = [(p_value, verdict) for _, p_value, verdict in judged] + [(math.nan, _OPEN)] * self.num_beside
        share = settings.alpha / self.settings.alpha
        difference, equivalence = stats.next_levels(found, self.settings.alpha)
        levels = share * difference, share * equivalence

        def of(first: stats.Floats, second: stats.Floats) -> assurance.SeedsNeeded:
            differences = stats.paired_differences(first, second, self.metric.factor)
            return assurance.seeds_needed(differences, settings, levels)

        return dict(zip(undecided, at_once(of, [self._pair_in_order(name) for name in undecided]), strict=True))

    def _without_the_lost(self, arm: ArmRuns, verdict: str) -> str:
        """A verdict that diverged runs without the metric could turn around is none: those that are left flatter."""
        flattered = (arm.num_lost and verdict in _FOR_THE_ARM) or (self.baseline.num_lost and verdict in _AGAINST_IT)
        return _OPEN if flattered else verdict

    def _compare(self, pairs: Sequence[Pair], settings: StatsConfig) -> list[stats.Comparison]:
        """Every arm against the baseline."""
        return at_once(
            lambda first, second: stats.compare(first, second, settings, num_comparisons=self.num_comparisons), pairs
        )

    @cached_property
    def relative_spreads(self) -> dict[str, float]:
        """Of the baseline and every arm that is tested: its scatter over that of all others."""
        arms = (self.baseline, *self.tested.values())
        spreads = dunnett.relative_spreads([arm.with_metric[arm.metric] for arm in arms])
        return {str(arm["arm"][0]): spread for arm, spread in zip(arms, spreads, strict=True)}

    def means(self, arms: Sequence[ArmRuns]) -> list[stats.Interval]:
        """The metric's mean with its interval."""
        scores = [(arm.with_metric[arm.metric],) for arm in arms]
        return at_once(lambda values: stats.mean_interval(values, self.settings.alpha, self.settings.test), scores)


_OPEN = "undecided"
_FOR_THE_ARM, _AGAINST_IT = ("better", "equivalent"), ("worse", "equivalent")
_NO_PAIR: Pair = (np.zeros(0), np.zeros(0))


def _with(comparison: stats.Comparison, needed: assurance.SeedsNeeded | None) -> stats.Comparison:
    if needed is None:
        return comparison
    return dataclasses.replace(comparison, seeds_needed_low=needed.low, seeds_needed=needed.high)
