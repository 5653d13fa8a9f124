"""The work of a forward pass, counted where PyTorch's functions are called: in layers, and in a `forward` alike.

`torch.utils.flop_counter` counts more kinds of operations, but takes three seconds to load.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_Count = Callable[[Tensor, Tensor, Tensor], int]
"""(first operand, second operand, output) -> multiply-adds."""


_COUNTS: dict[tuple[str, ...], _Count] = {
    ("conv1d", "conv2d", "conv3d"): lambda inputs, weight, output: output.numel() * math.prod(weight.shape[1:]),
    ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"): (
        lambda inputs, weight, output: inputs.numel() * math.prod(weight.shape[1:])
    ),
    ("linear", "matmul", "__matmul__", "mm", "bmm", "mv"): (
        lambda first, second, output: output.numel() * first.shape[-1]
    ),
    ("batch_norm",): lambda inputs, mean, output: output.numel(),
}
_KNOWN = {name: count for names, count in _COUNTS.items() for name in names}
_UNKNOWN = (
    "addmm", "baddbmm", "addbmm", "einsum", "tensordot", "bilinear", "scaled_dot_product_attention", "lstm", "gru",
    "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "multi_head_attention_forward", "__rmatmul__",
    "_transformer_encoder_layer_fwd", "_native_multi_head_attention",
)  # fmt: skip


class Work(TorchFunctionMode):
    """Sums the multiply-adds of what is computed inside; NaN once something is that it cannot count."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds: float = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in _UNKNOWN:
            self.multiply_adds = math.nan
        elif name in _KNOWN:
            operands = [*args, *(kwargs or {}).values()][:2]
            self.multiply_adds += _KNOWN[name](operands[0], operands[1], output)
        return output
