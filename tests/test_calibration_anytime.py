"""What the calibration of looks after every seed computes, against independent formulas and small studies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import calibration_anytime
import calibration_auto
import calibration_page
import calibration_prior
import calibration_skewness
import group_sequential
import numpy as np
import pytest
from calibration_anytime import Cell, Noise
from scipy import special
from scipy import stats as scipy_stats

from cnn_ablation.analysis import anytime, stats
from cnn_ablation.config import StatsConfig

NORMAL = calibration_anytime.NOISES[0]


@pytest.mark.parametrize(("count", "total"), [(0, 200), (7, 200), (200, 200)])
def test_an_interval_of_a_share_is_clopper_and_pearsons(count: int, total: int) -> None:
    low = special.betaincinv(count, total - count + 1, 0.025) if count else 0.0
    high = special.betaincinv(count + 1, total - count, 0.975) if count < total else 1.0
    assert calibration_page.interval(count, total) == pytest.approx((low, high))


def moments(noise: Noise) -> Iterator[float]:
    """Standard deviation of the baseline and of an arm."""
    if noise.kind == "lognormal":
        for spread, scale in ((0.5, 1.0), (0.5 * noise.arm_log_scale, noise.arm_scale)):
            yield scale * math.sqrt(math.exp(spread**2) - 1)
    elif noise.kind == "student":
        yield from (math.sqrt(3),) * 2
    else:
        spread = noise.spread_pp / 100 or 1.0
        rounding = 1 / 540 if noise.spread_pp else 0.0
        yield from (math.sqrt(spread**2 + rounding**2 / 12),) * 2  # Sheppard's correction


@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("noise", calibration_anytime.NOISES, ids=lambda noise: noise.name)
def test_figures_have_the_moments_that_the_page_names(noise: Noise, correlation: float) -> None:
    found = calibration_anytime.figures(Cell(noise, correlation, 1), 4000, np.random.default_rng(3))
    assert found.shape == (4000, 2, 40)
    baseline, arm = np.moveaxis(found, 1, 0).reshape(2, -1)
    expected = list(moments(noise))
    tolerance = 0.1 if noise.kind in ("student", "lognormal") else 0.01  # a few values make most of their variance
    assert [baseline.std(), arm.std()] == pytest.approx(expected, rel=tolerance)
    assert [baseline.mean(), arm.mean()] == pytest.approx([0, 0], abs=0.02 * max(expected))
    if noise.kind == "normal":
        assert np.corrcoef(baseline, arm)[0, 1] == pytest.approx(correlation, abs=0.01)
    else:
        assert scipy_stats.spearmanr(baseline, arm).statistic == pytest.approx(0.96 * correlation, abs=0.06)


def verdicts_at_looks(differences: np.ndarray, margin: float) -> tuple[int, int]:
    """Studies (studies, m, looks) with a difference, and with an equivalence, at any look from three seeds on."""
    sides = anytime.p_values(differences + margin, "greater"), anytime.p_values(differences - margin, "less")
    families = anytime.p_values(differences, "two-sided"), np.maximum(*sides)
    differ, same = (calibration_prior.holm(p_values)[..., 1:] <= StatsConfig().alpha for p_values in families)
    return int(differ.any(axis=(1, 2)).sum()), int(same.any(axis=(1, 2)).sum())


def test_intervals_count_the_false_verdicts_of_all_looks() -> None:
    """Skewed noise, where false ones are frequent; p-values and Holm's method look after every seed."""
    noise = calibration_anytime.NOISES[3]
    found = calibration_anytime.differences(Cell(noise, 0.8, 3), 200, np.random.default_rng(4))[..., :20]
    margin = noise.margin
    nulls, above, below = (verdicts_at_looks(found + shift, margin) for shift in (0, margin, -margin))
    expected = [nulls[0], above[1], below[1]]
    assert calibration_anytime.errors(found, margin)[:3] == expected
    assert min(expected[:2]) > 20


def test_coverage_counts_intervals_of_single_arms() -> None:
    found = calibration_anytime.differences(Cell(NORMAL, 0.0, 2), 50, np.random.default_rng(5))
    low, high = anytime.limits(found, 0.05)
    assert calibration_anytime.errors(found, 3.0)[3] == ((low <= 0) & (high >= 0)).sum()
    half = anytime.critical_t(40, 0.05) * scipy_stats.sem(found, axis=-1)
    assert calibration_anytime.errors(found, 3.0)[4] == (np.abs(found.mean(axis=-1)) <= half).sum()


def test_family_wise_error_of_the_anytime_test() -> None:
    """With 400 studies, a true 5 % shows above 9 % once in a thousand times; the random seed is fixed."""
    outcome = calibration_anytime.simulate(Cell(NORMAL, 0.8, 9), 400)
    errors = outcome.false_difference, outcome.false_equivalence_above, outcome.false_equivalence_below
    assert max(errors) / 400 < 0.09
    assert outcome.covered > 0.94
    page = "\n".join(calibration_anytime._promise([outcome], ("false_difference",)))
    assert f"{calibration_page.percent(outcome.false_difference / 400)}" in page


