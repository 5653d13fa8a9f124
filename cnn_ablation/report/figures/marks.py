"""What is drawn of every arm: its mean with its interval, and its single seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation.common.words import counted
from cnn_ablation.config import ANYTIME
from cnn_ablation.study.designs import BASELINE
from cnn_ablation.study.metric import TIMES, Metric, metric_of_table

Floats = npt.NDArray[np.float64]
Seeds = Any  # pd.Series[float], which pandas cannot subscript at run time
"""Values by seed."""

_NONE: Seeds = pd.Series([], index=pd.Index([], dtype=np.int64), dtype=np.float64)
_UNPAIRED = "dunnett"
_REMARK = re.compile(r"\d+ of \d+ runs (?:diverged|failed)[^;,]*")


@dataclass(frozen=True)
class Marks:
    """Of n arms, in the unit that is shown."""

    arms: list[str]
    verdicts: list[str]
    mean: Floats
    low: Floats
    high: Floats
    seeds: list[Seeds]
    remarks: list[str]
    unit: str
    is_difference: bool

    @property
    def groups(self) -> list[Floats]:
        """All values of each arm; limits that are none are NaN."""
        estimates = np.stack([self.mean, self.low, self.high], axis=1)
        return [np.concatenate([row, seeds.to_numpy()]) for row, seeds in zip(estimates, self.seeds, strict=True)]

    def of(self, verdict: str) -> npt.NDArray[np.intp]:
        """Places of the arms that have a verdict and a mean."""
        return np.flatnonzero((np.array(self.verdicts) == verdict) & ~np.isnan(self.mean))

    def without(self, missing: npt.NDArray[np.bool_], remark: str) -> Marks:
        """The same, some arms without their marks.

        Args:
            missing: (n,), which arms.
            remark: why, where nothing is said of them.
        """
        mean, low, high = (np.where(missing, np.nan, values) for values in (self.mean, self.low, self.high))
        seeds = [_NONE if gone else seeds for gone, seeds in zip(missing, self.seeds, strict=True)]
        remarks = [said or (remark if gone else "") for gone, said in zip(missing, self.remarks, strict=True)]
        return replace(self, mean=mean, low=low, high=high, seeds=seeds, remarks=remarks)

    def words(self, place: int) -> str:
        """`-0.28 pp [-0.74, +0.29]`."""
        limits = [self.low[place], self.high[place]]
        interval = f" [{', '.join(map(self.number, limits))}]" if np.isfinite(limits).all() else ""
        return f"{self.number(self.mean[place])}{self.unit}{interval}"

    def number(self, value: float) -> str:
        """As tables show it: accuracies with two decimals, differences with their sign."""
        sign = "+" if self.is_difference else ""
        form = f"{sign}.2f" if self.unit and abs(value) < 1e4 else f"{sign}.4g"
        return format(value, form).replace("-", "\u2212")


def metric_of_arms(arms: pd.DataFrame) -> Metric:
    """The metric that a table of arms compares by."""
    return metric_of_table(arms.attrs, arms.columns)


def without_dropped(arms: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The arms of a table that a picture shows, and a sentence about the others.

    A greedy study shows no test score of what validation dropped; these arms have runs, and no mean.
    """
    is_dropped = arms[metric_of_arms(arms).estimate[0]].isna() & (arms["n"] > 0)
    count = int(is_dropped.sum())
    words = f"; {counted(count, 'arm')} dropped on validation {'is' if count == 1 else 'are'} not shown"
    return arms[~is_dropped], words if count else ""


def metric_words(metric: Metric) -> str:
    """A column may have any name; $ starts no formula."""
    return metric.words.replace("$", r"\$")


def axis_words(metric: Metric) -> str:
    """What stands at the axis of a metric."""
    return f"{metric.words} (%)" if metric.is_accuracy else f"{metric_words(metric)} ({metric.direction} is better)"


