"""Handing the jobs of a study to an engine, and waiting for their records."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cnn_ablation.common import progress
from cnn_ablation.common.errors import RecordError, UserError
from cnn_ablation.common.files import VISIBLE_SECONDS
from cnn_ablation.common.words import counted
from cnn_ablation.config import StudyConfig
from cnn_ablation.launch import batches, submissions
from cnn_ablation.launch.assignments import Assignment, OnEnd
from cnn_ablation.launch.batches import Batch
from cnn_ablation.launch.contents import Contents
from cnn_ablation.launch.ends import Ends, records_of
from cnn_ablation.launch.engines import Engine, JobState
from cnn_ablation.launch.submissions import Submission
from cnn_ablation.launch.trained_before import TrainedBefore
from cnn_ablation.runs import places
from cnn_ablation.runs.records import deferred_file, failed_run, is_stopped, read_run, record_path, stamp, write_failed
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
        seconds_per_run: in the mean; NaN where unknown.
        studies: that the store knows of; what jobs of them have trained is taken instead of being asked for again.
        threads: of a run, as the packing of its job decides; None for one that has its job to itself.
    """

    study: Path
    baseline: StudyConfig
    engine: Engine
    token: Path
    num_runs: int
    before: dict[Path, int]
    seconds_per_run: float = math.nan
    studies: Sequence[Path] = ()
    threads: int | None = None
    _told: str = field(default="", init=False)
    _contents: Contents = field(init=False)

    def __post_init__(self) -> None:
        self._contents = Contents(self.engine.allocation)

    def train(self, assignments: Iterable[Assignment], on_end: OnEnd | None = None) -> list[str]:
        """Trains jobs elsewhere; returns nothing, because every run leaves a record, if only of why it failed.

        Args:
            assignments: the jobs.
            on_end: called for each that has come to its end, within a look of that.

        Raises:
            UserError: the engine does not take them.
        """
        todo = list(assignments)
        ends = Ends(todo, on_end, self._is_written) if on_end else None
        self._end_unknown()
        wanted = {record_path(each.folder, seed): (each, seed) for each in todo for seed in each.config.seeds}
        waiting, finished = self._of_earlier_commands(wanted)
        covered = finished.union(*(each.missing for each in waiting))
        new = [each for each in todo if not covered.issuperset(records_of(each))]
        if new := self._not_taken(new):
            waiting += self._submitted(new)
        try:
            if waiting:
                self._wait(waiting, ends)
        except KeyboardInterrupt:
            self._detach(waiting)
            raise
        if ends:
            ends.look(all_of_them=True)
        for submission in self._unsettled():
            submission.settle()
        return []

    def _end_unknown(self) -> None:
        """Ends jobs that a command submitted and was killed before it could write down: they cannot be waited for."""
        for folder in submissions.unknown(self.study):
            self._forget(folder)

    def _forget(self, folder: Path) -> None:
        """Ends the jobs of a submission that is not written down, and forgets it."""
        if submissions.engine_of(folder) in ("", type(self.engine).__name__):  # others' ended with their command
            self.engine.cancel_all(folder)
        shutil.rmtree(folder, ignore_errors=True)

    def _unsettled(self) -> Iterator[Submission]:
        """What earlier commands, and this one, have submitted to an engine of this kind."""
        return (each for each in submissions.read(self.study) if each.engine == type(self.engine).__name__)

    def _of_earlier_commands(self, wanted: Mapping[Path, tuple[Assignment, int]]) -> tuple[list[_Waiting], set[Path]]:
        """Jobs that train the same, and records that such jobs have left meanwhile; jobs that train else are ended.

        Those would write their records where other runs of this study have their place.
        """
        waiting, finished, others = list[_Waiting](), set[Path](), list[str]()
        for submission in self._unsettled():
            states = self.engine.states(list(submission.jobs.values()))
            for name, job in submission.jobs.items():
                runs = {self.study / place: what for place, what in submission.runs[name].items()}
                same = {path: wanted[path] for path, what in runs.items() if self._is_same(wanted.get(path), what)}
                if states.get(job, JobState(is_over=True)).is_over:
                    finished |= {path for path in same if self._has_left(path, *same[path], submission)}
                elif len(same) < len(runs):
                    others.append(job)
                else:
                    waiting.append(self._attached(submission, name, same))
        self._end(others)
        return waiting, finished

    def _is_same(self, wanted: tuple[Assignment, int] | None, what: str) -> bool:
        return wanted is not None and self._contents.of(wanted[0]) == what

    def _attached(self, submission: Submission, name: str, runs: Mapping[Path, tuple[Assignment, int]]) -> _Waiting:
        """A job that is not over."""
        for path in runs:
            self._restore_stamp(path, submission)
        job = submission.jobs[name]
        progress.say(f"attached to job {self._named(job)}, which trains {counted(len(runs), 'run')} of this study")
        return _Waiting(submission.batch(name), job, {path: (each.config, seed) for path, (each, seed) in runs.items()})

    def _has_left(self, path: Path, assignment: Assignment, seed: int, submission: Submission) -> bool:
        """Whether a job that is over has left the record of a run, and no failure; that counts as written now."""
        if stamp(path) in (None, submission.before.get(self._place(path))):
            return False
        try:
            run = read_run(path, details=False)
        except RecordError:
            return False
        if run.status == "failed" or (run.arm, run.seed) != (assignment.config.arm.name, seed):
            return False
        self._restore_stamp(path, submission)
        return True

    def _end(self, jobs: Sequence[str]) -> None:
        """Ends jobs, and waits until they are over; what they have finished is in the store."""
        if not jobs:
            return
        progress.say(
            f"cancelled {counted(len(jobs), 'job')} of an earlier command, which trained with other code, settings or "
            "requests to the launcher, or other runs in the same folders"
        )
        self.engine.cancel(jobs)
        until = time.monotonic() + VISIBLE_SECONDS
        while time.monotonic() < until:
            states = self.engine.states(jobs)
            if all(each in states and states[each].is_over for each in jobs):
                return
            self._pause()

    def _restore_stamp(self, path: Path, submission: Submission) -> None:
        """What a job has written since it was submitted counts as written now."""
        self.before.pop(path, None)
        if stamp := submission.before.get(self._place(path)):
            self.before[path] = stamp

    def _not_taken(self, assignments: Sequence[Assignment]) -> list[Assignment]:
        """Those that are left for jobs: not all of their runs have been trained by such jobs before."""
        before = TrainedBefore(self.studies, type(self.engine).__name__, self._contents, threads=self.threads)
        if taken := before.take(assignments):
            self._note_taken(taken)
        done = set(map(id, taken))
        return [each for each in assignments if id(each) not in done]

    def _note_taken(self, taken: Sequence[Assignment]) -> None:
        """As if a job had left them: the next study finds them by this one."""
        submission = self._submission({"taken": taken})
        submission.keep()
        submission.settle()
        runs = counted(sum(len(each.config.seeds) for each in taken), "run")
        progress.say(f"{runs} taken from the store, as jobs like these have left them")

    def _submission(self, parts: Mapping[str, Sequence[Assignment]]) -> Submission:
        """A new one, with what each of its batches trains."""
        return Submission(
            submissions.new_folder(self.study),
            type(self.engine).__name__,
            runs={
                name: {self._place(path): self._contents.of(each) for each in part for path in records_of(each)}
                for name, part in parts.items()
            },
            before={self._place(path): stamp for path, stamp in self.before.items()},
        )

    def _submitted(self, assignments: Sequence[Assignment]) -> list[_Waiting]:
        places.check_known_elsewhere([each.config for each in assignments])
        parts = self._divided(assignments)
        names = [str(number) for number in range(len(parts))]
        submission = self._submission(dict(zip(names, parts, strict=True)))
        submission.begin()
        for name, part in zip(names, parts, strict=True):
            batches.write(submission.batch(name), self._batch(part))
        try:
            ids = self.engine.submit([submission.batch(name) for name in names], submission.folder)
        except Exception:  # refused, as by Slurm where there is no such partition; what it may have taken is ended
            with suppress(UserError):  # it does not answer; the next command of its kind asks again
                self._forget(submission.folder)
            raise
        submission.jobs.update(zip(names, ids, strict=True))
        try:
            submission.keep()
        except BaseException:  # interrupted, or the disk is full: nobody would find these jobs again
            self.engine.cancel(ids)
            raise
        runs = counted(sum(len(each.config.seeds) for each in assignments), "run")
        progress.say(f"{runs} in {counted(len(parts), 'job')}: {self._named(*ids)}")
        return [
            _Waiting(submission.batch(name), job, dict(_configs(part)))
            for name, job, part in zip(names, ids, parts, strict=True)
        ]

    def _divided(self, assignments: Sequence[Assignment]) -> list[list[Assignment]]:
        """Jobs of about the same number of runs; in each, arms of one seed stay next to each other."""
        num_runs = sum(len(each.config.seeds) for each in assignments)  # on a GPU one trains all seeds of its arm
        count = self.engine.num_jobs(len(assignments), self.seconds_per_run * num_runs)
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

    def _wait(self, waiting: list[_Waiting], ends: Ends | None = None) -> None:
        """Until every run has its record, or its job has ended without one, or the study is stopped."""
        while True:
            waiting = [each for each in waiting if self._is_open(each)]
            if ends:
                ends.look()
            states = self.engine.states([each.job for each in waiting])
            if is_stopped(self.study):  # what is in training is finished, as on this machine
                pending = [each for each in waiting if each.job in states and not states[each.job].is_running]
                self.engine.cancel([each.job for each in pending if not states[each.job].is_over])
                waiting = [each for each in waiting if each not in pending]
            for each in waiting:
                state = states.get(each.job)
                if state and not state.is_over:  # also where it was over, and its engine has started it anew
                    each.over_since = math.nan
                elif state and self._is_final(each):
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
            deferred_file(path.parent, seed).unlink(missing_ok=True)  # nobody waits for it any more
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
            jobs = f"{counted(len(open_jobs), 'job')} ({self._named(*open_jobs)})"
            progress.say(f"{jobs} may go on without this process; the same command waits for them again")
        else:
            self.engine.cancel(open_jobs)
            for submission in self._unsettled():
                submission.settle()
            progress.say(f"cancelled {counted(len(open_jobs), 'job')}")

    def _place(self, path: Path) -> str:
        """Of a record in the study's folder."""
        return str(path.relative_to(self.study))

    def _named(self, *jobs: str) -> str:
        """Jobs by their ids; those of some engines are paths."""
        names = [each.removeprefix(f"{self.study}/") for each in jobs]
        return ", ".join(names) if len(names) < 5 else f"{names[0]} ... {names[-1]}"

    def _tell(self, states: Sequence[JobState]) -> None:
        """How many jobs run and wait, whenever that changes."""
        running = sum(state.is_running for state in states)
        pending = [state for state in states if not state.is_running and not state.is_over]
        reasons = "; ".join(dict.fromkeys(state.reason for state in pending if state.reason))
        line = f"{counted(running, 'job')} running, {len(pending)} waiting{f' ({reasons})' if reasons else ''}"
        if line != self._told and pending:
            progress.say(line)
        self._told = line


def _configs(assignments: Iterable[Assignment]) -> Iterator[tuple[Path, tuple[StudyConfig, int]]]:
    for each in assignments:
        for seed in each.config.seeds:
            yield record_path(each.folder, seed), (each.config, seed)
