"""The ablation table on the terminal: an arm's name, its figures below it, and notes by number below the table.

One layout for every width: where that is narrow, intervals go below their estimates.
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cnn_ablation.common import progress
from cnn_ablation.report.numbered_notes import NumberedNotes
from cnn_ablation.report.text import name_pieces, narrow_table, readable_table
from cnn_ablation.study.metric import Metric, metric_of_table

_COLOURS = {"better": "green", "worse": "red", "equivalent": "cyan", "undecided": "yellow", "baseline": "bold"}
_WIDTH_WITHOUT_TERMINAL = 200
_WIDEST_PROSE = 120
_MOST_ARMS = 40  # besides the one that others are compared with; a longer table is read from its file
_INDENT = "  "


def standard_output(width_elsewhere: int) -> Console:
    """A console on standard output: as wide as `COLUMNS` says, else as a terminal, else `width_elsewhere` columns."""
    is_terminal = sys.stdout.isatty()  # rich alone would also believe FORCE_COLOR, which notebooks set
    environment = progress.screen_environment()
    width = None if is_terminal or "COLUMNS" in environment else width_elsewhere
    return Console(force_terminal=is_terminal, width=width, highlight=False, markup=False, _environ=environment)


def printable(text: str) -> str:
    """A text with `?` for every character that the encoding of standard output lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def print_table(arms: pd.DataFrame, caption: str) -> None:
    """Prints the table of arms to standard output, coloured by verdict on a terminal; of many arms a part."""
    shown = _shortened(arms)
    if len(shown) < len(arms):
        half = f"{_MOST_ARMS // 2} of the {len(arms)} arms with the best and with the worst {_score(arms).column}"
        caption = f"Here are {half}, and {arms['arm'].iloc[0]}; all are in ablation.md and ablation.csv. {caption}"
    console = standard_output(_WIDTH_WITHOUT_TERMINAL)
    lines = Text("\n").join(_lines(shown, caption, console.width))
    console.print(lines, soft_wrap=True)  # in one go: a notebook shows each print apart


