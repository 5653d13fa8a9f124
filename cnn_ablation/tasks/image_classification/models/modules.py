"""Torch modules for layers that torch has none for."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """branch(x) + shortcut(x); an empty shortcut is the identity (He et al. 2016, equations 1 and 2)."""

    def __init__(self, branch: nn.Sequential, shortcut: nn.Sequential):
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        """Both give the same shape."""
        outputs: Tensor = self.branch(inputs) + self.shortcut(inputs)
        return outputs


class GlobalAveragePool(nn.Module):
    """Maps (batch, channels, height, width) -> their means (batch, channels)."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(dim=(2, 3))
