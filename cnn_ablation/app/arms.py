"""The configurations of arms: composed by Hydra once for every choice of options, plain values set on what it composed.

Hydra takes 50 to 75 ms for a composition, a value that is set 0.1 ms. The type of a value and whether its key is there
are still OmegaConf's to say: it is set in a copy of the composition first.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict

from cnn_ablation.app.composition import as_composed, completed, to_config
from cnn_ablation.app.hydra_errors import HYDRA_ERRORS, explain
from cnn_ablation.app.request import StudyRequest
from cnn_ablation.app.yaml_text import SharedParts
from cnn_ablation.common.errors import ConfigError, UserError
from cnn_ablation.config import StudyConfig
from cnn_ablation.study.designs import Arm

_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")  # others select elements of lists, packages, options
_MOST_KEPT = 256  # compositions, of some 200 KB each
_MOST_LINES = 20_000
_MISSING = "???"


class Plain(NamedTuple):
    """What Hydra would compose of an arm, as dictionaries of plain values, which are not to be changed."""

    config: Mapping[str, Any]
    hydra: Mapping[str, Any]
    """Hydra's own node."""
    overrides: list[str]
    """The arm's."""
    shared: SharedParts
    """Parts of both that other arms have too."""


class Composer:
    """Arms of a request -> configurations.

    Args:
        loader: Hydra's, which finds its files and what a person added to them.
        master: the study's own composition.
        request: knobs, and what holds for all arms.
    """

    def __init__(self, loader: ConfigLoaderImpl, master: DictConfig, request: StudyRequest):
        self._loader, self._master, self._request = loader, master, request
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed = lru_cache(_MOST_LINES)(lambda line: self._parser.parse_overrides([line])[0])
        self._is_group = cache(loader.repository.group_exists)
        self._composition = lru_cache(_MOST_KEPT)(self._composed)
        # Files may be looked for in more places then, and hold groups that the loader does not know.
        self._is_plain = not OmegaConf.select(master, "hydra.searchpath")

    def config(self, arm: Arm) -> StudyConfig:
        """The configuration of an arm.

        Raises:
            ConfigError: a key is unknown, or a value of the wrong type.
        """
        found = self._by_values(arm) if self._is_plain else None
        return found or self.composed(arm)

    def composed(self, arm: Arm) -> StudyConfig:
        """The slow twin of `config`: Hydra composes it, whatever the arm sets."""
        name = arm.name if arm.settings else None
        try:
            return to_config(self.node(arm), arm=name)
        except HYDRA_ERRORS as error:
            explained = explain(error)
            if isinstance(explained, ConfigError):
                raise ConfigError(explained.problems, arm=name) from error
            raise explained from error

    def node(self, arm: Arm, more: Sequence[str] = ()) -> DictConfig:
        """What Hydra composes of an arm and further overrides."""
        return self._loader.load_sweep_config(self._master, [*self._request.overrides(arm), *more])

    def _by_values(self, arm: Arm) -> StudyConfig | None:
        """None where the arm sets what is no plain value, or nothing that its composition would take."""
        try:
            composition, values = self._taken_apart(arm)
            return composition.with_values(values) if composition else None
        except (*HYDRA_ERRORS, UserError):  # told by Hydra's own composition, which meets it too
            return None

    def plain(self, arm: Arm, more: Mapping[str, Any]) -> Plain | None:
        """What Hydra would compose of an arm and values besides, its own node apart, and the arm's overrides.

        Args:
            arm: that has been composed.
            more: by key; keys that are there, and values of their types.

        Returns:
            Interpolations as they stand; None where only Hydra can tell.
        """
        composition, values = self._taken_apart(arm) if self._is_plain else (None, [])
        config = composition.as_plain(values, more) if composition else None
        if composition is None or config is None:
            return None
        return Plain(config, composition.hydra, self._request.overrides(arm), composition.shared)

    def _taken_apart(self, arm: Arm) -> tuple[Composition | None, list[Override]]:
        """What an arm shares with others, composed, and its own values on top of that."""
        fixed, own = self._request.parts(arm)
        settings = [self._parsed(line) for line in own]
        options = [str(each.input_line) for each in settings if self._is_option(each)]
        return self._composition((*fixed, *options)), [each for each in settings if not self._is_option(each)]

    def _is_option(self, override: Override) -> bool:
        """Whether it chooses an option of a config group, as Hydra tells that from a value."""
        is_group = self._is_group(override.key_or_group)
        return is_group and override.type == OverrideType.CHANGE and isinstance(override.value(), str)

    def _composed(self, lines: Sequence[str]) -> Composition | None:
        """Of what arms share; None too where that alone is refused, which arms need not be."""
        try:
            return Composition.of(self._loader.load_sweep_config(self._master, list(lines)))
        except (*HYDRA_ERRORS, UserError):
            return None


