"""Ticks that stand apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cnn_ablation.report.figures.lettering import points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]


def plain_log(ax: Axes) -> None:
    """A logarithmic horizontal axis with 1, 2 and 5 of each decade written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def apart(places: Floats, texts: Sequence[str], room: float, first: int = 0) -> list[int]:
    """Which of several ticks are written so that none touches another: `first`, then from left to right.

    Args:
        places: ascending, as shares (0..1) of the axis.
        texts: their labels.
        room: inches of the axis.
        first: place of the one that is written in any case.
    """
    edges = [(72 * room * place - points(text) / 2 - 3, 72 * room * place + points(text) / 2 + 3)
             for place, text in zip(places, texts, strict=True)]  # fmt: skip
    kept = [first] if edges else []
    for tick in range(len(edges)):
        if all(edges[tick][1] <= edges[other][0] or edges[other][1] <= edges[tick][0] for other in kept):
            kept.append(tick)
    return sorted(kept)
