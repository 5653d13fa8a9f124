"""Layer lists -> torch modules, every layer with initial weights of its own random stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from cnn_ablation.activations import ACTIVATIONS
from cnn_ablation.models.layers import Layer, Shape, trace
from cnn_ablation.streams import stream_seed

# kind -> module, from the layer and the shape that reaches it
_MODULES: dict[str, Callable[[Any, Shape], nn.Module]] = {
    "Conv": lambda layer, shape: nn.Conv2d(
        shape[0], layer.filters, layer.kernel, stride=layer.stride, padding=layer.padding
    ),
    "MaxPool": lambda layer, shape: nn.MaxPool2d(layer.window, layer.stride),
    "BatchNorm": lambda layer, shape: nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0]),
    "Activation": lambda layer, shape: ACTIVATIONS[layer.name](nn),
    "Dropout": lambda layer, shape: nn.Dropout(layer.probability),
    "Flatten": lambda layer, shape: nn.Flatten(),
    "Linear": lambda layer, shape: nn.Linear(shape[0], layer.width),
    "Softmax": lambda layer, shape: nn.Softmax(dim=1),
}


def build(layers: Sequence[Layer], input_shape: Shape, *, seed: int) -> nn.Sequential:
    """The network with PyTorch's default initial weights, on the CPU.

    Each layer draws from its own stream, named after its kind and its place among its kind ("Conv1"), so that adding
    a batch norm or widening one layer leaves the initial weights of all other layers as they were. The caller's
    random state is untouched.

    Args:
        layers: from `network_layers`.
        input_shape: (channels, height, width).
        seed: the run's seed.

    Returns:
        A module taking float (batch, channels, height, width) to logits (batch, classes).
    """
    network, seen = nn.Sequential(), Counter[str]()
    for step in trace(layers, input_shape):
        kind = step.layer.kind
        seen[kind] += 1
        name = f"{kind}{seen[kind]}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, f"weights/{name}"))
            network.add_module(name, _MODULES[kind](step.layer, step.input_shape))
    return network
