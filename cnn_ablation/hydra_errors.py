"""Hydra's and OmegaConf's errors as one message: key, value given, values allowed, nearest spelling, remedy."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, get_type_hints

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from cnn_ablation.config import Bounds, Config, nearest
from cnn_ablation.errors import ConfigError, Problem, UserError

HYDRA_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)

_SUGGESTED_APPEND = re.compile(r"use \+(?P<key>[^=]+)=(?P<value>.*)")
_MAX_LINES = 9


def explain(error: BaseException) -> UserError:
    """The message for a person, from whatever Hydra raised."""
    if isinstance(error, OverrideParseException):
        return _unreadable_override(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_option(error)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.object_type is not None:
        typed = _SUGGESTED_APPEND.search(str(error))
        key, value = (typed["key"], typed["value"]) if typed else (str(cause.full_key), "...")
        return ConfigError([unknown_key(key, value, cause.object_type, missing=str(cause.full_key))])
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return ConfigError([_wrong_value(cause)])
    lines = [line for line in str(error).splitlines() if line.strip()]
    return UserError("configuration error: " + "\n  ".join(lines[:_MAX_LINES]))


def unknown_key(key: str, value: Any, owner: type, *, missing: str) -> Problem:
    """A key that the schema lacks, with the known key spelled most like it.

    Args:
        key: as typed, `model.activatoin`.
        value: as typed.
        owner: the dataclass that lacks it.
        missing: the part of `key` up to the name that `owner` lacks.
    """
    if owner is Config or not dataclasses.is_dataclass(owner):
        allowed, found = "known keys", nearest(key, list(_schema_keys(Config)))
    else:
        group, _, name = missing.rpartition(".")
        names = [item.name for item in dataclasses.fields(owner)]
        allowed, close = f"keys of {group}: {', '.join(names)}", nearest(name, names)
        found = f"{group}.{close}{key.removeprefix(missing)}" if close else None
    return Problem(
        key,
        value,
        allowed,
        nearest=f"{found}={value}" if found else None,
        remedy=None if found else _where_it_belongs(key, owner),
    )


def _where_it_belongs(key: str, owner: type) -> str:
    """The options of a config group that have the key, where the chosen one has not."""
    group, _, name = key.rpartition(".")
    base = owner.__bases__[0]
    siblings = base.__subclasses__() if dataclasses.is_dataclass(base) else []
    options = [
        str(vars(option)["name"]) for option in siblings if name in {item.name for item in dataclasses.fields(option)}
    ]
    if options:
        return f"this key belongs to {' and '.join(f'{group}={option}' for option in options)}"
    return "`python -m cnn_ablation --cfg job` lists every key"


def _schema_keys(owner: type, prefix: str = "") -> dict[str, dataclasses.Field[Any]]:
    """Every dotted key of the schema, of a config group those of all its options."""
    keys: dict[str, dataclasses.Field[Any]] = {}
    types = get_type_hints(owner)
    for item in dataclasses.fields(owner):
        name, kind = f"{prefix}{item.name}", types[item.name]
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            keys[name] = item
            continue
        for option in (kind, *kind.__subclasses__()):
            keys |= _schema_keys(option, f"{name}.")
    return keys


def _wrong_value(error: OmegaConfBaseException) -> Problem:
    """A value of the wrong type, with the type and bounds of its field."""
    key = re.sub(r"\[.*", "", str(error.full_key))
    reason = str(error.msg or error).splitlines()[0]
    field = _schema_keys(Config).get(key)
    if field is None:
        return Problem(key, error.value, reason)
    bounds = str(field.metadata.get("bounds", Bounds()))
    return Problem(
        str(error.full_key),
        "null" if error.value is None else error.value,
        f"{field.type}, {bounds}" if bounds else str(field.type),
        remedy=f"{reason}; the default is {_default(field)}",
    )


def _default(field: dataclasses.Field[Any]) -> str:
    """The field's default as written on the command line."""
    value = field.default_factory() if callable(field.default_factory) else field.default
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")


def _unreadable_override(error: OverrideParseException) -> UserError:
    reason = str(error.message).splitlines()
    reason = [line for line in reason if not line.startswith("See http")]
    return UserError(
        f"configuration error: {error.override}\n"
        f"  cannot be read as KEY=VALUE: {'; '.join(reason)}\n"
        f"  remedy: quote lists and spaces for the shell, for example 'model.filters=[24,48,96]'"
    )


def _unknown_option(error: MissingConfigException) -> UserError:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = [str(name) for name in error.options or ()]
    if not group:
        return UserError(f"configuration error: there is no configuration file '{option}.yaml'")
    found = nearest(option, options)
    return ConfigError(
        [Problem(group, option, ", ".join(options) or "no such group", f"{group}={found}" if found else None)]
    )
