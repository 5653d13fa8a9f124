from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import cnn_ablation
from cnn_ablation.config import StatsConfig
from cnn_ablation.report import figures
from cnn_ablation.report.pictures import write_pictures

LEVELS = {"baseline": (1e-3, 0.90), "optimizer.lr=0.0001": (1e-4, 0.70), "optimizer.lr=0.01": (1e-2, 0.95)}


@pytest.fixture
def runs() -> pd.DataFrame:
    noise = [0.0, 0.004, -0.003]
    rows = [
        {"arm": arm, "knob": "" if arm == "baseline" else "optimizer.lr", "level": arm.partition("=")[2], "seed": seed,
         "status": "ok", "val_accuracy": mean, "test_accuracy": mean + noise[(seed + index) % 3], "train_seconds": 1.0,
         "optimizer.lr": value}
        for index, (arm, (value, mean)) in enumerate(LEVELS.items())
        for seed in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


def test_numeric_levels_come_in_ascending_order_with_the_baselines(runs: pd.DataFrame) -> None:
    found = figures.numeric_levels(runs, cnn_ablation.ablation_table(runs))
    assert list(found) == ["optimizer.lr"]
    assert found["optimizer.lr"].to_dict() == {"optimizer.lr=0.0001": 1e-4, "baseline": 1e-3, "optimizer.lr=0.01": 1e-2}


@pytest.mark.parametrize("values", [["a", "b", "c"], [True, False, True]], ids=["words", "switches"])
def test_levels_that_are_no_numbers_have_no_axis(runs: pd.DataFrame, values: list[object]) -> None:
    runs["optimizer.lr"] = np.repeat(np.array(values, dtype=object), 3)
    assert figures.numeric_levels(runs, cnn_ablation.ablation_table(runs)) == {}


def test_an_axis_over_decades_is_logarithmic_and_shows_the_values(runs: pd.DataFrame, ax: Axes) -> None:
    arms = cnn_ablation.ablation_table(runs)
    values = figures.numeric_levels(runs, arms)["optimizer.lr"]
    figures.plot_levels(arms, values, ax, key="optimizer.lr")
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    assert ax.lines[0].get_ydata() == pytest.approx(100 * arms.set_index("arm").loc[values.index, "test_accuracy_mean"])


def test_a_narrow_axis_is_linear(runs: pd.DataFrame, ax: Axes) -> None:
    runs["optimizer.lr"] = np.repeat([0.0, 0.1, 0.3], 3)
    arms = cnn_ablation.ablation_table(runs)
    figures.plot_levels(arms, figures.numeric_levels(runs, arms)["optimizer.lr"], ax, key="optimizer.lr")
    assert ax.get_xscale() == "linear"


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("baseline", "baseline"),
        ("model.filters=[4,8],model.activation=leaky", "model.filters=[4,8],\nmodel.activation=leaky"),
        ("a={b:1,c:[1,2]},d=3", "a={b:1,c:[1,2]},\nd=3"),
    ],
)
def test_long_names_fold_between_settings(arm: str, expected: str) -> None:
    assert figures.folded(arm) == expected


def test_pictures_of_a_long_greedy_path_have_room(runs: pd.DataFrame, tmp_path: Path) -> None:
    """Matplotlib warns where names leave no room for the axes, and warnings are errors here."""
    long = ",".join(f"model.some_key_{number}=[64,128,256]" for number in range(8))
    frame = pd.concat([runs, *(runs[runs["arm"] == "baseline"].assign(arm=f"{long},k={k}") for k in range(6))])
    frame["test_accuracy"] += np.linspace(0, 0.01, len(frame))
    arms = cnn_ablation.ablation_table(frame)
    curves = pd.DataFrame({"arm": frame["arm"], "epoch": frame["seed"], "val_accuracy": frame["val_accuracy"]})
    written = write_pictures(tmp_path, frame, arms, curves, StatsConfig())
    assert {path.stem for path in written} >= {"differences", "accuracy_against_time", "learning_curves"}