def test_a_broken_promise_is_named() -> None:
    outcome = calibration_anytime.simulate(Cell(calibration_anytime.NOISES[3], 0.8, 9), 100)
    share = calibration_page.percent(outcome.false_difference / 100)
    page = "\n".join(calibration_anytime._promise([outcome], ("false_difference",)))
    assert "It does not hold" in page
    assert f"- skewed, arms twice the log spread, correlation 0.8: {share} with 9 arms" in page


def test_the_note_stands_at_most_false_verdicts_of_several_skewed_arms() -> None:
    cell = Cell(calibration_anytime.NOISES[3], 0.8, 9)
    found = calibration_anytime.differences(cell, 200, np.random.default_rng(6))
    at_40 = calibration_skewness.told(found, cell.noise.margin)[-3:]
    differ, above, _ = calibration_anytime.errors(found, cell.noise.margin)[:3]
    assert min(differ, above) > 40
    assert at_40[0] > 190
    assert max(at_40[1:]) <= 2


def test_without_skewness_no_false_verdict_has_the_note() -> None:
    differences = np.stack([np.tile([0.9, 1.1], 10), np.tile([-0.1, 0.1], 10)])[:, None]
    assert calibration_skewness.told(differences, 3.0)[3:6] == [0, 1, 0]


def test_mixtures_are_means_of_evidence() -> None:
    t_values = np.array([[0.5, 3.0, 9.0]])
    single = [np.exp(calibration_prior.evidence(t_values, (variance,))) for variance in (1.0, 30.0)]
    assert np.exp(calibration_prior.evidence(t_values, (1.0, 30.0))) == pytest.approx(np.mean(single, axis=0))
    assert single[0] == pytest.approx(np.exp(anytime.log_evidence(t_values, np.array([2, 3, 4]), 1.0)))


def test_the_first_look_is_at_three_seeds_or_later() -> None:
    reached = np.array([[True, False, False, True], [True, True, False, False], [True, False, False, False]])
    assert calibration_prior.first_look(reached).tolist() == [5, 3, math.inf]


def test_seeds_to_find_are_those_at_which_the_p_value_falls_below_alpha() -> None:
    found = calibration_prior.seeds_to_find(2.0, 60)
    generator = np.random.default_rng([calibration_page.SEED, 2, 20])
    differences = 2.0 + generator.standard_normal((60, 40))
    p_values = anytime.p_values(differences, "greater")
    seeds = [next(n for n in range(3, 41) if row[n - 2] <= 0.025 / 9) for row in p_values]
    assert found["10", 9] == (np.mean(seeds), 1.0)


def test_holm_is_that_of_the_tables() -> None:
    p_values = np.random.default_rng(7).uniform(0, 0.1, (4, 5, 3))
    p_values[0, 1, 2] = math.nan
    corrected = calibration_prior.holm(p_values)
    for study, look in np.ndindex(4, 3):
        expected = stats.holm(p_values[study, :, look].tolist())
        assert corrected[study, :, look] == pytest.approx(np.nan_to_num(expected, nan=1.0))


def test_closed_testing_asks_every_set_that_holds_the_arm() -> None:
    e_values = np.random.default_rng(8).exponential(20, (3, 4, 2))
    found = calibration_prior.closed(e_values)
    sets = [chosen for size in range(1, 5) for chosen in itertools.combinations(range(4), size)]
    for study, arm in np.ndindex(3, 4):
        best = [
            max(e_values[study, list(s), :1].mean(0)[0], e_values[study, list(s), 1].mean()) for s in sets if arm in s
        ]
        assert found[study, arm, 1] == pytest.approx(min(1.0, 1 / min(best)))


def test_closed_testing_finds_no_less_than_holm_on_the_same_evidence() -> None:
    by_holm, by_closure = calibration_prior.corrections(9, 30)
    assert by_holm.shape == (30, 9)
    assert (by_closure <= 40).mean() >= (by_holm <= 40).mean() > 0.9
    assert by_closure.clip(max=40).mean() < by_holm.clip(max=40).mean()


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("Pocock", [2.4380, 2.4268, 2.4101, 2.3966, 2.3859]),
        ("O'Brien-Fleming", [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]),
    ],
)
def test_levels_are_the_published_bounds(name: str, bounds: list[float]) -> None:
    """Two-sided 0.05 at five equally spaced looks: tables of the program of Reboussin et al. 2000."""
    levels = group_sequential.one_sided_levels(0.025, (1, 2, 3, 4, 5), group_sequential.SPENDING[name])
    assert scipy_stats.norm.isf(levels) == pytest.approx(bounds, abs=2e-4)


