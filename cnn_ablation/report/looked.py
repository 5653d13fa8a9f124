"""What the caption of a table of arms says of looks at it: which one this is, and what was done about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from cnn_ablation.analysis.tables import looks
from cnn_ablation.analysis.tables.first_look import is_on_record, looks_by_another_test, looks_elsewhere, number_of_look
from cnn_ablation.common.words import counted
from cnn_ablation.config import ANYTIME, StatsConfig


def looked(runs: pd.DataFrame, arms: pd.DataFrame, settings: StatsConfig, tests: Mapping[str, str]) -> Iterator[str]:
    """One or two sentences; none where nothing is compared, or for a test that holds at every look from the first on.

    Args:
        runs: the table of runs, with what is on record among its attributes.
        arms: the table of arms made from it.
        settings: as used for `arms`.
        tests: their names in words.
    """
    alpha, stages = looks.Alpha(settings), arms.attrs.get(looks.ATTRIBUTE, {}).get("stages", {})
    if arms["p_value"].isna().all():
        return
    if settings.test == ANYTIME:
        if before := looks_by_another_test(runs):
            yield f"Alpha holds for this test alone: there {_were(before)} at these arms with another one."
        return
    count, always = sum(stages.values()), tests[ANYTIME]
    for stage, number in stages.items():
        some = f" (of {number} of {count} arms)" if number < count else ""
        if stage == looks.FIRST and alpha.reserve:
            yield (
                f"{_first(runs)}{some} is judged at {alpha.first:g}, for which p-values are divided by "
                f"{1 - alpha.reserve:g}; {alpha.reserved:g} is left for seeds that are added."
            )
        elif stage == looks.LATER:
            after = _numbers(arms.attrs[looks.ATTRIBUTE]["first_seeds"])
            since = f"from there on {always} judges at {alpha.reserved:g}" if alpha.reserve else _NOTHING_LEFT
            judged = f"the first, after {after}, was judged by {tests[settings.test]} at {alpha.first:g} and stands"
            this = f"Look {number_of_look(runs)} at this study{some}"
            yield f"{this}: {judged}; {since}, with intervals that hold at every look."
        elif stage == looks.BEFORE:
            until = f"only {always} judges, at {alpha.reserved:g}" if alpha.reserve else "nothing is decided"
            yield f"Runs that were planned for the first look{some} are missing: until they are there, {until}."
    if beside := arms.attrs[looks.ATTRIBUTE]["beside"]:
        yield f"{counted(beside, 'arm')} that an earlier table had beside these {_count(beside)} as comparisons too."
    if elsewhere := looks_elsewhere(runs):
        yield f"Alpha holds for these seeds alone: there {_were(elsewhere)} at other seeds of the same arms."


def _first(runs: pd.DataFrame) -> str:
    """A table of runs alone does not know of looks at it."""
    return "This first look" if is_on_record(runs) else "This table, taken for a first look,"


_NOTHING_LEFT = "stats.reserve=0 left nothing for the seeds that were added, which decide nothing"


def _numbers(seeds: list[int]) -> str:
    return counted(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"


def _count(number: int) -> str:
    return "counts" if number == 1 else "count"


def _were(count: int) -> str:
    return "was 1 earlier look" if count == 1 else f"were {count} earlier looks"
