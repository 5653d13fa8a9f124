"""The plan of a study, as printed before training and kept in study.yaml."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cnn_ablation.common.errors import ConfigError, RecordError
from cnn_ablation.common.files import write_atomically
from cnn_ablation.common.progress import warn
from cnn_ablation.common.words import counted
from cnn_ablation.config import StatsConfig, default_of, field_of, leaves, one_form, role_of
from cnn_ablation.runs.task import task_of_settings
from cnn_ablation.study.designs import BASELINE, FULL, Arm, Setting, label_of
from cnn_ablation.study.metric import metric_of
from cnn_ablation.study.seeds import AddedSeeds

# In C where PyYAML has it: a plan of a thousand arms takes half a second without.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
FILE_NAME = "study.yaml"
_WIDTH = 78
_MOST_SHOWN = 40  # arms; of more a plan shows the first and the last
A_STUDY = "the folder of a study (multirun/DATE/TIME)"
ANOTHER_FOLDER = "choose another folder with hydra.sweep.dir=DIR (hydra.run.dir=DIR without -m, folder=DIR in Python)"


@dataclass(frozen=True)
class PathStep:
    """A step of a greedy study by the names of its arms; `kept` is None while it is undecided."""

    knob: str
    before: str
    candidates: list[str]
    kept: str | None


@dataclass(frozen=True)
class Plan:
    """What a study is going to do: design, arms, seeds, and the settings of its baseline and statistics."""

    design: str
    knobs: dict[str, list[str]]
    """Knob -> labels of its levels, as given."""
    keys: list[str]
    """The config keys that the knobs move."""
    arms: list[Arm]
    seeds: list[int]
    """Of the arm that others are compared with; where seeds are added, other arms may have fewer (`seeds_of`)."""
    baseline: dict[str, Any]
    """The baseline's resolved settings, by dotted key."""
    stats: StatsConfig = field(default_factory=StatsConfig)
    path: list[PathStep] = field(default_factory=list)
    """The steps of a greedy study so far."""
    merged: dict[str, str] = field(default_factory=dict)
    """Arms that are not trained, because they come to the same as another: which one, and why."""
    labelled: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`KNOB=LABEL` -> what the level sets, where its label does not say so."""
    provenance: dict[str, Any] = field(default_factory=dict)
    auto: AddedSeeds | None = None
    """Where seeds are added until an arm has its verdict: how many each has so far."""

    def seeds_of(self, arm: str) -> list[int]:
        """The seeds of an arm, by its name."""
        return self.seeds[: self.auto.replicates[arm]] if self.auto else self.seeds

    @property
    def num_runs(self) -> int:
        return sum(len(self.seeds_of(arm.name)) for arm in self.arms)

    @property
    def dropped(self) -> list[str]:
        """Arms of a greedy study that validation did not keep."""
        chosen = {BASELINE, *(step.kept for step in self.path)}
        return [name for step in self.path for name in step.candidates if name not in chosen]

    def lines(self) -> list[str]:
        """The plan for a reader: one line per arm."""
        if self.auto:
            heading = f"{self.design}: {counted(len(self.arms), 'arm')}, {self._seeds_until_decided(self.auto)}"
        else:
            heading = f"{self.design if self.knobs else 'single configuration'}: {self._runs(self.arms)}"
        return [heading, *self.arm_lines(self.arms), *self.merged_lines()]

    def step_lines(self, new: Sequence[Arm], knobs_to_come: Sequence[str]) -> list[str]:
        """The next step of a sequential design: the arms it adds, and the knobs still to come."""
        step = self.path[-1]
        heading = (
            f"{self.design}, step {len(self.path)} of {len(self.knobs)}: {step.knob} on top of {step.before}: "
            f"{self._runs(new)}"
        )
        merged = self.merged_lines(step.knob)
        later = [f"  then, on top of what is kept: {', '.join(knobs_to_come)}"] if knobs_to_come else []
        if self.auto:
            later.append(f"  when nothing more is to be chosen, {self._seeds_until_decided(self.auto)}")
        return [heading, *self.arm_lines(new), *merged, *later]

    def _runs(self, arms: Sequence[Arm]) -> str:
        """`3 arms x 2 seeds (0, 1) = 6 runs`; of seeds that are added, the first, which all arms have."""
        seeds = self._first_seeds
        in_words = f"{counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))})"
        return f"{counted(len(arms), 'arm')} x {in_words} = {counted(len(arms) * len(seeds), 'run')}"

    def _seeds_until_decided(self, auto: AddedSeeds) -> str:
        seeds = ", ".join(map(str, self._first_seeds))
        return f"seeds {seeds} and then as many as a verdict takes, at most {auto.max_replicates}"

    @property
    def _first_seeds(self) -> list[int]:
        return self.seeds[: self.auto.min_replicates] if self.auto else self.seeds

    @property
    def possible_seeds(self) -> Sequence[int]:
        """Those that an arm may come to have."""
        return range(self.seeds[0], self.seeds[0] + self.auto.max_replicates) if self.auto else self.seeds

    def arm_lines(self, arms: Sequence[Arm]) -> list[str]:
        """One line per arm, long ones folded; of many the first and the last."""
        names = shortened([f"{arm.name}{self._knob_values(arm)}" for arm in arms])
        indented = (textwrap.wrap(name, _WIDTH, initial_indent="  ", subsequent_indent="    ") for name in names)
        return list(itertools.chain.from_iterable(indented))

    def merged_lines(self, knob: str = "") -> list[str]:
        """One line per arm that is another one; those of one knob alone, if it is named."""
        words = f"{knob}=" if knob else ""
        lines = [f"{name} is the same as {reason}" for name, reason in self.merged.items()]
        return [f"  {line}" for line in shortened([line for line in lines if words in line])]

    def _knob_values(self, arm: Arm) -> str:
        """What the knobs are in the arm that others are compared with."""
        if arm.name not in (BASELINE, FULL) or not self.keys:
            return ""
        settings = {**self.baseline, **{key: label_of(value) for key, value in arm.settings}}
        values = {key: setting_of(settings, key) for key in self.keys}
        shown = [f"{key}={label_of(value)}" for key, value in values.items() if value is not None or key in settings]
        return f" ({', '.join(shown)})" if shown else ""


def shortened(lines: Sequence[str]) -> list[str]:
    """Lines for a terminal: all, or the first and the last of them with the number of those between."""
    if len(lines) <= _MOST_SHOWN:
        return list(lines)
    half = _MOST_SHOWN // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} more ...", *lines[-half:]]


def setting_of(settings: dict[str, Any], key: str) -> Any:
    """The value of a swept key: lists as text, a config group (`optimizer`) as the name of its option."""
    value = settings.get(key, settings.get(f"{key}.name"))
    return label_of(value) if isinstance(value, list) else value


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes study.yaml.

    Raises:
        RecordError: it cannot be written, or the folder already holds another study.
    """
    refuse_other_study(folder, plan)
    content = {item.name: getattr(plan, item.name) for item in dataclasses.fields(plan)}
    content |= {"arms": [_plain_arm(arm) for arm in plan.arms], "stats": dataclasses.asdict(plan.stats)}
    content |= {"path": [dataclasses.asdict(step) for step in plan.path], "labelled": _plain_levels(plan.labelled)}
    content |= {"auto": dataclasses.asdict(plan.auto) if plan.auto else None}
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    write_atomically(folder / FILE_NAME, text.encode())


