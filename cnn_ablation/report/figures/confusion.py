"""The confusion matrix of an arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cnn_ablation.report.figures.colours import CELL, INK, ON_CELL, PAPER
from cnn_ablation.report.figures.frame import inches_of, label_x, label_y
from cnn_ablation.report.figures.lettering import LINE, SMALL, as_text, lines_of, points, shortened
from cnn_ablation.report.figures.titles import titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST = 70.0
"""Points of the name of a class; the middle of a longer one is left out."""
_AROUND = 0.55
"""Inches of labels and edges."""
_SMALLEST = 2.4
"""Inches of a matrix of few classes, where there is room."""
_LEAST = 0.5
"""Percent from which a cell has a number."""
_LETTERS = (4.5, 8.0)
"""Points of the numbers: none are written where cells are too small for the least, and none are larger."""


def plot_confusion(
    counts: npt.ArrayLike, class_names: Sequence[str], ax: Axes, *, title: str = "", width: float | None = None
) -> Axes:
    """Confusion matrix: percent of each true class (rows) by predicted class, the number where it is not 0.

    Args:
        counts: images (K, K), true class by predicted class.
        class_names: K names.
        ax: drawn on.
        title: says of which arm and which images.
        width: of the picture in inches; None for what the axes have.
    """
    images = np.asarray(counts, dtype=np.float64)
    percent = 100 * images / np.maximum(images.sum(axis=1, keepdims=True), 1)
    names = [as_text(name) for name in shortened([str(name) for name in class_names], _LONGEST)]
    side = confusion_side(names, width or inches_of(ax))
    _draw_cells(images, percent, class_names, ax)
    _draw_numbers(percent, 72 * side / len(names), ax)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_aspect("equal")
    size = min(SMALL, 0.8 * 72 * side / len(names))
    ax.set_xticks(range(len(names)), names, rotation=90 if _is_turned(names, side) else 0, fontsize=size)
    ax.set_yticks(range(len(names)), names, fontsize=size)
    ax.tick_params(length=0)
    label_x(ax, "predicted class", side)
    label_y(ax, "true class (rows sum to 100 %)", side)
    if title:
        ax.set_title(title, fontsize="small", loc="left")
    return ax


def confusion_side(class_names: Sequence[str], width: float) -> float:
    """Inches of a matrix in a picture of a width, with the names beside it."""
    names = max(map(points, shortened(class_names, _LONGEST)), default=0.0) / 72
    return min(width - names - 0.5, max(0.5 * len(class_names) + 0.5, min(0.6 * width, _SMALLEST)))


def confusion_height(class_names: Sequence[str], width: float, title: str) -> float:
    """Inches that the picture takes at a width."""
    names, side = shortened(class_names, _LONGEST), confusion_side(class_names, width)
    below = max(map(points, names), default=0.0) / 72 if _is_turned(names, side) else LINE
    return side + below + LINE * lines_of(title) + _AROUND


def _is_turned(names: Sequence[str], side: float) -> bool:
    """Whether names of predicted classes stand upright, because they are wider than their columns."""
    return max(map(points, names), default=0.0) > 0.9 * 72 * side / max(len(names), 1)


def _draw_cells(
    images: npt.NDArray[np.float64], percent: npt.NDArray[np.float64], names: Sequence[str], ax: Axes
) -> None:
    """Shaded by their share, so that nothing shines through where there is nothing."""
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    filled = np.argwhere(percent > 0)
    cells = [Rectangle((column - 0.5, row - 0.5), 1, 1) for row, column in filled]
    shades = [to_rgba(CELL, float(0.04 + 0.96 * percent[row, column] / 100)) for row, column in filled]
    collection = PatchCollection(cells, facecolors=shades, edgecolors=PAPER, linewidths=0.5)
    ax.add_collection(collection)
    titled(collection, [
        f"{names[row]} taken for {names[column]}: {percent[row, column]:.1f} %, {images[row, column]:g} images"
        for row, column in filled
    ])  # fmt: skip


def _draw_numbers(percent: npt.NDArray[np.float64], cell: float, ax: Axes) -> None:
    """Where `cell`, points of its side, has room for three digits."""
    least, most = _LETTERS
    size = min(most, 0.9 * cell / (points("100") / SMALL))
    if size < least:
        return
    for row, column in np.argwhere(percent >= _LEAST):
        value = percent[row, column]
        colour = ON_CELL if value > 50 else INK
        ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=size, color=colour)
