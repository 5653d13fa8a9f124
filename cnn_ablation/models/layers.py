"""Layers as plain values: their output shapes, parameters and work follow from arithmetic, without torch.

A network is a list of these. Checks, plans and descriptions read the list; `models.build` turns it into modules.

Shapes are tuples without the batch axis: (channels, height, width) for images, (features,) after `Flatten`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Shape = tuple[int, ...]


class LayerError(ValueError):
    """A layer that does not fit the map it is given, with the layer's position in the network."""

    def __init__(self, layer: Layer, index: int, map_size: int):
        super().__init__(f"{layer} does not fit a {map_size}x{map_size} map")
        self.layer, self.index, self.map_size = layer, index, map_size


class Layer(Protocol):
    """One step of a network. `kind` names it in layer tables."""

    @property
    def kind(self) -> str: ...
    def output_shape(self, shape: Shape) -> Shape: ...
    def num_params(self, shape: Shape) -> int: ...
    def multiply_adds(self, shape: Shape) -> int: ...


def window_output_size(size: int, window: int, stride: int = 1, padding: int = 0) -> int:
    """floor((n + 2p - f) / s) + 1: positions of a window of `window` pixels along `size` pixels.

    Source: jappinen, section on convolutional layers; gonzalez, stride and padding.
    """
    return (size + 2 * padding - window) // stride + 1


@dataclass(frozen=True)
class _NoParameters:
    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def num_params(self, shape: Shape) -> int:
        return 0

    def multiply_adds(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True)
class Conv:
    """A convolution with bias: n_f (f f c + 1) parameters (jappinen, section on convolutional layers)."""

    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    kind = "Conv"

    def output_shape(self, shape: Shape) -> Shape:
        height, width = (window_output_size(size, self.kernel, self.stride, self.padding) for size in shape[1:])
        return (self.filters, height, width)

    def num_params(self, shape: Shape) -> int:
        return self.filters * (self.kernel * self.kernel * shape[0] + 1)

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(self.output_shape(shape)) * self.kernel * self.kernel * shape[0]

    def __str__(self) -> str:
        return f"a {self.kernel}x{self.kernel} filter"


@dataclass(frozen=True)
class MaxPool(_NoParameters):
    """The largest value of each window."""

    window: int = 2
    stride: int = 2
    kind = "MaxPool"

    def output_shape(self, shape: Shape) -> Shape:
        height, width = (window_output_size(size, self.window, self.stride) for size in shape[1:])
        return (shape[0], height, width)

    def __str__(self) -> str:
        return f"a {self.window}x{self.window} pooling window"


@dataclass(frozen=True)
class BatchNorm:
    """Normalisation per channel over the batch, with scale and shift: two trainable parameters a channel."""

    kind = "BatchNorm"

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def num_params(self, shape: Shape) -> int:
        return 2 * shape[0]

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(shape)


@dataclass(frozen=True)
class Activation:
    """A function applied to every value, by its name in `activations.ACTIVATIONS`; PReLU learns one slope."""

    name: str
    kind = "Activation"

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def num_params(self, shape: Shape) -> int:
        return 1 if self.name == "prelu" else 0

    def multiply_adds(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True)
class Dropout(_NoParameters):
    """Each value is zeroed with this probability while training and the others scaled up."""

    probability: float
    kind = "Dropout"


@dataclass(frozen=True)
class Flatten(_NoParameters):
    """(channels, height, width) -> (channels * height * width,)."""

    kind = "Flatten"

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


@dataclass(frozen=True)
class Linear:
    """A fully connected layer with bias."""

    width: int
    kind = "Linear"

    def output_shape(self, shape: Shape) -> Shape:
        return (self.width,)

    def num_params(self, shape: Shape) -> int:
        return self.width * (shape[0] + 1)

    def multiply_adds(self, shape: Shape) -> int:
        return self.width * shape[0]


@dataclass(frozen=True)
class Softmax(_NoParameters):
    """Logits -> probabilities."""

    kind = "Softmax"


@dataclass(frozen=True)
class TracedLayer:
    """A layer at its place in a network: what comes in, what goes out, what it costs per image."""

    layer: Layer
    input_shape: Shape
    output_shape: Shape
    num_params: int
    multiply_adds: int


def trace(layers: Sequence[Layer], input_shape: Shape) -> list[TracedLayer]:
    """Follows a shape through a network.

    Raises:
        LayerError: a window is larger than the map it slides over.
    """
    traced, shape = [], input_shape
    for index, layer in enumerate(layers):
        output = layer.output_shape(shape)
        if min(output) < 1:
            raise LayerError(layer, index, map_size=min(shape[1:]))
        traced.append(TracedLayer(layer, shape, output, layer.num_params(shape), layer.multiply_adds(shape)))
        shape = output
    return traced


def total_params(layers: Sequence[Layer], input_shape: Shape) -> int:
    """Parameters of the whole network."""
    return sum(step.num_params for step in trace(layers, input_shape))
