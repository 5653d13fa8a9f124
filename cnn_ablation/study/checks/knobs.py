"""Knobs and folders as Python gives them: told right from wrong before anything else looks at them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.config import as_python, shown
from cnn_ablation.study.designs import LABEL, Knob, knob, zipped_knob

_EXAMPLE = '{"model.activation": ["leaky"]}'
_ZIP_EXAMPLE = '{"large": [{"train.batch_size": 256, "optimizer.lr": 4e-3}]}'


def read_knobs(knobs: object) -> list[Knob]:
    """Knobs from a dictionary: config key -> its levels; or any name -> dictionaries of keys that move together.

    Numbers and arrays of NumPy become Python's own.

    Raises:
        ConfigError: it is no such dictionary, or levels are missing or not given in a list.
    """
    if not isinstance(knobs, Mapping):
        raise ConfigError([Problem("knobs", shown(knobs), "a dictionary of lists of levels", remedy=_EXAMPLE)])
    if not knobs:
        remedy = f"{_EXAMPLE}; cnn_ablation.run(config, folder) trains a single configuration"
        raise ConfigError([Problem("knobs", "{}", "one knob or more; here is nothing to compare", remedy=remedy)])
    return [_read_knob(name, levels) for name, levels in knobs.items()]


def _read_knob(name: object, levels: object) -> Knob:
    if not isinstance(name, str) or not name:
        remedy = '"model.activation"'
        raise ConfigError([Problem(shown(name), shown(levels), "a config key as text, or a name", remedy=remedy)])
    levels = as_python(levels)
    if isinstance(levels, str | bytes) or not isinstance(levels, Sequence):
        one = levels if isinstance(levels, str | int | float | dict) or levels is None else "LEVEL"
        remedy = f"[{one!r}]" if one != "LEVEL" else "[LEVEL, LEVEL]"
        raise ConfigError([Problem(name, shown(levels), "levels come in a list", remedy=f"{name}: {remedy}")])
    if not levels:
        raise ConfigError([Problem(name, "[]", "one level or more", remedy=f"a level for {name}, or no such knob")])
    values = [as_python(level) for level in levels]
    if not any(isinstance(value, Mapping) for value in values):
        return knob(name, values)
    return zipped_knob(name, [_zipped_level(name, value) for value in values])


def _zipped_level(name: str, level: Any) -> dict[str, Any]:
    """The keys that a level moves together, and its label."""
    if not isinstance(level, Mapping):
        allowed = "either values of one key, or dictionaries of keys that move together, for all levels"
        raise ConfigError([Problem(name, shown(level), allowed, remedy=_ZIP_EXAMPLE)])
    if not level.keys() - {LABEL} or not all(isinstance(key, str) for key in level):
        allowed = "a dictionary with one config key or more"
        raise ConfigError([Problem(name, shown(level), allowed, remedy=_ZIP_EXAMPLE)])
    return {key: as_python(value) for key, value in level.items()}


def read_folder(folder: object) -> Path | None:
    """A study's folder, absolute; None where a new one is wanted.

    Raises:
        ConfigError: it is no path, or there is a file in its place.
    """
    if folder is None:
        return None
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        allowed = "a path, or None for a new folder below multirun/"
        raise ConfigError([Problem("folder", shown(folder), allowed, remedy='"my_study"')])
    path = Path(os.fspath(folder)).absolute()
    in_the_way = next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), None)
    if in_the_way:
        allowed = f"a folder, old or new; {in_the_way} is a file"
        raise ConfigError([Problem("folder", folder, allowed, remedy="another path")])
    return path
