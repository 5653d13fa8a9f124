"""Hydra's side of configuration: schemas into Hydra, compositions out as a plain `Config`."""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cnn_ablation.app import extensions as own
from cnn_ablation.app.hydra_errors import HYDRA_ERRORS, explain, is_from_hydra, unknown_key
from cnn_ablation.app.keys import CONF_DIR, settable
from cnn_ablation.app.loader import Kept, composing_once
from cnn_ablation.app.request import check_options, parse
from cnn_ablation.common import extensions
from cnn_ablation.common.errors import ConfigError, Problem, UserError
from cnn_ablation.config import StudyConfig
from cnn_ablation.runs.task import TASKS, task_named, task_of
from cnn_ablation.study.designs import DESIGNS
from cnn_ablation.tasks.image_classification import parts
from cnn_ablation.tasks.image_classification.config import GROUPS, Config

CONFIG_NAME = "config"

SWEEPER_TARGET = "hydra_plugins.cnn_ablation.AblationSweeper"


@dataclass
class AblationSweeperConf:
    """`hydra.sweeper`: the design, and knobs of a study file as `params: {model.activation: "relu,leaky"}`."""

    _target_: str = SWEEPER_TARGET
    design: str = next(iter(DESIGNS))
    params: dict[str, str] | None = field(default_factory=dict)


def _schema(config: type[StudyConfig]) -> DictConfig:
    """A task's dataclass as a node; what it leaves to a person's own code takes any key."""
    node: DictConfig = OmegaConf.structured(config)
    for item in dataclasses.fields(config):
        if item.default_factory is dict:
            OmegaConf.set_struct(node[item.name], False)
    return node


def register_schemas(store: ConfigStore) -> None:
    """Makes the dataclasses known to Hydra; doing it twice is harmless."""
    # Hydra copies its sources, and the whole store of schemas with them, for every job, which took a third of the time
    # of a composition. What the store gives out are copies, and nothing is stored while Hydra composes.
    vars(store)["__deepcopy__"] = lambda memo: store
    store.repo = _merged([store.repo, _as_nodes(tuple(_dataclasses()))])


def _dataclasses() -> Iterator[tuple[str, str, type]]:
    """By group and name."""
    yield "hydra/sweeper", "ablation", AblationSweeperConf
    for name in TASKS:
        yield "schema", name, task_named(name).CONFIG
    for group, options in parts.OPTIONS.items():
        for name, option in options.items():
            yield group, name, option
    for group, options in GROUPS.items():
        for name, option in options.items():  # apart from the groups, so that `glob(*)` yields only what conf/ holds
            yield f"schema/{group}", name, option


@lru_cache(1)  # what an extension adds makes them anew
def _as_nodes(kinds: Sequence[tuple[str, str, type]]) -> dict[str, Any]:
    """As Hydra keeps them in a store, which gives out copies."""
    store = object.__new__(ConfigStore)  # beside the only one that Hydra makes
    store.repo = {}
    for group, name, kind in kinds:
        node = _schema(kind) if group == "schema" else kind
        store.store(group=group, name=name, node=node, provider="cnn_ablation")
    return store.repo


_found: dict[type, Any] = {}
"""Hydra's plugins with what they stored, once found for a composition of ours: looking for them takes 0.1 s."""


@contextmanager
def _own_hydra() -> Iterator[None]:
    """A Hydra for one composition, beside the caller's, which is found again as it was left."""
    instances: dict[type, Any] = Singleton._instances
    callers = dict(instances)
    plugins = callers if Plugins in callers else _found
    stores = [kept[ConfigStore].repo for kept in (plugins, callers) if ConfigStore in kept]
    instances.clear()
    instances.update({kind: plugins[kind] for kind in (Plugins, SourcesRegistry) if kind in plugins})
    try:
        store = ConfigStore.instance()
        store.repo = _merged(stores)
        register_schemas(store)
        yield
        if plugins is _found:
            _found.update({kind: instances[kind] for kind in (Plugins, SourcesRegistry, ConfigStore)})
    finally:
        instances.clear()
        instances.update(callers)


@dataclass
class _Kept:
    """What was composed of the nodes in a store, and of the files that this package brings."""

    nodes: list[Any]
    compositions: Kept


_last = _Kept([], {})


def _kept(lines: Sequence[str]) -> Kept | None:
    """From earlier compositions of ours; None where a person's own files are among what is composed."""
    if any("searchpath" in line for line in lines):
        return None
    nodes = list(_leaves(ConfigStore.instance().repo))
    if len(nodes) != len(_last.nodes) or any(map(operator.is_not, nodes, _last.nodes)):
        _last.nodes, _last.compositions = nodes, {}
    return _last.compositions


