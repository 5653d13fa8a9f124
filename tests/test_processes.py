"""Which processes are still there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn_ablation.common import processes
from cnn_ablation.common.processes import HOST_VARIABLE, is_alive, started


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_process_is_there_until_it_is_killed(child: subprocess.Popen[bytes]) -> None:
    began = started(child.pid)
    assert is_alive(child.pid, began) is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_alive(child.pid, began) is False  # although its number is taken still
    child.wait()
    assert is_alive(child.pid, began) is False


def test_another_process_of_the_same_number_is_another(child: subprocess.Popen[bytes]) -> None:
    assert is_alive(child.pid, f"{int(started(child.pid)) - 1}") is False


@pytest.mark.parametrize(("began", "has_proc"), [("", True), ("12", False)], ids=["not told", "hidden"])
def test_what_cannot_be_told_is_none(
    child: subprocess.Popen[bytes], began: str, has_proc: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Systems without /proc, or with other users' processes hidden."""
    if not has_proc:
        monkeypatch.setattr(processes, "_PROC", tmp_path)
    assert is_alive(child.pid, began) is None
    child.kill()
    child.wait()
    assert is_alive(child.pid, began) is False


def test_hosts_and_containers_are_places_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from cnn_ablation.common import processes; print(processes.place())"
    same = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert same == processes.place()
    monkeypatch.setenv(HOST_VARIABLE, "another/../host")
    assert processes.place() != same
    assert processes.folder_name() == f"another_.._host-{processes.place()}"
    monkeypatch.delenv(HOST_VARIABLE)
    monkeypatch.setattr(processes, "_system", lambda: "another boot, or another container")
    assert processes.place() != same
