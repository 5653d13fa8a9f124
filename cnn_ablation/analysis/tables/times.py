"""Times of an arm against those of the baseline: which can be compared, their ratio, and whether the arm is slower.

A time is paired with the baseline's of the same seed only where nothing but the arm differed: the same hardware and
threads, images in the same memory, as many runs beside it, and trained next to it. Reuse and extension leave the runs
of an arm in blocks that are minutes or days apart; a machine that drifts then looks like an effect: of equal arms
that were trained in blocks, a quarter of the 95 % intervals missed 1, of equal arms trained seed by seed one in
forty.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from math import log1p, nan

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation.analysis import stats
from cnn_ablation.analysis.dunnett import DUNNETT
from cnn_ablation.analysis.notes import OTHER_COMPANY, OTHER_MACHINE, OTHER_PLACE, OTHER_TIME
from cnn_ablation.analysis.tables.rows import ArmRuns, Pair, on_shared_seeds
from cnn_ablation.analysis.tables.stacked import at_once
from cnn_ablation.config import StatsConfig

OCCASION = "occasion"
"""A column of our own: runs with the same number were trained without a longer pause between them."""
_PAUSE_SECONDS = 600  # a study leaves seconds between its runs: after so long a pause it had ended or stood still

# On two cores a run takes 0.75 s beside a neighbour and 0.66 s with the machine to itself: a quarter of a neighbour is
# within the usual margin of 5 %. Beside many, each costs less, and the gaps between their runs add up.
_ALIKE_NEIGHBOURS, _ALIKE_SHARE = 0.25, 0.1

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TimePairs:
    """Times of the seeds that can be compared, and why the others cannot."""

    values: Pair
    num_shared: int
    """Seeds that both have trained, comparable or not."""
    reasons: list[str] = field(default_factory=list)
    """Of what is left out, most telling first."""
    num_in_one_go: int = 0
    """Seeds that share their clock with another one's, and so are no measurement of their own."""

    def __len__(self) -> int:
        return len(self.values[0])


@dataclass(frozen=True)
class TimeComparison:
    """The training time of an arm over the baseline's."""

    pairs: TimePairs
    ratio: stats.Interval
    verdict: str = ""
    """`slower`, `faster`, `equal` or `undecided`; empty where there is nothing to test."""


def with_occasions(runs: pd.DataFrame) -> pd.DataFrame:
    """A table of runs with the column `OCCASION`, where it says when they were trained; NaN for a run that does not."""
    if not {"train_started", "train_ended"} <= set(runs.columns):
        return runs
    started, ended = (runs[name].to_numpy(np.float64) for name in ("train_started", "train_ended"))
    order = np.argsort(started, kind="stable")
    until = np.fmax.accumulate(ended[order])
    is_new = np.concatenate([[False], started[order][1:] > until[:-1] + _PAUSE_SECONDS])
    occasions = np.empty(len(runs))
    occasions[order] = np.cumsum(is_new)
    return runs.assign(**{OCCASION: np.where(np.isnan(started + ended), nan, occasions)})


def paired_times(
    arm: ArmRuns, baseline: ArmRuns, column: str, *, chosen: str = "trained", among: Collection[int] | None = None
) -> TimePairs:
    """The times of both, seed by seed.

    Args:
        arm: all its runs.
        baseline: the same.
        column: one of `study.metric.TIMES`.
        chosen: which runs count, `trained` or `scored`.
        among: the seeds that are wanted; None for all. The others tell which runs were trained next to each other.
    """
    sides: list[ArmRuns] = [getattr(side, chosen) for side in (arm, baseline)]
    first, second = on_shared_seeds(*(side.where(side[column] > 0) for side in sides))
    kept, reasons = np.ones(len(first), dtype=bool), []
    for reason, alike in (
        (OTHER_MACHINE, _same(first, second, "hardware") & _same(first, second, "threads")),
        (OTHER_PLACE, _same(first, second, "images_in_host_memory")),
        (OTHER_COMPANY, _same(first, second, "concurrent_runs") & _like_neighbours(first, second)),
        (OTHER_TIME, _trained_together(first, second, (arm, baseline))),
    ):
        if (kept & ~alike).any():
            reasons.append(reason)
        kept &= alike
    if among is not None:
        kept &= np.isin(first["seed"], list(among))
    own = kept & _has_its_own_clock(first, second, kept)
    values = first.where(own)[column], second.where(own)[column]
    return TimePairs(values, len(first), reasons, int(kept.sum() - own.sum()))


def _same(first: ArmRuns, second: ArmRuns, column: str) -> Flags:
    """Where both have the same; what both do not know, or the table does not, is no reason to doubt it."""
    if column not in first:
        return np.ones(len(first), dtype=bool)
    here, there = first[column], second[column]
    found: Flags = (here == there) | (pd.isna(here) & pd.isna(there))
    return found


