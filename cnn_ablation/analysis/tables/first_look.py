"""Which seeds of a study the test for a fixed number of them judges: those of the first look at its table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cached_property, partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cnn_ablation.analysis.tables.rows import COUNTED
from cnn_ablation.common import progress
from cnn_ablation.common.errors import ConfigError, Problem, RecordError
from cnn_ablation.config import ANYTIME, StatsConfig, shown
from cnn_ablation.runs import provenance
from cnn_ablation.runs.store import looks as records
from cnn_ablation.runs.store.looks import FirstLook, Looks
from cnn_ablation.study.designs import BASELINE, FULL
from cnn_ablation.study.plans import Plan

if TYPE_CHECKING:
    from cnn_ablation.analysis.tables.finished import FinishedStudy

Seeds = Collection[int] | None
"""Of an arm's first look; None while planned runs are missing, so that it cannot be taken."""

_FIRST, _BESIDE = "first_look", "arms_looked_at_beside"
_NUMBER, _ELSEWHERE = "look", "looks_at_other_seeds"
_BEFORE = "looks_by_another_test"
_FEWEST = 2  # seeds that a table tells anything of a difference from


def put_on_record(runs: pd.DataFrame, study: FinishedStudy, folder: Path, settings: StatsConfig) -> StatsConfig:
    """Keeps a look at a study's table on record, and gives the table of runs what earlier looks mean for it.

    A record that cannot be kept is told of and holds nothing up. Under a test that holds at every look there is none.

    Args:
        runs: the study's table of runs, whose attributes are set.
        study: its plan and its runs with their provenance.
        folder: the study's, which gets a copy of the record.
        settings: of the table of arms that is going to be shown.

    Returns:
        The settings, with alpha divided as it was at the first look.
    """
    shared = _Shared(runs, study, settings.metric)
    arms = _fingerprints(study)
    if not shared.seeds or shared.reference not in arms:
        return settings
    key = provenance.fingerprint({"reference": arms[shared.reference], "metric": settings.metric})
    if settings.test == ANYTIME:
        runs.attrs[_BEFORE] = _num_looks(
            _known(shared, folder, key), {arms[name] for name in shared.seeds if name in arms}
        )
        return settings
    looks = _kept(shared, arms, folder, key, settings.reserve)
    runs.attrs |= shared.attributes(looks, arms)
    if looks.reserve is None or looks.reserve == settings.reserve:
        return settings
    said = f"stats.reserve={settings.reserve:g}: alpha was divided at the first look at this study"
    progress.warn(f"{said}, with stats.reserve={looks.reserve:g}, which counts")
    return replace(settings, reserve=looks.reserve)


def remember(runs: pd.DataFrame, study: FinishedStudy, folder: Path) -> None:
    """Gives a table of runs what the study's own copy of the record says, without a look."""
    settings = study.stats
    shared = _Shared(runs, study, settings.metric)
    if settings.test == ANYTIME or not shared.seeds:
        return
    copy = records.read_copy(folder).get(settings.metric, {})
    looks, arms = records.looks_of(copy.get("looks", {}), folder / records.COPY), copy.get("arms", {})
    known = {**arms, **{name: arms.get(name, name) for name in shared.seeds}}  # new, or no table was made yet
    runs.attrs |= shared.attributes(shared.added_to(looks, known), known)


def _kept(shared: _Shared, arms: dict[str, str], folder: Path, key: str, reserve: float) -> Looks:
    """The record with the present look, written to the store, if there is one, and into the study's folder."""
    copies, store = records.read_copy(folder), _store(shared.plan)
    copy = copies.get(shared.metric, {})
    copied = _copied(copy, folder, key)

    def look() -> tuple[Looks, Looks]:
        stored = records.read_looks(records.record_path(store, key)) if store else Looks()
        return stored, shared.added_to(stored.merged(copied).merged(Looks(reserve=reserve)), arms)

    stored, looks = look()
    if store and looks != stored:
        with records.kept(store, key):  # by others it may have been changed meanwhile
            stored, looks = look()
            _write(partial(records.write_looks, records.record_path(store, key), looks))
    entry = {"key": key, "arms": arms, "looks": records.as_plain(looks)}
    if entry != copy:
        _write(partial(records.write_copy, folder, {**copies, shared.metric: entry}), is_only=not store)
    return looks


