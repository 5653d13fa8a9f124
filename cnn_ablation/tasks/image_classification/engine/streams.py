"""CUDA streams of the threads of a process: no two threads share one.

What a thread launches into a stream that another one is capturing would become part of that graph, and cuBLAS has one
piece of memory for each stream, which graphs that run at the same time must not share.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from cnn_ablation.common import lanes

MOST = 32  # PyTorch has so many of a kind on a device, and then hands out the first ones again

_mutex = threading.Lock()
_owners: dict[tuple[int, int], int] = {}
"""The thread that has a stream, by its device and what CUDA knows it by."""


class _Own(threading.local):
    def __init__(self) -> None:
        self.by_device: dict[int, list[torch.cuda.Stream]] = {}


_own = _Own()


def of_this_thread(device: torch.device, count: int) -> list[torch.cuda.Stream]:
    """The first `count` streams of this thread; where no others are left, some come twice.

    They are the same for every arm, because cuBLAS keeps memory for each stream that it has met.

    Raises:
        RuntimeError: other threads have them all.
    """
    known = _known(device)
    known += [_fresh(device) for _ in range(count - len(known))]
    return known[:count]


def _known(device: torch.device) -> list[torch.cuda.Stream]:
    """Those that this thread has."""
    return _own.by_device.setdefault(_number(device), [])


def _number(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _fresh(device: torch.device) -> torch.cuda.Stream:
    this_thread = threading.get_ident()
    with _mutex:
        for _ in range(MOST):
            stream = torch.cuda.Stream(device)
            if _owners.setdefault((_number(device), stream.cuda_stream), this_thread) == this_thread:
                return stream
    raise RuntimeError(f"other arms in this process have all {MOST} CUDA streams")


def room(device: torch.device) -> int:
    """For how many more threads with as many streams as this one."""
    return max(0, MOST // max(1, len(_known(device))) - 1)


def of_a_lane(device: torch.device) -> AbstractContextManager[Any]:
    """Within it what a lane launches goes into a stream of its own; PyTorch's current one stays anywhere else."""
    if device.type != "cuda" or not lanes.in_one():
        return nullcontext()
    return torch.cuda.stream(of_this_thread(device, 1)[0])
