"""Looks after every seed: how often is `stats.test=anytime` wrong?

Arms share one baseline. Looks follow every seed up to 40; a verdict needs 3 seeds or more. All arms are equal to the
baseline, or all lie exactly at the margin. Spread is that of a run, correlation that of an arm with the baseline of the
same seed.

A false verdict at some look, and an interval at level alpha / m that misses the truth at some look, are one and the
same (`tests/test_calibration.py` holds it), so that intervals are all that is computed here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import calibration_skewness
import numpy as np
from calibration_page import SEED, interval, made_with, paragraph, percent, prepare, table

from cnn_ablation.analysis import anytime, skewness, stats
from cnn_ablation.common.words import counted
from cnn_ablation.config import StatsConfig

ALPHA = StatsConfig().alpha
ARMS = (1, 9, 30)
LOOKS = 40
LOOK_OF_T = 10
CORRELATIONS = (0.0, 0.8)
CHUNK = 500  # studies at once
PROMISED = 0.055
"""The upper end of a cell's 95 % interval: what a true 5 % shows."""
LOG_SPREAD, FREEDOM, TEST_IMAGES = 0.5, 3, 540
MARGIN_IN_SPREADS = 3  # wide enough that the other side of the margin is soon excluded


@dataclass(frozen=True)
class Noise:
    """How the figures of runs scatter, the mean of each being 0."""

    name: str
    kind: str = "normal"
    arm_scale: float = 1.0
    """Spread of an arm's figures over the baseline's."""
    arm_log_scale: float = 1.0
    """Spread of their logarithms over the baseline's."""
    spread_pp: float = 0.0
    """Of accuracies that are multiples of 1 / 540."""

    @property
    def spread(self) -> float:
        """Standard deviation of a run of the baseline."""
        of_kind = {"lognormal": np.sqrt(np.exp(LOG_SPREAD**2) - 1), "student": np.sqrt(FREEDOM / (FREEDOM - 2))}
        return self.spread_pp / 100 or float(of_kind.get(self.kind, 1.0))

    @property
    def margin(self) -> float:
        whole = MARGIN_IN_SPREADS * self.spread
        return round(whole * TEST_IMAGES) / TEST_IMAGES if self.spread_pp else whole


NOISES = (
    Noise("normal"),
    Noise("skewed", "lognormal"),
    Noise("skewed, arms twice the spread", "lognormal", arm_scale=2),
    Noise("skewed, arms twice the log spread", "lognormal", arm_log_scale=2),
    Noise("heavy tails", "student"),
    *(Noise(f"540 images, {spread:g} pp", "rounded", spread_pp=spread) for spread in (1.0, 0.5, 0.2)),
)


@dataclass(frozen=True)
class Cell:
    noise: Noise
    correlation: float
    num_arms: int


@dataclass(frozen=True)
class Outcome:
    """Studies of a cell with an error at any look, and shares of arms."""

    cell: Cell
    num_studies: int
    false_difference: int
    false_equivalence_above: int
    """Where all arms lie at the margin above the baseline."""
    false_equivalence_below: int
    covered: float
    """Intervals of one arm that hold the truth at every look."""
    covered_at_the_end: float
    false_by_t: int
    """Of the t test at `LOOK_OF_T` seeds, looked at once."""
    told: tuple[int, ...]
    """As `calibration_skewness.told`."""


def figures(cell: Cell, size: int, generator: np.random.Generator) -> np.ndarray:
    """(studies, 1 + m, looks) around 0, the baseline first."""
    noise, shape = cell.noise, (size, 1 + cell.num_arms, LOOKS)
    own, shared = generator.standard_normal(shape), generator.standard_normal((size, 1, LOOKS))
    deviations = np.sqrt(cell.correlation) * shared + np.sqrt(1 - cell.correlation) * own
    scale = np.array([1.0] + [noise.arm_scale] * cell.num_arms)[:, None]
    if noise.kind == "lognormal":
        spread = LOG_SPREAD * np.array([1.0] + [noise.arm_log_scale] * cell.num_arms)[:, None]
        return scale * (np.exp(spread * deviations - spread**2 / 2) - 1)
    if noise.kind == "student":  # a seed is wild for all arms where they are correlated
        wild = generator.chisquare(FREEDOM, (size, 1, LOOKS) if cell.correlation else shape)
        return scale * deviations * np.sqrt(FREEDOM / wild)
    figures = noise.spread * scale * deviations
    return np.round(figures * TEST_IMAGES) / TEST_IMAGES if noise.spread_pp else figures


def differences(cell: Cell, size: int, generator: np.random.Generator) -> np.ndarray:
    """(studies, m, looks)."""
    found = figures(cell, size, generator)
    return found[:, 1:] - found[:, :1]


