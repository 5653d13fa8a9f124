"""Networks: a table of names, each a function from its settings to a list of layers; or a module of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS
from cnn_ablation.tasks.image_classification.config import CONV_NETWORKS, AnyNetworkConfig, ModuleConfig
from cnn_ablation.tasks.image_classification.models import convolutional, mlp
from cnn_ablation.tasks.image_classification.models.layers import Layer, Shape
from cnn_ablation.tasks.image_classification.models.spec import NetworkSpec, of_layers

if TYPE_CHECKING:
    from torch import nn

NETWORKS: dict[str, Callable[[Any, int], list[Layer]]] = {
    **dict.fromkeys(CONV_NETWORKS, convolutional.layers),
    "svalheim_mlp": mlp.layers,
    "jappinen_mlp": mlp.layers,
}


def extensions(model: AnyNetworkConfig) -> tuple[Any, ...]:
    """The functions and classes that a model uses, which may come from outside the package."""
    if isinstance(model, ModuleConfig):
        from cnn_ablation.common import imports

        return (imports.named("model.target", model.target),)
    activation = getattr(model, "activation", None)
    return (*([ACTIVATIONS[activation]] if activation in ACTIVATIONS else []), NETWORKS[model.name])


def network_layers(model: AnyNetworkConfig, num_classes: int) -> list[Layer]:
    """The layers of the configured network, its last one giving `num_classes` logits.

    Raises:
        ConfigError: its settings contradict each other.
    """
    return NETWORKS[model.name](model, num_classes)


def arguments(model: ModuleConfig) -> dict[str, Any]:
    """Of a module's constructor, with its defaults: what tells one network of a target from another."""
    from cnn_ablation.tasks.image_classification.models import module

    return module.arguments(model)


def describe(model: AnyNetworkConfig, num_classes: int, input_shape: Shape) -> NetworkSpec:
    """What the configured network is; of a list of layers without torch.

    Raises:
        ConfigError: its settings contradict each other, or it cannot be built.
        LayerError: its layers do not fit the input.
    """
    if isinstance(model, ModuleConfig):
        from cnn_ablation.tasks.image_classification.models import module

        return module.spec(model, num_classes, input_shape)
    return of_layers(network_layers(model, num_classes), input_shape)


def build_network(model: AnyNetworkConfig, num_classes: int, input_shape: Shape, *, seed: int) -> nn.Module:
    """The configured network with its initial weights, on the CPU.

    Args:
        model: checked.
        num_classes: of the data.
        input_shape: (channels, height, width).
        seed: the run's seed.
    """
    if isinstance(model, ModuleConfig):
        from cnn_ablation.tasks.image_classification.models import module

        return module.build(model, num_classes, input_shape, seed=seed)
    from cnn_ablation.tasks.image_classification.models.build import build

    layers, init = network_layers(model, num_classes), getattr(model, "init", "pytorch")
    return build(layers, input_shape, seed=seed, init=init)
