"""What stands around the data of every picture: axes, legends above them, keys of names below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnn_ablation.report.figures.colours import GRID, INK, MUTED
from cnn_ablation.report.figures.lettering import LINE, SMALL, folded, points, wrapped

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_USUAL_SHARE = 0.775
"""Of a figure's width, for the axes, before anything is arranged."""
_HANDLE, _PAD, _BETWEEN = 1.6, 0.6, 1.6
"""In sizes of letters: the mark of an entry, what stands between it and its text, and between columns."""
_BELOW_THE_AXES = 0.26
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
    return 1 + wrapped(text, 72 * room, _LABEL).count("\n")


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
SEED_STYLE: dict[str, Any] = {"marker": "o", "markersize": 3.2, "markeredgewidth": 0, "alpha": 0.5}


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


def key_below(ax: Axes, handles: Sequence[Artist], names: Sequence[str], room: float) -> None:
    """Names of marks below the axes and their label.

    Args:
        ax: drawn on.
        handles: one for each name, with its number, if it has one, as label.
        names: of arms.
        room: inches.
    """
    from matplotlib.legend import Legend
    from matplotlib.transforms import ScaledTranslation

    figure = ax.get_figure()
    assert figure is not None
    labels, columns = key_of(names, [str(handle.get_label()) for handle in handles], room)
    below = _BELOW_THE_AXES + LINE * (1 + 1.2 * ax.get_xlabel().count("\n") + 1.0)
    place = ax.transAxes + ScaledTranslation(-_LEFT_OF_THE_AXES, -below, figure.dpi_scale_trans)
    above = ax.get_legend()
    key = Legend(
        ax, list(handles), labels, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=place, ncols=columns,
        alignment="left", **_STYLE,
    )  # fmt: skip
    ax.add_artist(key)
    key.set_clip_on(False)  # else it is taken for hidden outside the axes, and has no room in the layout
    if above is not None:
        ax.legend_ = above


_LEFT_OF_THE_AXES = 0.4


def key_of(names: Sequence[str], numbers: Sequence[str], room: float) -> tuple[list[str], int]:
    """Labels of a key, and in how many columns they stand.

    Args:
        names: of arms.
        numbers: that stand before them; empty for none.
        room: inches.
    """
    digits = max(map(len, numbers), default=0)
    indent = " " * (2 * digits + 2 if digits else 0)  # a digit is as wide as two spaces
    for columns in range(_MOST_COLUMNS, 0, -1):
        width = 72 * room / columns - (_HANDLE + _PAD + _BETWEEN) * SMALL - points(indent)
        lines = [folded(name, width).split("\n") for name in names]
        if columns == 1 or all(
            len(each) == 1 + folded(name).count("\n") for name, each in zip(names, lines, strict=True)
        ):
            break
    heads = ["  " * (digits - len(number)) + number + "  " if digits else "" for number in numbers]
    return [head + f"\n{indent}".join(each) for head, each in zip(heads, lines, strict=True)], columns


def key_height(names: Sequence[str], numbers: Sequence[str], room: float) -> float:
    """Inches of a key below the axes."""
    labels, columns = key_of(names, numbers, room)
    heights = [LINE * (1 + label.count("\n")) + 0.02 for label in labels]
    rows = -(-len(labels) // columns)
    return max((sum(heights[start : start + rows]) for start in range(0, len(heights), rows)), default=0.0) + 0.1


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
