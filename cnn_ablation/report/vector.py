"""A picture as SVG inside a page: its text stays text, and single points say what they are."""

from __future__ import annotations

import re

from cnn_ablation.report.drawing import Drawing, _is_drawn_as_installed, _told, _version, rendered
from cnn_ablation.runs.store.memory import Memory, key_of

_BEFORE_THE_PICTURE = re.compile(r"^.*?(?=<svg )", flags=re.DOTALL)


def inline(drawing: Drawing, name: str, memory: Memory | None = None) -> str:
    """The `<svg>` element of a drawing.

    Args:
        drawing: what is drawn, as wide as it says.
        name: unique within the page; ids inside the picture begin with it.
        memory: of pictures; None draws.
    """
    if memory is None or not _is_drawn_as_installed():
        return _drawn(drawing, name)
    key = key_of(name, drawing.inches, [_told(each) for each in drawing.shows], _version())
    found = memory.find(f"{key}.inline")
    if found is None:
        found = _drawn(drawing, name).encode()
        memory.keep(f"{key}.inline", found)
    return found.decode()


def _drawn(drawing: Drawing, name: str) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure = Figure(figsize=drawing.inches, layout="constrained")
        drawing.draw(figure)
        text = _BEFORE_THE_PICTURE.sub("", rendered(figure, "svg").decode())
        return re.sub(r'(id="|href="#|url\(#)', rf"\1{name}-", text)
