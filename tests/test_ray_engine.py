"""What can be asked of Ray, and what it says, without a cluster; jobs on a real one: tests/cluster/test_ray.py."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from cnn_ablation.app.composition import CONF_DIR
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.common.machine import Allocation
from cnn_ablation.config import default_of
from cnn_ablation.launch.engines import ENGINES, JobState, engine, ray_driver
from cnn_ablation.launch.engines import ray as ray_engine
from cnn_ablation.launch.engines.ray import Driver, Ray, own_paths


def is_installed(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr(ray_engine, "_version", lambda: version)


def test_the_file_names_every_key_with_its_default() -> None:
    told = yaml.safe_load((Path(CONF_DIR) / "hydra" / "launcher" / "ray.yaml").read_text())
    assert told.pop("_target_") == ENGINES["ray"]
    assert told == {item.name: default_of(item) for item in dataclasses.fields(Ray)}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"cpus": 0}, "hydra.launcher.cpus=0\n  allowed: at least 1"),
        ({"cpus": None}, "hydra.launcher.cpus=null\n  allowed: int, at least 1"),
        (
            {"address": "ray://head:10001"},
            "hydra.launcher.address=ray://head:10001\n  allowed: local (this machine, for this study alone), auto "
            "(RAY_ADDRESS, or the cluster that this machine is a node of), HOST:PORT\n"
            "  remedy: run the command on a node of the cluster, with hydra.launcher.address=auto",
        ),
        (
            {"address": "head"},
            "hydra.launcher.address=head\n  allowed: local (this machine, for this study alone), auto "
            "(RAY_ADDRESS, or the cluster that this machine is a node of), HOST:PORT",
        ),
        ({"namespace": " "}, "hydra.launcher.namespace=''\n  allowed: a name"),
        ({"resources": {"tpu": 0}}, "hydra.launcher.resources.tpu=0\n  allowed: a number above 0"),
        ({"resources": {"tpu": "two"}}, "hydra.launcher.resources.tpu=two\n  allowed: a number above 0"),
        ({"resources": {"CPU": 2}}, "hydra.launcher.resources.CPU=2\n  allowed: names of further resources"
         "\n  remedy: hydra.launcher.cpus=2"),
    ],
    ids=["no cpu", "cpus null", "client", "no port", "namespace", "none of it", "a word", "cpus among others"],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_one_message(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], expected: str
) -> None:
    is_installed(monkeypatch, "2.60.0")
    with pytest.raises(ConfigError) as refused:
        engine(ENGINES["ray"], settings)
    assert str(refused.value) == f"configuration error: {expected}"


@pytest.mark.parametrize(
    ("version", "there"),
    [(None, "Ray is not installed"), ("2.9.3", "Ray 2.9.3 is installed")],
    ids=["missing", "too old"],
)
def test_ray_that_is_not_there_is_one_message(monkeypatch: pytest.MonkeyPatch, version: str | None, there: str) -> None:
    is_installed(monkeypatch, version)
    with pytest.raises(ConfigError) as refused:
        engine(ENGINES["ray"], {})
    assert str(refused.value) == (
        "configuration error: hydra/launcher=ray\n"
        f"  allowed: launchers whose packages are there; this one needs Ray 2.52 or newer, {there}\n"
        '  remedy: pip install "cnn_ablation[ray]", or pip install -e ".[ray]" where its code lies'
    )


@pytest.mark.parametrize(
    ("settings", "goes_on", "is_here"),
    [
        ({}, False, True),
        ({"address": "auto"}, True, False),
        ({"address": "[::1]:6379", "on_detach": "cancel"}, False, False),
    ],
    ids=["local", "cluster", "cancel"],
)
def test_jobs_go_on_where_their_cluster_does(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], goes_on: bool, is_here: bool
) -> None:
    is_installed(monkeypatch, "2.60.0")
    made = engine(ENGINES["ray"], settings)
    assert (made.goes_on, made.is_here) == (goes_on, is_here)


def test_what_each_job_asks_for_by_rays_names(monkeypatch: pytest.MonkeyPatch) -> None:
    is_installed(monkeypatch, "2.60.0")
    made = Ray(cpus=4, gpus=1, memory_gb=1.5, resources={"highmem": 0.5})
    assert made._wanted() == {"CPU": 4, "GPU": 1, "memory": 1_500_000_000, "highmem": 0.5}
    assert made.allocation == Allocation(cpus=4, memory=1_500_000_000, gpus=1)
    assert Ray()._wanted() == {"CPU": 1}


def test_jobs_of_an_earlier_local_cluster_are_over() -> None:
    assert Ray().states(["/study/jobs/0/0.batch"]) == {
        "/study/jobs/0/0.batch": JobState(is_over=True, reason="its Ray cluster has ended")
    }


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ({"exit_code": 0, "said": "", "was_cancelled": False}, ""),
        ({"exit_code": -9, "said": "epoch 3", "was_cancelled": False}, "its process ended (signal SIGKILL)"),
        ({"exit_code": 1, "said": "ImportError: x", "was_cancelled": False},
         "its process ended (exit code 1): ImportError: x"),
        ({"exit_code": 2, "said": "", "was_cancelled": False}, "its process ended (exit code 2)"),
        ({"exit_code": -15, "said": "", "was_cancelled": True}, "cancelled"),
    ],
    ids=["well", "killed", "raised", "left", "cancelled"],
)  # fmt: skip
def test_how_a_process_ended_in_words(ended: dict[str, Any], reason: str) -> None:
    assert ray_driver.reason_of_ending(ended) == reason


# As Ray 2.60 says them.
_DIED = "The actor died unexpectedly before finishing this task.\n\tclass_name: Job\n\tname: /study/jobs/0/0.batch\n"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (_DIED + "The actor exited because exit_actor() is called.", ""),
        (_DIED + "The actor is dead because it was killed by `ray.kill`.", "cancelled"),
        (
            _DIED + "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit "
            "detail: Worker unexpectedly exits with a connection error code 2. End of file. There are some potential "
            "root causes. (1) The process is killed by SIGKILL by OOM killer due to high memory usage.",
            "its worker process died",
        ),
        (_DIED + "The actor died because its node has died. Node Id: 2f", "its node failed"),
        (
            "The actor died because of an error raised in its creation task, ray::Job.__init__()\n  File \"a.py\", "
            "line 1, in __init__\nFileNotFoundError: the node n1 does not see /study/jobs/0/0.batch",
            "FileNotFoundError: the node n1 does not see /study/jobs/0/0.batch",
        ),
        ("something new", "its actor died"),
    ],
    ids=["left", "killed", "worker", "node", "begin", "unknown"],
)  # fmt: skip
def test_why_an_actor_died_in_a_few_words(told: str, reason: str) -> None:
    assert ray_driver.reason_of_death(told) == reason


def test_nodes_are_told_where_our_modules_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not where those of this installation are: a node has its own."""
    monkeypatch.chdir(tmp_path)
    installed = [sysconfig.get_path("stdlib"), f"{sysconfig.get_path('purelib')}/ray/thirdparty"]
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "code"), *installed, "/usr/lib/python311.zip", "code"])
    assert own_paths() == [str(tmp_path), str(tmp_path / "code")]


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    with pytest.raises(ConnectionError, match=r"^127\.0\.0\.1:1 does not answer \(Connection refused\)$"):
        ray_driver._knock("127.0.0.1:1")


