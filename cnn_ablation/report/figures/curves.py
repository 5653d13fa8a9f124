"""Learning curves: in one picture where their colours can be told apart, else in a small one for each arm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cnn_ablation.report.figures.colours import INK, LINES
from cnn_ablation.report.figures.frame import (
    LINE_ALONE,
    SHADE,
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
from cnn_ablation.report.figures.lettering import LINE, folded, lines_of, shortened
from cnn_ablation.report.figures.marks import metric_words
from cnn_ablation.report.figures.rows import SHORTENED
from cnn_ablation.report.figures.span import Span, span_of
from cnn_ablation.report.figures.titles import titled
from cnn_ablation.study.designs import BASELINE, FULL
from cnn_ablation.study.metric import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW_EPOCHS = 12
"""Up to which every epoch has a marker."""
_AROUND = 0.75
_PLOT = 3.2
"""Inches of the axes' height; less in a narrow picture."""
_PANEL, _BETWEEN, _ABOVE = 0.85, 0.3, 0.16
"""Inches: height of a small picture, what stands between two, and what is empty above a name."""
_NARROWEST = 1.2
_FEWEST_LINES, _MOST_LINES = 2, 4
"""Of a name above a small picture."""
_HIGHEST = 26.0
_FEW_ARMS, _FEW_COLUMNS = 15, 3


@dataclass(frozen=True)
class _Plan:
    """All of the picture before it is drawn."""

    points: dict[str, pd.DataFrame]
    """By arm: mean, min, max and count of seeds by epoch, as they are drawn."""
    labels: dict[str, str]
    """By arm: its name, and how far it goes where it leaves the axis."""
    without: list[str]
    """Arms that have no curve, with the reason."""
    span: Span
    entries: list[Entry]
    room: float
    width: float
    columns: int
    names: list[str] = field(default_factory=list)
    """Folded, of small pictures."""
    is_short: bool = False

    @property
    def is_split(self) -> bool:
        return bool(self.columns)

    @property
    def others(self) -> list[str]:
        """The arms that stand beside the black one."""
        return [arm for arm in self.points if arm not in (BASELINE, FULL)]

    @property
    def key(self) -> Key:
        """Names below the axes; of small pictures those that have none."""
        colours = {} if self.is_split else _colours(self.points)
        drawn = [Named(self.labels[arm], colour=colour, marker=LINE_ALONE) for arm, colour in colours.items()]
        return key_of([*drawn, *map(Named, self.without)], self.width)

    @property
    def panels(self) -> list[float]:
        """Inches of each row of small pictures, with the names above."""
        rows = range(0, len(self.names), self.columns)
        lines = [max(map(lines_of, self.names[start : start + self.columns])) for start in rows]
        return [_PANEL + _ABOVE + LINE * count for count in lines]

    @property
    def height(self) -> float:
        plot = sum(self.panels) if self.is_split else min(_PLOT, 0.8 * self.width)
        return plot + legend_height(self.entries, self.room) + self.key.height + _AROUND


def plot_curves(
    curves: pd.DataFrame,
    ax: Axes,
    *,
    column: str = "val_accuracy",
    without: Sequence[str] = (),
    width: float | None = None,
) -> Axes:
    """Learning curves: the mean over seeds of `column` by epoch, one line per arm, with the range over seeds.

    Where some seeds have stopped early, the mean of the others is dotted. Of more arms than there are colours each has
    a small picture of its own, beside the baseline's curve.

    Args:
        curves: from `load_curves`.
        ax: drawn on; small pictures stand inside it.
        column: `train_loss`, `val_loss`, `val_accuracy` (drawn in percent), or what a task of one's own reports.
        without: arms that have no curve, which the picture names.
        width: of the picture in inches; None for what the axes have.
    """
    plan, shown = _planned(curves, column, without, width or inches_of(ax)), Metric(column)
    some = any(points["count"].nunique() > 1 for points in plan.points.values())
    epoch = "epoch (dotted: some seeds had stopped)" if some else "epoch"
    value = f"{shown.words} (%)" if shown.is_accuracy else metric_words(shown)
    if plan.is_split:
        _draw_panels(plan, ax)
        label_x(ax, f"{value} by {epoch}{SHORTENED if plan.is_short else ''}", plan.room, labelpad=16)
    else:
        tidied(ax, grid="y")
        for arm, colour in _colours(plan.points).items():
            _draw_curve(plan, arm, ax, colour, linewidth=2.2 if colour == INK else 1.6)
        _limit(plan, ax)
        label_x(ax, epoch, plan.room)
        label_y(ax, value, min(_PLOT, 0.8 * plan.width))
    legend_above(ax, plan.entries, plan.room)
    key_below(ax, plan.key)
    return ax


