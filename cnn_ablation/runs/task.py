"""What is trained, behind one protocol: all that a study has to know of it.

A task is a module of functions, one folder below `tasks/`. Nothing here or above knows what it trains.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from cnn_ablation.common import extensions, machine
from cnn_ablation.common.device_names import kind_of, place_of
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.common.words import counted
from cnn_ablation.config import ANYTIME, AUTO, LARGEST_SEED, StatsConfig, StudyConfig, shown, value_problems
from cnn_ablation.runs.epochs import Tell
from cnn_ablation.runs.records import Run

TASKS = {
    "image_classification": "cnn_ablation.tasks.image_classification.task",
    "function": "cnn_ablation.tasks.function.task",
}
"""Tasks by name: where the module of each is, which is imported when it is first asked for."""


@dataclass(frozen=True)
class How:
    """How a run is computed: all that can change a bit of its result besides configuration, data, code and libraries.

    Decided once for a run and part of its identity; tasks add what else matters to them. While runs of another machine
    are planned, texts that only that machine can tell are `machine.UNKNOWN`.
    """

    device: str
    """`cpu`, `cuda`, `mps`, or one GPU of those that this process sees: `cuda:1`."""
    threads: int
    """Of the CPU; 0 where they change nothing."""

    def identifying(self) -> dict[str, Any]:
        """What of it belongs to a run's identity: the kind of the device, not which of several that are alike."""
        return asdict(self) | {"device": kind_of(self.device)}

    def unknown(self) -> frozenset[str]:
        """What of it only another machine can tell."""
        return frozenset(name for name, value in asdict(self).items() if value == machine.UNKNOWN)


def no_such_device(config: StudyConfig) -> ConfigError:
    """A GPU that is not there: a configuration asks for it, or takes with `auto` what its job asked for."""
    asked = machine.asked()
    if asked and asked.gpus:
        allowed = f"cpu, or a GPU: the job asked for {asked.gpus}, and none can be used on {platform.node()}"
        remedy = "mend its driver, ask for nodes that have one, or hydra.launcher.gpus=0 with device=auto"
    elif asked and (asked.gpus == 0 or machine.is_elsewhere()):
        allowed, remedy = "auto, cpu (its jobs ask for no GPU)", "hydra.launcher.gpus=1, or device=auto"
    else:
        allowed, remedy = "auto, cpu (on this machine)", "device=auto"
    return ConfigError([Problem("device", config.device, allowed, remedy=remedy)])


def check_gpu_is_there(name: str, count: int | None) -> None:
    """Refuses a GPU whose place is beyond those that there are.

    Args:
        name: of a device, as a configuration says it.
        count: GPUs that this process, or a job that is planned, may use; None where nobody knows.

    Raises:
        ConfigError: says how many there are.
    """
    place = place_of(name)
    if place is None or count is None or place < count:
        return
    named = {1: "cuda:0", 2: "cuda:0, cuda:1"}.get(count, f"cuda:0 to cuda:{count - 1}")
    who = "each job has" if machine.asked() else "this process sees"
    remedy = f"hydra.launcher.gpus={place + 1}, or device=cuda" if machine.asked() else "device=cuda:0, or device=cuda"
    raise ConfigError([Problem("device", name, f"auto, cpu, cuda, {named} ({who} {counted(count, 'GPU')})",
                               remedy=remedy)])  # fmt: skip


@dataclass(frozen=True)
class Inert:
    """Why a key does nothing in a configuration, and what would give it something to do."""

    because: str
    remedy: str


@dataclass(frozen=True)
class Cost:
    """What training an arm costs, from its configuration alone; NaN where unknown."""

    updates: float
    num_params: float
    multiply_adds: float
    """Per image, forward."""


@dataclass(frozen=True)
class Footprint:
    """Memory of runs side by side, in bytes."""

    shared: int
    """What all processes of a study share, and what the study's own process holds besides."""
    own: int
    """Of each process, besides."""


@dataclass(frozen=True)
class HeldOut:
    """The examples that the test accuracy of a run is a mean over."""

    num_examples: int
    differ_by_seed: bool = False
    """Each seed has test examples of its own."""


@dataclass(frozen=True)
class Chance:
    """What the seeds of a study's runs differ in, for a caption."""

    words: str
    """What seeds do: `differ in initial weights`, `all draw the same`."""
    same_tests: bool = False
    """All runs were tested on the same examples."""


