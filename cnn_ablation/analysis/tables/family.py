"""The comparisons of a study: every arm against the one that others are compared with, corrected for their number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cnn_ablation.analysis import assurance, dunnett, stats
from cnn_ablation.analysis.tables.rows import ArmRuns, Pair, paired_values
from cnn_ablation.analysis.tables.stacked import at_once
from cnn_ablation.analysis.tables.times import paired_times
from cnn_ablation.config import StatsConfig
from cnn_ablation.study.metric import TIMES, Metric, metric_of


@dataclass(frozen=True)
class Family:
    """What all comparisons of a table share. Arms with equally many seeds are computed at once."""

    baseline: ArmRuns
    settings: StatsConfig
    tested: dict[str, ArmRuns]

    @property
    def num_comparisons(self) -> int:
        return len(self.tested)

    @property
    def metric(self) -> Metric:
        return metric_of(self.settings)

    def paired_scores(self, arm: ArmRuns) -> Pair:
        """The metric of an arm and of the baseline, seed by seed; of times, where they can be compared."""
        if arm.metric in TIMES:
            return paired_times(arm, self.baseline, arm.metric, chosen="scored").values
        return paired_values(arm.scored, self.baseline.scored, arm.metric)

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
        judged = self._judged_in_pairs() if self.is_paired else self._judged_at_once()
        return dict(zip(self.tested, judged, strict=True))

    def open(self) -> list[str]:
        """Arms without a verdict to which more seeds may bring one: none of those whose every run failed, and none
        whose verdict only those of its diverged runs withhold that have no metric.
        """
        undecided = [name for name, (_, _, verdict) in self._tests.items() if verdict == _OPEN]
        return [name for name in undecided if len(self.tested[name].scored)]

    def _judged_in_pairs(self) -> list[tuple[stats.Comparison, float, str]]:
        """Every arm by itself, then corrected for their number."""
        arms = list(self.tested.values())
        compared = self._compare(arms)
        verdicts = stats.verdicts(compared, self.settings)
        levels = stats.next_levels(verdicts, self.settings.alpha)

        def needed(first: stats.Floats, second: stats.Floats) -> assurance.SeedsNeeded:
            differences = stats.paired_differences(first, second, self.metric.factor)
            return assurance.seeds_needed(differences, self.settings, levels)

        undecided = [place for place, (_, verdict) in enumerate(verdicts) if verdict == _OPEN]
        seeds = dict(
            zip(undecided, at_once(needed, [self.paired_scores(arms[place]) for place in undecided]), strict=True)
        )
        return [
            (_with(compared[place], seeds.get(place)), p_holm, verdict)
            for place, (p_holm, verdict) in enumerate(verdicts)
        ]

    def _judged_at_once(self) -> list[tuple[stats.Comparison, float, str]]:
        """All arms in one test, with all seeds of each, whichever the baseline has."""
        arms = list(self.tested.values())
        values = [arm.with_metric[arm.metric] for arm in (self.baseline, *arms)]
        family = dunnett.many_to_one(values[1:], values[0], self.metric.factor)
        judged = dunnett.judged(family, self.settings)
        needed = assurance.seeds_needed_at_once(family, self.settings)
        correlations = at_once(stats.seed_correlation, [self.paired_scores(arm) for arm in arms])
        return [
            (_with(dataclasses.replace(found, seed_correlation=alike), seeds if verdict == _OPEN else None), p, verdict)
            for (found, p, verdict), seeds, alike in zip(judged, needed, correlations, strict=True)
        ]

    def _without_the_lost(self, arm: ArmRuns, verdict: str) -> str:
        """A verdict that diverged runs without the metric could turn around is none: those that are left flatter."""
        flattered = (arm.num_lost and verdict in _FOR_THE_ARM) or (self.baseline.num_lost and verdict in _AGAINST_IT)
        return _OPEN if flattered else verdict

    def _compare(self, arms: Sequence[ArmRuns]) -> list[stats.Comparison]:
        """Every arm against the baseline."""
        return at_once(
            lambda first, second: stats.compare(first, second, self.settings, num_comparisons=self.num_comparisons),
            [self.paired_scores(arm) for arm in arms],
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


def _with(comparison: stats.Comparison, needed: assurance.SeedsNeeded | None) -> stats.Comparison:
    if needed is None:
        return comparison
    return dataclasses.replace(comparison, seeds_needed_low=needed.low, seeds_needed=needed.high)