@pytest.mark.parametrize("name", group_sequential.SPENDING)
def test_levels_spend_alpha_over_unequal_looks(name: str) -> None:
    looks = (5, 6, 20)
    levels = group_sequential.one_sided_levels(0.05, looks, group_sequential.SPENDING[name])
    sums = np.random.default_rng(9).standard_normal((200_000, 20)).cumsum(axis=1)[:, np.array(looks) - 1]
    crossed = (sums / np.sqrt(looks) > scipy_stats.norm.isf(levels)).any(axis=1)
    assert crossed.mean() == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_running_t_tests_are_those_of_the_tables(alternative: str) -> None:
    differences = np.random.default_rng(10).normal(0.3, 1, (3, 2, 9))
    found = calibration_auto.t_test(differences, alternative)
    for n in range(2, 10):
        assert found[..., n - 2] == pytest.approx(stats.TESTS["t"](differences[..., :n], alternative))


def test_an_arm_with_a_verdict_gets_no_more_seeds() -> None:
    """Two arms: the first is decided at four seeds and its later p-values do not matter, the second never."""
    difference = np.array([[[1, 0.03, 0.001, 0.9, 0.9], [1, 1, 1, 1, 1]]], float)
    tests = calibration_auto.Tests(difference, np.ones_like(difference), np.full(difference.shape, True))
    rule = calibration_auto.Rule(range(3, 7), calibration_auto.by_holm)
    verdicts, seeds = calibration_auto.followed(tests, rule)
    assert verdicts.tolist() == [[calibration_auto.BETTER, 0]]
    assert seeds.tolist() == [[4, 6]]  # at three seeds Holm asks for 0.025
    found = calibration_auto.result(verdicts, seeds, np.array([0.0, 1.0]), 0.5)
    assert found == calibration_auto.Result(wrong=1.0, decided=0.5, seeds=5.0, runs=16.0)


def test_a_verdict_stays_where_later_looks_ask_for_more() -> None:
    p_values = np.full((1, 1, 3), 0.015)
    tests = calibration_auto.Tests(p_values, np.ones_like(p_values), p_values > 0)
    rule = calibration_auto.Rule((3, 4), lambda p, look, one_sided: p <= (0.02, 0.01)[look])
    verdicts, seeds = calibration_auto.followed(tests, rule)
    assert (verdicts.item(), seeds.item()) == (calibration_auto.BETTER, 3)


def test_equivalence_goes_before_a_difference_and_is_false_from_the_margin_on() -> None:
    small = np.full((1, 1, 2), 0.01)
    verdicts = calibration_auto.fixed(calibration_auto.Tests(small, small, small > 0), 3)
    assert verdicts.tolist() == [[calibration_auto.EQUIVALENT]]
    for truth, wrong in ((0.0, 0.0), (0.4, 0.0), (0.5, 1.0)):
        found = calibration_auto.result(verdicts, np.array([[3]]), np.array([truth]), 0.5)
        assert found.wrong == wrong


@pytest.mark.parametrize(("effect", "num_arms", "expected"), [(1.0, 1, 10), (1.0, 9, 17), (0.5, 1, 34)])
def test_classic_numbers_are_those_of_a_power_analysis(effect: float, num_arms: int, expected: int) -> None:
    """Noncentral t: the smallest number with 80 % power on the right side, at 0.05 over the number of arms."""
    found = calibration_auto.classic_number(np.full(num_arms, effect), margin=1.0)
    powers = [
        scipy_stats.nct.sf(scipy_stats.t.isf(0.025 / num_arms, n - 1), n - 1, effect * math.sqrt(n))
        for n in (found - 1, found)
    ]
    assert powers[0] < 0.8 <= powers[1]
    assert found == expected


def test_stopping_where_decided_saves_runs_and_naive_looks_err() -> None:
    designs = calibration_auto.simulate(9, "mixed", 60)[1.0]
    assert designs["auto"].wrong <= 0.15
    assert designs["naive"].wrong > designs["auto"].wrong
    assert designs["auto"].runs < designs[calibration_auto.ALIKE].runs
    assert designs[calibration_auto.ALIKE].decided >= designs["auto"].decided
    assert designs["auto"].runs == pytest.approx(9 * designs["auto"].seeds + 30, abs=3)


@pytest.mark.parametrize("part", [calibration_prior.report, calibration_auto.report], ids=["prior", "auto"])
def test_parts_of_the_page_are_written(part: Callable[..., Iterator[str]]) -> None:
    with ThreadPoolExecutor(1) as pool:
        page = "\n".join(part(0.005, pool))
    assert page.startswith("## ")
    assert "nan" not in page
    prose = [line for line in page.splitlines() if not line.startswith("|")]
    assert max(len(line) for line in prose) <= 120
