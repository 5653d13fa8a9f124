"""The variance of a metric by its sources: numbers, words, picture, and a real study from the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, Answer, answered
from matplotlib.figure import Figure

from cnn_ablation.analysis.tables import ablation_table
from cnn_ablation.analysis.variance import (
    ALL,
    NOTHING,
    SUM,
    Variance,
    combined,
    variance_by_source,
    variance_columns,
    variance_of,
)
from cnn_ablation.report.__main__ import main as report
from cnn_ablation.report.variance import plot_variance, readable_variance, variance_files
from cnn_ablation.study.chance import sources
from cnn_ablation.study.metric import Metric

ACCURACY, LOSS = Metric("test_accuracy"), Metric("val_loss", lower_is_better=True)


@pytest.mark.parametrize(
    ("degrees", "factors"),
    [  # sqrt(degrees / quantile) of chi-squared at 97.5 and 2.5 %, from a table
        (9, (math.sqrt(9 / 19.0228), math.sqrt(9 / 2.70039))),
        (19, (math.sqrt(19 / 32.8523), math.sqrt(19 / 8.90652))),
    ],
)
def test_limits_of_a_deviation(degrees: int, factors: tuple[float, float]) -> None:
    assert Variance(4.0, degrees).std_limits(0.05) == pytest.approx([2 * factor for factor in factors], rel=1e-5)


def test_limits_of_a_share() -> None:
    """F(9, 9) at 97.5 % is 4.02599 in a table, and its inverse at 2.5 %; F(4, 9) is 4.7181, and 1 / 8.9047."""
    whole = Variance(2.0, 9)
    assert Variance(1.0, 9).share_limits(whole, 0.05) == pytest.approx((0.5 / 4.02599, 0.5 * 4.02599), rel=1e-5)
    assert Variance(1.0, 4).share_limits(whole, 0.05) == pytest.approx((0.5 / 4.7181, 0.5 * 8.9047), rel=1e-4)


@pytest.mark.parametrize("nothing", [Variance(0.0, 9), Variance(math.nan, math.nan)], ids=["no spread", "one seed"])
def test_what_has_no_spread_has_no_limits(nothing: Variance) -> None:
    found = (*nothing.std_limits(0.05), *nothing.share_limits(Variance(1.0, 9), 0.05))
    assert np.isnan([*found, *Variance(1.0, 9).share_limits(nothing, 0.05)]).all()


def test_equal_values_vary_by_nothing_at_all() -> None:
    assert variance_of(np.full(7, 0.1)).value == 0
    assert variance_of(np.array([1.0, 2.0, 6.0])) == Variance(7.0, 2)
    assert math.isnan(variance_of(np.array([1.0])).value)


def test_a_sum_has_satterthwaites_degrees_of_freedom() -> None:
    """Equal variances of equal samples add their degrees; one that outweighs all others keeps its own."""
    assert combined([Variance(3.0, 9)] * 4, [1] * 4) == Variance(12.0, pytest.approx(36))
    found = combined([Variance(100.0, 5), Variance(1e-6, 50)], [1, 1])
    assert (found.value, found.degrees) == (pytest.approx(100), pytest.approx(5))
    less = combined([Variance(5.0, 9), Variance(4.0, 9), Variance(1.0, 9)], [1, 1, -1])
    assert (less.value, less.degrees) == (8.0, pytest.approx(64 / ((25 + 16 + 1) / 9)))


@pytest.mark.parametrize(
    ("level", "expected"),
    [("[]", ()), ("[init]", ("init",)), ("[init,order]", ("init", "order")), ("[init, split]", ("init", "split"))],
)
def test_levels_name_sources(level: str, expected: tuple[str, ...]) -> None:
    assert sources(level) == expected


# -- tables ----------------------------------------------------------------------------------------------------------


def runs_of(level: str, accuracies: list[float], *, losses: list[float] | None = None, **more: Any) -> pd.DataFrame:
    """Runs of one level of `vary`; without a level the baseline's, which varies everything."""
    seeds = range(len(accuracies))
    frame = {
        "arm": f"vary={level}" if level else "baseline", "knob": "vary" if level else "", "level": level,
        "seed": seeds, "status": "ok", "val_accuracy": accuracies, "test_accuracy": accuracies,
        "val_loss": losses or [1.1 - each for each in accuracies], "train_seconds": 1.0,
        "vary": level or "[init,order,dropout,split]",
    }  # fmt: skip
    return pd.DataFrame({**frame, **more})


