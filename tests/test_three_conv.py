"""The network against a forward pass written by hand in NumPy, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from cnn_ablation.tasks.image_classification.config import ModelConfig
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.build import build

ACTIVATIONS = {
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "leaky": lambda x: np.where(x > 0, x, x / 100),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "prelu": lambda x: np.where(x > 0, x, 0.25 * x),
    "none": lambda x: x,
}


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Valid cross-correlation: (N, C, H, W) with (F, C, k, k)."""
    windows = sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,fcij->nfhw", windows, weight) + bias[None, :, None, None]


def max_pool(x: np.ndarray) -> np.ndarray:
    """2x2, stride 2; an odd last row or column is left out."""
    n, c, h, w = x.shape
    return x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


def normalise(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return (x - mean[None, :, None, None]) / np.sqrt(variance[None, :, None, None] + 1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_forward_pass(activation: str, batch_norm: bool) -> None:
    model = ModelConfig(filters=[4, 5, 6], hidden=[7], activation=activation, batch_norm=batch_norm, dropout=0.3)
    network = build(network_layers(model, 10), (3, 32, 32), seed=3).double().eval()
    weights = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    act = ACTIVATIONS[activation]
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32))

    expected = x
    for index in (1, 2, 3):
        expected = convolve(expected, weights[f"Conv{index}.weight"], weights[f"Conv{index}.bias"])
        if batch_norm:
            name = f"BatchNorm{index}"
            expected = normalise(expected, weights[f"{name}.running_mean"], weights[f"{name}.running_var"])
        if index < 3:
            expected = act(expected)
        expected = max_pool(expected)
    expected = expected.reshape(2, -1)
    expected = act(expected @ weights["Linear1.weight"].T + weights["Linear1.bias"])
    expected = expected @ weights["Linear2.weight"].T + weights["Linear2.bias"]

    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(x)).numpy(), expected, rtol=1e-10, atol=1e-12)
