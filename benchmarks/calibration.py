"""How often are verdicts and intervals wrong? Simulated studies with known truth, judged by the package's own code.

    python benchmarks/calibration.py --out docs/calibration.md

Every study has a baseline and m arms with n seeds. Accuracies are normal around 90 %; the baseline's standard deviation
is 1 percentage point, that of an arm 1 or (unequal) 2; runs of the same seed share a part of their noise (correlation
0 or 0.8). `rounded` accuracies are multiples of 1/540, as on the embedded test set.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy

from cnn_ablation import stats
from cnn_ablation.config import StatsConfig

SEED = 20_261_121
SEEDS_PER_ARM = (3, 5, 10)
ARMS = (1, 4, 12)
EFFECTS_PP = (0.5, 1.0, 3.0)
BASELINE_ACCURACY, SPREAD_PP, TEST_IMAGES = 0.90, 1.0, 540


@dataclass(frozen=True)
class Noise:
    """How the runs of a study scatter."""

    name: str
    arm_spread: float = 1.0
    correlation: float = 0.0
    rounded: bool = False


NOISES = (
    Noise("equal"),
    Noise("equal, correlated", correlation=0.8),
    Noise("unequal", arm_spread=2.0),
    Noise("unequal, correlated", arm_spread=2.0, correlation=0.8),
    Noise("equal, rounded", rounded=True),
)


@dataclass(frozen=True)
class Scenario:
    """Studies of one kind. Arms differ from the baseline by `effect_pp`, or, where `mixed`, every second one does."""

    num_seeds: int
    num_arms: int
    noise: Noise
    effect_pp: float = 0.0
    mixed: bool = False
    settings: StatsConfig = dataclasses.field(default_factory=StatsConfig, hash=False)


@dataclass(frozen=True)
class Outcome:
    """Shares of studies (`any_...`) or of arms."""

    scenario: Scenario
    any_false_difference: float
    any_false_equivalence: float
    any_wrong: float
    power: float
    coverage: float
    joint_coverage: float
    num_studies: int


def simulate(scenario: Scenario, num_studies: int) -> Outcome:
    """Draws studies and counts what the package says about them."""
    generator = np.random.default_rng([SEED, *_numbers(scenario)])
    truth = np.full(scenario.num_arms, scenario.effect_pp)
    if scenario.mixed:
        truth[1::2] = 0.0
    false_difference, false_equivalence, right, covered = [], [], [], []
    for _ in range(num_studies):
        verdicts, inside = _judged(_draw(generator, scenario, truth), truth, scenario.settings)
        is_difference = np.isin(verdicts, ["better", "worse"])
        false_difference.append((is_difference & (truth == 0)) | (verdicts == "worse"))
        false_equivalence.append((verdicts == "equivalent") & (np.abs(truth) >= scenario.settings.margin_pp))
        right.append((verdicts == "better") & (truth > 0))
        covered.append(inside)
    wrong = np.array(false_difference) | np.array(false_equivalence)
    return Outcome(
        scenario,
        any_false_difference=float(np.any(false_difference, axis=1).mean()),
        any_false_equivalence=float(np.any(false_equivalence, axis=1).mean()),
        any_wrong=float(wrong.any(axis=1).mean()),
        power=float(np.array(right)[:, truth > 0].mean()) if (truth > 0).any() else float("nan"),
        coverage=float(np.mean(covered)),
        joint_coverage=float(np.all(covered, axis=1).mean()),
        num_studies=num_studies,
    )


def _numbers(scenario: Scenario) -> list[int]:
    """What makes the random stream of a scenario its own."""
    noise = NOISES.index(scenario.noise)
    return [scenario.num_seeds, scenario.num_arms, noise, int(100 * scenario.effect_pp), int(scenario.mixed)]


def _draw(generator: np.random.Generator, scenario: Scenario, truth: np.ndarray) -> np.ndarray:
    """Accuracies (1 + m, n), the baseline first."""
    noise = scenario.noise
    shared = generator.standard_normal(scenario.num_seeds)
    own = generator.standard_normal((1 + scenario.num_arms, scenario.num_seeds))
    spread = np.array([1.0] + [noise.arm_spread] * scenario.num_arms)[:, None] * SPREAD_PP
    deviations = np.sqrt(noise.correlation) * shared + np.sqrt(1 - noise.correlation) * own
    accuracies = BASELINE_ACCURACY + (np.array([0.0, *truth])[:, None] + spread * deviations) / 100
    return np.round(accuracies * TEST_IMAGES) / TEST_IMAGES if noise.rounded else accuracies


def _judged(accuracies: np.ndarray, truth: np.ndarray, settings: StatsConfig) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts (m,) and whether each interval holds the truth (m,); an arm without an interval makes no claim."""
    baseline, arms = accuracies[0], accuracies[1:]
    compared = [stats.compare(arm, baseline, settings, num_comparisons=len(arms)) for arm in arms]
    verdicts = np.array([verdict for _, verdict in stats.verdicts(compared, settings.alpha)])
    inside = [
        not (item.difference.low > effect or item.difference.high < effect)
        for item, effect in zip(compared, truth, strict=True)
    ]
    return verdicts, np.array(inside)