WHOLE, INIT, ORDER, DROPOUT, SPLIT = (
    [0.90, 0.93, 0.96, 0.91], [0.92, 0.94, 0.93, 0.93], [0.92, 0.95, 0.91, 0.94], [0.92, 0.92, 0.93, 0.92],
    [0.92, 0.88, 0.95, 0.93],
)  # fmt: skip
SINGLE = {"[init]": INIT, "[order]": ORDER, "[dropout]": DROPOUT, "[split]": SPLIT}


def study(*more: pd.DataFrame, levels: dict[str, list[float]] | None = None) -> pd.DataFrame:
    arms = [runs_of(level, values) for level, values in (SINGLE if levels is None else levels).items()]
    return pd.concat([runs_of("", WHOLE), *more, *arms], ignore_index=True)


def variance(values: list[float]) -> float:
    return float(np.var(100 * np.array(values), ddof=1))


def test_every_source_has_its_deviation_and_its_share() -> None:
    table = variance_by_source(study(runs_of("[]", [0.92] * 4)), ACCURACY, 0.05)
    assert tuple(table.columns) == variance_columns(ACCURACY)
    assert table["source"].tolist() == [ALL, "init", "order", "dropout", "split", SUM, NOTHING]
    assert table["n"].tolist() == [4, 4, 4, 4, 4, pd.NA, 4]
    of_single = [variance(values) for values in SINGLE.values()]
    expected = np.array([variance(WHOLE), *of_single, sum(of_single), 0])
    np.testing.assert_allclose(table["std_pp"], np.sqrt(expected))
    np.testing.assert_allclose(table["share"], expected / variance(WHOLE))
    assert table["share_ci_low"].isna().tolist() == [True] + [False] * 5 + [True]
    whole, still = table.iloc[0], table.iloc[-1]
    assert whole["note"] == "init, order, dropout, split"
    assert still["note"] == "bit-identical runs"
    assert whole["std_ci_low_pp"] < whole["std_pp"] < whole["std_ci_high_pp"]


def test_what_the_hardware_adds_to_every_source_counts_once() -> None:
    still = [0.920, 0.925, 0.920, 0.915]
    table = variance_by_source(study(runs_of("[]", still)), ACCURACY, 0.05).set_index("source")
    expected = sum(map(variance, SINGLE.values())) - 3 * variance(still)
    assert table.loc[SUM, "std_pp"] == pytest.approx(math.sqrt(expected))
    assert table.loc[NOTHING, "note"] == ""


def scaled(factor: float) -> dict[str, list[float]]:
    return {level: [0.9 + factor * (each - 0.9) for each in WHOLE] for level in SINGLE}


def test_the_sum_says_what_is_left() -> None:
    """Four variances of a quarter, each of 3 degrees: F(12, 3) at 97.5 % is 14.337, F(3, 12) is 4.4742."""
    table = variance_by_source(study(levels=scaled(0.5)), ACCURACY, 0.05).set_index("source")
    limits = (100 * (1 - 4.4742), 100 * (1 - 1 / 14.337))
    expected = f"[{limits[0]:+.0f}, {limits[1]:+.0f}]"
    assert table.loc[SUM, "note"] == f"left over: 0 % of all together {expected}; no interaction is seen"


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (scaled(0.1), "left over: +96 % of all together [+82, +100]; the sources interact"),
        ({"[init]": INIT, "[order]": ORDER}, "without an arm of its own: dropout, split"),
    ],
    ids=["interaction", "incomplete"],
)
def test_a_sum_that_is_not_the_whole_says_why(levels: dict[str, list[float]], expected: str) -> None:
    table = variance_by_source(study(levels=levels), ACCURACY, 0.05).set_index("source")
    assert table.loc[SUM, "note"] == expected


