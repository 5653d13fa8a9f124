"""2x2 max pooling and a piecewise linear activation in one pass over bfloat16 maps, compiled from pooling.c.

The same bits as PyTorch's own two operations. Without a C compiler, or where a map has another form, those are used.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_SOURCE = Path(__file__).with_name("pooling.c")
_COMMAND = ("cc", "-std=c99", "-O3", "-march=native", "-shared", "-fPIC")
_WIDE = "-mprefer-vector-width=512"  # x86 compilers prefer half the register otherwise
_TIMEOUT_SECONDS = 60


class PooledActivation(nn.Module):
    """`activation(pool(x))`, computed in one pass where that can be done.

    Args:
        pool: 2x2 with stride 2.
        activation: one of `slope_of`'s, or None for none.
    """

    def __init__(self, pool: nn.Module, activation: nn.Module | None):
        super().__init__()
        self.pool, self.activation = pool, activation
        self.slope = slope_of(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps (batch, channels, height, width) -> (batch, channels, height // 2, width // 2)."""
        if self.slope is not None and _fits(inputs) and library():
            pooled: Tensor = _MaxPool.apply(inputs, self.slope)
            return pooled
        pooled = self.pool(inputs)
        return pooled if self.activation is None else self.activation(pooled)


def slope_of(activation: nn.Module | None) -> float | None:
    """What an activation multiplies negative values with; None for one that is not made of two straight lines."""
    if activation is None or type(activation) is nn.Identity:
        return 1.0
    if type(activation) is nn.ReLU:
        return 0.0
    if type(activation) is nn.LeakyReLU and 0 < activation.negative_slope < 1:
        return float(activation.negative_slope)
    return None


def _fits(inputs: Tensor) -> bool:
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == torch.bfloat16
        and inputs.dim() == 4
        and min(inputs.shape[2:]) >= 2
        and inputs.is_contiguous(memory_format=torch.channels_last)
    )


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, slope: float) -> Tensor:
        images, channels, height, width = inputs.shape
        shape = (images, channels, height // 2, width // 2)
        outputs = torch.empty(shape, dtype=inputs.dtype, memory_format=torch.channels_last)
        index = torch.empty(shape, dtype=torch.int16, memory_format=torch.channels_last)
        pointers = (inputs.data_ptr(), outputs.data_ptr(), index.data_ptr())
        _over_images(library().max_pool_forward, pointers, inputs.shape, slope)
        ctx.save_for_backward(outputs, index)
        ctx.shape, ctx.slope = inputs.shape, slope
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        outputs, index = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        in_gradient = torch.empty(ctx.shape, dtype=outputs.dtype, memory_format=torch.channels_last)
        pointers = (gradient.data_ptr(), outputs.data_ptr(), index.data_ptr(), in_gradient.data_ptr())
        _over_images(library().max_pool_backward, pointers, ctx.shape, ctx.slope)
        return in_gradient, None


def _over_images(function: Any, pointers: tuple[int, ...], shape: torch.Size, slope: float) -> None:
    """Calls a function of the library on the whole batch, shared by as many threads as PyTorch uses."""
    images, channels, height, width = shape
    threads = min(torch.get_num_threads(), images)

    def call(first: int, last: int) -> None:
        function(*pointers, first, last, height, width, channels, slope)

    if threads <= 1:
        call(0, images)
        return
    bounds = [images * part // threads for part in range(threads + 1)]
    list(_threads(threads).map(call, bounds, bounds[1:]))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="pooling")


@cache
def library() -> Any:
    """The compiled functions, or None where there is no C compiler for this processor.

    Compiled once per processor and version of the source; processes that do so at the same time leave the same file.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnn_ablation"
    wide = [_WIDE] if platform.machine() in ("x86_64", "AMD64") else []
    key = hashlib.sha256(_SOURCE.read_bytes() + repr((*_COMMAND, *wide)).encode() + _processor()).hexdigest()[:16]
    path = folder / f"pooling-{key}.so"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                built = Path(scratch) / path.name
                command = [*_COMMAND, *wide, str(_SOURCE), "-o", str(built)]
                subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_SECONDS)
                built.replace(path)
        return _declared(ctypes.CDLL(str(path)))
    except (OSError, subprocess.SubprocessError, AttributeError):
        return None


def _processor() -> bytes:
    """What `-march=native` depends on; a home folder may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor().encode()
    return repr([line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]).encode()


def _declared(compiled: ctypes.CDLL) -> ctypes.CDLL:
    for function, num_pointers in ((compiled.max_pool_forward, 3), (compiled.max_pool_backward, 4)):
        function.argtypes = [ctypes.c_void_p] * num_pointers + [ctypes.c_long] * 5 + [ctypes.c_float]
        function.restype = None
    return compiled
