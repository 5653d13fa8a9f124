"""Layer lists -> torch modules, every layer with initial weights of its own random stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from cnn_ablation.common.streams import stream_seed
from cnn_ablation.tasks.image_classification import generators
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS
from cnn_ablation.tasks.image_classification.models.layers import (
    Activation,
    Layer,
    Residual,
    Shape,
    TracedLayer,
    trace,
)
from cnn_ablation.tasks.image_classification.models.modules import GlobalAveragePool, ResidualBlock

# kind -> module, from the layer and the shape that reaches it
_MODULES: dict[str, Callable[[Any, Shape], nn.Module]] = {
    "Conv": lambda layer, shape: nn.Conv2d(
        shape[0], layer.filters, layer.kernel, stride=layer.stride, padding=layer.padding, groups=layer.groups
    ),
    "MaxPool": lambda layer, shape: nn.MaxPool2d(layer.window, layer.stride),
    "AveragePool": lambda layer, shape: nn.AvgPool2d(layer.window, layer.stride),
    "BatchNorm": lambda layer, shape: nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0]),
    "Activation": lambda layer, shape: _activation(layer),
    "Dropout": lambda layer, shape: nn.Dropout(layer.probability),
    "Flatten": lambda layer, shape: nn.Flatten(),
    "GlobalAveragePool": lambda layer, shape: GlobalAveragePool(),
    "Linear": lambda layer, shape: nn.Linear(shape[0], layer.width, bias=layer.bias),
    "Softmax": lambda layer, shape: nn.Softmax(dim=1),
}


_INITIAL_WEIGHTS: dict[str, Callable[[Tensor], object]] = {
    "he_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),  # deviation sqrt(2 / inputs)
    "glorot": nn.init.xavier_uniform_,
}


def build(layers: Sequence[Layer], input_shape: Shape, *, seed: int, init: str = "pytorch") -> nn.Sequential:
    """The network with its initial weights, on the CPU.

    Each layer draws from its own stream, named after its kind and its place among its kind ("Conv1"), so that adding
    a batch norm or a skip connection, or widening one layer, leaves the initial weights of all other layers as they
    were. The caller's random state is untouched.

    Args:
        layers: from `network_layers`.
        input_shape: (channels, height, width).
        seed: the run's seed.
        init: `pytorch`; or `he_normal` (svalheim, equations 37 to 39) or `glorot`, with biases of 0.

    Returns:
        A module taking float (batch, channels, height, width) to logits (batch, classes).
    """
    return _sequence(layers, iter(trace(layers, input_shape)), seed=seed, init=init)


def _sequence(layers: Sequence[Layer], steps: Iterator[TracedLayer], *, seed: int, init: str) -> nn.Sequential:
    """Modules for layers, whose steps come next in the order of `trace`."""
    modules = nn.Sequential()
    for layer in layers:
        if isinstance(layer, Residual):
            branch = _sequence(layer.branch, steps, seed=seed, init=init)
            shortcut = _sequence(layer.shortcut, steps, seed=seed, init=init)
            modules.add_module(next(steps).name, ResidualBlock(branch, shortcut))
        else:
            step = next(steps)
            modules.add_module(step.name, _module(step, seed=seed, init=init))
    return modules


def _module(step: TracedLayer, *, seed: int, init: str) -> nn.Module:
    """One layer with its initial weights."""
    with generators.seeded(stream_seed(seed, f"weights/{step.name}")):
        module = _MODULES[step.layer.kind](step.layer, step.input_shape)
        if init != "pytorch" and isinstance(module, nn.Conv2d | nn.Linear):
            _INITIAL_WEIGHTS[init](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return module


def _activation(layer: Activation) -> nn.Module:
    module: nn.Module = ACTIVATIONS[layer.name](nn)
    if isinstance(module, nn.LeakyReLU):
        module.negative_slope = layer.leaky_slope
    return module
