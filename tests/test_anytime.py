"""The test that holds at every number of seeds, against the integrals that define it and against simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate
from scipy import stats as scipy_stats

from cnn_ablation.analysis import anytime

VALUES = np.array([0.9, 1.7, 1.1, 0.2, 1.4, 2.1, 0.8])


def evidence(values: np.ndarray, side: int) -> float:
    """Mean likelihood ratio of the t statistic over effects on one side, by quadrature of noncentral t densities."""
    n, deviation = len(values), math.sqrt(anytime.PRIOR)
    t_value = scipy_stats.ttest_1samp(values, 0.0).statistic

    def integrand(effect: float) -> float:
        density = scipy_stats.nct.pdf(t_value, n - 1, side * effect * math.sqrt(n))
        return 2 * scipy_stats.norm.pdf(effect, scale=deviation) * density

    whole = integrate.quad(integrand, 0, 3)[0] + integrate.quad(integrand, 3, 15)[0]
    return float(whole / scipy_stats.t.pdf(t_value, n - 1))


@pytest.mark.parametrize("n", range(2, 8))
@pytest.mark.parametrize(("side", "alternative"), [(1, "greater"), (-1, "less")])
def test_p_value_is_one_over_the_largest_evidence_so_far(n: int, side: int, alternative: str) -> None:
    largest = max(evidence(VALUES[:count], side) for count in range(2, n + 1))
    assert anytime.p_value(VALUES[:n], alternative) == pytest.approx(min(1.0, 1 / largest), rel=1e-6)


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_p_values_are_those_of_the_first_seeds(alternative: str) -> None:
    """Also where the first seeds are equal, and where later ones lie on the other side."""
    values = np.concatenate([[2.2, 2.2], VALUES, -3 - VALUES])
    looks = anytime.p_values(np.stack([values, -values]), alternative)
    assert looks.shape == (2, len(values) - 1)
    for n in range(2, len(values) + 1):
        expected = [anytime.p_value(first[:n], alternative) for first in (values, -values)]
        np.testing.assert_array_equal(looks[:, n - 2], expected)
    assert np.isnan(looks[:, 0]).all()
    assert np.isfinite(looks[:, 1:]).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_two_sided_is_twice_the_side_of_the_mean(sign: int) -> None:
    side = "greater" if sign > 0 else "less"
    assert anytime.p_value(sign * VALUES, "two-sided") == 2 * anytime.p_value(sign * VALUES, side)


def test_two_sides_together_are_the_bayes_factor_in_closed_form() -> None:
    """Gönen et al. 2005, equation 4, of the first two values: with more the largest may be an earlier one."""
    n, g = 2, anytime.PRIOR
    t_squared = scipy_stats.ttest_1samp(VALUES[:n], 0.0).statistic ** 2
    whole = (1 + n * g) ** -0.5 * ((1 + t_squared / (n - 1)) / (1 + t_squared / ((n - 1) * (1 + n * g)))) ** (n / 2)
    assert (evidence(VALUES[:n], 1) + evidence(VALUES[:n], -1)) / 2 == pytest.approx(whole, rel=1e-6)


def test_evidence_is_kept_when_later_seeds_weaken_it() -> None:
    weaker = np.append(VALUES, [-0.5, 0.1])
    assert anytime.p_value(weaker, "greater") == anytime.p_value(VALUES, "greater")


def test_evidence_for_one_side_is_none_for_the_other() -> None:
    """Seeds that turn the mean around do not turn a verdict around."""
    turned = np.concatenate([VALUES, np.full(9, -9.0) + np.linspace(0, 1, 9)])
    assert np.mean(turned) < 0
    assert anytime.p_value(turned, "two-sided") == 2 * anytime.p_value(turned, "less")


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_scale_of_values_does_not_matter(scale: float) -> None:
    assert anytime.p_value(scale * VALUES, "greater") == pytest.approx(anytime.p_value(VALUES, "greater"))


def test_equal_values_give_no_p_value_and_their_first_ones_no_evidence() -> None:
    assert math.isnan(anytime.p_value(np.full(5, 0.3), "two-sided"))
    assert math.isnan(anytime.p_value(np.full(5, 0.1) + 0.2, "two-sided"))
    first_equal = np.array([0.3, 0.3, 0.3, 0.4])
    assert anytime.p_value(first_equal, "greater") == pytest.approx(min(1.0, 1 / evidence(first_equal, 1)), rel=1e-6)


@pytest.mark.parametrize("n", [3, 5, 12])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 9])
def test_limits_are_the_means_that_are_not_rejected(n: int, alpha: float) -> None:
    values = np.resize(VALUES, n)
    low, high = anytime.limits(values, alpha)
    if math.isinf(low):
        assert anytime.smallest_p_value(n) > alpha
        return
    for limit, alternative, inwards in ((low, "greater", 1e-6), (high, "less", -1e-6)):
        assert anytime.p_value(values - limit - inwards, alternative) > alpha / 2
        assert anytime.p_value(values - limit + inwards, alternative) <= alpha / 2


def test_limits_only_ever_come_closer() -> None:
    limits = np.array([anytime.limits(VALUES[:n], 0.05) for n in range(2, 8)])
    assert (np.diff(limits[1:, 0]) >= 0).all()
    assert (np.diff(limits[1:, 1]) <= 0).all()


@pytest.mark.parametrize(("num_seeds", "alpha", "reaches"), [
    (2, 0.05, False), (3, 0.05, True), (3, 0.05 / 9, False), (4, 0.05 / 9, True),
])  # fmt: skip
def test_the_smallest_p_value_is_that_of_an_effect_without_end(num_seeds: int, alpha: float, reaches: bool) -> None:
    smallest = anytime.smallest_p_value(num_seeds)
    assert (smallest <= alpha) == reaches
    values = 1e6 + np.arange(num_seeds)
    assert anytime.p_value(values, "two-sided") == pytest.approx(smallest, rel=1e-3)


def test_many_studies_at_once_are_as_one_by_one() -> None:
    studies = np.random.default_rng(3).normal(0.5, 1, (4, 3, 9))
    together = anytime.p_value(studies, "two-sided")
    low, high = anytime.limits(studies, 0.05)
    for place in np.ndindex(4, 3):
        assert together[place] == anytime.p_value(studies[place], "two-sided")
        assert (low[place], high[place]) == anytime.limits(studies[place], 0.05)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_looking_after_every_seed_is_rarely_wrong(correlation: float) -> None:
    """A t test that is looked at so often is wrong in one of three such studies."""
    generator = np.random.default_rng(11)
    shared = math.sqrt(correlation) * generator.standard_normal((2000, 40))
    arm, baseline = (shared + math.sqrt(1 - correlation) * generator.standard_normal((2000, 40)) for _ in range(2))
    differences = arm - baseline
    ever_wrong = anytime.p_value(differences, "greater") <= 0.025
    ever_wrong |= anytime.p_value(differences, "less") <= 0.025
    low, high = anytime.limits(differences, 0.05)
    assert ever_wrong.mean() <= 0.05
    assert np.mean((low <= 0) & (high >= 0)) >= 0.95
