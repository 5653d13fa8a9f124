"""The rows of a table of runs, arm by arm."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

COUNTED = ("ok", "diverged")  # a diverged run counts as what it scored; a failed one has no score
TRAINED = ("ok",)  # only full trainings are compared by time
Floats = npt.NDArray[np.float64]
Pair = tuple[Floats, Floats]


class ArmRuns:
    """Rows of the table of runs that belong to one arm, in the order of their seeds.

    Plain arrays: a frame per arm costs milliseconds, and a study may have a thousand arms.
    """

    def __init__(self, columns: dict[str, np.ndarray], rows: npt.NDArray[np.intp], metric: str, choice: str):
        self.columns, self.rows = columns, rows
        self.metric, self.choice = metric, choice
        self._means: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column][self.rows]

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def where(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> ArmRuns:
        return ArmRuns(self.columns, self.rows[chosen], self.metric, self.choice)

    def of_seeds(self, seeds: Collection[int] | None) -> ArmRuns:
        """The runs of some seeds; None for all."""
        if seeds is None or set(self["seed"].tolist()) <= set(seeds):
            return self
        return self.where(np.isin(self["seed"], list(seeds)))

    @cached_property
    def scored(self) -> ArmRuns:
        return self._of_status(COUNTED)

    @cached_property
    def with_metric(self) -> ArmRuns:
        scored = self.scored
        return scored.where(~np.isnan(scored[self.metric])) if len(scored) else scored

    @property
    def is_tested(self) -> bool:
        """Whether it is compared: a greedy study shows no test score of what validation dropped."""
        return bool(len(self.with_metric) or not len(self.scored))

    @property
    def num_scores(self) -> int:
        """Runs with the metric; of an arm without any, those with the figure by which the study chose."""
        if self.is_tested:
            return len(self.with_metric)
        return int((~np.isnan(self.scored[self.choice])).sum()) if self.choice in self else 0

    @property
    def num_lost(self) -> int:
        """Diverged runs without the metric: they would have counted against their arm."""
        return self.count("diverged") - int((self.with_metric["status"] == "diverged").sum())

    @cached_property
    def trained(self) -> ArmRuns:
        return self._of_status(TRAINED)

    def _of_status(self, wanted: Collection[str]) -> ArmRuns:
        chosen = [status in wanted for status in self["status"].tolist()]
        return self if all(chosen) else self.where(np.array(chosen))

    def count(self, status: str) -> int:
        return int((self["status"] == status).sum())

    def mean(self, column: str) -> float:
        """NaN if the table has no such column, or the arm no run; gaps are left out."""
        if column not in self._means:
            values = self[column].astype(float) if column in self else np.zeros(0)
            mean = float(np.add.reduce(values) / len(values)) if len(values) else math.nan
            if math.isnan(mean) and not np.isnan(values).all():
                mean = float(values[~np.isnan(values)].mean())
            self._means[column] = mean
        return self._means[column]

    def most_common(self, column: str) -> str:
        """Of the texts in a column, the first in the alphabet among equals; says so where runs differ."""
        counts = Counter(text for text in self[column] if text) if column in self else Counter[str]()
        if not counts:
            return ""
        text = min(counts.items(), key=lambda item: (-item[1], item[0]))[0]
        return f"{text} (in other runs elsewhere)" if len(counts) > 1 else text


def runs_by_arm(runs: pd.DataFrame, metric: str, choice: str) -> dict[str, ArmRuns]:
    """The arms in the order of their first rows; of an arm and seed that are there twice, the last row counts.

    Args:
        runs: checked.
        metric: the column that arms are compared by.
        choice: the column by which a greedy study chose.
    """
    names = [str(name) for name in dict.fromkeys(runs["arm"])]
    runs = runs.drop_duplicates(["arm", "seed"], keep="last").sort_values("seed", kind="stable")
    columns = {str(name): runs[name].to_numpy() for name in runs.columns}
    rows = {str(name): np.asarray(found, dtype=np.intp) for name, found in runs.groupby("arm").indices.items()}
    return {name: ArmRuns(columns, rows[name], metric, choice) for name in names}


def on_shared_seeds(first: ArmRuns, second: ArmRuns) -> tuple[ArmRuns, ArmRuns]:
    """The runs of the seeds that both have, in the order of the seeds."""
    if np.array_equal(first["seed"], second["seed"]):  # most often they are the same
        return first, second
    _, places, others = np.intersect1d(first["seed"], second["seed"], return_indices=True)
    return first.where(places), second.where(others)


def paired_values(arm: ArmRuns, baseline: ArmRuns, column: str) -> Pair:
    """Values of the seeds that both have, in the order of the seeds."""
    first, second = on_shared_seeds(*(side.where(~np.isnan(side[column])) for side in (arm, baseline)))
    return first[column], second[column]