def test_the_forest_plot_names_what_it_compares_with(runs: pd.DataFrame, ax: Axes) -> None:
    full = runs.replace({"arm": {"baseline": "full"}})
    figures.plot_differences(cnn_ablation.ablation_table(full), ax)
    assert "from the full configuration" in ax.get_xlabel()
    assert [text.get_text() for text in ax.get_yticklabels()] == ["optimizer.lr=0.0001", "optimizer.lr=0.01"]


def test_a_bar_ends_at_a_mean_that_lies_beyond_its_limit(runs: pd.DataFrame, ax: Axes) -> None:
    """As intervals that hold at every number of seeds may leave it."""
    arms = cnn_ablation.ablation_table(runs)
    limits = {"test_accuracy_mean": [0.9], "test_accuracy_ci_low": [0.91], "test_accuracy_ci_high": [np.inf]}
    figures.plot_metric(arms.iloc[:1].assign(**limits), ax)
    assert [bar.get_segments()[0][:, 0].tolist() for bar in ax.collections] == [[90.0, 90.0]]


def test_a_mean_of_the_seeds_that_were_not_stopped_is_dotted(ax: Axes) -> None:
    """Two seeds; the second stopped after epoch 2, so that epoch 3 is the first one's alone."""
    points = [(0, 1, 0.5), (0, 2, 0.6), (0, 3, 0.9), (1, 1, 0.3), (1, 2, 0.4)]
    curves = pd.DataFrame(points, columns=["seed", "epoch", "val_accuracy"]).assign(arm="baseline")
    figures.plot_curves(curves, ax)
    solid, dotted, _ = ax.lines  # the third is the key's
    assert (list(solid.get_xdata()), solid.get_ydata()) == ([1, 2], pytest.approx([40, 50]))
    assert (list(dotted.get_xdata()), dotted.get_linestyle()) == ([2, 3], ":")
    assert ax.get_xlabel() == "epoch (dotted: some seeds had stopped)"
    figures.plot_curves(curves[curves["epoch"] < 3], Figure().add_subplot())


def test_curves_of_all_seeds_have_one_line(ax: Axes) -> None:
    curves = pd.DataFrame({"arm": "baseline", "seed": [0, 0, 1, 1], "epoch": [1, 2, 1, 2], "val_accuracy": 0.5})
    figures.plot_curves(curves, ax)
    assert len(ax.lines) == 2  # and that of the key
    assert ax.get_xlabel() == "epoch"


def test_the_best_curve_of_an_accuracy_is_never_cut_off(ax: Axes) -> None:
    """Among arms that learn nothing; one that learns nothing among good ones is."""
    others = {"baseline": 0.09, "k=1": 0.1, "k=2": 0.11}
    for lone, others_at, is_whole in ((0.9, 0.0, True), (0.0, 0.8, False)):
        ax.clear()
        ends = {arm: others_at + end for arm, end in others.items()} | {"k=3": lone}
        rows = [{"arm": arm, "seed": 0, "epoch": epoch, "val_accuracy": end - 0.001 * (2 - epoch) * (end > 0)}
                for arm, end in ends.items() for epoch in (1, 2)]  # fmt: skip
        figures.plot_curves(pd.DataFrame(rows), ax)
        low, high = ax.get_ylim()
        assert (low <= 100 * lone <= high) == is_whole


def test_arms_that_are_not_compared_say_so_in_the_forest_plot(runs: pd.DataFrame, ax: Axes) -> None:
    twin = runs[runs["arm"] == "baseline"].assign(arm="idle=1", knob="idle", level="1")
    frame = pd.concat([runs, twin]).assign(test_loss=lambda table: 1 - table["test_accuracy"])
    figures.plot_differences(cnn_ablation.ablation_table(frame), ax)
    assert [text.get_text() for text in ax.get_yticklabels()][-1] == "idle=1\n(not compared)"
