"""A training function as a task (`runs.task.Task`). Its module is imported where its settings are made."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_ablation.common import machine
from cnn_ablation.common.device_names import kind_of, place_of
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.common.looks import one_look, seen
from cnn_ablation.config import StatsConfig, leaves, one_form, result_settings
from cnn_ablation.runs import provenance, sources
from cnn_ablation.runs.records import Run
from cnn_ablation.runs.task import Cost, Footprint, How, Inert, Place, Trained, check_gpu_is_there, no_such_device
from cnn_ablation.study.metric import settings_problems
from cnn_ablation.tasks.function import call, signature
from cnn_ablation.tasks.function.config import FunctionConfig

CONFIG = FunctionConfig
CODE: tuple[str, ...] = ()  # a function is handed its settings, and nothing else of ours
LIBRARIES: tuple[str, ...] = ()
PRELOADED = "cnn_ablation.tasks.function.preloaded"

_BYTES_OF_A_PROCESS = 600 * 2**20  # a guess: as much as PyTorch and a small network take
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

looking = one_look


@dataclass(frozen=True)
class FunctionHow(How):
    """How a function is called on this machine."""

    instructions: str
    """Of the CPU, as `machine.instructions` names them."""


def complete(config: FunctionConfig) -> FunctionConfig:
    """With settings of the function's own kind; its module is imported for them."""
    if isinstance(config.settings, signature.Settings):
        return config
    target = getattr(config.task, "target", "")
    settings = signature.settings_of(target, config.settings)
    if problems := signature.missing(settings):
        raise ConfigError(problems)
    return dataclasses.replace(config, settings=settings)


def problems(config: FunctionConfig) -> list[Problem]:
    """Its settings are checked one by one, and on each other by the function. Its metric is known once it has run."""
    is_default = config.stats.metric == StatsConfig().metric
    return [*signature.misspelt(config.settings), *(() if is_default else settings_problems(config.stats, "stats."))]


def effective(config: FunctionConfig, resolved: Mapping[str, Any]) -> str:
    settings = {key: one_form(item, value) for key, item, value in leaves(config)} | dict(resolved)
    return json.dumps(settings, sort_keys=True, default=repr)


def inert(config: FunctionConfig) -> dict[str, Inert]:
    return {}


def device(config: FunctionConfig) -> str:
    """A driver counts as a GPU: whether the function can use it is its own affair."""
    if config.device != "auto":
        return kind_of(config.device)
    told = machine.asked()
    return "cuda" if machine.may_have_gpu() or (told and told.gpus) else "cpu"


def resolve(config: FunctionConfig, *, threads: int | None = None, planned: bool = False) -> FunctionHow:
    """How a function is called here: on which device, with how many threads.

    Raises:
        ConfigError: a GPU is asked for that this machine lacks.
    """
    named = device(config)
    if named == "cuda" and not machine.may_have_gpu():
        raise no_such_device(config)
    if place_of(config.device) is not None:  # a look into a folder, for each run
        check_gpu_is_there(config.device, machine.counted_gpus())
    count = (config.threads or threads or machine.threads_alone()) if named == "cpu" else 0
    name = named if place_of(config.device) is None else config.device
    return FunctionHow(name, count, machine.instructions())


def identity(config: FunctionConfig, how: How, *, seed: int, planned: bool = False) -> dict[str, Any]:
    """What a run's result depends on: settings, seed, how it is computed, the function's code and its libraries."""
    target = config.settings.target
    made_with: dict[str, Any] = seen(("function", target), lambda: _made_with(target))  # by every arm and seed
    return provenance.identity(
        result_settings(config) | how.identifying(), seed=seed, data_digest="", made_with=made_with
    )


def _made_with(target: str) -> dict[str, Any]:
    """The function's code, its libraries, and what of ours can change what it gives."""
    function = signature.function_named(target)
    return {
        **provenance.code_identity(CODE, LIBRARIES),
        "function": provenance.extension_version(function),
        "function_libraries": {"python": platform.python_version(), **sources.libraries(function.__module__)},
    }


