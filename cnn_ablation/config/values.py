"""The values of a configuration: whether they fit their schema, which decide a result, and copies with others."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, Union, get_args, get_origin

from cnn_ablation.common.device_names import kind_of
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.common.words import nearest
from cnn_ablation.config.schema import (
    Bounds,
    Section,
    as_python,
    bounds_of,
    fields_of,
    flat,
    is_free,
    is_section,
    leaves,
    role_of,
    types_of,
)
from cnn_ablation.config.study import StudyConfig

C = TypeVar("C", bound=StudyConfig)


def value_problems(config: Section, prefix: str = "") -> list[Problem]:
    """Values of another type than their field's, or outside its bounds; `prefix` stands before their keys."""
    problems = []
    for item in fields_of(config).values():
        key, value = f"{prefix}{item.name}", getattr(config, item.name)
        wanted = types_of(type(config)).get(item.name, Any)
        if not fits(value, wanted):
            problems.append(_type_problem(key, value, wanted, item))
        elif isinstance(value, Section):
            problems += value_problems(value, f"{key}.")
        elif not bounds_of(item).allows(value):
            problems.append(_bounds_problem(key, value, bounds_of(item)))
    return problems


def fits(value: object, wanted: Any) -> bool:
    """Whether a value is of a field's type: a bool is no number, a whole number is a float too."""
    if wanted is Any:
        return True
    if get_origin(wanted) in (types.UnionType, Union):
        return any(fits(value, option) for option in get_args(wanted))
    if get_origin(wanted) is list:
        return isinstance(value, list) and all(fits(element, get_args(wanted)[0]) for element in value)
    if wanted in (int, float):
        return isinstance(value, int if wanted is int else int | float) and not isinstance(value, bool)
    kind = get_origin(wanted) or wanted  # somebody's own dataclass may say `dict[str, int]`
    return not isinstance(kind, type) or (isinstance(value, kind) and _is_option(value))


def _is_option(value: object) -> bool:
    return not isinstance(value, Section) or vars(type(value)).get("is_option", True)


def _groups() -> dict[str, dict[str, type]]:
    """The config groups of all tasks that are known in this process."""
    return {group: options for config in StudyConfig.__subclasses__() for group, options in config.groups.items()}


def _type_problem(key: str, value: object, wanted: Any, item: dataclasses.Field[Any]) -> Problem:
    if isinstance(wanted, type) and issubclass(wanted, Section):
        options = list(_groups().get(key, {"": wanted}).values())
        allowed = ", ".join(option.__name__ for option in options)
        example = f"{key}={options[0].__name__}(...) of {options[0].__module__}"
        return Problem(key, shown(value), allowed, remedy=example)
    name = wanted.__name__ if isinstance(wanted, type) and get_origin(wanted) is None else str(wanted)
    name = "int" if bounds_of(item).or_word else name
    bounds = str(bounds_of(item))
    return Problem(key, shown(value), f"{name}, {bounds}" if bounds else name)


def _bounds_problem(key: str, value: object, bounds: Bounds) -> Problem:
    group = key.removesuffix(".name") if key.endswith(".name") else None
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return Problem(
        key,
        value if isinstance(value, str | int | float) else shown(value),
        str(bounds) if is_finite else f"a finite number, {bounds}",
        nearest=_nearest_choice(key, value, bounds),
        remedy=f"the group sets this name; write {group}={value}" if group else _remedy(key, value, bounds),
    )


_MOST_LETTERS_SHOWN = 80


