"""Networks: a table of names, each a function from its settings to a list of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cnn_ablation import provenance
from cnn_ablation.activations import ACTIVATIONS
from cnn_ablation.config import ModelConfig
from cnn_ablation.models import three_conv
from cnn_ablation.models.layers import Layer

NETWORKS: dict[str, Callable[[ModelConfig, int], list[Layer]]] = {"three_conv": three_conv.layers}


def extensions(model: ModelConfig) -> tuple[Any, ...]:
    """The registered functions that a model uses, which may come from outside the package."""
    return ACTIVATIONS[model.activation], NETWORKS[model.name]


def has_extensions(model: ModelConfig) -> bool:
    """Whether a model uses something that was registered in this process alone."""
    return any(provenance.extension_version(extension) for extension in extensions(model))


def network_layers(model: ModelConfig, num_classes: int) -> list[Layer]:
    """The layers of the configured network, its last one giving `num_classes` logits."""
    return NETWORKS[model.name](model, num_classes)