def print_files(folder: Path, names: Sequence[str]) -> None:
    """Prints what was written: `ablation.csv .parquet .md` for files of one stem, and none of them over two lines."""
    by_stem: dict[str, list[str]] = {}
    for name in map(Path, names):
        by_stem.setdefault(name.stem, []).append(name.suffix)
    joined = "\0"  # no place for `textwrap` to fold a line at, and in no name
    files = ", ".join(f"{stem}{joined.join(suffixes)}" for stem, suffixes in by_stem.items())
    lines = textwrap.wrap(
        f"{f'written to {folder}:'.replace(' ', joined)} {files}",
        min(max(standard_output(_WIDTH_WITHOUT_TERMINAL).width, 20), _WIDEST_PROSE),
        subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    print(printable("\n".join(lines).replace(joined, " ")))


def _score(arms: pd.DataFrame) -> Metric:
    return metric_of_table(arms.attrs, arms.columns)


def _shortened(arms: pd.DataFrame) -> pd.DataFrame:
    """The arm that others are compared with, and those with the best and the worst scores, in their order."""
    if len(arms) <= _MOST_ARMS + 1:
        return arms
    metric = _score(arms)
    best_first = arms[metric.estimate[0]].iloc[1:].sort_values(ascending=metric.direction == "lower", kind="stable")
    extreme = [*best_first.index[: _MOST_ARMS // 2], *best_first.dropna().index[-_MOST_ARMS // 2 :]]
    return arms[arms.index.isin([arms.index[0], *extreme])]


def _lines(arms: pd.DataFrame, caption: str, width: int) -> Iterator[Text]:
    """The table, its notes and its caption, no line wider than `width` where words and numbers can be parted."""
    narrow, notes = narrow_table(arms)
    columns = _fitting(_columns(arms), width)
    rule = Text(_rule() * max(min(width, _width(columns)), 1), style="dim")
    yield rule
    yield from _heading(columns)
    yield rule
    for row, (name, verdict) in enumerate(zip(narrow["arm"], arms["verdict"], strict=True)):
        yield from _arm_lines(printable(name), notes, row, width)
        yield from _figures(columns, row, _COLOURS.get(verdict, ""))
    yield rule
    if notes.texts:
        yield from (Text(line) for line in _note_lines(notes, width))
        yield rule
    yield from (Text(line, style="dim") for line in _folded(printable(caption), width))


def _rule() -> str:
    return "─" if printable("─") == "─" else "-"


# -- columns -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """Figures of all arms: estimates, and what belongs to them, behind or below."""

    title: str
    first: Sequence[str]
    second: Sequence[str]
    is_text: bool = False
    folds: int = 0
    """0: on one line; 1: the second part below the first; 2: and its two limits below each other."""

    @cached_property
    def width(self) -> int:
        content = max(len(line) for row in range(len(self.first)) for line in self._lines(row))
        return max(content, *map(len, self.title.split(" ")))

    def cells(self, row: int) -> list[str]:
        """Its lines, each as wide as the column."""
        return [self._placed(line) for line in self._lines(row)]

    def _lines(self, row: int) -> list[str]:
        one, two = self.first[row], self.second[row]
        if self.folds:
            below = two.replace(", ", ",\n").split("\n") if self.folds > 1 else [two]
            return [one, *below] if two else [one]
        first, second = self._widths
        if self.is_text:
            return [f"{one.ljust(first)} {two}".rstrip()]
        return [f"{one.rjust(first)} {two.ljust(second)}" if second else one.rjust(first)]

    @cached_property
    def _widths(self) -> tuple[int, int]:
        """Of both parts, where they stand on one line."""
        return max(map(len, self.first)), max(map(len, self.second))

    def heading(self) -> list[str]:
        """Its title, on as many lines as it needs."""
        return [self._placed(line) for line in textwrap.wrap(self.title, self.width)]

    def _placed(self, text: str) -> str:
        return text.ljust(self.width) if self.is_text else text.rjust(self.width)


_FOLDED_FIRST = ("time ratio", "verdict", "difference", "score")
_FOLDED_LAST = ("difference", "score", "time ratio")
_GAPS = (2, 1)


def _columns(arms: pd.DataFrame) -> dict[str, _Column]:
    """By what they show; without those that say nothing of any arm."""
    table = readable_table(arms).map(printable)
    score, difference, p_value = table.columns[2:5]
    p_values = [f"(p {value})" if value else "" for value in table[p_value]]
    columns = {
        "n": _Column("n", table["n"].tolist(), [""] * len(table)),
        "score": _Column(printable(score), *_parts(table[score])),
        "difference": _Column(printable(difference), *_parts(table[difference])),
        "verdict": _Column("verdict", table["verdict"].tolist(), p_values, is_text=True),
        "time ratio": _Column("time ratio", *_times(arms, table)),
    }
    return {name: column for name, column in columns.items() if any(column.first)}


def _parts(texts: pd.Series[str]) -> tuple[list[str], list[str]]:
    """Estimates, and their intervals."""
    parts = texts.str.partition(" ")
    return parts[0].tolist(), parts[2].tolist()


def _times(arms: pd.DataFrame, table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """`0.50 faster` and its interval; seconds where there is no ratio, as in the row that others are compared with."""
    first, second = [], []
    for row, seconds, ratio in zip(arms.to_dict("records"), table["train s"], table["time ratio"], strict=True):
        estimate, _, rest = ratio.partition(" ")
        interval, bracket, word = rest.partition("]")
        first.append(f"{estimate}{word}" if estimate else _in_seconds(row, seconds))
        second.append(interval + bracket)
    return first, second


def _in_seconds(row: Mapping[Any, Any], shown: str) -> str:
    return "" if math.isnan(row["train_seconds_mean"]) else f"{shown} s"


def _fitting(columns: Mapping[str, _Column], width: int) -> tuple[list[_Column], int]:
    """The columns with the gap between them: one after the other is folded until they fit."""
    shown, gap = dict(columns), _GAPS[0]
    for name, folds in [
        ("", 0),
        *((name, 1) for name in _FOLDED_FIRST),
        ("", 1),
        *((name, 2) for name in _FOLDED_LAST),
    ]:
        if name in shown:
            shown[name] = replace(shown[name], folds=folds)
        elif folds:
            gap = _GAPS[1] if not name else gap
        if _width((list(shown.values()), gap)) <= width:
            break
    return list(shown.values()), gap


def _width(columns: tuple[list[_Column], int]) -> int:
    shown, gap = columns
    return len(_INDENT) + sum(column.width for column in shown) + gap * (len(shown) - 1)


# -- lines -------------------------------------------------------------------------------------------------------------


def _heading(columns: tuple[list[_Column], int]) -> Iterator[Text]:
    shown, gap = columns
    cells = [column.heading() for column in shown]
    for line in _side_by_side(cells, shown, from_below=True):
        yield Text((_INDENT + (" " * gap).join(line)).rstrip(), style="bold")


def _figures(columns: tuple[list[_Column], int], row: int, colour: str) -> Iterator[Text]:
    shown, gap = columns
    for line in _side_by_side([column.cells(row) for column in shown], shown):
        yield Text((_INDENT + (" " * gap).join(line)).rstrip(), style=colour)


def _side_by_side(
    cells: Sequence[Sequence[str]], columns: Sequence[_Column], *, from_below: bool = False
) -> list[list[str]]:
    """Lines of cells that have several, filled up below or above."""
    height = max(map(len, cells))
    filled = []
    for lines, column in zip(cells, columns, strict=True):
        missing = [" " * column.width] * (height - len(lines))
        filled.append([*missing, *lines] if from_below else [*lines, *missing])
    return [list(line) for line in zip(*filled, strict=True)]


def _arm_lines(name: str, notes: NumberedNotes, row: int, width: int) -> Iterator[Text]:
    """Its name, folded at punctuation, with the numbers of its notes."""
    marks = (
        f"  ({'note' if len(notes.numbers[row]) == 1 else 'notes'} {notes.marks(row)})" if notes.numbers[row] else ""
    )
    lines = [""]
    for piece in name_pieces(name):
        if cell_len(lines[-1] + piece) > width and lines[-1].strip():
            lines.append(_INDENT * 2)
        lines[-1] += piece
    if marks and cell_len(lines[-1] + marks) > width:
        lines.append(_INDENT)
    for line in lines[:-1]:
        yield Text(line, style="bold")
    yield Text.assemble((lines[-1], "bold"), (marks, "dim"))


def _note_lines(notes: NumberedNotes, width: int) -> Iterator[str]:
    indent = len(str(len(notes.texts))) + 2
    for number, text in notes.items():
        first = f"{number}.".ljust(indent)
        yield from _folded(printable(text), width, first, " " * indent)


def _folded(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        text, max(min(width, _WIDEST_PROSE), 20), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )
