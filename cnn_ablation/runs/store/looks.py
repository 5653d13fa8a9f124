"""Looks at tables on record, beside the finished runs and in each study's folder.

A test for a fixed number of seeds holds for one look at the table. Which seeds that was is kept here for every arm by
what it computes, so that a study that is extended, in its folder or in any other, is not judged anew by that test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cnn_ablation.common import leases, progress
from cnn_ablation.common.files import write_atomically
from cnn_ablation.common.leases import HeldError
from cnn_ablation.runs.store import LEASE, wait_for

LOOKS = "looks"
COPY = "looks.json"
"""A study's own copy of what it was judged by, which goes where its folder goes."""
FORMAT = 1
_PATIENCE_SECONDS = 10.0  # a record is kept for milliseconds


@dataclass(frozen=True)
class FirstLook:
    """The seeds of an arm that the test for a fixed number of seeds judges, once."""

    time: str
    seeds: tuple[int, ...]
    """Those that were planned when a table was first made; once taken, those that had the metric."""
    taken: bool = False
    """Whether all planned runs were there."""


@dataclass(frozen=True)
class Looks:
    """Looks at the arms that are compared with one baseline by one metric; arms by the fingerprint of what they are."""

    first: Mapping[str, tuple[FirstLook, ...]] = field(default_factory=dict)
    """Of each arm; more than one where none of the seeds had been looked at before."""
    tables: tuple[tuple[str, Mapping[str, tuple[int, ...]]], ...] = ()
    """When each different table was first made, and the seeds of its arms."""
    reserve: float | None = None
    """The share of alpha that the first look left for later ones; None before it."""

    def first_of(self, arm: str, seeds: Sequence[int]) -> FirstLook | None:
        """The first look at any of these seeds of an arm."""
        return next((look for look in self.first.get(arm, ()) if set(look.seeds) & set(seeds)), None)

    def with_first(self, arm: str, look: FirstLook) -> Looks:
        """With a first look in place of that at the same time."""
        others = [each for each in self.first.get(arm, ()) if each.time != look.time]
        return replace(self, first={**self.first, arm: _in_order([*others, look])})

    def with_table(self, time: str, arms: Mapping[str, tuple[int, ...]]) -> Looks:
        """With a table, unless the same seeds of the same arms are on record."""
        if any(found == arms for _, found in self.tables):
            return self
        return replace(self, tables=(*self.tables, (time, dict(arms))))

    def merged(self, other: Looks) -> Looks:
        """What either knows; of the first looks at the same seeds of an arm the earlier."""
        arms = dict.fromkeys([*self.first, *other.first])
        first = {arm: _in_order([*self.first.get(arm, ()), *other.first.get(arm, ())]) for arm in arms}
        tables = list(self.tables)
        tables += [(time, seeds) for time, seeds in other.tables if all(seeds != known for _, known in tables)]
        reserve = other.reserve if self.reserve is None else self.reserve
        return Looks(first, tuple(sorted(tables, key=lambda table: table[0])), reserve)


def now() -> str:
    """The time in a form that sorts."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _in_order(looks: Sequence[FirstLook]) -> tuple[FirstLook, ...]:
    """The earliest first, without those that share seeds with an earlier one; of one time, what was taken counts."""
    kept: list[FirstLook] = []
    for look in sorted(looks, key=lambda each: (each.time, not each.taken)):
        if not any(set(look.seeds) & set(each.seeds) for each in kept):
            kept.append(look)
    return tuple(kept)


@contextmanager
def kept(store: Path, key: str) -> Iterator[None]:
    """Keeps a record of the store for this process while it is read and written.

    A store that is not there, or cannot be written to, holds nobody up.
    """
    lease, path = None, record_path(store, key)
    if store.is_dir():
        with suppress(OSError, HeldError):  # what cannot be written is said where it is written
            lease = leases.acquire(path.with_name(f"{LEASE}-{key}"), patience=_PATIENCE_SECONDS)
    try:
        if lease and lease.was_left:
            wait_for(path)
        yield
    finally:
        if lease:
            lease.release(left=path.exists())


def record_path(store: Path, key: str) -> Path:
    """The record of a store."""
    return store / LOOKS / f"{key}.json"


def num_records(store: Path) -> int:
    """How many records a store has."""
    return len(list((store / LOOKS).glob("*.json")))


def read_looks(path: Path) -> Looks:
    """What a record holds; nothing where there is none. A damaged or unreadable one is named and counts as none."""
    return looks_of(_content(path), path)


def read_copy(folder: Path) -> dict[str, Any]:
    """A study's own copy: by metric its `key`, the fingerprints of its `arms` by name, and its `looks`."""
    found = _content(folder / COPY).get("metrics", {})
    if isinstance(found, dict) and all(
        isinstance(entry, dict) and _is_named(entry.get("arms")) for entry in found.values()
    ):
        return found
    _warn_of_damage(folder / COPY, "metrics")
    return {}


def _is_named(arms: Any) -> bool:
    return isinstance(arms, dict) and all(isinstance(fingerprint, str) for fingerprint in arms.values())


def _content(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"format {FORMAT} is wanted")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _warn_of_damage(path, error)
        return {}
    return found


def looks_of(content: Mapping[str, Any], path: Path) -> Looks:
    """What `as_plain` made plain; nothing, and a warning with the file's name, where that is damaged."""
    try:
        first = {
            arm: _in_order([FirstLook(str(each["time"]), _seeds(each["seeds"]), bool(each["taken"])) for each in found])
            for arm, found in content.get("first", {}).items()
        }
        tables = [
            (str(table["time"]), {arm: _seeds(seeds) for arm, seeds in table["arms"].items()})
            for table in content.get("tables", [])
        ]
        return Looks(first, tuple(sorted(tables, key=lambda table: table[0])), _share(content.get("reserve")))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        _warn_of_damage(path, error)
        return Looks()


def _share(found: Any) -> float | None:
    if found is not None and not 0 <= found < 1:
        raise ValueError("reserve is a share below 1")
    return None if found is None else float(found)


def _seeds(found: Any) -> tuple[int, ...]:
    if not isinstance(found, list) or any(type(seed) is not int for seed in found):
        raise ValueError("seeds are whole numbers")
    return tuple(found)


def _warn_of_damage(path: Path, reason: object) -> None:
    said = reason if isinstance(reason, str) else f"{type(reason).__name__}: {reason}"
    progress.warn(f"{path} is damaged or unreadable ({said}); the looks on record there do not count")


def as_plain(looks: Looks) -> dict[str, Any]:
    """In the words of JSON."""
    return {
        "reserve": looks.reserve,
        "first": {
            arm: [{"time": look.time, "seeds": list(look.seeds), "taken": look.taken} for look in found]
            for arm, found in looks.first.items()
        },
        "tables": [{"time": time, "arms": {arm: list(seeds) for arm, seeds in arms.items()}}
                   for time, arms in looks.tables],
    }  # fmt: skip


def write_looks(path: Path, looks: Looks) -> None:
    """Writes a record of the store.

    Raises:
        RecordError: it cannot be written.
    """
    _write(path, as_plain(looks))


def write_copy(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Writes a study's own copy.

    Raises:
        RecordError: it cannot be written.
    """
    _write(folder / COPY, {"metrics": metrics})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps({"format": FORMAT, **content}).encode() + b"\n")
