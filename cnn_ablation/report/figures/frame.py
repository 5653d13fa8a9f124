"""What stands around the data of every picture: axes, legends above them, keys of names below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnn_ablation.report.figures.colours import GRID, INK, MUTED
from cnn_ablation.report.figures.lettering import LINE, SMALL, folded, lines_of, points, wrapped

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_USUAL_SHARE = 0.775
"""Of a figure's width, for the axes, before anything is arranged."""
_HANDLE, _PAD, _BETWEEN = 1.6, 0.6, 1.6
"""In sizes of letters: the mark of an entry, what stands between it and its text, and between columns."""
_BELOW_THE_AXES = 0.38
_MOST_COLUMNS = 4


def inches_of(ax: Axes) -> float:
    """The width that a picture on these axes takes with its names and ticks."""
    figure = ax.get_figure()
    assert figure is not None
    return float(figure.bbox.width / figure.dpi * ax.get_position().width / _USUAL_SHARE)


def tidied(ax: Axes, *, grid: str) -> None:
    """Lines that say nothing are left out; a faint grid along `grid`, the axis of the values."""
    for side in ("top", "right", *(("left",) if grid == "x" else ())):
        ax.spines[side].set_visible(False)
    ax.grid(axis=grid, color=GRID, linewidth=0.6)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.tick_params(labelsize="small", color=MUTED, labelcolor=INK, length=3)


def label_lines(text: str, room: float) -> int:
    """How many lines the label of an axis takes.

    Args:
        text: its words.
        room: inches.
    """
    return lines_of(wrapped(text, 72 * room, _LABEL))


_LABEL = 9.0
"""Points; labels of axes."""


def label_x(ax: Axes, text: str, room: float, **how: Any) -> None:
    """Labels the horizontal axis in lines of `room` inches."""
    ax.set_xlabel(wrapped(text, 72 * room, _LABEL), fontsize=_LABEL, **how)


def label_y(ax: Axes, text: str, room: float, **how: Any) -> None:
    """Labels the vertical axis in lines of `room` inches."""
    ax.set_ylabel(wrapped(text, 72 * room, _LABEL), fontsize=_LABEL, **how)


@dataclass(frozen=True)
class Entry:
    """One of a legend: what it says, and the marker that it explains, or one of the kinds below."""

    label: str
    marker: str
    colour: str = MUTED


INTERVAL, SEED, BAND, SHADE, LINE_ALONE = "interval", "seed", "band", "shade", "line"
SEED_STYLE: dict[str, Any] = {"marker": "o", "markersize": 3.2, "markeredgewidth": 0, "alpha": 0.45}


def legend_columns(labels: Sequence[str], room: float) -> int:
    """How many columns of a legend fit into `room` inches."""
    for count in range(len(labels), 1, -1):
        if _width(labels, count) <= 72 * room:
            return count
    return 1


def legend_height(entries: Sequence[Entry], room: float) -> float:
    """Inches of a legend above the axes."""
    if not entries:
        return 0.0
    return LINE * -(-len(entries) // legend_columns([entry.label for entry in entries], room)) + 0.14


def legend_above(ax: Axes, entries: Sequence[Entry], room: float) -> None:
    """A legend above the axes, where it lies over nothing, in as many columns as fit."""
    if not entries:
        return
    handles, labels = [_handle(entry) for entry in entries], [entry.label for entry in entries]
    columns = legend_columns(labels, room)
    ax.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, alignment="left", **_STYLE)


def _handle(entry: Entry) -> Artist:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if entry.marker in (BAND, SHADE):
        return Patch(facecolor=entry.colour, alpha=None if entry.marker == BAND else 0.2, linewidth=0)
    if entry.marker in (INTERVAL, LINE_ALONE):
        return Line2D([], [], color=entry.colour, linewidth=1.6)
    if entry.marker == SEED:
        return Line2D([], [], color=entry.colour, linestyle="", **SEED_STYLE)
    return Line2D([], [], color=entry.colour, marker=entry.marker, markersize=5.5, linestyle="")


@dataclass(frozen=True)
class Named:
    """An arm in a key: its number, if it has one, its name, and how it is drawn."""

    name: str
    number: str = ""
    colour: str = MUTED
    marker: str = ""
    """A marker, `LINE_ALONE`, or nothing."""


