"""Levels of a group sequential test: an error of alpha is spent over looks that were fixed beforehand.

Lan and DeMets 1983. The estimate is a Brownian motion in the share of seeds that are in; its density below all bounds
so far is integrated from look to look (Armitage, McPherson and Rowe 1969).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import optimize
from scipy import stats as scipy_stats

Spending = Callable[[np.ndarray, float], np.ndarray]
GRID = 401  # places of the density; odd, as Simpson's rule needs
TAIL = 9.0  # standard deviations below which nothing lies


def pocock(share: np.ndarray, alpha: float) -> np.ndarray:
    """About equal levels at all looks."""
    return alpha * np.log1p((math.e - 1) * share)


def obrien_fleming(share: np.ndarray, alpha: float) -> np.ndarray:
    """Next to nothing at the first looks."""
    return 2 * scipy_stats.norm.sf(scipy_stats.norm.isf(alpha / 2) / np.sqrt(share))


SPENDING: dict[str, Spending] = {"Pocock": pocock, "O'Brien-Fleming": obrien_fleming}


def one_sided_levels(alpha: float, looks: Sequence[int], spending: Spending) -> np.ndarray:
    """The p-value of a one-sided test that rejects at each look.

    Args:
        alpha: error over all looks.
        looks: numbers of seeds, rising.
        spending: how much of alpha is spent once a share of the seeds is in.
    """
    shares = np.asarray(looks) / looks[-1]
    spent = np.diff(spending(shares, alpha), prepend=0.0)
    places, masses, before = np.zeros(1), np.ones(1), 0.0
    levels = []
    for share, spend in zip(shares, spent, strict=True):
        step = math.sqrt(share - before)
        bound = optimize.brentq(_excess, 0.0, 12 * math.sqrt(share), args=(places, masses, step, spend), xtol=1e-10)
        levels.append(scipy_stats.norm.sf(bound / math.sqrt(share)))
        beyond = np.linspace(-TAIL * math.sqrt(share), bound, GRID)
        density = scipy_stats.norm.pdf(beyond[:, None], places, step) @ masses
        places, masses, before = beyond, density * _weights(beyond), share
    return np.array(levels)


def _excess(bound: float, places: np.ndarray, masses: np.ndarray, step: float, spend: float) -> float:
    """How much more than `spend` lies above the bound one step on."""
    return float(scipy_stats.norm.sf(bound, places, step) @ masses) - spend


def _weights(places: np.ndarray) -> np.ndarray:
    """Simpson's, of equally spaced places."""
    weights = np.where(np.arange(len(places)) % 2, 4.0, 2.0)
    weights[[0, -1]] = 1.0
    return weights * (places[1] - places[0]) / 3
