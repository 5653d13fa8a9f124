"""Dunnett's test beside Holm's correction of paired t tests: where does each win? Simulated studies with known truth.

    python benchmarks/many_to_one.py --out many_to_one.md
    python benchmarks/many_to_one.py --scale 0.1                        a quick look

A study has a baseline and m arms with n seeds. Runs are normal with a standard deviation of one percentage point;
correlated runs share four fifths of their variance with the others of their seed; with unequal noise every second arm
scatters by two points, with one unstable arm the last one by three. For power every second arm, one that scatters by
one point, is better by two points, and the others are like the baseline.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_ablation.analysis import stats
from cnn_ablation.analysis.dunnett import Null
from cnn_ablation.config import StatsConfig
from cnn_ablation.runs import provenance
from cnn_ablation.tasks.image_classification.identity import LIBRARIES

SEED = 20_261_127
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


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heading) + " |"
    yield "|" + "---:|" * len(heading)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""


def _rows(outcomes: dict[tuple[int, int, str], dict[tuple[str, str], Outcome]]) -> Iterator[list[str]]:
    for (n, m, noise), found in outcomes.items():
        errors = [f"{100 * found[test, 'null'].any_false:.1f}" for test in (HOLM, DUNNETT)]
        beside = [f"{100 * found[test, 'effect'].any_false:.1f}" for test in (HOLM, DUNNETT)]
        power = [f"{100 * found[test, 'effect'].power:.1f}" for test in (HOLM, DUNNETT)]
        yield [noise, str(n), str(m), *errors, *beside, *power]


def report(scale: float) -> Iterator[str]:
    """The page, line by line."""
    size = int(NUM_STUDIES * scale)
    grid = itertools.product(NOISES, SEEDS_PER_ARM, ARMS)
    outcomes = {(n, m, noise.name): simulate(n, m, noise, size) for noise, n, m in grid}
    made_with = provenance.environment(LIBRARIES)
    yield "## Dunnett's test beside Holm's correction of paired t tests (%)\n"
    yield f"From `python benchmarks/many_to_one.py`, random seed {SEED}, {size} studies a row, cnn_ablation"
    yield f"{made_with['versions']['cnn_ablation']} ({str(made_with['git_commit'])[:12]})."
    yield (__doc__ or "").split("\n\n")[2].strip() + "\n"
    tests = [
        f"{what}, {test}" for what in ("any false", "any false beside effects", "power") for test in (HOLM, DUNNETT)
    ]
    yield from table(["noise", "seeds", "arms", *tests], list(_rows(outcomes)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the page there instead of printing it")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the studies; 0.1 for a quick look")
    options = parser.parse_args()
    page = "\n".join(report(options.scale)) + "\n"
    if options.out:
        options.out.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
