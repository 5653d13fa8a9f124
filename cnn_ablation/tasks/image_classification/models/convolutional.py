"""Convolutional networks: blocks of convolution, batch norm, activation, pooling and dropout, then hidden layers.

The networks of the papers differ in their settings only, which stand in conf/model/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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
    GlobalAveragePool,
    Layer,
    Linear,
    MaxPool,
    Residual,
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
    stack = [layer for block, is_residual in _blocks(model) for layer in _block(model, block, is_residual=is_residual)]
    to_features = GlobalAveragePool() if model.global_pool else Flatten()
    stack += [to_features, *hidden_layers(model), Linear(num_classes, bias=model.output_bias)]
    return [*stack, Softmax()] if model.output == "softmax" else stack


def may_be_skipped(model: ModelConfig) -> list[bool]:
    """Of each convolution whether a skip connection may span it: it keeps the size of its maps but for its stride.

    The first one may not: it reads the image, as the stem of a residual network does.
    """
    count = len(model.filters)
    kept = (_conv(model, index) for index in range(count))
    return [index > 0 and 2 * conv.padding == conv.kernel - 1 for index, conv in enumerate(kept)]


def _blocks(model: ModelConfig) -> Iterator[tuple[range, bool]]:
    """Convolutions that belong together, and whether a skip connection spans them; all others are alone.

    A block ends at pooling and before a convolution that changes the size of its maps.
    """
    count = len(model.filters)
    allowed = may_be_skipped(model) if model.residual else [False] * count
    first = 0
    while first < count:
        end = first + 1
        while allowed[first] and end < min(count, first + model.residual) and allowed[end]:
            if _is_pooled(model, end - 1):
                break
            end += 1
        yield range(first, end), allowed[first]
        first = end


def _block(model: ModelConfig, block: range, *, is_residual: bool) -> Iterator[Layer]:
    """The convolutions of a block, and what follows them up to the next one."""
    branch = [layer for index in block[:-1] for layer in (_conv(model, index), *_after(model, index))]
    branch.append(_conv(model, block[-1]))
    following = _after(model, block[-1])
    if is_residual:
        norm = following[:1] if model.batch_norm and model.batch_norm_place == "before" else []
        yield Residual((*branch, *norm), tuple(_shortcut(model, block, norm)))
        yield from following[len(norm) :]
    else:
        yield from (*branch, *following)
    if _is_pooled(model, block[-1]):
        yield _POOLS[model.pool](model.pool_size, model.pool_stride)
        if model.conv_dropout:
            yield Dropout(model.conv_dropout)


def _shortcut(model: ModelConfig, block: range, norm: Sequence[Layer]) -> Iterator[Layer]:
    """Nothing where the block keeps the shape of its maps, else a 1x1 convolution, normalised as the branch is."""
    stride = math.prod(_conv(model, index).stride for index in block)
    if stride > 1 or model.filters[block[0] - 1] != model.filters[block[-1]]:
        yield Conv(model.filters[block[-1]], 1, stride=stride)
        yield from norm


def _conv(model: ModelConfig, index: int) -> Conv:
    of_this = partial(_of_layer, index=index, count=len(model.filters))
    kernel = of_this("kernel_sizes", model.kernel_sizes)
    return Conv(
        model.filters[index],
        kernel,
        stride=of_this("strides", model.strides),
        padding=_zeros(kernel) if of_this("padding", model.padding) == "same" else 0,
        groups=of_this("groups", model.groups),
    )


def _after(model: ModelConfig, index: int) -> list[Layer]:
    """Batch norm and activation of a convolution."""
    norm: list[Layer] = [BatchNorm()] if model.batch_norm else []
    is_last = index == len(model.filters) - 1
    activation: list[Layer] = [Activation(model.activation, model.leaky_slope)]
    if is_last and not model.last_activation:
        activation = []
    return norm + activation if model.batch_norm_place == "before" else activation + norm


def _is_pooled(model: ModelConfig, index: int) -> bool:
    return bool(_of_layer("pool_after", model.pool_after, index=index, count=len(model.filters)))


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
