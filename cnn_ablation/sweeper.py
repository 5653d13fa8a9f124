"""Hydra's side of a study: overrides -> arms -> checked plan -> jobs -> table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from cnn_ablation import studies
from cnn_ablation.composition import SWEEPER_TARGET, to_config
from cnn_ablation.config import Config
from cnn_ablation.designs import Arm, Knob, knob, zipped_knob
from cnn_ablation.errors import ConfigError, Problem
from cnn_ablation.hydra_errors import HYDRA_ERRORS, explain
from cnn_ablation.workers import ONE_AT_A_TIME, Task, train_side_by_side

ZIP = "zip."
"""`zip.NAME={key:value,key:value},{...}` is a knob called NAME whose levels move several keys together.

`label:WORD` among the keys names a level in tables."""


# Told by its name: Hydra imports plugins anew when it looks for them, so that its class is not the one we could import.
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@dataclass(frozen=True)
class StudyRequest:
    """What the command line and a study file ask for, before anything is composed."""

    fixed: dict[str, str]
    """Key -> override that holds for all arms."""
    knobs: list[Knob]

    def overrides(self, arm: Arm) -> list[str]:
        """What composes an arm: its settings take the place of fixed overrides of the same keys."""
        settings = dict(arm.settings)
        kept = [line for key, line in self.fixed.items() if key not in settings]
        return [*kept, *(f"{key}={value}" for key, value in arm.settings)]


def read_request(overrides: Sequence[Override]) -> StudyRequest:
    """Separates knobs from overrides that hold for all arms.

    A single value replaces a sweep of the same key before it (from a study file); given before a sweep, it is the
    baseline's value.

    Raises:
        ConfigError: an open interval is swept, or a zipped knob has no dictionaries.
    """
    fixed: dict[str, str] = {}
    knobs: dict[str, Knob] = {}
    for override in overrides:
        key = override.get_key_element()
        if key.startswith(ZIP):
            knobs[key] = _read_zip(key, override)
        elif override.is_sweep_override():
            _refuse_open_interval(key, override)
            knobs[key] = knob(key, list(override.sweep_string_iterator()))
        else:
            knobs.pop(key, None)
            fixed[key] = str(override.input_line)
    return StudyRequest(fixed, list(knobs.values()))


def as_sweep(argument: str) -> str:
    """A zipped knob with a single level looks to Hydra like a value for an unknown key; `choice` makes it a sweep."""
    key, _, value = argument.partition("=")
    return f"{key}=choice({value})" if key.startswith(ZIP) and value.startswith("{") else argument


def _refuse_open_interval(key: str, override: Override) -> None:
    if not override.is_discrete_sweep():
        value = str(override.input_line).partition("=")[2]
        raise ConfigError([Problem(key, value, "a list of levels", remedy=f"{key}=A,B,C or {key}=range(1,4)")])


def _read_zip(key: str, override: Override) -> Knob:
    """A knob from dictionaries of keys; a single one is a level too, to compare with the baseline."""
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    dictionaries = [value for value in values if isinstance(value, dict) and value]
    if len(dictionaries) < len(values):
        text, example = str(override.input_line).partition("=")[2], "{train.batch_size:256,optimizer.lr:4e-3}"
        raise ConfigError([Problem(key, text, "dictionaries of config keys", remedy=f"'{key}={example}'")])
    levels = [{str(name): Transformer.encode(value) for name, value in level.items()} for level in dictionaries]
    return zipped_knob(key.removeprefix(ZIP), levels)


class AblationSweeper(Sweeper):
    """Composes and checks every arm, launches one job per arm and seed, and leaves the table."""

    def __init__(self, design: str, params: dict[str, str] | None):
        self.design = design
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.loader = hydra_context, hydra_context.config_loader
        self.master = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """From the overrides of the command line to the table on disk; `dry_run` stops after the plan."""
        parser = OverridesParser.create(config_loader=self.loader)
        from_file = [f"{key}={value}" for key, value in self.params.items()]
        request = read_request(parser.parse_overrides([*from_file, *arguments]))
        study = studies.Study(
            Path(self.master.hydra.sweep.dir).absolute(),
            self.design,
            request.knobs,
            lambda arm: self._compose(arm, request.overrides(arm)),
            here=self.master.hydra.launcher._target_ == BASIC_LAUNCHER,
        )
        if study.baseline.dry_run:
            study.show_forecast()
            return
        if not self._folder_was_chosen():
            study.folder = studies.new_folder(study.folder)

        def overrides(item: studies.NumberedJob) -> list[str]:
            return [*request.overrides(item.job.arm), *_job_overrides(item, study.folder, study.baseline.store)]

        def launch(jobs: Sequence[studies.NumberedJob]) -> list[str]:
            if study.here and study.packing is not ONE_AT_A_TIME:
                tasks = (self._task(study, item, overrides(item)) for item in jobs)
                return train_side_by_side(tasks, study.packing)
            return _failures(self.launcher.launch([overrides(item) for item in jobs], initial_job_idx=jobs[0].number))

        study.carry_out(launch)

    def _task(self, study: studies.Study, item: studies.NumberedJob, overrides: list[str]) -> Task:
        """A job for a worker, with all that Hydra leaves of one: `.hydra/`, its callbacks and a log."""
        composed = self.loader.load_sweep_config(self.master, overrides)
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = item.number
        run_job(
            hydra_context=self.context,
            task_function=lambda config: None,
            config=composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        configure_log(self.master.hydra.hydra_logging, self.master.hydra.verbose)
        return study.task(item)

    def _folder_was_chosen(self) -> bool:
        """Whether the user named the folder; a default one is made of the time and must be new."""
        return any(line.startswith("hydra.sweep.dir=") for line in self.master.hydra.overrides.hydra)

    def _compose(self, arm: Arm, overrides: list[str]) -> Config:
        name = arm.name if arm.settings else None
        try:
            return to_config(self.loader.load_sweep_config(self.master, overrides), arm=name)
        except HYDRA_ERRORS as error:
            explained = explain(error)
            if isinstance(explained, ConfigError):
                raise ConfigError(explained.problems, arm=name) from error
            raise explained from error


def _job_overrides(item: studies.NumberedJob, folder: Path, store: str) -> list[str]:
    """What makes an arm a job with its seeds; paths are absolute, because a launcher may work elsewhere."""
    job, arm = item.job, item.job.arm
    return [
        f"arm.name={_quote(arm.name)}",
        f"arm.knob={_quote(arm.knob)}",
        f"arm.level={_quote(arm.level)}",
        f"seed={job.seeds[0]}",
        f"replicates={len(job.seeds)}",
        f"store={_quote(str(Path(store).absolute()))}",
        f"hydra.sweep.dir={_quote(str(folder))}",
        f"hydra.sweep.subdir={item.number}",
    ]


def _quote(text: str) -> str:
    """A string in Hydra's override grammar."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _failures(returns: Sequence[JobReturn]) -> list[str]:
    """What jobs raised instead of leaving a record, one line each."""
    raised = [job._return_value for job in returns if job.status == JobStatus.FAILED]
    return [f"{type(error).__name__}: {error}" for error in raised]


def register_sweeper() -> None:
    """Makes `hydra/sweeper=ablation` known without a top-level hydra_plugins package.

    Hydra 1.3 instantiates plugins only from `hydra_plugins`, by a table of names; this enters our class there.
    """
    plugins = Plugins.instance()
    plugins.register(AblationSweeper)
    plugins.class_name_to_class[SWEEPER_TARGET] = AblationSweeper
