"""Losses by name. Each takes outputs (batch, classes) before the softmax and int64 labels (batch,)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from cnn_ablation.common.errors import UserError
from cnn_ablation.tasks.image_classification import parts
from cnn_ablation.tasks.image_classification.config import TrainConfig
from cnn_ablation.tasks.image_classification.data.mixup import MixedLabels

_SMALLEST = 1e-7  # probabilities stay this far from 1 where a logarithm is taken of what is left, as in Keras


class Loss(Protocol):
    """The loss of a batch: `reduction` is "mean" over images, "sum", or "none" for one value per image."""

    def __call__(self, outputs: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor: ...


def cross_entropy(outputs: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """-log y of the true class, nats (sorensen, equation 2.7; jappinen, equation 38)."""
    return F.cross_entropy(outputs, labels, reduction=reduction)


def mean_squared_error(outputs: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Mean over classes of (y - t)^2, with y the softmax of the outputs and t 1 for the true class."""
    probabilities = _wide(outputs).softmax(dim=1)
    return _reduced((probabilities - _targets(probabilities, labels)).square().mean(dim=1), reduction)


def kullback_leibler(outputs: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Sum over classes of -[t log y + (1 - t) log(1 - y)], nats, with y the softmax (sorensen, equation 2.8).

    The paper calls it Kullback-Leibler; it is the binary cross-entropy of every class against the rest.
    """
    logarithms = _wide(outputs).log_softmax(dim=1)
    targets = _targets(logarithms, labels)
    rest = torch.log1p(-logarithms.exp().clamp(max=1 - _SMALLEST))
    return _reduced(-(targets * logarithms + (1 - targets) * rest).sum(dim=1), reduction)


@dataclass(frozen=True)
class Own:
    """A loss of the user's own, from one value for each image."""

    of_images: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, outputs: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        losses = self.of_images(_wide(outputs), labels)
        if losses.shape != labels.shape:
            name = getattr(self.of_images, "__name__", "the loss")
            raise UserError(
                f"train.loss: {name} gave the shape {tuple(losses.shape)} for {len(labels)} images\n"
                f"  allowed: one loss for each image, ({len(labels)},); the mean is taken here"
            )
        return _reduced(losses, reduction)


class _Losses(dict[str, Loss]):
    """By name, with those that extensions have registered."""

    def __missing__(self, name: str) -> Loss:
        return Own(parts.LOSSES[name])


LOSSES: dict[str, Loss] = _Losses(
    cross_entropy=cross_entropy,
    mean_squared_error=mean_squared_error,
    kullback_leibler=kullback_leibler,
)


@dataclass(frozen=True)
class SmoothedCrossEntropy:
    """Cross-entropy with s of the targets spread evenly over all classes, nats.

    Szegedy et al. 2016, section 7.
    """

    smoothing: float

    def __call__(self, outputs: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(outputs, labels, reduction=reduction, label_smoothing=self.smoothing)


def loss_to_train(train: TrainConfig) -> Loss:
    """What the steps minimise; scores are measured by the loss without smoothing, so that they can be compared."""
    if train.loss == "cross_entropy" and train.label_smoothing:
        return SmoothedCrossEntropy(train.label_smoothing)
    return LOSSES[train.loss]


def loss_in_training(loss: Loss) -> Callable[[Tensor, Tensor | MixedLabels], Tensor]:
    """The mean loss of a batch; of mixed images the mixture of the losses for both labels."""

    def of(outputs: Tensor, labels: Tensor | MixedLabels) -> Tensor:
        if isinstance(labels, Tensor):
            return loss(outputs, labels)
        own, others = (loss(outputs, each, reduction="none") for each in (labels.labels, labels.others))
        return (labels.shares * own + (1 - labels.shares) * others).mean()

    return of


def _wide(outputs: Tensor) -> Tensor:
    """float32, or float64 where it is that already."""
    return outputs if outputs.dtype == torch.float64 else outputs.float()


def _targets(like: Tensor, labels: Tensor) -> Tensor:
    return F.one_hot(labels, like.shape[1]).to(like.dtype)


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()
