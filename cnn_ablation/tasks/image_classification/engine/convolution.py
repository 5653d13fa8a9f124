"""Convolutions of float32 maps on a CPU, compiled from kernels/: Winograd's for 3x3 kernels, else direct ones.

The same function as PyTorch's up to rounding. Without a C compiler, or where a layer has another form, PyTorch's runs.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from cnn_ablation.tasks.image_classification.compiled import lanes, library
from cnn_ablation.tasks.image_classification.engine import gpu
from cnn_ablation.tasks.image_classification.engine.calls import call, parts_of
from cnn_ablation.tasks.image_classification.engine.pooling import PooledActivation, pooled_on_gpu

_GRAIN = 8
"""What numbers of channels and filters are multiples of: for Winograd always, for the direct way with 8 lanes; of 16
lanes a vector need not be whole."""
_EDGE, _OUT_EDGE = 6, 4  # of Winograd's tiles

_COLOURS = 3


_PROCESSORS = ("AVX2", "AVX512")
"""What `torch.backends.cpu.get_cpu_capability` says where this was measured to be faster than PyTorch's own."""


class Shape(ctypes.Structure):
    """Sizes of one convolution, as kernels/vectors.h has them."""

    height: int
    width: int
    channels: int
    kernel_height: int
    kernel_width: int
    filters: int
    padding: int
    _fields_ = [
        (name, ctypes.c_long)
        for name in ("height", "width", "channels", "kernel_height", "kernel_width", "filters", "padding")
    ]

    @property
    def out_height(self) -> int:
        return self.height + 2 * self.padding - self.kernel_height + 1

    @property
    def out_width(self) -> int:
        return self.width + 2 * self.padding - self.kernel_width + 1


class Convolution(nn.Module):
    """A convolution with stride 1 and the pooling after it, computed by compiled code where that can be done.

    Args:
        convolution: whose weights are used; it runs itself where compiled code cannot.
        pooled: pooling and activation of its outputs, None for none.
    """

    def __init__(self, convolution: nn.Conv2d, pooled: PooledActivation | None = None):
        super().__init__()
        self.convolution, self.pooled = convolution, pooled

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps (batch, channels, height, width) -> (batch, filters, out_height, out_width), halved where pooled."""
        layer, pooled = self.convolution, self.pooled
        if inputs.is_cuda and layer.bias is not None and (found := self._on_gpu(inputs, layer.bias)) is not None:
            return found
        padding = int(layer.padding[0])
        shape = _shape(inputs, layer.weight, padding) if _can_be_compiled(inputs) else None
        if shape is None or not (winograd_pays(shape) or direct_pays(shape)):
            outputs: Tensor = layer(inputs)
            return pooled(outputs) if pooled else outputs
        slope = pooled.slope if pooled and min(shape.out_height, shape.out_width) >= 2 else None
        arguments = inputs, layer.weight, layer.bias, padding
        if winograd_pays(shape):
            outputs = Winograd.apply(*arguments, slope)
        elif slope is not None and not inputs.requires_grad:
            outputs = FirstPooled.apply(*arguments, slope)
        else:
            outputs, slope = Direct.apply(*arguments), None
        return pooled(outputs) if pooled and slope is None else outputs

    def _on_gpu(self, inputs: Tensor, bias: Tensor) -> Tensor | None:
        """By PyTorch's convolution and kernels of our own for the rest; None where there are none for these maps."""
        fused = gpu.kernels()
        if fused is None:
            return None
        layer, pooled = self.convolution, self.pooled
        maps: Tensor = F.conv2d(inputs, layer.weight, None, padding=layer.padding)
        bias, outputs = bias.to(maps.dtype), None
        if pooled and pooled.slope is not None:
            outputs = pooled_on_gpu(maps, bias, pooled.slope)
        if outputs is None:
            maps = fused.Biased.apply(maps, bias) if fused.can_compute(maps) else maps + bias.view(1, -1, 1, 1)
            outputs = pooled(maps) if pooled else maps
        return outputs


