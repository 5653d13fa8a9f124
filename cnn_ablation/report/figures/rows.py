"""Rows of a picture, one for each arm: how its name is folded, where it stands, how high the row is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.report.figures.colours import INK, PAPER
from cnn_ablation.report.figures.lettering import LINE, as_text, folded, lines_of, points, shortened, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

_SHARE = 0.36
"""Of the width, for names beside their rows; with ticks and edges the axes keep more than 55 %."""
_WIDE = 5.0
"""Inches from which even names that do not fit in one line stand beside their rows."""
_MARK = 0.17
"""Inches that a mean with its seeds takes."""
_GAP = 0.12
_HIGHEST = 26.0
"""Inches; of a picture that would be higher, names are shortened."""


SHORTENED = "; names are shortened, whole in the table"


@dataclass(frozen=True)
class Rows:
    """Where rows stand, in inches from the top."""

    names: list[str]
    """As matplotlib takes them; with remarks."""
    beside: bool
    """Whether names stand at the left of their rows, or above them."""
    heights: Floats
    marks: Floats
    """Of each row's mean."""
    shortened: bool

    @property
    def height(self) -> float:
        return float(self.heights.sum())

    @property
    def words(self) -> str:
        """What a label has to say of the names."""
        return SHORTENED if self.shortened else ""

    @property
    def tops(self) -> Floats:
        return np.cumsum(self.heights) - self.heights

    def room(self, width: float) -> float:
        """Inches that the axes are about wide in a picture of some width."""
        names = max(map(points, self.names), default=0.0) / 72 if self.beside else 0.0
        return width - names - 0.3


def rows_of(names: Sequence[str], remarks: Sequence[str], has_more: Sequence[bool], width: float) -> Rows:
    """Names beside their rows where they take no more than their share of the width, else above.

    Args:
        names: of n arms.
        remarks: n texts below them, empty for none.
        has_more: n times, whether a value is written above the row's mean.
        width: of the picture, in inches.
    """
    room = 72 * _SHARE * width
    widest = max((points(line) for name in names for line in folded(name).split("\n")), default=0.0)
    beside = width >= _WIDE or widest <= room
    room = room if beside else 72 * (width - 0.3)
    remarks = [wrapped(f"({as_text(remark)})", room) if remark else "" for remark in remarks]
    rows = _placed([folded(name, room) for name in names], remarks, has_more, beside, is_short=False)
    for lines in (3, 2, 1):
        if rows.height <= _HIGHEST:
            break
        short = [folded(name, room) for name in shortened(names, 0.9 * lines * room)]
        rows = _placed(short, remarks, has_more, beside, is_short=True)
    return rows


def _placed(
    names: Sequence[str], remarks: Sequence[str], has_more: Sequence[bool], beside: bool, *, is_short: bool
) -> Rows:
    labels = [f"{name}\n{remark}" if remark else name for name, remark in zip(names, remarks, strict=True)]
    lettering = LINE * np.array([lines_of(label) for label in labels])
    more = np.where(has_more, LINE, 0.0)
    if beside:
        heights = np.maximum(lettering, _MARK + more) + _GAP
        marks = np.cumsum(heights) - heights / 2 + more / 2
    else:
        heights = lettering + more + _MARK + _GAP
        marks = np.cumsum(heights) - _GAP / 2 - _MARK / 2
    return Rows(labels, beside, heights, marks, is_short)


def draw_names(rows: Rows, ax: Axes) -> None:
    """Names of rows, and limits so that data are inches from the top."""
    ax.set_ylim(rows.height, 0)
    ax.set_yticks(rows.marks, rows.names if rows.beside else [""] * len(rows.names), fontsize="small", color=INK)
    ax.tick_params(axis="y", length=0)
    if not rows.beside:
        ground: dict[str, Any] = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
        for name, top in zip(rows.names, rows.tops, strict=True):
            place = (0, top + _GAP / 2)
            how: dict[str, Any] = {
                "va": "top",
                "fontsize": "small",
                "bbox": ground,
                "in_layout": False,
            }  # it lies within the axes
            ax.annotate(name, place, (2, 0), ("axes fraction", "data"), "offset points", **how)
