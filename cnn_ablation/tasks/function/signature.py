"""The signature of a function as a schema: its keyword arguments are the settings, with their types and defaults."""

from __future__ import annotations

import copy
import dataclasses
import enum
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from cnn_ablation.common import imports
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.common.words import is_slip
from cnn_ablation.config import Bounds, Section, default_of, fields_of, is_free, nearest, setting, shown
from cnn_ablation.tasks.function.config import GIVEN_LATER

KEY = "task.target"
OURS = ("seed", "run")
"""What a function is given by us and no setting of its own."""
_PLAIN = (bool, int, float, str, list, dict, type(None))


class Parameter(NamedTuple):
    """A keyword argument that can be set."""

    name: str
    default: Any
    kind: Any
    """Its type, as a schema has it."""
    bounds: Bounds
    as_given: Callable[[Any], Any]
    """A value of the configuration as the function takes it."""


class Settings(Section):
    """The settings of one function; each function has a class of its own."""

    key = "settings"
    target = ""

    def __reduce__(self) -> Any:
        """A process that is sent them makes the class anew, from the function itself."""
        return _made, (self.target, values_of(self))


def function_named(target: str) -> Callable[..., Any]:
    """The function that a target names.

    Raises:
        ConfigError: there is none, or it takes no seed.
    """
    if not target or target == GIVEN_LATER:
        remedy = f"{KEY}=my_train.train for the function train in my_train.py"
        raise ConfigError([Problem(KEY, target, "a value must be given", remedy=remedy)])
    found = imports.named(KEY, target)
    if not callable(found):
        raise ConfigError(
            [Problem(KEY, target, f"a function; this is {shown(found)}", remedy=f"{KEY}=module.function")]
        )
    if "seed" not in _signature(target, found).parameters:
        allowed = "a function that takes seed: runs that differ in nothing but their seed tell chance from effect"
        raise ConfigError([Problem(KEY, target, allowed, remedy=f"def {found.__name__}(..., *, seed: int)")])
    return found  # type: ignore[no-any-return]


def settings_of(target: str, values: Any) -> Settings:
    """The settings of a function, those that are not given at their defaults.

    Raises:
        ConfigError: the function has no such settings, or there is no such function.
    """
    kind = _schema(target)
    if not isinstance(values, Mapping):
        example = next((f"settings.{name}=VALUE" for name in fields_of(kind)), "no settings, for there are none")
        raise ConfigError([Problem("settings", shown(values), f"arguments of {target} by name", remedy=example)])
    names = list(fields_of(kind))
    problems = [
        Problem(
            f"settings.{name}",
            shown(value),
            f"settings of {target}: {', '.join(names) or 'none'}",
            nearest=f"settings.{close}={value}" if (close := nearest(str(name), names)) else None,
            remedy=None if close else f"one of them, or an argument {name} of the function",
        )
        for name, value in values.items()
        if name not in names
    ]
    if problems:
        raise ConfigError(problems)
    return _made(target, {name: _completed(fields_of(kind)[name], value) for name, value in values.items()})


def _made(target: str, values: Mapping[str, Any]) -> Settings:
    return _schema(target)(**values)


def _completed(item: dataclasses.Field[Any], value: Any) -> Any:
    """Keys of a dictionary take the place of single ones of its default, as they do in every configuration."""
    return _merged(default_of(item), value) if is_free(item) and isinstance(value, Mapping) else value


