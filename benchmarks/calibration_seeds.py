"""How many studies are decided that follow `more seeds`?

A study has a baseline and m arms with n first seeds. Paired differences are normal with a standard deviation of one
percentage point; the true ones are 0, 0.5, 1, 2 or 3 points, drawn anew for every arm, and the margin is 0.5 points. An
arm that the first seeds leave undecided gets as many as the upper number of its range says, where there is one, and the
whole study is judged again, with Holm's correction.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from calibration_page import SEED, made_with, paragraph, prepare, table

from cnn_ablation.analysis import assurance, stats
from cnn_ablation.config import StatsConfig
from cnn_ablation.study.metric import metric_of

FIRST_SEEDS = (3, 5, 10)
ARMS = (1, 4, 9)
EFFECTS = (0.0, 0.5, 1.0, 2.0, 3.0)
TESTS = ("t", "anytime")
MARGINS = (0.25, 0.5, 1.0)
BASELINE, SPREAD = 0.9, 0.01 / np.sqrt(2)  # of a run, so that differences have a spread of one point
NUM_ARMS = 2000  # in all studies of a cell
CHUNK = 600  # arms at once


@dataclass(frozen=True)
class Cell:
    """Studies of one kind."""

    num_seeds: int
    num_arms: int
    settings: StatsConfig = dataclasses.field(default_factory=StatsConfig, hash=False)


@dataclass(frozen=True)
class Followed:
    """One entry per arm: true effect; without a verdict at first; with a number; that number; with a verdict then."""

    effects: np.ndarray
    was_open: np.ndarray
    low: np.ndarray
    high: np.ndarray
    decided: np.ndarray
    decided_at_low: np.ndarray

    @property
    def given(self) -> np.ndarray:
        """Arms that are told a number of seeds up to the largest that is computed."""
        return self.was_open & (self.high < stats.MAX_SEEDS_NEEDED)


def simulate(cell: Cell, num_arms: int) -> Followed:
    """Draws studies with so many arms in all and lets each undecided arm have the seeds that it asks for."""
    generator = np.random.default_rng([SEED, cell.num_seeds, cell.num_arms])
    chunks = [min(CHUNK, num_arms - start) for start in range(0, num_arms, CHUNK)]
    parts = [_followed(generator, cell, max(size // cell.num_arms, 1)) for size in chunks]
    names = [field.name for field in dataclasses.fields(Followed)]
    return Followed(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _followed(generator: np.random.Generator, cell: Cell, num_studies: int) -> Followed:
    shape, most = (num_studies, cell.num_arms), stats.MAX_SEEDS_NEEDED
    effects = generator.choice(EFFECTS, shape)
    noise = SPREAD * generator.standard_normal((num_studies, 1 + cell.num_arms, most))
    baseline = np.broadcast_to(BASELINE + noise[:, :1], (*shape, most))
    arms = BASELINE + effects[..., None] / 100 + noise[:, 1:]
    first = np.full(shape, cell.num_seeds)
    judged = _judged(arms, baseline, first, cell.settings)
    was_open = ~_decided(judged, cell.settings.alpha)
    low, high = _seeds_needed(arms[..., : cell.num_seeds], baseline[..., : cell.num_seeds], judged, cell.settings)
    ends = [np.where(was_open & (end < most), end, first).astype(int) for end in (low, high)]
    at_low, at_high = (_decided(_judged(arms, baseline, end, cell.settings), cell.settings.alpha) for end in ends)
    columns = (effects, was_open, low, high, at_high, at_low)
    return Followed(*(column.ravel() for column in columns))


def _seeds_needed(
    arms: np.ndarray, baseline: np.ndarray, judged: np.ndarray, settings: StatsConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Of each arm (studies, m), as `analysis.tables.family` asks for them: study by study, as levels are a study's."""
    differences = stats.paired_differences(arms, baseline, metric_of(settings).factor)
    levels = [
        stats.next_levels([(p, "equivalent" if q <= settings.alpha else "") for p, q in zip(*study, strict=True)],
                          settings.alpha)
        for study in np.moveaxis(judged, 0, 1)
    ]  # fmt: skip
    low, high = np.empty(arms.shape[:2]), np.empty(arms.shape[:2])
    for level in set(levels):
        chosen = [one == level for one in levels]
        found = assurance.seeds_needed(differences[chosen], settings, level)
        low[chosen], high[chosen] = found.low, found.high
    return low, high