def simulate(cell: Cell, num_studies: int) -> Outcome:
    noise = NOISES.index(cell.noise)
    generator = np.random.default_rng([SEED, noise, int(10 * cell.correlation), cell.num_arms])
    sizes = [min(CHUNK, num_studies - start) for start in range(0, num_studies, CHUNK)]
    counts = sum(_counts(differences(cell, size, generator), cell.noise.margin) for size in sizes)
    differ, above, below, covered, at_the_end, by_t, *told = (int(count) for count in counts)
    arms = num_studies * cell.num_arms
    return Outcome(cell, num_studies, differ, above, below, covered / arms, at_the_end / arms, by_t, tuple(told))


def _counts(differences: np.ndarray, margin: float) -> np.ndarray:
    by_t = stats.TESTS["t"](differences[..., :LOOK_OF_T], "two-sided") <= ALPHA / differences.shape[1]
    told = calibration_skewness.told(differences, margin)
    return np.array([*errors(differences, margin), by_t.any(axis=1).sum(), *told])


def errors(differences: np.ndarray, margin: float) -> list[int]:
    """Studies with a false difference, a false equivalence above, below; arms covered at every look, and at the last.

    Args:
        differences: (studies, m, looks) with a true mean of 0.
        margin: of the truth, where it is not 0.
    """
    num_arms = differences.shape[1]
    one_sided = anytime.limits(differences, 2 * ALPHA / num_arms)
    looks = anytime.limits(differences, ALPHA)
    return [
        int((~_hold(anytime.limits(differences, ALPHA / num_arms), 0.0)).any(axis=1).sum()),
        *(int(_inside(one_sided, side * margin, margin).any(axis=1).sum()) for side in (1, -1)),
        int(_hold(looks, 0.0).sum()),
        int(_hold(_last_look(differences), 0.0).sum()),
    ]


Limits = tuple[np.ndarray, np.ndarray]


def _hold(limits: Limits, truth: float) -> np.ndarray:
    return (limits[0] <= truth) & (limits[1] >= truth)


def _inside(limits: Limits, truth: float, margin: float) -> np.ndarray:
    """Whether intervals of differences from the truth are inside the margin; seeds that exclude all means are."""
    return ~((limits[0] + truth <= -margin) | (limits[1] + truth >= margin))


def _last_look(differences: np.ndarray) -> Limits:
    """The interval of the last look by itself, as if none had been before."""
    number = differences.shape[-1]
    half = anytime.critical_t(number, ALPHA) * differences.std(axis=-1, ddof=1) / np.sqrt(number)
    mean = differences.mean(axis=-1)
    return mean - half, mean + half


def _run(job: tuple[Cell, int]) -> Outcome:
    return simulate(*job)


def report(scale: float) -> Iterator[str]:
    """The page about looks after every seed."""
    size = int(20_000 * scale)
    cells = [Cell(*cell) for cell in itertools.product(NOISES, CORRELATIONS, ARMS)]
    with ProcessPoolExecutor(initializer=prepare) as pool:
        outcomes = list(pool.map(_run, [(cell, size) for cell in cells]))
    yield "# Looks after every seed: `stats.test=anytime`\n"
    yield from paragraph(
        f"From `python benchmarks/calibration.py --part anytime`, random seed {SEED}, {size} studies a cell where",
        "no other number is given.",
        *made_with(),
    )
    yield from _errors(outcomes)