def differences(arms: pd.DataFrame, runs: pd.DataFrame | None) -> Marks:
    """Of every arm but the one that others are compared with: the difference from it, seeds paired with its own.

    Args:
        arms: from `ablation_table`.
        runs: the table of runs, for single seeds; None for none.
    """
    metric = metric_of_arms(arms)
    reference = arms["arm"][arms["verdict"] == BASELINE]
    seeds = _scores(runs, metric)
    baseline: Seeds = seeds.get(str(reference.iloc[0]), _NONE) if len(reference) else _NONE
    if metric.column in TIMES:  # which times are paired, circumstances decide
        seeds = {}
    if arms.attrs.get("test") == _UNPAIRED:
        paired = {arm: values - baseline.mean() for arm, values in seeds.items()}
    else:
        paired = {arm: (values - baseline).dropna() for arm, values in seeds.items()}
    compared = arms[arms["verdict"] != BASELINE]
    return _marks(compared, metric.delta, 1.0, paired, is_difference=True)


def scores(arms: pd.DataFrame, runs: pd.DataFrame | None) -> Marks:
    """Of every arm: the metric, accuracies in percent; arguments as in `differences`."""
    metric = metric_of_arms(arms)
    mean, _, *limits = metric.estimate
    return _marks(arms, (mean, *limits), metric.factor, _scores(runs, metric), is_difference=False)


def seconds(arms: pd.DataFrame, runs: pd.DataFrame | None) -> dict[str, Seeds]:
    """Training times by arm and seed, of full trainings."""
    if runs is None or "train_seconds" not in runs:
        return {}
    trained = runs[(runs["status"] == "ok") & runs["arm"].isin(arms["arm"])]
    return _by_arm(trained, "train_seconds", 1.0)


def _scores(runs: pd.DataFrame | None, metric: Metric) -> dict[str, Seeds]:
    if runs is None or metric.column not in runs:
        return {}
    return _by_arm(runs[runs["status"] != "failed"], metric.column, metric.factor)


def _by_arm(runs: pd.DataFrame, column: str, factor: float) -> dict[str, Seeds]:
    """Of an arm and seed that are there twice, the last row counts."""
    rows = runs.drop_duplicates(["arm", "seed"], keep="last")
    values, seeds = factor * rows[column].to_numpy(np.float64, na_value=np.nan), rows["seed"].to_numpy()
    is_finite, found = np.isfinite(values), dict[str, Seeds]()
    for arm, indices in rows.groupby("arm", sort=False).indices.items():
        places = np.asarray(indices)
        kept = places[is_finite[places]]
        in_order = kept[np.argsort(seeds[kept], kind="stable")]
        found[str(arm)] = pd.Series(values[in_order], index=seeds[in_order])
    return found


def _marks(
    arms: pd.DataFrame, columns: tuple[str, ...], factor: float, seeds: Mapping[str, Seeds], *, is_difference: bool
) -> Marks:
    names = [str(name) for name in arms["arm"]]
    unit = (" pp" if is_difference else " %") if columns[0].endswith(("_pp", "accuracy_mean")) else ""
    missing = "not compared" if is_difference else "no score"
    mean, low, high = (factor * arms[name].to_numpy(np.float64) for name in columns)
    # An interval that holds at every number of seeds keeps what earlier ones ruled out: the mean may lie beyond it.
    low, high = (np.where(np.isinf(limit), np.nan, limit) for limit in (np.minimum(low, mean), np.maximum(high, mean)))
    found = [seeds.get(name, _NONE) if not np.isnan(value) else _NONE for name, value in zip(names, mean, strict=True)]
    return Marks(
        names, arms["verdict"].tolist(), mean, low, high, found, _remarks(arms, mean, missing), unit, is_difference
    )


def told_of_runs(arms: pd.DataFrame) -> list[str]:
    """Of every arm which runs failed or diverged, in the words of its notes; empty where none did."""
    notes = arms["notes"].astype(str) if "notes" in arms else pd.Series("", index=arms.index)
    return [", ".join(_REMARK.findall(note)) for note in notes]


def _remarks(arms: pd.DataFrame, mean: Floats, missing: str) -> list[str]:
    """What a reader must know before the mark: which runs failed or diverged, or that there is no comparison."""
    found = told_of_runs(arms)
    return [remark or (missing if np.isnan(value) else "") for remark, value in zip(found, mean, strict=True)]


def interval_words(arms: pd.DataFrame) -> str:
    """`95 % interval`; without the percentage where the table was read from a file."""
    alpha = arms.attrs.get("alpha")
    confidence = f"{100 * (1 - alpha):g} % " if alpha else ""
    return confidence + ("confidence sequence" if arms.attrs.get("test") == ANYTIME else "interval")
