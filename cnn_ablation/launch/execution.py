"""A study from its plan to its table. No Hydra: arms are composed and jobs started by what the caller hands in."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_ablation.common import machine, progress
from cnn_ablation.common.errors import ConfigError, Problem, RecordError, UserError
from cnn_ablation.common.looks import one_look
from cnn_ablation.common.words import counted
from cnn_ablation.config import ArmConfig, StatsConfig, StudyConfig, with_settings
from cnn_ablation.launch import children, live, submissions
from cnn_ablation.launch.arrivals import Arrivals
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.crew import Crew
from cnn_ablation.launch.dispatch import Dispatch
from cnn_ablation.launch.engines import Engine, check_engine
from cnn_ablation.launch.folders import claimed, folder_for
from cnn_ablation.launch.following import Expected
from cnn_ablation.launch.forecast import runs_left
from cnn_ablation.launch.observers import makers
from cnn_ablation.launch.observing import Observation, observed_study
from cnn_ablation.launch.others import refuse_others
from cnn_ablation.launch.packing import ONE_AT_A_TIME
from cnn_ablation.launch.planning import Planning
from cnn_ablation.launch.rounds import Rounds
from cnn_ablation.launch.taking import Taking, take
from cnn_ablation.runs.epochs import followed_file
from cnn_ablation.runs.records import (
    Run,
    deferred_file,
    failed_run,
    is_stopped,
    read_run,
    record_path,
    record_paths,
    stop_file,
    write_failed,
)
from cnn_ablation.runs.run import run
from cnn_ablation.runs.store import RunStore, wait_for
from cnn_ablation.runs.task import not_a_config
from cnn_ablation.study.checks.knobs import read_folder, read_knobs
from cnn_ablation.study.choice import figure_words, mean_score
from cnn_ablation.study.designs import Arm, Job, ordered
from cnn_ablation.study.metric import metric_of
from cnn_ablation.study.plans import FILE_NAME, Plan, read_plan, refuse_other_study, write_plan

if TYPE_CHECKING:
    import pandas as pd

_MAX_FAILURES_SHOWN = 3


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
    """A planned study, carried out in a folder.

    The design is asked again after each batch of jobs: this is the one place that waits.

    Args:
        folder: absolute; `<number>/` below it belongs to job `number`.
        planning: its arms.
        engine: that runs its jobs; None where they run here, or by what the caller of `carry_out` hands in.
        title: the name of its file, if it has one.
        observers: objects that are told how it goes, besides those that the baseline names.
    """

    def __init__(
        self,
        folder: Path,
        planning: Planning,
        engine: Engine | None = None,
        *,
        title: str = "",
        observers: Sequence[object] = (),
    ):
        check_alone_on_machine(planning.baseline, engine)
        self._makers, self._title = makers(planning.baseline.trackers, observers), title
        self._observation: Observation | None = None
        self._expected = list[Expected]()  # filled where there are observers
        self.folder, self.planning, self.engine = folder, planning, engine
        self.baseline, self.task = planning.baseline, planning.task
        self.dispatch: Dispatch | None = None
        self._key = submissions.key_of(planning.plan(), engine) if engine else ""
        self._jobs: list[NumberedJob] = []
        self._stamps_before = {path: path.stat().st_mtime_ns for path in record_paths(folder)}
        self._seen = set[Path]()  # records that were written since
        self._taking: Taking[NumberedJob] | None = None

    @property
    def plan(self) -> Plan:
        """What is known so far."""
        return self.planning.plan(self._score)

    @cached_property
    def crew(self) -> Crew:
        """The worker processes of a study that is packed; while it is carried out they stay from round to round."""
        return Crew(self.baseline.task.name, self.planning.packing)

    @property
    def is_packed(self) -> bool:
        """Whether its jobs share this machine side by side."""
        return self.planning.here and self.planning.packing is not ONE_AT_A_TIME

    @property
    def trainer(self) -> Crew | Dispatch | None:
        """What trains its jobs when they are handed over as assignments; None where they are started one by one."""
        return self.dispatch or (self.crew if self.is_packed else None)

    def job_folder(self, number: int) -> Path:
        """Where a job leaves its records."""
        return self.folder / str(number)

    def assignment(self, item: NumberedJob) -> Assignment:
        """What a worker needs to train a job."""
        return Assignment(
            labelled(self.planning.configs[item.job.arm], item.job), self.job_folder(item.number), study=self.folder
        )

    @one_look()
    def carry_out(self, launch: Launch, taking: Taking[NumberedJob] | None = None) -> pd.DataFrame:
        """Loads the data, trains, and leaves the table, also when runs fail or the user interrupts.

        Args:
            launch: starts jobs and waits for them.
            taking: lets this process take what the store has, where jobs run on this machine; None leaves that to them.

        Returns:
            The table of arms.

        Raises:
            ConfigError: a device is asked for that this machine lacks, or jobs of another engine may be going on in the
                folder; nothing has been trained.
            DataError: the data cannot be loaded; nothing has been trained.
            RecordError: a table cannot be written, or the folder holds another study.
            StudyFailedError: the table is written, but runs in it failed.
        """
        self.planning.check_devices()
        refuse_other_study(self.folder, self.plan)
        with claimed(self.folder):
            refuse_others(self.folder, self.engine)
            if (self.folder / FILE_NAME).exists():
                self.planning.keep_seeds(read_plan(self.folder))
            RunStore(Path(self.baseline.store)).check()
            self.task.check_available(self.planning.configs.values())
            has_jobs = any(submissions.read(self.folder)) or submissions.unknown(
                self.folder
            )  # what those left is theirs
            self._taking = taking if self.planning.here and not has_jobs else None
            stop_file(self.folder).unlink(missing_ok=True)
            followed_file(self.folder).unlink(missing_ok=True)  # of a command that was killed
            with self._observed():
                with self._trainer():
                    self._train_all(launch)
                with self._reported_when_interrupted():
                    write_plan(self.folder, self.plan)
                return self._report()

    @contextmanager
    def _observed(self) -> Iterator[None]:
        """Tells observers how it goes, if there are any."""
        if not self._makers:
            yield
            return
        study = observed_study(self.plan, self.folder, self._title)
        with Observation(self._makers, study, lambda: self._expected, self._is_new) as self._observation:
            yield

    @contextmanager
    def _trainer(self) -> Iterator[None]:
        """Keeps what trains its jobs from round to round."""
        with ExitStack() as stack:
            if self.engine:
                stack.callback(self.engine.close)
                store = Path(self.baseline.store).absolute()
                studies = submissions.studies(store)  # before the one of this name is
                token = stack.enter_context(submissions.begun(store, self._key, self.folder))
                self.dispatch = Dispatch(
                    self.folder,
                    self.baseline,
                    self.engine,
                    token,
                    num_runs=self.planning.most_runs,
                    before=self._stamps_before,
                    seconds_per_run=self._seconds_per_run(),
                    studies=studies,
                    threads=self.planning.packing.threads or None,
                )
            elif self.is_packed:
                stack.enter_context(self.crew)
            yield

    def _seconds_per_run(self) -> float:
        """In the mean over its arms; NaN where no past run tells, or nobody needs to know."""
        return math.nan if self.engine and self.engine.jobs else self.planning.seconds_per_run()

    def _train_all(self, launch: Launch) -> None:
        """What the design names, step by step, then the seeds that verdicts ask for."""
        while self.planning.next:
            self.planning.show(self._score)
            self._train({arm: self.planning.seeds_of(arm) for arm in self.planning.next}, launch)
            if is_stopped(self.folder):
                return
            self._go_on()
        self._add_seeds(launch)

    def _go_on(self) -> None:
        """Asks the design for more; what was trained so far is reported even if that cannot be composed."""
        try:
            self.planning.go_on(self._score)
        except UserError as error:
            progress.say(str(error))
            self._report()
            raise
        if self.is_packed and self.planning.next:
            self.crew.leave()  # the next step may have data of its own

    def _add_seeds(self, launch: Launch) -> None:
        """With `replicates=auto`: round after round, until every arm has its verdict."""
        rounds = Rounds(self.folder, self.planning)
        while not is_stopped(self.folder) and (seeds := self._next_of(rounds)):
            self.planning.add_seeds(seeds)
            self._train(seeds, launch)

    def _next_of(self, rounds: Rounds) -> Mapping[Arm, Sequence[int]]:
        try:
            return rounds.next()
        except KeyboardInterrupt:
            self._report_after_interrupt()
            raise

    def _train(self, seeds: Mapping[Arm, Sequence[int]], launch: Launch) -> None:
        """All jobs of these arms with these seeds, each with its record in the end."""
        write_plan(self.folder, self.plan)
        in_order = enumerate(self._in_order(seeds), start=len(self._jobs))
        jobs = [NumberedJob(number, job) for number, job in in_order]
        self._jobs += jobs
        if self._observation:
            self._expected += [Expected(self.assignment(each).config, seed, self.job_folder(each.number))
                               for each in jobs for seed in each.job.seeds]  # fmt: skip
        left = self._left(jobs)
        with self._reported_when_interrupted():
            raised = self._launched(launch, jobs, left)
            deferred = [job for job in left if self._was_deferred(job)]
            if deferred and not is_stopped(self.folder):
                raised += self._launched(launch, deferred, deferred)
            if is_stopped(self.folder):
                self._say_stopped()
            else:
                self._account_for_missing_runs(jobs, raised)

    def _launched(self, launch: Launch, shown: Sequence[NumberedJob], left: Sequence[NumberedJob]) -> list[str]:
        """What jobs that were left raised, while the records of all that are shown are watched."""
        expected = {
            path: (job.job.arm.name, seed)
            for job in shown
            for seed, path in zip(job.job.seeds, self._paths(job), strict=True)
        }
        line = partial(_line, settings=self.baseline.stats)
        arrivals = Arrivals(self.folder, expected, lambda path: path in self._seen or self._is_new(path))
        with live.watch(self._board, expected, arrivals, line):
            return list(launch(left)) if left else []

    @cached_property
    def _board(self) -> live.Board:
        """What a terminal shows while its runs are trained, from round to round."""
        return live.Board(self.baseline.stats)

    def _left(self, jobs: Sequence[NumberedJob]) -> Sequence[NumberedJob]:
        """Those that are to be started, with their data loaded: all whose records the store does not have."""
        with self._reported_when_interrupted():
            left = self._not_taken(jobs)
        is_first = len(jobs) == len(self._jobs)  # nothing has been trained, and what a report needs is not imported yet
        with nullcontext() if is_first else self._reported_when_interrupted(UserError):
            self.task.load(self.planning.configs[arm] for arm in dict.fromkeys(item.job.arm for item in left))
            if left and self.is_packed and not self.engine:
                self._prepare_report()
        with self._reported_when_interrupted():
            now = self._not_taken([item for item, is_unknown in left.items() if is_unknown])
        return [item for item, is_unknown in left.items() if not is_unknown or item in now]

    @staticmethod
    def _prepare_report() -> None:
        """Imports what the report needs now, while workers have nothing to do but to import what they need."""
        from cnn_ablation.report import drawing, page, study  # noqa: F401

        drawing.prepare()
        page.prepare()

    def _not_taken(self, jobs: Sequence[NumberedJob]) -> Mapping[NumberedJob, bool]:
        """Jobs that are left to be started, as `taking.take` tells them."""
        if self._taking is None:
            if jobs:
                self._begin_loading()
            return dict.fromkeys(jobs, False)
        threads = self.planning.packing.threads or None if self.is_packed else None
        return take(jobs, self._taking, threads, self._begin_loading)

    def _begin_loading(self) -> None:
        if self.is_packed and not self.engine:
            children.start_loading(self.task.PRELOADED)

    @contextmanager
    def _reported_when_interrupted(self, told: type[UserError] = RecordError) -> Iterator[None]:
        try:
            yield
        except (KeyboardInterrupt, OSError, told):  # Hydra writes files of its own: the disk may be full
            self._report_after_interrupt()
            raise

    def _in_order(self, seeds: Mapping[Arm, Sequence[int]]) -> Iterator[Job]:
        """Their jobs; the order of the arms goes on from seed to seed where earlier rounds have ended."""
        all_seeds = sorted(set(itertools.chain(*seeds.values())))
        isolated, rounds_before = self.baseline.timing == "isolated", all_seeds[0] - self.baseline.seed
        in_turn = partial(ordered, back_and_forth=isolated, rounds_before=rounds_before)
        for job in in_turn(list(seeds), all_seeds, self.planning.in_one_go):
            if wanted := tuple(seed for seed in job.seeds if seed in seeds[job.arm]):
                yield Job(job.arm, wanted)

    def _score(self, arm: Arm) -> float | None:
        """Mean over the seeds of what a greedy study chooses by, once all are there, negative where lower is better.

        Only the first seeds count, which all arms have: those added for a verdict change no choice. An arm with a
        failed run, or one without that figure, is never chosen.
        """
        same, first = self.planning.same(arm), self.baseline.seeds
        paths = [
            record_path(self.job_folder(job.number), seed)
            for job in self._jobs
            if job.job.arm == same
            for seed in job.job.seeds
            if seed in first
        ]
        if not paths or len(self._written(paths)) < len(paths):
            return None
        runs = [_read(path) for path in paths]
        if any(run is None or run.status == "failed" for run in runs):
            return -math.inf
        return mean_score([run for run in runs if run], self.baseline.stats)

    def _paths(self, job: NumberedJob) -> list[Path]:
        return [record_path(self.job_folder(job.number), seed) for seed in job.job.seeds]

    def _was_deferred(self, job: NumberedJob) -> bool:
        """Whether another process was training one of its runs: others came first, now it is waited for."""
        return any(deferred_file(self.job_folder(job.number), seed).exists() for seed in job.job.seeds)

    def _written(self, expected: Sequence[Path]) -> list[Path]:
        """Records written since this study was planned; its folder may hold those of an earlier attempt."""
        return [path for path in expected if path in self._seen or self._is_new(path)]

    def _is_new(self, path: Path) -> bool:
        """Whether a record has been written since then; that it has stays true, and is not looked for again."""
        try:
            is_new = self._stamps_before.get(path) != path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if is_new:
            self._seen.add(path)
        return is_new

    def _account_for_missing_runs(self, jobs: Sequence[NumberedJob], raised: Sequence[str]) -> None:
        """A run that left no record (its process died) becomes a row that says so."""
        reason = "; ".join(dict.fromkeys(raised)) or "its process ended"
        for job in jobs:
            for seed, path in zip(job.job.seeds, self._paths(job), strict=True):
                if not self._written([path]):
                    failed = failed_run(self.planning.configs[job.job.arm], seed, f"left no record: {reason}")
                    if not write_failed(path, failed, self._stamps_before.get(path)):
                        wait_for(path)

    def _report(self) -> pd.DataFrame:
        from cnn_ablation.report.study import report_study  # pandas takes long to import

        try:
            report = report_study(self.folder)
        except UserError as error:
            runs = [run for path in record_paths(self.folder) if (run := _read(path))]
            self._refuse_failures([(run.arm, run.seed, run.status, run.error) for run in runs], f"\n{error}")
            raise
        if self._observation:
            self._observation.report(report.arms)
        self._refuse_failures(list(report.runs[["arm", "seed", "status", "error"]].itertuples(index=False, name=None)))
        return report.arms

    def _refuse_failures(self, runs: Sequence[tuple[str, int, str, str]], also: str = "") -> None:
        """Says which runs failed, each given as its arm, seed, status and error; nothing where none did."""
        failed = [f"  {arm}, seed {seed}: {error}" for arm, seed, status, error in runs if status == "failed"]
        if failed:
            shown = "\n".join(failed[:_MAX_FAILURES_SHOWN])
            where = f"details beside each run below {self.folder}"
            raise StudyFailedError(f"{len(failed)} of {len(runs)} runs failed; {where}\n{shown}{also}")

    def _report_after_interrupt(self) -> None:
        """The table of what is finished, and how to go on."""
        try:
            self._report()
        except UserError as error:
            progress.say(str(error))
        self._say_stopped()

    def _say_stopped(self) -> None:
        finished = len(self._written([path for job in self._jobs for path in self._paths(job)]))
        so_far = " planned so far" if self.plan.auto else ""
        progress.say(
            f"stopped after {finished} of {counted(self.plan.num_runs, 'run')}{so_far}; "
            "the same command goes on from there (finished runs are reused)"
        )


def _read(path: Path) -> Run | None:
    try:
        return read_run(path)
    except RecordError as error:
        progress.warn(str(error))
        return None


def show_forecast(planning: Planning, engine: Engine | None = None) -> None:
    """Prints what a study would do, and into how many jobs its runs would be divided; trains nothing.

    Raises:
        ConfigError: a device is asked for that this machine lacks.
    """
    found = planning.show_forecast()
    if engine:
        print(_jobs_words(planning, engine, runs_left(found)), flush=True)


def _jobs_words(planning: Planning, engine: Engine, left: tuple[int, int] | None) -> str:
    """Into how many jobs an engine divides the runs that are left to train, at least and at most.

    Where jobs run on this machine, this process takes what the store has; elsewhere a job may find it there.
    """
    nothing = "all runs would be reused, nothing would be trained" if left and not left[1] else ""
    if nothing and engine.is_here:
        return f"no job: {nothing}"
    num_runs = (left[0] if left and engine.is_here else 0) or len(planning.configs) * len(planning.baseline.seeds)
    seconds = math.nan if engine.jobs else num_runs * planning.seconds_per_run()
    num_jobs = engine.num_jobs(num_runs, seconds)
    words = f"{counted(num_jobs, 'job')}{', each' if num_jobs > 1 else ''} with {engine.allocation}"
    return f"at most {words}: {nothing}" if nothing else words


def check_alone_on_machine(baseline: StudyConfig, engine: Engine | None) -> None:
    """Refuses `timing=isolated` where an engine's jobs would train beside each other on this machine.

    Raises:
        ConfigError: so it is.
    """
    if engine and engine.is_here and baseline.timing == "isolated" and engine.jobs != 1:
        allowed = "packed with this launcher, whose jobs train beside each other; isolated with one job alone"
        raise ConfigError([Problem("timing", baseline.timing, allowed, remedy="hydra.launcher.jobs=1")])


def run_single(config: StudyConfig, folder: Path) -> None:
    """A study of the baseline alone, in this process: one configuration with all its seeds.

    Raises:
        UserError: as `Study` and `Study.carry_out`.
    """
    planning = Planning("one_at_a_time", [], lambda arm: config)
    if config.dry_run:
        planning.show_forecast()
        return
    study = Study(folder, planning)
    study.carry_out(on_this_machine(study), taking_here(study))


def ablate(
    baseline: StudyConfig,
    knobs: dict[str, Sequence[Any]],
    folder: str | Path | None = None,
    *,
    design: str = "one_at_a_time",
    engine: Engine | None = None,
    observers: Sequence[object] = (),
) -> pd.DataFrame:
    """A study in Python: trains every arm with every seed, writes and prints the tables.

        ablate(baseline, {"model.activation": ["leaky"], "large": [{"train.batch_size": 256, "optimizer.lr": 4e-3}]})

    Args:
        baseline: from `cnn_ablation.compose`, or made by hand.
        knobs: config key -> its levels; or any name -> dictionaries of keys that move together.
        folder: the study's folder; None for a new one below multirun/.
        design: a name in `designs.DESIGNS`.
        engine: that runs its jobs elsewhere (`cnn_ablation.launch.engines`); None for this machine.
        observers: objects that are told how it goes (`launch.observers.Observer`), besides `baseline.trackers`.

    Returns:
        The table of arms, as `ablation_table` makes it; without rows under `dry_run`, which trains nothing.

    Raises:
        ConfigError: something given is not what it should be; nothing has been trained.
        UserError: as `Study` and `Study.carry_out`.
    """
    if not isinstance(baseline, StudyConfig):
        raise ConfigError([not_a_config("baseline", baseline)])
    check_engine(engine)
    makers((), observers)
    studied, chosen = read_knobs(knobs), read_folder(folder)
    wanted = chosen or Path(time.strftime("multirun/%Y-%m-%d/%H-%M-%S")).absolute()
    with seen_by(engine):
        here = engine is None or engine.is_here
        planning = Planning(design, studied, lambda arm: with_settings(baseline, arm.settings), here=here)
        if baseline.dry_run:
            import pandas as pd

            from cnn_ablation.analysis.tables import arm_columns

            show_forecast(planning, engine)
            return pd.DataFrame(columns=arm_columns(metric_of(baseline.stats)))
        study = Study(chosen or folder_for(wanted, planning, engine), planning, engine, observers=observers)
        return study.carry_out(on_this_machine(study), taking_here(study))


def seen_by(engine: Engine | None) -> AbstractContextManager[None]:
    """Within it a study is planned for the machines that an engine gives to its jobs."""
    return machine.seen_as(engine.allocation, elsewhere=not engine.is_here) if engine else nullcontext()


def on_this_machine(study: Study) -> Launch:
    """Trains the jobs of a study side by side, or one after the other in this process."""

    def launch(jobs: Sequence[NumberedJob]) -> list[str]:
        """What jobs raised instead of leaving a record."""
        assignments = [study.assignment(item) for item in jobs]
        if study.trainer:
            return study.trainer.train(assignments)
        for each in assignments:
            run(each.config, each.folder, study=each.study)
        return []

    return launch


def taking_here(study: Study) -> Taking[NumberedJob]:
    """How `on_this_machine` starts jobs."""
    return Taking(study.assignment, lambda item: None, has_log=study.is_packed)


def labelled(config: StudyConfig, job: Job) -> StudyConfig:
    """An arm's configuration with the labels and seeds of one of its jobs."""
    label = ArmConfig(job.arm.name, job.arm.knob, job.arm.level)
    return replace(config, arm=label, seed=job.seeds[0], replicates=len(job.seeds))


def _line(path: Path, settings: StatsConfig) -> str:
    """A finished run in a few words."""
    try:
        run = read_run(path, details=False)
    except RecordError as error:
        return str(error)
    name = f"{run.arm} seed {run.seed}"
    if run.status == "failed":
        return f"{name}: failed ({run.error})"
    seconds = "" if math.isnan(run.train_seconds) else f", {run.train_seconds:.1f} s of training"
    words = f"{name}: {figure_words(run, settings)}{seconds}"
    return words + (", diverged" if run.status == "diverged" else "") + (", reused" if run.reused else "")
