"""The folders that a configuration names, where jobs run on other machines."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from typing import TypeVar

from cnn_ablation.common import looks
from cnn_ablation.common.errors import Problem
from cnn_ablation.config import StudyConfig, bounds_of, leaves, with_settings
from cnn_ablation.runs.task import task_of

C = TypeVar("C", bound=StudyConfig)


def absolute(config: C) -> C:
    """A configuration that names the same folders wherever its job works; `~` is the home of whoever asks here.

    Raises:
        DataError: a folder cannot be told, as in the home of a user who is not known here.
    """
    named = {key: value for key, item, value in leaves(config) if bounds_of(item).is_folder and value}
    changed = {key: text for key, value in named.items() if (text := str(looks.folder(key, value))) != value}
    return with_settings(config, changed.items()) if changed else config


def missing(configs: Iterable[StudyConfig]) -> list[Problem]:
    """The folders that runs read and this machine does not see, each once; asked where they are to be trained."""
    wanted = {path: key for config in configs for key, path in task_of(config).paths(config)}
    return [_problem(key, str(path)) for path, key in wanted.items() if not os.path.isdir(path)]


def _problem(key: str, path: str) -> Problem:
    allowed = f"a folder that all machines of this study see; there is none on {platform.node()}"
    remedy = f"copy it to a folder that they share, and {key}=DIR"
    return Problem(key, path, allowed, remedy=remedy)
