"""A network's accuracy, loss and probabilities; sums over all images, so that a smaller last batch bends no mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cnn_ablation.tasks.image_classification.losses import Loss, cross_entropy


@dataclass(frozen=True)
class Evaluation:
    """Top-1 accuracy (0..1) and mean loss over `num_images` images."""

    accuracy: float
    loss: float
    num_images: int
    probabilities: Tensor | None = field(default=None, compare=False)
    """float32 (num_images, classes) on the CPU, where they were asked for."""


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many rows of `logits` (batch, classes) have their largest value at the label (batch,).

    A row that is not finite predicts nothing and counts as wrong.

    Returns:
        An int64 scalar on the logits' device.
    """
    finite = torch.isfinite(logits).all(dim=1)
    return ((logits.argmax(dim=1) == labels) & finite).sum()


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss = cross_entropy,
    to_probabilities: Callable[[Tensor], Tensor] | None = None,
) -> Evaluation:
    """Evaluates a network with dropout off and batch norm at its running statistics, then switches it back.

    Args:
        network: float (batch, channels, height, width) -> logits (batch, classes).
        batches: normalised images and int64 labels (batch,).
        loss: what the network is trained on.
        to_probabilities: from what the network gives; None keeps no probabilities.
    """
    was_training = network.training
    network.eval()
    corrects, losses, probabilities, num_images = [], [], [], 0
    for inputs, labels in batches:
        logits = network(inputs).float()
        corrects.append(count_correct(logits, labels))
        losses.append(loss(logits, labels, reduction="sum"))
        num_images += len(labels)
        if to_probabilities:
            probabilities.append(to_probabilities(logits))
    network.train(was_training)
    correct, total = sum(torch.stack(corrects).tolist()), sum(torch.stack(losses).tolist())  # read back once
    kept = torch.cat(probabilities).cpu() if probabilities else None
    return Evaluation(correct / num_images, total / num_images, num_images, kept)


def probabilities_from(output: str) -> Callable[[Tensor], Tensor]:
    """What turns a network's outputs (batch, classes) into probabilities, by `model.output`.

    A softmax in bfloat16 rounds each probability to 8 bits, so that they sum to 1 only within a hundredth.
    """
    if output == "softmax":
        return lambda outputs: outputs / outputs.sum(dim=1, keepdim=True)
    return lambda outputs: outputs.softmax(dim=1)
