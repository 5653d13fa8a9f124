"""Widths of letters, and names folded and shortened by them."""

from __future__ import annotations

import math
import string

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from cnn_ablation.report.figures.lettering import SMALL, folded, points, shortened, wrapped

PRINTABLE = "".join(letter for letter in string.printable if letter.isprintable())
NAME = "large={train.batch_size:256,optimizer.lr:0.004,model.filters:[64,128,256]}"


@pytest.mark.parametrize("letter", PRINTABLE)
def test_no_letter_is_wider_than_it_is_taken_for(letter: str) -> None:
    """A row of them, so that what the font leaves empty beside each counts."""
    width, *_ = text_to_path.get_text_width_height_descent(50 * letter, FontProperties(size=10), ismath=False)
    assert width / 500 <= points(letter, 1.0) + 0.012  # kerning


@pytest.mark.parametrize(
    "text", [NAME, "W" * 40, "i" * 40, PRINTABLE.replace("$", "")], ids=["name", "wide", "narrow", "all"]
)
def test_a_text_is_nearly_as_wide_as_it_is_taken_for(text: str) -> None:
    width, *_ = text_to_path.get_text_width_height_descent(text, FontProperties(size=SMALL), ismath=False)
    assert 0.9 * points(text) < width <= points(text) + 0.5


@pytest.mark.parametrize("room", [60.0, 100.0, 180.0, 400.0])
def test_a_folded_name_loses_no_letter_and_keeps_to_its_room(room: float) -> None:
    lines = folded(NAME, room).split("\n")
    assert "".join(lines) == NAME
    assert max(map(points, lines)) <= room


@pytest.mark.parametrize(
    ("expected", "name", "room"),
    [
        (["a=1,", "b=2"], "a=1,b=2", math.inf),
        (["large={train.batch_size:256,", "optimizer.lr:0.004,", "model.filters:[64,128,256]}"], NAME, 150.0),
        (["a=0.0001"], "a=0.0001", 60.0),
        (["x=\\$a"], "x=$a", math.inf),
    ],
    ids=["between settings", "after commas", "not in a number", "no formula"],
)
def test_names_fold_where_a_reader_would(expected: list[str], name: str, room: float) -> None:
    assert folded(name, room).split("\n") == expected


def test_words_are_kept_whole() -> None:
    lines = wrapped("difference in test accuracy from the baseline", 100.0).split("\n")
    assert " ".join(lines) == "difference in test accuracy from the baseline"
    assert max(map(points, lines)) <= 100.0


def test_a_short_name_stands_for_one_arm() -> None:
    """Where ends and beginnings are the same, the place in the list tells arms apart."""
    middle = [f"{'a' * 40}{number}{'b' * 40}" for number in range(12)]
    names = ["short", "x" * 30 + "y" * 30, *middle]
    short = shortened(names, 90.0)
    assert short[0] == "short"
    assert len(set(short)) == len(names)
    assert max(map(points, short)) <= 90.0
    assert short[1][0] + short[1][-1] == "xy"
    assert [name.startswith(f"({place})") for place, name in enumerate(short[2:], start=3)] == [True] * 12
