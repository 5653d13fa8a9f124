"""The distributions and tests that every table needs, from `scipy.special` alone.

`scipy.stats` and statsmodels, which have them all, take longer to import than a table of 500 runs takes to compute.
They are what `tests/test_distributions.py` compares these with. Degrees of freedom that are not positive give NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]


def t_ppf(probability: Any, freedom: Any) -> Any:
    """Quantile of Student's t."""
    return _where_free(freedom, special.stdtrit(freedom, probability))


def t_sf(value: Any, freedom: Any) -> Any:
    """Probability of a t of at least `value`."""
    return _where_free(freedom, special.stdtr(freedom, -np.asarray(value)))


def t_isf(probability: Any, freedom: Any) -> Any:
    """The value that t exceeds with some probability."""
    return -t_ppf(probability, freedom)


def t_logcdf(value: Any, freedom: Any) -> Any:
    """Logarithm of the probability of a t of at most `value`; from the other side above 0, where that is nearly 1."""
    value, freedom = np.broadcast_arrays(np.asarray(value, dtype=float), freedom)
    tail = special.stdtr(freedom, -np.abs(value))
    with np.errstate(divide="ignore"):
        return np.where(value < 0, np.log(tail), np.log1p(-tail))[()]


def chi2_ppf(probability: Any, freedom: Any) -> Any:
    """Quantile of chi-squared."""
    return _where_free(freedom, 2 * special.gammaincinv(np.asarray(freedom) / 2, probability))


def chi2_pdf(value: Any, freedom: Any) -> Any:
    """Density of chi-squared at positive values."""
    half = np.asarray(freedom) / 2.0
    logarithm = special.xlogy(half - 1, value) - np.asarray(value) / 2.0 - special.gammaln(half) - np.log(2) * half
    return _where_free(freedom, np.exp(logarithm))


def f_ppf(probability: Any, freedom: float, freedom_below: float) -> Any:
    """Quantile of F."""
    return special.fdtri(freedom, freedom_below, probability)


def normal_ppf(probability: Any) -> Any:
    """Quantile of the standard normal distribution."""
    return special.ndtri(probability)


def normal_pdf(value: Any) -> Any:
    """Density of the standard normal distribution."""
    return np.exp(-(np.asarray(value) ** 2) / 2.0) / math.sqrt(2 * math.pi)


def standard_error(values: Floats) -> Any:
    """Of the mean of values (..., n)."""
    return np.std(values, axis=-1, ddof=1) / math.sqrt(values.shape[-1])


def zscores(values: Floats) -> Any:
    """Values (..., n) less their mean, in units of their standard deviation."""
    return (values - np.mean(values, axis=-1, keepdims=True)) / np.std(values, axis=-1, keepdims=True)


def t_test(values: Floats, alternative: str) -> Any:
    """p-value of Student's test that values (..., n) have the mean 0 (1908).

    Args:
        values: two or more.
        alternative: `two-sided`, `greater` or `less`.
    """
    number = values.shape[-1]
    statistic = np.mean(values, axis=-1) / np.sqrt(np.var(values, axis=-1, ddof=1) / number)
    if alternative == "two-sided":
        return 2 * t_sf(np.abs(statistic), number - 1)
    return t_sf(statistic if alternative == "greater" else -statistic, number - 1)


def welch_width(first: Floats, second: Floats, confidence: float) -> Any:
    """Width of the interval of the difference of two means, (..., n) values each, whatever their variances (1947)."""
    shares = [np.var(values, axis=-1, ddof=1) / values.shape[-1] for values in (first, second)]
    below = sum(share**2 / (values.shape[-1] - 1) for share, values in zip(shares, (first, second), strict=True))
    total = shares[0] + shares[1]
    return 2 * t_ppf((1 + confidence) / 2, total**2 / below) * np.sqrt(total)


def holm(p_values: Floats) -> Floats:
    """p-values (m,) corrected for their number by Holm's step-down method (1979)."""
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def halton(count: int, bases: Sequence[int]) -> Floats:
    """The first points (count, bases) of Halton's sequence (1960), evenly spread over the unit square or cube."""
    return np.stack([_van_der_corput(count, base) for base in bases], axis=1)


def _van_der_corput(count: int, base: int) -> Floats:
    """Numbers 0, 1, ... with their digits mirrored at the point."""
    numbers, found, place = np.arange(count), np.zeros(count), 1.0 / base
    while numbers.any():
        numbers, digits = np.divmod(numbers, base)
        found += digits * place
        place /= base
    return found


def _where_free(freedom: Any, value: Any) -> Any:
    return np.where(np.asarray(freedom) > 0, value, math.nan)[()]
