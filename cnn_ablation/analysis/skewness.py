"""Are differences from the baseline markedly skewed?

Tests of a mean suppose that differences are about symmetric. Where they have a long tail, seeds that have not met it
yet show a mean on the other side of the truth with a small spread, and a verdict errs more often than its level says.
The sample of one arm cannot tell, because it lacks the tail; the arms of a study together often can.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FEWEST = 8
"""Seeds below which the skewness of an arm says nothing."""
LEAST = 0.5
"""A smaller mean skewness over arms does no harm that matters."""
ERRORS = 2.0
"""Standard errors of the mean skewness: those of normal differences pass them in one study of twenty."""
_SHARED = 1 / 8  # correlation of two arms' skewness, as differences from one baseline correlate by a half


def marked(differences: Sequence[Floats]) -> Any:
    """The mean skewness over arms where it is too large for symmetric differences, else 0.

    Args:
        differences: (..., n) of each arm, one per seed; arms with fewer than `FEWEST` are left out.

    Returns:
        (...). Positive where the long tail lies above.
    """
    told = [values for values in differences if values.shape[-1] >= FEWEST]
    if not told:
        return 0.0
    mean = np.mean([skewness(values) for values in told], axis=0)
    errors = np.array([standard_error(values.shape[-1]) for values in told])
    variance = (1 - _SHARED) * np.sum(errors**2) + _SHARED * np.sum(errors) ** 2
    limit = max(LEAST, ERRORS * math.sqrt(variance) / len(told))
    return np.where(np.abs(mean) >= limit, mean, 0.0)[()]


def skewness(values: Floats) -> Any:
    """Of samples (..., n), adjusted for n (Fisher's G1); 0 where all values are equal."""
    number = values.shape[-1]
    centred = values - np.mean(values, axis=-1, keepdims=True)
    squares, cubes = np.mean(centred**2, axis=-1), np.mean(centred**3, axis=-1)
    is_equal = np.ptp(values, axis=-1) == 0
    biased = np.where(is_equal, 0.0, cubes / np.where(is_equal, 1.0, squares) ** 1.5)
    return math.sqrt(number * (number - 1)) / (number - 2) * biased


def standard_error(number: int) -> float:
    """Of the skewness of so many normal values."""
    return math.sqrt(6 * number * (number - 1) / ((number - 2) * (number + 1) * (number + 3)))