def known_identity(config: FunctionConfig, *, threads: int | None, seed: int) -> dict[str, Any]:
    return identity(config, resolve(config, threads=threads), seed=seed)


def paths(config: FunctionConfig) -> list[tuple[str, Path]]:
    """What a function reads is its own affair."""
    return []


def check_available(configs: Iterable[FunctionConfig]) -> None:
    """Data are the function's own affair."""


def load(configs: Iterable[FunctionConfig]) -> None:
    """Nothing is shared between runs."""


def loaded() -> None:
    return None


def take_over(loaded: None) -> None:
    """Nothing is shared between processes."""


def limit_threads(threads: int) -> None:
    """By the variables that numerical libraries read when they are loaded; those that are set count."""
    for name in _THREADS:
        os.environ.setdefault(name, str(threads))


def cost(config: FunctionConfig) -> Cost:
    return Cost(math.nan, math.nan, math.nan)


def work(config: FunctionConfig) -> float:
    """In calls."""
    return 1.0


def work_done(run: Run) -> float:
    """In calls."""
    return 1.0


def footprint(config: FunctionConfig) -> Footprint:
    return Footprint(shared=0, own=_BYTES_OF_A_PROCESS)


def held_out(config: FunctionConfig) -> None:
    """What its figures are means over is the function's own affair."""


def chance(runs: Sequence[Mapping[str, Any]]) -> None:
    """What it makes of its seed, likewise."""


def is_known_elsewhere(config: FunctionConfig) -> bool:
    """What was defined in a notebook or a script is known in no other process."""
    return signature.function_named(config.settings.target).__module__ != "__main__"


def common_process(config: FunctionConfig) -> None:
    """What a function prints goes to a file by process, and what it draws from is its own affair."""


def room_for_more(how: How) -> int:
    """As the GPU's memory tells, where the function computes with PyTorch; else none."""
    torch = _torch_on_gpu()
    if kind_of(how.device) != "cuda" or torch is None:
        return 0
    from cnn_ablation.tasks.image_classification import devices

    return devices.room_for_more(torch.device(how.device))


def trouble(config: FunctionConfig) -> str:
    """As PyTorch tells where the function computes with it; nobody else is asked."""
    torch = _torch_on_gpu()
    if device(config) != "cuda" or torch is None:
        return ""
    from cnn_ablation.tasks.image_classification import devices

    return devices.trouble(torch.device("cuda" if config.device == "auto" else config.device))


def _torch_on_gpu() -> Any:
    """PyTorch, where this process has asked a GPU with it."""
    torch: Any = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None


@contextmanager
def computing_as(how: How) -> Iterator[None]:
    """With so many threads in the numerical libraries that are loaded, and on one GPU of several in PyTorch."""
    if not how.threads:
        with _current(how.device):
            yield
        return
    from threadpoolctl import threadpool_limits

    torch: Any = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    try:
        if torch:
            torch.set_num_threads(how.threads)
        with threadpool_limits(how.threads):
            yield
    finally:
        if torch:
            torch.set_num_threads(before)


def _current(device: str) -> AbstractContextManager[None]:
    """Within it a GPU that is named by its place is PyTorch's current one."""
    torch: Any = sys.modules.get("torch")
    if torch is None or place_of(device) is None or not torch.cuda.is_available():
        return nullcontext()
    found: AbstractContextManager[None] = torch.cuda.device(device)
    return found


def trains_together(config: FunctionConfig, how: How) -> bool:
    return False


def train(config: FunctionConfig, seed: int, how: How, place: Place) -> Trained:
    return call.train(config, seed, how, place)


def train_together(
    config: FunctionConfig, seeds: Sequence[int], how: How, place: Place, on_epoch: Callable[[int], None]
) -> list[Trained]:
    raise NotImplementedError("trains_together says no")
