"""The part of an axis that is drawn: one wild value must not flatten all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WILD = 10.0
"""An arm that reaches so many times as far as the median arm is cut off."""
_EDGE = 0.05
_EDGE_OF_A_CUT = 0.12


@dataclass(frozen=True)
class Span:
    """Limits of an axis, and of the values inside which nothing is cut."""

    low: float
    high: float
    least: float
    most: float

    def holds(self, values: Floats) -> npt.NDArray[np.bool_]:
        """Which values are drawn where they are; NaN is nowhere, and nothing is cut of it."""
        inside: npt.NDArray[np.bool_] = ~((values < self.least) | (values > self.most))
        return inside

    def clipped(self, values: Floats) -> Floats:
        """Values with those that are cut at the edge of the axis."""
        edge = 0.25 * _EDGE * (self.high - self.low)
        at_low = np.where(values < self.least, self.low + edge, values)
        clipped: Floats = np.where(values > self.most, self.high - edge, at_low)
        return clipped


def span_of(groups: Sequence[Floats], about: float, always: Sequence[float] = ()) -> Span:
    """The span of all groups but the wild ones: those that reach ten times as far as the median one does.

    Args:
        groups: of each arm all values that are drawn of it.
        about: from where reach is measured.
        always: values that have to be seen, whatever the groups.
    """
    finite = [group[np.isfinite(group)] for group in groups]
    least = max((abs(value - about) for value in always), default=0.0)
    reaches = np.sort([max(float(np.abs(group - about).max()), least) for group in finite if len(group)])
    if not len(reaches):
        reaches = np.array([least])
    limit = reaches[-1]
    typical = reaches[(len(reaches) - 1) // 2]
    wild = reaches[(reaches > WILD * typical) & (typical > 0)]
    if len(wild):
        limit = reaches[reaches < wild[0]].max()
    values = np.concatenate([*finite, np.array([about, *always])])
    values = values[np.abs(values - about) <= limit]
    return _with_edges(float(values.min()), float(values.max()), np.concatenate([*finite, values]))


def _with_edges(least: float, most: float, values: Floats) -> Span:
    width = (most - least) or max(abs(most), 1.0) * 0.02
    below, above = (_EDGE_OF_A_CUT if is_cut else _EDGE for is_cut in (values.min() < least, values.max() > most))
    return Span(least - below * width, most + above * width, least, most)