def _plain_arm(arm: Arm) -> dict[str, Any]:
    return {"name": arm.name, "knob": arm.knob, "level": arm.level, "settings": _plain(arm.settings)}


def _plain_levels(labelled: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: _plain(tuple(settings.items())) for name, settings in labelled.items()}


def _plain(settings: Sequence[Setting]) -> dict[str, Any]:
    """Settings in the words of YAML; a whole group from Python is all its keys."""
    plain: dict[str, Any] = {}
    for key, value in settings:
        if dataclasses.is_dataclass(value):
            plain |= {name: each for name, _, each in leaves(value, f"{key}.")}
        else:
            plain[key] = value if isinstance(value, str | int | float | list) else label_of(value)
    return plain


def refuse_other_study(folder: Path, plan: Plan) -> None:
    """Refuses a folder that holds another study; it may be called before anything is loaded or written.

    A study may be repeated in its folder, and extended by seeds, levels and knobs: design and baseline are the same, as
    far as they can change a result, and all seeds, knobs and levels of the folder's plan are in the new one.

    Raises:
        RecordError: with the first difference; or the plan in the folder is damaged.
    """
    if not (folder / FILE_NAME).exists():
        return
    try:
        found = read_plan(folder)
    except RecordError as error:
        raise RecordError(f"{error}\n  remedy: remove that file, or {ANOTHER_FOLDER}") from error
    difference = next(_differences(found, plan), None)
    if difference:
        raise RecordError(f"{folder} holds another study ({difference})\n  remedy: {ANOTHER_FOLDER}")


