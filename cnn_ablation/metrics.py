"""Accuracy and loss as sums over all images, so that a smaller last batch does not bend the mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Evaluation:
    """Top-1 accuracy (0..1) and mean cross-entropy (nats per image) over `num_images` images."""

    accuracy: float
    loss: float
    num_images: int


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many rows of `logits` (batch, classes) have their largest value at the label (batch,).

    A row that is not finite predicts nothing and counts as wrong.

    Returns:
        An int64 scalar on the logits' device.
    """
    finite = torch.isfinite(logits).all(dim=1)
    return ((logits.argmax(dim=1) == labels) & finite).sum()


@torch.inference_mode()
def evaluate(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
    """Evaluates a network with dropout off and batch norm at its running statistics, then switches it back.

    Args:
        network: float (batch, channels, height, width) -> logits (batch, classes).
        batches: normalised images and int64 labels (batch,).
    """
    was_training = network.training
    network.eval()
    corrects, losses, num_images = [], [], 0
    for inputs, labels in batches:
        logits = network(inputs).float()
        corrects.append(count_correct(logits, labels))
        losses.append(F.cross_entropy(logits, labels, reduction="sum"))
        num_images += len(labels)
    network.train(was_training)
    correct, loss = sum(torch.stack(corrects).tolist()), sum(torch.stack(losses).tolist())  # read back once
    return Evaluation(correct / num_images, loss / num_images, num_images)
