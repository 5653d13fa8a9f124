"""The papers' figures as data, one YAML file a study, and how ours compare with them. No torch.

A file names its source, the paper's protocol (settings by dotted key), and its figures: the arm of our study that
stands for it, what was measured, the paper's value, where it is printed, and why ours may differ.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from cnn_ablation.analysis import stats
from cnn_ablation.analysis.metrics import FIGURES, WEIGHTED
from cnn_ablation.analysis.tables import COUNTED, TRAINED, FinishedStudy, checked_settings
from cnn_ablation.common.errors import ConfigError, Problem, RecordError
from cnn_ablation.runs.records import Run
from cnn_ablation.study.designs import BASELINE, label_of
from cnn_ablation.study.metric import ACCURACIES
from cnn_ablation.study.papers import paper_names

COLUMNS = ("arm", "figure", "class", "paper", "ours", "ci_low", "ci_high", "n", "agreement", "where", "why")
INSIDE, HIGHER, LOWER, UNKNOWN = "inside", "higher", "lower", "no interval"
CANNOT_TELL = "cannot tell"
EQUAL, DIFFERENT = "equal", "different"
COUNT = "num_params"
FEWEST_SEEDS = 3  # two values say next to nothing of their spread: their t quantile is 12.7
WIDEST = 0.20  # an interval of more than 20 points holds nearly any figure that a paper could print
_DIFFERENCE = "_difference"
_SECONDS = "_seconds"
_COLUMNS = (*ACCURACIES, COUNT, "train_seconds", "total_seconds")


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

    def departures(self, baseline: dict[str, Any], group: str = "") -> Iterator[str]:
        """What our baseline does otherwise than the paper, from its settings by dotted key that begin with `group`."""
        for key, value in self.protocol.items():
            ours = baseline.get(key)
            if ours != value and key.startswith(group):
                yield f"{key.removesuffix('.name')}={label_of(ours)} here, {label_of(value)} in the paper"


def read(name: str) -> Paper:
    """The paper's file, by the name that `paper=` takes.

    Raises:
        ConfigError: there is no such paper.
    """
    if name not in paper_names():
        raise ConfigError([Problem("paper", name, ", ".join(paper_names()))])
    content = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_bytes())
    figures = [Figure(class_name=str(entry.pop("class", "")), **entry) for entry in content["figures"]]
    return Paper(content["source"], content["protocol"], tuple(figures))


def compare(paper: Paper, study: FinishedStudy, alpha: float) -> pd.DataFrame:
    """Our mean over seeds with a prediction interval beside each of the paper's figures whose arm has been trained.

    A paper's figure is that of a single run. The interval is therefore not that of our mean but the one in which one
    further run of ours would lie, `stats.prediction_interval`.

    `agreement` says where the paper's figure lies: `inside` our interval, `higher` or `lower`; counts are `equal` or
    `different`. It is `no interval` with one seed or without spread, and `cannot tell`

    - with fewer than `FEWEST_SEEDS` seeds;
    - inside an interval that is wider than `WIDEST`, or that reaches down to guessing: it would hold almost any figure;
    - for seconds, which were measured on other hardware.

    Args:
        paper: from `read`.
        study: its test figures of arms that a greedy study dropped are left out.
        alpha: 1 - confidence.

    Returns:
        A frame with `COLUMNS`, accuracies and the like as fractions.

    Raises:
        ConfigError: `alpha` is out of its bounds.
        RecordError: these are no paper and no study, or a figure's metric is none that a run has.
    """
    checked_settings({"alpha": alpha})
    _check(paper, study)
    found = [(figure, _shown(figure, study)) for figure in paper.figures]
    rows = [_row(figure, ours, paper, study, alpha) for figure, ours in found if len(ours)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _check(paper: object, study: object) -> None:
    for name, value, kind in (("paper", paper, Paper), ("study", study, FinishedStudy)):
        if not isinstance(value, kind):
            raise RecordError(f"{name} is {reprlib.repr(value)}; a {kind.__name__} is wanted")
    for figure in paper.figures:  # type: ignore[attr-defined]
        part, _, column = figure.metric.removesuffix(_DIFFERENCE).partition("_")
        known = f"{part}_{column}" in _COLUMNS or (part in ("val", "test") and column in FIGURES)
        if not known:
            allowed = f"{', '.join(_COLUMNS)}, or val_ or test_ with one of {', '.join(FIGURES)}"
            raise RecordError(f"a figure of the paper is of {figure.metric!r}; known are {allowed}")


def _row(figure: Figure, ours: stats.Floats, paper: Paper, study: FinishedStudy, alpha: float) -> dict[str, Any]:
    """A figure of the paper beside ours, one value per seed."""
    interval = stats.prediction_interval(ours, alpha)
    mean, low, high = (float(value) for value in (interval.mean, interval.low, interval.high))
    agreement = _agreement(figure, ours, stats.Interval(mean, low, high), _guessing(figure, study))
    if _is_share(figure):
        low, high = max(low, -1.0 if figure.metric.endswith("area_ratio") else 0.0), min(high, 1.0)
    return {
        "arm": figure.arm,
        "figure": figure.metric,
        "class": figure.class_name,
        "paper": figure.value,
        "ours": mean,
        "ci_low": low,
        "ci_high": high,
        "n": len(ours),
        "agreement": agreement,
        "where": figure.where,
        "why": _why(figure, paper, study),
    }


def _why(figure: Figure, paper: Paper, study: FinishedStudy) -> str:
    """Why ours may differ; seconds of a training that is not the paper's say what is otherwise."""
    otherwise = paper.departures(study.plan.baseline, "train.") if figure.metric.endswith(_SECONDS) else ()
    return "; ".join(filter(None, [figure.why, ", ".join(otherwise)]))


