"""Confusion matrices and figures per class of every arm, of which a reader chooses one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation.analysis.metrics import WEIGHTED
from cnn_ablation.common.words import counted
from cnn_ablation.report.findings import Findings
from cnn_ablation.report.page.names import Names

PARTS = {"test": "test", "val": "validation"}
FIGURES = {"precision": "Precision", "recall": "Recall", "f1": "F1", "auc": "AUC"}
MOST_CLASSES = 30  # whose names and numbers can be read in a matrix
_MOST_NUMBERS = 150_000  # in a page: more would make it too large to send


@dataclass(frozen=True)
class ByClass:
    """What is shown of one arm and one part of the data."""

    arm: str
    part: str
    seeds: str
    images: list[list[float]]
    """Mean over seeds, by true class (rows) and predicted class; empty where there is no matrix."""
    figures: list[list[str]]
    """Of each class, in percent; empty where there are none."""


@dataclass(frozen=True)
class Classes:
    """Those of all arms, the first of them shown from the start."""

    names: list[str]
    shown: list[ByClass]
    left_out: str
    """Why some arms or matrices are missing; empty where all are there."""

    @property
    def parts(self) -> dict[str, str]:
        """Those that some arm has, test images first."""
        return {part: words for part, words in PARTS.items() if any(each.part == part for each in self.shown)}

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(each.arm for each in self.shown))

    @property
    def has_matrix(self) -> bool:
        return any(each.images for each in self.shown)

    @property
    def data(self) -> str:
        """All of it for the script of the page, as JSON that no tag can end."""
        places = {arm: place for place, arm in enumerate(self.arms)}
        rows = [[places[each.arm], each.part, each.seeds, each.images, each.figures] for each in self.shown]
        text = json.dumps(rows, separators=(",", ":"), allow_nan=False)
        return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def share(images: Sequence[float], at: int) -> float:
    """Percent of a true class that were predicted as one class."""
    total = sum(images)
    return 100 * images[at] / total if total else 0.0


def classes_of(found: Findings, names: Names) -> Classes | None:
    """Of every arm with figures per class; None without any."""
    if not len(found.per_class):
        return None
    figures = dict(iter(found.per_class.groupby(["arm", "part"], sort=False)))
    wanted = [(str(arm), part) for arm in found.arms["arm"] for part in PARTS if (arm, part) in figures]
    if not wanted:
        return None
    classes = _names_of(figures[wanted[0]])
    alike = [key for key in wanted if _names_of(figures[key]) == classes]
    room = _MOST_NUMBERS // (len(classes) * (len(FIGURES) + (len(classes) if len(classes) <= MOST_CLASSES else 0)))
    kept = alike[: max(room, 1)]
    shown = [_by_class(names.arm(arm), part, figures[arm, part], _matrix(found, arm, part)) for arm, part in kept]
    return Classes(classes, shown, _left_out(wanted, kept, len(classes)))


def _left_out(wanted: Sequence[Any], kept: Sequence[Any], num_classes: int) -> str:
    reasons = []
    if num_classes > MOST_CLASSES:
        reasons.append(f"a matrix of {num_classes} classes could not be read; confusion.csv may hold it")
    if len(kept) < len(wanted):
        arms = counted(len({arm for arm, _ in wanted}) - len({arm for arm, _ in kept}), "arm")
        reasons.append(f"{arms} are left out; per_class.csv and confusion.csv hold all")
    return "; ".join(reasons)


def _names_of(rows: pd.DataFrame) -> list[str]:
    return [str(name) for name in rows["class"] if name != WEIGHTED]


def _matrix(found: Findings, arm: str, part: str) -> npt.NDArray[np.float64] | None:
    matrix = found.confusions.get((arm, part), (None,))[0]
    return matrix if matrix is not None and len(matrix) <= MOST_CLASSES else None


def _by_class(name: str, part: str, rows: pd.DataFrame, matrix: npt.NDArray[np.float64] | None) -> ByClass:
    images = [[round(float(count), 2) for count in row] for row in matrix] if matrix is not None else []
    single = rows[rows["class"] != WEIGHTED]
    columns = [single[figure] if figure in single else [math.nan] * len(single) for figure in FIGURES]
    figures = [[_percent(value) for value in row] for row in zip(*columns, strict=True)]
    seeds = counted(int(rows["n"].max()), "seed") if "n" in rows else ""
    return ByClass(name, part, seeds, images, figures)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else ""