def curves_height(curves: pd.DataFrame, column: str, without: Sequence[str], width: float) -> float:
    """Inches that the picture takes at a width."""
    return _planned(curves, column, without, width).height


def _planned(curves: pd.DataFrame, column: str, without: Sequence[str], width: float) -> _Plan:
    points = _points(curves, column)
    extremes = [frame[["min", "max"]].to_numpy().ravel() for frame in points.values()]
    ends = [frame["mean"].iloc[-1] for frame in points.values() if len(frame)]
    best = [float(np.nanmax(np.concatenate(extremes)))] if ends and Metric(column).is_accuracy else []  # never cut off
    span = span_of(extremes, float(np.median(ends)) if ends else 0.0, best)
    labels = {arm: arm + _beyond(frame, span) for arm, frame in points.items()}
    others = [label for arm, label in labels.items() if arm not in (BASELINE, FULL)]
    columns, names, is_short = _arranged(others, width) if len(others) > len(LINES) else (0, [], False)
    entries = _entries(points, bool(columns))
    return _Plan(points, labels, list(without), span, entries, width - 0.75, width, columns, names, is_short)


def _beyond(points: pd.DataFrame, span: Span) -> str:
    """Says of an arm that leaves the axis how far it goes."""
    low, high = points["min"].min(), points["max"].max()
    said = [f"up to {high:.3g}"] if high > span.most else []
    said += [f"down to {low:.3g}"] if low < span.least else []
    return f" (beyond the axis: {', '.join(said)})" if said else ""


