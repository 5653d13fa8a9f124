"""2x2 max pooling and a piecewise linear activation in one pass, compiled from kernels/pooling.c.

The same bits as PyTorch's own two operations. Without a C compiler, or where a map has another form, those are used.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from cnn_ablation.tasks.image_classification.compiled import library
from cnn_ablation.tasks.image_classification.engine import gpu
from cnn_ablation.tasks.image_classification.engine.calls import call

_INDICES = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
"""Types of values that kernels/pooling.c takes -> type of the places that it keeps."""


class _Size(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("height", "width", "channels")]


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
        if self.slope is not None and inputs.is_cuda and (found := pooled_on_gpu(inputs, None, self.slope)) is not None:
            return found
        if self.slope is not None and _fits(inputs) and library():
            pooled: Tensor = _MaxPool.apply(inputs, self.slope)
            return pooled
        pooled = self.pool(inputs)
        return pooled if self.activation is None else self.activation(pooled)


def pooled_on_gpu(maps: Tensor, bias: Tensor | None, slope: float) -> Tensor | None:
    """`activation(pool(maps + bias))` by one kernel of our own; None where there is none for these maps."""
    fused = gpu.kernels()
    if fused is None or not fused.can_pool(maps):
        return None
    pooled: Tensor = fused.Pooled.apply(maps, None if bias is None else bias.to(maps.dtype), slope)
    return pooled


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
        and inputs.dtype in _INDICES
        and inputs.dim() == 4
        and min(inputs.shape[2:]) >= 2
        and inputs.is_contiguous(memory_format=torch.channels_last)
    )


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, slope: float) -> Tensor:
        """Maps (batch, channels, height, width) -> (batch, channels, height // 2, width // 2)."""
        images, channels, height, width = inputs.shape
        shape = (images, channels, height // 2, width // 2)
        outputs = torch.empty(shape, dtype=inputs.dtype, memory_format=torch.channels_last)
        index = torch.empty(shape, dtype=_INDICES[inputs.dtype], memory_format=torch.channels_last)
        _call("max_pool_forward", inputs.shape, slope, inputs, outputs, index)
        ctx.save_for_backward(outputs, index)
        ctx.shape, ctx.slope = inputs.shape, slope
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        outputs, index = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        in_gradient = torch.empty(ctx.shape, dtype=outputs.dtype, memory_format=torch.channels_last)
        _call("max_pool_backward", ctx.shape, ctx.slope, gradient, outputs, index, in_gradient)
        return in_gradient, None


def _call(name: str, shape: torch.Size, slope: float, first: Tensor, *others: Tensor) -> None:
    """Calls the function for the type of `first`; `shape` is that of the maps before pooling."""
    images, channels, height, width = shape
    size = ctypes.byref(_Size(height, width, channels))
    function = f"{name}_{str(first.dtype).removeprefix('torch.')}"
    call(function, images, [first, *others], size, ctypes.c_float(slope))
