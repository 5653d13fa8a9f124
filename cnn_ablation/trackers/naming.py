"""What trackers call studies, arms and figures."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from cnn_ablation.launch.observers import ObservedRun, ObservedStudy

if TYPE_CHECKING:
    import pandas as pd

CURVE = "curve/"
"""Before the names of learning curves: at the end a run has figures of the same names, measured otherwise."""
_LONGEST = 100


def study_name(study: ObservedStudy) -> str:
    """`knobs 2026-11-20/12-00-00`: the study's file or its knobs, and the end of its folder's name."""
    return f"{study.name} {study.folder.parent.name}/{study.folder.name}"


def run_name(arm: str, seed: int) -> str:
    """`model.activation=leaky seed 3`."""
    return f"{arm} seed {seed}"


def curve_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """A point of the learning curves by the names that trackers get."""
    return {f"{CURVE}{name}": value for name, value in metrics.items()}


def knob_values(study: ObservedStudy, run: ObservedRun) -> dict[str, Any]:
    """What a run has of the keys that the study moves; lists as text."""
    keys = dict.fromkeys(key for settings in study.arms.values() for key in settings)
    values = {key: run.settings.get(key, run.settings.get(f"{key}.name")) for key in keys}
    return {key: value if isinstance(value, bool | int | float) else str(value) for key, value in values.items()}


def rows_of(arms: pd.DataFrame) -> list[dict[str, Any]]:
    """The table of arms, each with its values by column."""
    return cast(list[dict[str, Any]], arms.to_dict("records"))


def figures_of_arm(row: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """A row of the table of arms: its finite numbers, and its texts; without the arm's own name."""
    numbers = {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    texts = {name: value for name, value in row.items() if isinstance(value, str) and name != "arm" and value}
    return numbers, texts


def file_name(text: str) -> str:
    """A text as the name of a folder; one that had to be changed keeps apart from others by a hash."""
    plain = re.sub(r"[^\w.=,+\[\]-]", "_", text).strip(".")
    if plain == text and len(text) <= _LONGEST:
        return text
    return f"{plain[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