def _points(curves: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    """Of every arm with a finite value: by epoch, over its seeds."""
    values = Metric(column).factor * curves[column].astype(np.float64)
    finite = values.where(np.isfinite(values))
    grouped = finite.groupby([curves["arm"], curves["epoch"]], sort=False).agg(["mean", "min", "max", "count"])
    found = {str(arm): points.droplevel(0).sort_index() for arm, points in grouped.groupby(level=0, sort=False)}
    return {arm: points[points["count"] > 0] for arm, points in found.items() if points["count"].any()}


def _entries(points: dict[str, pd.DataFrame], is_split: bool) -> list[Entry]:
    """What lines and bands are."""
    counts = sorted({int(frame["count"].max()) for frame in points.values()})
    found = []
    if is_split:
        found = [Entry(arm, LINE_ALONE, INK) for arm in points if arm in (BASELINE, FULL)]
        found.append(Entry("the arm named above", LINE_ALONE, LINES[0]))
    if counts and counts[-1] > 1:
        seeds = f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
        found += [Entry(f"line: mean, band: range over {seeds}", SHADE, LINES[0] if is_split else INK)]
    return found


def _arranged(arms: Sequence[str], width: float) -> tuple[int, list[str], bool]:
    """In how many columns small pictures stand, their names, and whether these are shortened.

    Few pictures stand in so many columns that no setting of a name is broken, if three are possible; else in as many as
    leave names few lines, or the whole no higher than it may be.
    """
    room = width - 0.75
    most = max(1, int((room + _BETWEEN) // (_NARROWEST + _BETWEEN)))
    letters = {columns: 72 * (room - (columns - 1) * _BETWEEN) / columns for columns in range(most, 0, -1)}
    natural = max(lines_of(folded(name)) for name in arms)
    lines = {columns: max(lines_of(folded(name, space)) for name in arms) for columns, space in letters.items()}
    rows = {columns: -(-len(arms) // columns) for columns in letters}
    whole = [columns for columns in lines if columns >= _FEW_COLUMNS and lines[columns] == natural]
    fitting = [
        columns
        for columns in lines
        if lines[columns] <= _MOST_LINES or rows[columns] * (_PANEL + _ABOVE + LINE * lines[columns]) > _HIGHEST
    ]
    columns = (whole if len(arms) <= _FEW_ARMS and whole else fitting or [1])[0]
    most_lines = max(_FEWEST_LINES, int((_HIGHEST / rows[columns] - _PANEL - _ABOVE) / LINE))
    is_short = lines[columns] > most_lines
    names = shortened(arms, 0.85 * most_lines * letters[columns]) if is_short else arms
    return columns, [folded(name, letters[columns]) for name in names], is_short


def _colours(arms: Iterable[str]) -> dict[str, str]:
    """By arm, those that others are compared with in black."""
    colours = iter(LINES)
    return {arm: INK if arm in (BASELINE, FULL) else next(colours) for arm in arms}


def _draw_curve(plan: _Plan, arm: str, ax: Axes, colour: str, *, linewidth: float = 1.6, band: bool = True) -> None:
    """Solid while all seeds are there, dotted beyond: a mean of fewer seeds is not the mean of all."""
    points = plan.points[arm]
    whole = points[points["count"] == points["count"].max()]
    markers = {"marker": "o", "markersize": 3} if len(points) <= _FEW_EPOCHS else {}
    (line,) = ax.plot(whole.index, whole["mean"], color=colour, linewidth=linewidth, **markers)  # type: ignore[arg-type]
    if not markers:
        titled(line, [arm])
    elif plan.span.holds(whole["mean"].to_numpy()).all():
        titled(line, [f"{arm}, epoch {epoch}: {mean:.4g}" for epoch, mean in whole["mean"].items()])
    if len(whole) < len(points):
        rest = points.loc[whole.index[-1] :]
        ax.plot(rest.index, rest["mean"], linestyle=":", color=colour)
    if band and points["count"].max() > 1:
        ax.fill_between(points.index, points["min"], points["max"], color=colour, alpha=0.15, linewidth=0)


def _limit(plan: _Plan, ax: Axes) -> None:
    """The same axes for all, epochs as whole numbers."""
    last = max((int(points.index.max()) for points in plan.points.values()), default=1)
    first = min((int(points.index.min()) for points in plan.points.values()), default=1)
    edge = max(0.03 * (last - first), 0.15 if last > first else 0.5)
    ax.set_xlim(first - edge, last + edge)
    ax.set_ylim(plan.span.low, plan.span.high)
    if plan.is_split:
        ax.set_xticks(sorted({first, (first + last) // 2, last} if last - first > 3 else {first, last}))
    else:
        from matplotlib.ticker import MaxNLocator

        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def _draw_panels(plan: _Plan, ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xticks([])
    ax.set_yticks([])
    total, room = sum(plan.panels), plan.room
    across = (room - (plan.columns - 1) * _BETWEEN) / plan.columns / room
    black = [arm for arm in plan.points if arm in (BASELINE, FULL)]
    for place, (arm, name) in enumerate(zip(plan.others, plan.names, strict=True)):
        row, column = divmod(place, plan.columns)
        bottom = 1 - sum(plan.panels[: row + 1]) / total
        panel = ax.inset_axes((column * (across + _BETWEEN / room), bottom, across, _PANEL / total))
        tidied(panel, grid="y")
        for other in black:
            _draw_curve(plan, other, panel, INK, linewidth=1.2, band=False)
        _draw_curve(plan, arm, panel, LINES[0])
        _limit(plan, panel)
        panel.yaxis.set_major_locator(MaxNLocator(3))
        is_last = place + plan.columns >= len(plan.others)
        panel.tick_params(labelleft=column == 0, labelbottom=is_last)
        panel.set_in_layout(column == 0 or is_last)  # others stand inside the axes; measuring them takes time
        panel.annotate(name, (0, 1), (0, 3), "axes fraction", "offset points", va="bottom", fontsize="small")
