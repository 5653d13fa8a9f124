"""A job of submitit, as both of its engines use it: what it calls on the node, and what has to be installed for it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.common.imports import named

FUNCTION = "cnn_ablation.launch.batches.carry_out"
"""What a job calls with its batch; by name, so that the node runs the code that is installed there."""


_OLDEST = (1, 5)
"""The first that starts a job without a step of its own."""


def check_installed(launcher: str) -> None:
    """Refuses a launcher whose library is missing or too old.

    Raises:
        ConfigError: with what installs it.
    """
    try:
        found = metadata.version("submitit")
    except metadata.PackageNotFoundError:
        found = ""
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        there = f"submitit {found} is installed" if found else "submitit is not installed"
        remedy = 'pip install "cnn_ablation[slurm]", or pip install -e ".[slurm]" where its code lies'
        allowed = f"launchers whose packages are there; this one needs submitit {wanted} or newer, {there}"
        raise ConfigError([Problem("hydra/launcher", launcher, allowed, remedy=remedy)])


def carry_out(batch: str, function: str, variables: Mapping[str, str | None] | None = None) -> None:
    """The work of a job, on its node.

    It ends when it is told to, where submitit would ignore that until it is killed. Called again, it goes on.

    Args:
        batch: the file.
        function: that trains it, by its dotted name.
        variables: of the environment, that it sets, or removes where they are None.
    """
    for name, value in (variables or {}).items():
        os.environ.pop(name, None)
        os.environ.update({} if value is None else {name: value})
    _forget_the_job_before()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    named("hydra.launcher", function)(batch)


def _forget_the_job_before() -> None:
    """A job that was killed while it wrote its result leaves a file that would fail the same job, requeued."""
    from submitit import JobEnvironment

    result: Path = JobEnvironment().paths.result_pickle
    for path in (result, result.with_suffix(f"{result.suffix}.save_tmp")):
        path.unlink(missing_ok=True)
