"""The table of arms on a page: numbers with their intervals, each difference drawn beside the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cnn_ablation.report.page import numbers
from cnn_ablation.report.page.answers import NOT_COMPARED
from cnn_ablation.report.page.names import Names, capitalised, metric_title
from cnn_ablation.report.text import NOT_YET, more_seeds, score_formats
from cnn_ablation.study.designs import BASELINE
from cnn_ablation.study.metric import Metric, metric_of_table

WIDTH = 160.0
"""Of a drawn interval, in its own units."""
_MOST_ROWS_FLAT = 12
_LONG_NAME = 40
_WIDEST = 4.0  # an interval that reaches further than so many times the largest difference is cut off


@dataclass(frozen=True)
class Cell:
    """What stands in one column of a row."""

    text: str = ""
    interval: str = ""
    """Below it."""
    word: str = ""
    """Of a verdict on times."""
    order: float | str = ""
    """What a row is sorted by; an empty text stays last."""


@dataclass(frozen=True)
class Column:
    """A heading of the table."""

    key: str
    title: str
    unit: str = ""
    is_text: bool = False


@dataclass(frozen=True)
class Drawn:
    """An interval in units of `WIDTH`; cut off where it leaves the scale."""

    low: float
    mean: float
    high: float
    is_cut_low: bool
    is_cut_high: bool


@dataclass(frozen=True)
class Row:
    """One arm."""

    arm: str
    name: str
    knob: str
    verdict: str
    cells: dict[str, Cell]
    drawn: Drawn | None
    notes: list[str]

    @property
    def has_long_name(self) -> bool:
        """Which needs the width of the table, not of a column."""
        return len(self.arm) > _LONG_NAME


@dataclass(frozen=True)
class Scale:
    """From differences to places in a drawn interval, the same for all rows."""

    low: float
    high: float
    margin: float | None

    def place(self, value: float) -> float:
        """In units of `WIDTH`, within it."""
        share = (value - self.low) / (self.high - self.low)
        return round(WIDTH * min(max(share, 0.0), 1.0), 2)

    def drawn(self, mean: float, low: float, high: float) -> Drawn | None:
        """A difference with its limits; one without an interval is a point, one without a value nothing."""
        if not math.isfinite(mean):
            return None
        first, last = (limit if math.isfinite(limit) else mean for limit in (low, high))
        return Drawn(self.place(first), self.place(mean), self.place(last), first < self.low, last > self.high)

    @property
    def zero(self) -> float:
        return self.place(0.0)

    @property
    def band(self) -> tuple[float, float] | None:
        """Where differences do not matter: its place and its width."""
        if self.margin is None:
            return None
        first, last = self.place(-self.margin), self.place(self.margin)
        return first, round(last - first, 2)


@dataclass(frozen=True)
class Group:
    """Rows of one knob; all rows where the table is short, or no knob has several."""

    knob: str
    rows: list[Row]


@dataclass(frozen=True)
class TableOfArms:
    """All that the page's table shows."""

    columns: list[Column]
    groups: list[Group]
    scale: Scale | None
    """None where nothing is compared."""


def table_of_arms(arms: pd.DataFrame, names: Names) -> TableOfArms:
    """The rows in the order of the table, without columns that have nothing to say of any arm."""
    metric = metric_of_table(arms.attrs, arms.columns)
    forms = score_formats(arms, metric)
    scale = _scale(arms, metric)
    rows = [_row(row, metric, forms, scale, names) for row in arms.to_dict("records")]
    columns = [column for column in _columns(arms, metric) if _has_content(column, rows, scale)]
    return TableOfArms(columns, _groups(rows, names), scale)


def _columns(arms: pd.DataFrame, metric: Metric) -> Iterator[Column]:
    yield Column("arm", "Arm", is_text=True)
    yield Column("difference", "Difference", "points" if metric.is_accuracy else metric.column)
    yield Column("verdict", "Verdict", is_text=True)
    yield Column("p", "p", "Dunnett" if arms.attrs.get("test") == "dunnett" else "Holm")
    yield Column("score", metric_title(metric), "%" if metric.is_accuracy else "mean")
    yield Column("n", "Seeds")
    yield Column("time", "Time ratio")
    yield Column("seconds", "Training", "s")


