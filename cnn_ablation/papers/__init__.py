"""The papers' figures as data, one YAML file a study, and how ours compare with them. No torch.

A file names its source, the paper's protocol (settings by dotted key), and its figures: the arm of our study that
stands for it, what was measured, the paper's value, where it is printed, and why ours may differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from cnn_ablation import stats
from cnn_ablation.designs import BASELINE, label_of
from cnn_ablation.metrics import WEIGHTED
from cnn_ablation.records import Run
from cnn_ablation.tables import COUNTED, FinishedStudy

COLUMNS = ("arm", "figure", "class", "paper", "ours", "ci_low", "ci_high", "n", "agreement", "where", "why")
INSIDE, HIGHER, LOWER, UNKNOWN = "inside", "higher", "lower", "no interval"
EQUAL, DIFFERENT = "equal", "different"
COUNT = "num_params"
_DIFFERENCE = "_difference"


@dataclass(frozen=True)
class Figure:
    """One number of a paper."""

    arm: str
    metric: str
    """A column of the table of runs; `val_` or `test_` with a column of `metrics.per_class`; either with `_difference`
    for an arm's mean minus the baseline's."""
    value: float
    where: str
    class_name: str = ""
    why: str = ""


@dataclass(frozen=True)
class Paper:
    """A paper's protocol and figures."""

    source: str
    protocol: dict[str, Any] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()

    def departures(self, baseline: dict[str, Any]) -> Iterator[str]:
        """What our baseline does otherwise than the paper, from its settings by dotted key."""
        for key, value in self.protocol.items():
            ours = baseline.get(key)
            if ours != value:
                yield f"{key.removesuffix('.name')}={label_of(ours)} here, {label_of(value)} in the paper"


def read(name: str) -> Paper:
    """The paper's file, by the name that `paper=` takes."""
    content = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text())
    figures = [Figure(class_name=str(entry.pop("class", "")), **entry) for entry in content["figures"]]
    return Paper(content["source"], content["protocol"], tuple(figures))


def compare(paper: Paper, study: FinishedStudy, alpha: float) -> pd.DataFrame:
    """Our mean over seeds with its t interval beside each of the paper's figures whose arm has been trained.

    `agreement` says where the paper's figure lies: inside our interval, higher or lower; counts are equal or different.

    Args:
        paper: from `read`.
        study: its test figures of arms that a greedy study dropped are left out.
        alpha: 1 - confidence.

    Returns:
        A frame with `COLUMNS`, accuracies and the like as fractions.
    """
    hidden = set(study.plan.dropped)
    rows = []
    for figure in paper.figures:
        ours = np.array([]) if figure.arm in hidden and figure.metric.startswith("test") else _values(figure, study)
        ours = ours[~np.isnan(ours)]
        if not len(ours):
            continue
        interval = stats.mean_interval(ours, alpha)
        mean, low, high = (float(value) for value in (interval.mean, interval.low, interval.high))
        if not figure.metric.endswith((_DIFFERENCE, "_seconds", COUNT)):  # shares lie in 0..1, area ratios in -1..1
            low, high = max(low, -1.0 if figure.metric.endswith("area_ratio") else 0.0), min(high, 1.0)
        rows.append(
            {
                "arm": figure.arm,
                "figure": figure.metric,
                "class": figure.class_name,
                "paper": figure.value,
                "ours": mean,
                "ci_low": low,
                "ci_high": high,
                "n": len(ours),
                "agreement": _agreement(figure, mean, low, high),
                "where": figure.where,
                "why": figure.why,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _agreement(figure: Figure, mean: float, low: float, high: float) -> str:
    if figure.metric == COUNT:
        return EQUAL if figure.value == mean else DIFFERENT
    if math.isnan(low):
        return UNKNOWN
    if low <= figure.value <= high:
        return INSIDE
    return HIGHER if figure.value > high else LOWER


def _values(figure: Figure, study: FinishedStudy) -> npt.NDArray[np.float64]:
    """Ours, one per seed; differences from the baseline paired by seed."""
    metric = figure.metric.removesuffix(_DIFFERENCE)
    found = _by_seed(figure.arm, metric, figure.class_name, study)
    if figure.metric.endswith(_DIFFERENCE):
        baseline = _by_seed(BASELINE, metric, figure.class_name, study)
        found = {seed: value - baseline[seed] for seed, value in found.items() if seed in baseline}
    return np.array(list(found.values()), dtype=np.float64)


def _by_seed(arm: str, metric: str, class_name: str, study: FinishedStudy) -> dict[int, float]:
    return {run.seed: _value(run, metric, class_name) for run in study.runs if run.arm == arm and run.status in COUNTED}


def _value(run: Run, metric: str, class_name: str) -> float:
    if hasattr(run, metric):
        return float(getattr(run, metric))
    part, _, column = metric.partition("_")
    rows = {str(row["class"]): row for row in run.per_class.get(part, [])}
    return float(rows.get(class_name or WEIGHTED, {}).get(column, math.nan))
