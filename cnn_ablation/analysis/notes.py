"""Confounds and diagnoses in words: numbers in, short phrases for the notes of a table out.

A confound is what an arm changes besides its knob; a diagnosis is why its score may be what it is. Phrases come only
beyond thresholds, so that ordinary arms stay without notes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from cnn_ablation.runs.task import Cost

MIN_DEAD_SHARE = 0.10
MIN_SATURATED_SHARE = 0.25
MIN_GRADIENT_RATIO = 4.0
MIN_GAP_PP = 10.0
MIN_WIDENING = 1.05
MIN_RELATIVE_SPREAD = 2.0
MIN_PROCESSOR_SHARE = 0.8  # undisturbed runs have 0.95 and more
CHANCE_LOSS_SHARE = 0.98  # a loss that never fell below this share of ln K has learnt nothing


def confounds(arm: Cost, baseline: Cost) -> Iterator[str]:
    """What changed against the baseline besides the knob itself: "4x fewer updates", "+18 % parameters"."""
    updates = _ratio(arm.updates, baseline.updates)
    if not 1 / 1.05 <= updates <= 1.05:
        yield f"{updates:.2g}x more updates" if updates > 1 else f"{1 / updates:.2g}x fewer updates"
    params = _ratio(arm.num_params, baseline.num_params) - 1
    if abs(params) >= 0.005:
        yield f"{100 * params:+.0f} % parameters"
    work = _ratio(arm.multiply_adds, baseline.multiply_adds)
    if not 1 / 1.05 <= work <= 1.05:
        yield f"{work:.2g}x the work per image" if work > 1 else f"{1 / work:.2g}x less work per image"


def _ratio(value: float, reference: float) -> float:
    """1 where it cannot be told."""
    ratio = value / reference if reference else math.nan
    return ratio if math.isfinite(ratio) and ratio > 0 else 1.0


def dead_units(share: float, layer: str) -> Iterator[str]:
    """Units that gave exactly 0 for every image watched: no gradient reaches them."""
    if share >= MIN_DEAD_SHARE:
        yield f"{100 * share:.0f} % dead {layer or 'units'}"


def saturated_outputs(share: float, layer: str) -> Iterator[str]:
    """Outputs of a sigmoid or tanh where its slope is below 5 % of its largest."""
    if share >= MIN_SATURATED_SHARE:
        yield f"{100 * share:.0f} % saturated {layer or 'units'}"


def gradient(initial_norm: float, baseline_norm: float) -> Iterator[str]:
    """How much steeper or flatter the loss is at the initial weights than the baseline's."""
    ratio = _ratio(initial_norm, baseline_norm)
    if ratio <= 1 / MIN_GRADIENT_RATIO:
        yield f"gradient {1 / ratio:.2g}x smaller at the start"
    elif ratio >= MIN_GRADIENT_RATIO:
        yield f"gradient {ratio:.2g}x larger at the start"


def skewed(skewness: float, verdict: str, difference: float) -> Iterator[str]:
    """A verdict against the long tail of the differences, which the seeds so far may lack.

    Args:
        skewness: of the study's differences, where it is marked; 0 where it is not.
        verdict: of the arm.
        difference: from the baseline.
    """
    is_against = verdict == "equivalent" or (verdict in ("better", "worse") and skewness * difference < 0)
    if skewness and is_against:
        yield f"differences are skewed ({skewness:+.1f}): {verdict} errs more often than alpha says"


def stuck(lowest_train_losses: Sequence[float], num_classes: float) -> Iterator[str]:
    """Runs whose loss stayed where guessing is."""
    limit = CHANCE_LOSS_SHARE * math.log(num_classes) if num_classes > 1 else math.inf
    count, runs = sum(loss >= limit for loss in lowest_train_losses), len(lowest_train_losses)
    if count:
        yield f"loss never left ln {num_classes:.0f}" + (f" in {count} of {runs} runs" if count < runs else "")


def generalisation_gap(train_accuracy: float, val_accuracy: float) -> Iterator[str]:
    """Training accuracy far above validation accuracy."""
    gap = 100 * (train_accuracy - val_accuracy)
    if gap >= MIN_GAP_PP:
        yield f"training accuracy {gap:.0f} pp above validation"


