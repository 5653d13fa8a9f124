"""The words of a schema: dataclasses whose fields have their only default, their bounds and their role in a study.

Standard library only, so that checks run before anything heavy is imported.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from cnn_ablation.common.device_names import kind_of, place_of
from cnn_ablation.common.errors import ConfigError


@dataclass(frozen=True)
class Bounds:
    """The values a field may take; list fields are checked element by element."""

    choices: Callable[[], tuple[Any, ...]] | None = None
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    min_length: int = 0
    is_folder: bool = False
    per_layer: type | None = None
    """The type of one value, where a field takes one value for all layers or a list with one for each."""
    or_word: str = ""
    """What may stand in place of a whole number."""
    numbered: str = ""
    """The choice that has several of its kind, by their places: `cuda:1`. Which of them it is changes no result."""
    words: str = ""
    """What is meant, where no bound says it; whoever uses the value checks it."""

    def allows(self, value: object) -> bool:
        """Whether a value (or, of a list, every element) lies within; None is the schema's business."""
        if self.per_layer:
            values = value if isinstance(value, list) else [value]
            return len(values) >= self.min_length and all(self._is_of_a_layer(element) for element in values)
        if value is None:
            return True
        if isinstance(value, list):
            return len(value) >= self.min_length and all(self.allows(element) for element in value)
        if self.choices is not None:
            return value in self.choices() or self._is_numbered(value)
        if isinstance(value, str):
            return value == self.or_word if self.or_word else not self.is_folder or bool(value.strip())
        return not isinstance(value, int | float) or (math.isfinite(value) and self._contains(value))

    def _is_numbered(self, value: object) -> bool:
        return isinstance(value, str) and place_of(value) is not None and kind_of(value) == self.numbered

    def _is_of_a_layer(self, value: object) -> bool:
        return type(value) is self.per_layer and replace(self, per_layer=None).allows(value)

    def _contains(self, number: float) -> bool:
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        if self.per_layer:
            kind = "true, false" if self.per_layer is bool else str(replace(self, per_layer=None, min_length=0))
            kind = f"int, {kind}" if self.per_layer is int else kind
            return f"{kind}; one value for all layers, or a list with one for each"
        if self.choices is not None:
            numbered = [f"{self.numbered}:N"] if self.numbered else []
            return ", ".join([*map(str, self.choices()), *numbered])
        if self.is_folder or self.words:
            return self.words or "the name of a folder"
        limits = [("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below)]
        text = " and ".join(f"{word} {limit:.10g}" for word, limit in limits if limit is not None)
        text = f"{text}, or {self.or_word}" if self.or_word else text
        return f"{self.min_length} or more values, each {text}" if self.min_length else text


@dataclass(frozen=True)
class Role:
    """What a key is to a study: identities of runs, checks of knobs and studies' folders go by this alone."""

    identifies: bool
    """Its value is part of what tells one run from another."""
    is_fixed: bool
    """A study's folder holds runs of one baseline value only."""
    not_a_knob: str = ""
    """Why no study may vary it, or what to do instead; empty for what may be a knob."""
    word: str = ""
    """What the page of keys calls it."""


_OTHER_PICTURES = "one study for each value; its levels would be tested on different pictures"

RESULT = Role(identifies=True, is_fixed=True, word="knob")
"""Can change what a run computes."""
TEST_SET = Role(identifies=True, is_fixed=True, not_a_knob=_OTHER_PICTURES, word="test set")
"""Can change which pictures are tested: scores of two values cannot be paired."""
FILES = Role(identifies=False, is_fixed=True, not_a_knob=_OTHER_PICTURES, word="files")
"""Names files whose content, not their place, identifies a run."""
SEEDS = Role(identifies=False, is_fixed=False, not_a_knob="replicates=N trains every arm with N seeds", word="seeds")
"""Which seeds a study has; a seed enters the identity of its run on its own."""
CONDUCT = Role(
    identifies=False, is_fixed=False, not_a_knob="give it once, for all arms; it changes no result", word="conduct"
)
"""How a study is carried out, kept and read; without effect on what a run computes."""
SHOWN = Role(
    identifies=False,
    is_fixed=False,
    not_a_knob="one list for all arms, KEY=[A,B]; it changes no result",
    word="conduct",
)
"""Who is shown how a study goes."""
OWN_CODE = Role(
    identifies=False,
    is_fixed=False,
    not_a_knob="give them once, for all arms; their parts can be knobs",
    word="own code",
)
"""Modules of the user's own, whose content, not their name, identifies a run."""
LABEL = Role(identifies=False, is_fixed=False, not_a_knob="the study names its arms itself", word="label")
WHAT_IS_TRAINED = Role(identifies=True, is_fixed=True, not_a_knob="one study for each task", word="task")

LARGEST_SEED = 2**32 - 1  # as NumPy takes them


def setting(default: Any, *, doc: str = "", role: Role = RESULT, choices: Any = None, **bounds: Any) -> Any:
    """A dataclass field with its default, its bounds, its role in a study, and what it does in one line (`doc`).

    `--help`, the page of keys and messages take that line from here.
    """
    allowed = choices if choices is None or callable(choices) else lambda: tuple(choices)
    metadata = {"bounds": Bounds(choices=allowed, **bounds), "role": role, "doc": doc}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class Section:
    """A part of a configuration: a dataclass that takes no attribute besides its fields.

    What NumPy computed is kept as Python's own numbers and lists, and whole numbers for a float as floats: equal
    settings are equal in records too.
    """

    is_option: ClassVar[bool] = True
    """False where a section holds what the options of a config group share, and is none of them itself."""

    if not TYPE_CHECKING:  # a checker of types would take any attribute then

        def __setattr__(self, name: str, value: Any) -> None:
            item = fields_of(self).get(name)
            if item is None:
                from cnn_ablation.config.values import unknown_key  # which knows all sections

                raise ConfigError([unknown_key(self, name, value)])
            object.__setattr__(self, name, _of_field(value, item))


def fields_of(section: Any) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a section, or of its class, by name."""
    fields: dict[str, dataclasses.Field[Any]] = section.__dataclass_fields__
    return fields


def as_python(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's own, in lists and dictionaries too; anything else as it is."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if type(value) is dict:
        return {key: as_python(each) for key, each in value.items()}
    return [as_python(each) for each in value] if type(value) is list else value


def _of_field(value: Any, item: dataclasses.Field[Any]) -> Any:
    """A value as it is kept: a whole number for a float is a float, and one in quotes is none of the words."""
    value = as_python(value)
    if isinstance(value, str) and bounds_of(item).or_word and value.strip().isdecimal():
        return int(value)
    if type(value) is not int or "float" not in str(item.type):
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def group_name(name: str, *, role: Role = RESULT) -> Any:
    """The `name` of a config group's option: fixed by the group file, never set alone."""
    return setting(name, doc="set by the option of its group", choices=(name,), role=role)


def free_keys(role: Role = RESULT, *, doc: str = "") -> Any:
    """A dataclass field whose keys are the user's own: `model.kwargs.width`; each of them can be a knob."""
    return field(default_factory=dict, metadata={"bounds": Bounds(), "role": role, "is_free": True, "doc": doc})


def doc_of(item: dataclasses.Field[Any]) -> str:
    """What a key does, in one line; empty where its dataclass does not say."""
    return str(item.metadata.get("doc", ""))


def is_free(item: dataclasses.Field[Any]) -> bool:
    """Whether the keys inside a field are the user's own."""
    return bool(item.metadata.get("is_free"))


_SCALARS = (str, int, float, type(None))


@functools.cache  # of a class; `Any`, because mypy takes no class of dataclasses for a key
def _fields(part: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(part)


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """(dotted key, field, value) for every value of a configuration, depth first."""
    part: Any = type(config)
    for item in _fields(part):
        value, key = getattr(config, item.name), f"{prefix}{item.name}"
        if isinstance(value, _SCALARS):  # most are, and nothing else need be asked of them
            yield key, item, value
        elif dataclasses.is_dataclass(value):
            yield from leaves(value, f"{key}.")
        elif is_free(item):
            yield from ((name, item, each) for name, each in flat(key, value))
        else:
            yield key, item, value


def flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values in a dictionary by dotted key, those of dictionaries within it too."""
    if not isinstance(value, dict):
        yield key, value
        return
    for name, each in value.items():
        yield from [(f"{key}.{name}", each)] if each == {} else flat(f"{key}.{name}", each)


def keys_of(config: Any) -> dict[str, dataclasses.Field[Any]]:
    """The field of every dotted key of a configuration."""
    return {key: item for key, item, _ in leaves(config)}


def role_of(item: dataclasses.Field[Any]) -> Role:
    """What a key is to a study; a field of somebody's own dataclass may change results unless it says otherwise."""
    role: Role = item.metadata.get("role", RESULT)
    return role


def one_form(item: dataclasses.Field[Any], value: Any) -> Any:
    """A value in the one of several forms that mean the same: `[3,3,3]` for three layers is `3`, and -0.0 is 0.0.

    One of several of a kind is any of them: `cuda:1` is `cuda`.
    """
    if isinstance(value, str) and bounds_of(item).numbered:
        return kind_of(value)
    if isinstance(value, list) and value and bounds_of(item).per_layer and all(each == value[0] for each in value):
        return value[0]
    return value + 0.0 if isinstance(value, float) else value


def default_of(item: dataclasses.Field[Any]) -> Any:
    """A field's only default."""
    return item.default_factory() if callable(item.default_factory) else item.default


def bounds_of(item: dataclasses.Field[Any]) -> Bounds:
    """The values a field may take; any where none are given."""
    bounds: Bounds = item.metadata.get("bounds", Bounds())
    return bounds


def types_of(part: Any) -> dict[str, Any]:
    """The type of every field; none where a dataclass names types that only its function knows."""
    return _hints(part)


@functools.cache  # apart, because mypy takes no class of dataclasses for a key
def _hints(part: Any) -> dict[str, Any]:
    try:
        return get_type_hints(part)
    except NameError:
        return {}


def is_section(kind: Any) -> bool:
    """Whether the type of a field is that of a part with keys of its own."""
    return isinstance(kind, type) and issubclass(kind, Section)
