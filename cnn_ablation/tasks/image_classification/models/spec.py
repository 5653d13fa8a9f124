"""What a network is, told before it is trained: its layers, parameters, and work per image. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cnn_ablation.tasks.image_classification.models.layers import Layer, Shape, trace


@dataclass(frozen=True)
class Row:
    """One layer of a table."""

    name: str
    summary: str
    output_shape: Shape | None
    """Without the batch axis; None for a part that no image passes through as a call of its own."""
    num_trainable: int
    num_kept: int
    """Values kept with the weights but not trained: statistics of batch norm, frozen parameters."""


@dataclass(frozen=True)
class NetworkSpec:
    """A network as a whole."""

    rows: tuple[Row, ...]
    num_params: int
    """As a run's record counts them: all parameters, without statistics."""
    num_trainable: int
    num_kept: int
    multiply_adds: float
    """Of one image's forward pass; NaN where it cannot be told."""
    num_values: int
    """Outputs of all layers for one image: what a training step keeps for the gradient."""


def of_layers(layers: Sequence[Layer], input_shape: Shape) -> NetworkSpec:
    """By arithmetic.

    Raises:
        LayerError: the layers do not fit the input.
    """
    steps = trace(layers, input_shape)
    rows = tuple(
        Row("  " * step.depth + step.name, step.layer.summary, step.output_shape, step.num_params, step.num_statistics)
        for step in steps
    )
    num_params = sum(step.num_params for step in steps)
    return NetworkSpec(
        rows=rows,
        num_params=num_params,
        num_trainable=num_params,
        num_kept=sum(step.num_statistics for step in steps),
        multiply_adds=sum(step.multiply_adds for step in steps),
        num_values=sum(math.prod(step.output_shape) for step in steps),
    )
