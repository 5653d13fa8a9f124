"""What does `replicates=auto` save?

All arms and the baseline get 3 seeds, then one at a time goes to the arms without a verdict and to the baseline, until
all have one or 30 are reached. Arms share a baseline and are independent of it; differences are normal with a standard
deviation of 1, effects and margins are in its unit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import calibration_prior
import group_sequential
import numpy as np
from calibration_page import SEED, made_with, paragraph, percent, prepare, table
from calibration_prior import holm
from scipy import stats as scipy_stats
from statsmodels.stats.power import TTestPower

from cnn_ablation.analysis import anytime
from cnn_ablation.config import StatsConfig

ALPHA, POWER = StatsConfig().alpha, 0.8
FEWEST, MOST = 3, 30
MOST_FIXED = 100  # beyond it no fixed number is looked for
GROUPED = (5, 10, 15, 20, 25, 30)
MARGINS = (1.0, 0.5)
CHUNK = 500
BETTER, WORSE, EQUIVALENT = 1, 2, 3
"""Verdicts; 0 is none."""

EFFECTS: dict[str, tuple[float, ...]] = {f"{effect:g}": (effect,) for effect in (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)}
"""Of each arm of a study, repeated."""
MIXED: dict[str, tuple[float, ...]] = {"mixed": (0.0, 0.0, 0.0, 1.0, 1.0, 3.0, 3.0, 10.0, 10.0)}

CELLS = (*((m, effect) for m in (1, 9) for effect in EFFECTS), (9, "mixed"))


@dataclass(frozen=True)
class Rule:
    """When a study is looked at, and which p-values (studies, m) decide at each of these looks."""

    looks: Sequence[int]
    decides: Callable[[np.ndarray, int, bool], np.ndarray]
    """Of p-values, the number of the look, and whether they are of one side only (those of equivalence)."""


def by_holm(p_values: np.ndarray, look: int, one_sided: bool) -> np.ndarray:  # noqa: ARG001 (the same at every look)
    return holm(p_values) <= ALPHA


EVERY_SEED = Rule(range(FEWEST, MOST + 1), by_holm)


@cache
def spending(name: str, num_arms: int) -> Rule:
    """Alpha spending with Bonferroni's correction over arms."""
    spend = group_sequential.SPENDING[name]
    of_one_side = group_sequential.one_sided_levels(ALPHA / num_arms, GROUPED, spend)
    of_two = 2 * group_sequential.one_sided_levels(ALPHA / num_arms / 2, GROUPED, spend)
    return Rule(GROUPED, lambda p, look, one_sided: p <= (of_one_side if one_sided else of_two)[look])


@dataclass(frozen=True)
class Tests:
    """p-values (studies, m, n - 1) at 2, 3, ... n seeds."""

    difference: np.ndarray
    equivalence: np.ndarray
    above: np.ndarray
    """Whether the mean lies above zero."""


def tests_of(differences: np.ndarray, margin: float, test: Callable[[np.ndarray, str], np.ndarray]) -> Tests:
    numbers = np.arange(2, differences.shape[-1] + 1)
    sides = test(differences + margin, "greater"), test(differences - margin, "less")
    above = np.cumsum(differences, axis=-1)[..., numbers - 1] > 0
    return Tests(test(differences, "two-sided"), np.maximum(*sides), above)


def t_test(differences: np.ndarray, alternative: str) -> np.ndarray:
    """p-values of Student's paired t test of the first 2, 3, ... n differences."""
    t_values, _ = anytime.t_statistics(differences)
    freedom = np.arange(1, differences.shape[-1])
    if alternative == "two-sided":
        return 2 * scipy_stats.t.sf(np.abs(t_values), freedom)
    return scipy_stats.t.sf(t_values if alternative == "greater" else -t_values, freedom)


