"""Short labels of points that may lie anywhere, even on each other: none overlaps another, each is led to its point."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cnn_ablation.report.figures.colours import MUTED
from cnn_ablation.report.figures.lettering import SMALL, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]
"""Left, bottom, right, top; in points."""

_MARKER = 3.5
"""Points from the middle of a marker to where no label stands."""
_NEAR = 14
"""Points of a label's edge from its mark from which a line leads to it."""
_TURNS, _RINGS = 16, 40


def draw_labels(ax: Axes, at: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Labels points; where each label stands is found whenever they are drawn, for whatever size the axes have by then.

    Args:
        ax: drawn on.
        at: n points in its data.
        texts: n short texts.
    """
    from matplotlib.artist import Artist

    notes = [
        ax.annotate(
            text,
            place,
            (0, 8),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize="small",
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.4, "shrinkA": 4.5, "shrinkB": 3},
            zorder=4,
        )
        for text, place in zip(texts, at, strict=True)
    ]

    for note in notes:
        note.set_in_layout(False)  # inside the axes; measuring it takes time

    class Places(Artist):
        """Drawn before the labels, which it puts into their places."""

        def draw(self, renderer: object) -> None:
            scale = 72 / ax.figure.dpi
            marks = scale * ax.transData.transform(np.array(at))
            box = scale * np.array(ax.bbox.extents)
            for note, offset in zip(notes, placed(marks, texts, box), strict=True):
                note.set_position(offset)
                if note.arrow_patch is not None:
                    note.arrow_patch.set_visible(math.hypot(*offset) > _NEAR + points(note.get_text()) / 2)

    if notes:
        places = Places()
        places.set_zorder(-10)
        places.set_in_layout(False)
        ax.add_artist(places)


def placed(marks: Floats, texts: Sequence[str], box: Floats) -> list[tuple[float, float]]:
    """Where labels stand, each as near to its mark as no other label, mark or edge forbids.

    Args:
        marks: points (n, 2).
        texts: n labels.
        box: left, bottom, right, top of the axes.

    Returns:
        Offsets (n) of the middles of labels from their marks.
    """
    taken = [_around(mark, 2 * _MARKER, 2 * _MARKER) for mark in marks]
    found = []
    for mark, text in zip(marks, texts, strict=True):
        width, height = points(text) + 2, 1.2 * SMALL
        offset = next(
            (offset for offset in _spiral(width, height)
             if _is_free(_around(mark + offset, width, height), taken, box)),
            (0.0, 9.0),
        )  # fmt: skip
        taken.append(_around(mark + offset, width, height))
        found.append(offset)
    return found


def _spiral(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Offsets in rings around a mark, the first to the upper right."""
    for ring in range(_RINGS):
        for turn in range(_TURNS):
            angle = math.pi / 4 + 2 * math.pi * turn / _TURNS
            x, y = math.cos(angle), math.sin(angle)
            longer, further = max(abs(x), abs(y)), 0.9 * height * ring
            yield x / longer * (width / 2 + _MARKER + further), y / longer * (height / 2 + _MARKER + further)


def _around(middle: Floats, width: float, height: float) -> Box:
    x, y = middle
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _is_free(box: Box, taken: Sequence[Box], room: Floats) -> bool:
    left, bottom, right, top = box
    if left < room[0] or bottom < room[1] or right > room[2] or top > room[3]:
        return False
    return not any(left < other[2] and other[0] < right and bottom < other[3] and other[1] < top for other in taken)