def _differences(found: Plan, plan: Plan) -> Iterator[str]:
    """What makes a study another one than that of its folder, most telling first."""
    names = [key for key in found.baseline if key.endswith(".name")]
    for key in dict.fromkeys([*names, *found.baseline, *plan.baseline]):
        there, here = (_fixed_value(each.baseline, key) for each in (found, plan))
        if there != here:
            yield f"{key}: {there} there, {here} here"
    if found.knobs and found.design != plan.design:
        yield f"hydra.sweeper.design: {found.design} there, {plan.design} here"
    yield from _chosen_otherwise(found, plan)
    yield from _missing_levels(found, plan)
    of_arms = [{arm.name: _plain(arm.settings) for arm in each.arms} for each in (found, plan)]
    of_levels = [_plain_levels(each.labelled) for each in (found, plan)]
    for there_all, here_all in (of_arms, of_levels):
        for name in (name for name in there_all if name in here_all):
            there, here = (_as_text(each[name]) for each in (there_all, here_all))
            if there != here:
                yield f"{name}: {there} there, {here} here"
    if lost := sorted(set(found.seeds) - set(plan.possible_seeds)):
        yield f"seed {lost[0]} is there, not here; more seeds extend a study, fewer do not"


def _chosen_otherwise(found: Plan, plan: Plan) -> Iterator[str]:
    """What a greedy study chooses by; for other designs the metric changes no arm."""
    if found.design == "greedy" and found.knobs:
        there, here = (metric_of(each.stats) for each in (found, plan))
        if (there.column, there.direction) != (here.column, here.direction):
            yield (
                f"stats.metric: {there.column} ({there.direction} is better) there, "
                f"{here.column} ({here.direction} is better) here"
            )


def _missing_levels(found: Plan, plan: Plan) -> Iterator[str]:
    """Knobs and levels that the folder's plan has and the new one lacks; a greedy study is extended at its end."""
    for knob, levels in found.knobs.items():
        if knob not in plan.knobs:
            yield f"the knob {knob} is there, not here"
        elif lost := [level for level in levels if level not in plan.knobs[knob]]:
            yield f"{knob}={lost[0]} is there, not here"
    if found.design == "greedy" and (before := list(found.knobs)) != list(plan.knobs)[: len(before)]:
        yield f"knobs in the order {', '.join(before)} there, {', '.join(plan.knobs)} here"


def _fixed_value(settings: dict[str, Any], key: str) -> str:
    """A baseline's value as far as all runs of a folder must share it."""
    item = _field(settings, key)
    if item is None:  # of somebody's own dataclass, or none of this option's
        return label_of(settings.get(key))
    return label_of(one_form(item, settings.get(key, default_of(item)))) if role_of(item).is_fixed else ""


def _field(settings: dict[str, Any], key: str) -> dataclasses.Field[Any] | None:
    """The field of a key; None where this version knows no such task, or the task no such key."""
    try:
        return field_of(task_of_settings(settings).CONFIG, key, settings)
    except ConfigError:
        return None


def _as_text(settings: dict[str, Any]) -> str:
    """Settings as typed on the command line: `0.001` from there and 0.001 from Python are the same."""
    return ",".join(f"{key}={label_of(value)}" for key, value in settings.items()) or "the baseline"


def _known_stats(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """Without the kind of intervals that older studies could choose: their bootstrap was too narrow."""
    kind = found.get("interval", "t")
    if kind != "t":
        warn(f"{path}: stats.interval={kind} is no longer there; the report's intervals are t intervals")
    return {name: value for name, value in found.items() if name != "interval"}


def read_plan(folder: Path) -> Plan:
    """Reads study.yaml.

    Raises:
        RecordError: it is missing, damaged or of another form.
    """
    path = folder / FILE_NAME
    try:
        content = yaml.load(path.read_bytes(), _Loader)
        arms = [Arm(**{**arm, "settings": tuple(arm["settings"].items())}) for arm in content["arms"]]
        path_so_far = [PathStep(**step) for step in content["path"]]
        settings = StatsConfig(**_known_stats(content["stats"], path))
        auto = AddedSeeds(**content["auto"]) if content.get("auto") else None
        plan = Plan(**{**content, "arms": arms, "stats": settings, "path": path_so_far, "auto": auto})
        if auto:
            auto.check([arm.name for arm in arms], len(plan.seeds))
        if not all(isinstance(each, dict) for each in (plan.knobs, plan.baseline, plan.labelled, plan.merged)):
            raise TypeError("a table of keys is missing")
        return plan
    except FileNotFoundError as error:
        why = f"there is no {FILE_NAME} in it" if Path(folder).is_dir() else "it is not there"
        raise RecordError(f"{folder} is no study: {why}\n  remedy: {A_STUDY}, which holds {FILE_NAME}") from error
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise RecordError(f"{path} is damaged or unreadable ({type(error).__name__}: {error})") from error
