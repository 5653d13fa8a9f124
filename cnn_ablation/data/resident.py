"""A part of a data set on the device: uint8 once, normalised to float batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cnn_ablation.data.images import ImageData, Split


@dataclass(frozen=True)
class ResidentSplit:
    """Pixels uint8 (N, channels, height, width), labels int64 (N,), factor and shift float32 (1, channels, 1, 1)."""

    pixels: Tensor
    labels: Tensor
    factor: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images float32 (batch, channels, height, width) and their labels, by int64 `indices` (batch,)."""
        return self.pixels[indices].float() * self.factor + self.shift, self.labels[indices]

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches of one pass in the given order; the last one may be smaller."""
        return (self.batch(order[start : start + batch_size]) for start in range(0, len(order), batch_size))

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches of one pass in stored order."""
        return self.batches(torch.arange(len(self), device=self.labels.device), batch_size)


def to_device(split: Split, data: ImageData, device: torch.device) -> ResidentSplit:
    """Copies one part of a data set to the device, with the data set's normalisation."""
    factor, shift = (torch.from_numpy(values).view(1, -1, 1, 1).to(device) for values in data.normalisation)
    return ResidentSplit(
        torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device), factor, shift
    )
