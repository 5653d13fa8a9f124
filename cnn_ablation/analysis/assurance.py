"""How many seeds decide an arm, its effect and its spread being as uncertain as they are.

Assurance (O'Hagan, Stevens and Campbell 2005) is power averaged over what the seeds so far leave possible, where a
power analysis takes the observed effect and spread for the true ones. These are drawn from their posterior under the
reference prior: sigma² is (n - 1) s² over a chi-squared variable of n - 1 degrees, and the true mean, given sigma, is
normal around the observed one with variance sigma² / n. Each draw goes on as a study would: further seeds join those
that are there, and the study's own test judges all of them. Better, worse and equivalent are verdicts alike.

The draws are the same for every study. In units of the observed standard deviation they do not even depend on the
observed mean, which only moves the mean of all seeds: for each draw and number of seeds there is a limit from which on
an observed mean decides, and all arms are compared with the same limits.

`benchmarks/calibration.py --part seeds` measures how many studies are decided that follow the answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cnn_ablation.analysis import anytime, distributions, dunnett
from cnn_ablation.analysis.stats import MAX_SEEDS_NEEDED, Floats, fewest_seeds
from cnn_ablation.config import ANYTIME, StatsConfig
from cnn_ablation.study.metric import metric_of

SHARES = (0.5, 0.8)
"""Of the draws, decided with the lower and with the upper number of the range."""
WIDEST = 4.0
"""Upper over lower number, beyond which the seeds so far say too little. Where there is no margin, or a small one,
three or five first seeds then often get none; of the studies that follow the others three of four and more are decided.
Without this limit it would be two of three where there is no margin."""
_DRAWS = 4096
_STEP = 1.06  # between numbers of seeds that are tried, where these are more than one apart
_ARMS_AT_ONCE = 64  # limits and answers of so many stay in the processor's cache


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds in all with which the study's test gives a verdict in half and in 80 % of what is possible now.

    `high` is NaN where it cannot be said yet: it is more than `MAX_SEEDS_NEEDED`, or more than `WIDEST` times `low`.
    Both are `MAX_SEEDS_NEEDED` where half of the cases need more; NaN without spread.
    """

    low: Any = math.nan
    high: Any = math.nan


@dataclass(frozen=True)
class _Futures:
    """Limits of the observed mean, (numbers, draws), in units of the observed standard deviation.

    A mean of at least `above`, or of at most `below`, becomes a difference. One that exceeds minus the margin by
    `inner_above` and the margin by at most `inner_below` becomes an equivalence.
    """

    numbers: Floats
    above: Floats
    below: Floats
    inner_above: Floats
    inner_below: Floats


def seeds_needed(differences: Floats, settings: StatsConfig, levels: tuple[float, float]) -> SeedsNeeded:
    """The seeds that an arm needs; with sign flips those of the t test, but never fewer than they can do with.

    Args:
        differences: one per seed, (..., n), in the unit of the margin, in the order of the seeds.
        settings: metric, test and margin.
        levels: at which a difference and an equivalence count, as `stats.next_levels` gives them.

    Returns:
        float64 (...).
    """
    shape, num_seeds = differences.shape[:-1], differences.shape[-1]
    if num_seeds < 2:
        return SeedsNeeded(*(np.full(shape, math.nan)[()] for _ in SHARES))
    values = differences.reshape(-1, num_seeds)
    values = values * np.where(np.mean(values, axis=-1, keepdims=True) < 0, -1, 1)  # both directions get the same draws
    has_spread, margin = np.ptp(values, axis=-1) > 0, metric_of(settings).margin
    spreads = np.where(has_spread, np.std(values, axis=-1, ddof=1), 1.0)
    shown = _shown_so_far(values, margin, settings.test, levels[1])
    futures = _futures(num_seeds, settings.test, levels)
    found = _first_numbers(np.mean(values, axis=-1) / spreads, _in_units(margin, spreads), shown, futures)
    fewest = fewest_seeds(settings.test, max(levels))
    ends = [np.where(has_spread, np.maximum(end, fewest), math.nan).reshape(shape)[()] for end in _ends(found)]
    return SeedsNeeded(*ends)


