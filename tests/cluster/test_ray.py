"""Ray's jobs on a real cluster: a head and two worker nodes of one CPU each, on loopback, with a token."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import ray_cluster
from batch_jobs import batch, is_done, started, told, until

from cnn_ablation.common.errors import ConfigError
from cnn_ablation.launch.engines import JobState
from cnn_ablation.launch.engines.ray import Ray

# Not imported here: Ray reads its environment, with the token, when it is.
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")]

WAITING, RUNNING, ENDED_WELL = JobState(is_over=False), JobState(False, is_running=True), JobState(is_over=True)


@dataclass
class Running:
    """A cluster that tests share; one that ends nodes starts others."""

    folder: Path
    cluster: ray_cluster.Cluster


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("cluster")
    with told(tmp_path_factory.mktemp("jobs")), pytest.MonkeyPatch.context() as patch:
        cluster = ray_cluster.start(folder)
        for name, value in cluster.environment().items():
            patch.setenv(name, value)
        try:
            yield Running(folder, cluster)
        finally:
            ray_cluster.stop(folder)


@pytest.fixture
def ray(running: Running) -> Iterator[Ray]:
    with closing(Ray(address="auto", poll_seconds=0.1)) as engine:
        yield engine


def submitted(engine: Ray, *batches: Path) -> list[str]:
    return engine.submit(batches, batches[0].parent / "logs")


def over(engine: Ray, ids: list[str]) -> list[JobState]:
    """The states of jobs once all are over."""
    until(lambda: all(state.is_over for state in engine.states(ids).values()))
    return list(engine.states(ids).values())


def test_a_job_waits_runs_and_ends_and_those_that_wait_come_next(ray: Ray, tmp_path: Path) -> None:
    batches = [batch(tmp_path, f"{number}", seconds=1) for number in range(3)]
    ids = submitted(ray, *batches)
    until(lambda: list(ray.states(ids).values()).count(RUNNING) == 2)
    assert list(ray.states(ids).values()).count(WAITING) == 1
    assert over(ray, ids) == [ENDED_WELL] * 3
    assert all(map(is_done, batches))
    assert (tmp_path / "logs" / "0.log").read_text() == f"carrying out {batches[0]}\n"


def test_a_job_is_given_what_it_asked_for_and_finds_our_modules(ray: Ray, tmp_path: Path) -> None:
    [only] = batches = [batch(tmp_path, "0")]
    assert over(ray, submitted(ray, *batches)) == [ENDED_WELL]
    found = started(only)
    assert found["environment"]["OMP_NUM_THREADS"] == "1"
    assert found["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert "PYTHONBREAKPOINT" not in found["environment"]
    assert set(sys.path) >= {each for each in found["path"] if not each.endswith(".zip")}


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"error": "no such net"}, "its process ended (exit code 1): ValueError: no such net"),
        ({"exit_code": 3}, "its process ended (exit code 3): carrying out {batch}"),
    ],
    ids=["raises", "leaves"],
)
def test_a_job_that_fails_says_why(ray: Ray, tmp_path: Path, order: dict[str, Any], reason: str) -> None:
    failing = batch(tmp_path, "0", **order)
    assert over(ray, submitted(ray, failing)) == [JobState(is_over=True, reason=reason.format(batch=failing))]


def test_a_job_whose_process_is_killed_says_so(ray: Ray, tmp_path: Path) -> None:
    long = batch(tmp_path, "0", seconds=60)
    ids = submitted(ray, long)
    os.kill(until(lambda: started(long))["pid"], signal.SIGKILL)
    assert over(ray, ids) == [JobState(is_over=True, reason="its process ended (signal SIGKILL)")]


def test_a_job_ends_with_the_worker_that_started_it(ray: Ray, running: Running, tmp_path: Path) -> None:
    long = batch(tmp_path, "0", seconds=60)
    ids = submitted(ray, long)
    process = until(lambda: started(long))["pid"]
    until(lambda: ray.states(ids)[ids[0]] == RUNNING)
    worker = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    assert over(ray, ids) == [JobState(is_over=True, reason="its worker process died")]
    until(lambda: process not in ray_cluster.processes(running.cluster.nodes))


def test_jobs_are_cancelled_whether_they_run_or_wait(ray: Ray, running: Running, tmp_path: Path) -> None:
    batches = [batch(tmp_path, f"{number}", seconds=60) for number in range(3)]
    ids = submitted(ray, *batches)
    until(lambda: sum(map(bool, map(started, batches))) == 2)
    ray.cancel(ids)
    assert over(ray, ids) == [JobState(is_over=True, reason="cancelled")] * 3
    begun = [started(each)["pid"] for each in batches if started(each)]
    until(lambda: set(begun).isdisjoint(ray_cluster.processes(running.cluster.nodes)))


def test_jobs_whose_names_nobody_wrote_down_are_found_by_their_folder(ray: Ray, tmp_path: Path) -> None:
    batches = [tmp_path / f"{number}.batch" for number in range(2)]
    for path in batches:
        batch(tmp_path, path.stem, seconds=60).rename(path)
    ids = submitted(ray, *batches)
    until(lambda: all(map(started, batches)))
    with closing(Ray(address="auto")) as another:
        another.cancel_all(tmp_path)
    assert over(ray, ids) == [JobState(is_over=True, reason="cancelled")] * 2


def test_jobs_of_a_node_that_fails_are_lost_and_others_go_on(ray: Ray, running: Running, tmp_path: Path) -> None:
    batches = [batch(tmp_path, f"{number}", until=str(tmp_path / "go")) for number in range(2)]
    ids = submitted(ray, *batches)
    until(lambda: all(map(started, batches)))
    lost = running.cluster.nodes[-1]
    [raylet] = ray_cluster.processes([lost], "raylet/raylet")
    is_lost = [each for each in batches if started(each)["pid"] in ray_cluster.processes([lost])]
    os.kill(raylet, signal.SIGKILL)
    try:
        until(lambda: any(state.is_over for state in ray.states(ids).values()))
        (tmp_path / "go").touch()
        states = dict(zip(batches, over(ray, ids), strict=True))
        assert states == {
            each: JobState(is_over=True, reason="its node failed") if each in is_lost else ENDED_WELL
            for each in batches
        }
        assert len(is_lost) == 1
    finally:
        os.kill(lost, signal.SIGTERM)
        ray_cluster.add_node(running.folder, running.cluster, cpus=1)


def test_a_job_that_a_node_has_no_memory_for_says_so(running: Running, tmp_path: Path) -> None:
    """A node that ends jobs as soon as a thousandth of its memory is in use."""
    options = {"cpus": 1, "RAY_memory_usage_threshold": "0.001"}
    node = ray_cluster.add_node(running.folder, running.cluster, '--resources={"small": 1}', **options)
    try:
        with closing(Ray(address="auto", resources={"small": 1})) as engine:
            assert over(engine, submitted(engine, batch(tmp_path, "0", seconds=60))) == [
                JobState(is_over=True, reason="out of memory")
            ]
    finally:
        os.kill(node, signal.SIGTERM)
        until(lambda: not ray_cluster.processes([node]))


def test_a_connection_that_is_lost_is_made_again(ray: Ray, tmp_path: Path) -> None:
    long = batch(tmp_path, "0", until=str(tmp_path / "go"))
    ids = submitted(ray, long)
    until(lambda: started(long))
    ray._driver.process.kill()
    assert ray.states(ids) == {}
    until(lambda: ray.states(ids) == {ids[0]: RUNNING})
    (tmp_path / "go").touch()
    assert over(ray, ids) == [ENDED_WELL]


def test_a_node_that_does_not_see_the_folder_is_named(ray: Ray, tmp_path: Path) -> None:
    absent = tmp_path / "elsewhere" / "0.json"
    [state] = over(ray, submitted(ray, absent, batch(tmp_path, "1"))[:1])
    assert state.reason == f"FileNotFoundError: the node {os.uname().nodename} does not see {absent}"


_SUBMIT = """
import os, signal, sys, time
from pathlib import Path
from cnn_ablation.launch.engines.ray import Ray
engine = Ray(address="auto")
batches = [Path(each) for each in sys.argv[2:]]
ids = engine.submit(batches, batches[0].parent / "logs")
while sum(state.is_running for state in engine.states(ids).values()) < int(sys.argv[1]):
    time.sleep(0.1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_jobs_go_on_when_the_submitting_process_is_killed_and_another_finds_them(ray: Ray, tmp_path: Path) -> None:
    """Also those that have not begun by then; nothing is started twice."""
    batches = [batch(tmp_path, f"{number}", until=str(tmp_path / "go")) for number in range(3)]
    killed = subprocess.run([sys.executable, "-c", _SUBMIT, "2", *map(str, batches)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    processes = [until(lambda each=each: started(each))["pid"] for each in batches[:2]]
    ids = submitted(ray, *batches)
    assert ids == list(map(str, batches))
    states = until(lambda: [*map(ray.states(ids).get, ids)][:2] == [RUNNING] * 2 and ray.states(ids))
    assert states[ids[2]] == WAITING
    (tmp_path / "go").touch()
    assert over(ray, ids) == [ENDED_WELL] * 3
    assert [started(each)["pid"] for each in batches[:2]] == processes
    assert is_done(batches[2])


def test_who_comes_back_late_is_told_how_jobs_ended(running: Running, tmp_path: Path) -> None:
    batches = [batch(tmp_path, "0", error="no such net"), batch(tmp_path, "1", seconds=2, exit_code=0)]
    subprocess.run([sys.executable, "-c", _SUBMIT, "1", *map(str, batches)], check=False, timeout=60)
    until(lambda: all(each.with_suffix(".ended").exists() for each in batches))
    with closing(Ray(address="auto")) as engine:
        states = over(engine, list(map(str, batches)))
    assert states == [JobState(True, reason="its process ended (exit code 1): ValueError: no such net"), ENDED_WELL]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpus": 3}, "hydra.launcher.cpus=3\n  allowed: at most 1, which is what a node has\n"),
        ({"gpus": 1}, "hydra.launcher.gpus=1\n  allowed: at most 0, which is what a node has\n"),
        ({"memory_gb": 5000.0}, "hydra.launcher.memory_gb=5000\n  allowed: at most "),
        ({"resources": {"tpu": 2}}, "hydra.launcher.resources.tpu=2\n  allowed: at most 0, which is what a node has"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_node_has_is_refused_at_once(
    running: Running, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with closing(Ray(address="auto", **settings)) as engine, pytest.raises(ConfigError) as refused:
        submitted(engine, batch(tmp_path, "0"))
    assert str(refused.value).startswith(f"configuration error: {message}")
    assert "hydra.launcher.grows=true" in str(refused.value)


def test_what_a_growing_cluster_lacks_is_waited_for(running: Running, tmp_path: Path) -> None:
    with closing(Ray(address="auto", cpus=3, grows=True)) as engine:
        ids = submitted(engine, batch(tmp_path, "0"))
        [state] = engine.states(ids).values()
        engine.cancel(ids)
        [ended] = over(engine, ids)
    assert state == JobState(False, reason="hydra.launcher.cpus=3; allowed: at most 1, which is what a node has")
    assert ended.reason == "cancelled"


@pytest.mark.parametrize("address", ["auto", "127.0.0.9:1"])
def test_a_cluster_that_is_not_there_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    code = (
        "import sys; from pathlib import Path; from cnn_ablation.common.errors import UserError\n"
        "from cnn_ablation.launch.engines.ray import Ray\n"
        f"try: Ray(address={address!r}).submit([Path('0.json')], Path())\n"
        "except UserError as error: print(error)"
    )
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert said.stdout.startswith(f"hydra.launcher.address={address}: cannot join this Ray cluster: ")
    assert len(said.stdout.splitlines()) == 2


def test_a_cluster_of_our_own_carries_out_jobs_and_ends_with_us(tmp_path: Path) -> None:
    with told(tmp_path / "jobs"), pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        code = (
            "import sys, time; from pathlib import Path\n"
            "from cnn_ablation.launch.engines.ray import Ray\n"
            "engine, batch = Ray(), Path(sys.argv[1])\n"
            "ids = engine.submit([batch], batch.parent)\n"
            "while not engine.states(ids)[ids[0]].is_over: time.sleep(0.1)\n"
            "print(engine.states(ids)[ids[0]]); engine.close()"
        )
        only = batch(tmp_path, "0")
        said = subprocess.run(
            [sys.executable, "-c", code, str(only)], capture_output=True, text=True, timeout=120, check=True
        )
    assert (said.stdout, said.stderr) == (f"{ENDED_WELL}\n", "")
    assert is_done(only)


def test_jobs_are_lost_with_the_head_of_their_cluster(
    ray: Ray, running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test: the cluster is gone then. Nodes without a head end their jobs themselves, a minute later."""
    monkeypatch.setattr("cnn_ablation.launch.engines.ray._PATIENCE", 1.0)
    monkeypatch.setattr("cnn_ablation.launch.engines.ray._SILENCE", 5.0)
    long = batch(tmp_path, "0", seconds=60)
    ids = submitted(ray, long)
    until(lambda: started(long))
    for process in ray_cluster.processes(running.cluster.nodes[:1]):
        os.kill(process, signal.SIGKILL)
    assert ray.states(ids) == {}
    [state] = until(lambda: ray.states(ids)).values()
    assert state.is_over
    assert re.fullmatch(r"its Ray cluster has not answered for \d+ seconds", state.reason)
