"""Dropout that draws from a stream of its own instead of PyTorch's global generators: one per seed trained together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def draw_mask(like: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """0 or 1 / (1 - probability), float32, of the shape and memory format of `like`: what `nn.Dropout` multiplies with.

    `nn.Dropout` draws in the order of the memory, so that the format decides which value gets which draw.
    """
    kept = torch.empty_like(like, dtype=torch.float32).bernoulli_(1 - probability, generator=generator)
    return kept.div_(1 - probability)


class OwnDropout(nn.Module):
    """Dropout that draws its masks from a given generator."""

    def __init__(self, probability: float, generator: torch.Generator):
        super().__init__()
        self.probability, self.generator = probability, generator

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return inputs
        if not inputs.is_cuda:
            return inputs * draw_mask(inputs, self.probability, self.generator)
        kept = torch.empty_like(inputs, dtype=torch.bool).bernoulli_(1 - self.probability, generator=self.generator)
        dropped: Tensor = Dropped.apply(inputs, kept, 1 / (1 - self.probability))
        return dropped


class Dropped(torch.autograd.Function):
    """`inputs * kept * scale` in the inputs' type: one kernel each way, where a mask of numbers takes seven."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        dropped: Tensor = torch.ops.aten.native_dropout_backward(inputs, kept, scale)
        return dropped

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return torch.ops.aten.native_dropout_backward(gradient, kept, ctx.scale), None, None
