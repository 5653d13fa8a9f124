"""The metric against the time that training takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation.config import StatsConfig
from cnn_ablation.report.figures import forest
from cnn_ablation.report.figures.colours import VERDICT_STYLE
from cnn_ablation.report.figures.forest import MEAN_STYLE
from cnn_ablation.report.figures.frame import (
    SEED_STYLE,
    Entry,
    Key,
    Named,
    inches_of,
    key_below,
    key_of,
    label_x,
    label_y,
    legend_above,
    legend_height,
    tidied,
)
from cnn_ablation.report.figures.labels import draw_labels
from cnn_ablation.report.figures.marks import (
    Marks,
    axis_words,
    interval_words,
    metric_of_arms,
    scores,
    seconds,
    without_dropped,
)
from cnn_ablation.report.figures.span import Span, span_of
from cnn_ablation.report.figures.ticks import plain_log
from cnn_ablation.report.figures.titles import titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

MIN_LOG_SPAN = 10
"""Largest over smallest time from which their axis is logarithmic."""
_AROUND = 0.75
_PLOT = 3.4
"""Inches of the axes' height; less in a narrow picture."""


@dataclass(frozen=True)
class _Plan:
    """All of the picture before it is drawn."""

    marks: Marks
    span: Span
    entries: list[Entry]
    key: Key
    """Of all arms, those that have no point too."""
    label: str
    room: float
    width: float

    @property
    def height(self) -> float:
        plot = min(_PLOT, 0.8 * self.width)
        return plot + legend_height(self.entries, self.room) + self.key.height + _AROUND


def plot_metric_against_time(
    arms: pd.DataFrame, ax: Axes, *, runs: pd.DataFrame | None = None, width: float | None = None
) -> Axes:
    """The metric, accuracies in percent, against the seconds spent in training, one numbered point per arm.

    Args:
        arms: from `ablation_table`.
        ax: drawn on.
        runs: the table of runs that it was made from, for single seeds and the interval of times; None for neither.
        width: of the picture in inches; None for what the axes have.
    """
    plan = _planned(arms, runs, width or inches_of(ax))
    times = _times(without_dropped(arms)[0], runs)
    tidied(ax, grid="both")
    along = _seconds_span(times)
    if _is_log(times):
        plain_log(ax)
    ax.set_xlim(along.low, along.high)
    ax.set_ylim(plan.span.low, plan.span.high)
    for verdict in VERDICT_STYLE:
        _draw_arms(plan, times.clipped(along), verdict, ax)
    label_x(ax, plan.label, plan.room)
    label_y(ax, axis_words(metric_of_arms(arms)), min(_PLOT, 0.8 * plan.width))
    _number(plan, times, ax)
    legend_above(ax, plan.entries, plan.room)
    key_below(ax, plan.key)
    return ax


def times_height(arms: pd.DataFrame, runs: pd.DataFrame | None, width: float) -> float:
    """Inches that the picture takes at a width."""
    return _planned(arms, runs, width).height


def _planned(arms: pd.DataFrame, runs: pd.DataFrame | None, width: float) -> _Plan:
    arms, others = without_dropped(arms)
    marks = scores(arms, runs)
    timed = arms["train_seconds_mean"].to_numpy(np.float64)
    marks = marks.without(np.isnan(timed), "no time")
    means = marks.mean[~np.isnan(marks.mean)]
    span = span_of(marks.groups, float(np.median(means)) if len(means) else 0.0)
    entries = forest.entries(marks, span, interval_words(arms), "one seed")
    key = key_of([_named(marks, place) for place in range(len(marks.arms))], width)
    return _Plan(marks, span, entries, key, f"training time (s){others}", width - 0.75, width)


def _named(marks: Marks, place: int) -> Named:
    """An arm in the key, with what is to be told of its runs."""
    arm, remark = marks.arms[place], marks.remarks[place]
    name = f"{arm} ({remark})" if remark else arm
    if np.isnan(marks.mean[place]):
        return Named(name)
    colour, marker = VERDICT_STYLE[marks.verdicts[place]]
    return Named(name, str(place), colour, marker)


@dataclass(frozen=True)
class _Times:
    """Mean, limits (n) and single seeds of times."""

    mean: Floats
    low: Floats
    high: Floats
    seeds: list[pd.Series[float]]

    def clipped(self, span: Span) -> _Times:
        """The same with intervals that end at the edges of the axis."""
        return replace(self, low=np.fmax(self.low, span.low), high=np.fmin(self.high, span.high))


