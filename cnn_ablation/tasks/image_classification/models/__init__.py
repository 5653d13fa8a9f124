"""Networks: a table of names, each a function from its settings to a list of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cnn_ablation.runs import provenance
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS
from cnn_ablation.tasks.image_classification.config import CONV_NETWORKS, NetworkConfig
from cnn_ablation.tasks.image_classification.models import convolutional, mlp
from cnn_ablation.tasks.image_classification.models.layers import Layer

NETWORKS: dict[str, Callable[[Any, int], list[Layer]]] = {
    **dict.fromkeys(CONV_NETWORKS, convolutional.layers),
    "svalheim_mlp": mlp.layers,
    "jappinen_mlp": mlp.layers,
}


def extensions(model: NetworkConfig) -> tuple[Any, ...]:
    """The registered functions that a model uses, which may come from outside the package."""
    return ACTIVATIONS[model.activation], NETWORKS[model.name]


def has_extensions(model: NetworkConfig) -> bool:
    """Whether a model uses something that was registered in this process alone."""
    return any(provenance.extension_version(extension) for extension in extensions(model))


def network_layers(model: NetworkConfig, num_classes: int) -> list[Layer]:
    """The layers of the configured network, its last one giving `num_classes` logits.

    Raises:
        ConfigError: its settings contradict each other.
    """
    return NETWORKS[model.name](model, num_classes)