def _known(shared: _Shared, folder: Path, key: str) -> Looks:
    """What is on record, without a look."""
    store, copy = _store(shared.plan), records.read_copy(folder).get(shared.metric, {})
    stored = records.read_looks(records.record_path(store, key)) if store else Looks()
    return stored.merged(_copied(copy, folder, key))


def _copied(copy: dict[str, Any], folder: Path, key: str) -> Looks:
    """What the copy in a study's folder holds of this study."""
    return records.looks_of(copy.get("looks", {}), folder / records.COPY) if copy.get("key") == key else Looks()


def _num_looks(looks: Looks, arms: set[str]) -> int:
    """How many tables on record had any of these arms."""
    return sum(bool(arms & table.keys()) for _, table in looks.tables)


def _store(plan: Plan) -> Path | None:
    """That of the study, if it is here: its folder may have been copied to another machine."""
    named = plan.baseline.get("store")
    return Path(named) if isinstance(named, str) and named and Path(named).is_dir() else None


def _write(write: Callable[[], None], *, is_only: bool = True) -> None:
    """Says what cannot be written, if that is the only place for it."""
    try:
        write()
    except RecordError as error:
        if is_only:
            progress.warn(f"{error}; more seeds of this study will not know of this look at its table")


def _fingerprints(study: FinishedStudy) -> dict[str, str]:
    """Of what each arm computes, whatever the seed; by the name of the arm, of those that the records tell of."""
    found: dict[str, str] = {}
    for run in sorted(study.runs, key=lambda run: run.seed):
        identity = run.provenance.get("identity")
        if run.arm not in found and isinstance(identity, dict):
            found[run.arm] = provenance.fingerprint({name: identity[name] for name in identity if name != "seed"})
    return found


class _Shared:
    """What a study has of the seeds that its arms share with the one that they are compared with."""

    def __init__(self, runs: pd.DataFrame, study: FinishedStudy, metric: str):
        self.plan, self.metric = study.plan, metric
        self._runs = runs
        names = set(runs["arm"])
        self.reference = BASELINE if BASELINE in names or FULL not in names else FULL

    @cached_property
    def seeds(self) -> dict[str, tuple[int, ...]]:
        """With the metric, of each arm that has enough of them to be compared."""
        if self.metric not in self._runs:
            return {}
        counted = self._runs["status"].isin(COUNTED) & self._runs[self.metric].notna()
        scored = {str(name): set(seeds) for name, seeds in self._runs[counted].groupby("arm")["seed"]}
        reference = scored.pop(self.reference, set())
        shared = {name: tuple(sorted(int(seed) for seed in seeds & reference)) for name, seeds in scored.items()}
        return {name: seeds for name, seeds in shared.items() if len(seeds) >= _FEWEST}

    @cached_property
    def _in_all_arms(self) -> set[int]:
        """Seeds of which no planned arm lacks its run, failed or not."""
        there = {str(name): set(seeds) for name, seeds in self._runs.groupby("arm")["seed"]}
        return set.intersection(*(there.get(arm.name, set()) for arm in self.plan.arms))

    def added_to(self, looks: Looks, arms: Mapping[str, str]) -> Looks:
        """The record with the present look: which seeds are an arm's first is settled the first time they are seen."""
        known, time = {name: seeds for name, seeds in self.seeds.items() if name in arms}, records.now()
        for name, seeds in known.items():
            first = looks.first_of(arms[name], seeds) or FirstLook(time, tuple(self.plan.seeds))
            if not first.taken and set(first.seeds) <= self._in_all_arms:
                judged = tuple(seed for seed in first.seeds if seed in seeds)
                first = FirstLook(first.time, judged, taken=True)
            looks = looks.with_first(arms[name], first)
        return looks.with_table(time, {arms[name]: seeds for name, seeds in known.items()})

    def attributes(self, looks: Looks, arms: Mapping[str, str]) -> dict[str, Any]:
        """Of a table of runs: the first look of each arm, which look the present one is, and what else was looked at.

        Arms that an earlier table had besides count as comparisons still, or leaving out all but the best would make
        its error the whole of alpha.
        """
        first: dict[str, list[int] | None] = {}
        for name, seeds in self.seeds.items():
            found = looks.first_of(arms[name], seeds) if name in arms else None
            if found or not set(self.plan.seeds) <= self._in_all_arms:
                first[name] = list(found.seeds) if found and found.taken else None
        present = {arms[name]: seeds for name, seeds in self.seeds.items() if name in arms}
        alike = [table for _, table in looks.tables if any(set(table.get(arm, ())) & set(present[arm])
                                                           for arm in present)]  # fmt: skip
        others = [table for _, table in looks.tables if table not in alike and table.keys() & present.keys()]
        number = alike.index(present) + 1 if present in alike else 1
        beside = {arm for table in alike[:number] for arm in table} - set(arms.values())
        by_metric = {_FIRST: _Uncopied({self.metric: first}), _BESIDE: {self.metric: len(beside)}}
        return by_metric | {_NUMBER: number, _ELSEWHERE: len(others)}


