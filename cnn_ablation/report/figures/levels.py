"""The metric over the values of a knob whose levels are numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation.report.figures import forest
from cnn_ablation.report.figures.colours import GRID, VERDICT_STYLE
from cnn_ablation.report.figures.forest import MEAN_STYLE
from cnn_ablation.report.figures.frame import (
    SEED_STYLE,
    Entry,
    inches_of,
    label_lines,
    label_x,
    label_y,
    legend_above,
    legend_height,
    tidied,
)
from cnn_ablation.report.figures.labels import draw_labels
from cnn_ablation.report.figures.lettering import as_text
from cnn_ablation.report.figures.marks import Marks, axis_words, interval_words, metric_of_arms, scores
from cnn_ablation.report.figures.span import Span, span_of
from cnn_ablation.report.figures.ticks import apart
from cnn_ablation.report.figures.titles import titled
from cnn_ablation.study.designs import BASELINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

MIN_LOG_SPAN = 4
"""Largest over smallest value from which an axis is logarithmic."""
_AROUND = 0.65
_PLOT = 2.8
"""Inches of the axes' height; less in a narrow picture."""


def numeric_levels(runs: pd.DataFrame, arms: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Of each knob whose levels are numbers: the values by arm, with the baseline's, in ascending order.

    Only arms that change nothing but this knob count.

    Args:
        runs: from `load_runs`, with a column per swept key.
        arms: from `ablation_table`.
    """
    found = {}
    for key, rows in arms[arms["arm"] == arms["knob"] + "=" + arms["level"]].groupby("knob", sort=False):
        names = [BASELINE, *rows["arm"]]
        if key not in runs.columns or not runs["arm"].eq(BASELINE).any():
            continue
        values = runs[runs["arm"].isin(names)].groupby("arm", sort=False)[key].first()
        if all(isinstance(value, int | float) and not isinstance(value, bool | np.bool_) for value in values) and (
            np.isfinite(values.astype(float)).all()  # null, a level of some keys, has no place on an axis
        ):
            found[str(key)] = values.astype(float).sort_values()
    return found


@dataclass(frozen=True)
class _Plan:
    """All of the picture before it is drawn."""

    marks: Marks
    span: Span
    entries: list[Entry]
    label: str
    room: float
    width: float

    @property
    def plot(self) -> float:
        return min(_PLOT, 0.75 * self.width)

    @property
    def height(self) -> float:
        return self.plot + legend_height(self.entries, self.room) + 0.16 * label_lines(self.label, self.room) + _AROUND


def plot_levels(
    arms: pd.DataFrame,
    values: pd.Series[float],
    ax: Axes,
    *,
    key: str,
    runs: pd.DataFrame | None = None,
    width: float | None = None,
) -> Axes:
    """The metric with its interval over the values of a numeric knob, on a logarithmic axis where they span decades.

    Args:
        arms: from `ablation_table`.
        values: by arm, from `numeric_levels`.
        ax: drawn on.
        key: the knob, for the axis.
        runs: the table of runs that the arms were made from, for single seeds; None for none.
        width: of the picture in inches; None for what the axes have.
    """
    plan, x = _planned(arms, values, key, runs, width or inches_of(ax)), np.asarray(values, dtype=np.float64)
    tidied(ax, grid="y")
    line = plan.span.clipped(plan.marks.mean)
    ax.plot(x, line, color=GRID, linewidth=1.5, zorder=1)
    for verdict in VERDICT_STYLE:
        _draw_levels(plan, x, verdict, ax)
    ax.set_ylim(plan.span.low, plan.span.high)
    _scale(x, plan, ax)
    _tell_what_is_cut(plan, x, ax)
    label_x(ax, plan.label, plan.room)
    label_y(ax, axis_words(metric_of_arms(arms)), plan.plot)
    legend_above(ax, plan.entries, plan.room)
    return ax


def levels_height(
    arms: pd.DataFrame, values: pd.Series[float], key: str, runs: pd.DataFrame | None, width: float
) -> float:
    """Inches that the picture takes at a width."""
    return _planned(arms, values, key, runs, width).height


def _planned(arms: pd.DataFrame, values: pd.Series[float], key: str, runs: pd.DataFrame | None, width: float) -> _Plan:
    marks = scores(arms.set_index("arm", drop=False).loc[list(values.index)], runs)
    means = marks.mean[~np.isnan(marks.mean)]
    span = span_of(marks.groups, float(np.median(means)) if len(means) else 0.0)
    entries = forest.entries(marks, span, interval_words(arms), "one seed")
    missing = [f"{value:g} ({remark})" for value, mean, remark in zip(values, marks.mean, marks.remarks, strict=True)
               if np.isnan(mean)]  # fmt: skip
    more = f" \u2013 without {', '.join(missing)}" if missing else ""
    return _Plan(marks, span, entries, as_text(key + more), width - 0.75, width)


def _draw_levels(plan: _Plan, x: Floats, verdict: str, ax: Axes) -> None:
    """Seeds, intervals and means of the arms that have a verdict."""
    marks, span, places = plan.marks, plan.span, plan.marks.of(verdict)
    if not len(places):
        return
    colour, marker = VERDICT_STYLE[verdict]
    seeds = [(place, seed, float(value)) for place in places for seed, value in marks.seeds[place].items()
             if span.holds(np.array(value))]  # fmt: skip
    if seeds:
        at, values = [x[place] for place, *_ in seeds], [value for *_, value in seeds]
        (line,) = ax.plot(at, values, color=colour, linestyle="", **SEED_STYLE)
        titled(line, [f"{marks.arms[place]}, seed {seed}: {marks.number(value)}{marks.unit}"
                      for place, seed, value in seeds])  # fmt: skip
    mean, low, high = (span.clipped(limits[places]) for limits in (marks.mean, marks.low, marks.high))
    low, high = np.where(np.isnan(low), mean, low), np.where(np.isnan(high), mean, high)
    ax.vlines(x[places], low, high, color=colour, linewidth=1.6)
    inside = span.holds(marks.mean[places])
    (line,) = ax.plot(x[places][inside], mean[inside], color=colour, marker=marker, **MEAN_STYLE)
    titled(line, [f"{marks.arms[place]}: {marks.words(place)}, {verdict}" for place in places[inside]])
    for arrow, limit in (("v", marks.low), ("^", marks.high)):
        beyond = limit[places] < span.least if arrow == "v" else limit[places] > span.most
        ax.plot(x[places][beyond], span.clipped(limit[places])[beyond], color=colour, marker=arrow, linestyle="",
                markersize=5)  # fmt: skip


def _scale(x: Floats, plan: _Plan, ax: Axes) -> None:
    """The values as ticks, those that would touch another left out, the baseline's never."""
    is_log = x.min() > 0 and x.max() / x.min() >= MIN_LOG_SPAN
    if is_log:
        from matplotlib.ticker import NullFormatter, NullLocator

        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_minor_locator(NullLocator())
    along = np.log(x) if is_log else x
    width = float(along.max() - along.min()) or 1.0
    edge = 0.05 * width
    low, high = along.min() - edge, along.max() + edge
    ax.set_xlim(*(np.exp([low, high]) if is_log else (low, high)))
    texts = [f"{value:g}" for value in x]
    baseline = plan.marks.arms.index(BASELINE) if BASELINE in plan.marks.arms else 0
    kept = apart((along - low) / (high - low), texts, plan.room - 0.2, baseline)
    ax.set_xticks(x[kept], [texts[tick] for tick in kept])


def _tell_what_is_cut(plan: _Plan, x: Floats, ax: Axes) -> None:
    marks = plan.marks
    cut = np.flatnonzero(forest.is_cut(marks, plan.span))
    heights = plan.span.clipped(np.where(marks.high > plan.span.most, marks.high, np.fmin(marks.low, marks.mean)))
    draw_labels(ax, [(x[place], heights[place]) for place in cut], [marks.words(int(place)) for place in cut])
