"""The answers of a study: a sentence for each arm, most decided first, and a heading that asks the question."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cnn_ablation.analysis.tables import reference_words
from cnn_ablation.analysis.variance import ALL, SUM, variance_columns
from cnn_ablation.common.words import counted, listed
from cnn_ablation.report.page import numbers
from cnn_ablation.report.page.names import Names, capitalised, knob_names, metric_title
from cnn_ablation.report.text import NOT_YET, more_seeds, number_format, score_formats
from cnn_ablation.study.chance import VARY
from cnn_ablation.study.designs import BASELINE
from cnn_ablation.study.metric import Metric, metric_of_table

NOT_COMPARED = "not compared"
_ORDER = {"better": 0, "worse": 0, "equivalent": 1, "undecided": 2, NOT_COMPARED: 3}
_NO_TEST = re.compile(r"no (?:test|verdict) possible|a verdict needs|it is never better")  # notes that say why
_NO_COMPARISON = re.compile(
    r"step \d+:|its runs are|not compared:|no .*: not compared|\d+ of \d+ runs? failed|\d+ seeds? to compare|"
    r"no run to compare"
)  # likewise, of an arm without a difference
_LOST = re.compile(r"\d+ of \d+ runs? (?:diverged|failed|without)\b.*")  # notes on runs that make a score another one
_MOST_NAMED = 4  # knobs in a heading
_MOST_FLAT = 12  # answers that are read without folding


@dataclass(frozen=True)
class Answer:
    """One arm against the one that others are compared with: `Batch norm: +3.3 points [2.4, 4.2], better`."""

    arm: str
    name: str
    knob: str
    verdict: str
    before: str
    ruling: str
    """The verdict as a sentence says it: `better`, `cannot tell yet`."""
    after: str

    @property
    def text(self) -> str:
        """Behind the name."""
        return f"{self.before}{self.ruling}{self.after}"


@dataclass(frozen=True)
class Group:
    """The answers to one knob, or to all."""

    knob: str
    summary: str
    answers: list[Answer]


def answers(arms: pd.DataFrame, names: Names) -> list[Answer]:
    """All of a table of arms, most decided first."""
    metric = metric_of_table(arms.attrs, arms.columns)
    rows = arms[arms["verdict"] != BASELINE].to_dict("records")
    said = _Said(metric, score_formats(arms, metric)[1])
    made = [(row, Answer(row["arm"], names.arm(row["arm"]), str(row["knob"]), *said.of(row))) for row in rows]
    made.sort(key=lambda pair: (_ORDER[pair[1].verdict], *_clearness(pair[0], metric)))
    return [answer for _, answer in made]


def _clearness(row: Mapping[Any, Any], metric: Metric) -> tuple[float, float]:
    """Small for what is most certain: its p-value, then how far the difference is from 0 for its interval."""
    difference, low, high = (float(row[name]) for name in metric.delta)
    half = (high - low) / 2
    distance = abs(difference) / half if half > 0 else 0.0
    p_value = float(row["p_holm"])
    return (p_value if math.isfinite(p_value) else 1.0), -distance if math.isfinite(distance) else 0.0


def of_variance(variance: pd.DataFrame, metric: Metric) -> list[Answer]:
    """Of a study that asks what makes seeds differ: a sentence for each source of chance.

    Args:
        variance: from `variance_by_source`.
        metric: of the study.
    """
    unit = " points" if metric.is_accuracy else f" in {metric.column}"
    columns = list(variance_columns(metric)[2:5])
    form = "{:.2f}" if metric.is_accuracy else number_format(variance[columns])
    return [_of_source(row, columns, form, unit) for row in variance.to_dict("records") if row["source"] != SUM]


def _of_source(row: Mapping[Any, Any], columns: Sequence[str], form: str, unit: str) -> Answer:
    deviation, low, high = (float(row[name]) for name in columns)
    name, share = capitalised(str(row["source"])), float(row["share"])
    if not deviation > 0:
        return Answer(str(row["source"]), name, VARY, NOT_COMPARED, "", "no spread", f": {row['note']}")
    of_all = "" if row["source"] == ALL or not math.isfinite(share) else f"; {100 * share:.0f} % of all variance"
    limits = f" {numbers.interval(low, high, form)}".rstrip()
    before, after = "standard deviation ", f"{limits}{of_all}"
    return Answer(str(row["source"]), name, VARY, BASELINE, before, f"{numbers.written(deviation, form)}{unit}", after)


def grouped(found: Sequence[Answer], names: Names) -> list[Group]:
    """By knob where they are many, knobs with the clearest answer first; else in one group without a heading.

    Where many have one knob, those behind the first dozen are a group of their own.
    """
    by_knob: dict[str, list[Answer]] = {}
    for answer in found:
        by_knob.setdefault(answer.knob, []).append(answer)
    if len(found) <= _MOST_FLAT or not 1 < len(by_knob) < len(found):
        first, rest = list(found[:_MOST_FLAT]), list(found[_MOST_FLAT:])
        return [Group("", "", first)] + ([Group(f"{len(rest)} more", summary(rest), rest)] if rest else [])
    return [Group(names.knob(knob), summary(group), group) for knob, group in by_knob.items()]


def summary(found: Sequence[Answer]) -> str:
    """`1 better, 4 worse, 1 equivalent, 3 undecided`."""
    counts = Counter(answer.verdict for answer in found)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in _ORDER if counts[verdict])


class _Said:
    """What is said of an arm behind its name."""

    def __init__(self, metric: Metric, form: str):
        self.metric, self.form = metric, form

    def of(self, row: Mapping[Any, Any]) -> tuple[str, str, str, str]:
        """Verdict, and what stands before it, in its place and behind it."""
        verdict, difference, remarks = str(row["verdict"]), self._difference(row), str(row["notes"]).split("; ")
        lost = [remark for remark in remarks if _LOST.fullmatch(remark)]
        if not difference:
            return NOT_COMPARED, "", NOT_COMPARED, _why_not(row)
        if verdict == "undecided":
            why = next(filter(_NO_TEST.search, remarks), "")
            return verdict, "", "cannot tell yet", f": {_joined(difference, _seeds(row), why, _time(row), *lost)}"
        within = f" within {self._margin()}" if verdict == "equivalent" else ""
        return verdict, f"{difference}, ", f"{verdict}{within}", _joined("", _time(row), *lost)

    def _difference(self, row: Mapping[Any, Any]) -> str:
        mean, low, high = (float(row[name]) for name in self.metric.delta)
        half = (high - low) / 2
        form = numbers.points_format(mean, half if math.isfinite(half) else 0) if self.metric.is_accuracy else self.form
        shown = numbers.written(mean, form)
        unit = "points" if self.metric.is_accuracy else f"in {self.metric.column}"
        return f"{shown} {unit} {numbers.interval(low, high, form)}".rstrip() if shown else ""

    def _margin(self) -> str:
        unit = " points" if self.metric.is_accuracy else ""
        return f"±{self.metric.margin:g}{unit}" if self.metric.margin is not None else "the margin"


def _why_not(row: Mapping[Any, Any]) -> str:
    """One of the notes says it: no score, another arm's runs, a step of a greedy study."""
    remarks = str(row["notes"]).split("; ")
    found = next(filter(_NO_COMPARISON.match, remarks), remarks[0])
    first = found.removeprefix(f"{NOT_COMPARED}: ").removesuffix(f": {NOT_COMPARED}")
    return f": {numbers.with_minus(first)}" if first else ""


