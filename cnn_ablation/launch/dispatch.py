"""Handing the jobs of a study to an engine, and waiting for their records."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cnn_ablation.common import progress
from cnn_ablation.common.files import VISIBLE_SECONDS
from cnn_ablation.common.words import counted
from cnn_ablation.config import StudyConfig, all_settings
from cnn_ablation.launch import batches, submissions
from cnn_ablation.launch.batches import Batch
from cnn_ablation.launch.engines import Engine, JobState
from cnn_ablation.launch.submissions import Submission
from cnn_ablation.launch.workers import Assignment
from cnn_ablation.runs import places
from cnn_ablation.runs.records import failed_run, is_stopped, record_path, write_failed
from cnn_ablation.runs.store import wait_for
from cnn_ablation.runs.task import task_named


@dataclass
class _Waiting:
    """A batch that was submitted, and what is still to come from it."""

    path: Path
    job: str
    missing: dict[Path, tuple[StudyConfig, int]]
    """Records by their path: configuration and seed."""
    over_since: float = math.nan


@dataclass
class Dispatch:
    """Trains the jobs of one study by an engine; what is trained, and where records go, is the same as here.

    Args:
        study: its folder, absolute.
        baseline: of its arms.
        engine: checked.
        token: a file in the store that nodes must see.
        num_runs: of the study, at most.
        before: stamps of the records that were there before this study was carried out; those that a job of an earlier
            command has written since it was submitted are taken out.
        seconds: that its runs take one after the other; NaN where unknown.
    """

    study: Path
    baseline: StudyConfig
    engine: Engine
    token: Path
    num_runs: int
    before: dict[Path, int]
    seconds: float = math.nan
    _told: str = field(default="", init=False)

    def train(self, assignments: Iterable[Assignment]) -> list[str]:
        """Trains jobs elsewhere; returns nothing, because every run leaves a record, if only of why it failed.

        Raises:
            UserError: the engine does not take them.
        """
        todo = list(assignments)
        self._end_unknown()
        waiting = [*self._attached(todo)]
        covered = {path for each in waiting for path in each.missing}
        if new := [each for each in todo if not covered.issuperset(_records(each))]:
            waiting += self._submitted(new)
        try:
            self._wait(waiting)
        except KeyboardInterrupt:
            self._detach(waiting)
            raise
        return []

    def _end_unknown(self) -> None:
        """Ends jobs that a command submitted and was killed before it could write down: they cannot be waited for."""
        for folder in submissions.unknown(self.study):
            self.engine.cancel_all(folder)
            shutil.rmtree(folder, ignore_errors=True)

    def _attached(self, assignments: Sequence[Assignment]) -> Iterator[_Waiting]:
        """The jobs of earlier commands that are not over and train the same."""
        paths = {record_path(each.folder, seed): (each, seed) for each in assignments for seed in each.config.seeds}
        for submission in submissions.read(self.study):
            if submission.engine != type(self.engine).__name__:
                continue
            states = self.engine.states(list(submission.jobs.values()))
            for name, job in submission.jobs.items():
                wanted = {self.study / place: what for place, what in submission.runs[name].items()}
                same = {path: paths[path] for path, what in wanted.items() if path in paths}
                if states.get(job, JobState(is_over=True)).is_over or len(same) < len(wanted):
                    continue
                if any(_content(each) != wanted[path] for path, (each, _) in same.items()):
                    continue
                for path in wanted:
                    self._restore_stamp(path, submission)
                missing = {path: (each.config, seed) for path, (each, seed) in same.items()}
                progress.say(f"attached to job {job}, which trains {counted(len(missing), 'run')} of this study")
                yield _Waiting(submission.batch(name), job, missing)

    def _restore_stamp(self, path: Path, submission: Submission) -> None:
        """What a job has written since it was submitted counts as written now."""
        self.before.pop(path, None)
        if stamp := submission.before.get(str(path.relative_to(self.study))):
            self.before[path] = stamp

    def _submitted(self, assignments: Sequence[Assignment]) -> list[_Waiting]:
        places.check_known_elsewhere([each.config for each in assignments])
        folder = submissions.new_folder(self.study)
        parts = self._divided(assignments)
        names = [str(number) for number in range(len(parts))]
        submission = Submission(
            folder,
            type(self.engine).__name__,
            runs={
                name: {str(path.relative_to(self.study)): _content(each) for each in part for path in _records(each)}
                for name, part in zip(names, parts, strict=True)
            },
            before={str(path.relative_to(self.study)): stamp for path, stamp in self.before.items()},
        )
        for name, part in zip(names, parts, strict=True):
            batches.write(submission.batch(name), self._batch(part))
        ids = self.engine.submit([submission.batch(name) for name in names], folder)
        submission.jobs.update(zip(names, ids, strict=True))
        submission.keep()
        runs = counted(sum(len(each.config.seeds) for each in assignments), "run")
        progress.say(f"{runs} in {counted(len(parts), 'job')}: {_shortened(ids)}")
        return [
            _Waiting(submission.batch(name), job, dict(_configs(part)))
            for name, job, part in zip(names, ids, parts, strict=True)
        ]

    def _divided(self, assignments: Sequence[Assignment]) -> list[list[Assignment]]:
        """Jobs of about the same number of runs; in each, arms of one seed stay next to each other."""
        count = self.engine.num_jobs(len(assignments), self.seconds * len(assignments) / max(self.num_runs, 1))
        ends = [round(len(assignments) * (number + 1) / count) for number in range(count)]
        parts = [list(assignments[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        return [part for part in parts if part]

    def _batch(self, assignments: Sequence[Assignment]) -> Batch:
        task = self.baseline.task.name
        return Batch(
            study=self.study,
            task=task,
            num_runs=self.num_runs,
            folder=Path.cwd(),
            token=self.token,
            extensions=tuple(self.baseline.extensions),
            asked=self.engine.allocation,
            made_with=batches.made_with(task_named(task)),
            allow_other_versions=self.engine.allow_other_versions,
            ends_with_study=not self.engine.goes_on,
            baseline=self.baseline,
            assignments=tuple(assignments),
        )

    def _wait(self, waiting: list[_Waiting]) -> None:
        """Until every run has its record, or its job has ended without one, or the study is stopped."""
        while True:
            waiting = [each for each in waiting if self._is_open(each)]
            states = self.engine.states([each.job for each in waiting])
            if is_stopped(self.study):  # what is in training is finished, as on this machine
                pending = [each for each in waiting if each.job in states and not states[each.job].is_running]
                self.engine.cancel([each.job for each in pending if not states[each.job].is_over])
                waiting = [each for each in waiting if each not in pending]
            for each in waiting:
                state = states.get(each.job)
                if state and state.is_over and self._is_final(each):
                    self._account(each, state)
            if not waiting:
                return
            self._tell(list(states.values()))
            self._pause()

    def _pause(self) -> None:
        time.sleep(self.engine.poll_seconds)

    def _is_open(self, batch: _Waiting) -> bool:
        """Whether records are still to come, looked for in order: of 10,000 only the next one of each job."""
        while batch.missing:
            path = next(iter(batch.missing))
            if not self._is_written(path):
                return True
            del batch.missing[path]
        return False

    def _is_written(self, path: Path) -> bool:
        """By a list of its folder: a shared file system may keep for a minute that a name was not there."""
        try:
            return path.name in os.listdir(path.parent) and path.stat().st_mtime_ns != self.before.get(path)
        except OSError:
            return False

    def _is_final(self, batch: _Waiting) -> bool:
        """Whether records of a job that is over cannot be on their way any more."""
        nothing_to_come = self.engine.is_here or batches.error_file(batch.path).exists()
        patience = 0.0 if nothing_to_come else VISIBLE_SECONDS
        if math.isnan(batch.over_since):
            batch.over_since = time.monotonic()
        return time.monotonic() - batch.over_since >= patience

    def _account(self, batch: _Waiting, state: JobState) -> None:
        """A run that left no record becomes a row that says why."""
        error = batches.error_file(batch.path)
        said = error.read_text().splitlines() if error.exists() else []
        reason = "; ".join([*([state.reason] if state.reason else []), *said]) or "its job ended"
        for path, (config, seed) in batch.missing.items():
            if self._is_written(path):
                continue
            known = self.before.get(path)  # what an earlier command left, and not what this job has written just now
            if not write_failed(path, failed_run(config, seed, f"left no record: {reason}"), known):
                wait_for(path)
        batch.missing.clear()

    def _detach(self, waiting: Sequence[_Waiting]) -> None:
        """Leaves jobs to themselves, or ends them: as `on_detach` says."""
        open_jobs = [each.job for each in waiting if each.missing]
        if not open_jobs:
            return
        if self.engine.goes_on:
            jobs = f"{counted(len(open_jobs), 'job')} ({_shortened(open_jobs)})"
            progress.say(f"{jobs} may go on without this process; the same command waits for them again")
        else:
            self.engine.cancel(open_jobs)
            progress.say(f"cancelled {counted(len(open_jobs), 'job')}")

    def _tell(self, states: Sequence[JobState]) -> None:
        """How many jobs run and wait, whenever that changes."""
        running = sum(state.is_running for state in states)
        pending = [state for state in states if not state.is_running and not state.is_over]
        reasons = "; ".join(dict.fromkeys(state.reason for state in pending if state.reason))
        line = f"{counted(running, 'job')} running, {len(pending)} waiting{f' ({reasons})' if reasons else ''}"
        if line != self._told and pending:
            progress.say(line)
        self._told = line


def _records(assignment: Assignment) -> list[Path]:
    return [record_path(assignment.folder, seed) for seed in assignment.config.seeds]


def _configs(assignments: Iterable[Assignment]) -> Iterator[tuple[Path, tuple[StudyConfig, int]]]:
    for each in assignments:
        for seed in each.config.seeds:
            yield record_path(each.folder, seed), (each.config, seed)


def _content(assignment: Assignment) -> str:
    """What an assignment trains, by its settings and labels; another code version is another."""
    settings = all_settings(assignment.config)
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _shortened(ids: Sequence[str]) -> str:
    return ", ".join(ids) if len(ids) < 5 else f"{ids[0]} ... {ids[-1]}"
