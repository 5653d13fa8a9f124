"""Seeds until it is decided: which arms get more of them, one round after another, from the records on disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_ablation.common import progress
from cnn_ablation.common.errors import UserError
from cnn_ablation.common.words import counted
from cnn_ablation.launch.planning import Planning
from cnn_ablation.study.designs import BASELINE, Arm
from cnn_ablation.study.metric import metric_of_table

if TYPE_CHECKING:
    import pandas as pd

Seeds = dict[Arm, range]
"""The seeds of one round by arm."""


class Rounds:
    """The rounds of a study with `replicates=auto`; none of any other study.

    After each of them the table is made anew, as the report makes it, and says which arms have a verdict. They get no
    further seed, and neither do those to which no seed can bring one. A study that is killed goes on with the same
    rounds, in its folder or in another one, because they follow from what is on disk.

    Args:
        folder: of the study, whose plan is written there before each round.
        planning: how many seeds each arm has.
    """

    def __init__(self, folder: Path, planning: Planning):
        self.folder, self.planning = folder, planning
        self._told = set[str]()
        self._num_scores: int | None = None  # before the last round

    def next(self) -> Seeds:
        """The next round: further seeds of every arm that lacks a verdict, and those that the baseline lacks then.

        Empty once there is no such arm, or each has `max_replicates`; or where the last round left no score.
        """
        if not self.planning.baseline.adds_seeds:
            return {}
        from cnn_ablation.analysis.tables import judged, open_arms  # pandas takes long to import

        try:
            table = judged(self.folder)
        except UserError:  # nothing to compare with: the report says what is wrong
            return {}
        undecided = [arm for arm in self.planning.configs if arm.name in open_arms(table)]
        if self._brought_nothing(table):
            progress.say("no run of these seeds left a score: no further seeds are added")
            return {}
        seeds = self._further_seeds(undecided)
        for line in [*self._verdicts(table, undecided), *self._what_goes_on(undecided, seeds)]:
            progress.say(line)
        return seeds

    def _brought_nothing(self, table: pd.DataFrame) -> bool:
        """Whether the last round left no score: what makes every run fail would make those of the next one fail too."""
        before, self._num_scores = self._num_scores, int(table["n"].sum())
        return before == self._num_scores

    def _further_seeds(self, undecided: list[Arm]) -> Seeds:
        most = self.planning.baseline.most_seeds.stop
        arms = {arm: seeds for arm in undecided if (seeds := self.planning.seeds_of(arm)).stop < most}
        if not arms:
            return {}
        step = self._step(arms)
        further = {arm: range(seeds.stop, min(seeds.stop + step, most)) for arm, seeds in arms.items()}
        reference = next(iter(self.planning.configs))
        start, stop = self.planning.seeds_of(reference).stop, max(seeds.stop for seeds in further.values())
        return further if stop <= start else {reference: range(start, stop), **further}

    def _step(self, arms: Collection[Arm]) -> int:
        """One seed, or as many as leave no process idle; where seeds of an arm are trained in one job, as at first.

        So too where jobs go to another machine, whose size is not known and which may let each of them wait.
        """
        if not self.planning.here or any(map(self.planning.in_one_go, arms)):
            return len(self.planning.baseline.seeds)
        return max(1, self.planning.packing.workers // (len(arms) + 1))

    def _verdicts(self, table: pd.DataFrame, undecided: list[Arm]) -> Iterator[str]:
        """One line for each arm that will get no further seed and was not told of."""
        from cnn_ablation.report.text import difference_words

        waiting, mean = {arm.name for arm in undecided}, metric_of_table(table.attrs, table.columns).estimate[0]
        self._told -= waiting
        news = table[~table["arm"].isin(waiting | self._told) & table[mean].notna()]  # not what a greedy study hides
        self._told |= set(news["arm"])
        for name, verdict, notes in zip(news["arm"], news["verdict"], news["notes"], strict=True):
            after = f"after {counted(self._num_seeds(name), 'seed')}: {name}"
            if verdict == "undecided":
                yield f"{after}: more seeds can bring no verdict ({notes})"
            elif verdict != BASELINE:
                yield f"{after} {verdict}, {difference_words(table, name)}"

    def _num_seeds(self, name: str) -> int:
        return next(len(self.planning.seeds_of(arm)) for arm in self.planning.configs if arm.name == name)

    def _what_goes_on(self, undecided: list[Arm], seeds: Seeds) -> Iterator[str]:
        after = f"after {counted(max(len(self.planning.seeds_of(arm)) for arm in self.planning.configs), 'seed')}"
        given_up = [arm for arm in undecided if arm not in seeds]
        if seeds:
            step = counted(max(len(each) for each in seeds.values()), "seed")
            arms = counted(len(undecided) - len(given_up), "arm")
            yield f"{after}: no verdict yet for {arms}; next, {step} of each"
        elif given_up:
            yield f"{after}: no further seeds; without a verdict: {', '.join(arm.name for arm in given_up)}"
        else:
            yield f"{after}: no arm is left without a verdict that more seeds could bring"
