"""Calls of compiled functions on parts of a batch, one part a thread."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cnn_ablation.tasks.image_classification.compiled import library


def call(
    name: str, images: int, shared: Sequence[Tensor | float | None], *last: Any, own: Sequence[Tensor] = ()
) -> None:
    """Calls a compiled function on parts of a batch at the same time: `name(shared, own, first, last image, last)`.

    Args:
        name: of the function.
        images: of the batch.
        shared: tensors, handed over as the addresses of their values, and numbers; None is NULL.
        last: what the function takes in the end, as ctypes.
        own: tensors with a first axis of `parts_of(images)`, of which each part is given its own.
    """
    function, given = getattr(library(), name), [_as_argument(value) for value in shared]
    parts = parts_of(images)
    bounds = [ctypes.c_long(images * part // parts) for part in range(parts + 1)]

    def call_part(part: int) -> None:
        function(*given, *(_as_argument(tensor[part]) for tensor in own), bounds[part], bounds[part + 1], *last)

    if parts == 1:
        call_part(0)
    else:
        list(_threads(parts).map(call_part, range(parts)))


def parts_of(images: int) -> int:
    """Into how many parts a batch is cut: one per thread that PyTorch uses."""
    return max(1, min(torch.get_num_threads(), images))


def _as_argument(value: Tensor | float | None) -> ctypes.c_void_p | ctypes.c_float:
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_void_p(None if value is None else value.data_ptr())


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="kernels")
