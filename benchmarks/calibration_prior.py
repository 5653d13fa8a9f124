"""Why the prior of `stats.test=anytime` has a variance of 10, and why its p-values are corrected by Holm's method.

Differences are normal with a standard deviation of 1. An arm is found at the first look, from 3 seeds to 40, at which
the evidence for its side reaches 2 m / 0.05.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
from calibration_page import SEED, paragraph, percent, table
from scipy import special

from cnn_ablation.analysis import anytime
from cnn_ablation.config import StatsConfig

ALPHA = StatsConfig().alpha
FEWEST, LOOKS = 3, 40
EFFECTS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
ARMS = (1, 9, 30)
PRIORS: dict[str, tuple[float, ...]] = {
    **{f"{variance:g}": (variance,) for variance in (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)},
    "1 and 30": (1.0, 30.0),
    "1, 10 and 100": (1.0, 10.0, 100.0),
}
"""Variances; of several, each has an equal share."""
REAL = (1, 3, 9)
"""Of nine arms, how many have an effect of one standard deviation."""
AT = (10, 15, 20, 30)
"""Numbers of seeds at which the two corrections are put side by side."""
CHUNK = 500


def evidence(t_values: np.ndarray, variances: tuple[float, ...]) -> np.ndarray:
    """The logarithm for a mean above zero, of t statistics (..., n - 1) of the first 2, 3, ... n differences."""
    numbers = np.arange(2, t_values.shape[-1] + 2)
    parts = [anytime.log_evidence(t_values, numbers, variance) for variance in variances]
    return special.logsumexp(parts, axis=0) - np.log(len(parts))


def first_look(reached: np.ndarray) -> np.ndarray:
    """The number of seeds at the first look that is true, of looks (..., n - 1) at 2, 3, ... n; infinite without."""
    late = reached[..., FEWEST - 2 :]
    return np.where(late.any(axis=-1), FEWEST + late.argmax(axis=-1), np.inf)


def seeds_to_find(effect: float, num_studies: int) -> dict[tuple[str, int], tuple[float, float]]:
    """Mean seeds (40 where it is not found) and the share found, of each prior and number of arms."""
    generator = np.random.default_rng([SEED, 2, int(10 * effect)])
    t_values, _ = anytime.t_statistics(effect + generator.standard_normal((num_studies, LOOKS)))
    found = {}
    for name, variances in PRIORS.items():
        log_e = evidence(t_values, variances)
        for num_arms in ARMS:
            seeds = first_look(log_e >= np.log(2 * num_arms / ALPHA))
            found[name, num_arms] = float(np.minimum(seeds, LOOKS).mean()), float(np.isfinite(seeds).mean())
    return found


def holm(p_values: np.ndarray, axis: int = 1) -> np.ndarray:
    """p-values corrected by Holm's method along an axis, as `stats.holm` does for one study; NaN counts as 1."""
    raw = np.moveaxis(np.where(np.isnan(p_values), 1.0, p_values), axis, -1)
    order = np.argsort(raw, axis=-1)
    factors = np.arange(raw.shape[-1], 0, -1)
    stepped = np.maximum.accumulate(np.take_along_axis(raw, order, -1) * factors, axis=-1)
    corrected = np.empty_like(raw)
    np.put_along_axis(corrected, order, np.minimum(stepped, 1.0), -1)
    return np.moveaxis(corrected, -1, axis)


def closed(e_values: np.ndarray) -> np.ndarray:
    """p-values by closed testing with means of e-values (Vovk and Wang 2021), each at its best look so far.

    Args:
        e_values: (studies, m, looks), two-sided.

    Returns:
        (studies, m, looks): one over the smallest, over all sets of arms that hold the arm, of the largest mean so far.
    """
    num_arms = e_values.shape[1]
    sets = np.array([chosen for chosen in itertools.product((0.0, 1.0), repeat=num_arms) if any(chosen)])
    means = np.einsum("sa,xal->xsl", sets / sets.sum(axis=1, keepdims=True), e_values, optimize=True)
    largest = np.maximum.accumulate(means, axis=-1)
    smallest = [largest[:, sets[:, arm] > 0].min(axis=1) for arm in range(num_arms)]
    return np.minimum(1 / np.maximum(np.stack(smallest, axis=1), 1e-300), 1.0)