@pytest.mark.parametrize(
    ("losses", "note"),
    [([0.3] * 3, "bit-identical runs"), ([0.3, 0.31, 0.3], "the same score for every seed")],
)
def test_bits_are_told_by_losses(losses: list[float], note: str) -> None:
    table = variance_by_source(study(runs_of("[]", [0.92] * 3, losses=losses)), ACCURACY, 0.05)
    assert (table["note"].iloc[-1], table["std_pp"].iloc[-1]) == (note, 0)


def test_only_arms_that_change_nothing_else_count() -> None:
    both = runs_of("[init]", [0.5, 0.9]).assign(arm="vary=[init],train.shuffle=false")
    other = runs_of("", WHOLE).assign(arm="train.shuffle=false", knob="train.shuffle", level="false")
    pair = runs_of("[init,order]", INIT)
    table = variance_by_source(study(both, other, pair), ACCURACY, 0.05)
    assert table["source"].tolist() == [ALL, "init", "order", "dropout", "split", "init + order", SUM]


def test_runs_without_the_metric_are_left_out() -> None:
    lost = runs_of("[init]", [*INIT, 0.1]).assign(status=["ok", "ok", "ok", "diverged", "failed"])
    levels = {level: values for level, values in SINGLE.items() if level != "[init]"}
    table = variance_by_source(study(lost, levels=levels), ACCURACY, 0.05).set_index("source")
    assert table.loc["init", "n"] == 4
    assert table.loc["init", "std_pp"] == pytest.approx(math.sqrt(variance(INIT)))
    one = variance_by_source(study(runs_of("[]", [0.92])), ACCURACY, 0.05)
    assert one["note"].iloc[-1] == "fewer than 2 seeds: no variance"


@pytest.mark.parametrize(
    "frame",
    [runs_of("", WHOLE), study().drop(columns="vary"), study(levels={}).assign(vary="[init]"),
     pd.concat([runs_of("[init]", INIT), runs_of("[]", INIT).assign(arm="full", knob="")])],
    ids=["no knob", "no column", "no arm", "no baseline"],
)  # fmt: skip
def test_other_studies_have_no_such_table(frame: pd.DataFrame) -> None:
    assert not len(variance_by_source(frame, ACCURACY, 0.05))


def test_another_metric_keeps_its_unit() -> None:
    table = variance_by_source(study(), LOSS, 0.05)
    assert tuple(table.columns) == variance_columns(LOSS)
    assert table["std"].iloc[1] == pytest.approx(np.std(INIT, ddof=1))
    readable = readable_variance(table, LOSS)
    assert readable.columns[2] == "std of val_loss"
    assert readable["std of val_loss"].iloc[1].startswith("0.008 [0.005, 0.030]")


def test_a_reader_sees_intervals_and_shares() -> None:
    readable = readable_variance(variance_by_source(study(runs_of("[]", [0.92] * 4)), ACCURACY, 0.05), ACCURACY)
    assert readable.columns.tolist() == ["source", "n", "std of test accuracy, pp", "share of variance, %", "note"]
    assert readable.iloc[0].tolist()[:4] == [ALL, "4", "2.65 [1.50, 9.86]", "100"]
    assert readable.iloc[1].tolist()[:4] == ["init", "4", "0.82 [0.46, 3.04]", "10 [1, 147]"]
    assert readable.iloc[-1].tolist()[2:] == ["0.00 [no interval]", "0 [no interval]", "bit-identical runs"]


