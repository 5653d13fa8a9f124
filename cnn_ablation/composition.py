"""Hydra's side of configuration: schemas into Hydra, compositions out as a plain `Config`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cnn_ablation import config as schema
from cnn_ablation.config import Config
from cnn_ablation.errors import ConfigError, Problem, UserError
from cnn_ablation.hydra_errors import HYDRA_ERRORS, explain, unknown_key

_HERE = Path(__file__).resolve().parent
# Inside a wheel conf/ lies in the package, in a checkout beside it.
CONF_DIR = str(_HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf")
CONFIG_NAME = "config"

SWEEPER_TARGET = "hydra_plugins.cnn_ablation.AblationSweeper"


@dataclass
class AblationSweeperConf:
    """`hydra.sweeper`: the design, and knobs of a study file as `params: {model.activation: "relu,leaky"}`."""

    _target_: str = SWEEPER_TARGET
    design: str = "one_at_a_time"
    params: dict[str, str] | None = None


def _shared(store: ConfigStore, _memo: dict[int, Any]) -> ConfigStore:
    return store


def register_schemas() -> None:
    """Makes the dataclasses known to Hydra; doing it twice is harmless."""
    # Hydra copies its sources, and the whole store of schemas with them, for every job and 90 times for --help, which
    # took a second of 1.7. What the store gives out are copies, and nothing is stored while Hydra composes.
    ConfigStore.__deepcopy__ = _shared  # type: ignore[attr-defined]
    store = ConfigStore.instance()
    store.store(group="hydra/sweeper", name="ablation", node=AblationSweeperConf, provider="cnn_ablation")
    store.store(name="schema", node=Config, provider="cnn_ablation")
    for group, options in schema.GROUPS.items():
        for name, node in options.items():  # apart from the groups, so that `glob(*)` yields only what conf/ holds
            store.store(group=f"schema/{group}", name=name, node=node, provider="cnn_ablation")


def compose(overrides: Sequence[str] = ()) -> Config:
    """The configuration that the command line would compose, for notebooks and tests.

    Args:
        overrides: as typed after `python -m cnn_ablation`, for example `["model.activation=leaky"]`.

    Raises:
        ConfigError: an override is unknown, of the wrong type or cannot be read.
    """
    register_schemas()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(CONF_DIR, version_base="1.3"):
            return to_config(hydra_compose(CONFIG_NAME, list(overrides)))
    except HYDRA_ERRORS as error:
        raise explain(error) from error


def to_config(composed: DictConfig, *, arm: str | None = None) -> Config:
    """What Hydra composed, as dataclasses.

    Raises:
        ConfigError: a key that the schema lacks (added with `+key=value`), a missing value, a broken interpolation.
    """
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
    if not isinstance(config, Config):
        raise UserError(
            f"the configuration '{CONFIG_NAME}' does not start from the schema: add '- schema' to its defaults"
        )
    return config


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