def _merged(default: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    inside = {
        name: _merged(default[name], value)
        for name, value in given.items()
        if isinstance(value, Mapping) and isinstance(default.get(name), Mapping)
    }
    return {**default, **given, **inside}


def misspelt(settings: Settings) -> Iterator[Problem]:
    """Keys inside dictionaries that no default has, and that look like a slip of one that it has."""
    for name, item in fields_of(settings).items():
        if is_free(item):
            yield from _slips(f"settings.{name}", default_of(item), getattr(settings, name))


def _slips(key: str, default: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value in given.items():
        inner = default.get(name)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            yield from _slips(f"{key}.{name}", inner, value)
        elif name not in default and (meant := next((each for each in default if is_slip(str(name), each)), None)):
            yield Problem(
                f"{key}.{name}",
                shown(value),
                f"{', '.join(default)}; or a further key that is spelled less like one of these",
                nearest=f"{key}.{meant}={shown(value)}",
                remedy=f"if {name} is meant, give it a default in the function too",
            )


def values_of(settings: Settings) -> dict[str, Any]:
    """By name."""
    return {name: getattr(settings, name) for name in fields_of(settings)}


def arguments_of(settings: Settings) -> dict[str, Any]:
    """The settings as the function takes them (tuples, paths, members of enumerations), to change as it likes."""
    values = copy.deepcopy(values_of(settings))
    return {each.name: each.as_given(values[each.name]) for each in parameters(settings.target)}


def missing(settings: Settings) -> list[Problem]:
    """Arguments without a default, for which no value was given."""
    return [
        Problem(f"settings.{name}", value, "a value must be given", remedy=f"settings.{name}=VALUE")
        for name, value in values_of(settings).items()
        if isinstance(value, str) and value == GIVEN_LATER
    ]


@cache
def _schema(target: str) -> type[Settings]:
    fields = []
    for each in parameters(target):
        field = setting(each.default, choices=each.bounds.choices)
        more = {"bounds": dataclasses.replace(each.bounds), "is_free": isinstance(each.default, dict)}
        field.metadata = types.MappingProxyType({**field.metadata, **more})
        fields.append((each.name, each.kind, field))
    return dataclasses.make_dataclass("Settings", fields, bases=(Settings,), namespace={"target": target})


@cache
def parameters(target: str) -> tuple[Parameter, ...]:
    """The keyword arguments of a function that a configuration can hold, in their order."""
    return tuple(_parameters(target, function_named(target)))


def _parameters(target: str, function: Callable[..., Any]) -> Iterator[Parameter]:
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception:  # an annotation that cannot be looked up, as of a name for type checking alone
        hints = {}
    for name, parameter in _signature(target, function).parameters.items():
        if name in OURS or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigError([Problem(KEY, target, f"arguments by name; {name} is taken by position only")])
        found = _parameter(name, parameter.default, hints.get(name, Any))
        if found is not None:
            yield found


def _parameter(name: str, default: Any, annotation: Any) -> Parameter | None:
    """None for an argument whose default no configuration can hold: it keeps it."""
    kind, bounds, as_given = _kind(annotation if annotation is not Any else type(default))
    if default is inspect.Parameter.empty:
        return Parameter(name, GIVEN_LATER, Any if kind is type else kind, bounds, as_given)
    if isinstance(default, enum.Enum):
        default = default.name
    elif isinstance(default, Path):
        default, kind, as_given = str(default), str, Path
    elif isinstance(default, tuple):
        default, as_given = list(default), tuple
        kind = list
    if not _can_be_held(default):
        return None
    if annotation is Any and default is None:
        kind = Any
    return Parameter(name, default, kind, bounds, as_given)


def _can_be_held(value: Any) -> bool:
    if isinstance(value, dict):
        names = all(isinstance(name, str) and name and "." not in name for name in value)
        return names and all(map(_can_be_held, value.values()))
    return isinstance(value, _PLAIN)


def _same(value: Any) -> Any:
    return value


def _kind(annotation: Any) -> tuple[Any, Bounds, Callable[[Any], Any]]:
    """A type as a schema has it, the bounds that it sets, and how a value becomes one of it."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kind, bounds, as_given = _kind(inside[0])
        return kind, next((each for each in inside[1:] if isinstance(each, Bounds)), bounds), as_given
    if origin is Literal:
        return Any, Bounds(choices=lambda: inside), _same
    if origin in (Union, types.UnionType) and len(rest := [part for part in inside if part is not type(None)]) == 1:
        kind, bounds, as_given = _kind(rest[0])
        optional = kind if kind is Any else kind | None
        return optional, bounds, lambda value: None if value is None else as_given(value)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        names = tuple(annotation.__members__)
        return str, Bounds(choices=lambda: names), lambda name: annotation[name]
    plain = {Path: (str, Bounds(), Path), tuple: (list, Bounds(), tuple)}
    return plain.get(origin or annotation, (annotation, Bounds(), _same))


def _signature(target: str, function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        allowed = "a function written in Python, whose arguments can be looked at"
        raise ConfigError([Problem(KEY, target, allowed, remedy="a function around it")]) from error
