"""Pictures in a notebook: tables and axes in, axes out; what stands in them is what the tables say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from drawn_studies import SHAPES, Shape, arms_of, curves_of, runs_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

import cnn_ablation
from cnn_ablation import plot
from cnn_ablation.common.errors import ConfigError, RecordError
from cnn_ablation.report.figures.colours import LINES

SHAPE = Shape(4, 20, 3, 4)
LEVELS = next(shape for shape in SHAPES if shape.kind == "levels")
RUNS, ARMS, CURVES = runs_of(SHAPE), arms_of(SHAPE), curves_of(SHAPE)
Draw = Callable[..., Axes]
CALLS: dict[str, Draw] = {
    "differences": lambda **on: plot.differences(ARMS, RUNS, **on),
    "differences without runs": lambda **on: plot.differences(ARMS, **on),
    "scores": lambda **on: plot.scores(ARMS, RUNS, **on),
    "against_time": lambda **on: plot.against_time(ARMS, RUNS, **on),
    "levels": lambda **on: plot.levels(arms_of(LEVELS), runs_of(LEVELS), **on),
    "curves": lambda **on: plot.curves(CURVES, **on),
    "confusion": lambda **on: plot.confusion([[3, 1], [0, 4]], ["cat", "dog"], **on),
}


@pytest.fixture(autouse=True)
def pyplot() -> Iterator[Any]:
    """Without a window, and without the figures of other tests."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.close("all")
    yield plt
    plt.close("all")


@pytest.mark.parametrize("draw", CALLS.values(), ids=CALLS)
def test_axes_that_are_given_are_drawn_on_and_returned(draw: Draw, pyplot: Any) -> None:
    ax = Figure().add_subplot()
    assert draw(ax=ax) is ax
    assert ax.has_data()
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("draw", CALLS.values(), ids=CALLS)
def test_without_axes_there_is_a_new_figure_of_pyplot(draw: Draw, pyplot: Any) -> None:
    ax = draw()
    assert pyplot.gcf() is ax.figure
    assert ax.figure.get_size_inches()[0] == 8.0


def test_a_figure_is_as_high_as_its_rows(pyplot: Any) -> None:
    heights = [plot.differences(arms_of(Shape(count, 20))).figure.get_size_inches()[1] for count in (3, 23)]
    assert heights[1] - heights[0] > 20 * 0.2


def points_of(ax: Axes, size: float) -> np.ndarray:
    """Where all markers of a size are drawn."""
    return np.concatenate([line.get_xdata() for line in ax.lines if line.get_markersize() == size])


def test_seeds_are_paired_with_those_of_the_baseline() -> None:
    scores = 100 * RUNS.pivot_table("test_accuracy", "seed", "arm")
    by_hand = scores.drop(columns="baseline").sub(scores["baseline"], axis=0).to_numpy().ravel()
    drawn = points_of(plot.differences(ARMS, RUNS), 3.2)
    assert np.sort(drawn)[: len(by_hand)] == pytest.approx(np.sort(by_hand))


def test_against_dunnetts_test_seeds_are_not_paired() -> None:
    arms = cnn_ablation.ablation_table(RUNS, test="dunnett")
    scores = 100 * RUNS.pivot_table("test_accuracy", "seed", "arm")
    by_hand = (scores.drop(columns="baseline") - scores["baseline"].mean()).to_numpy().ravel()
    assert np.sort(points_of(plot.differences(arms, RUNS), 3.2)) == pytest.approx(np.sort(by_hand))


def test_times_have_an_interval_of_their_own() -> None:
    frame = RUNS.assign(train_seconds=np.tile([3.0, 3.1, 3.3, 3.2], 4) + 0.5 * (RUNS["arm"] != "baseline"))
    ax = plot.against_time(cnn_ablation.ablation_table(frame, alpha=0.1), frame)
    seconds = frame.loc[frame["arm"] == "baseline", "train_seconds"]
    low, high = stats.t.interval(0.9, 3, seconds.mean(), stats.sem(seconds))
    drawn = [tuple(path.vertices[:, 0]) for lines in ax.collections for path in lines.get_paths()]
    assert any(ends == pytest.approx((low, high)) for ends in drawn)
    assert "90 % interval" in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0], ids=["tiny", "usual", "large"])
def test_zero_and_the_margin_are_always_seen(scale: float) -> None:
    frame = RUNS.assign(cost=10 + scale * RUNS["test_accuracy"] + (RUNS["arm"] != "baseline") * 5 * scale)
    ax = plot.differences(cnn_ablation.ablation_table(frame, metric="cost", margin=0.5), frame)
    low, high = ax.get_xlim()
    assert low < -0.5
    assert high > 0.5