@dataclass(frozen=True)
class Composition:
    """What Hydra composed, and the same as dataclasses before a task completes them."""

    plain: DictConfig
    """Takes values in turn, so that OmegaConf says what becomes of them."""
    config: StudyConfig
    values: dict[str, Any]
    """The same as a dictionary, as it is written to files."""
    hydra: dict[str, Any]
    """Hydra's own node, likewise."""
    shared: SharedParts
    """Of both."""
    _set: dict[str, Any] = field(default_factory=dict)
    """Values by override, as OmegaConf has set them."""

    @classmethod
    def of(cls, composed: DictConfig) -> Composition | None:
        """None where a value may change others: through interpolations, or dataclasses that compute.

        Raises:
            ConfigError: as `to_config`.
        """
        plain = copy.deepcopy(composed)
        with open_dict(plain):
            plain.pop("hydra", None)
        config = as_composed(plain)
        values, hydra = (_written(each) for each in (plain, composed.hydra))
        is_fixed = not any(map(_stands_for_another, _texts(values))) and not _computes(config)
        return cls(plain, config, values, hydra, SharedParts(values, hydra)) if is_fixed else None

    def with_values(self, settings: Sequence[Override]) -> StudyConfig | None:
        """A copy with these values; None where one of them is no plain value of a key that is there.

        Raises:
            OmegaConfBaseException: as when Hydra sets it.
        """
        config = copy.deepcopy(self.config)
        return completed(config) if self._enter(settings, config) else None

    def as_plain(self, settings: Sequence[Override], more: Mapping[str, Any]) -> dict[str, Any] | None:
        """The same as a dictionary, with further values by key; sections that have none of them are not copied."""
        values = dict(self.values)
        is_plain = self._enter(settings, values)
        return values if is_plain and all(_put(values, key.split("."), value) for key, value in more.items()) else None

    def _enter(self, settings: Sequence[Override], config: Any) -> bool:
        """Sets values in a copy; False for what is none."""
        for override in settings:
            key, line = str(override.key_or_group), str(override.input_line)
            if line not in self._set:
                if not _sets_a_value(override) or not self._has_place_for(key):
                    return False
                self._set[line] = self._as_set(key, override)
            if not _put(config, key.split("."), copy.copy(self._set[line])):
                return False
        return True

    def _has_place_for(self, key: str) -> bool:
        """Whether it is a value as composed, or one of a person's own keys, not a whole section."""
        return bool(_KEY.fullmatch(key)) and not isinstance(OmegaConf.select(self.plain, key), DictConfig)

    def _as_set(self, key: str, override: Override) -> Any:
        OmegaConf.update(self.plain, key, override.value(), merge=True, force_add=override.is_force_add())
        return OmegaConf.to_object(found) if OmegaConf.is_list(found := OmegaConf.select(self.plain, key)) else found


def _written(node: DictConfig) -> dict[str, Any]:
    """As Hydra's files have it."""
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=False, enum_to_str=True))


def _sets_a_value(override: Override) -> bool:
    """Whether it is `key=value` or `++key=value` of a value that is no dictionary and stands for no other one."""
    is_of_hydra = override.package is not None or str(override.key_or_group).partition(".")[0] == "hydra"
    if is_of_hydra or override.type not in (OverrideType.CHANGE, OverrideType.FORCE_ADD):
        return False
    value = override.value()
    stands_for_another = any(map(_stands_for_another, _texts(value))) or override.is_sweep_override()
    return not stands_for_another and not _holds_dictionary(value)


def _holds_dictionary(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_holds_dictionary, value)))


def _texts(value: Any) -> Iterator[str]:
    """All text in what OmegaConf holds."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield str(value)


def _stands_for_another(text: str) -> bool:
    return "${" in text or text == _MISSING


def _computes(part: Any) -> bool:
    """Whether a dataclass in it makes values of others when it is created."""
    return dataclasses.is_dataclass(part) and (
        hasattr(part, "__post_init__") or any(_computes(getattr(part, item.name)) for item in dataclasses.fields(part))
    )


def _put(owner: Any, path: list[str], value: Any) -> bool:
    """Sets a value below dotted names, in dictionaries of a person's own keys too; False where it has no such place."""
    name, *rest = path
    if isinstance(owner, dict):
        if rest:
            inner = owner.get(name, {})
            owner[name] = inner = dict(inner) if isinstance(inner, dict) else inner  # others may have it too
            return _put(inner, rest, value)
        owner[name] = value.name if isinstance(value, Enum) else value
        return True
    if name not in getattr(owner, "__dataclass_fields__", {}):
        return False
    if rest:
        return _put(getattr(owner, name), rest, value)
    setattr(owner, name, value)
    return True
