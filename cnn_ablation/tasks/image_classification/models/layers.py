"""Layers as plain values: their output shapes, parameters and work follow from arithmetic, without torch.

A network is a list of these. Checks, plans and descriptions read the list; `models.build` turns it into modules.

Shapes are tuples without the batch axis: (channels, height, width) for images, (features,) after `Flatten`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Shape = tuple[int, ...]


class LayerError(ValueError):
    """A layer that does not fit what it is given, with the layer's position in the network."""

    def __init__(self, layer: Layer, index: int, given: str):
        super().__init__(f"{layer} does not fit {given}")
        self.layer, self.index = layer, index


class Layer(Protocol):
    """One step of a network. `kind` names it in layer tables."""

    @property
    def kind(self) -> str: ...
    @property
    def summary(self) -> str: ...
    def output_shape(self, shape: Shape) -> Shape: ...
    def num_params(self, shape: Shape) -> int: ...
    def num_statistics(self, shape: Shape) -> int: ...
    def multiply_adds(self, shape: Shape) -> int: ...


def window_output_size(size: int, window: int, stride: int = 1, padding: int = 0) -> int:
    """floor((n + 2p - f) / s) + 1: positions of a window of `window` pixels along `size` pixels.

    Source: jappinen, section on convolutional layers; gonzalez, stride and padding.
    """
    return (size + 2 * padding - window) // stride + 1


@dataclass(frozen=True)
class _Plain:
    """What most layers have in common."""

    @property
    def summary(self) -> str:
        """In a few words, for layer tables."""
        return ""

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def num_params(self, shape: Shape) -> int:
        """Trainable ones."""
        return 0

    def num_statistics(self, shape: Shape) -> int:
        """Values that are kept with the weights but not trained; Keras counts them among the parameters."""
        return 0

    def multiply_adds(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True)
