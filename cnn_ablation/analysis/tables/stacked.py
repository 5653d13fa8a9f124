"""One call of a function for all samples of the same length: a call per arm would take most of a table's time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from cnn_ablation.analysis.stats import Floats

T = TypeVar("T")


def at_once(function: Callable[..., T], samples: Sequence[tuple[Floats, ...]]) -> list[T]:
    """`function` of every sample, called once per length of samples with all of that length stacked."""
    places: dict[int, list[int]] = {}
    for place, sample in enumerate(samples):
        places.setdefault(len(sample[0]), []).append(place)
    results: dict[int, T] = {}
    for alike in places.values():
        stacked = [np.stack(arrays) for arrays in zip(*(samples[place] for place in alike), strict=True)]
        results |= dict(zip(alike, _one_by_one(function(*stacked), len(alike)), strict=True))
    return [results[place] for place in range(len(samples))]


def _one_by_one(value: Any, count: int) -> list[Any]:
    """The entries of numbers, or of dataclasses of numbers, that were computed for `count` at once."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [_one_by_one(getattr(value, item.name), count) for item in dataclasses.fields(value)]
        return [type(value)(*entries) for entries in zip(*fields, strict=True)]
    found: list[Any] = np.broadcast_to(np.asarray(value, dtype=float), (count,)).tolist()
    return found
