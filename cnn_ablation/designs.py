"""How knobs become arms. Pure: names and values in, arms out; nothing is composed, launched or read here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

BASELINE = "baseline"

Setting = tuple[str, str]
"""A config key and its value as written on the command line."""


@dataclass(frozen=True)
class Level:
    """One value of a knob; a zipped level moves several keys together."""

    label: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Knob:
    """What a study varies: a config key and its levels."""

    name: str
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class Arm:
    """One configuration to train: the baseline with `settings` on top."""

    name: str
    knob: str = ""
    level: str = ""
    settings: tuple[Setting, ...] = ()


def knob(key: str, values: Sequence[str]) -> Knob:
    """A knob whose levels are the values of a single key."""
    return Knob(key, tuple(Level(_as_typed(value), ((key, value),)) for value in values))


def _as_typed(value: str) -> str:
    """Hydra hands out Python's spelling of booleans; a reader knows `model.batch_norm=true`."""
    return value.lower() if value in ("True", "False") else value.strip("'\"")


def one_at_a_time(knobs: Sequence[Knob]) -> list[Arm]:
    """The baseline, then each level of each knob alone."""
    return [Arm(BASELINE)] + [_arm([(knob, level)]) for knob in knobs for level in knob.levels]


def grid(knobs: Sequence[Knob]) -> list[Arm]:
    """The baseline to compare with, then the Cartesian product of all levels."""
    if not knobs:
        return [Arm(BASELINE)]
    combinations = itertools.product(*([(knob, level) for level in knob.levels] for knob in knobs))
    return [Arm(BASELINE)] + [_arm(list(combination)) for combination in combinations]


def _arm(chosen: Sequence[tuple[Knob, Level]]) -> Arm:
    """The arm with these levels, named after them: `model.activation=leaky,train.batch_size=256`."""
    return Arm(
        name=",".join(f"{knob.name}={level.label}" for knob, level in chosen),
        knob=",".join(knob.name for knob, _ in chosen),
        level=",".join(level.label for _, level in chosen),
        settings=tuple(setting for _, level in chosen for setting in level.settings),
    )


DESIGNS: dict[str, Callable[[Sequence[Knob]], list[Arm]]] = {"one_at_a_time": one_at_a_time, "grid": grid}


def without_duplicates(arms: Sequence[Arm], identity: Callable[[Arm], Hashable]) -> list[Arm]:
    """The arms in order, each configuration once: a level equal to the baseline's value is the baseline.

    Args:
        arms: the baseline first.
        identity: equal exactly for arms whose composed configurations are equal.
    """
    unique: dict[Hashable, Arm] = {}
    for arm in arms:
        unique.setdefault(identity(arm), arm)
    return list(unique.values())


@dataclass(frozen=True)
class Job:
    """One arm with the seeds that are trained in one go."""

    arm: Arm
    seeds: tuple[int, ...]


def seed_by_seed(arms: Sequence[Arm], seeds: Sequence[int]) -> list[Job]:
    """All arms of the first seed, then of the second: an interrupted study is a complete smaller one."""
    return [Job(arm, (seed,)) for seed in seeds for arm in arms]


def arm_by_arm(arms: Sequence[Arm], seeds: Sequence[int]) -> list[Job]:
    """All seeds of an arm together."""
    return [Job(arm, tuple(seeds)) for arm in arms]
