"""A picture as SVG inside a page: its text stays text, and single points say what they are."""

from __future__ import annotations

import re

from matplotlib import rc_context
from matplotlib.figure import Figure

from cnn_ablation.report.drawing import Drawing, rendered

_BEFORE_THE_PICTURE = re.compile(r"^.*?(?=<svg )", flags=re.DOTALL)


def inline(drawing: Drawing, name: str) -> str:
    """The `<svg>` element of a drawing.

    Args:
        drawing: what is drawn, as wide as it says.
        name: unique within the page; ids inside the picture begin with it.
    """
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure = Figure(figsize=drawing.inches, layout="constrained")
        drawing.draw(figure)
        return _BEFORE_THE_PICTURE.sub("", rendered(figure, "svg").decode())
