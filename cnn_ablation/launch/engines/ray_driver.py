"""Ray's driver: the process that is connected to a cluster, and what it knows of our jobs there.

It is no process of a study's own: where the cluster's head fails, Ray ends the process that is connected to it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cnn_ablation.common.errors import Problem
from cnn_ablation.launch.children import exit_reason
from cnn_ablation.launch.engines import ray_job

LOCAL, AUTO = "local", "auto"
_OBJECT_STORE_BYTES = 80_000_000  # nothing of size is sent through it; Ray takes a third of the memory unasked
_PATIENCE = 5.0  # seconds, with a head or a job that has to say something
KEYS = {"CPU": ("cpus", 1), "GPU": ("gpus", 1), "memory": ("memory_gb", 10**9)}
"""Resources by Ray's names: the key that asks for each, and its unit."""


def work(connection: Connection, address: str, namespace: str) -> None:
    """The process: joins a cluster, and then answers questions, each a method of `Jobs` with its arguments.

    What it sends is (answer, error), the first time (None, error); it leaves when nobody asks any more.
    """
    os.setsid()  # Ctrl-C is not for us
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _say_nothing()
    try:
        _connect(address, namespace)
        jobs = Jobs(namespace)
    except Exception as error:
        connection.send((None, _first_line(error)))
        return
    connection.send((None, ""))
    with suppress(EOFError, OSError):
        while True:
            method, arguments = connection.recv()
            try:
                connection.send((getattr(jobs, method)(*arguments), ""))
            except Exception as error:  # what Ray raises differs from version to version
                connection.send((None, _first_line(error)))
    jobs.ray.shutdown()


