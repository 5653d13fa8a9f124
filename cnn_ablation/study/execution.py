"""A study from its plan to its table. No Hydra: arms are composed and jobs started by what the caller hands in."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from cnn_ablation.common import progress
from cnn_ablation.common.errors import ConfigError, RecordError, UserError
from cnn_ablation.config import ArmConfig, Config, DataConfig, all_settings, with_settings
from cnn_ablation.launch import workers
from cnn_ablation.runs import provenance
from cnn_ablation.runs.records import (
    Run,
    deferred_file,
    failed_run,
    is_stopped,
    read_run,
    record_path,
    record_paths,
    stop_file,
    write_run,
)
from cnn_ablation.runs.store import RunStore
from cnn_ablation.study import checks, forecast
from cnn_ablation.study.checks.knobs import read_folder, read_knobs
from cnn_ablation.study.designs import (
    BASELINE,
    DESIGNS,
    Arm,
    Job,
    Knob,
    arm_by_arm,
    greedy_steps,
    hidden_settings,
    one_at_a_time,
    seed_by_seed,
)
from cnn_ablation.study.plans import PathStep, Plan, counted, refuse_other_study, write_plan
from cnn_ablation.tasks.image_classification import computing, data, parts

if TYPE_CHECKING:
    import pandas as pd

_MAX_FAILURES_SHOWN = 3
GREEDY = "greedy"


class StudyFailedError(UserError):
    """Runs of a study failed; its table is written all the same."""

    exit_code = 1


@dataclass(frozen=True)
class NumberedJob:
    """A job with its place in the study, which names its folder."""

    number: int
    job: Job


Launch = Callable[[Sequence[NumberedJob]], Sequence[str]]
"""Starts jobs, waits for them, and returns what they raised instead of leaving a record."""


class Study:
    """Arms with their configurations, to be trained into one folder.

    The arms come from the design, which is asked again after each batch of jobs: this is the one place that waits.

    Args:
        folder: absolute; `<number>/` below it belongs to job `number`.
        design: a name in `designs.DESIGNS`.
        knobs: what varies.
        compose: an arm -> its configuration.
        here: its jobs run on this machine, so that what is missing here is missing for them, and `auto` is known.

    Raises:
        ConfigError: an arm must not be trained.
    """

    @data.one_look()
    def __init__(
        self,
        folder: Path,
        design: str,
        knobs: Sequence[Knob],
        compose: Callable[[Arm], Config],
        *,
        here: bool = True,
    ):
        self.here = here
        self.folder = folder
        self.design = design
        self.knobs = list(knobs)
        self.configs: dict[Arm, Config] = {}
        self._compose = cache(compose)
        self._arm_of: dict[str, Arm] = {}  # the first arm with a configuration; later ones are the same arm
        self._jobs: list[NumberedJob] = []
        self._stamps_before = {path: path.stat().st_mtime_ns for path in record_paths(folder)}
        self._checked = cache(self._checked_config)
        self._effective = cache(lambda arm: self._comes_to(self._checked(arm)))
        self.merged: dict[str, str] = {}
        """Arms that come to the same as another one, by name: which one, and why."""
        self.baseline = self._compose(Arm(BASELINE))
        checks.check_study(design, knobs, self.baseline)
        if design == GREEDY:  # later arms depend on results; each level alone tells of mistakes before any training
            for arm in one_at_a_time(self.knobs):
                self._checked(arm)
        self._next = self._new_arms()
        checks.check_effects(design, self.knobs, self._checked, self._comes_to)

    @property
    def plan(self) -> Plan:
        """What is known so far."""
        return Plan(
            design=self.design,
            knobs={knob.name: [level.label for level in knob.levels] for knob in self.knobs},
            keys=list(dict.fromkeys(key for knob in self.knobs for key in knob.keys)),
            arms=list(self.configs),
            seeds=list(self.baseline.seeds),
            baseline=all_settings(self.baseline),
            stats=self.baseline.stats,
            path=self._path(),
            merged=dict(self.merged),
            labelled=hidden_settings(self.knobs),
            provenance=provenance.environment(),
        )

    def job_folder(self, number: int) -> Path:
        """Where a job leaves its records."""
        return self.folder / str(number)

    def task(self, item: NumberedJob) -> workers.Task:
        """What a worker needs to train a job."""
        return workers.Task(
            labelled(self.configs[item.job.arm], item.job), self.job_folder(item.number), study=self.folder
        )

    @cached_property
    def packing(self) -> workers.Packing:
        """How its runs share this machine, decided once for all steps of its design.

        What was registered in this process is known in no other.
        """
        arms = one_at_a_time(self.knobs) if self.design == GREEDY else self.configs  # greedy begins with fewer
        configs = [self._compose(arm) for arm in arms]
        if any(parts.lives_here_alone(config) for config in configs):
            return workers.ONE_AT_A_TIME
        return workers.packing(self.baseline, len(configs) * self.baseline.replicates, configs)

    def show_plan(self) -> None:
        """Prints arms, seeds and runs of what comes next."""
        plan = self.plan
        to_come = [knob.name for knob in self.knobs[len(plan.path) :]]
        print("\n".join(plan.step_lines(self._next, to_come) if plan.path else plan.lines()), flush=True)

    @data.one_look()
    def show_forecast(self) -> None:
        """Prints the plan, what would be reused, what is confounded and how long it would take; trains nothing.

        Raises:
            ConfigError: a device is asked for that this machine lacks.
        """
        if self.here:
            self._check_devices()
        self.show_plan()
        if self._path():
            print("of this step:")
        how_of = partial(computing.resolve, threads=self.packing.threads or None, planned=True) if self.here else None
        found = forecast.forecast(self.configs, how_of)
        print("\n".join(forecast.lines(found, self.baseline.store)), flush=True)

    @data.one_look()
    def carry_out(self, launch: Launch) -> pd.DataFrame:
        """Loads the data, trains, and leaves the table, also when runs fail or the user interrupts.

        Args:
            launch: starts jobs and waits for them.

        Returns:
            The table of arms.

        Raises:
            ConfigError: a device is asked for that this machine lacks; nothing has been trained.
            DataError: the data cannot be loaded; nothing has been trained.
            RecordError: a table cannot be written, or the folder holds another study.
            StudyFailedError: the table is written, but runs in it failed.
        """
        if self.here:
            self._check_devices()
        refuse_other_study(self.folder, self.plan)
        with claimed(self.folder):
            RunStore(Path(self.baseline.store)).check()
            for settings in self._data_sets(self.configs):
                data.check_available(settings)
            if self.here and self.packing is not workers.ONE_AT_A_TIME:
                workers.start_loading()
            stop_file(self.folder).unlink(missing_ok=True)
            while self._next:
                self.show_plan()
                self._train(self._next, launch)
                if is_stopped(self.folder):
                    break
                self._go_on()
            write_plan(self.folder, self.plan)
            return self._report()

    def _go_on(self) -> None:
        """Asks the design for more; what was trained so far is reported even if that cannot be composed."""
        try:
            self._next = self._new_arms()
        except UserError as error:
            progress.say(str(error))
            self._report()
            raise

    def _train(self, arms: Sequence[Arm], launch: Launch) -> None:
        """All jobs of these arms, each with its record in the end."""
        write_plan(self.folder, self.plan)
        for settings in self._data_sets(arms):
            _ = data.load(settings).digest  # here once, not in every worker
        order = seed_by_seed if computing.device_type(self.baseline.device) == "cpu" else arm_by_arm
        ordered = order(arms, self.plan.seeds)
        jobs = [NumberedJob(number, job) for number, job in enumerate(ordered, start=len(self._jobs))]
        self._jobs += jobs
        pending, raised = jobs, list[str]()
        try:
            while pending and not is_stopped(self.folder):
                expected = [path for job in pending for path in self._paths(job)]
                with progress.watch("runs", len(expected), partial(self._written, expected), _line):
                    raised += launch(pending)
                pending = [job for job in pending if pending is jobs and self._was_deferred(job)]
            if is_stopped(self.folder):
                self._say_stopped()
            else:
                self._account_for_missing_runs(jobs, raised)
        except (KeyboardInterrupt, OSError, RecordError):  # Hydra writes files of its own: the disk may be full
            self._report_after_interrupt()
            raise

    def _data_sets(self, arms: Iterable[Arm]) -> list[DataConfig]:
        """Settings of data that arms are trained on, each once."""
        return list({repr(self.configs[arm].data): self.configs[arm].data for arm in arms}.values())

    def _check_devices(self) -> None:
        for arm, config in self.configs.items():
            try:
                computing.resolve(config, planned=True)
            except ConfigError as error:
                raise ConfigError(error.problems, arm=_named(arm)) from None

    def _new_arms(self) -> list[Arm]:
        """Arms that the design adds, now that it knows the scores; one that comes to the same as another is no arm."""
        new = []
        for arm in DESIGNS[self.design](self.knobs, self._score):
            same = self._same(arm)
            if same != arm and (reason := checks.same_because(self._checked(arm), self._checked(same))):
                self.merged[arm.name] = f"{same.name} ({reason})"
            elif same == arm and arm not in self.configs:
                new.append(arm)
                self.configs[arm] = self._checked(arm)
        return new

    def _checked_config(self, arm: Arm) -> Config:
        config = self._compose(arm)
        checks.check(config, arm=_named(arm))
        return config

    def _comes_to(self, config: Config) -> str:
        """What a run of a configuration is made of: equal for runs that give the same."""
        return checks.effective(config, self._resolved(config))

    def _resolved(self, config: Config) -> dict[str, str]:
        """What `auto` stands for, where that matters and is known; a device that is not here is refused later."""
        varied = {key for knob in self.knobs for key in knob.keys} & {"device", "precision"}
        if not varied or not self.here:
            return {}
        try:
            how = computing.resolve(config, planned=True)
        except ConfigError:
            return {}
        return {"device": how.device, "precision": how.precision}

    def _same(self, arm: Arm) -> Arm:
        """The first arm that comes to the same."""
        return self._arm_of.setdefault(self._effective(arm), arm)

    def _score(self, arm: Arm) -> float | None:
        """Mean validation accuracy over the seeds, once all are there; an arm with a failed run is never chosen."""
        same = self._same(arm)
        paths = [path for job in self._jobs if job.job.arm == same for path in self._paths(job)]
        if not paths or len(self._written(paths)) < len(paths):
            return None
        runs = [_read(path) for path in paths]
        if any(run is None or run.status == "failed" for run in runs):
            return -math.inf
        return math.fsum(run.val_accuracy for run in runs if run) / len(runs)

    def _path(self) -> list[PathStep]:
        """The steps so far by the names of the arms that were really trained."""
        if self.design != GREEDY:
            return []
        return [
            PathStep(
                knob=step.knob,
                before=self._same(step.before).name,
                candidates=[
                    same.name for arm in step.candidates if (same := self._same(arm)) != self._same(step.before)
                ],
                kept=self._same(step.kept).name if step.kept else None,
            )
            for step in greedy_steps(self.knobs, self._score)
        ]

    def _paths(self, job: NumberedJob) -> list[Path]:
        return [record_path(self.job_folder(job.number), seed) for seed in job.job.seeds]

    def _was_deferred(self, job: NumberedJob) -> bool:
        """Whether another process was training one of its runs: others came first, now it is waited for."""
        return any(deferred_file(self.job_folder(job.number), seed).exists() for seed in job.job.seeds)

    def _written(self, expected: Sequence[Path]) -> list[Path]:
        """Records written since this study was planned; its folder may hold those of an earlier attempt."""
        found = []
        for path in expected:
            try:
                stamp = path.stat().st_mtime_ns
            except FileNotFoundError:
                continue
            if self._stamps_before.get(path) != stamp:
                found.append(path)
        return found

    def _account_for_missing_runs(self, jobs: Sequence[NumberedJob], raised: Sequence[str]) -> None:
        """A run that left no record (its process died) becomes a row that says so."""
        reason = "; ".join(dict.fromkeys(raised)) or "its process ended"
        for job in jobs:
            for seed, path in zip(job.job.seeds, self._paths(job), strict=True):
                if not self._written([path]):
                    write_run(path, failed_run(self.configs[job.job.arm], seed, f"left no record: {reason}"))

    def _report(self) -> pd.DataFrame:
        from cnn_ablation.report.study import report_study  # pandas and statsmodels take seconds to import

        report = report_study(self.folder)
        runs = report.runs
        failed = runs[runs["status"] == "failed"]
        if len(failed):
            reasons = [f"  {run['arm']}, seed {run['seed']}: {run['error']}" for run in failed.to_dict("records")]
            shown = "\n".join(reasons[:_MAX_FAILURES_SHOWN])
            raise StudyFailedError(
                f"{len(failed)} of {len(runs)} runs failed; details beside each run below {self.folder}\n{shown}"
            )
        return report.arms

    def _report_after_interrupt(self) -> None:
        """The table of what is finished, and how to go on."""
        try:
            self._report()
        except UserError as error:
            progress.say(str(error))
        self._say_stopped()

    def _say_stopped(self) -> None:
        finished = len(self._written([path for job in self._jobs for path in self._paths(job)]))
        progress.say(
            f"stopped after {finished} of {counted(self.plan.num_runs, 'run')}; "
            "the same command goes on from there (finished runs are reused)"
        )


def _named(arm: Arm) -> str | None:
    """The name for messages; mistakes in the baseline need none."""
    return arm.name if arm.settings else None


def _read(path: Path) -> Run | None:
    try:
        return read_run(path)
    except RecordError as error:
        progress.warn(str(error))
        return None


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps a study's folder for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        RecordError: another process is writing a study into the folder, or it cannot be created.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RecordError(
            f"another study is being written to {folder}\n"
            "  remedy: wait for it, or choose another folder with hydra.sweep.dir=DIR (hydra.run.dir=DIR without -m)"
        ) from error
    except OSError as error:
        raise RecordError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def new_folder(wanted: Path) -> Path:
    """A folder that was not there before: `wanted`, or `wanted-2`, ... where studies start in the same second.

    Raises:
        RecordError: it cannot be created.
    """
    for folder in itertools.chain([wanted], (wanted.with_name(f"{wanted.name}-{n}") for n in itertools.count(2))):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RecordError(f"cannot write to {folder}: {error.strerror or error}") from error
        return folder
    raise AssertionError("the names never end")


def run_single(config: Config, folder: Path) -> None:
    """A study of the baseline alone, in this process: one configuration with all its seeds.

    Raises:
        UserError: as `Study` and `Study.carry_out`.
    """
    study = Study(folder, "one_at_a_time", [], lambda arm: config)
    if config.dry_run:
        study.show_forecast()
        return
    study.carry_out(on_this_machine(study))


def ablate(
    baseline: Config,
    knobs: dict[str, Sequence[Any]],
    folder: str | Path | None = None,
    *,
    design: str = "one_at_a_time",
) -> pd.DataFrame:
    """A study in Python: trains every arm with every seed, writes and prints the tables.

        ablate(baseline, {"model.activation": ["leaky"], "large": [{"train.batch_size": 256, "optimizer.lr": 4e-3}]})

    Args:
        baseline: from `cnn_ablation.compose`, or made by hand.
        knobs: config key -> its levels; or any name -> dictionaries of keys that move together.
        folder: the study's folder; None for a new one below multirun/.
        design: a name in `designs.DESIGNS`.

    Returns:
        The table of arms, as `ablation_table` makes it; without rows under `dry_run`, which trains nothing.

    Raises:
        ConfigError: something given is not what it should be; nothing has been trained.
        UserError: as `Study` and `Study.carry_out`.
    """
    if not isinstance(baseline, Config):
        raise ConfigError([checks.not_a_config("baseline", baseline)])
    studied, chosen = read_knobs(knobs), read_folder(folder)
    wanted = chosen or Path(time.strftime("multirun/%Y-%m-%d/%H-%M-%S")).absolute()
    study = Study(wanted, design, studied, lambda arm: with_settings(baseline, arm.settings))
    if baseline.dry_run:
        import pandas as pd

        from cnn_ablation.analysis.tables import ARM_COLUMNS

        study.show_forecast()
        return pd.DataFrame(columns=ARM_COLUMNS)
    if not chosen:
        study.folder = new_folder(wanted)
    return study.carry_out(on_this_machine(study))


def on_this_machine(study: Study) -> Launch:
    """Trains the jobs of a study side by side, or one after the other in this process."""

    def launch(jobs: Sequence[NumberedJob]) -> list[str]:
        """What jobs raised instead of leaving a record."""
        how = study.packing
        tasks = [study.task(item) for item in jobs]
        if how is not workers.ONE_AT_A_TIME:
            return workers.train_side_by_side(tasks, how)
        from cnn_ablation.runs.run import run  # torch is imported only once the configuration is known to be good

        for task in tasks:
            run(task.config, task.folder, study=task.study)
        return []

    return launch


def labelled(config: Config, job: Job) -> Config:
    """An arm's configuration with the labels and seeds of one of its jobs."""
    label = ArmConfig(job.arm.name, job.arm.knob, job.arm.level)
    return replace(config, arm=label, seed=job.seeds[0], replicates=len(job.seeds))


def _line(path: Path) -> str:
    """A finished run in a few words."""
    try:
        run = read_run(path, details=False)
    except RecordError as error:
        return str(error)
    name = f"{run.arm} seed {run.seed}"
    if run.status == "failed":
        return f"{name}: failed ({run.error})"
    words = f"{name}: {100 * run.val_accuracy:.2f} % validation accuracy, {run.train_seconds:.1f} s of training"
    return words + (", diverged" if run.status == "diverged" else "") + (", reused" if run.reused else "")
