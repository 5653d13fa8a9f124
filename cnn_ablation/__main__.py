"""The command line: `python -m cnn_ablation [-m] [KEY=VALUE ...]` or `guide`, also installed as `cnn-ablation`.

Exit codes: 0 all runs finished, 1 runs failed, 2 bad configuration or data, 130 interrupted.
"""

from __future__ import annotations

from cnn_ablation.common import commands

if __name__ == "__main__":
    commands.leave_when_interrupted()

import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from omegaconf import DictConfig

    from cnn_ablation.app.arguments import Arguments


def command() -> NoReturn:
    """The whole work of this process."""
    commands.run_as_process(answer)


def main() -> NoReturn:
    """Runs what the command line asks for and exits."""
    sys.exit(commands.guarded(answer))


def answer() -> int:
    """Runs what the command line asks for; returns the exit code.

    Raises:
        UserError: it cannot be done as asked.
    """
    words = sys.argv[1:]
    if words[:1] == ["guide"]:
        from cnn_ablation import guide

        return guide.show(words[1:])
    from cnn_ablation.app import arguments

    asked = arguments.read(words)
    if "--help" in asked.flags:
        from cnn_ablation.app import extensions, manual

        extensions.load(asked.overrides, asked.flags.get("--config-dir"), asked.flags.get("--config-name"))
        typed = dict(line.partition("=")[::2] for line in asked.overrides)
        print(manual.text(asked.flags.get("--config-dir"), typed.get("task.target")))
    elif "--version" in asked.flags:
        print(_versions())
    else:
        _answer_with_hydra(asked)
    return 0


def _versions() -> str:
    """This package's version and those of what decides most; read without importing them."""
    from importlib.metadata import version

    import cnn_ablation

    others = ", ".join(f"{name} {version(name)}" for name in ("torch", "hydra-core"))
    return f"cnn_ablation {cnn_ablation.__version__} ({others})"


def _answer_with_hydra(asked: Arguments) -> None:
    """Hands the command line to Hydra; its errors, and its assertions about wrong input, become one message."""
    import logging

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises instead of printing 60 lines
    logging.raiseExceptions = False  # a log that a full disk cannot take is no reason for a traceback

    from cnn_ablation.app.hydra_errors import HYDRA_ERRORS, explain, is_from_hydra

    try:
        _run_hydra(asked)
    except Exception as error:
        if isinstance(error, HYDRA_ERRORS) or is_from_hydra(error):
            raise explain(error) from error
        raise


def _run_hydra(asked: Arguments) -> None:
    from dataclasses import replace

    import hydra
    from hydra.core.config_store import ConfigStore

    from cnn_ablation.app import extensions
    from cnn_ablation.app.composition import CONFIG_NAME, register_schemas
    from cnn_ablation.app.keys import CONF_DIR
    from cnn_ablation.app.loader import composing_once
    from cnn_ablation.app.request import as_sweep, check_options, parse
    from cnn_ablation.app.sweeper import register_sweeper

    errors: list[Exception] = []

    def job(composed: DictConfig) -> float | None:
        found = _job(composed)
        if not isinstance(found, Exception):
            return found
        errors.append(found)
        return None

    extensions.load(asked.overrides, asked.flags.get("--config-dir"), asked.flags.get("--config-name"))
    register_schemas(ConfigStore.instance())
    register_sweeper()
    if "--shell-completion" not in asked.flags:
        overrides = parse(asked.overrides)
        check_options(overrides)
        asked = replace(asked, overrides=[as_sweep(override) for override in overrides])
    sys.argv[1:] = asked.words()
    with composing_once():
        hydra.main(version_base="1.3", config_path=CONF_DIR, config_name=CONFIG_NAME)(job)()
    if errors:
        raise errors[0]


def _job(composed: DictConfig) -> Exception | float | None:
    """One job of a study, or the whole of a single run; what went wrong is raised where Hydra adds no lines of its own.

    Returns:
        What callbacks are told that the job returned; of a single run what went wrong.

    Raises:
        Exception: in a job of a study, for its launcher; of a single run where callbacks are to be told of it.
    """
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from cnn_ablation.app.composition import SWEEPER_TARGET, to_config
    from cnn_ablation.app.request import other_sweeper

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if hydra_config.mode != RunMode.MULTIRUN:
        error = _single(composed, hydra_config.overrides.hydra, folder)
        if error and hydra_config.callbacks:
            raise error
        return error
    if hydra_config.sweeper._target_ != SWEEPER_TARGET:
        return other_sweeper(hydra_config.runtime.choices["hydra/sweeper"])
    from cnn_ablation.app.job_callbacks import outcome
    from cnn_ablation.runs.run import run

    config = to_config(composed)
    return outcome(run(config, folder, study=folder.parent), config.stats)


def _single(composed: DictConfig, overrides: Sequence[str], folder: Path) -> Exception | None:
    from cnn_ablation.app.composition import to_config
    from cnn_ablation.common import progress
    from cnn_ablation.launch.execution import run_single

    for line in overrides:
        if line.startswith(("hydra.sweep.", "hydra.sweeper.")):
            progress.say(f"{line} has no effect on a single configuration (without -m), which goes to {folder}")
        if line.startswith(("hydra/launcher=", "hydra.launcher.")):
            progress.say(f"{line} has no effect on a single configuration (without -m), which is trained here")
    try:
        commands.raise_when_interrupted()
        run_single(to_config(composed), folder)
    except Exception as error:
        return error
    return None


if __name__ == "__main__":
    command()
