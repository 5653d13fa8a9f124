"""Hydra's loader, which composes once what the configurations of a command have in common.

A command composes its configuration once to learn Hydra's mode and once for itself, then that of every arm, and under
Hydra's launcher that of every job, 50 to 75 ms each. Most of them differ in values alone, which Hydra sets one after
another on what it has composed: 5 ms.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from hydra._internal import hydra as hydra_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

_SEARCH_PATH = "hydra.searchpath"  # where groups are looked for
_TOLD = ("hydra.job", "hydra.overrides", "hydra.runtime")  # what Hydra writes once all values are set
_MOST_KEPT = 64  # compositions, of some 200 KB each


Kept = dict[tuple[Any, ...], DictConfig]
"""Compositions, by what they were composed of."""


class SharingLoader(ConfigLoaderImpl):
    """Loads what `ConfigLoaderImpl`, its slow twin, would load; files are read when they are first asked for.

    Args:
        config_search_path: where Hydra looks for configurations.
        kept: compositions of an earlier one, of the same files and nodes; None begins with none, and so do files of a
            plugin's own, which may have changed since.
    """

    def __init__(self, config_search_path: ConfigSearchPath, kept: Kept | None = None):
        super().__init__(config_search_path)
        others = [each for each in config_search_path.get_path() if each.provider not in ("hydra", "main", "schema")]
        self._kept: Kept = {} if kept is None or others else kept

    def __getstate__(self) -> dict[str, Any]:
        """A launcher may send it to other processes."""
        return {**vars(self), "_kept": {}}

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        self.ensure_main_config_source_available()
        parsed, repository = self._parse_overrides_and_create_caching_repo(config_name, overrides)
        if validate_sweep_overrides:
            self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
        if any(map(_changes_what_is_told, parsed)):
            return self._by_hydra(config_name, overrides, run_mode)
        options = [str(each.input_line) for each in parsed if _is_option(each, repository)]
        config = copy.deepcopy(self._composed(config_name, options, run_mode))
        values = [each for each in parsed if not (_is_option(each, repository) or each.is_sweep_override())]
        self._apply_overrides_to_config(values, config)
        _tell(parsed, config)
        return config

    def _composed(self, config_name: str | None, overrides: list[str], run_mode: RunMode) -> DictConfig:
        """What Hydra composes of them, for both modes the same where nothing is missing; not to be changed."""
        key: tuple[Any, ...] = (config_name, *overrides)
        found = self._kept.get(key) or self._kept.get((run_mode, *key))
        if found is None:
            try:
                found = self._by_hydra(config_name, overrides, RunMode.RUN)
            except ConfigCompositionException:  # a default is missing, which a sweep may bring
                if run_mode == RunMode.RUN:
                    raise
                key, found = (run_mode, *key), self._by_hydra(config_name, overrides, run_mode)
            while len(self._kept) >= _MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = found
        return found

    def _by_hydra(self, config_name: str | None, overrides: list[str], run_mode: RunMode) -> DictConfig:
        return super()._load_configuration_impl(config_name, overrides, run_mode, validate_sweep_overrides=False)


def _is_option(override: Override, repository: CachingConfigRepository) -> bool:
    """Whether Hydra needs a line to compose: it leaves out what a sweep varies, and sets all values at the end."""
    if override.is_sweep_override():
        return False
    chooses = repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)
    return chooses or override.key_or_group == _SEARCH_PATH


def _changes_what_is_told(override: Override) -> bool:
    """Whether a value stands where Hydra writes after it: what is composed holds what it wrote before it."""
    key = f"{override.key_or_group}."
    return key == "hydra." or any(key.startswith(f"{told}.") for told in _TOLD)


def _tell(overrides: Sequence[Override], config: DictConfig) -> None:
    """What Hydra's node says of all overrides and of the process."""
    job, lines = config.hydra.job, config.hydra.overrides
    for told in (lines.hydra, lines.task):
        told.clear()
    for each in overrides:
        (lines.hydra if each.is_hydra_override() else lines.task).append(each.input_line)
    with open_dict(config.hydra):
        for name in job.env_copy:
            job.env_set[name] = os.environ[name]
    config.hydra.runtime.cwd = os.getcwd()
    style = job.config.override_dirname
    job.override_dirname = get_overrides_dirname(
        overrides=[each for each in overrides if not each.is_hydra_override()],
        kv_sep=style.kv_sep,
        item_sep=style.item_sep,
        exclude_keys=style.exclude_keys,
    )


@contextmanager
def composing_once(kept: Kept | None = None) -> Iterator[None]:
    """A Hydra that is made within it has such a loader, with what is kept from earlier ones."""
    names = vars(hydra_module)
    before, names[_NAME] = names[_NAME], partial(SharingLoader, kept=kept)
    try:
        yield
    finally:
        names[_NAME] = before


_NAME = "ConfigLoaderImpl"
