"""Every check of a study that can be made before anything is loaded or trained."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from cnn_ablation.common.errors import ConfigError, Problem, UserError
from cnn_ablation.config import Role, StudyConfig, keys_of, leaves, nearest, one_form, role_of, split_free
from cnn_ablation.runs.task import check, task_of
from cnn_ablation.study.chance import VARY
from cnn_ablation.study.checks.gpus import check_gpu
from cnn_ablation.study.designs import (
    DESIGNS,
    Arm,
    Knob,
    comparisons,
    keys_moved_twice,
    label_of,
    labels_used_twice,
)

__all__ = ["check", "check_effects", "check_gpu", "check_study", "effective", "same_because"]

_MOST_REASONS = 2
_MOST_COMPARISONS = 300  # composed on the command line in about a second; a knob that is idle in all may yet wake up


def check_study(design: object, knobs: Sequence[Knob], baseline: StudyConfig) -> None:
    """Refuses a design that is not there or cannot tell what these knobs mean, and what is no knob.

    Args:
        design: a name in `designs.DESIGNS`.
        knobs: what varies.
        baseline: tells what a key of a config group is.

    Raises:
        ConfigError: with all problems found.
    """
    problems = [*_no_knobs(knobs, baseline), *_clashing_names(knobs), *_design_problems(design, knobs)]
    if problems:
        raise ConfigError(problems)


def _no_knobs(knobs: Sequence[Knob], baseline: StudyConfig) -> Iterator[Problem]:
    for knob in knobs:
        for moved in knob.keys:
            for role in _roles(moved.lstrip("+~"), baseline):
                if role.not_a_knob:
                    yield Problem(moved, _levels(knob), "one value: it is no knob", remedy=role.not_a_knob)


def _clashing_names(knobs: Sequence[Knob]) -> Iterator[Problem]:
    """Knobs and levels that tables could not tell apart."""
    for name, count in Counter(knob.name for knob in knobs).items():
        if count > 1:
            levels = "; ".join(_levels(knob) for knob in knobs if knob.name == name)
            yield Problem(name, levels, "one knob of this name", remedy="another name after zip.")
    for knob in knobs:
        for label in labels_used_twice(knob):
            remedy = "label:WORD, another word for each level"
            yield Problem(knob.name, label, "labels that tell levels apart", remedy=remedy)


def _design_problems(design: object, knobs: Sequence[Knob]) -> Iterator[Problem]:
    key, twice = "hydra.sweeper.design", keys_moved_twice(knobs)
    if not isinstance(design, str) or design not in DESIGNS:
        found = nearest(str(design), list(DESIGNS))
        yield Problem(key, design, ", ".join(DESIGNS), f"{key}={found}" if found else None)
    elif twice and design != "one_at_a_time":
        allowed = f"one_at_a_time, because two knobs move {twice[0]}"
        yield Problem(key, design, allowed, remedy=f"{key}=one_at_a_time, or one knob for {twice[0]}")
    elif design == "greedy" and any(VARY in knob.keys for knob in knobs):
        allowed = f"another one, because no level of {VARY} is better than another: it says what seeds draw"
        yield Problem(key, design, allowed, remedy=f"{key}=one_at_a_time, or {VARY} as one value for all arms")


def _roles(key: str, baseline: StudyConfig) -> Iterator[Role]:
    """Of a key, or of what decides a whole group: in the baseline, or else in options that the baseline has not."""
    present = keys_of(baseline)
    key, _ = split_free(key)
    key, _ = split_free(key)
    if key in present:
        yield role_of(present[key])
    elif f"{key}.name" in present and key in baseline.groups:  # `optimizer=adam,sgd` moves all keys of the group
        yield role_of(present[f"{key}.name"])
    elif any(name.startswith(f"{key}.") for name in present):
        yield from {role_of(item) for name, item in present.items() if name.startswith(f"{key}.")}
    else:
        group, _, name = key.partition(".")
        options = baseline.groups.get(group, {}).values()
        found = [role_of(item) for option in options for item in dataclasses.fields(option) if item.name == name]
        yield from [role for role in found if role.not_a_knob][:1]


def _levels(knob: Knob) -> str:
    return ",".join(level.label for level in knob.levels)


def effective(config: StudyConfig) -> str:
    """What a run of a configuration is made of: equal for configurations that give the same, bit for bit."""
    return task_of(config).effective(config, {})


def same_because(config: StudyConfig, other: StudyConfig) -> str:
    """Why two configurations come to the same; empty where all their values are equal."""
    first, second = ({key: one_form(item, value) for key, item, value in leaves(each)} for each in (config, other))
    why, also = task_of(config).inert(config), task_of(other).inert(other)
    reasons = [
        f"{key} does nothing here: {why[key].because}"
        if key in why and key in also
        else f"{key}={label_of(first.get(key))} and {label_of(second.get(key))} come to the same"
        for key in first | second
        if not key.startswith("arm.") and first.get(key) != second.get(key)
    ]
    return "; ".join(reasons[:_MOST_REASONS])


def check_effects(
    design: str,
    knobs: Sequence[Knob],
    configured: Callable[[Arm], StudyConfig],
    comes_to: Callable[[StudyConfig], str] = effective,
) -> None:
    """Refuses knobs none of whose levels does anything, in whatever arm of the study: they would compare nothing.

    Args:
        design: a name in `designs.DESIGNS`.
        knobs: what varies.
        configured: an arm -> its configuration, checked; raises a UserError where that must not be trained.
        comes_to: `effective`, or that with what `auto` stands for on a machine.

    Raises:
        ConfigError: with all such knobs, the reasons and what would give them something to do.
    """
    problems = [_idle_problem(design, knobs, knob, configured, comes_to) for knob in knobs]
    if any(problems):
        raise ConfigError([problem for problem in problems if problem])


def _idle_problem(
    design: str,
    knobs: Sequence[Knob],
    knob: Knob,
    configured: Callable[[Arm], StudyConfig],
    comes_to: Callable[[StudyConfig], str],
) -> Problem | None:
    """What is wrong with a knob without effect; None for one that does something, or may come to."""
    pairs = list(islice(comparisons(design, knobs, knob), _MOST_COMPARISONS + 1))
    idle: list[tuple[StudyConfig, StudyConfig]] = []
    for without, with_level in pairs[:_MOST_COMPARISONS]:
        try:
            first, second = configured(without), configured(with_level)
        except UserError:  # told when its turn comes
            continue
        if comes_to(first) != comes_to(second):
            return None
        idle.append((first, second))
    if not idle or len(pairs) > _MOST_COMPARISONS:
        return None
    reason = next((found for pair in idle if (found := same_because(*pair))), None)
    if reason is None:
        allowed = "a level besides the baseline's value; here is nothing to compare"
        return Problem(knob.name, _levels(knob), allowed, remedy="another level, or no such knob")
    still = idle[0][1]
    inert = task_of(still).inert(still)
    remedies = dict.fromkeys(found.remedy for key, found in inert.items() if key in knob.keys)
    return Problem(
        knob.name,
        _levels(knob),
        f"a knob that changes something; {reason}",
        remedy="; ".join(remedies) or "other levels",
    )