def seeds_needed_at_once(family: dunnett.ManyToOne, settings: StatsConfig) -> list[SeedsNeeded]:
    """Of every arm under Dunnett's test: its seeds, with as many of the baseline and of all others.

    Args:
        family: in the unit of the margin.
        settings: metric, error level and margin.
    """
    if math.isnan(family.spread):
        return [SeedsNeeded() for _ in family.counts]
    unit = math.sqrt(2) * family.spread  # the standard deviation of a difference of two runs
    means = np.abs(family.differences) / unit
    margins, counts = _in_units(metric_of(settings).margin, np.full(len(means), unit)), np.array(family.counts)
    found = np.full((len(SHARES), len(means)), math.nan)
    for count in set(family.counts):
        arms = (counts == count) & ~np.isnan(means)
        futures = _futures_at_once(family.null, count, settings.alpha)
        found[:, arms] = _first_numbers(means[arms], margins[arms], np.zeros((2, arms.sum()), dtype=bool), futures)
    return [SeedsNeeded(float(low), float(high)) for low, high in zip(*_ends(found), strict=True)]


def _in_units(margin: float | None, spreads: Floats) -> Floats:
    """The margin over the spread of each arm; where there is none one that is never reached."""
    return np.full(len(spreads), -math.inf) if margin is None else margin / spreads


def _ends(found: Floats) -> tuple[Floats, Floats]:
    """Of the range that is shown, from the first numbers that decide half and 80 %."""
    half, most = found
    known = np.where(most <= WIDEST * half, most, math.nan)
    return np.minimum(half, MAX_SEEDS_NEEDED), np.where(np.isinf(half), MAX_SEEDS_NEEDED, known)


def _first_numbers(means: Floats, margins: Floats, shown: Any, futures: _Futures) -> Floats:
    """The first numbers of seeds that decide `SHARES` of the draws, (2, arms); infinite where none that is tried.

    Args:
        means: (arms,), at least 0, in units of the observed standard deviation.
        margins: (arms,), in the same.
        shown: which sides of an equivalence are shown for good, (2, arms).
        futures: the limits.
    """
    found = np.full((len(SHARES), len(means)), math.inf)
    for start in range(0, len(means), _ARMS_AT_ONCE):
        arms = slice(start, start + _ARMS_AT_ONCE)
        found[:, arms] = _numbers_of(means[arms, None], margins[arms, None], shown[:, arms, None], futures)
    return found


def _shown_so_far(values: Floats, margin: float | None, test: str, level: float) -> Any:
    """Which of the two sides of an equivalence are shown for good, (2, arms): evidence that once was stays."""
    if test != ANYTIME or margin is None:
        return np.zeros((2, len(values)), dtype=bool)
    sides = (anytime.p_value(values + margin, "greater"), anytime.p_value(values - margin, "less"))
    return np.array([side <= level for side in sides])


def _numbers_of(means: Floats, margins: Floats, shown: Any, futures: _Futures) -> Floats:
    """As `_first_numbers`, of (arms, 1)."""
    found, undecided = np.full((len(SHARES), len(means)), math.inf), np.arange(len(means))
    outer, inner = means + margins, means - margins
    for place, number in enumerate(futures.numbers):
        differs = (means >= futures.above[place]) | (means <= futures.below[place])
        is_inside = (shown[0] | (outer >= futures.inner_above[place])) & (
            shown[1] | (inner <= futures.inner_below[place])
        )
        decided = differs | is_inside
        share = np.array(list(map(np.count_nonzero, decided))) / decided.shape[1]  # a quarter of the time of `np.mean`
        so_far = np.where(np.isinf(found[:, undecided]) & (share >= np.array(SHARES)[:, None]), number, math.inf)
        found[:, undecided] = np.minimum(found[:, undecided], so_far)
        if not (left := np.isinf(found[:, undecided]).any(axis=0)).all():
            undecided = undecided[left]
            means, outer, inner, shown = means[left], outer[left], inner[left], shown[:, left]
        if not len(undecided):
            break
    return found


@lru_cache(maxsize=8)  # of 10 MB
def _futures(num_seeds: int, test: str, levels: tuple[float, float]) -> _Futures:
    """The limits for studies with so many seeds so far."""
    numbers, moves, errors = _paths(num_seeds)
    two_sided, one_sided = (critical[:, None] * errors for critical in _critical_values(numbers, test, *levels))
    above, below = two_sided - moves, -two_sided - moves
    inner_above, inner_below = one_sided - moves, -one_sided - moves
    if test == ANYTIME:  # what once was evidence stays so
        above, inner_above = (np.minimum.accumulate(limits) for limits in (above, inner_above))
        below, inner_below = (np.maximum.accumulate(limits) for limits in (below, inner_below))
    return _Futures(numbers, above, below, inner_above, inner_below)


