"""Ray: each job is a detached actor, which a running cluster carries on without the process that submitted it."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from cnn_ablation.common.errors import ConfigError, Problem, UserError, as_typed
from cnn_ablation.config import free_keys
from cnn_ablation.config.schema import CONDUCT, setting
from cnn_ablation.launch.children import deaf_to_ctrl_c, without_main
from cnn_ablation.launch.engines import Engine, JobState
from cnn_ablation.launch.engines.ray_driver import AUTO, KEYS, LOCAL, work

_OLDEST = (2, 52)
"""The first in which a cluster asks for a token."""
_PATIENCE = 30.0  # seconds, with a question about jobs
_SECONDS_TO_LEAVE = 3.0  # a cluster whose head is gone is not left otherwise
_SILENCE = 120.0
"""Seconds without an answer after which jobs are lost: nodes end themselves a minute after their head."""


@dataclass(kw_only=True)
class Ray(Engine):
    """Ray, on this machine (`address=local`) or on a running cluster, of which this machine has to be a node.

    `resources`: further ones for each job, by the names that the cluster gave them. `namespace`: of the actors' names.
    `grows`: the cluster starts nodes when they are asked for, so that a job that fits none of those there are may wait.
    """

    cpus: int = setting(1, at_least=1, role=CONDUCT)
    address: str = setting(LOCAL, role=CONDUCT)
    resources: dict[str, float] = free_keys(role=CONDUCT)
    namespace: str = setting("cnn_ablation", role=CONDUCT)
    grows: bool = setting(False, role=CONDUCT)

    @property
    def goes_on(self) -> bool:
        """As every engine; a cluster that we started ends with us."""
        return not self.is_here and super().goes_on

    @property
    def is_here(self) -> bool:
        """As every engine."""
        return self.address == LOCAL

    def check(self) -> None:
        """As every engine, and that Ray is there."""
        super().check()
        if problems := [*self._problems()]:
            raise ConfigError(problems)
        _check_installed()

    def _problems(self) -> Iterator[Problem]:
        if self.address not in (LOCAL, AUTO) and not re.fullmatch(r"[\w.\-\[\]:]+:\d+", self.address):
            remedy = "run the command on a node of the cluster, with hydra.launcher.address=auto"
            yield Problem(
                "hydra.launcher.address",
                self.address,
                "local (this machine, for this study alone), auto (RAY_ADDRESS, or the cluster that this machine is a "
                "node of), HOST:PORT",
                remedy=remedy if "://" in self.address else None,
            )
        if not self.namespace.strip():
            yield Problem("hydra.launcher.namespace", "''", "a name")
        for name, amount in self.resources.items():
            if name in KEYS:
                key, unit = KEYS[name]
                remedy = f"hydra.launcher.{key}={as_typed(amount if unit == 1 else None)}"
                yield Problem(f"hydra.launcher.resources.{name}", amount, "names of further resources", remedy=remedy)
            elif isinstance(amount, bool) or not isinstance(amount, int | float) or not amount > 0:
                yield Problem(f"hydra.launcher.resources.{name}", amount, "a number above 0")

    def submit(self, batches: Sequence[Path], folder: Path) -> list[str]:
        """One actor for each batch, named after its path: a batch that still runs is not started twice."""
        wanted = self._wanted()
        if not self.grows and (missing := self._driver.ask("missing", wanted)):
            raise ConfigError([missing])
        for batch in batches:
            log = folder / f"{batch.stem}.log"
            self._driver.ask("start", str(batch), str(log), wanted, own_paths())
        return [str(batch) for batch in batches]

    def _wanted(self) -> dict[str, float]:
        """By Ray's names what each job asks for."""
        allocation = self.allocation
        named = {"CPU": allocation.cpus, "GPU": allocation.gpus, "memory": allocation.memory}
        return {name: amount for name, amount in {**named, **self.resources}.items() if amount}

    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        """As every engine; none while the cluster does not answer."""
        if self.is_here and "_driver" not in vars(self):  # of an earlier cluster of ours
            return dict.fromkeys(ids, JobState(is_over=True, reason="its Ray cluster has ended"))
        try:
            missing = self._driver.ask("missing", self._wanted())
            found = self._driver.ask("states", list(ids))
        except UserError:
            lost = self._driver.lost(_SILENCE)
            return dict.fromkeys(ids, JobState(is_over=True, reason=lost)) if lost else {}
        waits_for = f"{missing.key}={missing.value}; allowed: {missing.allowed}" if missing else ""
        return {
            job: JobState(is_over, is_running, reason if is_over or is_running else waits_for)
            for job, (is_over, is_running, reason) in found.items()
        }

    def cancel(self, ids: Sequence[str]) -> None:
        """As every engine: running jobs have a few seconds to leave."""
        self._driver.ask("cancel", list(ids))

    def cancel_all(self, folder: Path) -> None:
        """As every engine: its jobs are named after their batches."""
        self.cancel([str(path) for path in folder.glob("*.batch")])

    def close(self) -> None:
        """Leaves the cluster; one of our own ends."""
        if "_driver" in vars(self):
            self._driver.end()
            del self._driver

    @cached_property
    def _driver(self) -> Driver:
        return Driver(self.address, self.namespace)