def followed(tests: Tests, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts and seeds (studies, m) of studies in which an arm with a verdict gets no more seeds."""
    verdicts = np.zeros(tests.difference.shape[:2], int)
    seeds = np.zeros_like(verdicts)
    for look, number in enumerate(rule.looks):
        going = verdicts == 0
        seeds[going] = number
        found = _verdicts(tests, seeds, lambda p, one_sided, look=look: rule.decides(p, look, one_sided))
        verdicts = np.where(going, found, verdicts)
    return verdicts, seeds


def fixed(tests: Tests, number: int) -> np.ndarray:
    """Verdicts (studies, m) of studies with so many seeds in each arm."""
    seeds = np.full(tests.difference.shape[:2], number)
    return _verdicts(tests, seeds, lambda p, one_sided: by_holm(p, 0, one_sided))


def _verdicts(tests: Tests, seeds: np.ndarray, decides: Callable[[np.ndarray, bool], np.ndarray]) -> np.ndarray:
    def now(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, seeds[..., None] - 2, axis=-1)[..., 0]

    sign = np.where(now(tests.above), BETTER, WORSE)
    differs = decides(now(tests.difference), False)
    return np.where(decides(now(tests.equivalence), True), EQUIVALENT, np.where(differs, sign, 0))


@dataclass(frozen=True)
class Result:
    """Of one design in one cell."""

    wrong: float
    """Studies with any wrong verdict."""
    decided: float
    """Arms."""
    seeds: float
    """Of an arm, on average."""
    runs: float
    """Of a study on average, the baseline's included."""


def result(verdicts: np.ndarray, seeds: np.ndarray, truth: np.ndarray, margin: float) -> Result:
    false = (verdicts == WORSE) | ((verdicts == BETTER) & (truth == 0)) | ((verdicts == EQUIVALENT) & (truth >= margin))
    runs = seeds.sum(axis=1) + seeds.max(axis=1)
    return Result(float(false.any(axis=1).mean()), float((verdicts > 0).mean()), float(seeds.mean()),
                  float(runs.mean()))  # fmt: skip


def truth_of(num_arms: int, effect: str) -> np.ndarray:
    return np.resize((EFFECTS | MIXED)[effect], num_arms)


def simulate(num_arms: int, effect: str, num_studies: int) -> dict[float, dict[str, Result]]:
    """For each margin, what each design gives."""
    truth = truth_of(num_arms, effect)
    generator = np.random.default_rng([SEED, 4, num_arms, *(int(10 * shift) for shift in truth)])
    runs = generator.standard_normal((num_studies, 1 + num_arms, MOST_FIXED)) / np.sqrt(2)
    differences = runs[:, 1:] - runs[:, :1] + truth[:, None]
    return {margin: _designs(differences, truth, margin) for margin in MARGINS}


def _designs(differences: np.ndarray, truth: np.ndarray, margin: float) -> dict[str, Result]:
    num_arms, shown = len(truth), differences[..., :MOST]
    by_t = tests_of(differences, margin, t_test)
    by_t_shown = Tests(*(values[..., : MOST - 1] for values in (by_t.difference, by_t.equivalence, by_t.above)))
    auto = result(*followed(tests_of(shown, margin, anytime.p_values), EVERY_SEED), truth, margin)
    found = {AUTO: auto, NAIVE: result(*followed(by_t_shown, EVERY_SEED), truth, margin)}
    for name in group_sequential.SPENDING:
        found[name] = result(*followed(by_t_shown, spending(name, num_arms)), truth, margin)
    alike = _as_many_decided(by_t, auto.decided)
    if alike:
        found[ALIKE] = _of_fixed(by_t, alike, truth, margin)
    classic = classic_number(truth, margin)
    if classic <= MOST_FIXED:
        found[CLASSIC] = _of_fixed(by_t, classic, truth, margin)
    return found


AUTO, NAIVE, POCOCK = "auto", "naive", "Pocock"
ALIKE = "fixed, as many decided"
CLASSIC = "fixed, 80 % power"


def _of_fixed(tests: Tests, number: int, truth: np.ndarray, margin: float) -> Result:
    verdicts = fixed(tests, number)
    return result(verdicts, np.full_like(verdicts, number), truth, margin)


def _as_many_decided(tests: Tests, share: float) -> int | None:
    """The smallest number of seeds with which a study of fixed size decides as large a share of arms."""
    shares = ((fixed(tests, number) > 0).mean() >= share for number in range(FEWEST, MOST_FIXED + 1))
    return next((number for number, enough in enumerate(shares, start=FEWEST) if enough), None)


def classic_number(truth: np.ndarray, margin: float) -> int:
    """Seeds with which each arm's own t test at alpha / m has 80 % power: of the smallest difference to be found."""
    smallest = min([margin, *truth[truth > 0]]) if (truth == 0).any() else truth.min()
    enough = (n for n in itertools.count(FEWEST) if power(smallest, n, ALPHA / len(truth)) >= POWER)
    return next(enough)


def power(effect: float, number: int, alpha: float) -> float:
    found = TTestPower().power(effect, number, alpha / 2, alternative="larger")
    return 1.0 if np.isnan(found) else float(found)  # older scipy gives NaN where the power is next to 1


def page(scale: float) -> Iterator[str]:
    """What looking at will saves, and how its test was chosen."""
    yield "# What `replicates=auto` saves, and how its test was chosen\n"
    yield from paragraph(f"From `python benchmarks/calibration.py --part auto`, random seed {SEED}.", *made_with())
    with ProcessPoolExecutor(initializer=prepare) as pool:
        yield from report(scale, pool)
        yield from calibration_prior.report(scale, pool)


def report(scale: float, pool: Executor) -> Iterator[str]:
    studies = int(4000 * scale)
    arms, effects = zip(*CELLS, strict=True)
    results = dict(zip(CELLS, pool.map(simulate, arms, effects, itertools.repeat(studies)), strict=True))
    yield "## What `replicates=auto` saves\n"
    yield from paragraph(*(__doc__ or "").split("\n\n")[1].split())
    yield f"{studies} studies a cell. Beside it:\n"
    yield from _DESIGNS
    yield from _summary(results)
    for m, margin in itertools.product((1, 9), MARGINS):
        yield f"{m} arm{'s' if m > 1 else ''}, equivalent within ±{margin:g}: arms decided (%) / runs\n"
        names = [AUTO, ALIKE, CLASSIC, *group_sequential.SPENDING, NAIVE]
        rows = [[effect, f"{of[margin][AUTO].seeds:.1f}", *(_decided(of[margin].get(name)) for name in names)]
                for (arms, effect), of in results.items() if arms == m]  # fmt: skip
        yield from table(["effect", "auto: seeds of an arm", *names], rows)
    yield from paragraph(
        "Studies with any wrong verdict (%). Differences and equivalences are two families of 5 % each, so that up to",
        "10 is possible where some arms have no effect and others one at the margin.",
    )
    names = [AUTO, ALIKE, *group_sequential.SPENDING, NAIVE]
    rows = [[str(m), effect, f"{margin:g}", *(_wrong(of[margin].get(name)) for name in names)]
            for (m, effect), of in results.items() for margin in MARGINS]  # fmt: skip
    yield from table(["arms", "effect", "margin", *names], rows)


_DESIGNS = (
    "- A fixed number of seeds with the paired t test and Holm's method. *As many decided* is the smallest that",
    "  decides as large a share of arms as `auto` does, which nobody knows beforehand. *80 % power* is the one with",
    "  that power at alpha / m for the smallest effect (where arms have none, for the margin if that is smaller).",
    "- A group sequential t test at 5, 10, 15, 20, 25 and 30 seeds, alpha being spent after Lan and DeMets, with",
    "  Bonferroni's correction over arms. Arms with a verdict get no more seeds there either.",
    "- Naive: the t test after every seed, as if each look were the only one.\n",
)


def _summary(results: dict[tuple[int, str], dict[float, dict[str, Result]]]) -> Iterator[str]:
    cells = [designs for of in results.values() for designs in of.values()]
    naive, auto = (max(designs[name].wrong for designs in cells) for name in (NAIVE, AUTO))
    yield from paragraph(
        f"Looked at after every seed, a t test is wrong in up to {percent(naive)} % of studies, `auto` in",
        f"{percent(auto)} % at most. Of the designs that keep alpha and find all arms, `auto` takes the fewest runs",
        "where effects are two standard deviations or more. Those of one or less, and equivalence, take fewer with",
        "Pocock's spending, whose looks and end are fixed beforehand, and with a fixed number that fits an effect",
        "which nobody knows: that is the price of looking at will.",
        *(_of_mixed(margin, designs) for margin, designs in results[9, "mixed"].items()),
    )


def _of_mixed(margin: float, designs: dict[str, Result]) -> str:
    auto, alike, pocock = designs[AUTO], designs.get(ALIKE), designs[POCOCK]
    beside = (
        f"A fixed number needs {alike.runs:.0f} for as many" if alike else "No fixed number up to 100 decides as many"
    )
    return (
        f"In the mixed study (three arms without an effect, two each of 1, 3 and 10; margin {margin:g}) `auto` decides"
        f" {percent(auto.decided)} % of arms with {auto.runs:.0f} runs. {beside}; Pocock's spending decides"
        f" {percent(pocock.decided)} % with {pocock.runs:.0f}."
    )


def _decided(found: Result | None) -> str:
    return f"{percent(found.decided)} / {found.runs:.0f}" if found else "–"


def _wrong(found: Result | None) -> str:
    return percent(found.wrong) if found else "–"
