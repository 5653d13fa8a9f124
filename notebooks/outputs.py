"""What the outputs of two runs of a notebook tell, and where that is not the same.

Code decides words, columns, rows, pictures and errors: they have to agree. A processor decides times, p-values, the
last digits of accuracies, and what hangs on them by a limit (verdicts, notes of diagnoses): they may differ, accuracies
within a tolerance.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

Output = dict[str, Any]
Table = list[list[str]]
"""Rows of cells; the first row holds the names of the columns."""

PROGRESS_TOLERANCE = 6.0  # percentage points of validation accuracy, on 252 images
TOLERANCES = {r"(train|val|test)_accuracy(_mean)?": 0.05, "delta_pp": 6.0}
"""Columns of frames that a processor decides a little -> how far their numbers may be apart."""
MEASURED = (
    r".*seconds.*|metric_(mean|std)|delta|.*_ci_(low|high).*|p_value|p_holm|seeds_needed(_low)?"
    r"|dead_units|dead_layer|neighbours|train_started|train_ended|hardware"
)
"""Columns that need only be filled."""
VERDICTS = {"better", "worse", "equivalent", "undecided"}
TIME_VERDICTS = {"slower", "faster", "equal", "undecided", ""}
"""Empty where the runs of an arm were not trained in like circumstances."""
WORDS = {"verdict": VERDICTS, "time_verdict": TIME_VERDICTS}
"""Columns of words, any of which a processor may decide for."""
COMPARED_TIMES = r"time_ratio(_ci_low|_ci_high)?"
"""Filled where they were."""

# Words of notes that come and go at a limit (cnn_ablation/analysis/notes.py, cnn_ablation/analysis/tables/arms.py).
NOTES = """
dead saturated ReLU LeakyReLU Tanh Sigmoid Mish units in Activation1 Activation2 Activation3 Activation4
(in other runs elsewhere) gradient larger smaller at the start; training accuracy pp above validation;
loss never left ln of runs; the same difference for every seed: no test possible; pairing widened the interval by
times cannot be said yet; times are not compared: the runs were not side by side with equally many others
trained next to each other in time; time ratio from seeds: in the others; seed had the processor for to its their
"""
# Notes that come and go take with them the words that point to them, and where there are none the column is left out.
LAYOUT = "p (Holm) more seeds time ratio note notes +?"

RUN = re.compile(
    r"^\[\d+/\d+\] (?P<run>.+ seed \d+): (?P<accuracy>[\d.]+) % validation accuracy, [\d.]+ s of training", re.MULTILINE
)
_FIGURE = re.compile(r"^\[\d+/\d+\] (.+ seed \d+: \w+) \S+, [\d.]+ s of training", re.MULTILINE)
"""The same line where the metric is no accuracy: what is a small change of it nobody knows here."""
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_NO_COMPILER = re.compile(r"^warning: runs train more slowly: .*$", re.MULTILINE)
_NUMBER = re.compile(r"\W*\d[\d.,]*(e[+-]?\d+)?(-\d+)?x?\W*")  # or a range: 7-22
_BORDERS = re.compile(r"[\u2500-\u257f]")
_PUNCTUATION = ".,;:()[]{}'\"|"

# Phrases that a machine or a clock decides -> what stands for them; nothing where they may be missing.
PHRASES = {
    r"<\S+ at 0x[0-9a-f]+>": "OBJECT",
    r"\d+ runs? side by side, \d+ threads? each": "",
    r"More seeds is [^.]*\.( It cannot be said yet [^.]*\.)?": "",
    r"Slower and faster hold .*? times the baseline's\.": "",
    r"measured with (and with |one run at a time|\d+ runs side by side| )+": "measured with RUNS",
    r"Trained on .*? with \d+ threads?, torch \S+, cnn_ablation \d\S*": "Trained on HARDWARE",
    r"multirun/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d": "multirun/TIME",
    r"estimated time: about [\d.]+ \w+": "estimated time: about TIME",
    r"computed on \w+ in \w+( with \d+ threads?)?": "computed on DEVICE",
    r"\d+ of (\d+) validation images are predicted right": r"SOME of \1 validation images are predicted right",
}


@dataclass(frozen=True)
class Difference:
    """One thing that the stored output and a run tell differently; `where` names it."""

    where: str
    stored: str
    now: str

    def __str__(self) -> str:
        return f"  {self.where}\n    stored: {self.stored}\n    now:    {self.now}"


@dataclass
class Showing:
    """What all outputs of one cell show, whatever pieces they came in."""

    kinds: Counter[str] = field(default_factory=Counter)
    frames: list[Table] = field(default_factory=list)
    accuracies: dict[str, float] = field(default_factory=dict)
    """Validation accuracy in percent of each run whose line of progress was printed."""
    prose: Counter[str] = field(default_factory=Counter)
    tabulated: Counter[str] = field(default_factory=Counter)
    """Words of tables drawn with lines, each counted once: how often one stands there depends on where lines end."""


def messages(name: str, stored: Iterable[Any], fresh: Iterable[Any]) -> list[str]:
    """One for every cell whose stored output tells something else than a run: notebook, cell, what it was and is.

    Args:
        name: the notebook's.
        stored: its cells.
        fresh: the same cells after a run.
    """
    found = []
    pairs = [pair for pair in zip(stored, fresh, strict=True) if pair[0]["cell_type"] == "code"]
    for number, (before, after) in enumerate(pairs, start=1):
        listed = differences(before["outputs"], after["outputs"])
        if listed:
            found.append("\n".join([f"{name}, cell [{number}]:", *map(str, listed)]))
    return found


def differences(stored: Sequence[Output], fresh: Sequence[Output]) -> list[Difference]:
    """Where the outputs of one cell tell something else than the stored ones."""
    before, now = shown(stored), shown(fresh)
    return [
        *_counts("kinds of outputs", before.kinds, now.kinds),
        *_frames(before.frames, now.frames),
        *_accuracies(before.accuracies, now.accuracies),
        *_counts("printed words", before.prose, now.prose),
        *_counts("words of the printed table", before.tabulated, now.tabulated),
    ]


def shown(outputs: Sequence[Output]) -> Showing:
    """Sorts what a cell left into what is compared with which rule."""
    showing = Showing()
    texts: defaultdict[str, str] = defaultdict(str)
    for output in outputs:
        kind, text = _kind_and_text(output)
        showing.kinds[kind] = showing.kinds[kind] + 1 if kind in ("picture", "frame", "error") else 1
        if kind == "frame":
            showing.frames.append(rows_of(text))
        else:
            texts[kind] += text
    prose = [line for text in texts.values() for line in _prose(_ANSI.sub("", text), showing)]
    showing.prose.update(_words(_without_phrases(prose)))
    return showing


def _kind_and_text(output: Output) -> tuple[str, str]:
    """Streams and displays of text come in as many pieces as time made of them; pictures and frames count."""
    if output["output_type"] == "stream":
        return output["name"], output["text"]
    if output["output_type"] == "error":
        return "error", f"{output['ename']}: {output['evalue']}\n"
    data = output["data"]
    if 'class="dataframe"' in data.get("text/html", ""):
        return "frame", data["text/html"]
    return "picture" if "image/png" in data else "text", data.get("text/plain", "") + "\n"


def _prose(text: str, showing: Showing) -> list[str]:
    """The lines of a text without progress and tables, which go to `showing`."""
    showing.accuracies |= {match["run"]: float(match["accuracy"]) for match in RUN.finditer(text)}
    text = _FIGURE.sub(r"\1 FIGURE", RUN.sub("", text))
    lines = _NO_COMPILER.sub("", text).split("\n")
    rules = [place for place, line in enumerate(lines) if line.strip() and not _BORDERS.sub("", line).strip()]
    first, last = (rules[0], rules[-1]) if rules else (len(lines), len(lines))
    showing.tabulated |= Counter(dict.fromkeys(_decided(_BORDERS.sub(" ", "\n".join(lines[first:last]))), 1))
    return lines[:first] + lines[last + 1 :]


def _without_phrases(lines: Iterable[str]) -> str:
    """The prose in one line, wherever it was wrapped."""
    text = " ".join(" ".join(lines).split())
    for phrase, stands_for_it in PHRASES.items():
        text = re.sub(phrase, stands_for_it, text)
    return text


def _words(text: str) -> list[str]:
    return [word for word in (token.strip(_PUNCTUATION) for token in text.split()) if word]


_COME_AND_GO = {"%"} | VERDICTS | TIME_VERDICTS | set(_words(NOTES)) | set(_words(LAYOUT))


def _decided(text: str) -> list[str]:
    """Words of a table or a note that code decides: no numbers, and nothing that comes and goes at a limit."""
    return [word for word in _words(text) if not _NUMBER.fullmatch(word) and word not in _COME_AND_GO]


class _Rows(HTMLParser):
    """Cells of the rows of an HTML table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Table = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def rows_of(html: str) -> Table:
    """The rows of a frame as pandas writes it in HTML."""
    parser = _Rows()
    parser.feed(html)
    return parser.rows