def _joined(first: str, *others: str) -> str:
    """With semicolons between what is not empty, and before the others."""
    return "; ".join([first, *filter(None, others)])


def _seeds(row: Mapping[Any, Any]) -> str:
    wanted = more_seeds(row)
    if not wanted or wanted == NOT_YET:
        return "too early to say how many more seeds would tell" if wanted else ""
    if wanted.startswith(">"):
        return f"more than {wanted[1:]} more seeds would be needed"
    seeds = "seed" if wanted == "1" else "seeds"
    return f"{wanted.replace('-', ' to ')} more {seeds} would probably tell"


def _time(row: Mapping[Any, Any]) -> str:
    verdict, ratio = row.get("time_verdict", ""), float(row["time_ratio"])
    if verdict in ("slower", "faster") and math.isfinite(ratio):
        return f"{numbers.times(ratio)} the time"
    return "the same time" if verdict == "equal" else ""


def question(arms: pd.DataFrame, names: Names) -> str:
    """The heading of the page."""
    metric, knobs = metric_of_table(arms.attrs, arms.columns), knob_names(arms)
    if not knobs:
        return f"{metric_title(metric)} of one configuration"
    if knobs == [VARY]:
        return f"What makes {metric.words} differ from seed to seed?"
    if len(knobs) > _MOST_NAMED:
        return f"What do {numbers.counted_in_words(len(knobs))} knobs do to {metric.words}?"
    words = [names.knob(knob) for knob in knobs]
    return f"What {'does' if len(words) == 1 else 'do'} {listed(words)} do to {metric.words}?"