def double_softmax(probabilities_in: bool, num_classes: float) -> Iterator[str]:
    """A softmax before cross-entropy, which applies one itself: its loss cannot fall below ln(1 + (K - 1) / e)."""
    if probabilities_in:
        floor = (
            f", its loss cannot fall below {math.log(1 + (num_classes - 1) / math.e):.2f}" if num_classes > 1 else ""
        )
        yield f"double softmax: cross-entropy gets probabilities{floor}"


def diverged(epochs: Sequence[float]) -> str:
    """When the runs of an arm diverged: " at epoch 3", " at epochs 2 to 5"; nothing where it is not known.

    Args:
        epochs: of each run that diverged.
    """
    known = [int(epoch) for epoch in epochs if not math.isnan(epoch)]
    if not known:
        return ""
    first, last = min(known), max(known)
    return f" at epoch {first}" if first == last else f" at epochs {first} to {last}"


def identical(other: str, reference: str) -> Iterator[str]:
    """An arm whose runs are another arm's bit for bit.

    Args:
        other: that arm's name; empty where it is the one that others are compared with.
        reference: words for the arm that others are compared with.
    """
    if other:
        yield f"its runs are those of {other} bit for bit: one arm under two names, compared once"
    else:
        yield f"its runs are {reference}'s bit for bit: the knob did nothing here, so this row is no evidence"


def other_chance(reference: str) -> str:
    """An arm whose mean is that of one draw of what stands still in it.

    Args:
        reference: words for the arm that others are compared with.
    """
    return f"not compared: its seeds vary something else than {reference}'s"


OTHER_MACHINE, OTHER_PLACE, OTHER_COMPANY, OTHER_TIME = "hardware", "placement", "neighbours", "time"
_WHY_NOT_COMPARED = {
    OTHER_MACHINE: "the runs were on other hardware, or with another number of threads",
    OTHER_PLACE: "the images lay on the GPU for one run, in host memory for the other",
    OTHER_COMPANY: "the runs were not side by side with equally many others",
    OTHER_TIME: "the runs were not trained next to each other in time",
}


def uncompared_times(comparable: int, shared: int, reasons: Sequence[str], in_one_go: int = 0) -> Iterator[str]:
    """Times are compared only between runs of like circumstances.

    Args:
        comparable: seeds whose times are compared.
        shared: seeds that arm and baseline both have trained.
        reasons: why the others are not, among the keys of `_WHY_NOT_COMPARED`.
        in_one_go: seeds that were trained in one go with another one, whose time is theirs.
    """
    why = ", or ".join(_WHY_NOT_COMPARED[reason] for reason in reasons)
    if not comparable and shared:
        yield f"times are not compared: {why}"
    elif comparable + in_one_go < shared:
        yield f"time ratio from {comparable + in_one_go} of {shared} seeds: in the others {why}"
    if in_one_go:
        measured = "one measurement" if comparable == 1 else f"{comparable} measurements"
        yield f"{comparable + in_one_go} seeds trained in one go: {measured} of time"


def waited(seeds: Sequence[int], shares: Sequence[float]) -> Iterator[str]:
    """Runs that took longer than they computed: others had the processor, or the machine was suspended.

    Args:
        seeds: of the runs.
        shares: of its training time that each had the processor; NaN where nobody knows.
    """
    found = {seed: 100 * share for seed, share in zip(seeds, shares, strict=True) if share < MIN_PROCESSOR_SHARE}
    if len(found) == 1:
        ((seed, percent),) = found.items()
        yield f"seed {seed} had the processor for {percent:.0f} % of its training time"
    elif found:
        lowest, highest = f"{min(found.values()):.0f}", f"{max(found.values()):.0f}"
        percent_of_all = lowest if lowest == highest else f"{lowest} to {highest}"
        yield f"{len(found)} of {len(seeds)} seeds had the processor for {percent_of_all} % of their training time"


def pairing(widened: float) -> Iterator[str]:
    """An interval that would be narrower without the pairing by seed; by how much.

    Args:
        widened: width of the paired interval over that of the unpaired one.
    """
    if widened >= MIN_WIDENING:
        yield f"pairing widened the interval by {widened:.1f} times"


def uneven_scatter(relative_spread: float) -> Iterator[str]:
    """An arm for which the pooled spread of Dunnett's test is too small.

    Args:
        relative_spread: its standard deviation over that of all other arms.
    """
    if relative_spread >= MIN_RELATIVE_SPREAD:
        yield f"scatters {relative_spread:.1f} times as much as the other arms: dunnett supposes that all scatter alike"
