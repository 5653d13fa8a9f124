"""How often are verdicts and intervals wrong? Simulated studies with known truth, judged by the package's own code.

    python benchmarks/calibration.py --out docs                         every page into that folder
    python benchmarks/calibration.py --part losses                      a metric where lower is better, in its own unit
    python benchmarks/calibration.py --part anytime                     looks after every seed
    python benchmarks/calibration.py --part auto                        what replicates=auto saves, and its test
    python benchmarks/calibration.py --part seeds                       how many studies decide that follow "more seeds"
    python benchmarks/calibration.py --part dunnett                     Dunnett's test beside Holm's paired t

Every study has a baseline and m arms with n seeds. Accuracies are normal around 90 %; the baseline's standard deviation
is 1 percentage point, that of an arm 1 or (unequal) 2; runs of the same seed share a part of their noise (correlation
0 or 0.8). `rounded` accuracies are multiples of 1/540, as on the embedded test set.

Losses are lognormal with a mean of 0.4. Their logarithms have a standard deviation of 0.2 (the losses one of 0.081 and
a skewness of 0.6), or (skewed) of 0.5 (0.213 and 1.8), or (unequal) of 0.4 in the arms and 0.2 in the baseline.
Correlated logarithms have a correlation of 0.8. Effects are differences of the means. `stats.margin` is 0.04, half a
standard deviation, as the 0.5 points of accuracies are.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import calibration_anytime
import calibration_auto
import calibration_dunnett
import calibration_seeds
import numpy as np
from calibration_page import SEED, made_with, paragraph, percent, precision, prepare, table

from cnn_ablation.analysis import stats
from cnn_ablation.config import StatsConfig
from cnn_ablation.study.metric import metric_of

SEEDS_PER_ARM = (3, 5, 10)
ARMS = (1, 4, 12)
EFFECTS_PP = (0.5, 1.0, 3.0)
EFFECTS_LOSS = (0.04, 0.08, 0.24)
CHUNK = 50  # studies at once
BASELINE_ACCURACY, SPREAD_PP, TEST_IMAGES = 0.90, 1.0, 540
BASELINE_LOSS = 0.4
LOSSES = StatsConfig(metric="val_loss", margin=0.04)


@dataclass(frozen=True)
class Noise:
    """How the runs of a study scatter."""

    name: str
    arm_spread: float = 1.0
    correlation: float = 0.0
    rounded: bool = False
    log_spread: float = 0.0
    """Standard deviation of the logarithm of a loss; 0 for accuracies."""


NOISES = (
    Noise("equal"),
    Noise("equal, correlated", correlation=0.8),
    Noise("unequal", arm_spread=2.0),
    Noise("unequal, correlated", arm_spread=2.0, correlation=0.8),
    Noise("equal, rounded", rounded=True),
)


LOSS_NOISES = (
    Noise("mild", log_spread=0.2),
    Noise("mild, correlated", log_spread=0.2, correlation=0.8),
    Noise("skewed", log_spread=0.5),
    Noise("unequal", log_spread=0.2, arm_spread=2.0),
)


@dataclass(frozen=True)
class Scenario:
    """Studies of one kind. Arms are better than the baseline by `effect`, or, where `mixed`, every second one is."""

    num_seeds: int
    num_arms: int
    noise: Noise
    effect: float = 0.0
    """In percentage points, or in the unit of a loss."""
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
    truth, metric = np.full(scenario.num_arms, scenario.effect), metric_of(scenario.settings)
    if scenario.mixed:
        truth[1::2] = 0.0
    chunks = [min(CHUNK, num_studies - start) for start in range(0, num_studies, CHUNK)]
    draw = _losses if scenario.noise.log_spread else _accuracies
    deltas = -truth if metric.lower_is_better else truth
    judged = [_judged(draw(generator, scenario, truth, size), deltas, scenario.settings) for size in chunks]
    verdicts, covered = (np.concatenate(parts) for parts in zip(*judged, strict=True))
    is_difference = np.isin(verdicts, ["better", "worse"])
    false_difference = (is_difference & (truth == 0)) | ((verdicts == "worse") & (truth > 0))
    false_equivalence = (verdicts == "equivalent") & (truth >= metric.margin)
    real = truth > 0
    return Outcome(
        scenario,
        any_false_difference=float(false_difference.any(axis=1).mean()),
        any_false_equivalence=float(false_equivalence.any(axis=1).mean()),
        any_wrong=float((false_difference | false_equivalence).any(axis=1).mean()),
        power=float((verdicts[:, real] == "better").mean()) if real.any() else float("nan"),
        coverage=float(covered.mean()),
        joint_coverage=float(covered.all(axis=1).mean()),
        num_studies=num_studies,
    )


def _numbers(scenario: Scenario) -> list[int]:
    """What makes the random stream of a scenario its own."""
    noise = (*NOISES, *LOSS_NOISES).index(scenario.noise)
    return [scenario.num_seeds, scenario.num_arms, noise, int(100 * scenario.effect), int(scenario.mixed)]


def _deviations(generator: np.random.Generator, scenario: Scenario, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal noise (studies, 1 + m, n), the baseline first, and by what an arm's is multiplied (1 + m, 1)."""
    noise, (m, n) = scenario.noise, (scenario.num_arms, scenario.num_seeds)
    shared = generator.standard_normal((size, 1, n))
    own = generator.standard_normal((size, 1 + m, n))
    spread = np.array([1.0] + [noise.arm_spread] * m)[:, None]
    return np.sqrt(noise.correlation) * shared + np.sqrt(1 - noise.correlation) * own, spread