class Trained(NamedTuple):
    """What a run leaves: its record, and its weights if they are kept."""

    record: Run
    weights: bytes | None


class Place(NamedTuple):
    """Where a run in training may leave files."""

    folder: Path
    """Its job's."""
    checkpoint: Path
    """To go on from after an interruption; removed once the run is finished."""
    fingerprint: str
    tell: Tell | None = None
    """Takes each point of the learning curves as it is measured, where somebody follows them."""


class Task(Protocol):
    """What every task can say of its configurations, and do with them; no function but the last three trains."""

    @property
    def CONFIG(self) -> type[StudyConfig]:  # noqa: N802
        """The dataclass of its configurations."""

    @property
    def CODE(self) -> tuple[str, ...]:  # noqa: N802
        """The package's files and folders that can change what a run computes."""

    @property
    def LIBRARIES(self) -> tuple[str, ...]:  # noqa: N802
        """The libraries whose versions can change what a run computes."""

    @property
    def PRELOADED(self) -> str:  # noqa: N802
        """A module that worker processes have imported when they are forked."""

    def complete(self, config: Any) -> Any:
        """A configuration as composed, with what only a person's own code tells of it."""

    def problems(self, config: Any) -> list[Problem]:
        """Values that contradict each other; each alone fits the schema."""

    def effective(self, config: Any, resolved: Mapping[str, Any]) -> str:
        """What a run is made of: equal for configurations that give the same, bit for bit."""

    def inert(self, config: Any) -> dict[str, Inert]:
        """The keys that do nothing in a configuration, whatever their value."""

    def device(self, config: Any) -> str:
        """`cpu`, `cuda` or `mps`: the kind that a configuration's device is of here; it need not be there.

        In a job, and where one is planned, `auto` is what the job asked for (`machine.seen_as`).
        """

    def resolve(self, config: Any, *, threads: int | None = None, planned: bool = False) -> How:
        """How a configuration is computed on this machine; refuses what this machine lacks.

        Where a plan is made for another machine, as far as what its jobs ask for tells.

        Args:
            config: checked.
            threads: as the study's packing decided; None for a run that has the machine to itself.
            planned: tells what is to be expected, without preparing anything for it.
        """

    def identity(self, config: Any, how: How, *, seed: int, planned: bool = False) -> dict[str, Any]:
        """All that decides what a run computes; `planned` leaves out what only loading the data tells."""

    def known_identity(self, config: Any, *, threads: int | None, seed: int) -> dict[str, Any] | None:
        """What `identity` says of a run on this machine, told without loading data, a GPU or torch, and at once.

        None where only the run itself can tell.

        Args:
            config: checked.
            threads: as for `resolve`.
            seed: of the run.
        """

    def paths(self, config: Any) -> list[tuple[str, Path]]:
        """The folders that must be there where a run is trained, absolute, each with the key that names it."""

    def check_available(self, configs: Iterable[Any]) -> None:
        """Refuses data that are not there and cannot be fetched."""

    def load(self, configs: Iterable[Any]) -> None:
        """Loads what runs share, once for all of them."""

    def loaded(self) -> Any:
        """What runs share and this process has loaded, for `take_over` in another one."""

    def limit_threads(self, threads: int) -> None:
        """In a process that shares the machine, for as long as it lives."""

    def take_over(self, loaded: Any) -> None:
        """Spares this process loading what another one has loaded."""

    def looking(self) -> AbstractContextManager[None]:
        """Files are looked at once within it."""

    def cost(self, config: Any) -> Cost:
        """By arithmetic."""

    def work(self, config: Any) -> float:
        """How much there is to compute in a run, in a unit of the task's own; NaN where unknown."""

    def work_done(self, run: Run) -> float:
        """The same of a finished run; 0 where unknown."""

    def footprint(self, config: Any) -> Footprint:
        """The memory that runs of a configuration take."""

    def held_out(self, config: Any) -> HeldOut | None:
        """What its test accuracy is a mean over, known without loading it; None where that is not known."""

    def chance(self, runs: Sequence[Mapping[str, Any]]) -> Chance | None:
        """What the seeds of runs differ in, from their settings; None where only somebody's own code knows."""

    def is_known_elsewhere(self, config: Any) -> bool:
        """Whether other processes can make what a configuration names."""

    def common_process(self, config: Any) -> str | None:
        """What jobs must have in common that threads of one process train; None where a job needs one of its own."""

    def room_for_more(self, how: How) -> int:
        """How many more processes, or in a lane threads, that train what this one does the device has room for."""

    def trouble(self, config: Any) -> str:
        """Why a configuration's device does nothing more for this process, as a GPU after some errors; else empty."""

    def computing_as(self, how: How) -> AbstractContextManager[None]:
        """Within it this process computes as decided; everything is put back afterwards."""

    def trains_together(self, config: Any, how: How) -> bool:
        """Whether the seeds of an arm are trained in one go."""

    def train(self, config: Any, seed: int, how: How, place: Place) -> Trained:
        """One run."""

    def train_together(
        self, config: Any, seeds: Sequence[int], how: How, place: Place, on_epoch: Callable[[int], None]
    ) -> list[Trained]:
        """Runs of several seeds in one go, with one checkpoint for all of them."""