def _say_nothing() -> None:
    """Ray tells of its cluster on our output, forty lines at once."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _connect(address: str, namespace: str) -> None:
    options: dict[str, Any] = {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:
        options = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        os.environ.setdefault("RAY_worker_niceness", "0")  # not below all else of this machine: times are measured
        # Ray listens on all interfaces: nobody else is to start anything through it.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    else:
        _knock(os.environ.get("RAY_ADDRESS", "") if address == AUTO else address)
    import ray  # which reads the environment

    ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level=logging.ERROR, **options)


def _knock(address: str) -> None:
    """Ray tries for minutes where nobody listens."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
        except OSError as error:
            raise ConnectionError(f"{address} does not answer ({error.strerror or error})") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class Jobs:
    """Our jobs on the cluster that this process is connected to, whoever submitted them."""

    def __init__(self, namespace: str):
        import ray
        from ray import cloudpickle

        self.ray, self.namespace = ray, namespace
        self.handles: dict[str, Any] = {}
        self.questions: dict[str, Any] = {}
        """Answers that a job gives as soon as it runs."""
        self.have_run: set[str] = set()
        self.were_cancelled: set[str] = set()
        self.reasons: dict[str, str] = {}
        """Of those that are over."""
        cloudpickle.register_pickle_by_value(ray_job)
        self.kind = ray.remote(ray_job.Job)

    def missing(self, wanted: Mapping[str, float]) -> Problem | None:
        """What no node has of the resources that a job asks for, by their names in Ray."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            return None
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in wanted}
        name = next((name for name in wanted if most[name] < wanted[name]), "CPU")
        key, unit = KEYS.get(name, (f"resources.{name}", 1))
        has = "" if most[name] >= wanted[name] else f"at most {most[name] / unit:g}, which is what a node has"
        return Problem(
            f"hydra.launcher.{key}",
            f"{wanted[name] / unit:g}",
            has or "what a node has beside the rest that a job asks for",
            remedy="ask for less, or set hydra.launcher.grows=true where the cluster adds nodes by itself",
        )

    def start(self, batch: str, log: str, wanted: Mapping[str, float], paths: Sequence[str]) -> None:
        """An actor that carries out a batch, unless there is one; it outlives us where its cluster does."""
        ray_job.ending(Path(batch)).unlink(missing_ok=True)
        self.reasons.pop(batch, None)
        options = {
            "name": batch,
            "namespace": self.namespace,
            "get_if_exists": True,
            "lifetime": "detached",
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 3,  # one call waits for the job's process, one answers, one cancels
            "num_cpus": wanted.get("CPU", 0),
            "num_gpus": wanted.get("GPU", 0),
            "memory": wanted.get("memory"),
            "resources": {name: amount for name, amount in wanted.items() if name not in KEYS},
        }
        actor = self.kind.options(**options)
        self.handles[batch] = actor.remote(batch, log, paths, hides_gpus=not wanted.get("GPU"))

    def states(self, jobs: Sequence[str]) -> dict[str, tuple[bool, bool, str]]:
        """Of each: whether it is over, whether it runs, and why it did not end well."""
        there = self._there()
        self._ask([each for each in jobs if each in there])
        return {
            each: (False, each in self.have_run, "") if each in there else (True, False, self._reason(each))
            for each in jobs
        }

    def _there(self) -> set[str]:
        return set(self.ray.util.list_named_actors())

    def _ask(self, jobs: Sequence[str]) -> None:
        """Finds out which of those that the cluster knows have begun."""
        for job in jobs:
            if job not in self.have_run and job not in self.questions and (handle := self._handle(job)):
                self.questions[job] = handle.answer.remote()
        asked = {answer: job for job, answer in self.questions.items()}
        answers = self.ray.wait(list(asked), num_returns=len(asked), timeout=0.1)[0] if asked else []
        for answer in answers:
            with suppress(self.ray.exceptions.RayError):  # it is gone: the next look finds it so
                self.ray.get(answer)
                self.have_run.add(asked[answer])
            del self.questions[asked[answer]]

    def _handle(self, job: str) -> Any:
        if job not in self.handles:
            with suppress(ValueError):  # it left meanwhile
                self.handles[job] = self.ray.get_actor(job, namespace=self.namespace)
        return self.handles.get(job)

    def _reason(self, job: str) -> str:
        if job not in self.reasons:
            self.reasons[job] = self._reason_found(job)
        return self.reasons[job]

    def _reason_found(self, job: str) -> str:
        """Why a job that is gone did not end well; empty where it did."""
        with suppress(OSError, ValueError):
            return reason_of_ending(json.loads(ray_job.ending(Path(job)).read_text()))
        if job in self.were_cancelled:
            return "cancelled"
        if job not in self.handles:
            return "its actor is gone from the cluster"
        try:
            self.ray.get(self.handles[job].answer.remote(), timeout=_PATIENCE)
        except self.ray.exceptions.RayError as error:
            return reason_of_death(str(error))
        return ""

    def cancel(self, jobs: Sequence[str]) -> None:
        """Running ones are asked, others are ended, and so are those that do not leave."""
        there = self._there()
        left = {job for job in jobs if job in there and self._handle(job)}
        self.were_cancelled |= left
        self._ask([*left])
        for job in left & self.have_run:
            self.handles[job].cancel.remote()
        self._kill(left - self.have_run)
        left &= self.have_run
        end = time.monotonic() + ray_job.SECONDS_TO_LEAVE + 1
        while left and time.monotonic() < end:
            time.sleep(0.1)
            left &= self._there()
        self._kill(left)

    def _kill(self, jobs: set[str]) -> None:
        for job in jobs:
            self.ray.kill(self.handles[job])


def reason_of_ending(ended: Mapping[str, Any]) -> str:
    """In words what `ray_job.ending` says of a job's process; empty where it ended well."""
    if ended["was_cancelled"]:
        return "cancelled"
    if not ended["exit_code"]:
        return ""
    said = f": {ended['said']}" if ended["exit_code"] > 0 and ended["said"] else ""
    return f"its process ended ({exit_reason(ended['exit_code'])}){said}"


_DEATHS = {
    "low on memory": "out of memory",
    "node has died": "its node failed",
    "node was terminated": "its node failed",
    "ray.kill": "cancelled",
    "worker process has died": "its worker process died",
}
"""What Ray says of an actor that died, the first that fits."""


def reason_of_death(told: str) -> str:
    """What Ray tells of an actor that died, in a few words; empty where it left by itself."""
    if "exit_actor" in told:
        return ""
    for part, reason in _DEATHS.items():
        if part in told:
            return reason
    raised = re.findall(r"^\s*(\w+(?:Error|Exception): .*)$", told, flags=re.MULTILINE)
    return raised[-1].strip() if raised else "its actor died"
