"""An extension for tests on a GPU: a loss that reads back from the device, which no graph can hold."""

from __future__ import annotations

import torch

import cnn_ablation


@cnn_ablation.loss("reading_back")
def reading_back(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    losses = torch.nn.functional.cross_entropy(outputs, labels, reduction="none")
    return losses if float(losses.detach().sum()) < 1e9 else losses * 0
