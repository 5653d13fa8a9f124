"""A study before it is carried out: its arms, composed, checked, and told apart. Nothing is written here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial

from cnn_ablation.common import commands, machine, progress
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.common.looks import one_look
from cnn_ablation.config import ANYTIME, StudyConfig, all_settings
from cnn_ablation.launch import expected_seeds, forecast
from cnn_ablation.launch.observers import makers
from cnn_ablation.launch.packing import Packing, packing
from cnn_ablation.runs import provenance
from cnn_ablation.runs.task import How, check_alone, task_of
from cnn_ablation.study import checks
from cnn_ablation.study.designs import (
    BASELINE,
    DESIGNS,
    Arm,
    Knob,
    greedy_steps,
    hidden_settings,
    one_at_a_time,
)
from cnn_ablation.study.plans import PathStep, Plan
from cnn_ablation.study.resolution import resolution_lines
from cnn_ablation.study.seeds import added_seeds, idle_keys

GREEDY = "greedy"

Score = Callable[[Arm], float | None]
"""What a greedy study compares arms by, larger for the better one; None while an arm is not trained."""


def unknown(arm: Arm) -> None:
    """The score of every arm before anything is trained."""


class Planning:
    """The arms that a design names, with their configurations.

    A sequential design names more of them once it knows scores: `go_on` asks it again.

    Args:
        design: a name in `designs.DESIGNS`.
        knobs: what varies.
        compose: an arm -> its configuration.
        here: its jobs run on this machine, so that what is missing here is missing for them, and `auto` is known.

    Raises:
        ConfigError: an arm must not be trained.
    """

    @one_look()
    def __init__(self, design: str, knobs: Sequence[Knob], compose: Callable[[Arm], StudyConfig], *, here: bool = True):
        self.here = here
        self.design = design
        self.knobs = list(knobs)
        self.configs: dict[Arm, StudyConfig] = {}
        self._compose = cache(compose)
        self._arm_of: dict[str, Arm] = {}  # the first arm with a configuration; later ones are the same arm
        self._checked = cache(self._checked_config)
        self._effective = cache(lambda arm: self._comes_to(self._checked(arm)))
        self.merged: dict[str, str] = {}
        """Arms that come to the same as another one, by name: which one, and why."""
        self.baseline = _judged_at_any_time(self._compose(Arm(BASELINE)))
        self.task = task_of(self.baseline)
        self._num_seeds = dict[str, int]()  # by name, of arms that may have more than the first seeds
        checks.check_study(design, knobs, self.baseline)
        if design == GREEDY:  # later arms depend on results; each level alone tells of mistakes before any training
            for arm in one_at_a_time(self.knobs):
                self._checked(arm)
        self.next = list[Arm]()
        """The arms that are to be trained now; none once the design is through."""
        self.go_on(unknown)
        checks.check_effects(design, self.knobs, self._checked, self._comes_to)
        makers(self.baseline.trackers)
        if not self.knobs:
            check_alone(self.baseline)
        for line in idle_keys(self.baseline):
            progress.say(line)

    def go_on(self, score: Score) -> None:
        """Asks the design for more arms, now that it knows the scores; one that comes to the same as another is none.

        Raises:
            ConfigError: one of them must not be trained.
        """
        new = []
        for arm in DESIGNS[self.design](self.knobs, score):
            same = self.same(arm)
            if same != arm and (reason := checks.same_because(self._checked(arm), self._checked(same))):
                self.merged[arm.name] = f"{same.name} ({reason})"
            elif same == arm and arm not in self.configs:
                new.append(arm)
                self.configs[arm] = self._checked(arm)
        self.next = new

    def seeds_of(self, arm: Arm) -> range:
        """The seeds of an arm so far: the first, and those that were added."""
        first = self.baseline.seeds
        return range(first.start, max(first.stop, first.start + self._num_seeds.get(arm.name, 0)))

    def keep_seeds(self, found: Plan) -> None:
        """Begins with as many seeds of every arm as an earlier study in the same folder had: none is taken away."""
        if self.baseline.adds_seeds:
            ends = {arm.name: max(found.seeds_of(arm.name), default=self.baseline.seed) + 1 for arm in found.arms}
            self._num_seeds = {name: end - self.baseline.seed for name, end in ends.items()}

    def add_seeds(self, seeds: Mapping[Arm, Sequence[int]]) -> None:
        """From now on these are among the arms' seeds."""
        self._num_seeds |= {arm.name: more[-1] + 1 - self.baseline.seed for arm, more in seeds.items()}

    def plan(self, score: Score = unknown) -> Plan:
        """What is known so far."""
        seeds = {arm: self.seeds_of(arm) for arm in self.configs}
        return Plan(
            design=self.design,
            knobs={knob.name: [level.label for level in knob.levels] for knob in self.knobs},
            keys=list(dict.fromkeys(key for knob in self.knobs for key in knob.keys)),
            arms=list(self.configs),
            seeds=list(range(self.baseline.seed, max(each.stop for each in seeds.values()))),
            baseline=all_settings(self.baseline),
            stats=self.baseline.stats,
            path=self._path(score),
            merged=dict(self.merged),
            labelled=hidden_settings(self.knobs),
            provenance=provenance.environment(self.task.LIBRARIES) | {"command": commands.typed()},
            auto=added_seeds(self.baseline, {arm.name: len(each) for arm, each in seeds.items()}),
        )

    @property
    def auto_is_known(self) -> bool:
        """Whether it can be said what `auto` stands for: by this machine, or by what jobs of other ones ask for."""
        return self.here or machine.is_elsewhere()

    @cached_property
    def packing(self) -> Packing:
        """How its runs share this machine, decided once for all steps of its design."""
        arms = one_at_a_time(self.knobs) if self.design == GREEDY else self.configs  # greedy begins with fewer
        configs = [self._compose(arm) for arm in arms]
        return packing(self.baseline, len(configs) * len(self.baseline.seeds), configs)

    @property
    def most_runs(self) -> int:
        """Runs that the study may come to have, as far as its arms are known."""
        return len(self.configs) * len(self.baseline.most_seeds)

    def seconds_per_run(self) -> float:
        """What a run takes in the mean over the arms, from past runs; NaN where there are none."""
        return statistics.fmean(each.seconds_per_run for each in forecast.forecast(self.configs, None))

    def in_one_go(self, arm: Arm) -> bool:
        """Whether all seeds of an arm are trained in one go, and so are one job; on a CPU told without torch."""
        config = self.configs[arm]
        device = self.task.device(config)
        packed = device != "cpu" and config.timing == "packed"
        return packed and self.task.trains_together(config, How(device, threads=0))

    def show(self, score: Score = unknown) -> None:
        """Prints arms, seeds and runs of what comes next."""
        plan = self.plan(score)
        to_come = [knob.name for knob in self.knobs[len(plan.path) :]]
        lines = plan.step_lines(self.next, to_come) if plan.path else plan.lines()
        if self.knobs and len(plan.path) < 2:  # once
            lines += resolution_lines(self.task.held_out(self.baseline), self.baseline.stats)
        print("\n".join(lines), flush=True)

    @one_look()
    def show_forecast(self) -> list[forecast.ArmForecast]:
        """Prints the plan, what would be reused, what is confounded and how long it would take; trains nothing.

        Returns:
            What that was told from.

        Raises:
            ConfigError: a device is asked for that this machine lacks.
        """
        self.check_devices()
        self.show()
        if self.design == GREEDY:
            print("of this step:")
        how_of = partial(self.task.resolve, threads=self.packing.threads or None, planned=True)
        found = forecast.forecast(self.configs, how_of if self.auto_is_known else None)
        likely = expected_seeds.lines(found, self.baseline) if self.baseline.adds_seeds else ()
        print("\n".join([*forecast.lines(found, self.baseline.store), *likely]), flush=True)
        return found

    def check_devices(self) -> None:
        """Refuses devices that this machine lacks, where it is the one that trains, or that no job asks for."""
        for arm, config in self.configs.items() if self.auto_is_known else ():
            try:
                self.task.resolve(config, planned=True)
            except ConfigError as error:
                raise ConfigError(error.problems, arm=_named(arm)) from None
            checks.check_gpu(config, self.baseline, arm=_named(arm))

    def _checked_config(self, arm: Arm) -> StudyConfig:
        config = self._compose(arm)
        checks.check(config, arm=_named(arm))
        return config

    def _comes_to(self, config: StudyConfig) -> str:
        """What a run of a configuration is made of: equal for runs that give the same."""
        return self.task.effective(config, self._resolved(config))

    def _resolved(self, config: StudyConfig) -> dict[str, str]:
        """What `auto` stands for, where that matters and is known; a device that is not here is refused later."""
        varied = self._varied_of_machine
        if not varied or not self.auto_is_known:
            return {}
        try:
            how = self.task.resolve(config, planned=True).identifying()
        except ConfigError:
            return {}
        return {key: value for key in varied if (value := how[key]) != machine.UNKNOWN}

    @cached_property
    def _varied_of_machine(self) -> set[str]:
        """The keys that are varied and may say `auto`."""
        return {key for knob in self.knobs for key in knob.keys} & {"device", "precision"}

    def same(self, arm: Arm) -> Arm:
        """The first arm that comes to the same."""
        return self._arm_of.setdefault(self._effective(arm), arm)

    def _path(self, score: Score) -> list[PathStep]:
        """The steps so far by the names of the arms that were really trained."""
        if self.design != GREEDY:
            return []
        return [
            PathStep(
                knob=step.knob,
                before=self.same(step.before).name,
                candidates=[same.name for arm in step.candidates if (same := self.same(arm)) != self.same(step.before)],
                kept=self.same(step.kept).name if step.kept else None,
            )
            for step in greedy_steps(self.knobs, score)
        ]


def _judged_at_any_time(baseline: StudyConfig) -> StudyConfig:
    """With the one test that holds for seeds that are added after looks at the table, in place of the default.

    Any other one that was chosen is refused by the check of the configuration.
    """
    stats = baseline.stats
    if not baseline.adds_seeds or stats.test != type(stats)().test:
        return baseline
    return replace(baseline, stats=replace(stats, test=ANYTIME))


def _named(arm: Arm) -> str | None:
    """The name for messages; mistakes in the baseline need none."""
    return arm.name if arm.settings else None
