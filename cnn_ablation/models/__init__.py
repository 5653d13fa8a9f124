"""Networks: a table of names, each a function from its settings to a list of layers."""

from __future__ import annotations

from collections.abc import Callable

from cnn_ablation.config import ModelConfig
from cnn_ablation.models import three_conv
from cnn_ablation.models.layers import Layer

NETWORKS: dict[str, Callable[[ModelConfig, int], list[Layer]]] = {"three_conv": three_conv.layers}


def network_layers(model: ModelConfig, num_classes: int) -> list[Layer]:
    """The layers of the configured network, its last one giving `num_classes` logits."""
    return NETWORKS[model.name](model, num_classes)
