"""Every picture of every shape of a study, measured with the renderer's own boxes."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import pytest
from drawn_studies import SHAPES, Shape, arms_of, curves_of, runs_of
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cnn_ablation.report.drawing import Drawing, arranged
from cnn_ablation.report.pictures import drawings

WIDTHS = (8.0, 7.2, 3.6)
SHARE = 0.55
HIGHEST = 30.0


@cache
def tables_of(shape: Shape) -> tuple[object, ...]:
    return runs_of(shape), arms_of(shape), curves_of(shape)


def measured(drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> tuple[Figure, list[tuple[str, Bbox]]]:
    """A picture with everything in its place, and every text that is really drawn with its box in pixels."""
    found, draw = [], Text.draw

    def noted(self: Text, renderer: object) -> None:
        if self.get_visible() and self.get_text().strip():
            found.append((self.get_text(), Text.get_window_extent(self)))
        draw(self, renderer)

    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", noted)
        return arranged(drawing), found


def overlap(first: Bbox, second: Bbox) -> bool:
    """By more than a pixel in both directions."""
    both = Bbox.intersection(first, second)
    return both is not None and both.width > 1 and both.height > 1


def faults(drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is wrong with a picture."""
    figure, texts = measured(drawing, monkeypatch)
    canvas = figure.bbox
    found = [f"leaves the canvas: {text!r} {box}" for text, box in texts
             if box.x0 < -1 or box.y0 < -1 or box.x1 > canvas.x1 + 1 or box.y1 > canvas.y1 + 1]  # fmt: skip
    found += [f"{one!r} overlaps {other!r}" for (one, first), (other, second) in combinations(texts, 2)
              if overlap(first, second)]  # fmt: skip
    found += [f"axes of {ax.bbox.width / canvas.width:.2f} of the width" for ax in figure.axes
              if ax.bbox.width < SHARE * canvas.width]  # fmt: skip
    found += [
        f"a legend over axes: {legend.get_texts()[0].get_text()!r}"
        for ax in figure.axes for legend in ax.findobj(Legend) if overlap(legend.get_window_extent(), ax.bbox)
    ]  # fmt: skip
    if drawing.inches[1] > HIGHEST:
        found.append(f"{drawing.inches[1]:.1f} inches high")
    return found


CASES = [(shape, width) for shape in SHAPES for width in WIDTHS if shape.arms < 40 or width != 7.2]  # 40 take a second


@pytest.mark.parametrize(("shape", "width"), CASES, ids=[f"{shape.name}, {width}" for shape, width in CASES])
def test_pictures_hold(shape: Shape, width: float, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, arms, curves = tables_of(shape)
    found = drawings(runs, arms, curves, shape.settings, width=width)
    assert {"differences", "learning_curves"} < set(found)
    assert [drawing.inches[0] for drawing in found.values()] == [width] * len(found)
    assert {name: faults(drawing, monkeypatch) for name, drawing in found.items()} == {name: [] for name in found}
