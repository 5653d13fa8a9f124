"""An extension for tests of lanes: in worker processes seeds train together on the CPU, as they do on a GPU.

Where they share a process, arms whose names say so wait for each other in their second epoch; then one may fail, end
the process, or stay there until the others have gone.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from cnn_ablation.common import lanes
from cnn_ablation.tasks.image_classification import engine, task

ARMS = 4
_all_there = threading.Barrier(ARMS)
_ended = threading.Semaphore(0)
_train_together, _computing_as = engine.train_together, task.computing_as


def _watched(config: Any, *given: Any, on_epoch: Callable[[int], None], **named: Any) -> Any:
    name = config.arm.name

    def after(epoch: int) -> None:
        assert not lanes.in_one() or torch.backends.cudnn.conv.fp32_precision == "ieee", "no arm that ends undoes it"
        assert not lanes.in_one() or logging.getLogger().level == logging.INFO
        if lanes.in_one() and epoch == 2 and "meets" in name:
            _all_there.wait(30)
            if "fails" in name:
                raise RuntimeError("CUDA out of memory")
            if "kills" in name:
                os.kill(os.getpid(), signal.SIGKILL)
        if lanes.in_one() and epoch == 2 and "stays" in name:
            assert all(_ended.acquire(timeout=30) for _ in range(ARMS - 1))
        on_epoch(epoch)

    return _train_together(config, *given, on_epoch=after, **named)


@contextmanager
def _counted(how: Any) -> Iterator[None]:
    with _computing_as(how):
        yield
    if lanes.in_one():
        _ended.release()


if multiprocessing.parent_process():
    task.computing_as = _counted
    engine.trains_together = lambda config, device: True
    engine.train_together = _watched
