"""What a study would do: runs it would reuse, what its arms change besides their knob, and how long it would take.

From configurations and past runs alone: no data are loaded and no torch is imported.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cnn_ablation.analysis import notes
from cnn_ablation.common import machine
from cnn_ablation.common.words import counted
from cnn_ablation.config import StudyConfig, all_settings
from cnn_ablation.runs.records import Run
from cnn_ablation.runs.store.entries import entries
from cnn_ablation.runs.task import How, task_of
from cnn_ablation.study.designs import Arm
from cnn_ablation.study.plans import shortened


@dataclass(frozen=True)
class ArmForecast:
    """What is known of an arm before it is trained."""

    arm: Arm
    how: How | None
    """It would be computed; None where only another machine can tell."""
    confounds: list[str]
    reused_seeds: list[int] | None
    """Of all that the arm may come to get; None where only another machine can tell."""
    only_known_there: bool
    """They are those that would be reused if the processors of other machines are those that trained them."""
    first_seeds: range
    most_seeds: range
    """The same as the first, but for seeds that are added until there is a verdict."""
    seconds_per_run: float
    """NaN where no past run tells."""
    past: list[Run]
    """Runs of the same configuration, whatever seed and version of the code."""


def forecast(configs: dict[Arm, StudyConfig], how_of: Callable[[StudyConfig], How] | None) -> list[ArmForecast]:
    """The forecast of every arm, the first of them being the one that others are compared with.

    Args:
        configs: by arm.
        how_of: how a configuration's runs are computed; None where only another machine can tell.
    """
    baseline = next(iter(configs.values()))
    task = task_of(baseline)
    past = _Past(baseline, [entry.run for entry in entries(Path(baseline.store)) if entry.run])
    hows = {arm: how_of(config) if how_of else None for arm, config in configs.items()}
    alike = {arm: past.alike(config, how) if (how := hows[arm]) else [] for arm, config in configs.items()}
    cost = task.cost(baseline)
    return [
        ArmForecast(
            arm=arm,
            how=hows[arm],
            confounds=list(notes.confounds(task.cost(config), cost)),
            reused_seeds=past.reused_seeds(config, how, alike[arm]) if (how := hows[arm]) else None,
            only_known_there=bool(how and how.unknown()),
            first_seeds=config.seeds,
            most_seeds=config.most_seeds,
            seconds_per_run=past.seconds_per_run(config, alike[arm]),
            past=alike[arm],
        )
        for arm, config in configs.items()
    ]


class _Past:
    """Finished runs of a store, to be looked up by what a run to come will be."""

    def __init__(self, baseline: StudyConfig, runs: Sequence[Run]):
        self.task, self.runs = task_of(baseline), runs
        self._by_what_is_known = cache(lambda unknown: _Sorted(runs, unknown))
        what = {key: value for key, value in all_settings(baseline).items() if key.startswith("task.")}
        timed = [run for run in runs if _tells_time(run) and _trained_alike(run, what)]
        self._rates = [_machine_seconds(run) / done for run in timed if (done := self.task.work_done(run)) > 0]

    def _sorted(self, how: How) -> _Sorted:
        return self._by_what_is_known(how.unknown())

    def _identity(self, config: StudyConfig, how: How) -> dict[str, Any]:
        """Of a run to come with the first seed; the data are known only once they are loaded."""
        return self.task.identity(config, how, seed=config.seed, planned=True)

    def alike(self, config: StudyConfig, how: How) -> list[Run]:
        """Runs of the same configuration, of whatever seed."""
        known = self._sorted(how).alike
        return known.get(_name(self._identity(config, how)["settings"]), []) if known else []

    def reused_seeds(self, config: StudyConfig, how: How, alike: Sequence[Run]) -> list[int]:
        """Seeds whose runs the store has, if the content of the data is as it was; `alike` as above."""
        if not (config.reuse and alike):
            return []
        known, first = self._sorted(how), self._identity(config, how)
        names = known.any if config.timing == "packed" else known.alone
        return [seed for seed in config.most_seeds if _name({**first, "seed": seed}) in names]

    def seconds_per_run(self, config: StudyConfig, alike: Sequence[Run]) -> float:
        """From runs of the same configuration, or else from the work that runs did in a second; NaN from none."""
        same = [_machine_seconds(run) for run in alike if _tells_time(run)]
        if same:
            return statistics.median(same)
        return self._seconds_per_work * self.task.work(config) if self._rates else math.nan

    @cached_property
    def _seconds_per_work(self) -> float:
        return statistics.median(self._rates)


class _Sorted:
    """Finished runs by their identity, without the data and without what is not known of runs to come."""

    def __init__(self, runs: Sequence[Run], unknown: frozenset[str]):
        self.any, self.alone = set[str](), set[str]()
        self.alike = dict[str, list[Run]]()
        """By settings."""
        for run in runs:
            identity = run.provenance.get("identity", {})
            settings = {**identity.get("settings", {}), **dict.fromkeys(unknown, machine.UNKNOWN)}
            name = _name({**identity, "data": "", "settings": settings})
            self.any.add(name)
            self.alike.setdefault(_name(settings), []).append(run)
            if run.concurrent_runs == 1:
                self.alone.add(name)


def _tells_time(run: Run) -> bool:
    """Of runs to come on this machine those that it trained; of those elsewhere any."""
    return run.status == "ok" and (machine.is_elsewhere() or run.provenance.get("host") == platform.node())


def _trained_alike(run: Run, what: Mapping[str, Any]) -> bool:
    """Whether it is the same that was trained, with whatever settings."""
    return all(run.settings.get(key) == value for key, value in what.items())


def _name(content: Any) -> str:
    return json.dumps(content, sort_keys=True)


def _machine_seconds(run: Run) -> float:
    """What a run took of the machine that it may have shared."""
    return run.total_seconds / run.concurrent_runs


_THERE = " and the jobs' processors are those that trained them"


def lines(forecasts: Sequence[ArmForecast], store_folder: str) -> Iterator[str]:
    """The forecast for a reader."""
    confounded = [item for item in forecasts if item.confounds]
    if confounded:
        yield "changes besides the knob:"
        named = [f"{item.arm.name}: {', '.join(item.confounds)}" for item in confounded]
        yield from (f"  {line}" for line in shortened(named))
    if words := _computed(forecasts):
        yield f"computed {words}"
    least, most = ([_Training.of(item, each) for item, each in pairs] for pairs in _extents(forecasts))
    grows = any(item.first_seeds != item.most_seeds for item in forecasts)
    if any(item.reused_seeds is None for item in forecasts):
        yield "what would be reused is known only where the jobs will run"
    else:
        reused = [f"{sum(each.reused for each in extent)} of {_runs(extent)}" for extent in (least, most)]
        words = f"{reused[0]} at least and {reused[1]} at most" if grows else reused[0]
        there = any(item.only_known_there and item.reused_seeds for item in forecasts)
        yield f"would reuse {words} from {store_folder}, if the data are as they were{_THERE if there else ''}"
    yield f"estimated time: {_time_words(least, most if grows else least)}"


@dataclass(frozen=True)
class _Training:
    """What is to be done for one arm with some seeds."""

    seeds: int
    reused: int
    seconds_per_run: float

    @property
    def left(self) -> int:
        """Runs that are really trained."""
        return self.seeds - self.reused

    @classmethod
    def of(cls, item: ArmForecast, seeds: range) -> _Training:
        return cls(len(seeds), sum(seed in seeds for seed in item.reused_seeds or ()), item.seconds_per_run)


def runs_left(forecasts: Sequence[ArmForecast]) -> tuple[int, int] | None:
    """How many runs would really be trained, at least and at most; None where only another machine can tell."""
    if any(item.reused_seeds is None for item in forecasts):
        return None
    least, most = (sum(_Training.of(item, each).left for item, each in pairs) for pairs in _extents(forecasts))
    return least, most


def _extents(forecasts: Sequence[ArmForecast]) -> Iterator[list[tuple[ArmForecast, range]]]:
    """The least and the most that a study trains."""
    yield [(item, item.first_seeds) for item in forecasts]
    yield [(item, item.most_seeds) for item in forecasts]


def _computed(forecasts: Sequence[ArmForecast]) -> str:
    """How, as the records will say; arms that differ in it are counted."""
    arms = Counter(_how_words(item.how) for item in forecasts if item.how)
    if len(arms) < 2:
        return "".join(arms)
    return "; ".join(f"{words}: {counted(number, 'arm')}" for words, number in arms.items())


def _how_words(how: How) -> str:
    """`on cpu in bfloat16 with 2 threads`; not every task has a precision."""
    precision, threads = asdict(how).get("precision"), counted(how.threads, "thread")
    in_it = "" if precision is None else f" in {precision or 'the precision of its processor'}"
    return f"on {how.device}{in_it}" + (f" with {threads}" if how.threads else "")


def _time_words(least: Sequence[_Training], most: Sequence[_Training]) -> str:
    """Of what is not reused, at least and at most."""
    if not any(each.left for each in most):
        return "none, nothing is left to train"
    extents = [extent for extent in (least, most) if any(each.left for each in extent)]
    times = list(dict.fromkeys(map(_time, extents)))
    if None in times:
        return f"unknown, there are no past runs{'' if machine.is_elsewhere() else ' on this machine'}"
    first, words = "about" if extents[0] is least else "none, or up to about", " to ".join(map(str, times))
    return f"{first} {words}{' by one job at a time' if machine.is_elsewhere() else ''}, from past runs"


def _runs(trainings: Sequence[_Training]) -> str:
    return counted(sum(each.seeds for each in trainings), "run")


def _time(trainings: Sequence[_Training]) -> str | None:
    """Of all that is not reused; None where no past run tells."""
    counts = [(each.left, each.seconds_per_run) for each in trainings]
    seconds = math.fsum(count * each for count, each in counts if count)
    total = counted(sum(count for count, _ in counts), "run")
    return None if math.isnan(seconds) else f"{duration(seconds)} for {total}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