def task_named(name: str) -> Task:
    """A task by its name in a configuration or a record.

    Raises:
        ConfigError: there is none.
    """
    if name not in TASKS:
        raise ConfigError([Problem("task", name, ", ".join(TASKS), remedy=f"task={next(iter(TASKS))}")])
    return cast(Task, import_module(TASKS[name]))


def task_of(config: StudyConfig) -> Task:
    """The task of a configuration."""
    return task_named(config.task.name)


def task_of_settings(settings: Mapping[str, Any]) -> Task:
    """The task of the settings in a record or a plan; those from before there were several are of the first."""
    return task_named(settings.get("task.name") or next(iter(TASKS)))


def check(config: object, *, arm: str | None = None) -> None:
    """Checks every value alone, then those that depend on each other and on the data.

    Args:
        config: any configuration of the right types.
        arm: named in the message, where the configuration is an arm of a study.

    Raises:
        ConfigError: with all problems found.
        DataError: the data have not the right form.
    """
    if not isinstance(config, StudyConfig):
        raise ConfigError([not_a_config("config", config)], arm=arm)
    extensions.load(config.extensions)
    problems = value_problems(config) or [
        *_seed_problems(config),
        *_problems_of_added_seeds(config),
        *task_of(config).problems(config),
    ]
    if problems:
        raise ConfigError(problems, arm=arm)


def not_a_config(name: str, value: object) -> Problem:
    """What somebody gave in place of a configuration."""
    return Problem(name, shown(value), "a Config", remedy='cnn_ablation.compose(["train.epochs=4"])')


def _seed_problems(config: StudyConfig) -> list[Problem]:
    most, given = LARGEST_SEED + 1 - config.seed, len(config.most_seeds)
    if given <= most:
        return []
    key = "max_replicates" if config.adds_seeds else "replicates"
    allowed = f"at most {most} with seed={config.seed}: the last seed counts too, and {LARGEST_SEED} is the largest"
    return [Problem(key, given, allowed, remedy="a smaller seed")]


def _problems_of_added_seeds(config: StudyConfig) -> Iterator[Problem]:
    """Of `replicates=auto`."""
    if not config.adds_seeds:
        return
    if config.min_replicates > config.max_replicates:
        allowed = f"at most max_replicates={config.max_replicates}"
        yield Problem("min_replicates", config.min_replicates, allowed, remedy="fewer, or a larger max_replicates")
    if config.stats.test not in (StatsConfig().test, ANYTIME):
        allowed = (
            f"{ANYTIME} with replicates={AUTO}, whose seeds are added after looks at the table; "
            "no test for a number of seeds that is fixed holds then"
        )
        yield Problem("stats.test", config.stats.test, allowed, remedy="leave it out, or replicates=N")


def check_alone(config: StudyConfig) -> None:
    """Refuses to add seeds until a verdict, where there is nothing to compare.

    Args:
        config: of the right types; trained without any other arm.

    Raises:
        ConfigError: `replicates=auto`.
    """
    if config.adds_seeds:
        allowed = "a number of seeds, where a single configuration is trained: without a comparison there is no verdict"
        remedy = "replicates=5; or -m with a knob (model.activation=relu,leaky), cnn_ablation.ablate in Python"
        raise ConfigError([Problem("replicates", AUTO, allowed, remedy=remedy)])
