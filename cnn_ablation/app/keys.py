"""What can be set: every key of the schema, every group's options, and what a misspelt key probably meant. No Hydra."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from cnn_ablation.common.errors import as_typed
from cnn_ablation.config import Bounds, doc_of, is_free, nearest, split_free
from cnn_ablation.study.designs import DESIGNS
from cnn_ablation.tasks.image_classification import parts
from cnn_ablation.tasks.image_classification.config import GROUPS, Config

_HERE = Path(__file__).resolve().parent.parent
# Inside a wheel conf/ lies in the package, in a checkout beside it.
CONF_DIR = str(_HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf")

Field = dataclasses.Field[Any]

_OF_HYDRA = {
    "design": "hydra.sweeper.design",
    "sweeper.design": "hydra.sweeper.design",
    "sweep.dir": "hydra.sweep.dir",
    "sweep_dir": "hydra.sweep.dir",
    "run.dir": "hydra.run.dir",
    "run_dir": "hydra.run.dir",
    "launcher": "hydra/launcher",
    "hydra.launcher": "hydra/launcher",
}
"""What users write for a setting of Hydra's, and its whole name."""

_IN_OTHER_WORDS = {
    "seeds": "seed=FIRST replicates=N, which trains with the seeds FIRST, FIRST+1, ...",
    "num_seeds": "replicates=N",
    "stats.interval": "leave it out: all intervals are t intervals, as the bootstrap's were too narrow",
    "hydra.sweeper": "hydra.sweeper.design=DESIGN",
    "zip": "'zip.NAME={KEY:VALUE,KEY:VALUE}', with a name of your own",
}
"""What users write for something that is said with other keys."""


@cache
def schema_keys(owner: type = Config, prefix: str = "") -> dict[str, Field]:
    """Every dotted key of the schema; of a config group those of all its options, of which the first that has it."""
    keys: dict[str, Field] = {}
    types = get_type_hints(owner)
    for item in dataclasses.fields(owner):
        name, kind = f"{prefix}{item.name}", types[item.name]
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            keys[name] = item
            continue
        for option in (kind, *GROUPS.get(name, {}).values()):
            keys = {**schema_keys(option, f"{name}."), **keys}
    return keys


def settable(line: str) -> str:
    """An override as Hydra takes it: a key of the user's own (`model.kwargs.width=16`) is in no schema, so is added."""
    key, equals, _ = line.partition("=")
    outer, inside = split_free(key)
    known = schema_keys().get(outer)
    is_own = inside or (known is not None and is_free(known))
    return f"++{line}" if equals and is_own and not key.startswith(("+", "~")) else line


def sections() -> dict[str, type]:
    """The parts of a configuration with keys of their own that are no config groups: `train`, `stats`, `arm`."""
    types = get_type_hints(Config)
    parts = (item.name for item in dataclasses.fields(Config) if dataclasses.is_dataclass(types[item.name]))
    return {name: types[name] for name in parts if name not in GROUPS}


def option_names(option: type) -> list[str]:
    """What `GROUP=` names an option's dataclass by: of networks of known layers, several."""
    return next(str(bounds_of(item)).split(", ") for item in dataclasses.fields(option) if item.name == "name")


def group_options(config_dir: str | None = None) -> dict[str, list[str]]:
    """The config groups and their options, as files in conf/ and in a folder of the user's."""
    found: dict[str, set[str]] = {}
    for folder in filter(None, (CONF_DIR, config_dir)):
        for path in Path(folder).glob("*/*.yaml"):
            found.setdefault(path.parent.name, set()).add(path.stem)
    for group, registered in parts.OPTIONS.items():
        found.setdefault(group, set()).update(registered)
    return {group: sorted(options) for group, options in sorted(found.items())}


def bounds_of(field: Field) -> Bounds:
    """The values that a key may take; any where its field says nothing."""
    bounds: Bounds = field.metadata.get("bounds", Bounds())
    return bounds