def _has_content(column: Column, rows: Sequence[Row], scale: Scale | None) -> bool:
    if column.key == "verdict":
        return scale is not None
    return column.key == "arm" or any(row.cells[column.key].text for row in rows)


def _groups(rows: Sequence[Row], names: Names) -> list[Group]:
    """By knob, the arm that others are compared with apart."""
    knobs = list(dict.fromkeys(row.knob for row in rows if row.verdict != BASELINE))
    if len(rows) <= _MOST_ROWS_FLAT or not 1 < len(knobs) < len(rows) - 1:
        return [Group("", list(rows))]
    first = [row for row in rows if row.verdict == BASELINE]
    by_knob = [[row for row in rows if row.knob == knob and row.verdict != BASELINE] for knob in knobs]
    named = [
        Group(capitalised(names.knob(knob)) or "Other arms", group) for knob, group in zip(knobs, by_knob, strict=True)
    ]
    return [Group("", first), *named]


def _row(row: Mapping[Any, Any], metric: Metric, forms: tuple[str, str], scale: Scale | None, names: Names) -> Row:
    difference = [float(row[name]) for name in metric.delta]
    is_reference = row["verdict"] == BASELINE
    is_compared = math.isfinite(difference[0])
    verdict = row["verdict"] if is_reference or is_compared else NOT_COMPARED
    return Row(
        arm=row["arm"],
        name=names.arm(row["arm"]),
        knob=str(row["knob"]),
        verdict=verdict,
        cells={
            "arm": Cell(order=row["arm"]),
            "difference": _estimate(difference, forms[1]),
            "verdict": Cell(verdict, _more(row), order=verdict),
            "p": Cell(_p_value(float(row["p_holm"])), order=_order(float(row["p_holm"]))),
            "score": _estimate([metric.factor * float(row[metric.estimate[place]]) for place in (0, 2, 3)], forms[0]),
            "n": Cell(str(row["n"]), order=int(row["n"])),
            "time": Cell() if is_reference else _time(row),
            "seconds": _number(float(row["train_seconds_mean"]), "{:.2f}"),
        },
        drawn=scale.drawn(*difference) if scale and not is_reference else None,
        notes=[numbers.with_minus(note) for note in str(row["notes"]).split("; ") if note],
    )


def _estimate(values: Sequence[float], form: str) -> Cell:
    mean, low, high = values
    return Cell(numbers.written(mean, form), numbers.interval(low, high, form), order=_order(mean))


def _number(value: float, form: str) -> Cell:
    return Cell(numbers.written(value, form), order=_order(value))


def _order(value: float) -> float | str:
    return value if math.isfinite(value) else ""


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else numbers.written(value, "{:.3f}")


def _more(row: Mapping[Any, Any]) -> str:
    """`14 to 35 more seeds`; empty where a verdict is there, or none can be expected."""
    wanted = more_seeds(row)
    if not wanted or wanted == NOT_YET:
        return ""
    return f"{wanted.replace('-', ' to ')} more {'seed' if wanted == '1' else 'seeds'}"


def _time(row: Mapping[Any, Any]) -> Cell:
    """A table of arms from before there were verdicts on times has none."""
    estimate = [float(row[name]) for name in ("time_ratio", "time_ratio_ci_low", "time_ratio_ci_high")]
    found = _estimate(estimate, "{:.2f}")
    return Cell(found.text, found.interval, row.get("time_verdict", "") or "", found.order)


def _scale(arms: pd.DataFrame, metric: Metric) -> Scale | None:
    """Wide enough for every interval, but those that would leave the others no room."""
    deltas, lows, highs = (arms[name].to_numpy(np.float64) for name in metric.delta)
    finite = deltas[np.isfinite(deltas)]
    if not len(finite):
        return None
    margin = metric.margin
    most = _WIDEST * max(float(np.abs(finite).max()), margin or 0.0) or 1.0
    limits = np.concatenate([finite, lows[np.isfinite(lows)], highs[np.isfinite(highs)], [0.0]])
    inside = np.clip(limits, -most, most)
    low, high = min(float(inside.min()), -(margin or 0.0)), max(float(inside.max()), margin or 0.0)
    if low == high:  # all differences are 0, and there is no margin
        low, high = -1.0, 1.0
    room = 0.06 * (high - low)
    return Scale(low - room, high + room, margin)