@dataclass(frozen=True)
class Key:
    """Names of marks below the axes, in columns."""

    entries: Sequence[Named]
    labels: list[str]
    columns: int
    width: float
    """Inches of a column."""
    indent: float
    """Inches from a column's edge to its names."""

    @property
    def height(self) -> float:
        return max((-y for _, y in self.places), default=0.0) + 0.1 if self.entries else 0.0

    @property
    def places(self) -> list[tuple[float, float]]:
        """Inches of the upper left corner of each entry from that of the key, and last the lower end of the longest
        column.
        """
        heights = [LINE * lines_of(label) + 0.02 for label in self.labels]
        rows = -(-len(heights) // self.columns) if heights else 1
        found, lowest = [], 0.0
        for start in range(0, len(heights), rows):
            column = heights[start : start + rows]
            left = start // rows * self.width
            found += [(left, -sum(column[:place])) for place in range(len(column))]
            lowest = max(lowest, sum(column))
        return [*found, (0.0, -lowest)]


def key_of(entries: Sequence[Named], width: float) -> Key:
    """A key in as many columns as leave every setting of a name in one line.

    Args:
        entries: of arms.
        width: of the picture in inches.
    """
    numbers = max((points(entry.number) for entry in entries), default=0.0) / 72
    indent, room = _MARK_IN_A_KEY + (numbers + 0.08 if numbers else 0.0), width - 2 * _EDGE
    names = [folded(entry.name) for entry in entries]
    widest = max(map(points, names), default=0.0) / 72 + indent + _GUTTER
    columns = max(1, min(_MOST_COLUMNS, len(entries), int((room + _GUTTER) // widest)))
    if columns == 1:
        names = [folded(entry.name, 72 * (room - indent)) for entry in entries]
    return Key(entries, names, columns, min(widest, room), indent)


def key_below(ax: Axes, key: Key) -> None:
    """Draws a key below the axes and their label."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    figure = ax.get_figure()
    assert figure is not None
    top = -(_BELOW_THE_AXES + 0.15 * lines_of(ax.get_xlabel()))
    inches = figure.dpi_scale_trans + ScaledTranslation(0, 0, ax.transAxes)  # type: ignore[arg-type]  # it is affine
    for entry, label, (x, y) in zip(key.entries, key.labels, key.places, strict=False):
        left, middle = x - _LEFT_OF_THE_AXES, top + y - 0.055
        style: dict[str, Any] = {"transform": inches, "fontsize": "small", "va": "top"}
        ax.text(left + key.indent, top + y, label, **style)
        if entry.number:
            ax.text(left + key.indent - 0.08, top + y, entry.number, ha="right", **style)
        if entry.marker == LINE_ALONE:
            mark = Line2D([left, left + 0.2], [middle] * 2, color=entry.colour, linewidth=1.8, transform=inches)
        elif entry.marker:
            mark = Line2D([left + 0.08], [middle], transform=inches, color=entry.colour, **_key_mark(entry.marker))
        else:
            continue
        ax.add_artist(mark)
        mark.set_clip_on(False)  # else it is taken for hidden outside the axes


def _key_mark(marker: str) -> dict[str, Any]:
    return {"marker": marker, "markersize": 5.5, "markeredgewidth": 0, "linestyle": ""}


_LEFT_OF_THE_AXES = 0.42
"""Inches; ticks and a label stand above."""
_MARK_IN_A_KEY, _GUTTER, _EDGE = 0.28, 0.25, 0.2


_STYLE: dict[str, Any] = {
    "frameon": False,
    "fontsize": "small",
    "handlelength": _HANDLE,
    "handletextpad": _PAD,
    "columnspacing": _BETWEEN,
    "borderaxespad": 0.0,
    "borderpad": 0.3,
    "labelspacing": 0.25,
}


def _width(labels: Sequence[str], columns: int) -> float:
    """Points of a legend: matplotlib fills column after column."""
    rows, more = divmod(len(labels), columns)
    widths, start = [], 0
    for column in range(columns):
        end = start + rows + (column < more)
        widths.append(max(points(label) for label in labels[start:end]))
        start = end
    return sum(widths) + columns * (_HANDLE + _PAD) * SMALL + (columns - 1) * _BETWEEN * SMALL + 0.6 * SMALL