def looks_by_another_test(runs: pd.DataFrame) -> int:
    """Looks on record at arms that are now judged by the test that holds at every look."""
    return int(runs.attrs.get(_BEFORE, 0))


def arms_beside(runs: pd.DataFrame, metric: str) -> int:
    """How many arms that a table of runs lacks were looked at beside those that it has."""
    found = getattr(runs, "attrs", {}).get(_BESIDE, {})
    return int(found.get(metric, 0)) if isinstance(found, dict) else 0


class _Uncopied(dict[str, Any]):
    """A mapping that frames share: pandas copies their attributes for every column that is taken from one."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Uncopied:
        return self


def first_look_of(runs: pd.DataFrame, metric: str, given: object = None) -> dict[str, Seeds]:
    """The first look of each arm: the one that is given, or the one that a table of runs has among its attributes.

    Raises:
        ConfigError: what is given is no mapping of arms to seeds.
    """
    if given is None:
        attributes = getattr(runs, "attrs", {}).get(_FIRST, {})
        return dict(attributes.get(metric, {})) if isinstance(attributes, dict) else {}
    if isinstance(given, Mapping) and all(_is_seeds(seeds) for seeds in given.values()):
        return {str(name): seeds for name, seeds in given.items()}
    allowed = "arm -> the seeds of its first look (whole numbers), or None while planned runs are missing"
    raise ConfigError([Problem("first_look", shown(given), allowed, remedy='first_look={"k=v": [0, 1, 2]}')])


def is_on_record(runs: pd.DataFrame) -> bool:
    """Whether a table of runs knows of the looks at its study."""
    return _NUMBER in runs.attrs


def number_of_look(runs: pd.DataFrame) -> int:
    """Which look at its study a table of runs is for: 1 where nothing is on record."""
    return int(runs.attrs.get(_NUMBER, 1))


def looks_elsewhere(runs: pd.DataFrame) -> int:
    """Looks on record at the same arms with other seeds."""
    return int(runs.attrs.get(_ELSEWHERE, 0))


def _is_seeds(found: object) -> bool:
    if found is None:
        return True
    if not isinstance(found, Collection) or isinstance(found, str | bytes | Mapping):
        return False
    return all(isinstance(seed, Integral) and not isinstance(seed, bool) for seed in found)
