"""Parts of the user's own by name: what `@cnn_ablation.activation("mish")` and its like register. No torch.

A part that has settings names a dataclass of them. It becomes an option of its config group: `model=resnet8`,
`model.width=16`, with the defaults and bounds that its fields have.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from cnn_ablation.common import extensions
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.config import RESULT, TEST_SET, Role, group_name, role_of
from cnn_ablation.runs import provenance, sources
from cnn_ablation.tasks.image_classification import config as schema
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS
from cnn_ablation.tasks.image_classification.config import (
    AnyNetworkConfig,
    Config,
    DataConfig,
    ModuleConfig,
    OptimizerConfig,
)

Function = TypeVar("Function", bound=Callable[..., Any])
Register = Callable[[Function], Function]

OPTIMIZERS: dict[str, Callable[..., Any]] = {}
"""(groups of parameters, settings) -> optimiser."""
LOSSES: dict[str, Callable[..., Any]] = {}
"""(outputs (batch, classes), labels (batch,)) -> one loss for each image (batch,)."""
SCHEDULES: dict[str, Callable[[int, int], float]] = {}
"""(step, counted from 0, number of steps) -> factor of the learning rate."""
SOURCES: dict[str, Callable[..., Any]] = {}
"""(settings) -> `train` and `test`, as `data=arrays` takes them."""
OPTIONS: dict[str, dict[str, type]] = {}
"""Config group -> option -> its schema, of parts with settings."""

_BASES: dict[str, type] = {"model": AnyNetworkConfig, "optimizer": OptimizerConfig, "data": DataConfig}


def activation(name: str) -> Register[Any]:
    """Registers a function from `torch.nn` to a module: `model.activation=NAME`."""
    return partial(_added, "model.activation", ACTIVATIONS, name)


def loss(name: str) -> Register[Any]:
    """Registers a function of outputs (batch, classes) and labels (batch,) to one loss for each image."""

    def register(function: Function) -> Function:
        _added("train.loss", LOSSES, name, function)
        if name not in schema.LOSS_NAMES:
            schema.LOSS_NAMES.append(name)
        return function

    return register


def schedule(name: str) -> Register[Any]:
    """Registers a function of (step, counted from 0, number of steps) to the factor of the rate: `train.schedule=NAME`.

    `train.warmup_epochs` comes on top of it.
    """

    def register(function: Function) -> Function:
        _added("train.schedule", SCHEDULES, name, function)
        if name not in schema.SCHEDULE_NAMES:
            schema.SCHEDULE_NAMES.append(name)
        return function

    return register


def network(name: str, settings: type | None = None) -> Register[Any]:
    """Registers a function of (settings, number of classes) to a list of layers: `model=NAME`.

    Args:
        name: of the option.
        settings: a dataclass of its keys, or none; one of `config.ModelConfig` brings that one's keys too.
    """
    from cnn_ablation.tasks.image_classification.models import NETWORKS

    return partial(_with_settings, "model", NETWORKS, name, settings)


def optimizer(name: str, settings: type | None = None) -> Register[Any]:
    """Registers a function of (parameters, settings) to an optimiser: `optimizer=NAME`.

    Besides its own, `settings` has the keys of all optimisers: `lr`, `weight_decay`.
    """
    return partial(_with_settings, "optimizer", OPTIMIZERS, name, settings)


def data_source(name: str, settings: type | None = None) -> Register[Any]:
    """Registers a function of its settings to what `data=arrays` takes: `data=NAME`."""
    return partial(_with_settings, "data", SOURCES, name, settings)


def _with_settings(group: str, table: dict[str, Any], name: str, settings: type | None, function: Function) -> Function:
    _added(group, table, name, function)
    option = _schema(group, name, settings, function)
    schema.GROUPS[group][name] = option
    OPTIONS.setdefault(group, {})[name] = option
    return function


def _added(key: str, table: dict[str, Any], name: str, function: Function) -> Function:
    """Enters a part under its name; what this package, or another module, has under that name stays."""
    before = table.get(name)
    taken = name in schema.GROUPS.get(key, {}) and name not in OPTIONS.get(key, {})
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ConfigError([Problem(key, name, "names of letters, digits and _", remedy="another name")])
    if taken or (before is not None and before.__module__ != function.__module__):
        where = before.__module__ if before is not None else "cnn_ablation"
        remedy = f"another name in {function.__module__}"
        raise ConfigError([Problem(key, name, f"a name of its own; {where} has this one", remedy=remedy)])
    table[name] = function
    return function


def _schema(group: str, name: str, settings: type | None, function: Callable[..., Any]) -> type:
    """The dataclass of an option: the settings, what all options of the group share, and the option's name.

    It can be found in the function's module, so that configurations can be handed to other processes.
    """
    base = _BASES[group]
    if settings is not None and not dataclasses.is_dataclass(settings):
        raise ConfigError([Problem(group, name, f"settings that are a dataclass; {settings} is none")])
    bases = (base,) if settings is None else (settings,) if issubclass(settings, base) else (settings, base)
    fields = [("name", str, group_name(name, role=_role(group)))]
    attribute = f"_{group}_{name}"
    module = sys.modules[function.__module__]
    made = dataclasses.make_dataclass(attribute, fields, bases=bases, namespace={"__doc__": _words(settings, function)})
    made.__module__ = module.__name__  # where pickle looks; from Python 3.12 on, a namespace's counts for nothing
    for item in dataclasses.fields(made):  # as text, as in a file that postpones annotations
        item.type = item.type.__name__ if type(item.type) is type else str(item.type)
        if group == "data" and item.name not in _names(base) and role_of(item) is RESULT:
            item.metadata = MappingProxyType({**item.metadata, "role": TEST_SET})  # it may change the pictures
    setattr(module, attribute, made)
    return made


def _words(settings: type | None, function: Callable[..., Any]) -> str:
    """What a part says of itself; Python writes a signature for a dataclass that says nothing."""
    words = (settings.__doc__ if settings is not None else None) or ""
    is_signature = settings is not None and words.startswith(f"{settings.__name__}(")
    return (function.__doc__ if is_signature else words or function.__doc__) or ""


def _names(owner: Any) -> set[str]:
    return {item.name for item in dataclasses.fields(owner)}


def _role(group: str) -> Role:
    return TEST_SET if group == "data" else RESULT


def used(config: Config) -> tuple[Any, ...]:
    """The functions, classes and modules of a configuration that may come from outside the package."""
    from cnn_ablation.tasks.image_classification import models

    named = (*extensions.installed(), *config.extensions)
    train = config.train
    tables = (OPTIMIZERS.get(config.optimizer.name), LOSSES.get(train.loss), SCHEDULES.get(train.schedule))
    return (
        *models.extensions(config.model),
        *(part for part in tables if part is not None),
        *(sys.modules[name] for name in named if name in sys.modules),
    )


def lives_here_alone(config: Config) -> bool:
    """Whether a configuration uses what was registered in this process alone, and no other process can import."""
    importable = {
        path for name in (*extensions.installed(), *config.extensions) for path in sources.files(name).values()
    }
    parts = [] if isinstance(config.model, ModuleConfig) else used(config)
    return any(
        provenance.extension_version(part) and sources.file(_module_of(part)) not in importable
        for part in parts
        if not isinstance(part, type(sys))
    )


def _module_of(part: Any) -> str:
    return str(part.__module__)