def corrections(num_real: int, num_studies: int) -> tuple[np.ndarray, np.ndarray]:
    """Seeds (studies, real arms) at which Holm's method and closed testing find them; nine arms share a baseline."""
    generator = np.random.default_rng([SEED, 3, num_real])
    parts = [_corrections(num_real, min(CHUNK, num_studies - at), generator) for at in range(0, num_studies, CHUNK)]
    by_holm, by_closure = (np.concatenate(found) for found in zip(*parts, strict=True))
    return by_holm, by_closure


def _corrections(num_real: int, size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    num_arms = max(REAL)
    runs = generator.standard_normal((size, 1 + num_arms, LOOKS)) / np.sqrt(2)
    differences = runs[:, 1:] - runs[:, :1] + (np.arange(num_arms) < num_real)[:, None]
    by_holm = holm(anytime.p_values(differences, "two-sided"))
    t_values, _ = anytime.t_statistics(differences)
    variances = (anytime.PRIOR,)
    two_sided = (np.exp(evidence(t_values, variances)) + np.exp(evidence(-t_values, variances))) / 2
    by_closure = closed(two_sided)
    return first_look(by_holm[:, :num_real] <= ALPHA), first_look(by_closure[:, :num_real] <= ALPHA)


def report(scale: float, pool: Executor) -> Iterator[str]:
    studies, many = int(20_000 * scale), int(4000 * scale)
    by_effect = list(pool.map(seeds_to_find, EFFECTS, itertools.repeat(studies)))
    by_correction = list(pool.map(corrections, REAL, itertools.repeat(many)))
    cells = list(itertools.product(range(len(EFFECTS)), ARMS))
    losses = {
        name: [by_effect[at][name, m][0] / min(by_effect[at][other, m][0] for other in PRIORS) - 1 for at, m in cells]
        for name in PRIORS
    }
    yield "## Why the prior's variance is 10\n"
    yield from paragraph(*(__doc__ or "").split("\n\n")[1].split())
    yield from paragraph(
        "Seeds on average, 40 where an arm is not found; behind the stroke the share found (%) where it is below 99.9;",
        f"{studies} arms a cell. A small variance suits small effects and many seeds, a large one the few seeds in",
        "which a large effect shows. The last row is how many more seeds a column takes than the best column of a",
        f"cell, in the cell where it loses most. {_verdict_on_priors(losses)}",
    )
    yield from table(
        ["effect", "arms", *PRIORS],
        [
            *([f"{EFFECTS[at]:g}", str(m), *(_seeds(*by_effect[at][name, m]) for name in PRIORS)] for at, m in cells),
            ["largest loss", "", *(f"{100 * max(losses[name]):.0f} %" for name in PRIORS)],
        ],
    )
    yield "## Holm's method, or closed testing with means of e-values\n"
    yield from paragraph(
        "Nine arms, some with an effect of one standard deviation; share of these found (%) at so many seeds,",
        f"{many} studies a row. Closed testing by means (e-Holm, Vovk and Wang 2021) gains where all arms have an",
        "effect, and next to nothing where few have. It supposes that each arm's evidence is a martingale given the",
        "results of all arms; Holm's method holds for any dependence, which is why tables have it.",
    )
    yield from table(
        ["real effects", *(f"{n} seeds: {how}" for n in AT for how in ("Holm", "closed"))],
        [
            [str(num_real), *(percent(float((found <= n).mean())) for n in AT for found in both)]
            for num_real, both in zip(REAL, by_correction, strict=True)
        ],
    )


def _seeds(mean: float, share: float) -> str:
    return f"{mean:.1f}" if share >= 0.999 else f"{mean:.1f} / {percent(share)}"


def _verdict_on_priors(losses: dict[str, list[float]]) -> str:
    single = {name: max(loss) for name, loss in losses.items() if len(PRIORS[name]) == 1}
    best = min(single, key=lambda name: single[name])
    mixed = min(max(loss) for name, loss in losses.items() if len(PRIORS[name]) > 1)
    return f"Of single variances {best} loses least, {100 * single[best]:.0f} %; mixtures lose {100 * mixed:.0f} %."