def test_a_driver_that_ends_before_it_answers_is_a_cluster_that_cannot_be_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_engine, "work", os._exit)
    with pytest.raises(ray_engine.UserError) as failed:
        Driver("auto", "cnn_ablation")
    assert str(failed.value).startswith(
        "hydra.launcher.address=auto: cannot join this Ray cluster: the connection to the Ray cluster is lost\n"
    )


_INTERRUPTED = """
import os, signal, threading, time
from pathlib import Path
from cnn_ablation.common.errors import UserError
from cnn_ablation.launch.engines.ray import Ray

def interrupt():
    while True:
        os.killpg(0, signal.SIGINT)
        time.sleep(0.01)

signal.signal(signal.SIGINT, lambda *_: None)
threading.Thread(target=interrupt, daemon=True).start()
try:
    Ray(address="127.0.0.9:1", grows=True).submit([Path("0.batch")], Path())
except UserError as error:
    print(error)
"""


def test_ctrl_c_does_not_reach_the_process_that_joins_a_cluster_while_it_imports() -> None:
    """It would leave a traceback of its own beside what the command says."""
    command = [sys.executable, "-c", _INTERRUPTED]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, start_new_session=True)
    assert said.stderr == ""
    assert "cannot join this Ray cluster: 127.0.0.9:1 does not answer" in said.stdout
