"""How long a run is trained: epochs and optimiser steps, from `train.epochs`, `train.updates` and `train.scale`."""

from __future__ import annotations

import math

from cnn_ablation.tasks.image_classification.config import TrainConfig


def num_epochs(train: TrainConfig, train_images: int) -> int:
    """Epochs to train at most, the last of which `updates` may cut short."""
    return math.ceil(num_updates(train, train_images) / updates_per_epoch(train, train_images))


def num_updates(train: TrainConfig, train_images: int) -> int:
    """Optimiser steps to take at most."""
    if train.updates is not None:
        return max(1, round(train.scale * train.updates))
    return max(1, round(train.scale * train.epochs)) * updates_per_epoch(train, train_images)


def epoch_images(train: TrainConfig, epoch: int, train_images: int) -> int:
    """Images to train on in an epoch, counted from 0; only the last one may have fewer than all."""
    left = num_updates(train, train_images) - epoch * updates_per_epoch(train, train_images)
    return min(train_images, left * train.batch_size)


def updates_per_epoch(train: TrainConfig, train_images: int) -> int:
    """Optimiser steps of a whole epoch, whose last batch may be smaller."""
    return math.ceil(train_images / train.batch_size)
