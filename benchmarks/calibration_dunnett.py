"""Dunnett's test beside Holm's correction of paired t tests: where does each win?

A study has a baseline and m arms with n seeds. Runs are normal with a standard deviation of one percentage point.
Correlated runs share four fifths of their variance with the others of their seed. With unequal noise every second arm
scatters by two points, with one unstable arm the last one by three. For power every second arm, one that scatters by
one point, is better by two points, and the others are like the baseline.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from calibration_page import SEED, made_with, paragraph, table

from cnn_ablation.analysis import stats
from cnn_ablation.analysis.dunnett import Null
from cnn_ablation.config import StatsConfig

SEEDS_PER_ARM = (3, 5, 10)
ARMS = (4, 12)
EFFECT_PP = 2.0
NUM_STUDIES = 4000
CHUNK = 500  # studies at once
ALPHA = 0.05
HOLM, DUNNETT = "Holm's paired t", "Dunnett"


@dataclass(frozen=True)
class Noise:
    """How the runs of a study scatter, in percentage points."""

    name: str
    correlation: float = 0.0
    every_second: float = 1.0
    last: float = 1.0


NOISES = (
    Noise("equal"),
    Noise("correlated", correlation=0.8),
    Noise("unequal", every_second=2.0),
    Noise("one unstable", last=3.0),
)


@dataclass(frozen=True)
class Outcome:
    """Of one test: share of studies with any false difference, and of arms with an effect found."""

    any_false: float
    power: float


Outcomes = dict[tuple[int, int, str], dict[tuple[str, str], Outcome]]
"""By seeds, arms and noise; then by test and by whether every second arm has an effect (`null`, `effect`)."""


def simulate(num_seeds: int, num_arms: int, noise: Noise, num_studies: int) -> dict[tuple[str, str], Outcome]:
    """By test and by whether every second arm has an effect (`null`, `effect`)."""
    generator = np.random.default_rng([SEED, num_seeds, num_arms, NOISES.index(noise)])
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    truths = {"null": np.zeros(num_arms), "effect": np.tile([EFFECT_PP, 0.0], num_arms)[:num_arms]}
    for start in range(0, num_studies, CHUNK):
        figures = _runs(generator, (min(CHUNK, num_studies - start), num_arms, num_seeds), noise)
        for name, truth in truths.items():
            studies = figures + np.array([0.0, *truth])[:, None]
            found.setdefault((HOLM, name), []).append(by_holm(studies))
            found.setdefault((DUNNETT, name), []).append(by_dunnett(studies))
    return {key: _outcome(np.concatenate(parts), truths[key[1]]) for key, parts in found.items()}


def _outcome(signs: np.ndarray, truth: np.ndarray) -> Outcome:
    is_false = (signs != 0) & (signs != np.sign(truth))
    power = float((signs[:, truth > 0] > 0).mean()) if (truth > 0).any() else float("nan")
    return Outcome(float(is_false.any(axis=1).mean()), power)


def _runs(generator: np.random.Generator, shape: tuple[int, int, int], noise: Noise) -> np.ndarray:
    """Percentage points (studies, 1 + m, n) without effects, the baseline first."""
    size, m, n = shape
    shared, own = generator.standard_normal((size, 1, n)), generator.standard_normal((size, 1 + m, n))
    spread = np.array([1.0, *np.tile([1.0, noise.every_second], m)[: m - 1], noise.every_second * noise.last])[:, None]
    return spread * (np.sqrt(noise.correlation) * shared + np.sqrt(1 - noise.correlation) * own)


def by_holm(studies: np.ndarray) -> np.ndarray:
    """Directions (studies, m) of the differences that paired t tests find with Holm's correction; 0 for none."""
    compared = stats.compare(studies[:, 1:] / 100, studies[:, :1] / 100, StatsConfig(alpha=ALPHA),
                             num_comparisons=studies.shape[1] - 1)  # fmt: skip
    ordered = np.argsort(compared.p_value, axis=1)
    factors = np.arange(ordered.shape[1], 0, -1)
    corrected = np.maximum.accumulate(np.take_along_axis(compared.p_value, ordered, axis=1) * factors, axis=1)
    is_found = np.empty(ordered.shape, dtype=bool)
    np.put_along_axis(is_found, ordered, corrected <= ALPHA, axis=1)
    return np.sign(compared.difference.mean) * is_found


def by_dunnett(studies: np.ndarray) -> np.ndarray:
    """The same of Dunnett's test."""
    _, groups, n = studies.shape
    spread = np.sqrt(studies.var(axis=2, ddof=1).mean(axis=1, keepdims=True))
    differences = studies[:, 1:].mean(axis=2) - studies[:, :1].mean(axis=2)
    critical = Null((n,) * (groups - 1), n, groups * (n - 1)).critical(ALPHA)
    return np.sign(differences) * (np.abs(differences) >= critical * spread * np.sqrt(2 / n))


def _rows(outcomes: Outcomes) -> Iterator[list[str]]:
    for (n, m, noise), found in outcomes.items():
        errors = [f"{100 * found[test, 'null'].any_false:.1f}" for test in (HOLM, DUNNETT)]
        beside = [f"{100 * found[test, 'effect'].any_false:.1f}" for test in (HOLM, DUNNETT)]
        power = [f"{100 * found[test, 'effect'].power:.1f}" for test in (HOLM, DUNNETT)]
        yield [noise, str(n), str(m), *errors, *beside, *power]


def report(scale: float) -> Iterator[str]:
    """The part of the page, line by line."""
    size = int(NUM_STUDIES * scale)
    grid = itertools.product(NOISES, SEEDS_PER_ARM, ARMS)
    outcomes = {(n, m, noise.name): simulate(n, m, noise, size) for noise, n, m in grid}
    yield "# Dunnett's test beside Holm's correction of paired t tests (%)\n"
    yield f"From `python benchmarks/calibration.py --part dunnett`, random seed {SEED}, {size} studies a row."
    yield from made_with()
    yield (__doc__ or "").split("\n\n")[1].strip() + "\n"
    yield from paragraph(*_summary(outcomes))
    tests = [
        f"{what}, {test}" for what in ("any false", "any false beside effects", "power") for test in (HOLM, DUNNETT)
    ]
    yield from table(["noise", "seeds", "arms", *tests], list(_rows(outcomes)))


def _summary(outcomes: Outcomes) -> Iterator[str]:
    """What a user can act on."""
    errors = {noise.name: [100 * of[DUNNETT, "null"].any_false for (_, _, name), of in outcomes.items()
                           if name == noise.name] for noise in NOISES}  # fmt: skip
    alike, correlated = (
        [100 * outcomes[5, 12, name][test, "effect"].power for test in (DUNNETT, HOLM)]
        for name in ("equal", "correlated")
    )
    yield "Where seeds do not correlate and arms scatter alike, Dunnett's test finds more, with 5 seeds and 12 arms"
    yield f"{alike[0]:.0f} % of effects against {alike[1]:.0f} %. Where seeds correlate, the paired test finds more as"
    yield f"soon as there are five of them ({correlated[1]:.0f} % against {correlated[0]:.0f} %)."
    unstable = errors["one unstable"]
    yield f"One unstable arm makes Dunnett's test false in {min(unstable):.0f} to {max(unstable):.0f} % of studies."
    yield "Its scatter shows, and a note names it, in two of three studies with 3 seeds and nine of ten with 10: the"
    yield "paired t test is the one to take then."
