"""Jobs of a study that end as they should not: rows say why, the exit code is 1, and the same command goes on."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import kills
import pandas as pd
import pytest
import ray_cluster
from clusters import ray_running, slurm_folder
from kills import RAY, SLURM, Study

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("kills")]

OUT_OF_MEMORY = ("out of memory", "failed (signal SIGKILL)", "its process ended (signal SIGKILL)")
"""By control groups of the job, by slurmstepd that counts, and of a worker that the kernel has chosen of its job."""


def until(is_true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.1)


def went_on(study: Study, *, may_end_again: bool = False) -> int:
    """Gives the command again; how many runs were begun for it."""
    before = len(study.notes())
    code, said = study.carried_out()
    assert code == 0, said
    assert study.table()["n"].tolist() == [study.seeds] * study.arms
    kills.check_trained_once(study, may_end_again=may_end_again)
    return sum(note.word == "begins" for note in study.notes()[before:])


def test_out_of_time(slurm_folder: Path, tmp_path: Path) -> None:
    """Fourteen runs of 15 s, two at a time, in a minute, which Slurm may let grow to one and a half."""
    one = ["hydra.launcher.jobs=1", "hydra.launcher.partition=short", "hydra.launcher.minutes=1"]
    study = Study(tmp_path / "it", [*SLURM, *one], ["settings.seconds=15"], arms=7, seeds=2)
    code, said = study.carried_out(within=240)
    assert code == 1, said
    errors = study.errors()
    assert set(errors) == {"left no record: out of time"}
    assert 2 <= len(errors) <= 8
    assert f"{len(errors)} of 14 runs failed" in said
    assert went_on(study) == len(errors)


def test_out_of_memory(slurm_folder: Path, tmp_path: Path) -> None:
    study = Study(tmp_path / "it", [*SLURM, "hydra.launcher.jobs=1", "hydra.launcher.memory_gb=1"], arms=3, seeds=2)
    (study.folder / "eats-1.0").write_text("1500")
    code, said = study.carried_out(within=240)
    assert code == 1, said
    errors = study.errors()
    assert 2 <= len(errors) < 6
    assert all(any(reason in error for reason in OUT_OF_MEMORY) for error in errors), errors
    (study.folder / "eats-1.0").unlink()
    assert went_on(study) == len(errors)


def test_a_limit_of_the_shell(slurm_folder: Path, tmp_path: Path) -> None:
    """Where nobody enforces what a job may use, `ulimit` does: Python then says so itself."""
    limited = [*SLURM, "hydra.launcher.jobs=1", "hydra.launcher.setup=['ulimit -v 8000000']"]
    study = Study(tmp_path / "it", limited, arms=3, seeds=2)
    (study.folder / "eats-1.0").write_text("9000")
    code, said = study.carried_out()
    assert code == 1, said
    assert study.errors() == ["MemoryError: "] * 2 or study.errors() == ["MemoryError"] * 2
    (study.folder / "eats-1.0").unlink()
    assert went_on(study) == 2


def test_a_node_of_ray_without_memory(ray_running: tuple[Path, ray_cluster.Cluster], tmp_path: Path) -> None:
    """A node that ends jobs as soon as a thousandth of its memory is in use."""
    folder, cluster = ray_running
    options = {"cpus": 2, "RAY_memory_usage_threshold": "0.001"}
    node = ray_cluster.add_node(folder, cluster, '--resources={"small": 1}', **options)
    study = Study(tmp_path / "it", [*RAY, "hydra.launcher.jobs=1"], arms=3, seeds=2)
    study.launcher = [*study.launcher, "+hydra.launcher.resources.small=1"]
    try:
        code, said = study.carried_out()
    finally:
        os.kill(node, 15)
        until(lambda: not ray_cluster.processes([node]))
    assert code == 1, said
    assert set(study.errors()) == {"left no record: out of memory"}
    study.launcher = study.launcher[:-1]
    assert went_on(study) == 6


def test_cancelled_while_it_waits(slurm_folder: Path, tmp_path: Path) -> None:
    """Nothing inside such a job can leave a trace."""
    held = [*SLURM, "hydra.launcher.jobs=2", "hydra.launcher.array_parallelism=1"]
    study = Study(tmp_path / "it", held, ["settings.seconds=4"], arms=4, seeds=1)
    process = study.start(study.folder / "said-first.txt")
    waiting: list[str] = []

    def found() -> list[str]:
        command = ["squeue", "--noheader", "--array", "--states=PENDING", "--format=%i"]
        waiting[:] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return waiting

    until(lambda: study.notes() and found())
    subprocess.run(["scancel", *waiting], check=True)
    assert process.wait(120) == 1
    assert len(study.errors()) == 2
    assert set(study.errors()) <= {"left no record: cancelled before it began", "left no record: cancelled"}
    assert went_on(study) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("engine", ["slurm", "ray"])
def test_a_full_disk(engine: str, request: pytest.FixtureRequest, small_disk: Path) -> None:
    """It fills up while runs train; once there is room again the same command goes on."""
    request.getfixturevalue("slurm_folder" if engine == "slurm" else "ray_running")
    study = Study(small_disk / "it", SLURM if engine == "slurm" else RAY, arms=6, seeds=2)
    process = study.start(study.folder.parent.parent / "said.txt")
    until(lambda: sum(note.word == "ends" for note in study.notes()) >= 3)
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    code, said = process.wait(180), (small_disk.parent / "said.txt").read_text()
    assert code in (1, 2), said
    assert "No space left on device" in said
    assert "Traceback" not in said
    finished = len(study.kept())
    (small_disk / "filler").unlink()
    assert went_on(study, may_end_again=True) <= 12 - finished


def test_the_command_is_killed_while_sbatch_submits(
    slurm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm has jobs then that no file tells of; they are not left to be found by chance."""
    own = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "sbatch"
    script.write_text(f'#!/bin/sh\n{own} "$@"\n[ -e {tmp_path}/done ] || {{ touch {tmp_path}/done; kill -9 $PPID; }}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    study = Study(tmp_path / "it", SLURM, chosen=False, arms=10, seeds=2)
    assert study.start(tmp_path / "said").wait(60) == -9
    code, said = study.carried_out()
    assert code == 0, said
    left = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout
    assert left == "", said
    assert len(study.folders) == 1
    assert kills.check_trained_once(study)["ended"] == 20
    assert not pd.read_csv(study.folders[0] / "runs.csv")["reused"].any()