@lru_cache(maxsize=8)
def _futures_at_once(null: dunnett.Null, count: int, alpha: float) -> _Futures:
    """The limits for an arm of so many values among others, in units of a difference of two runs.

    A difference of means is as exact as that of the harmonic mean of both numbers of values in pairs. The squares of
    all m + 1 groups are pooled.
    """
    pairs, groups = 2 / (1 / count + 1 / null.baseline), len(null.counts) + 1
    numbers = _numbers_tried(int(pairs))
    further, (sigma, offset) = (numbers - pairs)[:, None], _posterior(pairs, null.freedom)
    sums, _ = _further_values(np.diff(further[:, 0], prepend=0.0))
    moves = (further * offset + sigma * sums) / numbers[:, None]
    steps = groups * np.diff(further, axis=0, prepend=0.0)
    squares = np.cumsum(np.random.default_rng(1).chisquare(steps, (len(numbers), _DRAWS)), axis=0)
    variances = (null.freedom + sigma**2 * squares) / (null.freedom + groups * further)
    errors = np.sqrt(variances / numbers[:, None])
    two_sided, one_sided = (critical[:, None] * errors for critical in _critical_at_once(numbers, groups - 1, alpha))
    return _Futures(numbers, two_sided - moves, -two_sided - moves, one_sided - moves, -one_sided - moves)


def _critical_at_once(numbers: Floats, num_arms: int, alpha: float) -> list[Floats]:
    """Limits of Dunnett's statistics; computed for some numbers, between which they are nearly linear in 1 / number."""
    some = np.unique([*numbers[:8], *numbers[8::12], numbers[-1]]).astype(int)
    nulls = [dunnett.Null((int(n),) * num_arms, int(n), (num_arms + 1) * (int(n) - 1)) for n in some]
    limits = [[null.critical(alpha, side) for null in nulls] for side in ("two_sided", "one_sided")]
    return [np.interp(-1 / numbers, -1 / some, found) for found in limits]


def _numbers_tried(num_seeds: int) -> Floats:
    """Numbers of seeds after so many: one more each time, and later 6 % more."""
    found = [num_seeds + 1]
    while found[-1] < MAX_SEEDS_NEEDED:
        found.append(min(max(found[-1] + 1, round(_STEP * found[-1])), MAX_SEEDS_NEEDED))
    return np.array(found, dtype=float)


def _critical_values(numbers: Floats, test: str, two_sided: float, one_sided: float) -> tuple[Floats, Floats]:
    """Of t statistics, for a two-sided and for a one-sided test at their levels."""
    if test == ANYTIME:
        return anytime.critical_ts(numbers, two_sided), anytime.critical_ts(numbers, 2 * one_sided)
    return distributions.t_ppf(1 - two_sided / 2, numbers - 1), distributions.t_ppf(1 - one_sided, numbers - 1)


@lru_cache(maxsize=8)  # of 4 MB; levels differ from table to table, and from round to round
def _paths(num_seeds: int) -> tuple[Floats, Floats, Floats]:
    """Numbers of seeds, how far the mean of all moves from the observed one, and its standard error, (numbers, draws).

    Both in units of the observed standard deviation. With sums W of k further standard normal values and Q of their
    squares, these have the mean mu + sigma W / k; the squares around the mean of all n + k are those of the first n,
    those of the further k, and n k / (n + k) times the square of the distance between their means.
    """
    numbers, (sigma, offset) = _numbers_tried(num_seeds), _posterior(num_seeds, num_seeds - 1)
    further = (numbers - num_seeds)[:, None]
    sums, squares = _further_values(np.diff(further[:, 0], prepend=0.0))
    distance = offset + sigma * sums / further
    moves = further * distance / numbers[:, None]
    inside = num_seeds - 1 + sigma**2 * (squares - sums**2 / further)
    total = inside + num_seeds * further / numbers[:, None] * distance**2
    return numbers, moves, np.sqrt(total / (numbers[:, None] - 1) / numbers[:, None])


def _posterior(num_seeds: float, freedom: int) -> tuple[Floats, Floats]:
    """Draws of sigma, and of the true mean minus the observed one, in units of the observed standard deviation."""
    first, second = distributions.halton(_DRAWS + 1, (2, 3))[1:].T  # the first point is 0, 0
    sigma = np.sqrt(freedom / distributions.chi2_ppf(first, freedom))
    return sigma, sigma * distributions.normal_ppf(second) / math.sqrt(num_seeds)


def _further_values(steps: Floats) -> tuple[Floats, Floats]:
    """Sums of standard normal values and of their squares, which grow by `steps` values each time."""
    generator, shape = np.random.default_rng(0), (len(steps), _DRAWS)
    deviates = generator.standard_normal(shape)
    around = np.where(steps > 1, 1.0, 0.0)[:, None] * generator.chisquare(np.maximum(steps - 1, 1)[:, None], shape)
    return np.cumsum(np.sqrt(steps)[:, None] * deviates, axis=0), np.cumsum(deviates**2 + around, axis=0)
