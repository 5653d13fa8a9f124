"""A Slurm and a Ray cluster of a test module, which its processes find by their environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import ray_cluster
import slurm


@pytest.fixture(scope="module")
def slurm_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if slurm.missing() or os.geteuid() != 0:
        pytest.skip("needs Debian's Slurm and root")
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in slurm.start(folder).items():
            patched.setenv(name, value)
        yield folder
        slurm.stop(folder)


@pytest.fixture(scope="module")
def ray_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ray_cluster.Cluster]]:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patched:
        cluster = ray_cluster.start(folder, cpus=2)
        for name, value in cluster.environment().items():
            patched.setenv(name, value)
        try:
            yield folder, cluster
        finally:
            ray_cluster.stop(folder)
