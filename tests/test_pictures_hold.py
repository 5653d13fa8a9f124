"""Every picture of every shape of a study, measured with the renderer's own boxes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from drawn_studies import SHAPES, Shape, arms_of, curves_of, runs_of
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cnn_ablation.report import figures
from cnn_ablation.report.drawing import Drawing, arranged
from cnn_ablation.report.pictures import confusion_drawing, drawings, drawn_on_axes
from cnn_ablation.report.variance import variance_drawing
from cnn_ablation.study.metric import Metric

WIDTHS = (8.0, 7.2, 3.6)
SHARE = 0.55
HIGHEST = 30.0


@cache
def tables_of(shape: Shape) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
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
        figure = arranged(drawing)
        figure.draw_without_rendering()
        return figure, found


def overlap(first: Bbox, second: Bbox) -> bool:
    """By more than a pixel in both directions."""
    both = Bbox.intersection(first, second)
    return both is not None and both.width > 1 and both.height > 1


def overlapping(boxes: list[Bbox]) -> list[tuple[int, int]]:
    """Pairs of boxes that do, all at once: a matrix of thirty classes has a thousand texts."""
    low, high = (np.array([getattr(box, corner) for box in boxes]) for corner in ("min", "max"))
    common = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    found = np.argwhere(np.triu((common > 1).all(axis=2), 1))
    return [(int(one), int(other)) for one, other in found]


def faults(drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is wrong with a picture."""
    return faults_of(*measured(drawing, monkeypatch))


def faults_of(figure: Figure, texts: list[tuple[str, Bbox]]) -> list[str]:
    canvas = figure.bbox
    found = [f"leaves the canvas: {text!r} {box}" for text, box in texts
             if box.x0 < -1 or box.y0 < -1 or box.x1 > canvas.x1 + 1 or box.y1 > canvas.y1 + 1]  # fmt: skip
    found += [
        f"{texts[one][0]!r} overlaps {texts[other][0]!r}" for one, other in overlapping([box for _, box in texts])
    ]
    found += [f"axes of {ax.bbox.width / canvas.width:.2f} of the width" for ax in figure.axes
              if ax.bbox.width < SHARE * canvas.width]  # fmt: skip
    found += [
        f"a legend over axes: {legend.get_texts()[0].get_text()!r}"
        for ax in figure.axes for legend in ax.findobj(Legend) if overlap(legend.get_window_extent(), ax.bbox)
    ]  # fmt: skip
    if figure.get_figheight() > HIGHEST:
        found.append(f"{figure.get_figheight():.1f} inches high")
    return found


CASES = [(shape, width) for shape in SHAPES for width in WIDTHS if shape.arms < 40 or width != 7.2]  # 40 take a second


@pytest.mark.parametrize(("shape", "width"), CASES, ids=[f"{shape.name}, {width}" for shape, width in CASES])
def test_pictures_hold(shape: Shape, width: float, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, arms, curves = tables_of(shape)
    found = drawings(runs, arms, curves, shape.settings, width=width)
    assert {"differences", "learning_curves"} < set(found)
    assert [drawing.inches[0] for drawing in found.values()] == [width] * len(found)
    assert {name: faults(drawing, monkeypatch) for name, drawing in found.items()} == {name: [] for name in found}


LONG_ARM = "large={train.batch_size:256,optimizer.lr:0.004,model.filters:[64,128,256],model.kernel_sizes:[7,5,3]}"


@pytest.mark.parametrize("width", [8.0, 3.6])
@pytest.mark.parametrize(("classes", "letters"), [(2, 60), (10, 1), (10, 12), (30, 40)])
def test_confusion_matrices_hold(classes: int, letters: int, width: float, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}{'class' * letters}"[:letters] for number in range(classes)]
    counts = 30.0 * np.eye(classes) + np.random.default_rng(0).integers(0, 3, (classes, classes))
    drawing = confusion_drawing({"val": counts, "test": counts}, names, arm=LONG_ARM, width=width)
    assert drawing is not None
    figure, texts = measured(drawing, monkeypatch)
    found = faults_of(figure, texts)
    is_wide = width == 8.0  # two side by side, or one of few classes, which would be higher than a screen
    assert [fault for fault in found if not (is_wide and fault.startswith("axes of"))] == []
    titles = [text.replace("\n", "") for text, _ in texts if "large=" in text]
    assert titles == [f"{LONG_ARM}:{part} images" for part in ("validation", "test")]


@pytest.mark.parametrize("width", [8.0, 3.6])
def test_the_metric_of_every_arm_holds(width: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in (SHAPES[2], SHAPES[5], SHAPES[6]):
        runs, arms, _ = tables_of(shape)
        height = figures.scores_height(arms, runs, width)
        drawing = drawn_on_axes(figures.plot_metric, arms, inches=height, width=width, runs=runs)
        assert faults(drawing, monkeypatch) == []


@pytest.mark.parametrize("width", [8.0, 3.6])
def test_variance_by_source_holds(width: float, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = ["all together", "init", "order", "dropout", "sum of the single sources"]
    table = pd.DataFrame({"source": sources, "n": 5, "share": [1.0, 0.5, 0.3, 0.1, 0.9], "note": ""})
    table["std_pp"] = 2 * np.sqrt(table["share"])
    table = table.assign(std_ci_low_pp=0.6 * table["std_pp"], std_ci_high_pp=2.9 * table["std_pp"])
    assert faults(variance_drawing(table, Metric("test_accuracy"), width=width), monkeypatch) == []
