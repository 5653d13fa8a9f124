"""Hydra's callbacks (`hydra/callbacks=...`), told of the jobs that no launcher of Hydra's starts.

Those that it starts it tells of itself. Here a job is a process beside this one, a job of an engine, or a run that is
taken from the store; what is told of it is told in this process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cnn_ablation.common.errors import RecordError
from cnn_ablation.config import StatsConfig
from cnn_ablation.runs.records import Run, deferred_file, read_run, record_path
from cnn_ablation.study.choice import mean_figure


class JobFailedError(RuntimeError):
    """Runs of a job failed; their records say so."""


def outcome(runs: Sequence[Run], settings: StatsConfig) -> float | None:
    """What a job returns: the mean over its seeds of the figure by which arms are chosen; None without a run.

    Raises:
        JobFailedError: a run failed.
    """
    if failed := [run for run in runs if run.status == "failed"]:
        raise JobFailedError("; ".join(f"{run.arm}, seed {run.seed}: {run.error}" for run in failed))
    return mean_figure(runs, settings) if runs else None


class JobCallbacks:
    """The callbacks of a person's own configuration, and the jobs that have begun.

    Args:
        context: of Hydra.
        task_function: that callbacks are told of.
        settings: of the study's statistics.
    """

    def __init__(self, context: HydraContext, task_function: TaskFunction, settings: StatsConfig):
        self._callbacks, self._task_function, self._settings = context.callbacks, task_function, settings
        self._begun = dict[int, tuple[DictConfig, JobReturn]]()
        self.are_there = bool(self._callbacks.callbacks)

    def start(self, number: int, composed: DictConfig, prepared: JobReturn) -> None:
        """Tells of a job that is handed out; of one that is handed out again, as another process was at it, no more.

        Args:
            number: of the job.
            composed: its configuration with Hydra's node.
            prepared: what Hydra says of a job in that folder that does nothing.
        """
        if number in self._begun:
            return
        self._begun[number] = composed, prepared
        with _as_of_job(composed):
            self._callbacks.on_job_start(config=composed, task_function=self._task_function)

    def end(self, number: int, folder: Path, seeds: Sequence[int]) -> None:
        """Tells of a job that has left its records, or has ended without."""
        missing = [seed for seed in seeds if not record_path(folder, seed).exists()]
        if number not in self._begun or any(deferred_file(folder, seed).exists() for seed in missing):
            return
        composed, told = self._begun.pop(number)
        try:
            if missing:
                raise JobFailedError(f"left no record of seed {', '.join(map(str, missing))}")
            runs = [read_run(record_path(folder, seed), details=False) for seed in seeds]
            told.return_value, told.status = outcome(runs, self._settings), JobStatus.COMPLETED
        except (JobFailedError, RecordError) as error:
            told.return_value, told.status = error, JobStatus.FAILED
        with _as_of_job(composed):
            self._callbacks.on_job_end(config=composed, job_return=told)


@contextmanager
def _as_of_job(composed: DictConfig) -> Iterator[None]:
    """`HydraConfig.get()` is the job's within it."""
    hydra = HydraConfig.instance()
    before = hydra.cfg
    hydra.set_config(composed)
    try:
        yield
    finally:
        hydra.cfg = before
