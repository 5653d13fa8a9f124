"""The table on terminals of any width."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pandas as pd
import pytest
from arm_tables import STUDIES, knobs, long_names
from rich.console import Console

from cnn_ablation.common import progress
from cnn_ablation.report.terminal import print_table, standard_output
from cnn_ablation.report.text import readable_table

WIDTHS = (60, 80, 100, 120, 200)
Printed = Callable[..., list[str]]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """The lines that are printed where no terminal is."""

    def lines(arms: pd.DataFrame, caption: str, width: int | str | None) -> list[str]:
        monkeypatch.delenv("COLUMNS", raising=False)
        if width is not None:
            monkeypatch.setenv("COLUMNS", str(width))
        print_table(arms, caption)
        return capsys.readouterr().out.splitlines()

    return lines


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_nothing_is_cut_at_any_width(study: object, width: int, printed: Printed) -> None:
    arms, caption = study()  # type: ignore[operator]
    lines = printed(arms, caption, width)
    assert [line for line in lines if len(line) > width] == []
    text = "".join("".join(lines).split())
    table = readable_table(arms)
    for column in [*table.columns[2:4], "arm", "verdict"]:
        for cell in table[column]:
            for part in cell.split(" ") if column != "arm" else [cell]:
                assert "".join(part.split()) in text, (column, cell)
    assert "".join(caption.split()) in text
    assert not [line for line in lines if re.fullmatch(r"\s*\S", line) and not line.strip().isdigit()]


def table_of(lines: list[str]) -> list[str]:
    """The heading and the arms."""
    rules = [place for place, line in enumerate(lines) if set(line) == {"─"}]
    return lines[rules[0] + 1 : rules[1]] + lines[rules[1] + 1 : rules[2]]


def shape(lines: list[str]) -> list[str]:
    """Words of the heading and of each arm, wherever they stand."""
    return sorted(" ".join(table_of(lines)).split())


def test_the_layout_is_the_same_at_every_width(printed: Printed) -> None:
    arms, caption = knobs()
    shapes = [shape(printed(arms, caption, width)) for width in WIDTHS]
    assert all(each == shapes[0] for each in shapes)


def test_figures_stand_on_one_line_where_there_is_room_and_below_each_other_where_not(printed: Printed) -> None:
    arms, caption = knobs()
    row, table = arms.iloc[1], readable_table(arms).iloc[1]
    wide = printed(arms, caption, 120)
    place = next(n for n, line in enumerate(wide) if line.startswith("model.filters=[4,8,16]"))
    assert wide[place] == "model.filters=[4,8,16]  (notes 1, 2)"
    assert wide[place + 1].split() == [
        "8", *table["test accuracy %"].split(), *table["difference pp"].split(), "worse", "(p", "<0.001)",
        f"{row['time_ratio']:.2f}", "slower", f"[{row['time_ratio_ci_low']:.2f},", f"{row['time_ratio_ci_high']:.2f}]",
    ]  # fmt: skip
    assert wide[place + 2].startswith("model.filters=[64,128,256]")
    narrow = printed(arms, caption, 60)
    place = narrow.index("model.filters=[4,8,16]  (notes 1, 2)")
    assert narrow[place + 1].split() == ["8", table["test accuracy %"].split()[0], table["difference pp"].split()[0],
                                         "worse", f"{row['time_ratio']:.2f}", "slower"]  # fmt: skip
    assert narrow[place + 2].split()[:2] == table["test accuracy %"].split()[1:]


def test_columns_stand_below_each_other(printed: Printed) -> None:
    arms, caption = knobs()
    for width in (80, 120):
        lines = table_of(printed(arms, caption, width))
        verdicts = [line.find(word) for word in ("verdict", "worse", "better") for line in lines if f" {word}" in line]
        assert len(verdicts) == 5
        assert len(set(verdicts)) == 1


def test_notes_are_numbered_below_the_table(printed: Printed) -> None:
    arms, caption = knobs()
    lines = printed(arms, caption, 80)
    place = lines.index("1. -84 % parameters")
    assert set(lines[place - 1]) == {"─"}
    assert lines[place + 1 : place + 3] == [
        "2. time ratio from 5 of 8 to 6 of 8 seeds: in the others the runs were not side",
        "   by side with equally many others",
    ]


@pytest.mark.parametrize(
    ("width", "columns"), [(200, None), (200, ""), (200, "0"), (200, "wide"), (85, "85"), (150, "150")]
)
def test_columns_count_also_where_no_terminal_is(width: int, columns: str | None, printed: Printed) -> None:
    lines = printed(*long_names(), columns)
    assert max(len(line) for line in lines if "─" not in line and "note" not in line) <= max(width, 120)
    names = [line for line in lines if line.startswith("zip.large")]
    assert all(len(line) >= 90 for line in names) == (width >= 100)


@pytest.mark.parametrize("columns", ["0", "00", "-1", "wide", "²", ""])
def test_a_width_that_is_none_hides_nothing_on_a_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert standard_output(200).width >= 20
    assert Console(force_terminal=True, _environ=progress.screen_environment()).width >= 20


def test_the_arm_that_others_are_compared_with_shows_its_seconds(printed: Printed) -> None:
    arms, caption = knobs()
    lines = printed(arms, caption, 120)
    assert lines[lines.index("baseline") + 1].endswith(f"{arms['train_seconds_mean'][0]:.2f} s")


def test_an_arm_that_is_not_compared_shows_what_it_has(printed: Printed) -> None:
    arms, caption = STUDIES["failed and diverged arms"]()
    lines = printed(arms, caption, 80)
    place = next(n for n, line in enumerate(lines) if line.startswith("optimizer.lr=10"))
    assert lines[place + 1].split() == ["0", "undecided"]