def is_computable(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer has a form that kernels/ knows."""
    return (
        type(module) is nn.Conv2d
        and module.stride == (1, 1)
        and module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and module.padding in [(padding, padding) for padding in range(module.kernel_size[0])]
        and (lanes() > _GRAIN or module.out_channels % _GRAIN == 0)
    )


def winograd_pays(shape: Shape) -> bool:
    """Whether Winograd's way can be gone, and needs at most half the multiplications of the direct one."""
    if (shape.kernel_height, shape.kernel_width) != (3, 3) or shape.channels % _GRAIN or shape.filters % _GRAIN:
        return False
    tiles = math.ceil(shape.out_height / _OUT_EDGE) * math.ceil(shape.out_width / _OUT_EDGE)
    return 2 * tiles * _EDGE**2 <= 9 * shape.out_height * shape.out_width


def direct_pays(shape: Shape) -> bool:
    """Whether a row of outputs is long enough to fill the processor's registers."""
    return shape.out_width >= _GRAIN


def _can_be_compiled(inputs: Tensor) -> bool:
    return bool(
        inputs.device.type == "cpu"
        and inputs.dtype == torch.float32
        and inputs.dim() == 4
        and len(inputs)
        and inputs.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.cpu.get_cpu_capability() in _PROCESSORS
        and library()
    )


def _shape(inputs: Tensor, weight: Tensor, padding: int) -> Shape:
    _, channels, height, width = inputs.shape
    filters, _, kernel_height, kernel_width = weight.shape
    return Shape(height, width, channels, kernel_height, kernel_width, filters, padding)


class Winograd(torch.autograd.Function):
    """3x3 convolution of float32 maps in channels-last order; channels and filters are multiples of 8.

    Where a slope is given 2x2 max pooling and the activation with that slope follow.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - PyTorch hands these over by position
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, padding: int, slope: float | None
    ) -> Tensor:
        """Maps (batch, channels, height, width) -> (batch, filters, out_height, out_width), halved if pooled."""
        shape = _shape(inputs, weight, padding)
        transformed = _transformed(weight, shape)
        outputs, index = _maps(len(inputs), shape, pooled=slope is not None)
        own = [_room("winograd_scratch", inputs, shape)]
        shared = [inputs, transformed, bias, slope or 0.0, outputs, index]
        call("winograd_forward", len(inputs), shared, ctypes.byref(shape), own=own)
        ctx.save_for_backward(inputs, weight, index)
        ctx.shape, ctx.slope, ctx.has_bias = shape, slope, bias is not None
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None, None]:
        """Of inputs, weights and bias, from the gradient of the outputs."""
        inputs, weight, index = ctx.saved_tensors
        shape: Shape = ctx.shape
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        in_gradient = transposed = None
        if ctx.needs_input_grad[0]:
            in_gradient = torch.empty_like(inputs)
            transposed = _transformed(weight, shape, filters_first=True)
        sums = torch.empty(parts_of(len(inputs)), library().winograd_weights_size(ctypes.byref(shape)))
        bias_sums = torch.empty(len(sums), shape.filters)
        own = [sums, bias_sums, _room("winograd_scratch", inputs, shape)]
        shared = [inputs, transposed, gradient, index, ctx.slope or 0.0, in_gradient]
        call("winograd_backward", len(inputs), shared, ctypes.byref(shape), own=own)
        of_weight = _of_weight("winograd_weights_back", sums, shape)
        return in_gradient, of_weight, _total(bias_sums) if ctx.has_bias else None, None, None


class Direct(torch.autograd.Function):
    """Convolution of float32 maps in channels-last order."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        """Maps (batch, channels, height, width) -> (batch, filters, out_height, out_width)."""
        padded = _padded(inputs, padding)
        shape = _shape(padded, weight, 0)
        panels = _panels(weight.permute(2, 3, 1, 0).reshape(-1, shape.filters))
        outputs, _ = _maps(len(inputs), shape)
        call("direct_forward", len(inputs), [padded, panels, bias, outputs], ctypes.byref(shape))
        ctx.save_for_backward(inputs, weight)
        ctx.padding, ctx.has_bias = padding, bias is not None
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        """Of inputs, weights and bias, from the gradient of the outputs."""
        inputs, weight = ctx.saved_tensors
        padded = _padded(inputs, ctx.padding)
        shape = _shape(padded, weight, 0)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        sums = _weight_sums(inputs, shape)
        call("direct_weights", len(inputs), [padded, gradient], ctypes.byref(shape), own=[sums])
        in_gradient = None
        if ctx.needs_input_grad[0]:
            in_gradient = conv2d_input(inputs.shape, weight, gradient, padding=ctx.padding)
        return in_gradient, _total(sums).permute(3, 2, 0, 1), gradient.sum((0, 2, 3)) if ctx.has_bias else None, None


class FirstPooled(torch.autograd.Function):
    """A convolution of inputs that need no gradient, with 2x2 max pooling and a piecewise linear activation.

    5x5 kernels over three colours take Winograd's F(4x4, 5x5) forward, the others go the direct way.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - PyTorch hands these over by position
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, padding: int, slope: float
    ) -> Tensor:
        """Maps (batch, channels, height, width) -> (batch, filters, out_height // 2, out_width // 2)."""
        padded = _padded(inputs, padding)
        shape = _shape(padded, weight, 0)
        outputs, index = _maps(len(inputs), shape, pooled=True)
        if (shape.kernel_height, shape.kernel_width, shape.channels) == (5, 5, _COLOURS):
            name, weights = "winograd_pooled", _pooled_transformed(weight, shape)
        else:
            name, weights = "direct_pooled", _panels(weight.permute(2, 3, 1, 0).reshape(-1, shape.filters))
        shared, own = [padded, weights, bias, slope, outputs, index], [_room(f"{name}_scratch", inputs, shape)]
        call(f"{name}_forward", len(inputs), shared, ctypes.byref(shape), own=own)
        ctx.save_for_backward(inputs, index)
        ctx.shape, ctx.padding, ctx.slope, ctx.has_bias = shape, padding, slope, bias is not None
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor | None, None, None]:
        """Of weights and bias, from the gradient of the outputs."""
        inputs, index = ctx.saved_tensors
        shape: Shape = ctx.shape
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        row = library().direct_pooled_weights_row(ctypes.byref(shape))
        sums = torch.empty(parts_of(len(inputs)), shape.filters, shape.kernel_height, row)
        bias_sums = torch.empty(len(sums), shape.filters)
        own = [sums, bias_sums, _room("direct_pooled_weights_scratch", inputs, shape)]
        shared = [_padded(inputs, ctx.padding), gradient, index, ctx.slope]
        call("direct_pooled_weights", len(inputs), shared, ctypes.byref(shape), own=own)
        of_weight = _of_weight("direct_pooled_weights_back", sums, shape)
        return None, of_weight, _total(bias_sums) if ctx.has_bias else None, None, None