class Conv(_Plain):
    """A convolution with bias: n_f (f f c + 1) parameters (jappinen, section on convolutional layers).

    Each of `groups` sees its own share of the channels (AlexNet's two halves; jappinen, section 3.6.2).
    """

    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    kind = "Conv"

    def output_shape(self, shape: Shape) -> Shape:
        height, width = (window_output_size(size, self.kernel, self.stride, self.padding) for size in shape[1:])
        return (self.filters, height, width)

    def num_params(self, shape: Shape) -> int:
        return self.filters * (self.kernel * self.kernel * shape[0] // self.groups + 1)

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(self.output_shape(shape)) * self.kernel * self.kernel * shape[0] // self.groups

    @property
    def summary(self) -> str:
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return f"{self.filters} of {self.kernel}x{self.kernel}, stride {self.stride}, padding {self.padding}{groups}"

    def __str__(self) -> str:
        return (
            f"a {self.kernel}x{self.kernel} filter" if self.groups == 1 else f"a convolution of {self.filters} filters"
        )


@dataclass(frozen=True)
class _Pool(_Plain):
    window: int = 2
    stride: int = 2

    def output_shape(self, shape: Shape) -> Shape:
        height, width = (window_output_size(size, self.window, self.stride) for size in shape[1:])
        return (shape[0], height, width)

    @property
    def summary(self) -> str:
        return f"{self.window}x{self.window}, stride {self.stride}"

    def __str__(self) -> str:
        return f"a {self.window}x{self.window} pooling window"


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest value of each window; windows overlap where the stride is smaller than the window."""

    kind = "MaxPool"


@dataclass(frozen=True)
class AveragePool(_Pool):
    """The mean of each window."""

    kind = "AveragePool"


@dataclass(frozen=True)
class BatchNorm(_Plain):
    """Normalisation per channel over the batch, with scale and shift: two trainable parameters a channel.

    Mean and variance of each channel are kept for evaluation (sorensen, equation 2.11).
    """

    kind = "BatchNorm"

    def num_params(self, shape: Shape) -> int:
        return 2 * shape[0]

    def num_statistics(self, shape: Shape) -> int:
        return 2 * shape[0]

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(shape)


@dataclass(frozen=True)
class Activation(_Plain):
    """A function applied to every value, by its name in `activations.ACTIVATIONS`; PReLU learns one slope."""

    name: str
    leaky_slope: float = 0.01
    kind = "Activation"

    @property
    def summary(self) -> str:
        return f"{self.name} {self.leaky_slope:g}" if self.name == "leaky" else self.name

    def num_params(self, shape: Shape) -> int:
        return 1 if self.name == "prelu" else 0


@dataclass(frozen=True)
class Dropout(_Plain):
    """Each value is zeroed with this probability while training and the others scaled up."""

    probability: float
    kind = "Dropout"

    @property
    def summary(self) -> str:
        return f"probability {self.probability:g}"


@dataclass(frozen=True)
class Flatten(_Plain):
    """(channels, height, width) -> (channels * height * width,)."""

    kind = "Flatten"

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


@dataclass(frozen=True)
class GlobalAveragePool(_Plain):
    """The mean of each whole map, (channels, height, width) -> (channels,) (Lin et al. 2014, arXiv:1312.4400)."""

    kind = "GlobalAveragePool"

    def output_shape(self, shape: Shape) -> Shape:
        return shape[:1]


@dataclass(frozen=True)
class Linear(_Plain):
    """A fully connected layer."""

    width: int
    bias: bool = True
    kind = "Linear"

    @property
    def summary(self) -> str:
        return f"{self.width} units" + ("" if self.bias else ", no bias")

    def output_shape(self, shape: Shape) -> Shape:
        return (self.width,)

    def num_params(self, shape: Shape) -> int:
        return self.width * (shape[0] + int(self.bias))

    def multiply_adds(self, shape: Shape) -> int:
        return self.width * shape[0]


@dataclass(frozen=True)
class Softmax(_Plain):
    """Logits -> probabilities."""

    kind = "Softmax"


@dataclass(frozen=True)
class Residual(_Plain):
    """F(x) + x, or F(x) + P(x): the sum of a branch F and a shortcut (He et al. 2016, equations 1 and 2).

    Stands for the sum alone; `trace` counts the layers inside where they stand. An empty shortcut is the identity.
    """

    branch: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()
    kind = "Residual"

    @property
    def summary(self) -> str:
        return "adds the shortcut's maps" if self.shortcut else "adds the block's input"

    def output_shape(self, shape: Shape) -> Shape:
        for layer in self.branch:
            shape = layer.output_shape(shape)
        return shape

    def __str__(self) -> str:
        return "a residual branch"


@dataclass(frozen=True)
class TracedLayer:
    """A layer at its place in a network: what comes in, what goes out, what it costs per image."""

    name: str
    """Its kind and place among its kind: `Conv1`, `Activation1`, `Conv2`; `ShortcutConv1` on a shortcut."""
    depth: int
    """In how many residual blocks it lies."""
    layer: Layer
    input_shape: Shape
    output_shape: Shape
    num_params: int
    num_statistics: int
    multiply_adds: int


def trace(layers: Sequence[Layer], input_shape: Shape) -> list[TracedLayer]:
    """Follows a shape through a network: the branch of a residual block, its shortcut, then their sum.

    Layers on shortcuts are counted apart, so that all others are called what they are called without them.

    Raises:
        LayerError: a window is larger than the map it slides over, channels cannot be shared by groups, or a branch
            and its shortcut give other shapes.
    """
    traced: list[TracedLayer] = []
    _trace(layers, input_shape, traced, Counter(), depth=0)
    return traced


def _trace(
    layers: Sequence[Layer], shape: Shape, traced: list[TracedLayer], seen: Counter[str], *, depth: int, on: str = ""
) -> Shape:
    """Appends to `traced`; returns the shape that comes out. `on` stands before the names of a shortcut's layers."""
    for layer in layers:
        if isinstance(layer, Residual):
            output = _trace(layer.branch, shape, traced, seen, depth=depth + 1, on=on)
            beside = _trace(layer.shortcut, shape, traced, seen, depth=depth + 1, on="Shortcut")
            if output != beside:
                raise LayerError(layer, len(traced), f"a shortcut of {beside}: it gives {output}")
        else:
            output = _fitting_output(layer, shape, len(traced))
        kind = f"{on}{layer.kind}"
        seen[kind] += 1
        costs = layer.num_params(shape), layer.num_statistics(shape), layer.multiply_adds(shape)
        traced.append(TracedLayer(f"{kind}{seen[kind]}", depth, layer, shape, output, *costs))
        shape = output
    return shape


def _fitting_output(layer: Layer, shape: Shape, index: int) -> Shape:
    if isinstance(layer, Conv) and (shape[0] % layer.groups or layer.filters % layer.groups):
        raise LayerError(layer, index, f"{layer.groups} groups of {shape[0]} channels")
    output = layer.output_shape(shape)
    if min(output) < 1:
        raise LayerError(layer, index, f"a {min(shape[1:])}x{min(shape[1:])} map")
    return output


def total_params(layers: Sequence[Layer], input_shape: Shape) -> int:
    """Trainable parameters of the whole network."""
    return sum(step.num_params for step in trace(layers, input_shape))
