"""How many seeds the arms of a study probably get, where they are added until there is a verdict, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cnn_ablation.common.words import counted
from cnn_ablation.config import StudyConfig
from cnn_ablation.launch.forecast import ArmForecast
from cnn_ablation.runs.records import Run
from cnn_ablation.study.metric import Metric, for_task, metric_of

if TYPE_CHECKING:
    from cnn_ablation.analysis.anytime import Floats
    from cnn_ablation.analysis.expected import ExpectedSeeds, Rule

_MOST = 100  # of the seeds that are played through; an arm that takes more will be looked at by a person first


def lines(forecasts: Sequence[ArmForecast], baseline: StudyConfig) -> Iterator[str]:
    """What past runs of the arms, and of the first of them, which they are compared with, make likely."""
    import numpy as np  # with scipy half a second, which no other dry run takes

    from cnn_ablation.analysis import expected

    reference, *arms = forecasts
    settings = for_task(baseline.stats, [name for run in reference.past[:1] for name in run.metrics])
    metric = metric_of(settings)
    rule = expected.Rule(settings, len(arms), len(baseline.seeds), min(len(baseline.most_seeds), _MOST))
    scores = _scores(reference.past, metric)
    if len(scores) < expected.FEWEST_RUNS:
        yield f"seeds until a verdict: unknown from {counted(len(scores), 'past run')} of {reference.arm.name}"
        return
    yield "seeds until a verdict, from past runs (median, 10 to 90 %):"
    others = False
    for item in arms:
        own = _scores(item.past, metric)
        differences = np.array([own[seed] - scores[seed] for seed in scores if seed in own])
        if len(differences) < expected.FEWEST_RUNS:
            others = True
        else:
            yield f"  {item.arm.name}: {_words(expected.of_arm(differences, rule), rule)}"
    if others:
        yield from _of_unknown_arms(np.array(list(scores.values())), metric, rule)


def _of_unknown_arms(scores: Floats, metric: Metric, rule: Rule) -> Iterator[str]:
    """From the spread of the baseline alone."""
    import numpy as np

    from cnn_ablation.analysis import expected

    effect = 1.0 if metric.is_accuracy else float(np.std(scores, ddof=1))
    name = "1 point" if metric.is_accuracy else f"{effect:.3g} in {metric.column}, the spread of the baseline's runs"
    yield f"  another arm with an effect of {name}: {_words(expected.of_effect(effect, scores, rule), rule)}"
    if metric.margin is not None:
        yield f"  another arm without any effect: {_words(expected.of_effect(0.0, scores, rule), rule)}"
    yield "  (if pairing by seed gains nothing)"


def _scores(runs: Sequence[Run], metric: Metric) -> dict[int, float]:
    """As they are shown, by seed, of runs that have the metric."""
    figures = {run.seed: metric.factor * run.figure(metric.column) for run in runs}
    return {seed: figure for seed, figure in sorted(figures.items()) if not math.isnan(figure)}


def _words(found: ExpectedSeeds, rule: Rule) -> str:
    low, median, high = (
        f"more than {rule.most}" if math.isinf(each) else f"{each:.0f}"
        for each in (found.low, found.median, found.high)
    )
    return median if low == high else f"{median} ({low} to {high})"