def _transformed(weight: Tensor, shape: Shape, *, filters_first: bool = False) -> Tensor:
    """Weights as Winograd's products take them."""
    weight = weight.contiguous(memory_format=torch.channels_last)
    transformed = torch.empty(library().winograd_weights_size(ctypes.byref(shape)))
    addresses = ctypes.c_void_p(weight.data_ptr()), ctypes.c_int(filters_first), ctypes.c_void_p(transformed.data_ptr())
    library().winograd_weights(*addresses, ctypes.byref(shape))
    return transformed


def _pooled_transformed(weight: Tensor, shape: Shape) -> Tensor:
    """5x5 kernels over three colours as Winograd's products with pooling take them."""
    weight = weight.contiguous(memory_format=torch.channels_last)
    transformed = torch.empty(library().winograd_pooled_weights_size(ctypes.byref(shape)))
    addresses = ctypes.c_void_p(weight.data_ptr()), ctypes.c_void_p(transformed.data_ptr())
    library().winograd_pooled_weights(*addresses, ctypes.byref(shape))
    return transformed


def _of_weight(function: str, sums: Tensor, shape: Shape) -> Tensor:
    """The gradient of the weights from what parts of a batch add to it, by a function of the library."""
    sizes = shape.filters, shape.channels, shape.kernel_height, shape.kernel_width
    gradient = torch.empty(sizes, memory_format=torch.channels_last)
    addresses = ctypes.c_void_p(sums.data_ptr()), ctypes.c_long(len(sums)), ctypes.c_void_p(gradient.data_ptr())
    getattr(library(), function)(*addresses, ctypes.byref(shape))
    return gradient


def _padded(inputs: Tensor, padding: int) -> Tensor:
    return F.pad(inputs, [padding] * 4).contiguous(memory_format=torch.channels_last) if padding else inputs


def _panels(matrix: Tensor) -> Tensor:
    """(rows, columns) -> (rows * columns,): panels of two vectors of columns, and one of those that are left."""
    panel = 2 * lanes()
    whole = matrix.shape[-1] // panel * panel
    panels = matrix[:, :whole].unflatten(-1, (-1, panel)).transpose(0, 1)
    return torch.cat([panels.flatten(), matrix[:, whole:].flatten()])


def _maps(images: int, shape: Shape, *, pooled: bool = False) -> tuple[Tensor, Tensor | None]:
    """Memory for a layer's outputs and, where it pools them, for what is kept of each window: a byte."""
    by = 2 if pooled else 1
    sizes = images, shape.filters, shape.out_height // by, shape.out_width // by
    outputs = torch.empty(sizes, memory_format=torch.channels_last)
    return outputs, torch.empty_like(outputs, dtype=torch.int8) if pooled else None


def _room(function: str, inputs: Tensor, shape: Shape) -> Tensor:
    """Memory to work in, as much as `function` of the library says, for every part of a batch."""
    return torch.empty(parts_of(len(inputs)), getattr(library(), function)(ctypes.byref(shape)))


def _weight_sums(inputs: Tensor, shape: Shape) -> Tensor:
    """What every part of a batch adds to the gradient of the weights."""
    return torch.empty(parts_of(len(inputs)), shape.kernel_height, shape.kernel_width, shape.channels, shape.filters)


def _total(sums: Tensor) -> Tensor:
    """Over the parts of a batch, always in the same order."""
    return sums[0] if len(sums) == 1 else sums.sum(0)
