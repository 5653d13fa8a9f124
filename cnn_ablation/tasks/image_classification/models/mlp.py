"""Fully connected networks (svalheim, section 4.4; jappinen, section 5), and the fully connected part of all others."""

from __future__ import annotations

from collections.abc import Iterator

from cnn_ablation.tasks.image_classification.config import MLPConfig, NetworkConfig
from cnn_ablation.tasks.image_classification.models.layers import (
    Activation,
    BatchNorm,
    Dropout,
    Flatten,
    Layer,
    Linear,
    Softmax,
)


def layers(model: MLPConfig, num_classes: int) -> list[Layer]:
    """The pixels, the hidden layers, one logit per class (or, with `output=softmax`, one probability)."""
    stack: list[Layer] = [
        Flatten(),
        *hidden_layers(model, batch_norm=model.batch_norm),
        Linear(num_classes, bias=model.output_bias),
    ]
    return [*stack, Softmax()] if model.output == "softmax" else stack


def hidden_layers(model: NetworkConfig, *, batch_norm: bool = False) -> Iterator[Layer]:
    """Fully connected layers with their activation and dropout."""
    for width in model.hidden:
        yield Linear(width)
        norm: list[Layer] = [BatchNorm()] if batch_norm else []
        activation: list[Layer] = [Activation(model.activation, model.leaky_slope)]
        yield from norm + activation if model.batch_norm_place == "before" else activation + norm
        if model.dropout:
            yield Dropout(model.dropout)