def _accuracies(generator: np.random.Generator, scenario: Scenario, truth: np.ndarray, size: int) -> np.ndarray:
    """Fractions (studies, 1 + m, n), the baseline first."""
    deviations, spread = _deviations(generator, scenario, size)
    spread = spread * SPREAD_PP
    accuracies = BASELINE_ACCURACY + (np.array([0.0, *truth])[:, None] + spread * deviations) / 100
    return np.round(accuracies * TEST_IMAGES) / TEST_IMAGES if scenario.noise.rounded else accuracies


def _losses(generator: np.random.Generator, scenario: Scenario, truth: np.ndarray, size: int) -> np.ndarray:
    """Lognormal losses (studies, 1 + m, n) whose means are lower by the truth, the baseline first."""
    deviations, spread = _deviations(generator, scenario, size)
    spread = spread * scenario.noise.log_spread
    means = BASELINE_LOSS - np.array([0.0, *truth])[:, None]
    return means * np.exp(spread * deviations - spread**2 / 2)


def _judged(figures: np.ndarray, truth: np.ndarray, settings: StatsConfig) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts (studies, m) and whether each interval holds the truth; an arm without an interval makes no claim."""
    baseline, arms = figures[:, :1], figures[:, 1:]
    compared = stats.compare(arms, baseline, settings, num_comparisons=arms.shape[1])
    inside = ~((compared.difference.low > truth) | (compared.difference.high < truth))
    verdicts = []
    for index in range(len(figures)):
        delta = compared.difference.mean[index]
        family = [
            stats.Comparison(
                stats.Interval(delta[arm]), compared.p_value[index, arm], compared.p_equivalence[index, arm]
            )
            for arm in range(len(truth))
        ]
        verdicts.append([verdict for _, verdict in stats.verdicts(family, settings)])
    return np.array(verdicts), inside


def _run(job: tuple[Scenario, int]) -> Outcome:
    return simulate(*job)


def null_jobs(num_studies: int, settings: StatsConfig, noises: Sequence[Noise] = NOISES) -> list[tuple[Scenario, int]]:
    grid = itertools.product(SEEDS_PER_ARM, ARMS, noises)
    return [(Scenario(n, m, noise, settings=settings), num_studies) for n, m, noise in grid]


def loss_jobs(num_studies: int) -> list[tuple[Scenario, int]]:
    """Effects of every size, with equal noise and with correlated noise."""
    grid = itertools.product(SEEDS_PER_ARM, ARMS, LOSS_NOISES, EFFECTS_LOSS)
    return [(Scenario(n, m, noise, effect, settings=LOSSES), num_studies) for n, m, noise, effect in grid]


def effect_jobs(num_studies: int) -> list[tuple[Scenario, int]]:
    grid = itertools.product(SEEDS_PER_ARM, ARMS, NOISES[:4], EFFECTS_PP)
    alike = [(Scenario(n, m, noise, effect), num_studies) for n, m, noise, effect in grid]
    mixed = [(Scenario(n, 12, noise, 0.5, mixed=True), num_studies) for n in SEEDS_PER_ARM for noise in NOISES[:4]]
    return alike + mixed


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


def by_effect(
    outcomes: Sequence[Outcome], measure: str, noise: Noise, effects: Sequence[float] = EFFECTS_PP, unit: str = " pp"
) -> Iterator[str]:
    """Seeds and arms down, true effects across."""
    found = {(o.scenario.num_seeds, o.scenario.num_arms, o.scenario.effect): getattr(o, measure)
             for o in outcomes if o.scenario.noise == noise and not o.scenario.mixed}  # fmt: skip
    yield from table(
        ["seeds", "arms", *(f"{effect:g}{unit}" for effect in effects)],
        [
            [str(n), str(m), *(percent(found[n, m, effect]) for effect in effects)]
            for n, m in itertools.product(SEEDS_PER_ARM, ARMS)
        ],
    )


def report_accuracies(scale: float) -> Iterator[str]:
    """The first page, line by line."""
    nulls, effects, others = int(10_000 * scale), int(10_000 * scale), int(2000 * scale)
    plain, correlated = NOISES[0], NOISES[1]
    with ProcessPoolExecutor(initializer=prepare) as pool:
        null = list(pool.map(_run, null_jobs(nulls, StatsConfig())))
        effect = list(pool.map(_run, effect_jobs(effects)))
        flips = list(pool.map(_run, null_jobs(others, StatsConfig(test="sign_flip"), [plain])))
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
    yield f"The worst over all kinds of noise is {percent(worst.any_false_equivalence)};"
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
        ["seeds", "arms", "family-wise error, sign flips", "joint coverage, simultaneous t"],
        [
            [str(a.scenario.num_seeds), str(a.scenario.num_arms), percent(a.any_false_difference),
             percent(b.joint_coverage)]
            for a, b in zip(flips, joint, strict=True)
        ],
    )  # fmt: skip
    yield "Sign flips need nine or more seeds to decide one of twelve arms.\n"


def report_losses(scale: float) -> Iterator[str]:
    """The same of a metric that is no accuracy: skewed, lower is better, with a margin in its own unit."""
    size, (mild, correlated) = int(3000 * scale), LOSS_NOISES[:2]
    with ProcessPoolExecutor(initializer=prepare) as pool:
        null = list(pool.map(_run, null_jobs(size, LOSSES, LOSS_NOISES)))
        effect = list(pool.map(_run, loss_jobs(size)))
    yield "# A loss, where lower is better\n"
    yield "From `python benchmarks/calibration.py --part losses`, random seed"
    yield f"{SEED}, {size} studies a cell: {precision(size)}."
    yield from made_with()
    yield (__doc__ or "").split("\n\n")[3].strip() + "\n"
    yield "## No effect: studies with any `better` or `worse` (family-wise error, %)\n"
    worst = {noise: max(o.any_false_difference for o in null if o.scenario.noise == noise) for noise in LOSS_NOISES}
    unequal = worst.pop(LOSS_NOISES[-1])
    yield "At most 5 is promised where arm and baseline scatter alike;"
    yield f"the worst of these is {percent(max(worst.values()))}."
    yield "Where they do not, differences of skewed losses are skewed too, which a t test of a few does not suppose:"
    yield f"up to {percent(unequal)} here.\n"
    yield from by_noise(null, "any_false_difference", LOSS_NOISES)
    yield "## No effect: 95 % intervals of differences that hold the truth (%)\n"
    yield f"The lowest here is {percent(min(o.coverage for o in null))}.\n"
    yield from by_noise(null, "coverage", LOSS_NOISES)
    for noise in (mild, correlated):
        yield f"## A loss lower than the baseline's, {noise.name} noise: arms found `better` (power, %)\n"
        yield from by_effect(effect, "power", noise, EFFECTS_LOSS, "")
    yield "## Effects: studies with any wrong `equivalent` (%)\n"
    yield "The margin is 0.04, so that 0.04 is the hardest case; noise is mild and correlated.\n"
    yield from by_effect(effect, "any_false_equivalence", correlated, EFFECTS_LOSS, "")
    yield f"The worst over all kinds of noise is {percent(max(o.any_false_equivalence for o in effect))};"
    wrong_way = max(outcome.any_false_difference for outcome in effect)
    yield f"studies that call an arm `worse` whose mean is lower: {percent(wrong_way)};"
    yield f"the lowest coverage of intervals with effects {percent(min(o.coverage for o in effect))}.\n"


_OTHER_PAGES = (
    "| page | what it answers |",
    "|---|---|",
    "| [a loss, where lower is better](calibration_losses.md) | does a skewed figure in a unit of its own keep what is"
    " promised? |",
    "| [looks after every seed](calibration_anytime.md) | how often is `stats.test=anytime` wrong, and when does a note"
    " say so? |",
    "| [seeds until it is decided](calibration_auto.md) | what does `replicates=auto` save, and why is its test as it"
    " is? |",
    "| [looking, adding seeds, looking again](calibration_looks.md) | what do looks on record keep? |",
    "| [more seeds](calibration_seeds.md) | how many studies that follow the column `more seeds` are decided? |",
    "| [Dunnett's test](calibration_dunnett.md) | when does it find more than the paired t test, and when is it"
    " false? |",
    "",
)


def _introduction(nulls: int, effects: int) -> Iterator[str]:
    yield "# Calibration: how often verdicts and intervals are wrong\n"
    yield from paragraph(
        "Simulated studies with known truth, judged by the package's own code. This page has accuracies and the test",
        "that is the default.",
    )
    yield from _OTHER_PAGES
    yield f"From `python benchmarks/calibration.py`, random seed {SEED}.\n"
    yield (__doc__ or "").split("\n\n")[2].strip() + "\n"
    yield f"{nulls} studies a cell without an effect, {effects} with one: {precision(nulls)}."
    yield from made_with()


PARTS: dict[str, Callable[[float], Iterator[str]]] = {
    "accuracies": report_accuracies,
    "losses": report_losses,
    "anytime": calibration_anytime.report,
    "auto": calibration_auto.page,
    "seeds": calibration_seeds.report,
    "dunnett": calibration_dunnett.report,
}


def file_of(part: str) -> str:
    """Each part is a page of the documentation; accuracies are the first one."""
    return "calibration.md" if part == "accuracies" else f"calibration_{part}.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="a folder: write the pages there instead of printing them")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the studies; 0.01 for a quick look")
    parser.add_argument("--part", choices=tuple(PARTS), help="only that page")
    options = parser.parse_args()
    parts = [options.part] if options.part else list(PARTS)
    for part in parts:
        page = "\n".join(PARTS[part](options.scale)).rstrip("\n") + "\n"
        if options.out:
            (options.out / file_of(part)).write_text(page, encoding="utf-8")
        else:
            print(page)


if __name__ == "__main__":
    main()
