"""Hydra's side of a study: overrides -> arms -> checked plan -> jobs -> table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from cnn_ablation.app.arguments import PARAMS
from cnn_ablation.app.arms import Composer
from cnn_ablation.app.composition import SWEEPER_TARGET
from cnn_ablation.app.hydra_errors import HYDRA_ERRORS, explain
from cnn_ablation.app.job_callbacks import JobCallbacks, JobFailedError
from cnn_ablation.app.job_folders import JobFolders, JobValues
from cnn_ablation.app.request import StudyRequest, parse, parse_params, read_request
from cnn_ablation.common import commands, progress
from cnn_ablation.common.errors import ConfigError, UserError
from cnn_ablation.config import StudyConfig, with_settings
from cnn_ablation.launch import engines, execution, folders
from cnn_ablation.launch.assignments import Assignment, OnEnd
from cnn_ablation.launch.engines import Engine
from cnn_ablation.launch.planning import Planning
from cnn_ablation.launch.taking import Taking
from cnn_ablation.runs import places
from cnn_ablation.study.designs import Arm

# Told by its name: Hydra imports plugins anew when it looks for them, so that its class is not the one we could import.
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class AblationSweeper(Sweeper):
    """Composes and checks every arm, launches one job per arm and seed, and leaves the table."""

    def __init__(self, design: str, params: dict[str, str] | None):
        self.design = design
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what Hydra hands over; a launcher of Hydra's is made only where no engine of ours is asked for."""
        self.context, self.loader = hydra_context, hydra_context.config_loader
        self.master, self.task_function = config, task_function
        self.engine = _engine(config.hydra.launcher)
        if self.engine is None:
            self.launcher: Launcher = Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )

    def sweep(self, arguments: list[str]) -> None:
        """From the overrides of the command line to the table on disk; `dry_run` stops after the plan."""
        with execution.seen_by(self.engine):
            try:
                self._sweep(self._request(arguments))
            except execution.StudyFailedError:  # all jobs have returned, and Hydra would tell nobody
                name = self.master.hydra.job.config_name
                self.context.callbacks.on_multirun_end(config=self.master, config_name=name)
                raise

    def _sweep(self, request: StudyRequest) -> None:
        composer = Composer(cast(ConfigLoaderImpl, self.loader), self.master, request)
        planning = self._planning(request, composer)
        if planning.baseline.dry_run:
            execution.show_forecast(planning, self.engine)
            return
        wanted = Path(self.master.hydra.sweep.dir).absolute()
        folder = wanted if self._folder_was_chosen() else folders.folder_for(wanted, planning, self.engine)
        title = self.master.hydra.runtime.choices.get("study") or ""
        study = execution.Study(folder, planning, self.engine, title=title)

        callbacks = JobCallbacks(self.context, self.task_function, planning.baseline.stats)
        jobs = _Jobs(study, request, JobFolders(self.context, self.master, composer), callbacks)

        def launch(items: Sequence[execution.NumberedJob]) -> list[str]:
            if study.trainer:
                return study.trainer.train(map(jobs.handed_out, items), jobs.on_end)
            return [reason for group in _in_a_row(items) for reason in launch_by_hydra(group)]

        def launch_by_hydra(items: Sequence[execution.NumberedJob]) -> list[str]:
            return _failures(self.launcher.launch([jobs.overrides(item) for item in items], items[0].number))

        commands.raise_when_interrupted()
        study.carry_out(launch, jobs.taking)

    def _request(self, arguments: list[str]) -> StudyRequest:
        """Knobs and fixed overrides, of the study file and of the command line."""
        parser = OverridesParser.create(config_loader=self.loader)
        try:
            request = read_request(parse_params(self.params, parser), parse(arguments, parser))
        except HYDRA_ERRORS as error:
            raise explain(error) from error
        for line in self.master.hydra.overrides.hydra:
            if line.startswith("hydra.run."):
                progress.say(f"{line} has no effect on a study, which goes to hydra.sweep.dir")
        for line in request.dropped:
            progress.say(f"{line} on the command line: {line.partition('=')[0]} is no knob of this study any more")
        if not request.knobs:
            raise self._nothing_to_vary()
        return request

    def _nothing_to_vary(self) -> UserError:
        name = self.master.hydra.runtime.choices.get("study")
        if not name:
            return UserError(
                "configuration error: -m (a study) without a knob\n  allowed: KEY=A,B for one key at least\n"
                "  remedy: leave out -m to train one configuration, or give levels: model.activation=relu,leaky"
            )
        return UserError(
            f"configuration error: study={name} has no knob\n  allowed: KEY=A,B for one key at least\n"
            f"  remedy: levels in the study's file, below {PARAMS}, or on the command line: model.activation=relu,leaky"
        )

    def _planning(self, request: StudyRequest, composer: Composer) -> Planning:
        """The checked arms; messages name an arm as its levels were typed."""
        arms: dict[str, Arm] = {}

        def compose(arm: Arm) -> StudyConfig:
            arms[arm.name] = arm
            return composer.config(arm)

        is_basic = self.master.hydra.launcher._target_ == BASIC_LAUNCHER
        here = self.engine.is_here if self.engine else is_basic
        try:
            return Planning(self.design, request.knobs, compose, here=here)
        except ConfigError as error:
            arm = arms.get(error.arm or "")
            raise ConfigError(error.problems, arm=request.name(arm) if arm else error.arm) from error

    def _folder_was_chosen(self) -> bool:
        """Whether the user named the folder; a default one is made of the time and must be new."""
        return any(line.startswith("hydra.sweep.dir=") for line in self.master.hydra.overrides.hydra)