def allowed(field: Field) -> str:
    """The type and the bounds of a key: `int, at least 1`; choices tell their type."""
    if is_free(field):
        return f"keys of your own: NAME:VALUE in braces, or {field.name}.NAME=VALUE"
    bounds, kind = bounds_of(field), str(field.type)
    kind = "int" if bounds.or_word else kind
    words = str(bounds)
    if bounds.choices and kind.startswith("str"):
        return words + kind.removeprefix("str").replace(" | None", ", null")
    return ", ".join(filter(None, ("" if kind == "Any" else kind, words)))


def default_value(field: Field) -> Any:
    """The default of a key; `dataclasses.MISSING` for the names that a group's option sets."""
    return field.default_factory() if callable(field.default_factory) else field.default


def default(field: Field) -> str:
    """The default of a key as written on the command line."""
    value = default_value(field)
    return "???" if value is dataclasses.MISSING else as_typed(value)


def fits(field: Field, text: str) -> bool:
    """Whether a value, as typed, is of the key's type and within its bounds."""
    value, bounds = _read(text), bounds_of(field)
    declared = "int" if bounds.or_word and value != bounds.or_word else str(field.type)
    return _has_type(value, declared) and bounds.allows(value)


def _read(text: str) -> Any:
    """A value as the command line reads it; what is neither number, list nor word is text."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return [_read(part) for part in text[1:-1].split(",") if part.strip()]
    words = {"null": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


_KINDS: dict[str, Callable[[Any], bool]] = {
    "Any": lambda value: True,
    "None": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in (int, float),
    "str": lambda value: value is not None and not isinstance(value, list),
}


def _has_type(value: Any, declared: str) -> bool:
    if isinstance(value, list):
        element = re.search(r"list\[(\w+)\]", declared)
        inside = element[1] if element else "Any" if "Any" in declared else ""
        return bool(inside) and all(_has_type(part, inside) for part in value)
    return any(_KINDS.get(kind.strip(), lambda value: False)(value) for kind in declared.split("|"))


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """What a key that does not exist probably meant; at most one of the two is given."""

    nearest: str | None = None
    """`KEY=VALUE` that would be taken."""
    remedy: str | None = None


def in_other_words(key: str) -> str | None:
    """How something is said that has no key of this name."""
    return _IN_OTHER_WORDS.get(key)


def suggestion(key: str, value: str, candidates: list[str] | None = None) -> Suggestion:
    """What a user who typed `key=value` probably meant; never what would be refused too.

    Args:
        key: as typed; it does not exist.
        value: as typed.
        candidates: the keys among which to look; all keys and groups if None.
    """
    if key in _IN_OTHER_WORDS:
        return Suggestion(remedy=_IN_OTHER_WORDS[key])
    if key in _OF_HYDRA:
        return _of_hydra(_OF_HYDRA[key], value)
    found = _spelt_alike(key, candidates)
    if found is None:
        return Suggestion()
    field = schema_keys().get(found)
    if field is None or fits(field, value) or value == "...":
        return Suggestion(nearest=f"{found}={value}")
    return Suggestion(remedy=f"perhaps {found}, which takes {allowed(field)}: {doc_of(field)}".removesuffix(": "))


def _of_hydra(key: str, value: str) -> Suggestion:
    if key == "hydra.sweeper.design" and value not in DESIGNS:
        close = nearest(value, list(DESIGNS))
        return Suggestion(nearest=f"{key}={close}") if close else Suggestion(remedy=f"{key}={'|'.join(DESIGNS)}")
    return Suggestion(nearest=f"{key}={value}")


def _spelt_alike(key: str, candidates: list[str] | None) -> str | None:
    """The key or group spelt most like `key`, or the only one that ends in it: `epochs` -> `train.epochs`."""
    known = [*schema_keys(), *GROUPS, "study", *sections()] if candidates is None else candidates
    ending = [name for name in known if name.endswith(f".{key}") and name.rpartition(".")[2] != "name"]
    if len(ending) == 1:
        return ending[0]
    found = nearest(key, known)
    if found or "." in key:
        return found
    last = {name.rpartition(".")[2]: name for name in reversed(known)}
    close = nearest(key, list(last))
    return last[close] if close else None
