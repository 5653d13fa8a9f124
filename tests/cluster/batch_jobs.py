"""Jobs that do as they are told, in place of those that train: engines are tried with them, in real processes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Python imports this module first in every process; it stands where the module that carries out batches does.
_CARRY_OUT = """
import sys, types

def carry_out(path):
    import json, os, time
    order, path = json.loads(open(path).read()), str(path)
    started = {"pid": os.getpid(), "cwd": os.getcwd(), "path": sys.path, "environment": dict(os.environ)}
    with open(path + ".started.part", "w") as file:
        json.dump(started, file)
    os.rename(path + ".started.part", path + ".started")
    print("carrying out", path, flush=True)
    time.sleep(order.get("seconds", 0))
    while not os.path.exists(order.get("until", "/")):
        time.sleep(0.05)
    if "error" in order:
        raise ValueError(order["error"])
    if "exit_code" in order:
        os._exit(order["exit_code"])
    open(path + ".done", "w").close()

batches = types.ModuleType("cnn_ablation.launch.batches")
batches.carry_out = carry_out
sys.modules[batches.__name__] = batches
"""


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Within it, jobs of engines do what their batches say."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_CARRY_OUT)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


def batch(folder: Path, name: str, **order: Any) -> Path:
    """A batch that sleeps for `seconds`, waits `until` a file is there, and ends well, raises `error`, or leaves with
    `exit_code`.
    """
    path = folder / f"{name}.json"
    path.write_text(json.dumps(order))
    return path


def started(path: Path) -> dict[str, Any]:
    """What a job found when it began; empty before."""
    found = Path(f"{path}.started")
    return dict(json.loads(found.read_text())) if found.exists() else {}


def is_done(path: Path) -> bool:
    """Whether a job has come to its end."""
    return Path(f"{path}.done").exists()


def until(is_true: Callable[[], Any], seconds: float = 50) -> Any:
    """What a question is answered by as soon as that is true."""
    end = time.monotonic() + seconds
    while not (answer := is_true()):
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.05)
    return answer