def _run(job: tuple[Scenario, int]) -> Outcome:
    return simulate(*job)


def null_jobs(num_studies: int, settings: StatsConfig, noises: Sequence[Noise] = NOISES) -> list[tuple[Scenario, int]]:
    grid = itertools.product(SEEDS_PER_ARM, ARMS, noises)
    return [(Scenario(n, m, noise, settings=settings), num_studies) for n, m, noise in grid]


def effect_jobs(num_studies: int) -> list[tuple[Scenario, int]]:
    grid = itertools.product(SEEDS_PER_ARM, ARMS, NOISES[:4], EFFECTS_PP)
    alike = [(Scenario(n, m, noise, effect), num_studies) for n, m, noise, effect in grid]
    mixed = [(Scenario(n, 12, noise, 0.5, mixed=True), num_studies) for n in SEEDS_PER_ARM for noise in NOISES[:4]]
    return alike + mixed


def percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.1f}"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heading) + " |"
    yield "|" + "---:|" * len(heading)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""


def by_noise(outcomes: Sequence[Outcome], measure: str, noises: Sequence[Noise] = NOISES) -> Iterator[str]:
    """Seeds and arms down, kinds of noise across."""
    found = {(o.scenario.num_seeds, o.scenario.num_arms, o.scenario.noise.name): getattr(o, measure) for o in outcomes}
    yield from table(
        ["seeds", "arms", *(noise.name for noise in noises)],
        [
            [str(n), str(m), *(percent(found[n, m, noise.name]) for noise in noises)]
            for n, m in itertools.product(SEEDS_PER_ARM, ARMS)
        ],
    )


def by_effect(outcomes: Sequence[Outcome], measure: str, noise: Noise) -> Iterator[str]:
    """Seeds and arms down, true effects across."""
    found = {(o.scenario.num_seeds, o.scenario.num_arms, o.scenario.effect_pp): getattr(o, measure)
             for o in outcomes if o.scenario.noise == noise and not o.scenario.mixed}  # fmt: skip
    yield from table(
        ["seeds", "arms", *(f"{effect:g} pp" for effect in EFFECTS_PP)],
        [
            [str(n), str(m), *(percent(found[n, m, effect]) for effect in EFFECTS_PP)]
            for n, m in itertools.product(SEEDS_PER_ARM, ARMS)
        ],
    )