def shown(value: object) -> str:
    """A Python value of the wrong type for a message: in one line, text in quotes."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MOST_LETTERS_SHOWN else f"{text[:_MOST_LETTERS_SHOWN]}..."


def _remedy(key: str, value: object, bounds: Bounds) -> str | None:
    """One of several of a kind, or a list of one of the words that may be in it."""
    if bounds.numbered and ":" in str(value):
        return f"{key}={bounds.numbered}:0 is the first of several"
    is_of_words = isinstance(value, list) and bounds.choices and not bounds.per_layer
    return f"{key}=[{bounds.choices()[0]}]" if is_of_words and bounds.choices else None


def _nearest_choice(key: str, value: object, bounds: Bounds) -> str | None:
    if isinstance(value, list) and not bounds.per_layer:  # of the first word that may not be in it
        wrong = next((each for each in value if not bounds.allows(each)), None)
        found = _nearest_choice("", wrong, bounds)
        return f"{key}=[{found.removeprefix('=')}]" if found else None
    choices = {str(choice): str(choice) for choice in (bounds.choices() if bounds.choices else [bounds.or_word])}
    choices |= {"gpu": bounds.numbered} if bounds.numbered else {}  # else `gpu` were spelled most like `cpu`
    found = nearest(kind_of(str(value)), [choice for choice in choices if choice])
    return f"{key}={choices[found]}" if found else None


def unknown_key(owner: Section, name: str, value: object) -> Problem:
    """A name that a section has no field of, with the field spelled most like it."""
    names = list(fields_of(owner))
    part = next((key for key, kind in _parts().items() if isinstance(owner, kind)), "")
    elsewhere = [option for option, schema in _groups().get(part, {}).items() if name in types_of(schema)]
    close = None if elsewhere else nearest(name, names)
    key = f"{part}.{name}" if part else name
    return Problem(
        key,
        shown(value),
        f"keys of {part}: {', '.join(names)}" if part else "known keys",
        nearest=key.removesuffix(name) + close if close else None if part else _nearest_key(owner, name),
        remedy=f"this key belongs to {part}={' or '.join(elsewhere)}" if elsewhere else None,
    )


def _parts() -> dict[str, type]:
    """The sections of all tasks that are known in this process, by the key that each stands under."""
    hints = {key: kind for config in StudyConfig.__subclasses__() for key, kind in types_of(config).items()}
    return {key: kind for key, kind in hints.items() if is_section(kind)}


def _nearest_key(owner: Section, name: str) -> str | None:
    """`epochs` without its section is `train.epochs`."""
    keys = [
        f"{part}.{item}"
        for part, kind in types_of(type(owner)).items()
        if is_section(kind)
        for schema in getattr(owner, "groups", {}).get(part, {part: kind}).values()
        for item in types_of(schema)
    ]
    return next((key for key in keys if key.endswith(f".{name}")), nearest(name, keys))


def _nested(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What `flat` took apart; a key inside a value that is no dictionary takes its place."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key.startswith(prefix):
            *parts, name = key.removeprefix(prefix).split(".")
            functools.reduce(_inside, parts, found)[name] = value
    return found


def _inside(outer: dict[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(outer.get(name), dict):
        outer[name] = {}
    inner: dict[str, Any] = outer[name]
    return inner


def split_free(key: str) -> tuple[str, str]:
    """`model.kwargs.width` -> (`model.kwargs`, `width`): a key of the schema, and the user's own inside; else `""`."""
    groups = ((f"{part}.", option) for part, options in _groups().items() for option in options.values())
    for prefix, owner in (*(("", config) for config in StudyConfig.__subclasses__()), *groups):
        for item in fields_of(owner).values():
            if is_free(item) and key.startswith(f"{prefix}{item.name}."):
                return f"{prefix}{item.name}", key.removeprefix(f"{prefix}{item.name}.")
    return key, ""


def _split_own(config: StudyConfig, key: str) -> tuple[str, str]:
    """The same by what a configuration has: the settings of a person's own function are in no schema of ours."""
    owner, (*parts, _) = config, key.split(".")
    for place, part in enumerate(parts, start=1):
        item = fields_of(owner).get(part) if isinstance(owner, Section) else None
        if item is None:
            break
        if is_free(item):
            return ".".join(parts[:place]), key.split(".", place)[-1]
        owner = getattr(owner, part)
    return split_free(key)


