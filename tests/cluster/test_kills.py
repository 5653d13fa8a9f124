"""Kills at random moments, and other ends of jobs, while a study of 50 runs trains on a real Slurm and a real Ray.

    pytest -n 0 -m cluster tests/cluster/test_kills.py -s [-k slurm]

What falls when is drawn with the seed in CNN_ABLATION_KILLS, or a new one, which is printed.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from threading import Thread

import kills
import pytest
import ray_cluster
import slurm
from clusters import ray_running, slurm_folder
from kills import FRONT_END, RAY, SLURM, Study

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("kills")]

NUM_KILLS = 20
SEED = int(os.environ.get("CNN_ABLATION_KILLS") or secrets.randbelow(10**6))
REASONS = re.compile(
    r"left no record: ((cancelled( by \w+| before it began)?|failed \((exit code|signal) \w+\)|its node failed"
    r"|its worker process died|Slurm no longer knows it"
    r"|its (process|job) ended( \((exit code|signal) \w+\))?|out of memory|out of time)(; )?)+"
)


def say(line: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {line}", flush=True)


class SlurmKills:
    """What can be killed of a Slurm and its jobs."""

    def __init__(self, folder: Path, chance: Random):
        self.folder, self.chance = folder, chance
        self.down: dict[str, float] = {}
        self.kinds: Mapping[str, Callable[[], str]] = {
            "SIGKILL of a job": lambda: kills.kill_one(self._of_jobs("submitit.core._submit"), chance),
            "SIGKILL of a worker": lambda: kills.kill_one(kills.workers_of(self._of_jobs("forkserver")), chance),
            "SIGKILL of a slurmd": self._kill_node,
            "scancel of a job that waits": lambda: self._told("scancel", "PENDING"),
            "scancel of a job that runs": lambda: self._told("scancel", "RUNNING"),
            "scontrol requeue": lambda: self._told("scontrol requeue", "RUNNING"),
        }

    def _of_jobs(self, command: str) -> list[int]:
        return kills.processes(lambda process: process in slurm._of_jobs(self.folder), command)

    def _told(self, command: str, state: str) -> str:
        jobs = self._squeue(f"--states={state}")
        if not jobs:
            return ""
        job = self.chance.choice(jobs)
        done = subprocess.run([*command.split(), job], capture_output=True, text=True, check=False)
        return f"job {job}" if done.returncode == 0 else ""

    def _kill_node(self) -> str:
        node, seconds = self.chance.choice(["n1", "n2"]), self.chance.choice([0.0, 2.0, 14.0])
        if node in self.down:
            return ""
        slurm.kill(self.folder, node)
        self.down[node] = time.monotonic() + seconds
        return f"{node}, for {seconds:.0f} s"  # after 10 s without it Slurm gives its jobs up

    def mend(self, *, now: bool) -> None:
        for node in [node for node, due in self.down.items() if now or time.monotonic() >= due]:
            del self.down[node]
            slurm.start_node(self.folder, node)

    def _squeue(self, *flags: str) -> list[str]:
        command = ["squeue", "--noheader", "--array", "--format=%i", *flags]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()

    def jobs(self) -> list[str]:
        return [*self._squeue(), *map(str, self._of_jobs("python"))]


class RayKills:
    """What can be killed of a Ray cluster and its jobs."""

    def __init__(self, folder: Path, cluster: ray_cluster.Cluster, chance: Random):
        self.folder, self.cluster, self.chance = folder, cluster, chance
        self.starting = Thread()
        """Of a node in place of one that was killed."""
        self.kinds: Mapping[str, Callable[[], str]] = {
            "SIGKILL of a job": lambda: kills.kill_one(self._of_jobs("job_process"), chance),
            "SIGKILL of a worker": lambda: kills.kill_one(kills.workers_of(self._of_jobs("forkserver")), chance),
            "SIGKILL of an actor": lambda: kills.kill_one(self._of_jobs("^ray::Job"), chance),
            "SIGKILL of a raylet": self._kill_node,
        }

    def _of_jobs(self, command: str) -> list[int]:
        there = set(ray_cluster.processes(self.cluster.nodes))
        return kills.processes(there.__contains__, command)

    def _kill_node(self) -> str:
        alive = [node for node in self.cluster.nodes[1:] if ray_cluster.processes([node], "raylet/raylet")]
        if self.starting.is_alive() or len(alive) < 2:
            return ""
        node = self.chance.choice(alive)
        [raylet] = ray_cluster.processes([node], "raylet/raylet")
        os.kill(raylet, signal.SIGKILL)
        another = {"args": (self.folder, self.cluster), "kwargs": {"cpus": 2}}
        self.starting = Thread(target=ray_cluster.add_node, **another)
        self.starting.start()
        return f"of node {self.cluster.nodes.index(node)}"

    def mend(self, *, now: bool) -> None:
        if now and self.starting.ident:
            self.starting.join()

    def jobs(self) -> list[str]:
        return [*map(str, self._of_jobs("job_process|forkserver|^ray::Job"))]


@pytest.fixture(params=["slurm", "ray"])
def fallible(request: pytest.FixtureRequest) -> tuple[list[str], SlurmKills | RayKills, Random]:
    """An engine: how it is chosen, and what can be killed of it."""
    chance = Random(SEED)
    if request.param == "slurm":
        return SLURM, SlurmKills(request.getfixturevalue("slurm_folder"), chance), chance
    return RAY, RayKills(*request.getfixturevalue("ray_running"), chance), chance


def test_random_kills(fallible: tuple[list[str], SlurmKills | RayKills, Random], tmp_path: Path) -> None:
    """Twenty on two studies of 50 runs; the command of one names its folder, that of the other finds it again."""
    launcher, engine, chance = fallible
    kinds = [*engine.kinds, *FRONT_END]
    to_come = [kinds[number % len(kinds)] for number in range(NUM_KILLS)]
    chance.shuffle(to_come)
    print(f"\nCNN_ABLATION_KILLS={SEED}")
    half = NUM_KILLS // 2
    for chosen, part in ((True, to_come[:half]), (False, to_come[half:])):
        study = Study(tmp_path / f"chosen-{chosen}", launcher, chosen=chosen)
        story = kills.endure(study, engine, part, chance, say)
        say(f"complete: {story}")
        assert not part, "the study was complete before all kills had fallen"
        assert len(story.struck) == half
        assert all(REASONS.fullmatch(error) for error in story.errors), story.errors
        say(f"{kills.check_complete(study, engine)}")
