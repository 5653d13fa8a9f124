"""Runs of a study as they train and finish, whoever trains them: told from the files that they leave."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cnn_ablation.common import progress
from cnn_ablation.common.errors import RecordError, one_line
from cnn_ablation.config import StudyConfig, all_settings
from cnn_ablation.launch.observers import ObservedRun
from cnn_ablation.runs.epochs import EpochFile, epochs_path
from cnn_ablation.runs.records import Run, read_run, record_path

_PAUSE = 0.5  # seconds between two looks
_PAUSE_PER_LOOK = 20  # at most a twentieth of the time is spent on looking

Tell = Callable[..., None]
"""Called with the name of an observer's method, and what it is told."""


@dataclass(frozen=True)
class Expected:
    """A run that is to come."""

    config: StudyConfig
    """Of its arm, labelled."""
    seed: int
    folder: Path

    @property
    def record(self) -> Path:
        return record_path(self.folder, self.seed)


class Follower:
    """Tells of runs from a thread of its own.

    Args:
        expected: all that have been planned so far, in a list that grows at its end.
        is_new: whether the record of a path has been written since the study began.
        tell: takes what there is to say.
        hides_tests: test figures of runs are not told.
    """

    def __init__(
        self,
        expected: Callable[[], Sequence[Expected]],
        is_new: Callable[[Path], bool],
        tell: Tell,
        *,
        hides_tests: bool = False,
    ):
        self._expected, self._is_new, self._tell = expected, is_new, tell
        self._hides_tests = hides_tests
        self._open = list[_Followed]()
        self._num_taken = 0
        self._done, self._looking = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._keep_looking, name="follower", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.look()

    def _keep_looking(self) -> None:
        pause = _PAUSE
        while not self._done.wait(pause):
            started = time.perf_counter()
            self.look()
            pause = max(_PAUSE, _PAUSE_PER_LOOK * (time.perf_counter() - started))

    def look(self) -> None:
        """Tells of all that has come since the last look; what goes wrong is said, and costs nobody a run."""
        with self._looking:
            try:
                self._look()
            except Exception as error:
                progress.warn_once(f"trackers are not told of all runs: {one_line(error)}")

    def _look(self) -> None:
        expected = self._expected()
        self._open += [_Followed(each, self._tell, self._hides_tests) for each in expected[self._num_taken :]]
        self._num_taken = len(expected)
        self._open = [each for each in self._open if not self._is_told(each)]

    def _is_told(self, run: _Followed) -> bool:
        """Whether a run is finished and all of it has been told."""
        has_record = self._is_new(run.expected.record)  # before its epochs are read: none comes after it
        run.tell_epochs()
        if has_record:
            run.tell_record()
        return has_record


class _Followed:
    """A run, and what has been told of it."""

    def __init__(self, expected: Expected, tell: Tell, hides_tests: bool):
        self.expected, self._tell, self._hides_tests = expected, tell, hides_tests
        self._file = EpochFile(epochs_path(expected.folder, expected.seed))
        self._num_told = 0  # of its epochs
        self._has_started = False

    def tell_epochs(self) -> None:
        """Those that its file has got since; the first sign of it is its start."""
        points = self._file.new()
        if self._file.fingerprint:
            self._tell_start(self._file.fingerprint)
        for place, point in points:
            self._tell_epoch(place, point)

    def _tell_start(self, fingerprint: str, *, reused: bool = False) -> None:
        if self._has_started:
            return
        self._has_started = True
        config, seed = self.expected.config, self.expected.seed
        settings = all_settings(replace(config, seed=seed, replicates=1))
        arm = config.arm
        start = ObservedRun(arm.name, arm.knob, arm.level, seed, "running", fingerprint, settings, reused=reused)
        self._tell("on_start", start)

    def _tell_epoch(self, place: int, point: dict[str, float]) -> None:
        """Unless it has been told: a run that begins anew goes through its epochs again."""
        if place >= self._num_told:
            self._num_told = place + 1
            metrics = self._shown(point)
            epoch = int(metrics.pop("epoch"))
            self._tell("on_epoch", self.expected.config.arm.name, self.expected.seed, epoch, metrics)

    def tell_record(self) -> None:
        """The epochs that its file lacked, then the record; the file has served its purpose."""
        try:
            run = read_run(self.expected.record)
        except RecordError as error:
            progress.warn(str(error))
            return
        self._tell_start(run.fingerprint, reused=run.reused)
        for place, point in enumerate(run.curves):
            self._tell_epoch(place, point)
        self._tell("on_run", self._observed(run))
        self._file.path.unlink(missing_ok=True)

    def _observed(self, run: Run) -> ObservedRun:
        figures = {name: run.figure(name) for name in run.figures if run.status != "failed"}
        return ObservedRun(
            arm=run.arm, knob=run.knob, level=run.level, seed=run.seed, status=run.status,
            fingerprint=run.fingerprint or self._file.fingerprint, settings=run.settings,
            metrics=self._shown(figures),
            train_seconds=run.train_seconds, reused=run.reused, error=run.error,
            curves=[self._shown(point) for point in run.curves],
        )  # fmt: skip

    def _shown(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Those that are numbers, and that may be seen before the study has chosen."""
        return {
            name: value
            for name, value in figures.items()
            if math.isfinite(value) and not (self._hides_tests and name.startswith("test_"))
        }