def _leaves(repo: dict[str, Any]) -> Iterator[Any]:
    for node in repo.values():
        if isinstance(node, dict):
            yield from _leaves(node)
        else:
            yield node


def _merged(repos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The nodes of all, in dictionaries of their own; of two with the same name, the later."""
    merged: dict[str, Any] = {}
    for name, node in (entry for repo in repos for entry in repo.items()):
        merged[name] = _merged([merged.get(name, {}), node]) if isinstance(node, dict) else node
    return merged


def compose(overrides: Sequence[str] = ()) -> Config:
    """The configuration that the command line would compose, for notebooks and tests.

    Of image classification, unless the overrides name another task: then it is that task's (`FunctionConfig`).

    Args:
        overrides: as typed after `python -m cnn_ablation`, for example `["model.activation=leaky"]`.

    Raises:
        ConfigError: an override is unknown, of the wrong type or cannot be read.
    """
    lines = _checked(overrides)
    own.load(lines)
    try:
        with _own_hydra():
            _refuse_levels(lines)
            with composing_once(_kept(lines)), initialize_config_dir(CONF_DIR, version_base="1.3"):
                return cast(Config, to_config(hydra_compose(CONFIG_NAME, list(map(settable, lines)))))
    except Exception as error:
        if isinstance(error, HYDRA_ERRORS) or is_from_hydra(error):
            raise explain(error) from error
        raise


def _checked(overrides: object) -> list[str]:
    """Overrides as a list of KEY=VALUE; a single string, which Python would take apart by letters, is none."""
    example = 'compose(["train.epochs=4"])'
    if isinstance(overrides, str | bytes) or not isinstance(overrides, Sequence):
        given = f"[{overrides!r}]" if isinstance(overrides, str) else '["KEY=VALUE"]'
        raise ConfigError([Problem("overrides", repr(overrides), "a list of strings", remedy=f"compose({given})")])
    for line in overrides:
        if not isinstance(line, str):
            raise ConfigError([Problem("overrides", repr(line), "strings: KEY=VALUE", remedy=example)])
        if line.startswith("-"):
            allowed = "KEY=VALUE; flags belong to the command line"
            remedy = "leave it out; cnn_ablation.ablate(baseline, knobs) is a study in Python"
            raise ConfigError([Problem("overrides", line, allowed, remedy=remedy)])
    return list(overrides)


def _refuse_levels(lines: Sequence[str]) -> None:
    overrides = parse(lines)
    check_options(overrides)
    for override in overrides:
        if override.is_sweep_override():
            key, _, value = str(override.input_line).partition("=")
            remedy = f'cnn_ablation.ablate(baseline, {{"{key}": [LEVEL, LEVEL]}})'
            raise ConfigError([Problem(key, value, "one value, for one configuration", remedy=remedy)])


def to_config(composed: DictConfig, *, arm: str | None = None) -> StudyConfig:
    """What Hydra composed, as dataclasses.

    Raises:
        ConfigError: a key that the schema lacks (added with `+key=value`), a missing value, a broken interpolation.
    """
    return completed(as_composed(composed, arm=arm))


def as_composed(composed: DictConfig, *, arm: str | None = None) -> StudyConfig:
    """`to_config` before a task completes it."""
    plain = copy.deepcopy(composed)
    with open_dict(plain):
        plain.pop("hydra", None)
    unknown = [unknown_key(key, value, owner, missing=key) for key, value, owner in _unknown_keys(plain)]
    missing = [
        Problem(key, "???", "a value must be given", remedy=f"{key}=VALUE") for key in OmegaConf.missing_keys(plain)
    ]
    if unknown or missing:
        raise ConfigError(unknown + sorted(missing, key=str), arm=arm)
    try:
        config = OmegaConf.to_object(plain)
    except OmegaConfBaseException as error:
        raise explain(error) from error
    if not isinstance(config, StudyConfig):
        raise UserError(
            f"the configuration '{CONFIG_NAME}' does not start from the schema: add '- schema' to its defaults"
        )
    return config


def completed(config: StudyConfig) -> StudyConfig:
    """A configuration as composed, with what its extensions and its task make of it."""
    extensions.load(config.extensions)
    complete: StudyConfig = task_of(config).complete(config)
    return complete


def _unknown_keys(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any, type]]:
    """(dotted key, value, dataclass that lacks it); Hydra lets `+key=value` past a schema."""
    owner = OmegaConf.get_type(node)
    if not dataclasses.is_dataclass(owner):
        return
    known = {item.name for item in dataclasses.fields(owner)}
    for key in map(str, node):
        child = node._get_node(key)
        if key not in known:
            yield f"{prefix}{key}", child, owner
        elif isinstance(child, DictConfig):
            yield from _unknown_keys(child, f"{prefix}{key}.")
