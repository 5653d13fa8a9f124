"""study.yaml read for a report: checked value by value, because a person may have edited it."""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnn_ablation.common.errors import RecordError
from cnn_ablation.config import value_problems
from cnn_ablation.study.designs import Arm
from cnn_ablation.study.plans import FILE_NAME, PathStep, Plan, read_plan


def read_checked_plan(folder: object) -> Plan:
    """The plan of the study in a folder.

    Raises:
        RecordError: this is no folder of a study, or its study.yaml is damaged.
    """
    if not isinstance(folder, str | os.PathLike) or "\0" in str(folder):
        raise RecordError(f"a study's folder is text or a path, not {reprlib.repr(folder)}")
    folder = Path(folder)
    if folder.is_file():
        raise RecordError(
            f"{folder} is a file; a study's folder is wanted\n"
            f"  remedy: the folder that holds {FILE_NAME}, or --runs {folder} --out DIR for a table of runs"
        )
    if not (folder / FILE_NAME).exists() and (folder.absolute().parent / FILE_NAME).exists():
        raise RecordError(
            f"{folder} is no study: there is no {FILE_NAME} in it\n"
            f"  remedy: {folder.absolute().parent} holds one; give that folder"
        )
    try:
        plan = read_plan(folder)
    except (ValueError, RecursionError, OverflowError) as error:  # what YAML makes of damaged dates, numbers, nesting
        raise RecordError(f"{folder / FILE_NAME} is damaged or unreadable ({type(error).__name__})") from error
    wrong = next(_mistakes(plan), None)
    if wrong:
        raise RecordError(f"{folder / FILE_NAME} is damaged or unreadable ({wrong})")
    return plan


def _mistakes(plan: Plan) -> Iterator[str]:
    """What in a plan is not of the type, or within the bounds, that a report relies on."""
    yield from _not_of_type(plan)
    names = [arm.name for arm in plan.arms]
    if not names:
        yield "arms: none"
    yield from (f"arms: '{name}' is there twice" for name, count in Counter(names).items() if count > 1)
    if not plan.seeds or len(set(plan.seeds)) < len(plan.seeds):
        yield f"seeds: {reprlib.repr(plan.seeds)}; different whole numbers are wanted"
    yield from ("; ".join(str(problem).splitlines()) for problem in value_problems(plan.stats, "stats."))
    for key, kind in _USED_SETTINGS.items():
        value = plan.baseline.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            yield f"baseline: {key}: {reprlib.repr(value)}"


_USED_SETTINGS: dict[str, Any] = {"train.scale": int | float, "train.epochs": int, "train.updates": int, "paper": str}


def _not_of_type(plan: Plan) -> Iterator[str]:
    lists = {"keys": plan.keys, "seeds": plan.seeds, "arms": plan.arms, "path": plan.path}
    for name, found in lists.items():
        kind = {"seeds": int, "arms": Arm, "path": PathStep}.get(name, str)
        if not isinstance(found, list) or any(type(entry) is not kind for entry in found):
            yield f"{name}: {reprlib.repr(found)}"
    for name in ("knobs", "baseline", "provenance"):
        mapping: Any = getattr(plan, name)
        if not isinstance(mapping, dict) or any(not isinstance(key, str) for key in mapping):
            yield f"{name}: {reprlib.repr(mapping)}"
    for arm in plan.arms:
        if not arm.name or any(not isinstance(text, str) for text in (arm.name, arm.knob, arm.level)):
            yield f"arms: {reprlib.repr((arm.name, arm.knob, arm.level))}"
    for step in plan.path:
        named = (step.knob, step.before, *([] if step.kept is None else [step.kept]))
        if not isinstance(step.candidates, list) or any(
            not isinstance(text, str) for text in (*named, *step.candidates)
        ):
            yield f"path: {reprlib.repr(step)}"
