"""A study from its plan to its table. No Hydra: jobs are started by whatever the caller hands in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cnn_ablation import checks, data, progress, provenance
from cnn_ablation.config import Config, all_settings
from cnn_ablation.designs import BASELINE, Arm, Job, Knob, arm_by_arm, seed_by_seed
from cnn_ablation.errors import RecordError, UserError
from cnn_ablation.plans import Plan, write_plan
from cnn_ablation.records import failed_run, read_run, record_path, record_paths, write_run

_MAX_FAILURES_SHOWN = 3


class StudyFailedError(UserError):
    """Runs of a study failed; its table is written all the same."""

    exit_code = 1


class Study:
    """Arms with their configurations, to be trained into one folder.

    Args:
        folder: absolute; `<number>/` below it belongs to job `number`.
        design: name of the design, for the plan.
        knobs: as asked for, for the plan.
        configs: every arm with its configuration, the baseline first.
        order: `designs.seed_by_seed` or `designs.arm_by_arm`.

    Raises:
        ConfigError: an arm must not be trained.
    """

    def __init__(
        self,
        folder: Path,
        design: str,
        knobs: Sequence[Knob],
        configs: dict[Arm, Config],
        order: Callable[[Sequence[Arm], Sequence[int]], list[Job]] = seed_by_seed,
    ):
        for arm, config in configs.items():
            checks.check(config, arm=arm.name if arm.settings else None)
        self.folder = folder
        self.configs = configs
        self.baseline = next(iter(configs.values()))
        self.plan = Plan(
            design=design,
            knobs={knob.name: [level.label for level in knob.levels] for knob in knobs},
            arms=list(configs),
            seeds=list(self.baseline.seeds),
            baseline=all_settings(self.baseline),
            alpha=self.baseline.stats.alpha,
            margin_pp=self.baseline.stats.margin_pp,
            provenance=provenance.environment(),
        )
        self.jobs = order(self.plan.arms, self.plan.seeds)
        self._stamps_before = self._stamps()

    def job_folder(self, number: int) -> Path:
        """Where a job leaves its records."""
        return self.folder / str(number)

    def show_plan(self) -> None:
        """Prints arms, seeds and runs."""
        print("\n".join(self.plan.lines()), flush=True)

    def carry_out(self, launch: Callable[[], Sequence[str]], *, here: bool) -> None:
        """Loads the data, trains, and leaves the table, also when runs fail or the user interrupts.

        Args:
            launch: starts all jobs, waits for them, and returns what they raised instead of leaving a record.
            here: jobs run on this machine, so that a device that is missing here is missing for them.

        Raises:
            ConfigError: a device is asked for that this machine lacks; nothing has been trained.
            DataError: the data cannot be loaded; nothing has been trained.
            RecordError: a table cannot be written, or the folder holds another study.
            StudyFailedError: the table is written, but runs in it failed.
        """
        if here:
            self._check_devices()
        with claimed(self.folder):
            self._carry_out(launch)

    def _carry_out(self, launch: Callable[[], Sequence[str]]) -> None:
        self.show_plan()
        write_plan(self.folder, self.plan)
        for settings in {repr(config.data): config.data for config in self.configs.values()}.values():
            data.load(settings)
        try:
            with progress.watch("runs", self.plan.num_runs, self._new_records, _line):
                raised = launch()
        except (KeyboardInterrupt, OSError):  # Hydra writes files of its own for every job: the disk may be full
            self._report_after_interrupt()
            raise
        self._account_for_missing_runs(raised)
        self._report()

    def _check_devices(self) -> None:
        from cnn_ablation import devices  # imports torch, which nothing before the training needs

        for name in {config.device for config in self.configs.values()}:
            devices.choose(name)

    def _stamps(self) -> dict[Path, int]:
        """Every record in the folder with its time of writing."""
        return {path: path.stat().st_mtime_ns for path in record_paths(self.folder)}

    def _new_records(self) -> list[Path]:
        """Records written since this study was planned; its folder may hold those of an earlier attempt."""
        return [path for path, stamp in self._stamps().items() if self._stamps_before.get(path) != stamp]

    def _account_for_missing_runs(self, raised: Sequence[str]) -> None:
        """A run that left no record (its process died, the disk was full) becomes a row that says so."""
        written = set(self._new_records())
        reason = "; ".join(dict.fromkeys(raised)) or "its process ended"
        for number, job in enumerate(self.jobs):
            for seed in job.seeds:
                path = record_path(self.job_folder(number), seed)
                if path not in written:
                    write_run(path, failed_run(self.configs[job.arm], seed, f"left no record: {reason}"))

    def _report(self) -> None:
        from cnn_ablation.report.study import report_study  # pandas and statsmodels take seconds to import

        runs = report_study(self.folder).runs
        failed = runs[runs["status"] == "failed"]
        if len(failed):
            reasons = [f"  {run['arm']}, seed {run['seed']}: {run['error']}" for run in failed.to_dict("records")]
            shown = "\n".join(reasons[:_MAX_FAILURES_SHOWN])
            raise StudyFailedError(
                f"{len(failed)} of {len(runs)} runs failed; details beside each run below {self.folder}\n{shown}"
            )

    def _report_after_interrupt(self) -> None:
        """The table of what is finished, and how to go on."""
        try:
            self._report()
        except UserError as error:
            progress.say(str(error))
        finished = len(self._new_records())
        progress.say(
            f"interrupted after {finished} of {self.plan.num_runs} runs; "
            "the same command goes on from there (finished runs are reused)"
        )


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
    study = Study(folder, "single configuration", [], {Arm(BASELINE): config}, order=arm_by_arm)
    if config.dry_run:
        study.show_plan()
        return

    def launch() -> list[str]:
        from cnn_ablation.runs import run  # torch is imported only once the configuration is known to be good

        run(config, study.job_folder(0))
        return []

    study.carry_out(launch, here=True)


def _line(path: Path) -> str:
    """A finished run in a few words."""
    try:
        run = read_run(path)
    except RecordError as error:
        return str(error)
    name = f"{run.arm} seed {run.seed}"
    if run.status == "failed":
        return f"{name}: failed ({run.error})"
    words = f"{name}: {100 * run.test_accuracy:.2f} % test accuracy, {run.train_seconds:.1f} s of training"
    return words + (", diverged" if run.status == "diverged" else "") + (", reused" if run.reused else "")
