"""Distributions and tests against scipy.stats and statsmodels, which take too long to import."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.stats import qmc
from statsmodels.stats.multitest import multipletests

from cnn_ablation.analysis import distributions
from cnn_ablation.analysis.stats import pairing_widens

PROBABILITIES = np.array([1e-12, 1e-4, 0.025, 0.3, 0.5, 0.8, 0.975, 1 - 1e-9])
VALUES = np.array([-300.0, -40.0, -5.0, -1.3, -1e-9, 0.0, 1e-9, 0.7, 4.0, 60.0, 900.0])
FREEDOMS = np.array([1, 2, 3.7, 9, 30, 999])[:, None]
CLOSE = {"rtol": 1e-14, "atol": 0.0}


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (stats.t.ppf(PROBABILITIES, FREEDOMS), distributions.t_ppf(PROBABILITIES, FREEDOMS)),
        (stats.t.isf(PROBABILITIES, FREEDOMS), distributions.t_isf(PROBABILITIES, FREEDOMS)),
        (stats.t.sf(VALUES, FREEDOMS), distributions.t_sf(VALUES, FREEDOMS)),
        (stats.t.logcdf(VALUES, FREEDOMS), distributions.t_logcdf(VALUES, FREEDOMS)),
        (stats.chi2.ppf(PROBABILITIES, FREEDOMS), distributions.chi2_ppf(PROBABILITIES, FREEDOMS)),
        (stats.chi2.pdf(VALUES[6:], FREEDOMS), distributions.chi2_pdf(VALUES[6:], FREEDOMS)),
        (stats.f.ppf(PROBABILITIES[:-1], 3, 8.5), distributions.f_ppf(PROBABILITIES[:-1], 3, 8.5)),
        (stats.norm.ppf(PROBABILITIES), distributions.normal_ppf(PROBABILITIES)),
        (stats.norm.pdf(VALUES), distributions.normal_pdf(VALUES)),
        (stats.t.ppf(0.9, [-1, 0, 1]), distributions.t_ppf(0.9, [-1, 0, 1])),
        (stats.t.sf(0.9, 0), distributions.t_sf(0.9, 0)),
        (qmc.Halton(2, scramble=False).random(5000), distributions.halton(5000, (2, 3))),
    ],
    ids=[
        "t_ppf",
        "t_isf",
        "t_sf",
        "t_logcdf",
        "chi2_ppf",
        "chi2_pdf",
        "f_ppf",
        "normal_ppf",
        "normal_pdf",
        "no_freedom",
        "none",
        "halton",
    ],
)
def test_a_distribution_is_that_of_scipy(expected: Any, found: Any) -> None:
    assert_allclose(found, expected, **CLOSE)


@pytest.fixture(params=[2, 3, 10, 40])
def samples(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Two of several arms (5, n); values far from zero, as times are, lose digits."""
    noise = np.random.default_rng(request.param)
    return noise.normal(100, 1, (5, request.param)), noise.normal(100.5, 3, (5, request.param))


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_the_t_test_is_that_of_scipy(samples: tuple[Any, Any], alternative: str) -> None:
    differences = samples[0] - samples[1]
    expected = stats.ttest_1samp(differences, 0.0, axis=-1, alternative=alternative).pvalue
    assert_allclose(distributions.t_test(differences, alternative), expected, rtol=1e-12)


def test_moments_are_those_of_scipy(samples: tuple[Any, Any]) -> None:
    assert_allclose(distributions.standard_error(samples[0]), stats.sem(samples[0], axis=-1), **CLOSE)
    assert_allclose(distributions.zscores(samples[0]), stats.zscore(samples[0], axis=-1), rtol=1e-12, atol=1e-12)


def test_the_width_of_an_unpaired_interval_is_that_of_scipy(samples: tuple[Any, Any]) -> None:
    low, high = stats.ttest_ind(*samples, axis=-1, equal_var=False).confidence_interval(0.95)
    assert_allclose(distributions.welch_width(*samples, 0.95), high - low, rtol=1e-12)


def test_without_spread_there_is_no_width_to_compare_with() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(pairing_widens(np.array([0.5, 0.5, 0.5]), np.array([0.25, 0.25, 0.25])))


@pytest.mark.parametrize(
    "p_values",
    [
        [0.04],
        [0.01, 0.04, 0.03, 0.005],
        [0.02, 0.02, 0.9, 1.0, 0.0],
        np.random.default_rng(0).uniform(0, 0.02, 300).tolist(),
    ],
    ids=["one", "four", "ties", "many"],
)
def test_holms_correction_is_that_of_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1]
    assert distributions.holm(np.array(p_values)).tolist() == expected.tolist()


def test_a_table_needs_neither_of_them() -> None:
    check = "from cnn_ablation.report import study\nfrom cnn_ablation.launch import rounds\nimport sys\n"
    check += (
        "print(*sorted({'scipy.stats', 'scipy.optimize', 'statsmodels', 'matplotlib', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
