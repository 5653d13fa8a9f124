"""Mixtures of two training images and of their losses (mixup: Zhang et al. 2018, arXiv:1710.09412)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnn_ablation.common.streams import stream_seed
from cnn_ablation.tasks.image_classification.config import TrainConfig


@dataclass(frozen=True)
class MixedLabels:
    """What images are mixtures of: `shares` (batch,) of `labels`, the rest of `others`, both int64 (batch,)."""

    labels: Tensor
    others: Tensor
    shares: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def draw_pairs(train: TrainConfig, num_images: int, *, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each epoch partners int64 (num_images,), by their place in the batch, and shares float32 (num_images,).

    Partners are a random order of the batch. A batch has one share, from Beta(alpha, alpha), as in the authors' code.
    """
    orders = torch.Generator().manual_seed(stream_seed(seed, "augmentation/mixup_partners"))
    coefficients = np.random.default_rng(stream_seed(seed, "augmentation/mixup"))
    starts = range(0, num_images, train.batch_size)
    sizes = [min(train.batch_size, num_images - start) for start in starts]
    while True:
        partners = torch.cat([torch.randperm(size, generator=orders) for size in sizes])
        shares = torch.from_numpy(coefficients.beta(train.mixup, train.mixup, len(sizes))).float()
        yield partners, shares.repeat_interleave(torch.tensor(sizes))


def mixed(inputs: Tensor, others: Tensor, shares: Tensor) -> Tensor:
    """Of each image its share, and the rest of its partner.

    Args:
        inputs: float (batch, channels, height, width); changed in place.
        others: each image's partner, of the same shape; changed too.
        shares: float32 (batch,).
    """
    own = shares[:, None, None, None]
    return inputs.mul_(own).add_(others.mul_(1 - own))
