"""What an arm changes besides its knob, what is seen inside its networks, and which of its runs have no result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from cnn_ablation.analysis import notes
from cnn_ablation.analysis.tables import COUNTED
from cnn_ablation.report.page import numbers
from cnn_ablation.report.page.names import Names
from cnn_ablation.report.page.simple_table import SimpleTable, with_content
from cnn_ablation.runs.task import Cost

_MOST_FAILURES = 100
_MOST_LETTERS = 600  # of an error

Form = Callable[[float], str]


def _count(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) and value > 0 else ""


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else ""


def _four_digits(value: float) -> str:
    return numbers.written(value, "{:.4g}")


_COSTS: dict[str, tuple[str, Form]] = {
    "num_params": ("Parameters", _count),
    "updates": ("Updates", _count),
    "epochs": ("Epochs", _count),
    "multiply_adds": ("Multiply-adds per image", _count),
    "images_per_second": ("Images per second", _count),
    "peak_memory_mib": ("Peak memory, MiB", _count),
}
_DIAGNOSES: dict[str, tuple[str, Form]] = {
    "train_accuracy": ("Train accuracy, %", _percent),
    "val_accuracy": ("Validation accuracy, %", _percent),
    "lowest_train_loss": ("Lowest training loss", _four_digits),
    "initial_gradient_norm": ("Gradient at the start", _four_digits),
    "final_gradient_norm": ("Gradient at the end", _four_digits),
    "dead_units": ("Dead units, %", _percent),
    "saturated_outputs": ("Saturated outputs, %", _percent),
}


def costs(runs: pd.DataFrame, arms: pd.DataFrame, names: Names) -> SimpleTable:
    """What each arm costs, and its confounds in words."""
    means = _Means(runs)
    first = means.cost(str(arms["arm"].iloc[0]))
    columns = ["Arm", *(title for title, _ in _COSTS.values()), "Changed besides the knob"]
    rows = [
        [
            names.arm(arm),
            *means.texts(arm, _COSTS),
            numbers.with_minus("; ".join(notes.confounds(means.cost(arm), first))),
        ]
        for arm in map(str, arms["arm"])
    ]
    return with_content("What each arm costs, means over its runs", columns, rows, texts={len(columns) - 1})


def diagnoses(runs: pd.DataFrame, arms: pd.DataFrame, names: Names) -> SimpleTable:
    """What was measured in the networks of each arm."""
    means = _Means(runs)
    columns = ["Arm", *(title for title, _ in _DIAGNOSES.values())]
    rows = [[names.arm(arm), *means.texts(arm, _DIAGNOSES)] for arm in map(str, arms["arm"])]
    return with_content("What was measured in the networks, means over the runs of each arm", columns, rows, set())


class _Means:
    """Means over the runs of an arm that have a score."""

    def __init__(self, runs: pd.DataFrame):
        wanted = [name for name in (*_COSTS, *_DIAGNOSES) if name in runs.columns]
        scored = runs[runs["status"].isin(COUNTED)]
        figures = scored[wanted].apply(pd.to_numeric, errors="coerce")
        numbers_of = {arm: number for number, arm in enumerate(dict.fromkeys(scored["arm"]))}
        means = figures.groupby([numbers_of[arm] for arm in scored["arm"]]).mean()  # by number: a name may be any text
        self._means = dict(zip(numbers_of, means.to_dict("records"), strict=True))

    def of(self, arm: str, column: str) -> float:
        """NaN where there is none."""
        return float(self._means.get(arm, {}).get(column, math.nan))

    def texts(self, arm: str, columns: dict[str, tuple[str, Form]]) -> list[str]:
        return [form(self.of(arm, column)) for column, (_, form) in columns.items()]

    def cost(self, arm: str) -> Cost:
        return Cost(*(self.of(arm, column) for column in ("updates", "num_params", "multiply_adds")))


def failures(runs: pd.DataFrame, names: Names) -> tuple[SimpleTable, str]:
    """Runs that failed or diverged with what they said, and how many more there are, in words."""
    found = runs[runs["status"].isin(("failed", "diverged"))]
    shown = found.iloc[:_MOST_FAILURES].to_dict("records")
    rows = [[names.arm(str(row["arm"])), str(row["seed"]), row["status"], _reason(row)] for row in shown]
    table = SimpleTable("Runs without a full training", ["Arm", "Seed", "Status", "What happened"], rows,
                        frozenset({2, 3}))  # fmt: skip
    left = len(found) - len(rows)
    return table, f"{left} more are in runs.csv." if left else ""


def _reason(row: Mapping[Any, Any]) -> str:
    error = str(row.get("error") or "")
    if row["status"] == "failed":
        return f"{error[:_MOST_LETTERS]} …" if len(error) > _MOST_LETTERS else error
    epochs = row.get("epochs")
    return "a loss was not finite" + (f" in epoch {epochs}" if isinstance(epochs, int) and epochs else "")


def has_any(tables: Sequence[SimpleTable]) -> bool:
    """Whether one of the tables is worth showing."""
    return any(table.is_worth_showing for table in tables)
