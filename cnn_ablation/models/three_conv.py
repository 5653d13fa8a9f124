"""The eq2425 network: three convolutions with pooling, then fully connected layers (section 4 of the paper)."""

from __future__ import annotations

from cnn_ablation.config import ModelConfig
from cnn_ablation.models.layers import Activation, BatchNorm, Conv, Dropout, Flatten, Layer, Linear, MaxPool, Softmax


def layers(model: ModelConfig, num_classes: int) -> list[Layer]:
    """The network as a list of layers, ending in one logit per class (or, with `output=softmax`, one probability).

    As in the paper, convolutions are 'valid' with stride 1, every one is followed by 2x2 max pooling, and the last
    one has no activation. Batch norm, where switched on, stands between a convolution and its activation; dropout
    after the activation of every hidden fully connected layer. `output=softmax` is a mistake to study: cross-entropy
    applies a softmax itself.
    """
    stack: list[Layer] = []
    last = len(model.filters) - 1
    for index, (filters, kernel) in enumerate(zip(model.filters, model.kernel_sizes, strict=True)):
        stack.append(Conv(filters, kernel))
        if model.batch_norm:
            stack.append(BatchNorm())
        if index != last:
            stack.append(Activation(model.activation))
        stack.append(MaxPool())
    stack.append(Flatten())
    for width in model.hidden:
        stack += [Linear(width), Activation(model.activation)]
        if model.dropout:
            stack.append(Dropout(model.dropout))
    return [*stack, Linear(num_classes), *([Softmax()] if model.output == "softmax" else [])]
