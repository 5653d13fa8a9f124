"""A picture as its files, drawn only where the store does not remember what was drawn from the same.

Matplotlib is imported for drawing alone.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cnn_ablation.runs import provenance
from cnn_ablation.runs.store.memory import Memory, key_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
_DPI = 150
_CODE = ("analysis", "report", "study")
_LIBRARIES = ("matplotlib", "numpy", "pandas", "pillow")


@dataclass(frozen=True)
class Drawing:
    """One picture before it is drawn."""

    draw: Callable[[Figure], None]
    inches: tuple[float, float]
    shows: tuple[Any, ...]
    """All that it shows: tables, arrays, plain values."""
    title: str = ""
    """What it is, for who cannot see it."""


def picture(drawing: Drawing, name: str, memory: Memory | None) -> dict[str, bytes]:
    """A picture as PNG and SVG; the same drawing gives the same bytes.

    Args:
        drawing: what is drawn.
        name: of the files.
        memory: of pictures; None draws.
    """
    return remembered(drawing, name, memory, FORMATS, _drawn)


def remembered(
    drawing: Drawing,
    name: str,
    memory: Memory | None,
    suffixes: Sequence[str],
    draw: Callable[[Drawing, str], dict[str, bytes]],
) -> dict[str, bytes]:
    """Files of a picture by their names: what the store remembers, or what `draw` makes.

    Args:
        drawing: what is drawn.
        name: of the files.
        memory: of pictures; None draws.
        suffixes: of the files.
        draw: makes `name.suffix` of all of them.
    """
    if memory is None or not _is_drawn_as_installed():
        return draw(drawing, name)
    key = key_of(name, drawing.inches, drawing.title, [_told(each) for each in drawing.shows], _version())
    found = {suffix: memory.find(f"{key}.{suffix}") for suffix in suffixes}
    known = {f"{name}.{suffix}": content for suffix, content in found.items() if content is not None}
    if len(known) == len(suffixes):
        return known
    files = draw(drawing, name)
    for suffix in suffixes:
        memory.keep(f"{key}.{suffix}", files[f"{name}.{suffix}"])
    return files


def prepare() -> None:
    """Imports what draws, ahead of the first picture."""
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401


def _drawn(drawing: Drawing, name: str) -> dict[str, bytes]:
    """Arranged once for both formats."""
    figure = arranged(drawing)
    return {f"{name}.{suffix}": rendered(figure, suffix) for suffix in FORMATS}


def arranged(drawing: Drawing) -> Figure:
    """The figure with everything in its place, for good: it is drawn when it is saved, and only then."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine()
    figure = Figure(figsize=drawing.inches, layout=layout)
    with _boxes_for_unknown_letters():
        drawing.draw(figure)
        if figure.axes:
            layout.execute(figure)
    with mpl.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)  # "none" leaves a placeholder, for which saving draws a figure twice
    return figure


def rendered(figure: Figure, suffix: str) -> bytes:
    """The file's content; the same figure gives the same bytes."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "cnn_ablation"}), _boxes_for_unknown_letters():
        figure.savefig(buffer, format=suffix, dpi=_DPI, metadata={"Date": None} if suffix == "svg" else None)
    return buffer.getvalue()


@contextmanager
def _boxes_for_unknown_letters() -> Iterator[None]:
    """A character that the font lacks is drawn as a box, which says enough."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@cache
def _version() -> tuple[Any, ...]:
    """Of what draws."""
    return provenance.code_version(_CODE), provenance.versions(_LIBRARIES)


def _told(value: Any) -> Any:
    """A value as text that differs where it does."""
    if isinstance(value, pd.Series):
        value = value.rename("value").to_frame()
    if isinstance(value, pd.DataFrame):
        attributes = {str(name): _told(each) for name, each in value.attrs.items()}
        return [value.to_csv(), value.dtypes.astype(str).to_dict(), attributes]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, value.tolist()]
    if isinstance(value, dict):
        return [[_told(name), _told(each)] for name, each in value.items()]
    if isinstance(value, list | tuple):
        return [_told(each) for each in value]
    return repr(value)


def _is_drawn_as_installed() -> bool:
    """Whether nobody has asked matplotlib for another style, by a file or in this process."""
    mpl: Any = sys.modules.get("matplotlib")
    if mpl is None:
        return not any(path.is_file() for path in _style_files())
    now, installed = dict(dict.items(mpl.rcParams)), dict(dict.items(mpl.rcParamsDefault))
    return all(now[name] == value for name, value in installed.items() if not name.startswith("backend"))


def _style_files() -> list[Path]:
    """Where matplotlib looks for one of the user's own, before it takes the one that is installed."""
    given, folder = os.environ.get("MATPLOTLIBRC"), os.environ.get("MPLCONFIGDIR")
    configured = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    folders = [Path(), *([Path(folder)] if folder else []), Path(configured, "matplotlib")]
    folders += [Path(os.path.expanduser("~/.matplotlib"))]
    return [*([Path(given)] if given else []), *(each / "matplotlibrc" for each in [*folders, Path(given or "")])]
