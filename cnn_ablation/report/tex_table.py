"""The table of arms in TeX: one column of a two-column class wide, notes as numbered table notes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, partial

import pandas as pd

from cnn_ablation.report.numbered_notes import NumberedNotes
from cnn_ablation.report.tex_text import breakable, escaped, sentence
from cnn_ablation.report.text import ELSEWHERE, name_pieces, narrow_table

_HEAD = r"""% The ablation table, as wide as a column. In the preamble:
%   \usepackage{booktabs,threeparttable,siunitx}
% It is written anew with every report: \input{ablation} takes it as it is.
"""
_FLOAT = r"""\begin{table}[htbp]
\centering
\begin{threeparttable}
\caption{%(caption)s}
\label{tab:ablation}
%(size)s
\setlength{\tabcolsep}{1.5pt}
\sisetup{retain-explicit-plus}
\begin{tabular*}{\columnwidth}{@{\hspace{4pt}\extracolsep{\fill}}%(columns)s@{}}
\toprule
%(heading)s \\
\midrule
%(rows)s
\bottomrule
\end{tabular*}
%(notes)s\end{threeparttable}
\end{table}
"""
_NEW_LINE = r"\\"
_WIDEST_WORD = 12  # characters of the metric's name in the heading; the caption names a longer one
_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?")
_WITH_EXPONENT = re.compile(r"([+-]?)\d(?:\.(\d+))?e[+-]\d+")
_INTERVALS = re.compile(r"mean and ([\d.]+ %) (t interval|confidence sequence) over seeds")


def tex_table(arms: pd.DataFrame, caption: str) -> str:
    """A `table` for pdflatex: name of an arm above its figures, caption of up to three sentences, the others a comment.

    Args:
        arms: the table of arms.
        caption: of the whole table; what it says of missing, failed, diverged and reused runs becomes a table note.
    """
    narrow, notes = narrow_table(arms)
    shown, counts, rest = _divided(caption)
    score, difference = narrow.columns[2:4]
    power = _power(narrow[score])
    narrow[[score, difference]] = narrow[[score, difference]].map(partial(_in_powers, power=power))
    estimates, intervals = (narrow[difference].str.partition(" ")[part] for part in (0, 2))
    columns = [
        _Column(list(narrow["n"]), "$n$"),
        _Column(list(narrow[score]), _score_heading(score, power)),
        _Column(list(estimates), ""),
        _Column(list(map(_interval, intervals)), "", "l"),
        _Column(list(map(escaped, narrow["verdict"])), "verdict", "l"),
        _Column(
            list(narrow["time ratio"].str.partition(" ")[0]), r"\begin{tabular}[b]{@{}c@{}}time\\ratio\end{tabular}"
        ),
    ]
    heading = [column.heading for column in columns]
    words, unit = _words_and_unit(difference, power)
    heading[2:4] = [rf"\multicolumn{{2}}{{c}}{{{f'{words} {unit}'.strip()}}}"]
    table = _FLOAT % {
        "caption": " ".join(map(sentence, shown)) or "Ablation.",
        "size": _size(narrow[name] for name in ("n", score, difference)),
        "columns": "".join(column.specification for column in columns),
        "heading": " & ".join(heading),
        "rows": "\n".join(_rows(list(narrow["arm"]), columns, notes)),
        "notes": _table_notes(notes, counts),
    }
    return _HEAD + _comment([*rest, ELSEWHERE]) + table


@dataclass(frozen=True)
class _Column:
    """One column; numbers are aligned at their decimal points where all of them are plain ones."""

    cells: Sequence[str]
    title: str
    side: str = ""
    """`l` for words; empty for numbers."""

    @property
    def specification(self) -> str:
        return self.side or (f"S[table-format={self._format}]" if self._format else "r")

    @property
    def heading(self) -> str:
        return f"{{{self.title}}}"

    def cell(self, row: int) -> str:
        text = self.cells[row]
        return text if self.side or self._format else _number(text)

    @cached_property
    def _format(self) -> str:
        """As siunitx reserves room for the longest number: `+2.2`; empty where one is no plain number."""
        found = [_NUMBER.fullmatch(cell) for cell in self.cells if cell]
        if not found or not all(found):
            return ""
        numbers = [match.groups(default="") for match in found if match]
        sign = "+" if any(sign for sign, _, _ in numbers) else ""
        return f"{sign}{max(len(whole) for _, whole, _ in numbers)}.{max(len(digits) for _, _, digits in numbers)}"


_SIZES = {30: 8, 35: 7}
"""Of letters in points, by how many characters of numbers stand beside each other, for columns of 219 points."""


def _size(columns: Iterable[pd.Series[str]]) -> str:
    characters = sum(column.str.len().max() for column in columns)
    size = next((size for most, size in _SIZES.items() if characters <= most), 6)
    return rf"\fontsize{{{size}}}{{{size + 1.5}}}\selectfont"


def _number(text: str) -> str:
    r"""`-0.31` as `\num{-0.31}`; words stay."""
    return rf"\num{{{text}}}" if _NUMBER.fullmatch(text) else escaped(text)


def _power(scores: Iterable[str]) -> int:
    """The power of ten that very large or very small scores share, for the heading; 0 where none has an exponent."""
    return max((Decimal(score).adjusted() for score in scores if _WITH_EXPONENT.fullmatch(score)), default=0)


def _in_powers(text: str, power: int) -> str:
    """Numbers with exponents in that power of ten, with as many decimals as they have digits behind the point."""

    def shifted(found: re.Match[str]) -> str:
        return f"{Decimal(found[0]).scaleb(-power):{'+' if found[1] else ''}.{len(found[2] or '')}f}"

    return _WITH_EXPONENT.sub(shifted, text)


def _interval(text: str) -> str:
    """`[-8.46, -3.17]`; words where there is none."""
    if not text.startswith("[") or ", " not in text:
        return escaped(text.strip("[]"))
    low, high = text.strip("[]").split(", ")
    return f"[{_number(low)}, {_number(high)}]"


def _score_heading(score: str, power: int) -> str:
    """`test accuracy %` on lines of their own, since its figures are narrow."""
    words, unit = _words_and_unit(score, power)
    lines = words.split(" ")
    if max(map(len, lines)) > _WIDEST_WORD or not score.isascii():
        lines = ["metric"]
    lines = [*map(escaped, lines), *[unit] * bool(unit)]
    return rf"\begin{{tabular}}[b]{{@{{}}c@{{}}}}{_NEW_LINE.join(lines)}\end{{tabular}}"


def _words_and_unit(heading: str, power: int) -> tuple[str, str]:
    """A heading, and its unit in parentheses as TeX has it; nothing where it has none."""
    words, _, last = heading.rpartition(" ")
    if last in ("%", "pp"):
        return words, f"({escaped(last)})"
    return heading, rf"($10^{{{power}}}$)" if power else ""


def _rows(names: Sequence[str], columns: Sequence[_Column], notes: NumberedNotes) -> list[str]:
    r"""Each arm on two lines: its name over the whole width, in a box of no width so that it widens no column."""
    lines = []
    for row, name in enumerate(names):
        marks = rf"\tnote{{{notes.marks(row).replace(' ', '')}}}" if notes.numbers[row] else ""
        shown = rf"\parbox[t]{{\columnwidth}}{{\raggedright\strut {breakable(name_pieces(name))}{marks}\strut}}"
        lines += [
            rf"\multicolumn{{{len(columns)}}}{{@{{}}l@{{}}}}{{\makebox[0pt][l]{{{shown}}}}} \\*",
            " & ".join(column.cell(row) for column in columns) + r" \\",
        ]
        lines += [r"\addlinespace[3pt]"] if row < len(names) - 1 else []
    return lines


def _table_notes(notes: NumberedNotes, counts: Sequence[str]) -> str:
    items = [f"\\item[{number}] {sentence(text)}" for number, text in notes.items()]
    items += [f"\\item[] {sentence(text)}" for text in counts]
    listed = "\n".join(items)
    return f"\\begin{{tablenotes}}\\scriptsize\\raggedright\n{listed}\n\\end{{tablenotes}}\n" if items else ""


def _divided(caption: str) -> tuple[list[str], list[str], list[str]]:
    """Sentences of the caption: three that say what was measured and compared, counts of runs, and all others.

    The table shows intervals of differences only, so that these say of which kind they are.
    """
    sentences = re.split(r"(?<=\.) (?=[A-Z0-9])", caption) if caption else []
    counts = [each for each in sentences if each[0].isdigit()]
    words = [each for each in sentences if each not in counts]
    compared = next((place for place, each in enumerate(words) if place and each.startswith("Differences from")), 0)
    shown = [*words[:1], *(words[compared : compared + 2] if compared else words[1:2])]
    rest = [each for each in words if each not in shown]
    if compared and (kind := _INTERVALS.search(shown[0])):
        shown = [
            _INTERVALS.sub("mean over seeds", shown[0]),
            re.sub(r"(individual|simultaneous) intervals", rf"\1 {kind[1]} {kind[2]}s", shown[1]),
            *shown[2:],
        ]
    return shown, counts, rest


def _comment(sentences: Sequence[str]) -> str:
    """For whoever writes the text beside the table."""
    lines = [line for each in sentences for line in textwrap.wrap(each, 110, subsequent_indent="  ")]
    return "% Besides what the caption says:\n" + "".join(f"%   {line}\n" for line in lines)