def report(scale: float) -> Iterator[str]:
    """The whole page, line by line."""
    started = time.perf_counter()
    nulls, effects, others = int(2000 * scale), int(500 * scale), int(500 * scale)
    plain, correlated = NOISES[0], NOISES[1]
    with ProcessPoolExecutor(initializer=_one_thread) as pool:
        null = list(pool.map(_run, null_jobs(nulls, StatsConfig())))
        effect = list(pool.map(_run, effect_jobs(effects)))
        flips = list(pool.map(_run, null_jobs(others, StatsConfig(test="sign_flip"), [plain])))
        bca = list(pool.map(_run, null_jobs(others, StatsConfig(interval="bca"), [plain])))
        joint = list(pool.map(_run, null_jobs(others, StatsConfig(simultaneous=True), [plain])))
    mixed = [outcome for outcome in effect if outcome.scenario.mixed]
    alike = [outcome for outcome in effect if not outcome.scenario.mixed]

    yield from _introduction(nulls, effects)
    yield "## No effect: studies with any `better` or `worse` (family-wise error, %)\n"
    yield f"At most 5 is promised; the worst here is {percent(max(o.any_false_difference for o in null))}.\n"
    yield from by_noise(null, "any_false_difference")
    yield "## No effect: 95 % intervals of differences that hold the truth (%)\n"
    yield f"The lowest here is {percent(min(o.coverage for o in null))}.\n"
    yield from by_noise(null, "coverage")
    for noise in (plain, correlated):
        yield f"## Effects, {noise.name} noise: arms found `better` (power, %)\n"
        yield from by_effect(alike, "power", noise)
    yield "## Effects: studies with any wrong `equivalent` (%)\n"
    yield "The margin is 0.5 pp, so that 0.5 pp is the hardest case; noise is equal and correlated.\n"
    yield from by_effect(alike, "any_false_equivalence", correlated)
    worst = max(alike, key=lambda outcome: outcome.any_false_equivalence)
    yield f"The worst over all kinds of noise is {percent(worst.any_false_equivalence)}; "
    yield f"the lowest coverage of intervals with effects {percent(min(o.coverage for o in effect))}.\n"
    yield "## Twelve arms, every second one at the margin: studies with anything wrong (%)\n"
    yield "Differences and equivalences are corrected as two families of 5 % each, so that up to 10 is possible.\n"
    yield from table(
        ["seeds", "noise", "false difference", "false equivalence", "anything wrong"],
        [
            [str(o.scenario.num_seeds), o.scenario.noise.name, percent(o.any_false_difference),
             percent(o.any_false_equivalence), percent(o.any_wrong)]
            for o in mixed
        ],
    )  # fmt: skip
    yield "## The selectable alternatives, equal noise without effect (%)\n"
    yield from table(
        ["seeds", "arms", "family-wise error, sign flips", "coverage, BCa", "joint coverage, simultaneous t"],
        [
            [str(a.scenario.num_seeds), str(a.scenario.num_arms), percent(a.any_false_difference), percent(b.coverage),
             percent(c.joint_coverage)]
            for a, b, c in zip(flips, bca, joint, strict=True)
        ],
    )  # fmt: skip
    yield "BCa intervals are too narrow with few seeds. Sign flips need nine or more seeds"
    yield "to decide one of twelve arms.\n"
    yield f"Made in {(time.perf_counter() - started) / 60:.0f} minutes."


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"


def _introduction(nulls: int, effects: int) -> Iterator[str]:
    yield "# Calibration: how often verdicts and intervals are wrong\n"
    description = (__doc__ or "").split("\n\n")[2].strip()
    yield f"From `python benchmarks/calibration.py`, random seed {SEED}. {description}\n"
    error = 196 * np.sqrt(0.05 * 0.95 / nulls)
    yield f"{nulls} studies a cell without an effect (a true 5 % shows as 5 ± {error:.1f}), {effects} with one."
    yield f"numpy {np.__version__}, scipy {scipy.__version__}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the page there instead of printing it")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the studies; 0.01 for a quick look")
    options = parser.parse_args()
    page = "\n".join(report(options.scale)) + "\n"
    if options.out:
        options.out.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
