"""The pictures of a study as PNG and SVG files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnn_ablation.records import write_atomically
from cnn_ablation.report import figures

_DPI = 150


def write_pictures(folder: Path, arms: pd.DataFrame, curves: pd.DataFrame, *, margin_pp: float) -> list[Path]:
    """Writes differences (a forest plot), accuracy_against_time and learning_curves.

    Args:
        folder: where to write.
        arms: from `ablation_table`.
        curves: from `load_curves`; empty for a table of runs alone, which has none.
        margin_pp: the margin of equivalence, drawn as a band.

    Returns:
        The files written.

    Raises:
        RecordError: one of them cannot be written.
    """
    height = 1.5 + 0.35 * len(arms)
    drawings: dict[str, tuple[Callable[[Axes], Axes], float]] = {
        "accuracy_against_time": (lambda ax: figures.plot_accuracy_against_time(arms, ax), 4.5),
    }
    if len(arms) > 1:
        drawings["differences"] = (lambda ax: figures.plot_differences(arms, ax, margin_pp=margin_pp), height)
    if len(curves):
        drawings["learning_curves"] = (lambda ax: figures.plot_curves(curves, ax), 4.5)
    written = []
    for name, (draw, inches) in drawings.items():
        figure = Figure(figsize=(8, inches), layout="constrained")
        draw(figure.add_subplot())
        for suffix in ("png", "svg"):
            written.append(folder / f"{name}.{suffix}")
            write_atomically(written[-1], _rendered(figure, suffix))
    return written


def _rendered(figure: Figure, suffix: str) -> bytes:
    """The file's content; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "cnn_ablation"}):
        figure.savefig(buffer, format=suffix, dpi=_DPI, metadata={"Date": None} if suffix == "svg" else None)
    return buffer.getvalue()