def _judged(arms: np.ndarray, baseline: np.ndarray, numbers: np.ndarray, settings: StatsConfig) -> np.ndarray:
    """Corrected p-values of differences and equivalences (2, studies, m), each arm with its own number of seeds."""
    p_values = np.ones((2, *numbers.shape))
    for number in np.unique(numbers):
        chosen, seeds = numbers == number, slice(int(number))
        compared = stats.compare(
            arms[chosen][:, seeds], baseline[chosen][:, seeds], settings, num_comparisons=numbers.shape[1]
        )
        p_values[:, chosen] = compared.p_value, compared.p_equivalence
    return np.array([[stats.holm(list(study)) for study in family] for family in p_values])


def _decided(judged: np.ndarray, alpha: float) -> np.ndarray:
    return np.asarray(np.fmin(*judged) <= alpha)


def _percent(part: np.ndarray, of: np.ndarray) -> str:
    return f"{100 * part[of].mean():.0f}" if of.any() else ""


def _row(cell: Cell, found: Followed) -> list[str]:
    given = found.given
    by_effect = [_percent(found.decided, given & (found.effects == effect)) for effect in EFFECTS]
    low, high = (np.median(end[given]) - cell.num_seeds if given.any() else np.nan for end in (found.low, found.high))
    shares = [_percent(found.was_open, np.ones_like(given)), _percent(given, found.was_open)]
    return [str(cell.num_seeds), str(cell.num_arms), *shares, f"{low:.0f}-{high:.0f}",
            _percent(found.decided_at_low, given), _percent(found.decided, given), *by_effect]  # fmt: skip


_HEADING = (
    "first seeds", "arms", "undecided", "of them given a number", "median of more seeds", "decided at the lower",
    "decided at the upper", *(f"{effect:g} pp" for effect in EFFECTS),
)  # fmt: skip


def _cells(settings: StatsConfig, num_arms: int) -> list[tuple[Cell, Followed]]:
    cells = [Cell(n, m, settings) for n, m in itertools.product(FIRST_SEEDS, ARMS)]
    return [(cell, simulate(cell, num_arms)) for cell in cells]


def _pooled(found: Sequence[tuple[Cell, Followed]], name: str) -> str:
    """Percent of all arms with a number, over all cells."""
    return f"{100 * np.concatenate([getattr(one, name)[one.given] for _, one in found]).mean():.0f}"


def report_test(test: str, scale: float) -> Iterator[str]:
    """The table of one test, by the truth too."""
    size = int(NUM_ARMS * scale)
    found = _cells(StatsConfig(test=test), size)
    yield f"## `stats.test={test}`\n"
    yield from paragraph(
        f"Of all arms with a number {_pooled(found, 'decided')} % are decided with it, and",
        f"{_pooled(found, 'decided_at_low')} % with the lower one. {size} arms a row.",
    )
    yield from table(_HEADING, [_row(cell, one) for cell, one in found])


def report_margins(scale: float) -> Iterator[str]:
    """Other margins, among them none: what is small is then never decided."""
    yield "## Other margins, t test\n"
    rows = []
    for margin in (*MARGINS, None):
        accuracy = StatsConfig() if margin is None else StatsConfig(margin_pp=margin)
        settings = StatsConfig(metric="accuracy_of_a_function") if margin is None else accuracy
        found = _cells(settings, int(NUM_ARMS * scale / 2))
        is_open, given = (np.concatenate([getattr(one, name) for _, one in found]) for name in ("was_open", "given"))
        name = "none" if metric_of(settings).margin is None else f"{margin:g} pp"
        rows.append([name, _percent(given, is_open), _pooled(found, "decided_at_low"), _pooled(found, "decided")])
    yield from table(["margin", "given a number", "decided at the lower", "decided at the upper"], rows)


def report(scale: float) -> Iterator[str]:
    """The part of the page, line by line."""
    yield "# More seeds: studies that follow it and are decided (%)\n"
    yield f"From `python benchmarks/calibration.py --part seeds`, random seed {SEED}."
    yield from made_with()
    yield (__doc__ or "").split("\n\n")[1].strip() + "\n"
    yield from paragraph(
        "80 % is promised over what the first seeds leave possible, so over a mix of effects, as the true ones are",
        "here. Small ones are decided less often than large ones, which few seeds cannot tell apart: the last columns,",
        "of the upper number. Sign flips use the numbers of the t test.",
    )
    prepare()
    for test in TESTS:
        yield from report_test(test, scale)
    yield from report_margins(scale)