def _engine(launcher: DictConfig) -> Engine | None:
    """What `hydra.launcher` stands for where it is one of our engines, and no launcher of Hydra's."""
    settings = cast(dict[str, Any], OmegaConf.to_container(launcher))
    target = settings.pop("_target_")
    return engines.engine(target, settings) if target in engines.ENGINES.values() else None


@dataclass(frozen=True)
class _Jobs:
    """The jobs of a study: what Hydra has to know of each, and what it says of each."""

    study: execution.Study
    request: StudyRequest
    folders: JobFolders
    callbacks: JobCallbacks
    _named_folders: dict[Arm, dict[str, str]] = field(default_factory=dict)
    """That the configurations of arms name, by key."""

    def overrides(self, item: execution.NumberedJob) -> list[str]:
        """Of a job that a launcher of Hydra's starts."""
        job = self._values(item)
        return [*self.request.overrides(item.job.arm), *job.lines, *job.hydra_lines]

    def handed_out(self, item: execution.NumberedJob) -> Assignment:
        """A job that our own trainers start."""
        self._leave_folder(item)
        return self.study.assignment(item)

    @property
    def on_end(self) -> OnEnd | None:
        """None where nobody is to be told."""
        return self._has_ended if self.callbacks.are_there else None

    @property
    def taking(self) -> Taking[execution.NumberedJob]:
        """How jobs of ours, and those that Hydra would start, are left where the store has their runs."""
        return Taking(
            self._called_with, self._leave_folder, has_log=True,
            was_taken=self._was_taken if self.callbacks.are_there else None,
        )  # fmt: skip

    def _called_with(self, item: execution.NumberedJob) -> Assignment:
        each = self.study.assignment(item)
        if self.study.trainer:
            return each
        return replace(each, config=with_settings(each.config, places.folders(each.config).items()))

    def _values(self, item: execution.NumberedJob) -> JobValues:
        """What makes an arm a job with its seeds; paths are absolute, because a launcher may work elsewhere."""
        job, arm = item.job, item.job.arm
        if arm not in self._named_folders:
            self._named_folders[arm] = places.folders(self.study.planning.configs[arm])
        settings = {
            "arm.name": arm.name,
            "arm.knob": arm.knob,
            "arm.level": arm.level,
            "seed": job.seeds[0],
            "replicates": len(job.seeds),
            **self._named_folders[arm],
        }
        return JobValues(item.number, settings, self.study.folder)

    def _leave_folder(self, item: execution.NumberedJob) -> None:
        job = self._values(item)
        if self.callbacks.are_there:
            self.callbacks.start(item.number, *self.folders.leave_by_hydra(item.job.arm, job))
        else:
            self.folders.leave(item.job.arm, job)

    def _has_ended(self, each: Assignment) -> None:
        self.callbacks.end(int(each.folder.name), each.folder, each.config.seeds)

    def _was_taken(self, item: execution.NumberedJob) -> None:
        self.callbacks.end(item.number, self.study.job_folder(item.number), item.job.seeds)


def _in_a_row(jobs: Sequence[execution.NumberedJob]) -> list[list[execution.NumberedJob]]:
    """Jobs in groups whose numbers follow each other: Hydra counts the jobs of a launch on from its first."""
    groups = itertools.groupby(enumerate(jobs), key=lambda place: place[1].number - place[0])
    return [[job for _, job in group] for _, group in groups]


def _failures(returns: Sequence[JobReturn]) -> list[str]:
    """What jobs raised instead of leaving a record, one line each."""
    raised = [job._return_value for job in returns if job.status == JobStatus.FAILED]
    raised = [error for error in raised if not isinstance(error, JobFailedError)]  # which is in their records
    return [f"{type(error).__name__}: {error}" for error in raised]


def register_sweeper() -> None:
    """Makes `hydra/sweeper=ablation` known without a top-level hydra_plugins package.

    Hydra 1.3 instantiates plugins only from `hydra_plugins`, by a table of names; this enters our class there.
    """
    plugins = Plugins.instance()
    plugins.register(AblationSweeper)
    plugins.class_name_to_class[SWEEPER_TARGET] = AblationSweeper
