"""Modules that extend the package: named by a person under `extensions`, or installed with an entry point.

They register parts (`@cnn_ablation.activation("mish")`) when they are imported, which is done wherever a configuration
is composed, checked or trained: here, in workers and in jobs of a launcher.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from importlib import metadata

from cnn_ablation.common import imports
from cnn_ablation.common.errors import ConfigError, Problem

GROUP = "cnn_ablation"
"""The entry points of installed packages that extend this one."""


def load(names: Sequence[str]) -> None:
    """Imports extensions by name, and those that are installed; what is loaded stays as it is.

    Raises:
        ConfigError: one of them is not there or cannot be imported.
    """
    installed()
    for name in names:
        imports.module("extensions", name)


@cache
def installed() -> tuple[str, ...]:
    """The modules of installed extensions, imported."""
    found = tuple(dict.fromkeys(point.module for point in metadata.entry_points(group=GROUP)))
    for name in found:
        try:
            importlib.import_module(name)
        except Exception as error:  # somebody else's package
            allowed = f"extensions that can be imported; it raised {type(error).__name__}: {error}"
            raise ConfigError([Problem("extensions", name, allowed, remedy=f"uninstall or mend {name}")]) from error
    return found
