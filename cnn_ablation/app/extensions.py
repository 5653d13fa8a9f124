"""The extensions that a command line names, imported before anything is composed of what they register."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from cnn_ablation.app import keys
from cnn_ablation.common import extensions
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.config import OWN_CODE

KEY = "extensions"


def load(overrides: Sequence[str], config_dir: str | None = None, config_name: str | None = None) -> None:
    """Imports what overrides name, and what a chosen study or configuration file of the user's own names.

    Args:
        overrides: as typed.
        config_dir: of the user's own files.
        config_name: of a file there that takes the place of `config.yaml`.

    Raises:
        ConfigError: an extension is not there or cannot be imported.
    """
    typed = dict(line.lstrip("+").partition("=")[::2] for line in overrides)
    names = list(_of_files(typed.get("study"), config_dir, config_name))
    if KEY in typed:
        names = _listed(typed[KEY])
    extensions.load(names)
    keys.schema_keys.cache_clear()


def _listed(text: str) -> list[str]:
    """`[my_parts,my_pkg.layers]`."""
    text = text.strip()
    if "]" in text[:-1]:
        raise ConfigError([Problem(KEY, text, "one list: it is no knob", remedy=OWN_CODE.not_a_knob)])
    if not (text.startswith("[") and text.endswith("]")):
        names = ",".join(part.strip() for part in text.split(","))
        allowed = "a list of modules, in quotes where the shell takes brackets apart"
        raise ConfigError([Problem(KEY, text, allowed, remedy=f"'{KEY}=[{names}]'")])
    return [name for part in text[1:-1].split(",") if (name := part.strip().strip("'\""))]


def _of_files(study: str | None, config_dir: str | None, config_name: str | None) -> Iterator[str]:
    """What a person's own files name; a file that cannot be read is told of when it is composed."""
    if config_dir is None:
        return
    chosen = [f"study/{study}"] * bool(study) + [config_name] * bool(config_name)
    for name in chosen:
        try:
            content: Any = yaml.safe_load((Path(config_dir) / f"{name}.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        found = content.get(KEY) if isinstance(content, dict) else None
        yield from (str(entry) for entry in (found if isinstance(found, list) else []))