def _frames(stored: list[Table], fresh: list[Table]) -> Iterator[Difference]:
    """Cell by cell where columns and number of rows are the same; another number of frames is a matter of kinds."""
    for before, now in zip(stored, fresh, strict=False):
        if before[0] != now[0]:
            yield Difference("columns", ", ".join(before[0]), ", ".join(now[0]))
        elif len(before) != len(now):
            yield Difference("rows", str(len(before) - 1), str(len(now) - 1))
        else:
            yield from _cells(before, now)


def _cells(before: Table, now: Table) -> Iterator[Difference]:
    for number, (old, new) in enumerate(zip(before[1:], now[1:], strict=True)):
        for column, first, second in zip(before[0], old, new, strict=True):
            if not agree(column, first, second):
                yield Difference(f"column {column or 'of the index'}, row {number}", first, second)


def agree(column: str, stored: str, now: str) -> bool:
    """Whether two cells of a column of a frame tell the same."""
    if stored == now:
        return True
    for names, tolerance in TOLERANCES.items():
        if re.fullmatch(names, column):
            return abs(_number(stored) - _number(now)) <= tolerance
    if re.fullmatch(COMPARED_TIMES, column):
        return True
    if re.fullmatch(MEASURED, column):
        return bool(stored.strip()) == bool(now.strip())
    if column in WORDS:
        return {stored, now} <= WORDS[column]
    return column == "notes" and set(_decided(stored)) == set(_decided(now))


def _number(text: str) -> float:
    """NaN, which is close to nothing, where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _accuracies(stored: dict[str, float], fresh: dict[str, float]) -> Iterator[Difference]:
    yield from _counts("runs in the lines of progress", Counter(stored.keys()), Counter(fresh.keys()))
    for run, before in stored.items():
        now = fresh.get(run, before)
        if abs(before - now) > PROGRESS_TOLERANCE:
            yield Difference(f"validation accuracy of {run}", f"{before} %", f"{now} %")


def _counts(where: str, stored: Counter[str], fresh: Counter[str]) -> Iterator[Difference]:
    """What one side has and the other lacks."""
    gone, new = stored - fresh, fresh - stored
    if gone or new:
        yield Difference(where, _listed(gone), _listed(new))


def _listed(items: Counter[str], most: int = 12) -> str:
    names = [f"{count} x {name}" if count > 1 else name for name, count in items.items()]
    return " ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
