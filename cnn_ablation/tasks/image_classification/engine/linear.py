"""Fully connected layers of float32 on a CPU with AVX-512, by oneDNN's inner product.

PyTorch's own product of float32 matrices is MKL's, which on other makers' processors fills half a 512-bit register: 110
GFLOP/s a core of an EPYC, where oneDNN's gives 170 to 240. The same function up to rounding; where it cannot be had,
PyTorch's runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_PROCESSORS = ("AVX512",)
"""As in convolution.py. With AVX2 both are equally wide."""


class Linear(nn.Module):
    """A fully connected layer.

    Args:
        linear: whose weights are used; it runs itself where oneDNN cannot.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear = linear

    def forward(self, inputs: Tensor) -> Tensor:
        """Numbers (batch, features) -> (batch, out features)."""
        layer = self.linear
        if not _can_be_computed(inputs, layer.weight):
            return layer(inputs)  # type: ignore[no-any-return]
        return _InnerProduct.apply(inputs, layer.weight, layer.bias)  # type: ignore[no-any-return]


def _can_be_computed(inputs: Tensor, weight: Tensor) -> bool:
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.dim() == 2
        and inputs.numel() > 0
        and inputs.shape[1] == weight.shape[1]  # PyTorch's own layer says best what does not fit
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.cpu.get_cpu_capability() in _PROCESSORS
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class _InnerProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.has_bias = bias is not None
        return _product(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        of_inputs = _product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        return of_inputs, _product(gradient.t(), inputs.t()), gradient.sum(0) if ctx.has_bias else None


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """(rows, depth) and (columns, depth) -> (rows, columns)."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return product