def _times(arms: pd.DataFrame, runs: pd.DataFrame | None) -> _Times:
    """Limits at the confidence of the table's own; the mean itself where there is none."""
    from cnn_ablation.analysis.stats import mean_interval

    mean = arms["train_seconds_mean"].to_numpy(np.float64)
    by_arm, none = seconds(arms, runs), pd.Series([], dtype=np.float64)
    seeds = [by_arm.get(str(name), none) for name in arms["arm"]]
    alpha, test = arms.attrs.get("alpha", StatsConfig().alpha), arms.attrs.get("test", StatsConfig().test)
    intervals = [mean_interval(values.to_numpy(), alpha, test) for values in seeds]
    low, high = (np.array([getattr(each, end) for each in intervals], np.float64) for end in ("low", "high"))
    low, high = np.where(np.isnan(low), mean, low), np.where(np.isnan(high), mean, high)
    return _Times(mean, np.clip(low, 0, mean), np.fmax(high, mean), seeds)


def _seconds_span(times: _Times) -> Span:
    """All means and seeds, and of intervals no more than as much again on either side: two seeds may leave any width.

    On a logarithmic axis, where a time may end that its interval does not tell from 0, a decade.
    """
    seen = np.concatenate([times.mean, *times.seeds])
    seen = seen[~np.isnan(seen)]
    if not len(seen):
        return Span(0.0, 1.0, 0.0, 1.0)
    least, most = float(seen.min()), float(seen.max())
    first, last = min(float(np.nanmin(times.low)), least), max(float(np.nanmax(times.high)), most)
    if _is_log(times):
        low, high = max(first, least / 10), min(last, most * 10)
        return Span(low / 1.3, high * 1.3, low, high)
    width = (most - least) or 0.2 * max(most, 1e-9)
    low, high = max(first, least - width), min(last, most + width)
    edge = 0.05 * (high - low or width)
    return Span(max(low - edge, 0.0), high + edge, low, high)


def _is_log(times: _Times) -> bool:
    """Whether arms are so far apart that decades show them."""
    seen = times.mean[~np.isnan(times.mean)]
    return bool(len(seen) and seen.min() > 0 and seen.max() >= MIN_LOG_SPAN * seen.min())


def _draw_arms(plan: _Plan, times: _Times, verdict: str, ax: Axes) -> None:
    """Seeds, intervals in both directions and means of the arms that have a verdict."""
    marks, span, places = plan.marks, plan.span, plan.marks.of(verdict)
    if not len(places):
        return
    colour, marker = VERDICT_STYLE[verdict]
    _draw_seeds(plan, times, places, ax)
    mean, low, high = (span.clipped(values[places]) for values in (marks.mean, marks.low, marks.high))
    low, high = np.where(np.isnan(low), mean, low), np.where(np.isnan(high), mean, high)
    style: dict[str, Any] = {"color": colour, "linewidth": 1.2}
    ax.vlines(times.mean[places], low, high, **style)
    ax.hlines(mean, times.low[places], times.high[places], **style)
    inside = span.holds(marks.mean[places])
    (line,) = ax.plot(times.mean[places][inside], mean[inside], color=colour, marker=marker, **MEAN_STYLE)
    titled(line, [f"{marks.arms[place]}: {marks.words(place)} in {times.mean[place]:.4g} s, {verdict}"
                  for place in places[inside]])  # fmt: skip
    for arrow, beyond in (("v", marks.mean[places] < span.least), ("^", marks.mean[places] > span.most)):
        ax.plot(times.mean[places][beyond], mean[beyond], color=colour, marker=arrow, linestyle="", markersize=6)


def _draw_seeds(plan: _Plan, times: _Times, places: npt.NDArray[np.intp], ax: Axes) -> None:
    marks = plan.marks
    found = [
        (seed, place, float(times.seeds[place][seed]), float(value))
        for place in places
        for seed, value in marks.seeds[place].items()
        if seed in times.seeds[place].index and plan.span.holds(np.array(value))
    ]
    if found:
        colour, _ = VERDICT_STYLE[marks.verdicts[places[0]]]
        seeds, at, x, y = zip(*found, strict=True)
        (line,) = ax.plot(x, y, color=colour, linestyle="", **SEED_STYLE)
        titled(line, [f"{marks.arms[place]}, seed {seed}: {marks.number(value)}{marks.unit} in {time:.4g} s"
                      for seed, place, time, value in zip(seeds, at, x, y, strict=True)])  # fmt: skip


def _number(plan: _Plan, times: _Times, ax: Axes) -> None:
    """Every point by the number of its arm in the key; one that is cut off with its value."""
    marks = plan.marks
    there = np.flatnonzero(~np.isnan(marks.mean))
    heights = plan.span.clipped(marks.mean)
    is_cut = ~plan.span.holds(marks.mean)
    texts = [
        plan.key.entries[int(place)].number + (f": {marks.number(marks.mean[place])}" if is_cut[place] else "")
        for place in there
    ]
    draw_labels(ax, [(times.mean[place], heights[place]) for place in there], texts)