def _errors(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield from paragraph(*(__doc__ or "").split("\n\n")[1].split())
    yield from paragraph(
        "In brackets the 95 % interval of a share (Clopper and Pearson); the promise is that its upper end is at most",
        f"{percent(PROMISED)} %, `!` stands where it is not. Figures:",
    )
    yield from _FIGURES
    yield "## No effect: studies with any `better` or `worse` at any look (family-wise error, %)\n"
    yield from _promise(outcomes, ("false_difference",))
    yield from _by_arms(outcomes, "false_difference")
    yield "## At the margin: studies with any wrong `equivalent` at any look (%)\n"
    yield from _promise(outcomes, ("false_equivalence_above", "false_equivalence_below"))
    for side in ("above", "below"):
        yield f"All arms lie at the margin {side} the baseline:\n"
        yield from _by_arms(outcomes, f"false_equivalence_{side}")
    yield "## No effect: 95 % intervals of one arm that hold the truth (%)\n"
    yield "At all of 40 looks, and (behind the stroke) the interval that the 40th look alone would give.\n"
    yield from _crossed(outcomes, lambda found: f"{percent(found.covered)} / {percent(found.covered_at_the_end)}")
    yield from _skewness(outcomes)


_FIGURES = (
    "- skewed: lognormal, the logarithms having a standard deviation of 0.5 (skewness 1.8);",
    "- twice the log spread: 1.0 in the arms (skewness 6.2);",
    "- heavy tails: Student's t with 3 degrees of freedom; where correlated, the same seeds are wild in all arms;",
    "- 540 images: normal accuracies in multiples of 1/540; at a spread of 0.2 points (1.1 images) every fourth",
    "  difference is 0.\n",
)


def _skewness(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What the note says of the cells where the promise is broken, and of the others."""
    several = [found for found in outcomes if found.cell.num_arms > 1]
    normal = [found for found in several if found.cell.noise.kind == "normal"]
    unnoted: dict[bool, list[float]] = {True: [0.0], False: [0.0]}  # of several arms, and of one
    for found in outcomes:
        unnoted[found.cell.num_arms > 1] += _shares(found, 1) + _shares(found, 2)
    yield "## Skewed differences are told\n"
    yield from paragraph(
        "Where both are skewed and an arm scatters otherwise than the baseline, differences are skewed too. Seeds that",
        "have not met the long tail yet show a small spread and a mean on the wrong side. The paired t test errs there",
        f"as well (last column: looked at once, with {LOOK_OF_T} seeds). One arm's own sample cannot tell, because it",
        "lacks the tail; the mean skewness over several arms can. Where it is marked, `equivalent` and verdicts",
        'against the tail have the note "differences are skewed".',
        f"With {min(found.cell.num_arms for found in several)} arms or more, a false verdict stands without the note",
        f"in {percent(max(unnoted[True]))} % of studies at most, and normal differences are taken for skewed in",
        f"{percent(max(max(_shares(found, 0)) for found in normal))} %. One arm alone is told less well: up to",
        f"{percent(max(unnoted[False]))} % stand without it. The note needs {skewness.FEWEST} seeds.",
    )
    yield from paragraph(
        "Studies (%) in which skewness is marked / a false difference stands without the note / a false equivalence",
        "does, at a look at so many seeds:",
    )
    yield from table(
        ["figures", "correlation", "arms", *(f"{number} seeds" for number in calibration_skewness.AT),
         "any false difference, with or without note", "t test"],
        [[found.cell.noise.name, f"{found.cell.correlation:g}", str(found.cell.num_arms), *_told(found)]
         for found in outcomes if found.cell.noise.kind != "rounded"],
    )  # fmt: skip


def _shares(found: Outcome, which: int) -> list[float]:
    """At each number of seeds: skewness is marked (0), a false difference (1) or equivalence (2) without the note."""
    return [count / found.num_studies for count in found.told[which::3]]


def _told(found: Outcome) -> list[str]:
    looks = zip(*(_shares(found, which) for which in range(3)), strict=True)
    at_looks = [" / ".join(percent(share) for share in look) for look in looks]
    return [*at_looks, *(percent(count / found.num_studies) for count in (found.false_difference, found.false_by_t))]


def _promise(outcomes: Sequence[Outcome], measures: Sequence[str]) -> Iterator[str]:
    """Where it holds and where it does not, in words."""
    broken: dict[str, list[str]] = {}
    kept = [0.0]
    for found, measure in itertools.product(outcomes, measures):
        count, cell = getattr(found, measure), found.cell
        if interval(count, found.num_studies)[1] <= PROMISED:
            kept.append(count / found.num_studies)
            continue
        where = f"{cell.noise.name}, correlation {cell.correlation:g}"
        broken.setdefault(where, []).append(
            f"{percent(count / found.num_studies)} with {counted(cell.num_arms, 'arm')}"
        )
    cells = len(outcomes) * len(measures)
    if not broken:
        yield f"The promise holds in all of {cells} cells; the worst is {percent(max(kept))} %.\n"
        return
    num_broken = sum(len(shares) for shares in broken.values())
    yield from paragraph(
        f"The promise holds in {cells - num_broken} of {cells} cells; the worst of these is {percent(max(kept))} %.",
        "It does not hold, and [a note says so](#skewed-differences-are-told), for figures that are",
    )
    yield from (f"- {where}: {', '.join(shares)}" for where, shares in broken.items())
    yield ""


def _by_arms(outcomes: Sequence[Outcome], measure: str) -> Iterator[str]:
    def cell(found: Outcome) -> str:
        count = getattr(found, measure)
        low, high = interval(count, found.num_studies)
        mark = " !" if high > PROMISED else ""
        return f"{percent(count / found.num_studies)} [{percent(low)}, {percent(high)}]{mark}"

    yield from _crossed(outcomes, cell)


def _crossed(outcomes: Sequence[Outcome], cell: Callable[[Outcome], str]) -> Iterator[str]:
    """Noise down, arms across."""
    found = {outcome.cell: outcome for outcome in outcomes}
    yield from table(
        ["figures", "correlation", *(f"{m} arm{'s' if m > 1 else ''}" for m in ARMS)],
        [
            [noise.name, f"{correlation:g}", *(cell(found[Cell(noise, correlation, m)]) for m in ARMS)]
            for noise, correlation in itertools.product(NOISES, CORRELATIONS)
        ],
    )
