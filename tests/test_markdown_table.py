"""The table in Markdown, and whole numbers in the files beside it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from arm_tables import STUDIES, described, knobs, runs_of

import cnn_ablation
from cnn_ablation.report.files import as_csv, write_tables
from cnn_ablation.report.markdown import markdown_page, plain
from cnn_ablation.report.text import ELSEWHERE


def rows_of(text: str) -> list[list[str]]:
    """Cells of the table, stripped."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_rows_fit_a_screen() -> None:
    text = markdown_page(*knobs())
    lengths = [len(line) for line in text.splitlines() if line.startswith("|")][2:]
    assert set(lengths) == {lengths[0]}
    assert lengths[0] <= 127
    heading = ["arm", "n", "test accuracy %", "difference pp", "p (Holm)", "verdict", "time ratio", "notes"]
    assert rows_of(text)[0] == heading


def test_a_row_has_the_figures_of_the_table() -> None:
    arms, caption = knobs()
    row = arms.iloc[1]
    low, high = row["delta_ci_low_pp"], row["delta_ci_high_pp"]
    times = [f"{row[name]:.2f}" for name in ("time_ratio", "time_ratio_ci_low", "time_ratio_ci_high")]
    assert rows_of(markdown_page(arms, caption))[3] == [
        "model.filters=[4,8,16]", "8", f"{100 * row['test_accuracy_mean']:.2f}",
        f"{row['delta_pp']:+.2f} [{low:+.2f}, {high:+.2f}]", "<0.001", "worse",
        f"{times[0]} [{times[1]}, {times[2]}] slower", "1, 2",
    ]  # fmt: skip


def test_a_note_stands_once_below_the_table() -> None:
    arms, caption = knobs()
    _, notes, below = markdown_page(arms, caption).split("\n\n")
    assert notes.splitlines()[0] == "1. -84 % parameters"
    assert notes.count("the runs were not side by side") == 1
    assert "time ratio from 5 of 8 to 6 of 8 seeds: in the others" in notes
    assert below == f"{caption} {ELSEWHERE}\n"


def test_an_undecided_arm_says_how_many_more_seeds_it_lacks() -> None:
    arms, caption = described(runs_of({"k=v": 0.003}))
    arms = arms.assign(seeds_needed_low=12.0, seeds_needed=27.0, verdict=["baseline", "undecided"])
    assert "1. more seeds: 7-22" in markdown_page(arms, caption)


def test_without_notes_there_is_no_column_of_them() -> None:
    header, *_ = markdown_page(*described(runs_of({"k=v": 0.05}))).splitlines()
    assert header.rstrip(" |").endswith("time ratio")


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_every_row_has_as_many_cells_as_the_heading(study: object) -> None:
    rows = [line for line in markdown_page(*study()).splitlines() if line.startswith("|")]  # type: ignore[operator]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("model.batch_norm=true", "model.batch_norm=true"),
        (r"k=\_a\_ \_\_", "k=_a_ __"),
        (r"a\|b\*c\`d\$\~", "a|b*c`d$~"),
        (r"\<b> <0.001 < 3", "<b> <0.001 < 3"),
        (r"two lines \\n", "two\nlines \\n"),
        (r"\&copy; a & b \&#38;", "&copy; a & b &#38;"),
        (r"[a\](http://b) ![a\](b) [a\][b] [4,8,16]", "[a](http://b) ![a](b) [a][b] [4,8,16]"),
    ],
)
def test_names_are_no_markup(expected: str, text: str) -> None:
    assert plain(text) == expected


def test_counts_are_whole_numbers_in_csv(tmp_path: Path) -> None:
    runs = runs_of({"k=v": 0.003}, updates=100, epochs=3, num_params=1000, threads=1, concurrent_runs=2)
    runs.loc[3, ["updates", "epochs", "num_params", "test_accuracy"]] = np.nan
    runs.loc[3, "status"] = "failed"
    arms, caption = described(runs)
    arms = arms.assign(seeds_needed_low=12.0, seeds_needed=[np.nan, 27.0])
    write_tables(tmp_path, runs, arms, caption)
    written = pd.read_csv(tmp_path / "runs.csv", dtype=str)
    for name in ("updates", "epochs", "num_params", "threads", "concurrent_runs", "seed"):
        assert written[name].dropna().str.fullmatch(r"\d+").all(), name
    assert written["updates"].isna().sum() == 1
    table = pd.read_csv(tmp_path / "ablation.csv", dtype=str)
    for name in ("n", "updates", "num_params", "seeds_needed_low", "seeds_needed", "num_failed"):
        assert table[name].dropna().str.fullmatch(r"\d+").all(), name
    assert table["seeds_needed"].tolist()[1] == "27"


def test_what_is_no_count_stays_as_it_is() -> None:
    frame = pd.DataFrame({"updates": [100.5, 99.5], "train_seconds": [3.0, 4.0], "neighbours": [1.0, np.nan]})
    assert as_csv(frame).decode().splitlines() == ["updates,train_seconds,neighbours", "100.5,3.0,1.0", "99.5,4.0,"]


def test_counts_are_whole_numbers_in_parquet_and_nothing_else_changes(tmp_path: Path) -> None:
    """Whole columns as int64, those with gaps as nullable ones, whoever reads them."""
    from pyarrow.parquet import read_schema

    runs = runs_of({"k=v": 0.003}, updates=100.0, epochs=3, num_params=1000, threads=1, multiply_adds=7.0)
    runs.loc[3, ["updates", "test_accuracy"]] = np.nan
    runs.loc[3, "status"] = "failed"
    arms, caption = described(runs)
    arms = arms.assign(seeds_needed_low=12.0, seeds_needed=[np.nan, 27.0], num_params=[1000.5, 999.5])
    write_tables(tmp_path, runs, arms, caption)
    for name, frame, kinds in (
        ("runs", runs, {"seed": "int64", "updates": "Int64", "multiply_adds": "int64", "train_seconds": "float64"}),
        (
            "ablation",
            arms,
            {"n": "int64", "seeds_needed_low": "int64", "seeds_needed": "Int64", "num_params": "float64"},
        ),
    ):
        found = pd.read_parquet(tmp_path / f"{name}.parquet")
        assert {column: str(found[column].dtype) for column in kinds} == kinds
        pd.testing.assert_frame_equal(found.astype(frame.dtypes), frame)
        assert found.attrs == frame.attrs
        schema = read_schema(tmp_path / f"{name}.parquet")
        wanted = {column: kind.lower().replace("float64", "double") for column, kind in kinds.items()}
        assert {column: str(schema.field(column).type) for column in kinds} == wanted
    again = cnn_ablation.ablation_table(pd.read_parquet(tmp_path / "runs.parquet"))
    pd.testing.assert_frame_equal(again, cnn_ablation.ablation_table(runs))
