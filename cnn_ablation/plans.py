"""The plan of a study, as printed before training and kept in study.yaml."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cnn_ablation.config import StatsConfig
from cnn_ablation.designs import BASELINE, FULL, Arm, label_of
from cnn_ablation.errors import RecordError
from cnn_ablation.records import write_atomically

# The C parser where PyYAML has it: a plan of a thousand arms takes half a second without.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FILE_NAME = "study.yaml"
_WIDTH = 78
_MAY_DIFFER = (
    "seed",
    "replicates",
    "reuse",
    "store",
    "stats.",
    "data.cache",
    "keep_weights",
    "paper",
)  # they mix nothing within a table


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
    baseline: dict[str, Any]
    """The baseline's resolved settings, by dotted key."""
    stats: StatsConfig = field(default_factory=StatsConfig)
    path: list[PathStep] = field(default_factory=list)
    """The steps of a greedy study so far."""
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def num_runs(self) -> int:
        return len(self.arms) * len(self.seeds)

    @property
    def dropped(self) -> list[str]:
        """Arms of a greedy study that validation did not keep."""
        chosen = {BASELINE, *(step.kept for step in self.path)}
        return [name for step in self.path for name in step.candidates if name not in chosen]

    def lines(self) -> list[str]:
        """The plan for a reader: one line per arm."""
        runs = f"{counted(len(self.arms), 'arm')} x {self._seeds()} = {counted(self.num_runs, 'run')}"
        return [f"{self.design if self.knobs else 'single configuration'}: {runs}", *self.arm_lines(self.arms)]

    def step_lines(self, new: Sequence[Arm], knobs_to_come: Sequence[str]) -> list[str]:
        """The next step of a sequential design: the arms it adds, and the knobs still to come."""
        step = self.path[-1]
        runs = f"{counted(len(new), 'arm')} x {self._seeds()} = {counted(len(new) * len(self.seeds), 'run')}"
        heading = (
            f"{self.design}, step {len(self.path)} of {len(self.knobs)}: {step.knob} on top of {step.before}: {runs}"
        )
        later = f"  then, on top of what validation keeps: {', '.join(knobs_to_come)}"
        return [heading, *self.arm_lines(new), *([later] if knobs_to_come else [])]

    def _seeds(self) -> str:
        return f"{counted(len(self.seeds), 'seed')} ({', '.join(map(str, self.seeds))})"

    def arm_lines(self, arms: Sequence[Arm]) -> list[str]:
        """One line per arm, long ones folded."""
        names = [f"{arm.name}{self._knob_values(arm)}" for arm in arms]
        indented = (textwrap.wrap(name, _WIDTH, initial_indent="  ", subsequent_indent="    ") for name in names)
        return list(itertools.chain.from_iterable(indented))

    def _knob_values(self, arm: Arm) -> str:
        """What the knobs are in the arm that others are compared with."""
        if arm.name not in (BASELINE, FULL) or not self.keys:
            return ""
        settings = {**self.baseline, **{key: label_of(value) for key, value in arm.settings}}
        values = {key: setting_of(settings, key) for key in self.keys}
        shown = [f"{key}={label_of(value)}" for key, value in values.items() if value is not None]
        return f" ({', '.join(shown)})" if shown else ""


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def setting_of(settings: dict[str, Any], key: str) -> Any:
    """The value of a swept key: lists as text, a config group (`optimizer`) as the name of its option."""
    value = settings.get(key, settings.get(f"{key}.name"))
    return label_of(value) if isinstance(value, list) else value


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes study.yaml.

    Raises:
        RecordError: it cannot be written, or the folder already holds a study with another baseline.
    """
    path = folder / FILE_NAME
    if path.exists():
        _refuse_other_study(path, plan)
    content = dataclasses.asdict(plan)
    content["arms"] = [_plain(arm) for arm in plan.arms]
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120).encode())


def _plain(arm: Arm) -> dict[str, Any]:
    """An arm in the words of YAML; a setting from Python may be an object."""
    settings = {
        key: value if isinstance(value, str | int | float | list) else label_of(value) for key, value in arm.settings
    }
    return {"name": arm.name, "knob": arm.knob, "level": arm.level, "settings": settings}


def _refuse_other_study(path: Path, plan: Plan) -> None:
    """A study may be repeated or extended in its folder; another baseline would mix what cannot be compared."""
    found = read_plan(path.parent).baseline
    different = sorted(
        key
        for key in found.keys() | plan.baseline.keys()
        if found.get(key) != plan.baseline.get(key) and not key.startswith(_MAY_DIFFER)
    )
    if different:
        key = different[0]
        raise RecordError(
            f"{path.parent} already holds a study with another baseline "
            f"({key}: {found.get(key)} there, {plan.baseline.get(key)} here)\n"
            f"  remedy: choose another folder with hydra.sweep.dir=DIR"
        )


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
        settings = StatsConfig(**content["stats"])
        return Plan(**{**content, "arms": arms, "stats": settings, "path": path_so_far})
    except FileNotFoundError as error:
        raise RecordError(f"{folder} is no study: there is no {FILE_NAME} in it") from error
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is damaged or unreadable ({type(error).__name__}: {error})") from error
