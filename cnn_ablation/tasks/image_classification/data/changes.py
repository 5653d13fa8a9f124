"""Which random changes of training images are asked for. No torch."""

from __future__ import annotations

from cnn_ablation.tasks.image_classification.config import TrainConfig


def augments(train: TrainConfig) -> bool:
    """Whether training images are changed at all."""
    return shifts_or_mirrors(train) or train.color_jitter > 0 or train.cutout > 0 or mixes(train)


def shifts_or_mirrors(train: TrainConfig) -> bool:
    """Whether images are shifted or mirrored."""
    return train.max_translation > 0 or train.horizontal_flip


def mixes(train: TrainConfig) -> bool:
    """Whether images are mixed; one alone in its batch has no partner."""
    return train.mixup > 0 and train.batch_size > 1
