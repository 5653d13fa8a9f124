"""Arms whose runs are another arm's bit for bit: their knob did nothing, so that they are no evidence of anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from cnn_ablation.analysis.tables.input import LOSSES
from cnn_ablation.analysis.tables.rows import ArmRuns, on_shared_seeds
from cnn_ablation.study.metric import ACCURACIES


def identical_arms(arms: dict[str, ArmRuns]) -> dict[str, str]:
    """Arm -> the first arm before it with the same accuracies, losses and metric in every seed that both have.

    Losses are continuous: that all of them are equal is no chance. A table of runs without losses cannot tell; a metric
    of a task's own counts as one where its name ends in `loss`.

    Args:
        arms: by name, the one that others are compared with first.
    """
    found: dict[str, str] = {}
    seen = defaultdict[tuple[int, float], list[str]](list)
    for name, arm in arms.items():
        keys = list(_keys(arm.scored))
        earlier = dict.fromkeys(candidate for key in keys for candidate in seen[key])
        same = [candidate for candidate in earlier if _are_identical(arm.scored, arms[candidate].scored)]
        if same:
            found[name] = same[0]
        for key in keys:
            seen[key].append(name)
    return found


def _keys(arm: ArmRuns) -> Iterator[tuple[int, float]]:
    """What identical runs share, to find them without comparing every arm with every other: seed and a loss."""
    column = next((name for name in _losses(arm) if name in arm and np.isfinite(arm[name]).any()), None)
    if column:
        yield from zip(arm["seed"].tolist(), arm[column].tolist(), strict=True)


def _are_identical(arm: ArmRuns, other: ArmRuns) -> bool:
    first, second = on_shared_seeds(arm, other)
    named = dict.fromkeys((*ACCURACIES, *_losses(arm), arm.metric))
    columns = [name for name in named if name in first and not _is_hidden(name, first, second)]
    if not any(_tells(first[name]) for name in columns if name in _losses(arm)):
        return False
    return all(np.array_equal(first[name], second[name], equal_nan=True) for name in columns)


def _losses(arm: ArmRuns) -> tuple[str, ...]:
    return (*LOSSES, arm.metric) if arm.metric.endswith("loss") else LOSSES


def _is_hidden(column: str, *sides: ArmRuns) -> bool:
    """A greedy study shows no test figure of what validation dropped."""
    return column.startswith("test") and any(np.isnan(side[column]).all() for side in sides)


def _tells(losses: Sequence[float] | np.ndarray) -> bool:
    """Whether losses are such that equality is no chance: no zeros of a perfect fit, and not the same for all seeds."""
    values = np.asarray(losses)
    return bool(np.isfinite(values).all() and (values != 0).all() and (len(values) == 1 or np.ptp(values) > 0))
