"""Runs: from a configuration to records on disk. No Hydra; what notebooks, tests and the sweeper's jobs call."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

from cnn_ablation.common import extensions, lanes, progress
from cnn_ablation.common.errors import RecordError, UserError, one_line
from cnn_ablation.common.files import write_atomically
from cnn_ablation.common.looks import one_look
from cnn_ablation.config import StudyConfig, all_settings
from cnn_ablation.runs import epochs, provenance
from cnn_ablation.runs.neighbours import Training, in_training
from cnn_ablation.runs.records import (
    NAN,
    Run,
    deferred_file,
    failed_run,
    is_stopped,
    labels,
    read_run,
    record_path,
    stamp,
    stop_file,
    weights_path,
    write_failed,
    write_run,
)
from cnn_ablation.runs.store import BusyError, Hold, RunStore
from cnn_ablation.runs.task import How, Place, Task, Trained, check, check_alone, task_of

LOGGER = __name__
log = logging.getLogger(LOGGER)

ConcurrentJobs = Callable[[How], int]
"""Jobs that share the device of a run; asked once training has shown how much of its memory one takes."""


def _alone(_: How) -> int:
    return 1


@one_look()
def run(
    config: StudyConfig,
    folder: Path,
    *,
    study: Path | None = None,
    concurrent_jobs: ConcurrentJobs = _alone,
    threads: int | None = None,
) -> list[Run]:
    """Trains (or reuses) one configuration with each of its seeds; every run is on disk the moment it ends.

    A run that raises becomes a record with `status=failed` and a traceback file beside it.

    Args:
        config: checked here where no study has done so.
        folder: where `run-seed<seed>.json` is written.
        study: the folder of the study that this is a job of. A failure under `on_error=stop`, or a full disk, then
            stops all its jobs; and a job's only run is passed over while another process trains it. Asked for again, it
            is waited for.
        concurrent_jobs: how many jobs share the device, this one included; alone by default.
        threads: as the study's packing decided; None where the run has the machine to itself.

    Raises:
        ConfigError: the configuration must not be trained, or its device is not here.
        RecordError: a record cannot be written.
        Exception: in a lane, what kept it from being trained beside others.
    """
    extensions.load(config.extensions)  # in a worker or a launcher's job nobody has done so
    if study is None:
        check(config)
        check_alone(config)
    task = task_of(config)
    job = _Job(config, folder, study, concurrent_jobs, task, task.resolve(config, threads=threads))
    with task.computing_as(job.how):
        return job.carry_out()


def known_runs(config: StudyConfig, *, threads: int | None = None) -> list[Run] | None:
    """The runs of a job, if the store has them all; told without its process, without loading data, without torch.

    Args:
        config: of a job of a study, checked, its extensions loaded.
        threads: as for `run`, the slow twin: with `leave` this writes what that does.

    Returns:
        None of them where one is missing; None where that is not known before data are loaded, or to `run` alone.
    """
    if not config.reuse:
        return []
    task, store, found = task_of(config), RunStore(Path(config.store)), list[Run]()
    for seed in config.seeds:
        try:
            identity = task.known_identity(config, threads=threads, seed=seed)
        except Exception:  # the job meets it too, and leaves a record that says so
            return None
        if identity is None:
            return None
        run = finished(config, store, provenance.fingerprint(identity))
        if run is None:
            return []
        found.append(run)
    return found


def leave(runs: Sequence[Run], folder: Path, store: Path) -> None:
    """Writes runs that were found in a store into their job's folder, as `run` does; `log_run` says so.

    Raises:
        RecordError: a record cannot be written.
    """
    for each in runs:
        _leave(each, folder, RunStore(store))


@dataclasses.dataclass(frozen=True)
class _Job:
    """One configuration with its seeds, and all that was decided about it."""

    config: StudyConfig
    folder: Path
    study: Path | None
    concurrent_jobs: ConcurrentJobs
    task: Task
    how: How

    @property
    def store(self) -> RunStore:
        return RunStore(Path(self.config.store))

    def carry_out(self) -> list[Run]:
        """Trains or reuses its seeds: those that can be in one go, the others one after another."""
        try:
            return self._carried_out()
        except RecordError:
            _stop(self.study)
            raise

    def _carried_out(self) -> list[Run]:
        runs = self._run_together()
        done = {run.seed for run in runs}
        for seed in (seed for seed in self.config.seeds if seed not in done):
            if self.study and is_stopped(self.study):
                break
            deferred = deferred_file(self.folder, seed)
            wait = not self.study or len(self.config.seeds) > 1 or deferred.exists()
            try:
                runs.append(self._run_or_failure(seed, wait=wait))
                deferred.unlink(missing_ok=True)
            except BusyError:
                self.folder.mkdir(parents=True, exist_ok=True)
                deferred.touch()
            if runs and runs[-1].status == "failed" and self.config.on_error == "stop":
                _stop(self.study)
                break
        return sorted(runs, key=attrgetter("seed"))

    def _identity(self, seed: int) -> dict[str, Any]:
        return self.task.identity(self.config, self.how, seed=seed)

    def _run_together(self) -> list[Run]:
        """Trains those seeds that are not in the store all at once, where the task gains by it; none if that fails.

        Under `timing=isolated` one after the other, by the same steps.
        """
        if not self.task.trains_together(self.config, self.how):
            return []
        identities = {seed: self._identity(seed) for seed in self.config.seeds}
        with ExitStack() as locks:
            holds: dict[int, Hold] = {}
            for seed, identity in identities.items():
                fingerprint = provenance.fingerprint(identity)
                if self._finished(fingerprint) is None:
                    hold = locks.enter_context(self.store.locked(fingerprint))
                    if self._finished(fingerprint) is None:  # nobody has finished it meanwhile
                        holds[seed] = hold
            missing = list(holds)
            groups = [missing] if self.config.timing == "packed" and missing else [[seed] for seed in missing]
            runs: list[Run] = []
            for seeds in groups:
                place = self._place([provenance.fingerprint(identities[seed]) for seed in seeds])
                try:
                    finished = self._trained_together(seeds, place)
                except Exception as error:
                    if lanes.in_one():  # in a process of its own it may go well
                        raise
                    place.checkpoint.unlink(missing_ok=True)  # of all of them; no use to one alone
                    said = f"{one_line(error)}; training one seed after the other, by the reference loop's steps"
                    progress.warn(said)
                    break
                for trained in finished:
                    seed = trained.record.seed
                    runs.append(self._kept(identities[seed], trained, holds[seed]))
                    _leave(runs[-1], self.folder, self.store)
                    log_run(runs[-1])
        return runs

    def _place(self, fingerprints: Sequence[str]) -> Place:
        """Of runs trained in one go, whose checkpoint lies with the first of them."""
        all_of_them = provenance.fingerprint({"trained together": list(fingerprints)})
        return self._fresh_unless_reused(Place(self.folder, self.store.checkpoint_path(fingerprints[0]), all_of_them))

    def _fresh_unless_reused(self, place: Place) -> Place:
        if not self.config.reuse:
            place.checkpoint.unlink(missing_ok=True)
        return place

    def _trained_together(self, seeds: Sequence[int], place: Place) -> list[Trained]:
        def on_epoch(_: int) -> None:
            self.concurrent_jobs(self.how)  # other arms may start from now on

        goes_on = place.checkpoint.exists()
        with in_training(self.store.folder, num_runs=len(seeds)) as training:
            found = self.task.train_together(self.config, seeds, self.how, place, on_epoch)
        if goes_on:
            training.neighbours = NAN  # of those before the interruption nobody knows
        shared = len(seeds) * self.concurrent_jobs(self.how)
        return [_shared(trained, shared, training) for trained in found]

    def _run_or_failure(self, seed: int, *, wait: bool) -> Run:
        path = record_path(self.folder, seed)
        before = stamp(path)
        try:
            record = self._train_or_reuse(seed, wait=wait)
        except BusyError:
            raise
        except Exception as error:  # any failure of an arm is a row of the table, not the end of the study
            record = failed_run(self.config, seed, one_line(error))
            if not isinstance(error, UserError):
                write_atomically(self.folder / f"run-seed{seed}.traceback.txt", traceback.format_exc().encode())
            if not write_failed(path, record, before):
                progress.warn(f"{path} was written by another process meanwhile; this one failed: {record.error}")
                return read_run(path)
        else:
            _leave(record, self.folder, self.store)
        log_run(record)
        return record

    def _train_or_reuse(self, seed: int, *, wait: bool) -> Run:
        identity = self._identity(seed)
        fingerprint = provenance.fingerprint(identity)
        if (found := self._finished(fingerprint)) is not None:
            return found
        with self.store.locked(fingerprint, wait=wait) as hold:
            if (found := self._finished(fingerprint)) is not None:  # somebody has finished it meanwhile
                return found
            tell = epochs.log_of(self.study or self.folder, self.folder, seed, fingerprint)
            place = Place(self.folder, self.store.checkpoint_path(fingerprint), fingerprint, tell)
            goes_on = self._fresh_unless_reused(place).checkpoint.exists()
            with in_training(self.store.folder) as training:
                trained = self.task.train(self.config, seed, self.how, place)
            if goes_on:
                training.neighbours = NAN  # of those before the interruption nobody knows
            return self._kept(identity, _shared(trained, self.concurrent_jobs(self.how), training), hold)

    def _kept(self, identity: dict[str, Any], trained: Trained, hold: Hold) -> Run:
        """The record with its identity, put into the store with the weights."""
        fingerprint = provenance.fingerprint(identity)
        made_by = {**trained.record.provenance, "identity": identity}
        record = dataclasses.replace(trained.record, fingerprint=fingerprint, provenance=made_by)
        try:
            if not self.store.keep(fingerprint, record, trained.weights, replace=hold.may_replace):
                progress.warn(
                    f"{self.store.run_path(fingerprint)} is there already: two processes trained this run, as one had "
                    "not been heard of; the first record stays in the store"
                )
        except RecordError as error:
            progress.warn(f"{error}; this run is kept in its study alone, without its weights")
        return record

    def _finished(self, fingerprint: str) -> Run | None:
        return finished(self.config, self.store, fingerprint)


def finished(config: StudyConfig, store: RunStore, fingerprint: str) -> Run | None:
    """A run of the store as one of this arm, if it is to be reused.

    `timing=isolated` takes none that shared the machine.
    """
    found = store.find(fingerprint) if config.reuse else None
    if found is None or (config.timing == "isolated" and found.concurrent_runs > 1):
        return None
    return dataclasses.replace(found, **labels(config), settings=all_settings(config), reused=True)


def log_run(run: Run) -> None:
    """A line in the log of whoever trains or takes it."""
    log.info("%s seed %d: %s %s", run.arm, run.seed, run.status, run.error)


def _shared(trained: Trained, concurrent_runs: int, training: Training) -> Trained:
    """With what else the machine did meanwhile: as planned, and as it was."""
    record = dataclasses.replace(
        trained.record, concurrent_runs=concurrent_runs, neighbours=training.neighbours,
        train_started=training.started, train_ended=training.ended,
    )  # fmt: skip
    return trained._replace(record=record)


def _leave(run: Run, folder: Path, store: RunStore) -> None:
    """Writes a run into its job's folder, with its weights if the store has them."""
    write_run(record_path(folder, run.seed), run)
    weights, wanted = store.weights_path(run.fingerprint), weights_path(folder, run.seed)
    if run.fingerprint and weights.exists():
        wanted.unlink(missing_ok=True)
        try:
            os.link(weights, wanted)
        except OSError:  # another file system, or one without links
            with suppress(OSError):  # on a full disk the store still has them
                shutil.copyfile(weights, wanted)


def _stop(study: Path | None) -> None:
    """Lets no further run of the study start, in whatever process."""
    if study is None:
        return
    with suppress(OSError):  # on a full disk; the next run will find that out on its own
        stop_file(study).touch()