def test_the_picture_has_a_bar_for_each_source() -> None:
    table = variance_by_source(study(runs_of("[]", [0.92] * 4)), ACCURACY, 0.05)
    ax = plot_variance(table, Figure().add_subplot(), metric=ACCURACY)
    bars = [patch.get_width() for patch in ax.patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(bars, table["std_pp"])
    assert [label.get_text() for label in ax.get_yticklabels()] == table["source"].tolist()
    shares = [text.get_text() for text in ax.texts]
    assert shares == ["100 %", *(f"{100 * share:.0f} %" for share in table["share"].iloc[1:6]), "bit-identical runs"]
    assert variance_files(table, ACCURACY)["variance.png"].startswith(b"\x89PNG")


def test_means_of_arms_that_vary_something_else_are_not_compared() -> None:
    """What stands still in them is one draw, which may be a lucky one; arms that vary the same are compared."""
    same = runs_of("", WHOLE[::-1]).assign(arm="train.shuffle=false", knob="train.shuffle", level="false")
    arms = ablation_table(study(runs_of("[]", WHOLE[:1] * 4), same)).set_index("arm")
    apart = arms[arms["knob"] == "vary"]
    assert (apart["verdict"] == "undecided").all()
    assert apart[["delta_pp", "p_holm", "seeds_needed"]].isna().all(axis=None)
    assert set(apart["notes"]) == {"not compared: its seeds vary something else than the baseline's"}
    compared = arms.loc["train.shuffle=false"]
    assert compared["p_holm"] == compared["p_value"]  # the only comparison
    assert "not compared" not in compared["notes"]


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A whole study of variance, small."""
    folder = tmp_path_factory.mktemp("variance")
    small = ("-m", "study=variance", "replicates=2", "train.epochs=1", "hydra.sweep.dir=study", "timing=isolated")
    return folder / "study", answered(folder, *TINY, *small)


def test_a_study_of_variance_leaves_its_table_and_picture(finished: tuple[Path, Answer]) -> None:
    folder, answer = finished
    assert answer.code == 0
    assert {path.name for path in folder.glob("variance.*")} == {"variance.csv", "variance.png", "variance.svg"}
    table = pd.read_csv(folder / "variance.csv")
    assert table["source"].tolist() == [ALL, "init", "order", "dropout", "split", SUM, NOTHING]
    runs = pd.read_csv(folder / "runs.csv")
    for source in ("init", "order", "dropout", "split"):
        scores = runs[runs["arm"] == f"vary=[{source}]"]["test_accuracy"]
        assert table.set_index("source").loc[source, "std_pp"] == pytest.approx(100 * scores.std(ddof=1))
    still = runs[runs["arm"] == "vary=[]"]
    assert len(still) == 2
    assert still[["test_loss", "val_loss", "train_loss"]].nunique().tolist() == [1, 1, 1]  # on a CPU
    assert table["note"].iloc[-1] == "bit-identical runs"
    assert [word for word in ("Variance by source", "bit-identical runs", "variance.csv .png .svg")
            if word not in answer.out] == []  # fmt: skip


def test_the_ordinary_table_of_such_a_study_does_not_mislead(finished: tuple[Path, Answer]) -> None:
    folder, _ = finished
    text = (folder / "ablation.md").read_text()
    assert "which differ in what vary names, arm by arm. All arms were fixed" in text  # nothing of comparisons
    rows = pd.read_csv(folder / "ablation.csv")
    assert rows["verdict"].tolist() == ["baseline"] + ["undecided"] * 5
    assert rows["delta_pp"].isna().all()
    assert not list(folder.glob("differences.*"))


@pytest.mark.usefixtures("undrawn")
def test_the_report_makes_it_again_also_from_a_table_of_runs(
    finished: tuple[Path, Answer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = finished
    assert report([str(folder), "--out", str(tmp_path / "a")]) == 0
    assert report(["--runs", str(folder / "runs.csv"), "--out", str(tmp_path / "b")]) == 0
    assert report([str(folder), "--out", str(tmp_path / "c"), "--metric", "val_loss"]) == 0
    capsys.readouterr()
    first = (folder / "variance.csv").read_bytes()
    assert [(tmp_path / name / "variance.csv").read_bytes() == first for name in "abc"] == [True, True, False]
    assert "std_ci_low," in (tmp_path / "c" / "variance.csv").read_text()


def test_the_plan_of_the_study(cli: Callable[..., Answer]) -> None:
    lines = cli("-m", "study=variance", "dry_run=true").out.splitlines()
    assert lines[0].startswith("one_at_a_time: 6 arms x 20 seeds")
    arms = [line.strip() for line in lines if line.startswith("  ") and "=" in line]
    assert arms == ["baseline (vary=[init,order,dropout,split])",
                    *(f"vary={level}" for level in ("[]", "[init]", "[order]", "[dropout]", "[split]"))]  # fmt: skip
    assert "540 test images, drawn anew for each seed: one image is 0.19 points" in lines
    idle = cli("-m", "study=variance", "model.dropout=0", "dry_run=true").out
    assert "vary=[dropout] is the same as vary=[] (vary=[dropout] and [] come to the same)" in idle
