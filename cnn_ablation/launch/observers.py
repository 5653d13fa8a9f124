"""Who is told how a study goes: the protocol, what is told, and observers by their names in `trackers=`. Light."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cnn_ablation.common import imports
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.config import nearest, shown

if TYPE_CHECKING:
    import pandas as pd

TRACKERS = {
    "tensorboard": "cnn_ablation.trackers.tensorboard",
    "mlflow": "cnn_ablation.trackers.mlflow",
    "wandb": "cnn_ablation.trackers.wandb",
}
"""Trackers by name: where the module of each is, with a class `Tracker`. The package of the same name is an extra."""

METHODS = ("on_study", "on_start", "on_epoch", "on_run", "on_report", "close")
KEY = "trackers"
_OWN = "my_module.MyTracker, a class of your own"


@dataclass(frozen=True)
class ObservedStudy:
    """A study as it begins."""

    id: str
    """The same whenever it is carried out in its folder again."""
    name: str
    """Of its file, or its knobs."""
    folder: Path
    command: str
    design: str
    knobs: Mapping[str, Sequence[str]]
    """Knob -> labels of its levels."""
    baseline: Mapping[str, Any]
    """Settings by dotted key."""
    arms: Mapping[str, Mapping[str, Any]]
    """Those known so far, by name: what each sets otherwise than the baseline. A greedy study names more later."""
    seeds: Sequence[int]
    """That every arm gets; with `replicates=auto` more may come."""
    metric: str
    """As asked for; a function that returns no `test_accuracy` is judged by its first figure where nobody asks."""
    direction: str
    """`higher` or `lower` is better."""


@dataclass(frozen=True)
class ObservedRun:
    """One arm with one seed, as it begins or when its record is there."""

    arm: str
    knob: str
    level: str
    seed: int
    status: str
    """`running`, then `ok`, `diverged` or `failed`."""
    fingerprint: str
    """Of all that decides its result; empty for one that failed before it began."""
    settings: Mapping[str, Any] = field(repr=False)
    """By dotted key."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What it measured, finite numbers by the names in runs.csv. A greedy study shows no test figure of a run: that of
    an arm which is dropped would be one too many."""
    train_seconds: float = 0.0
    reused: bool = False
    """Taken from the store instead of trained for this study."""
    error: str = ""
    curves: Sequence[Mapping[str, float]] = field(default=(), repr=False)
    """One entry per epoch: its number, and what `on_epoch` was told of it."""


class Observer(Protocol):
    """What an observer may have; it needs one of these methods, and may leave out the others.

    All are called in one thread that is the observer's own, in the process that carries out the study, in the order in
    which things happen. What one raises is said once, and that observer is told nothing more.
    """

    def on_study(self, study: ObservedStudy) -> None:
        """It begins."""

    def on_start(self, run: ObservedRun) -> None:
        """The first word of a run, without results: it is trained now, or was found in the store (`reused`)."""

    def on_epoch(self, arm: str, seed: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """A point of its learning curves, each once; those of a run that is reused too."""

    def on_run(self, run: ObservedRun) -> None:
        """Its record is there, and its epochs have been told."""

    def on_report(self, folder: Path, arms: pd.DataFrame) -> None:
        """Tables and pictures are in the folder (`artefacts`); `arms` is the table, one row per arm and its verdict."""

    def close(self) -> None:
        """Nothing more comes."""


Make = Callable[[], Any]
"""Makes an observer, in the thread where it is told."""


def settings_of_runs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings but for who is told: jobs that are under way go on, whoever asks next."""
    return {key: value for key, value in settings.items() if key != KEY}


def artefacts(folder: Path) -> list[Path]:
    """The tables, the page and the pictures of a study that are there."""
    tables = (f"ablation.{kind}" for kind in ("csv", "md", "tex", "html"))
    named = [folder / name for name in (*tables, "runs.csv", "report.html", "paper.md", "study.yaml")]
    return [path for path in named if path.is_file()] + sorted(folder.glob("*.png"))


def makers(names: Sequence[str], observers: Iterable[object] = ()) -> dict[str, Make]:
    """What makes each observer, by the name in messages. Nothing of a library is imported yet.

    Args:
        names: as in `trackers=`.
        observers: objects, in Python.

    Raises:
        ConfigError: a name is none, its package is not installed, or an object has none of the methods.
    """
    found = {name: _maker(name, names) for name in dict.fromkeys(names)}
    for each in observers:
        if isinstance(each, type) or not _has_methods(each):
            allowed = f"objects with one of the methods {', '.join(METHODS)}"
            remedy = f"{each.__name__}()" if isinstance(each, type) else "cnn_ablation.launch.observers.Observer"
            raise ConfigError([Problem("observers", shown(each), allowed, remedy=remedy)])
        name = type(each).__name__
        found[name if name not in found else f"{name} {len(found) + 1}"] = partial(_itself, each)
    return found


def _itself(observer: object) -> object:
    return observer


def _maker(name: str, names: Sequence[str]) -> Make:
    if name in TRACKERS:
        _check_installed(name)
        return lambda: import_module(TRACKERS[name]).Tracker()
    if not isinstance(name, str) or "." not in name:
        close = nearest(str(name), list(TRACKERS))
        found = f"{KEY}=[{','.join(close if each == name and close else str(each) for each in names)}]"
        remedy = None if close else f"{KEY}=[{next(iter(TRACKERS))}]"
        allowed = f"{', '.join(TRACKERS)}, or {_OWN}"
        raise ConfigError([Problem(KEY, list(names), allowed, nearest=found if close else None, remedy=remedy)])
    return _own(name)


def _check_installed(name: str) -> None:
    if find_spec(name) is None:
        installed = [each for each in TRACKERS if find_spec(each)]
        allowed = f"trackers whose package is installed: {', '.join(installed) or 'none is'}; or {_OWN}"
        raise ConfigError([Problem(KEY, [name], allowed, remedy=f'pip install "cnn_ablation[{name}]"')])


def _own(target: str) -> Make:
    """A class of a person's own, which is called without arguments."""
    try:
        found = imports.named(KEY, target)
    except ConfigError as error:  # a list is what the key takes
        raise ConfigError([_as_list(problem) for problem in error.problems]) from error
    if not callable(found) or (isinstance(found, type) and not _has_methods(found)):
        allowed = f"a class with one of the methods {', '.join(METHODS)}"
        raise ConfigError([Problem(KEY, [target], allowed, remedy="define on_run(self, run) in it")])
    make: Make = found
    return make


def _as_list(problem: Problem) -> Problem:
    key, equals, value = (problem.nearest or "").partition("=")
    return replace(problem, value=[problem.value], nearest=f"{key}=[{value}]" if equals else None)


def _has_methods(observer: object) -> bool:
    return any(callable(getattr(observer, name, None)) for name in METHODS[:-1])