def with_settings(config: C, settings: Iterable[tuple[str, Any]]) -> C:
    """A copy with some values replaced, for studies written in Python.

    Args:
        config: left as it is.
        settings: dotted keys and their Python values; a whole group (`optimizer`) takes one of its dataclasses.

    Raises:
        ConfigError: there is no such key, or its value has another type.
    """
    changed = copy.deepcopy(config)
    for key, value in settings:
        outer, inside = _split_own(changed, key) if isinstance(key, str) else (key, "")
        owner, item = _owner(changed, outer, value)
        present = getattr(owner, item.name)
        whole = _nested({**dict(flat("", present)), f".{inside}": as_python(value)}, ".") if inside else value
        setattr(owner, item.name, copy.deepcopy(whole))
        wanted = types_of(type(owner)).get(item.name, Any)
        if not fits(getattr(owner, item.name), wanted):
            problem = _type_problem(key, value, wanted, item)
            example = {} if is_section(wanted) else {"remedy": f"a value as in {key}={present!r}"}
            raise ConfigError([replace(problem, **example)])
    return changed


def _owner(config: StudyConfig, key: object, value: object) -> tuple[Section, dataclasses.Field[Any]]:
    """The section that a dotted key lies in, and its field.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(key, str):
        raise ConfigError([Problem(shown(key), shown(value), "a config key as text", remedy='"train.epochs"')])
    *parts, name = key.split(".")
    owner: Any = config
    for index, part in enumerate([*parts, name]):
        fields = fields_of(owner) if isinstance(owner, Section) else {}
        if part not in fields:
            problem = unknown_key(owner, part, value) if fields else Problem(key, shown(value), "known keys")
            rest = ".".join([*parts, name][index + 1 :])
            raise ConfigError([replace(problem, key=key, nearest=_joined(problem.nearest, rest))])
        if index < len(parts):
            owner = getattr(owner, part)
    return owner, fields[name]


def _joined(key: str | None, rest: str) -> str | None:
    return f"{key}.{rest}" if key and rest else key


def result_settings(config: StudyConfig) -> dict[str, Any]:
    """The values, by dotted key, that can change what one run of this configuration computes."""
    return {key: value for key, item, value in leaves(config) if role_of(item).identifies}


def field_of(config: type[StudyConfig], key: str, settings: Mapping[str, Any]) -> dataclasses.Field[Any] | None:
    """The schema's field of a dotted key.

    Args:
        config: the task's.
        key: as in `all_settings`.
        settings: with the name of its group's option, by which the field is told from its namesakes.
    """
    part, _, name = key.rpartition(".")
    options = [
        option
        for option in config.groups.get(part, {}).values()
        if bounds_of(fields_of(option)["name"]).allows(settings.get(f"{part}.name"))
    ]
    owner = options[0] if options else types_of(config).get(part) if part else config
    return fields_of(owner).get(name) if is_section(owner) else None


def from_settings(config: type[C], settings: dict[str, Any]) -> C:
    """A configuration from its values by dotted key, as they stand in a run's record.

    Raises:
        ConfigError: a group has an option that this version does not know.
    """
    parts: dict[str, Any] = {}
    for key, kind in types_of(config).items():
        if key in config.groups:
            parts[key] = _filled(_option(config, key, settings[f"{key}.name"]), settings, f"{key}.")
        elif is_section(kind):
            own: Any = fields_of(config)[key].default_factory  # a task's own kind of its section
            parts[key] = _filled(own if is_section(own) else kind, settings, f"{key}.")
    values = {item.name: settings[item.name] for item in dataclasses.fields(config) if item.name in settings}
    return config(**parts, **values)


def _option(config: type[StudyConfig], group: str, name: str) -> type:
    for option in config.groups[group].values():
        if bounds_of(fields_of(option)["name"]).allows(name):
            return option
    raise ConfigError([Problem(f"{group}.name", name, "what this version knows", remedy="the version it is of")])


def _filled(part: type, settings: dict[str, Any], prefix: str) -> Any:
    items = dataclasses.fields(part)
    free = {item.name: _nested(settings, f"{prefix}{item.name}.") for item in items if is_free(item)}
    return part(**free, **{item.name: settings[prefix + item.name] for item in items if prefix + item.name in settings})


def all_settings(config: StudyConfig) -> dict[str, Any]:
    """Every value, by dotted key."""
    return {key: value for key, _, value in leaves(config)}
