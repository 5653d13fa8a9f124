"""Convolutional networks: blocks of convolution, batch norm, activation, pooling and dropout, then hidden layers.

The networks of the papers differ in their settings only, which stand in conf/model/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.tasks.image_classification.config import ModelConfig
from cnn_ablation.tasks.image_classification.models.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    Softmax,
)
from cnn_ablation.tasks.image_classification.models.mlp import hidden_layers

_POOLS: dict[str, Callable[[int, int], Layer]] = {"max": MaxPool, "average": AveragePool}


def layers(model: ModelConfig, num_classes: int) -> list[Layer]:
    """The network as a list of layers, ending in one logit per class (or, with `output=softmax`, one probability).

    `output=softmax` is a mistake to study: cross-entropy applies a softmax itself.

    Raises:
        ConfigError: a list of settings has not one entry for each convolution.
    """
    stack = [layer for index in range(len(model.filters)) for layer in _block(model, index)]
    stack += [Flatten(), *hidden_layers(model), Linear(num_classes, bias=model.output_bias)]
    return [*stack, Softmax()] if model.output == "softmax" else stack


def _block(model: ModelConfig, index: int) -> Iterator[Layer]:
    """One convolution and what follows it up to the next one."""
    of_this = partial(_of_layer, index=index, count=len(model.filters))
    kernel = of_this("kernel_sizes", model.kernel_sizes)
    yield Conv(
        model.filters[index],
        kernel,
        stride=of_this("strides", model.strides),
        padding=_zeros(kernel) if of_this("padding", model.padding) == "same" else 0,
        groups=of_this("groups", model.groups),
    )
    norm: list[Layer] = [BatchNorm()] if model.batch_norm else []
    is_last = index == len(model.filters) - 1
    activation: list[Layer] = [Activation(model.activation, model.leaky_slope)]
    if is_last and not model.last_activation:
        activation = []
    yield from norm + activation if model.batch_norm_place == "before" else activation + norm
    if of_this("pool_after", model.pool_after):
        yield _POOLS[model.pool](model.pool_size, model.pool_stride)
        if model.conv_dropout:
            yield Dropout(model.conv_dropout)


def _of_layer(key: str, value: Any, *, index: int, count: int) -> Any:
    """A setting of one of `count` convolutions: the only value, or that at its place in the list."""
    if not isinstance(value, list):
        return value
    if len(value) not in (1, count):
        noun = key.replace("_", " ")
        problem = Problem(
            f"model.{key}", value, f"{count} {noun}, one for each entry of model.filters, or a single one"
        )
        raise ConfigError([problem])
    return value[index if len(value) > 1 else 0]


def _zeros(kernel: int) -> int:
    """Rows of zeros on each side that keep a map's size at stride 1."""
    if kernel % 2 == 0:
        remedy = "odd filter sizes, or model.padding=valid"
        raise ConfigError(
            [Problem("model.padding", "same", f"odd filter sizes; here {kernel}x{kernel}", remedy=remedy)]
        )
    return kernel // 2
