"""What differences a test set of a given size can resolve, told before anything is trained. Pure."""

from __future__ import annotations

import math
from statistics import NormalDist

from cnn_ablation.config import StatsConfig
from cnn_ablation.runs.task import HeldOut
from cnn_ablation.study.metric import metric_of

DISAGREEMENT = 0.05
"""The share of test examples that one of two networks has right and the other wrong: that of close competitors."""
_TWO_SIDED_95 = NormalDist().inv_cdf(0.975)


def chance_of_test_set(num_examples: int, disagreement: float = DISAGREEMENT) -> float:
    """Half-width of the 95 % range of a difference in accuracy over test sets of this size, as a fraction.

    1.96 sqrt(d / N): the variance of the mean of N paired differences that are 1 or -1 in a share d of the examples and
    0 in the others, for networks that are about equally good (McNemar 1947).
    """
    return _TWO_SIDED_95 * math.sqrt(disagreement / num_examples)


def examples_needed(margin: float, disagreement: float = DISAGREEMENT) -> int:
    """Test examples with which `chance_of_test_set` is the margin, a fraction."""
    return math.ceil(disagreement * (_TWO_SIDED_95 / margin) ** 2)


def resolution_lines(held_out: HeldOut | None, settings: StatsConfig) -> list[str]:
    """Lines of a plan; none where the test examples are not known, or arms are compared by another figure.

    Args:
        held_out: what the baseline's test accuracy is a mean over.
        settings: with the metric and the margin.
    """
    metric = metric_of(settings)
    if held_out is None or metric.column != "test_accuracy":
        return []
    size = f"{held_out.num_examples:,} test images"
    one = f"one image is {100 / held_out.num_examples:.2g} points"
    if held_out.differ_by_seed:
        return [f"{size}, drawn anew for each seed: {one}"]
    half = 100 * chance_of_test_set(held_out.num_examples)
    lines = [
        f"{size}: {one}; where two networks disagree on {100 * DISAGREEMENT:g} % of them,",
        f"  other test images would move their difference by about {half:.2g} points either way (95 %)",
    ]
    if metric.margin is not None and metric.margin < half:
        needed = _rounded(examples_needed(metric.margin / 100))
        lines += [
            f"  stats.margin_pp={metric.margin:g} is finer than that: what is equivalent on these images may",
            f"  differ on others; about {needed:,} would tell",
        ]
    return lines


def _rounded(count: int) -> int:
    """To two digits."""
    return int(float(f"{count:.1e}"))
