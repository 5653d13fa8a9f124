"""Dropout that draws from a stream of its own instead of PyTorch's global generators: one per seed trained together."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def draw_mask(shape: torch.Size | tuple[int, ...], probability: float, generator: torch.Generator) -> Tensor:
    """0 or 1 / (1 - probability), float32 on the generator's device: the values that `nn.Dropout` multiplies with."""
    kept = torch.empty(shape, device=generator.device).bernoulli_(1 - probability, generator=generator)
    return kept.div_(1 - probability)


class MaskedDropout(nn.Module):
    """Dropout by a mask from outside, kept in the buffer `mask`."""

    mask: Tensor

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability
        self.register_buffer("mask", torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.mask if self.training else inputs


class OwnDropout(nn.Module):
    """Dropout that draws its masks from a given generator."""

    def __init__(self, probability: float, generator: torch.Generator):
        super().__init__()
        self.probability, self.generator = probability, generator

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * draw_mask(inputs.shape, self.probability, self.generator) if self.training else inputs
