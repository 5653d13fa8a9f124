"""CUDA streams of the threads of a process: no two threads share one.

What a thread launches into a stream that another one is capturing would become part of that graph, and cuBLAS has one
piece of memory for each stream, which graphs that run at the same time must not share.
"""

from __future__ import annotations

import threading

import torch

MOST = 32  # PyTorch has so many of a kind on a device, and then hands out the first ones again

_mutex = threading.Lock()
_owners: dict[tuple[torch.device, int], int] = {}
"""The thread that has a stream, by what CUDA knows it by."""
_own = threading.local()


def of_this_thread(device: torch.device, count: int) -> list[torch.cuda.Stream]:
    """The first `count` streams of this thread; where no others are left, some come twice.

    They are the same for every arm, because cuBLAS keeps memory for each stream that it has met.

    Raises:
        RuntimeError: other threads have them all.
    """
    known: list[torch.cuda.Stream] = _own.__dict__.setdefault(str(device), [])
    known += [_fresh(device) for _ in range(count - len(known))]
    return known[:count]


def _fresh(device: torch.device) -> torch.cuda.Stream:
    with _mutex:
        for _ in range(MOST):
            stream = torch.cuda.Stream(device)
            if _owners.setdefault((device, stream.cuda_stream), threading.get_ident()) == threading.get_ident():
                return stream
    raise RuntimeError(f"other arms in this process have all {MOST} CUDA streams")


def room(device: torch.device) -> int:
    """For how many more threads with as many streams as this one."""
    return max(0, MOST // max(1, len(_own.__dict__.get(str(device), ()))) - 1)
