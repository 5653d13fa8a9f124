"""A study while it is carried out, as its observers are told of it. Nothing of this is there without observers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_ablation.common.files import write_if_none
from cnn_ablation.launch.following import Expected, Follower
from cnn_ablation.launch.listening import Listeners
from cnn_ablation.launch.observers import Make, ObservedStudy
from cnn_ablation.runs.epochs import followed_file
from cnn_ablation.study.designs import BASELINE
from cnn_ablation.study.metric import metric_of
from cnn_ablation.study.plans import Plan

if TYPE_CHECKING:
    import pandas as pd

_ID_FILE = ".study-id"
_LONGEST_NAME = 60


class Observation:
    """Within it observers hear of a study's runs, and of its report.

    Args:
        makers: of the observers.
        study: as it begins.
        expected: as `Follower` takes it.
        is_new: likewise.
    """

    def __init__(
        self,
        makers: Mapping[str, Make],
        study: ObservedStudy,
        expected: Callable[[], Sequence[Expected]],
        is_new: Callable[[Path], bool],
    ):
        self._makers, self._study = makers, study
        self._expected, self._is_new = expected, is_new

    def __enter__(self) -> Observation:
        with suppress(OSError):  # without it epochs are told once their run is finished
            followed_file(self._study.folder).touch()
        self._listeners = Listeners(self._makers)
        self._listeners.tell("on_study", self._study)
        hides_tests = self._study.design == "greedy"
        self._follower = Follower(self._expected, self._is_new, self._listeners.tell, hides_tests=hides_tests)
        self._follower.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError):
            followed_file(self._study.folder).unlink(missing_ok=True)
        self._follower.__exit__()
        self._listeners.end(in_haste=kind is KeyboardInterrupt)

    def report(self, arms: pd.DataFrame) -> None:
        """Tables and pictures are there, and so are the records that they are made of."""
        self._follower.look()
        self._listeners.tell("on_report", self._study.folder, arms)


def observed_study(plan: Plan, folder: Path, title: str = "") -> ObservedStudy:
    """A study as it begins, with an id that stays in its folder.

    Args:
        plan: before anything is trained.
        folder: of the study; it is there.
        title: the name of its file, if it has one.

    Raises:
        RecordError: the id cannot be written.
    """
    knobs = ", ".join(plan.knobs) or "single configuration"
    metric = metric_of(plan.stats)
    return ObservedStudy(
        id=_id_of(folder),
        name=title or (knobs if len(knobs) <= _LONGEST_NAME else f"{len(plan.knobs)} knobs"),
        folder=folder,
        command=str(plan.provenance.get("command", "")),
        design=plan.design if plan.knobs else "",
        knobs=plan.knobs,
        baseline=plan.baseline,
        arms={arm.name: dict(arm.settings) for arm in plan.arms} or {BASELINE: {}},
        seeds=plan.seeds,
        metric=metric.column,
        direction=metric.direction,
    )


def _id_of(folder: Path) -> str:
    path = folder / _ID_FILE
    if not path.exists():
        write_if_none(path, uuid.uuid4().hex[:12].encode())
    return path.read_text()
