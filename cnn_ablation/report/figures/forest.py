"""Estimates of arms in rows: a mean with its interval, its seeds as small points below it, and what is cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.report.figures.colours import PAPER, VERDICT_STYLE
from cnn_ablation.report.figures.frame import (
    INTERVAL,
    SEED,
    SEED_STYLE,
    Entry,
    label_lines,
    label_x,
    legend_above,
    legend_height,
    tidied,
)
from cnn_ablation.report.figures.marks import Marks
from cnn_ablation.report.figures.rows import Rows, draw_names, rows_of
from cnn_ablation.report.figures.span import Span
from cnn_ablation.report.figures.titles import titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

MEAN_STYLE: dict[str, Any] = {"markersize": 5.5, "markeredgecolor": PAPER, "markeredgewidth": 0.5, "linestyle": ""}
CUT = "beyond the axis"
_BELOW_THE_MEAN = 0.085
"""Inches, of single seeds."""
_AROUND = 0.45
"""Inches of ticks and edges."""


@dataclass(frozen=True)
class Plan:
    """All of a picture of rows before it is drawn."""

    marks: Marks
    span: Span
    rows: Rows
    entries: list[Entry]
    label: str
    room: float
    """Inches that the axis has."""
    half: float | None = None
    """Of the margin, in a picture that shows one."""

    @property
    def height(self) -> float:
        legend = legend_height(self.entries, self.room)
        return self.rows.height + legend + 0.16 * label_lines(self.label, self.room) + _AROUND


def draw(plan: Plan, ax: Axes) -> Axes:
    """The whole picture, on axes that may hold lines at zero and a margin already."""
    tidied(ax, grid="x")
    draw_estimates(plan.marks, plan.rows, plan.span, ax)
    draw_names(plan.rows, ax)
    label_x(ax, plan.label, plan.room)
    legend_above(ax, plan.entries, plan.room)
    return ax


def is_cut(marks: Marks, span: Span) -> list[bool]:
    """Whether an arm's mean or interval goes beyond the span."""
    return [not bool(span.holds(np.array(row)).all()) for row in zip(marks.mean, marks.low, marks.high, strict=True)]


def rows_for(marks: Marks, span: Span, width: float) -> Rows:
    """A row for each arm.

    Args:
        marks: what is drawn.
        span: of the axis.
        width: of the picture, in inches.
    """
    return rows_of(marks.arms, marks.remarks, is_cut(marks, span), width)


def entries(marks: Marks, span: Span, interval: str, seed: str) -> list[Entry]:
    """What the legend has to say: the verdicts there are, and what the small points, lines and arrows are.

    Args:
        marks: what is drawn.
        span: of the axis.
        interval: what the lines are.
        seed: what the small points are.
    """
    found = [Entry(verdict, VERDICT_STYLE[verdict][1], VERDICT_STYLE[verdict][0])
             for verdict in VERDICT_STYLE if len(marks.of(verdict))]  # fmt: skip
    if not (np.isnan(marks.low) & np.isnan(marks.high)).all():
        found.append(Entry(interval, INTERVAL))
    if any(len(seeds) for seeds in marks.seeds):
        found.append(Entry(seed, SEED))
    if not all(bool(span.holds(group).all()) for group in marks.groups):
        found.append(Entry(CUT, ">"))
    return found


def draw_estimates(marks: Marks, rows: Rows, span: Span, ax: Axes) -> None:
    """Draws them along the horizontal axis, whose limits are set."""
    ax.set_xlim(span.low, span.high)
    forest = _Forest(marks, rows, span, ax)
    for verdict, (colour, marker) in VERDICT_STYLE.items():
        places = marks.of(verdict)
        if len(places):
            forest.draw_seeds(places, colour)
            forest.draw_intervals(places, colour)
            forest.draw_means(places, colour, marker)
    for place in np.flatnonzero(is_cut(marks, span)):
        forest.tell_what_is_cut(int(place))


Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Forest:
    """Draws estimates at places, those of arms with one verdict."""

    marks: Marks
    rows: Rows
    span: Span
    ax: Axes

    def draw_seeds(self, places: Places, colour: str) -> None:
        """A point a seed, below the mean, with its number on pointing at it."""
        marks = self.marks
        seeds = [(place, number, value) for place in places for number, value in marks.seeds[place].items()]
        if not seeds:
            return
        values = np.array([value for *_, value in seeds])
        heights = np.array([self.rows.marks[place] + _BELOW_THE_MEAN for place, *_ in seeds])
        inside = self.span.holds(values)
        (line,) = self.ax.plot(values[inside], heights[inside], color=colour, linestyle="", **SEED_STYLE)
        titled(
            line,
            [
                f"{marks.arms[place]}, seed {number}: {marks.number(value)}{marks.unit}"
                for (place, number, value), is_inside in zip(seeds, inside, strict=True)
                if is_inside
            ],
        )
        self._arrows(values, heights, colour, 3.2)

    def draw_intervals(self, places: Places, colour: str) -> None:
        """A line from end to end of each interval, cut where the axis ends."""
        mean, low, high = self.marks.mean[places], self.marks.low[places], self.marks.high[places]
        heights = self.rows.marks[places]
        is_there = ~(np.isnan(low) & np.isnan(high))
        low, high = np.where(np.isnan(low), mean, low), np.where(np.isnan(high), mean, high)
        ends = self.span.clipped(low[is_there]), self.span.clipped(high[is_there])
        self.ax.hlines(heights[is_there], *ends, color=colour, linewidth=1.6)
        for limit in (low, high):
            self._arrows(limit, heights, colour, 4.5)

    def draw_means(self, places: Places, colour: str, marker: str) -> None:
        """A mark at each mean, by its verdict."""
        marks, mean = self.marks, self.marks.mean
        inside = places[self.span.holds(mean[places])]
        (line,) = self.ax.plot(mean[inside], self.rows.marks[inside], color=colour, marker=marker, **MEAN_STYLE)
        titled(line, [f"{marks.arms[place]}: {marks.words(place)}, {marks.verdicts[place]}" for place in inside])
        self._arrows(mean[places], self.rows.marks[places], colour, 6)

    def _arrows(self, values: Floats, heights: Floats, colour: str, size: float) -> None:
        """At the edge of the axis, for values beyond it."""
        style: dict[str, Any] = {"color": colour, "markersize": size, "linestyle": "", "markeredgewidth": 0}
        for marker, beyond in (("<", values < self.span.least), (">", values > self.span.most)):
            if beyond.any():
                self.ax.plot(self.span.clipped(values[beyond]), heights[beyond], marker=marker, **style)

    def tell_what_is_cut(self, place: int) -> None:
        """The values of an arm, above the edge that it goes beyond; of both the one where its mean is."""
        marks, span = self.marks, self.span
        low = np.fmin(marks.low[place], marks.mean[place])
        at_low = bool(low < span.least) and not marks.mean[place] > span.most
        side = "left" if at_low else "right"
        where = span.low if at_low else span.high, self.rows.marks[place]
        away = (3 if at_low else -3, 4)
        self.ax.annotate(
            marks.words(place), where, away, textcoords="offset points", ha=side, va="bottom", fontsize="small",
        )  # fmt: skip