def test_one_wild_arm_does_not_flatten_the_others() -> None:
    wild = Shape(6, 20, 3, 4, "wild")
    ax = plot.differences(arms_of(wild), runs_of(wild))
    low, high = ax.get_xlim()
    assert -10 < low < high < 10
    (told,) = [text.get_text() for text in ax.texts if "pp" in text.get_text()]
    mean = arms_of(wild).set_index("arm")["delta_pp"].iloc[1]
    assert told.startswith(f"{mean:.2f} pp [".replace("-", "\u2212"))
    assert "beyond the axis" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_an_arm_that_failed_is_named_as_failed() -> None:
    failed = Shape(6, 20, 3, 4, "failed")
    frame, table = runs_of(failed), arms_of(failed)
    rows = [text.get_text() for text in plot.differences(table, frame).get_yticklabels()]
    assert [row.rpartition("\n")[2] for row in rows[:3]] == [
        "(4 of 4 runs diverged)", "(4 of 4 runs failed)", "(1 of 4 runs failed)",
    ]  # fmt: skip
    key = [text.get_text() for text in plot.against_time(table, frame).texts]
    assert any("(4 of 4 runs failed)" in text for text in key)


def test_what_validation_dropped_is_counted_and_not_drawn() -> None:
    hidden = RUNS.assign(test_accuracy=RUNS["test_accuracy"].where(~RUNS["arm"].str.startswith(("arm1=", "arm3="))))
    ax = plot.differences(cnn_ablation.ablation_table(hidden), hidden)
    assert len(ax.get_yticklabels()) == 1
    assert "2 arms dropped on validation are not shown" in ax.get_xlabel().replace("\n", " ")


def curves_of_arms(count: int) -> pd.DataFrame:
    return curves_of(Shape(count, 12, 4, 2))


def test_up_to_eight_arms_have_a_colour_each() -> None:
    ax = plot.curves(curves_of_arms(8))
    colours = [line.get_color() for line in ax.lines if line.get_transform().contains_branch(ax.transData)]
    assert colours == ["#000000", *LINES]
    assert not ax.child_axes


@pytest.mark.parametrize("count", [9, 40])
def test_more_arms_have_a_picture_each_beside_the_baseline(count: int) -> None:
    ax = plot.curves(curves_of_arms(count))
    assert len(ax.child_axes) == count - 1
    names = [text.get_text().replace("\n", "") for panel in ax.child_axes for text in panel.texts]
    assert names == [arm for arm in dict.fromkeys(curves_of_arms(count)["arm"]) if arm != "baseline"]
    means = curves_of_arms(count).groupby(["arm", "epoch"], sort=False)["val_accuracy"].mean()
    for panel, (arm, _) in zip(ax.child_axes, means.drop("baseline").groupby(level=0, sort=False), strict=True):
        black, line = panel.lines
        assert black.get_ydata() == pytest.approx(100 * means["baseline"].to_numpy())
        assert line.get_ydata() == pytest.approx(100 * means[arm].to_numpy())


def test_what_a_band_is_stands_in_the_picture() -> None:
    words = [text.get_text() for text in plot.curves(CURVES).get_legend().get_texts()]
    assert words == ["line: mean, band: range over 4 seeds"]


def test_a_confusion_matrix_says_whose_it_is() -> None:
    ax = plot.confusion([[3, 1], [0, 4]], ["cat", "dog"], title="baseline: test images")
    assert ax.get_title(loc="left") == "baseline: test images"
    assert sorted(text.get_text() for text in ax.texts) == ["100", "25", "75"]


WRONG: dict[str, tuple[Callable[[], object], type[Exception], list[str]]] = {
    "runs for arms": (
        lambda: plot.differences(RUNS),
        RecordError,
        ["no table of arms: it lacks verdict, notes", "cnn_ablation.ablation_table(runs) makes one"],
    ),
    "a list": (lambda: plot.scores([1]), RecordError, ["a table of arms is a pandas DataFrame, not list"]),  # type: ignore[arg-type]
    "arms for curves": (lambda: plot.curves(ARMS), RecordError, ["no table of learning curves: it lacks epoch"]),
    "an unknown column": (
        lambda: plot.curves(CURVES, column="val_acuracy"),
        ConfigError,
        ["column=val_acuracy", "did you mean: val_accuracy"],
    ),
    "an unknown knob": (
        lambda: plot.levels(arms_of(LEVELS), runs_of(LEVELS), "optimizer.lrr"),
        ConfigError,
        ["knob=optimizer.lrr", "optimizer.lr"],
    ),
    "no knob of numbers": (lambda: plot.levels(ARMS, RUNS), ConfigError, ["of which this study has none"]),
    "too few classes": (
        lambda: plot.confusion([[1, 2], [3, 4]], ["cat"]),
        RecordError,
        ["a confusion matrix of 1 classes has the shape (1, 1), not (2, 2)"],
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), WRONG.values(), ids=WRONG)
def test_wrong_uses_are_told(call: Callable[[], object], error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        call()
    assert [part for part in words if part not in str(caught.value)] == []


def test_it_is_found_under_the_package() -> None:
    assert cnn_ablation.plot is plot
    assert set(plot.__all__) == {"against_time", "confusion", "curves", "differences", "levels", "scores"}