class Driver:
    """The process that is connected to a cluster (`ray_driver`); another one takes its place when it ends.

    Raises:
        UserError: the cluster does not answer, refuses us, or has another version of Ray or Python.
    """

    def __init__(self, address: str, namespace: str):
        self.address, self.namespace = address, namespace
        self.last_answer = time.monotonic()
        self.has_ended = False
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.owed = 1
        """Answers that have not come yet."""
        with without_main(), deaf_to_ctrl_c():
            self.process = context.Process(target=work, args=(theirs, self.address, self.namespace), daemon=True)
            self.process.start()
        theirs.close()
        try:
            self._answer(timeout=None)
        except UserError as error:
            self.end()
            raise UserError(
                f"hydra.launcher.address={self.address}: cannot join this Ray cluster: {error}\n"
                "  remedy: run the command on a node of the cluster, with its versions of Python and Ray, and where it "
                "wants a token with RAY_AUTH_MODE=token and the token's file in RAY_AUTH_TOKEN_PATH"
            ) from error

    def ask(self, method: str, *arguments: Any) -> Any:
        """Calls a method of `ray_driver.Jobs`.

        Raises:
            UserError: it failed, or there is no answer.
        """
        if self.has_ended:
            if self.address == LOCAL:
                raise UserError("the Ray cluster of this study has ended")
            self._start()
            self.has_ended = False
        try:
            self.connection.send((method, arguments))
        except OSError:
            return self._answer(timeout=0)  # there is none: it has ended
        self.owed += 1
        return self._answer(timeout=_PATIENCE)

    def _answer(self, timeout: float | None) -> Any:
        """The last of the answers that are owed: who asked for the others was interrupted, or did not wait so long."""
        answer, error = None, ""
        try:
            while self.owed:
                if not self.connection.poll(timeout):
                    raise UserError(f"the Ray cluster has not answered for {timeout:g} seconds")
                answer, error = self.connection.recv()
                self.owed -= 1
        except (EOFError, OSError):
            self.end()
            raise UserError("the connection to the Ray cluster is lost") from None
        if error:
            raise UserError(error)
        self.last_answer = time.monotonic()
        return answer

    def lost(self, silence: float) -> str:
        """Why jobs are not to be waited for any more; empty while they are."""
        if self.address == LOCAL and self.has_ended:
            return "its Ray cluster has ended"
        seconds = time.monotonic() - self.last_answer
        return f"its Ray cluster has not answered for {seconds:.0f} seconds" if seconds > silence else ""

    def end(self) -> None:
        """Ends the process, which first ends a cluster of its own."""
        self.has_ended = True
        self.connection.close()
        self.process.join(_PATIENCE if self.address == LOCAL else _SECONDS_TO_LEAVE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _check_installed() -> None:
    found = _version() or ""
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < _OLDEST:
        wanted, there = ".".join(map(str, _OLDEST)), f"Ray {found} is installed" if found else "Ray is not installed"
        remedy = 'pip install "cnn_ablation[ray]", or pip install -e ".[ray]" where its code lies'
        allowed = f"launchers whose packages are there; this one needs Ray {wanted} or newer, {there}"
        raise ConfigError([Problem("hydra/launcher", "ray", allowed, remedy=remedy)])


def _version() -> str | None:
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        return None


def own_paths() -> list[str]:
    """Folders that modules are imported from here, besides those of the installation, which a node has of its own."""
    installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return [
        each
        for each in dict.fromkeys(map(os.path.abspath, sys.path))
        if not re.search(r"python\d+\.zip$", each)
        and not any(Path(each).is_relative_to(folder) for folder in installed)
    ]
