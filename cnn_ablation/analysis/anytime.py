"""A t test and its interval that hold at every number of seeds and under any rule of stopping.

The evidence against a mean of zero is the Bayes factor of the t statistic, with a normal prior of variance `PRIOR` on
the effect in standard deviations and the same weight on every scale (Gönen et al. 2005). Under the null it is a
martingale that begins at 1, whatever the scale, so that it ever exceeds 1 / alpha with a probability of at most alpha
(Ville 1939; Pérez-Ortiz, Lardy, de Heide and Grünwald 2022). Two of them are kept, each with half of the prior: for a
mean above zero and for one below. A larger mean gives a larger t at every number of seeds, so that each also holds
against all means on the other side of zero.

Arrays (..., n) hold one value per seed, in the order in which seeds are added.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.analysis import distributions

Floats = npt.NDArray[np.float64]

PRIOR = 10.0
"""Variance of effects in standard deviations: of 1/2 to 30 the one with which no effect from half a deviation to ten
takes many more seeds than with the prior that is best for it (`benchmarks/calibration.py --part anytime`)."""
_ROUNDING = 1e-11  # of the largest value: values that lie closer together are equal
_LARGEST_T = 1e9  # stands for infinity
_STEPS = 100  # of a bisection, each of which halves an interval: more than a float's digits


def p_value(differences: Floats, alternative: str) -> Any:
    """The smallest of 1 / evidence over all numbers of seeds so far, (...), at most 1: the last of `p_values`."""
    return p_values(differences, alternative)[..., -1][()]


def p_values(differences: Floats, alternative: str) -> Any:
    """The p-value at each look of a study that is looked at after 2, 3, ... n seeds, (..., n - 1).

    Args:
        differences: (..., n).
        alternative: "greater", "less", or "two-sided", which is twice that of the side where the mean lies then.

    Returns:
        NaN while all values are equal: there is no spread to measure them by.
    """
    if alternative == "two-sided":
        above = _running(differences)[0] > 0
        sided = np.where(above, p_values(differences, "greater"), p_values(differences, "less"))
        return np.minimum(2 * sided, 1.0)
    signed = differences if alternative == "greater" else -differences
    t_values, has_spread = t_statistics(signed)
    log_e = np.where(has_spread, log_evidence(t_values, np.arange(2, signed.shape[-1] + 1)), 0.0)
    smallest = np.exp(-np.maximum(np.maximum.accumulate(log_e, axis=-1), 0.0))
    return np.where(has_spread, smallest, math.nan)


def smallest_p_value(num_seeds: int) -> float:
    """The two-sided one that the largest effect gives."""
    return min(1.0, 2 * math.exp(-log_evidence(np.asarray(_LARGEST_T), num_seeds)))


def limits(values: Floats, alpha: float) -> tuple[Floats, Floats]:
    """The interval that holds the mean at every number of seeds at once with confidence 1 - alpha.

    The means, one for each side, that no number of seeds so far has given an evidence of 2 / alpha against. Infinite
    while seeds are too few for any such evidence; NaN where seeds contradict each other so much that none is left.
    """
    numbers = np.arange(2, values.shape[-1] + 1)
    means, errors = _running(values)
    critical = np.array([critical_t(int(number), alpha) for number in numbers])
    tells = _has_spread(values) & np.isfinite(critical)
    half = np.where(tells, np.where(tells, critical, 0.0) * errors, math.inf)
    low, high = np.max(means - half, axis=-1), np.min(means + half, axis=-1)
    is_empty = low > high
    return np.where(is_empty, math.nan, low), np.where(is_empty, math.nan, high)


@cache
def critical_t(num_seeds: int, alpha: float) -> float:
    """The t statistic from which on the evidence is 2 / alpha; infinite where none is."""
    return float(critical_ts(np.asarray([num_seeds]), alpha)[0])


def critical_ts(numbers: Any, alpha: float) -> Floats:
    """As `critical_t`, for many numbers of seeds (k,) at once."""
    wanted = math.log(2 / alpha)
    low, high = np.zeros(len(numbers)), np.full(len(numbers), _LARGEST_T)
    is_never = log_evidence(high, numbers) < wanted
    for _ in range(_STEPS):
        middle = (low + high) / 2
        is_enough = log_evidence(middle, numbers) >= wanted
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    return np.where(is_never, math.inf, high)


def log_evidence(t_values: Floats, num_seeds: Any, prior: float = PRIOR) -> Any:
    """For a mean above zero: the two-sided Bayes factor times twice the posterior probability of an effect above."""
    freedom, shrunk = num_seeds - 1, 1 + num_seeds * prior
    squares = t_values**2
    bayes_factor = (
        -np.log(shrunk) / 2
        + num_seeds / 2 * (np.log1p(squares / freedom) - np.log1p(squares / (freedom * shrunk)))
    )  # fmt: skip
    posterior = num_seeds * t_values * np.sqrt(prior / shrunk) / np.sqrt(freedom + squares / shrunk)
    return bayes_factor + math.log(2) + distributions.t_logcdf(posterior, num_seeds)


def t_statistics(values: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Of the first 2, 3, ... n values (..., n - 1), and whether these have a spread."""
    means, errors = _running(values)
    has_spread = _has_spread(values)
    return means / np.where(has_spread, errors, 1.0), has_spread


def _running(values: Floats) -> tuple[Floats, Floats]:
    """Mean and its standard error of the first 2, 3, ... n values."""
    numbers = np.arange(1, values.shape[-1] + 1)
    centred = values - values[..., :1]  # so that little is lost where values lie far from zero
    means = np.cumsum(centred, axis=-1) / numbers
    squares = np.cumsum(centred**2, axis=-1) - numbers * means**2
    freedom = np.maximum(numbers - 1, 1)
    errors = np.sqrt(np.maximum(squares, 0.0) / freedom / numbers)
    return (means + values[..., :1])[..., 1:], errors[..., 1:]


def _has_spread(values: Floats) -> npt.NDArray[np.bool_]:
    """Of the first 2, 3, ... n values: whether they differ by more than rounding."""
    ranges = np.maximum.accumulate(values, axis=-1) - np.minimum.accumulate(values, axis=-1)
    found: npt.NDArray[np.bool_] = ranges > _ROUNDING * np.max(np.abs(values), axis=-1, keepdims=True)
    return found[..., 1:]
