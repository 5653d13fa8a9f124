"""Learning curves on a page: one small picture for each arm, all on the same axes, with the reference behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation.report.findings import Findings
from cnn_ablation.report.page import numbers
from cnn_ablation.report.page.names import Names, metric_title
from cnn_ablation.report.pictures import curve_column
from cnn_ablation.study.metric import Metric

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT = 240.0, 130.0
LEFT, RIGHT, TOP, BOTTOM = 38.0, 8.0, 8.0, 20.0
AXES = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM}
"""Where they are in a panel."""
_MOST_ARMS = 100
_MOST_SHOWN = 12  # of the others the reader chooses
_MOST_POINTS = 60  # of a line: as many as its pixels let one see
_MOST_LINES = 200  # of single seeds on a page
_WILD = 10.0  # a range so many times that of most curves is cut off


@dataclass(frozen=True)
class Line:
    """One seed's curve."""

    path: str
    title: str


@dataclass(frozen=True)
class Panel:
    """The curves of one arm."""

    name: str
    mean: str
    """Path of the mean over seeds."""
    band: str
    """Path around all seeds; empty for one seed."""
    lines: list[Line]
    last: str
    """The mean at the end, in words."""
    is_reference: bool
    is_shown: bool
    """From the start; others are chosen."""


@dataclass(frozen=True)
class Curves:
    """All panels with their common axes."""

    title: str
    panels: list[Panel]
    reference: str
    """Path of the reference's mean, drawn behind the others."""
    ticks: list[tuple[float, str]]
    """Heights and labels of the vertical axis."""
    first_epoch: str
    last_epoch: str


def curves_of(found: Findings, names: Names, order: Sequence[str]) -> Curves | None:
    """One panel for each arm that has learning curves; None without any, or with too many to look at.

    Args:
        found: with the curves.
        names: of its arms.
        order: the arms, those first that a reader looks for first.
    """
    column = curve_column(found.curves, found.metric.column)
    arms = [str(arm) for arm in found.arms["arm"]]
    if not column or len(arms) > _MOST_ARMS:
        return None
    metric = Metric(column)
    shown = found.curves[["arm", "seed", "epoch"]].assign(value=metric.factor * found.curves[column].astype(float))
    tables = {str(arm): rows.pivot_table("value", "epoch", "seed") for arm, rows in shown.groupby("arm", sort=False)}
    tables = {arm: table for arm, table in tables.items() if table.size}
    if not tables:
        return None
    axes = _Axes(list(tables.values()), keeps_best=metric.is_accuracy)
    single = sum(table.shape[1] for table in tables.values()) <= _MOST_LINES
    wanted = [arms[0], *order][:_MOST_SHOWN]
    panels = [
        _panel(names.arm(arm), tables[arm], axes, metric, single=single, is_reference=arm == arms[0],
               is_shown=arm in wanted)
        for arm in arms
        if arm in tables
    ]  # fmt: skip
    reference = axes.path(tables[arms[0]].mean(axis=1)) if arms[0] in tables else ""
    unit = ", %" if metric.is_accuracy else ""
    first, last = f"{axes.first:g}", f"{axes.last:g}"
    return Curves(f"{metric_title(metric)}{unit}", panels, reference, axes.ticks(), first, last)


class _Axes:
    """From epochs and values to places in a panel.

    Args:
        tables: values by epoch (rows) and seed (columns), of each arm.
        keeps_best: whether the largest values are shown however few they are.
    """

    def __init__(self, tables: Sequence[pd.DataFrame], *, keeps_best: bool = False):
        epochs = np.concatenate([table.index.to_numpy(np.float64) for table in tables])
        self.first, self.last = float(epochs.min()), float(epochs.max())
        values = np.concatenate([table.to_numpy(np.float64).ravel() for table in tables])
        self.low, self.high = _range(values[np.isfinite(values)], keeps_best=keeps_best)

    def path(self, line: pd.Series) -> str:
        """The line through what is finite, with no more points than one can see."""
        line = line[np.isfinite(line)]
        chosen = np.unique(np.linspace(0, len(line) - 1, min(len(line), _MOST_POINTS)).round().astype(int))
        points = [f"{self.x(float(line.index[at])):g},{self.y(float(line.iloc[at])):g}" for at in chosen]
        if len(points) == 1:  # a line of one point is seen as a dash
            points.append(f"{self.x(float(line.index[0])) + 4:g},{self.y(float(line.iloc[0])):g}")
        return f"M{' '.join(points)}" if points else ""

    def band(self, low: pd.Series, high: pd.Series) -> str:
        """The area between two lines."""
        first, second = self.path(low), self.path(high)
        back = " ".join(reversed(second[1:].split(" ")))
        return f"{first} {back}Z" if first and second else ""

    def x(self, epoch: float) -> float:
        share = (epoch - self.first) / (self.last - self.first) if self.last > self.first else 0.0
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def ticks(self) -> list[tuple[float, str]]:
        return [(self.y(value), numbers.written(value, "{:.4g}")) for value in round_values(self.low, self.high)]


def _range(values: Floats, *, keeps_best: bool) -> tuple[float, float]:
    """Of nearly all values, where a few would leave the others no room."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    usual = np.quantile(values, [0.05, 0.95])
    spread = float(usual[1] - usual[0])
    if spread > 0 and high - low > _WILD * spread:
        low = max(low, float(usual[0]) - spread / 2)
        high = high if keeps_best else min(high, float(usual[1]) + spread / 2)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def round_values(low: float, high: float) -> list[float]:
    """Two to five values of 1, 2 or 5 times a power of ten inside a range."""
    step = 10.0 ** math.floor(math.log10(high - low))
    factor = next((f for f in (1.0, 0.5, 0.2) if _multiples(low, high, step * f) >= 2), 0.1)
    step *= factor
    first = math.ceil(low / step - 1e-9)
    found = [place * step for place in range(first, first + _multiples(low, high, step))]
    return found if len(found) <= 5 else found[:: math.ceil(len(found) / 5)]


def _multiples(low: float, high: float, step: float) -> int:
    return max(math.floor(high / step + 1e-9) - math.ceil(low / step - 1e-9) + 1, 0)


def _panel(
    name: str, table: pd.DataFrame, axes: _Axes, metric: Metric, *, single: bool, is_reference: bool, is_shown: bool
) -> Panel:
    mean = table.mean(axis=1)
    several = table.shape[1] > 1
    return Panel(
        name=name,
        mean=axes.path(mean),
        band=axes.band(table.min(axis=1), table.max(axis=1)) if several else "",
        lines=list(_lines(table, axes, metric)) if single and several else [],
        last=_at_the_end(mean, metric),
        is_reference=is_reference,
        is_shown=is_shown,
    )


def _lines(table: pd.DataFrame, axes: _Axes, metric: Metric) -> Iterator[Line]:
    for seed in table.columns:
        if path := axes.path(table[seed]):
            yield Line(path, f"seed {seed}: {_at_the_end(table[seed], metric)}")


def _at_the_end(line: pd.Series, metric: Metric) -> str:
    """`95.83 % after epoch 12`."""
    finite = line[np.isfinite(line)]
    if not len(finite):
        return "no finite value"
    value = f"{finite.iloc[-1]:.2f} %" if metric.is_accuracy else numbers.written(float(finite.iloc[-1]), "{:.4g}")
    return f"{value} after epoch {finite.index[-1]:g}"