def _is_share(figure: Figure) -> bool:
    """Whether it lies in 0..1, or an area ratio in -1..1."""
    return not figure.metric.endswith((_DIFFERENCE, _SECONDS, COUNT))


def _guessing(figure: Figure, study: FinishedStudy) -> float:
    """What guessing gives: one in so many classes, an area ratio of 0; NaN where there is no such value."""
    if not _is_share(figure):
        return math.nan
    if figure.metric.endswith("area_ratio"):
        return 0.0
    classes = max((run.num_classes for run in study.runs), default=0)
    return 1 / classes if classes else math.nan


def _agreement(figure: Figure, ours: stats.Floats, interval: stats.Interval, guessing: float) -> str:
    """Where the paper's figure lies; an interval that is not cut at 0 and 1 tells how wide it is."""
    if figure.metric == COUNT:
        return EQUAL if figure.value == interval.mean else DIFFERENT
    if figure.metric.endswith(_SECONDS):
        return CANNOT_TELL
    if math.isnan(interval.low):
        return UNKNOWN
    if len(ours) < FEWEST_SEEDS:
        return CANNOT_TELL
    if interval.low <= figure.value <= interval.high:
        holds_anything = interval.high - interval.low > WIDEST or interval.low <= guessing
        return CANNOT_TELL if holds_anything else INSIDE
    return HIGHER if figure.value > interval.high else LOWER


def _shown(figure: Figure, study: FinishedStudy) -> stats.Floats:
    """Ours, one per seed; none of a test figure of an arm that a greedy study dropped."""
    if figure.arm in study.plan.dropped and figure.metric.startswith("test"):
        return np.array([])
    values = _values(figure, study)
    return values[~np.isnan(values)]


def _values(figure: Figure, study: FinishedStudy) -> npt.NDArray[np.float64]:
    """Ours, one per seed; differences from the baseline paired by seed."""
    metric = figure.metric.removesuffix(_DIFFERENCE)
    found = _by_seed(figure.arm, metric, figure.class_name, study)
    if figure.metric.endswith(_DIFFERENCE):
        baseline = _by_seed(BASELINE, metric, figure.class_name, study)
        found = {seed: value - baseline[seed] for seed, value in found.items() if seed in baseline}
    return np.array(list(found.values()), dtype=np.float64)


def _by_seed(arm: str, metric: str, class_name: str, study: FinishedStudy) -> dict[int, float]:
    """Seconds are those of full trainings only, as in the table of arms."""
    statuses = TRAINED if metric.endswith(_SECONDS) else COUNTED
    return {
        run.seed: _value(run, metric, class_name) for run in study.runs if run.arm == arm and run.status in statuses
    }


def _value(run: Run, metric: str, class_name: str) -> float:
    if hasattr(run, metric):
        return float(getattr(run, metric))
    part, _, column = metric.partition("_")
    rows = {str(row["class"]): row for row in run.per_class.get(part, [])}
    return float(rows.get(class_name or WEIGHTED, {}).get(column, math.nan))
