"""Whether this machine can compile kernels of our own for its GPU."""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType

import torch

from cnn_ablation.common import progress
from cnn_ablation.common.errors import one_line
from cnn_ablation.tasks.image_classification import devices


def is_expected() -> bool:
    """Without trying it."""
    return importlib.util.find_spec("triton") is not None


@cache
def kernels() -> ModuleType | None:
    """`engine.fused`; None where PyTorch came without Triton, or where Triton finds no C compiler."""
    if not is_expected():
        return None
    try:
        from cnn_ablation.tasks.image_classification.engine import fused

        maps = torch.zeros(1, 1, 2, 2, device="cuda").contiguous(memory_format=torch.channels_last)
        fused.Pooled.apply(maps, None, 0.0)
        devices.synchronise(maps.device)
    except Exception as error:  # of a compiler, a driver, a library
        progress.warn_once(f"runs train more slowly: Triton cannot compile for this GPU ({one_line(error)})")
        return None
    return fused
