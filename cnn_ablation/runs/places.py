"""What a configuration names, where its jobs run in other processes and on other machines: folders, and code."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable

from cnn_ablation.common import looks
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.config import StudyConfig, bounds_of, leaves
from cnn_ablation.runs.task import task_of


def folders(config: StudyConfig) -> dict[str, str]:
    """The folders that a configuration names, by key, absolute, so that they are the same wherever its job works.

    Raises:
        DataError: a folder cannot be told, as in the home of a user who is not known here.
    """
    named = ((key, value) for key, item, value in leaves(config) if bounds_of(item).is_folder and value)
    return {key: str(looks.folder(key, value)) for key, value in named}


def missing(configs: Iterable[StudyConfig]) -> list[Problem]:
    """The folders that runs read and this machine does not see, each once; asked where they are to be trained."""
    wanted = {path: key for config in configs for key, path in task_of(config).paths(config)}
    return [_problem(key, str(path)) for path, key in wanted.items() if not os.path.isdir(path)]


def _problem(key: str, path: str) -> Problem:
    allowed = f"a folder that all machines of this study see; there is none on {platform.node()}"
    remedy = f"copy it to a folder that they share, and {key}=DIR"
    return Problem(key, path, allowed, remedy=remedy)


def check_known_elsewhere(configs: Iterable[StudyConfig]) -> None:
    """Refuses code that no other process can import, before jobs are sent that would fail.

    Raises:
        ConfigError: a part or a function was defined in a script or a notebook.
    """
    config = next((config for config in configs if not task_of(config).is_known_elsewhere(config)), None)
    if config is None:
        return
    allowed = "modules with all that is trained: what this script or notebook itself defines is known here alone"
    remedy = "move it into my_parts.py; extensions=[my_parts], or task.target=my_parts.train for a function"
    raise ConfigError([Problem("extensions", config.extensions, allowed, remedy=remedy)])