def _like_neighbours(first: ArmRuns, second: ArmRuns) -> Flags:
    if "neighbours" not in first:
        return np.ones(len(first), dtype=bool)
    here, there = first["neighbours"], second["neighbours"]
    allowed = np.maximum(_ALIKE_NEIGHBOURS, _ALIKE_SHARE * np.maximum(here, there))
    close: Flags = np.abs(here - there) <= allowed
    return close | _same(first, second, "neighbours")


def _trained_together(first: ArmRuns, second: ArmRuns, arms: tuple[ArmRuns, ArmRuns]) -> Flags:
    """Where two runs were trained on the same occasion, and no other run of the two arms between them."""
    if OCCASION not in first:
        return np.ones(len(first), dtype=bool)
    earlier_ended = np.minimum(first["train_ended"], second["train_ended"])[:, np.newaxis]
    later_started = np.maximum(first["train_started"], second["train_started"])[:, np.newaxis]
    started, ended = (np.concatenate([arm[name] for arm in arms]) for name in ("train_started", "train_ended"))
    between = ((started >= earlier_ended) & (ended <= later_started)).any(axis=1)
    together: Flags = _same(first, second, OCCASION) & ~between
    return together


def _has_its_own_clock(first: ArmRuns, second: ArmRuns, kept: Flags) -> Flags:
    """False for a pair whose runs began when those of an earlier one did: seeds that were trained in one go."""
    own = np.ones(len(first), dtype=bool)
    if OCCASION not in first:
        return own
    seen = set[tuple[float, float]]()
    for place in np.flatnonzero(kept & ~np.isnan(first[OCCASION] + second[OCCASION])):
        starts = float(first["train_started"][place]), float(second["train_started"][place])
        own[place] = starts not in seen
        seen.add(starts)
    return own


def compare_times(arms: dict[str, ArmRuns], baseline: ArmRuns, settings: StatsConfig) -> dict[str, TimeComparison]:
    """Ratio and verdict of every arm, by name; verdicts are corrected for the number of arms that can be tested.

    Logarithms of times are a metric like any other: the same test, intervals and correction, with a margin of
    `log(1 + stats.time_margin)`, that is, of ratios from 1 / (1 + margin) to 1 + margin.
    """
    pairs = {name: paired_times(arm, baseline, "train_seconds") for name, arm in arms.items()}
    logs = replace(
        settings,
        metric="log_seconds",
        direction="lower",
        margin=log1p(settings.time_margin),
        test="t" if settings.test == DUNNETT else settings.test,  # which pairs nothing
        simultaneous=False,
    )
    samples = [(np.log(found.values[0]), np.log(found.values[1])) for found in pairs.values()]
    results = at_once(lambda first, second: stats.compare(first, second, logs, num_comparisons=1), samples)
    compared = dict(zip(pairs, results, strict=True))
    tested = [name for name, found in pairs.items() if len(found) > 1 and arms[name] is not baseline]
    verdicts = stats.verdicts([compared[name] for name in tested], logs)
    words = {name: _VERDICTS[verdict] for name, (_, verdict) in zip(tested, verdicts, strict=True)}
    return {
        name: TimeComparison(pairs[name], _ratio(found.difference), words.get(name, ""))
        for name, found in compared.items()
    }


_VERDICTS = {"better": "faster", "worse": "slower", "equivalent": "equal", "undecided": "undecided"}


def _ratio(difference: stats.Interval) -> stats.Interval:
    return stats.Interval(*(float(np.exp(limit)) for limit in (difference.mean, difference.low, difference.high)))


_SHORTEST = 0.1  # seconds of training that tell whether a run had the processor


def processor_shares(arm: ArmRuns) -> stats.Floats:
    """The share of its training time that each run which was trained had the processor.

    NaN on a GPU, where it is unknown, and of runs so short that one turn of another process is most of their time.
    CPU time over wall-clock time and threads. Threads that wait for each other, and functions that wait for files, have
    less than all of it anyway: for them the share is that of the run of the arm that had most.
    """
    runs = arm.trained
    if not {"cpu_seconds", "threads", "device"} <= runs.columns.keys():
        return np.full(len(runs), nan)
    threads = np.where((runs["device"] == "cpu") & (runs["threads"] > 0), runs["threads"], nan)
    with np.errstate(all="ignore"):
        seconds = np.where(runs["train_seconds"] >= _SHORTEST, runs["train_seconds"], nan)
        shares: stats.Floats = runs["cpu_seconds"] / (seconds * threads)
    computes = "images_per_second" in runs and not np.isnan(runs["images_per_second"]).any()
    if (computes and (threads <= 1).all()) or np.isnan(shares).all():
        return shares
    return shares / np.nanmax(shares)
