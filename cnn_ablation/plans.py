"""The plan of a study, as printed before training and kept in study.yaml."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cnn_ablation.designs import BASELINE, Arm
from cnn_ablation.errors import RecordError
from cnn_ablation.records import write_atomically

FILE_NAME = "study.yaml"
_WIDTH = 78
_MAY_DIFFER = ("seed", "replicates", "reuse", "store", "stats.", "data.cache")  # they mix nothing within a table


@dataclass(frozen=True)
class Plan:
    """What a study is going to do: design, arms, seeds, and the settings of its baseline and statistics."""

    design: str
    knobs: dict[str, list[str]]
    """Knob -> labels of its levels, as given."""
    arms: list[Arm]
    seeds: list[int]
    baseline: dict[str, Any]
    """The baseline's resolved settings, by dotted key."""
    alpha: float
    margin_pp: float
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def num_runs(self) -> int:
        return len(self.arms) * len(self.seeds)

    def lines(self) -> list[str]:
        """The plan for a reader: one line per arm."""
        seeds = ", ".join(map(str, self.seeds))
        counts = f"{counted(len(self.arms), 'arm')} x {counted(len(self.seeds), 'seed')} ({seeds})"
        values = ", ".join(f"{key}={setting_of(self.baseline, key)}" for key in self.knobs)
        baseline = f"{BASELINE} ({values})" if values else BASELINE
        heading = f"{self.design}: {counts} = {counted(self.num_runs, 'run')}"
        names = [baseline if arm.name == BASELINE else arm.name for arm in self.arms]
        indented = (textwrap.wrap(name, _WIDTH, initial_indent="  ", subsequent_indent="    ") for name in names)
        return [heading, *itertools.chain.from_iterable(indented)]


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def setting_of(settings: dict[str, Any], key: str) -> Any:
    """The value of a swept key: lists as text, a config group (`optimizer`) as the name of its option."""
    value = settings.get(key, settings.get(f"{key}.name"))
    return str(value).replace(" ", "") if isinstance(value, list) else value


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes study.yaml.

    Raises:
        RecordError: it cannot be written, or the folder already holds a study with another baseline.
    """
    path = folder / FILE_NAME
    if path.exists():
        _refuse_other_study(path, plan)
    content = dataclasses.asdict(plan)
    content["arms"] = [{**arm, "settings": dict(arm["settings"])} for arm in content["arms"]]
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120).encode())


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
        content = yaml.safe_load(path.read_bytes())
        arms = [Arm(**{**arm, "settings": tuple(arm["settings"].items())}) for arm in content["arms"]]
        return Plan(**{**content, "arms": arms})
    except FileNotFoundError as error:
        raise RecordError(f"{folder} is no study: there is no {FILE_NAME} in it") from error
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is damaged or unreadable ({type(error).__name__}: {error})") from error