def varied(arms: pd.DataFrame, names: Names) -> str:
    """The knobs below a heading that only counts them; empty where it names them."""
    knobs = knob_names(arms)
    return f"{capitalised(listed([names.knob(knob) for knob in knobs]))}." if len(knobs) > _MOST_NAMED else ""


def conclusion(arms: pd.DataFrame, found: Sequence[Answer]) -> list[str]:
    """One or two sentences above the answers: what arms are compared with, and how many have which verdict."""
    return [_reference(arms), *_verdicts(found)]


def _verdicts(found: Sequence[Answer]) -> Iterator[str]:
    counts = _counts(found)
    if len(counts) == 1 and len(found) > 1:
        several, both = _ALL_ALIKE[next(iter(counts))]
        yield both if len(found) == 2 else several.format(len(found))
    elif len(found) > 1:
        verdicts = [f"{count} {_verb(verdict, count)}" for verdict, count in counts.items()]
        yield f"Of {len(found)} other arms {listed(verdicts)}."


_ALL_ALIKE = {  # of more than two arms, and of two
    "better": ("All {} other arms are better.", "Both other arms are better."),
    "worse": ("All {} other arms are worse.", "Both other arms are worse."),
    "equivalent": ("All {} other arms are equivalent.", "Both other arms are equivalent."),
    "undecided": ("None of {} other arms can be told from it yet.", "Neither of 2 other arms can be told from it yet."),
    NOT_COMPARED: ("None of {} other arms is compared with it.", "Neither of 2 other arms is compared with it."),
}


def _counts(found: Sequence[Answer]) -> dict[str, int]:
    counts = Counter(answer.verdict for answer in found)
    return {verdict: counts[verdict] for verdict in _ORDER if counts[verdict]}


def _verb(verdict: str, count: int) -> str:
    if verdict == "undecided":
        return "cannot be told from it yet"
    if verdict == NOT_COMPARED:
        return "is not compared" if count == 1 else "are not compared"
    return f"{'is' if count == 1 else 'are'} {verdict}"


def _reference(arms: pd.DataFrame) -> str:
    """`The baseline scores 96.4 % test accuracy [95.9, 96.9] over 3 seeds.`."""
    metric = metric_of_table(arms.attrs, arms.columns)
    row = arms.iloc[0]
    mean, low, high = (metric.factor * float(row[metric.estimate[place]]) for place in (0, 2, 3))
    form = score_formats(arms, metric)[0]
    limits = numbers.interval(low, high, form)
    score = f"{numbers.written(mean, form)} %" if metric.is_accuracy else numbers.written(mean, form)
    whole = f"{score} {limits}".rstrip()
    of = f"has {whole} {metric.words}" if metric.is_accuracy else f"has a mean {metric.column} of {whole}"
    return f"{capitalised(reference_words(arms))} {of}, from {counted(int(row['n']), 'seed')}."
