"""What our networks, losses and optimisers compute, against NumPy from the papers' equations, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from torch import nn

from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS
from cnn_ablation.tasks.image_classification.config import (
    AdaGradConfig,
    AdamConfig,
    AdamWConfig,
    MLPConfig,
    ModelConfig,
    NetworkConfig,
    OptimizerConfig,
    RMSPropConfig,
    SGDConfig,
)
from cnn_ablation.tasks.image_classification.losses import LOSSES
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.build import build
from cnn_ablation.tasks.image_classification.models.modules import GlobalAveragePool, ResidualBlock
from cnn_ablation.tasks.image_classification.optimizers import make_optimizer

SHAPE, CLASSES, BATCH = (2, 9, 8), 4, 5
SMALL = ModelConfig(filters=[3, 4], kernel_sizes=[3, 2], hidden=[6], pool_after=[True, False], last_activation=True)
RESIDUAL: dict[str, Any] = {"filters": [3, 3, 3, 4, 4], "kernel_sizes": 3, "padding": "same", "pool_after": False}
RULES: list[tuple[OptimizerConfig, oracle.Rule]] = [
    (SGDConfig(lr=0.1), oracle.GradientDescent(0.1)),
    (SGDConfig(lr=0.1, momentum=0.9), oracle.GradientDescent(0.1, momentum=0.9)),
    (SGDConfig(lr=0.1, momentum=0.9, nesterov=True), oracle.GradientDescent(0.1, momentum=0.9, nesterov=True)),
    (AdaGradConfig(lr=0.01), oracle.AdaGrad(0.01)),
    (RMSPropConfig(lr=0.001, alpha=0.9), oracle.RMSProp(0.001)),
    (AdamConfig(lr=0.001), oracle.Adam(0.001)),
    (AdamWConfig(lr=0.01), oracle.AdamW(0.01)),
    (AdamWConfig(lr=0.001, weight_decay=3.0), oracle.AdamW(0.001, decay=3.0)),
]


def both(model: NetworkConfig, shape: tuple[int, ...] = SHAPE) -> tuple[nn.Sequential, oracle.Network]:
    """Our network in float64 and the oracle with the same weights."""
    ours = build(network_layers(model, CLASSES), shape, seed=1, init=model.init).double()
    return ours, oracle.Network(twins(ours, model))


def twins(layers: nn.Module, model: NetworkConfig) -> dict[str, Any]:
    return {name: twin(module, model) for name, module in layers.named_children()}


def twin(module: nn.Module, model: NetworkConfig) -> Any:
    """The oracle's layer for one of ours."""
    weights = {name: value.detach().numpy().copy() for name, value in module.named_parameters()}
    if isinstance(module, nn.Conv2d):
        return oracle.Conv(**weights, stride=module.stride[0], padding=int(module.padding[0]))
    if isinstance(module, nn.Linear):
        return oracle.Dense(**weights)
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        return oracle.BatchNorm(**weights)
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        kind = "max" if isinstance(module, nn.MaxPool2d) else "average"
        return oracle.Pool(kind, int(module.kernel_size), int(module.stride))
    return twin_without_sizes(module, model, weights)


def twin_without_sizes(module: nn.Module, model: NetworkConfig, weights: dict[str, np.ndarray]) -> Any:
    if isinstance(module, ResidualBlock):
        return oracle.Residual(twins(module.branch, model), twins(module.shortcut, model))
    if isinstance(module, GlobalAveragePool):
        return oracle.GlobalAveragePool()
    if isinstance(module, nn.PReLU):
        return oracle.PReLU(**weights)
    return oracle.Flatten() if isinstance(module, nn.Flatten) else oracle.Activation(model.activation)


def batch(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(BATCH, *shape)), generator.integers(CLASSES, size=BATCH)


def assert_same_loss_and_gradients(ours: nn.Sequential, theirs: oracle.Network, loss: str, seed: int) -> None:
    inputs, labels = batch(seed)
    found = LOSSES[loss](ours(torch.from_numpy(inputs)), torch.from_numpy(labels))
    ours.zero_grad()
    found.backward()
    expected = theirs.loss(inputs, np.eye(CLASSES)[labels], loss)
    assert found.item() == pytest.approx(expected, rel=1e-10)
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    compared = {name: gradient for name, _, gradient in theirs.parameters()}
    assert gradients.keys() == compared.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient.numpy(), compared[name], rtol=1e-8, atol=1e-11, err_msg=name)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"strides": 2, "padding": "same", "kernel_sizes": [3, 3]},
        {"strides": [1, 2]},
        {"pool": "average"},
        {"pool_size": 3, "pool_stride": 2},  # overlapping, as in AlexNet
        {"pool": "average", "pool_size": 3, "pool_stride": 1},
        {"batch_norm": True},
        {"batch_norm": True, "batch_norm_place": "after"},
        {"last_activation": False},
        {"init": "he_normal"},
        {"global_pool": True},
        {"residual": 1, "kernel_sizes": [3, 1]},
        {"residual": 2, **RESIDUAL},
        {"residual": 2, **RESIDUAL, "strides": [1, 1, 1, 1, 2], "batch_norm": True, "global_pool": True},
        {"residual": 3, **RESIDUAL, "batch_norm": True, "batch_norm_place": "after", "init": "glorot"},
    ],
    ids=str,
)
def test_layers(change: dict[str, Any]) -> None:
    ours, theirs = both(replace(SMALL, **change))
    assert_same_loss_and_gradients(ours, theirs, "cross_entropy", seed=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_and_their_derivatives(activation: str) -> None:
    ours, theirs = both(replace(SMALL, activation=activation))
    assert_same_loss_and_gradients(ours, theirs, "cross_entropy", seed=1)


def test_the_slope_of_leaky_relu_is_the_knobs() -> None:
    network, _ = both(replace(SMALL, activation="leaky", leaky_slope=0.25))
    assert network.Activation1(torch.tensor([-4.0, 4.0])).tolist() == [-1.0, 4.0]


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss: str) -> None:
    ours, theirs = both(replace(SMALL, activation="tanh"))
    assert_same_loss_and_gradients(ours, theirs, loss, seed=2)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_single_images_sum_and_average(loss: str) -> None:
    outputs, labels = torch.randn(7, CLASSES, generator=torch.Generator().manual_seed(0)).double(), torch.arange(7) % 4
    each = LOSSES[loss](outputs, labels, reduction="none")
    expected, _ = oracle.LOSSES[loss](outputs.numpy(), np.eye(CLASSES)[labels.numpy()])
    np.testing.assert_allclose(each.numpy(), expected, rtol=1e-12)
    assert LOSSES[loss](outputs, labels, reduction="sum").item() == pytest.approx(expected.sum())
    assert LOSSES[loss](outputs, labels).item() == pytest.approx(expected.mean())


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_stay_finite_where_a_class_is_certain(loss: str) -> None:
    outputs = torch.tensor([[80.0, 0.0, 0.0, 0.0]], requires_grad=True)
    for label in (0, 1):
        value = LOSSES[loss](outputs, torch.tensor([label]))
        (gradient,) = torch.autograd.grad(value, outputs)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("config", "rule"), RULES, ids=lambda value: type(value).__name__)
def test_ten_updates(config: OptimizerConfig, rule: oracle.Rule) -> None:
    """The weights after ten steps on ten batches."""
    ours, theirs = both(replace(SMALL, activation="tanh"))
    rule = replace(rule, memory={}, step=0)
    optimizer = make_optimizer(config, ours.named_parameters(), torch.device("cpu"))
    for seed in range(10):
        assert_same_loss_and_gradients(ours, theirs, "cross_entropy", seed)
        optimizer.step()
        rule.update(theirs)
    after = {name: parameter.detach().numpy() for name, parameter in ours.named_parameters()}
    for name, value, _ in theirs.parameters():
        np.testing.assert_allclose(after[name], value, rtol=1e-7, atol=1e-10, err_msg=name)


def test_fully_connected_networks() -> None:
    ours, theirs = both(MLPConfig(hidden=[7, 5], init="glorot"))
    assert_same_loss_and_gradients(ours, theirs, "cross_entropy", seed=3)


def test_dropout_scales_what_it_keeps() -> None:
    layer = build(network_layers(replace(SMALL, dropout=0.3), CLASSES), SHAPE, seed=0).Dropout1
    values = torch.rand(200, 50, dtype=torch.float64) + 0.5
    dropped = layer(values)
    kept = (dropped != 0).numpy()
    np.testing.assert_allclose(dropped.numpy(), oracle.dropout(values.numpy(), kept, 0.3), rtol=1e-12)
    assert kept.mean() == pytest.approx(0.7, abs=0.02)
    assert torch.equal(layer.eval()(values), values)


def test_penalties_add_their_gradient() -> None:
    """Sorensen, equation 2.10: weights, biases and the output layer each have their own."""
    ours, theirs = both(SMALL)
    config = SGDConfig(lr=1.0, weight_decay=0.1, weight_decay_biases=0.2, weight_decay_output=0.3)
    before = {name: value.detach().clone() for name, value in ours.named_parameters()}
    optimizer = make_optimizer(config, ours.named_parameters(), torch.device("cpu"))
    assert_same_loss_and_gradients(ours, theirs, "cross_entropy", seed=4)
    optimizer.step()
    for name, after in ours.named_parameters():
        penalty = 0.3 if name == "Linear2.weight" else 0.2 if name.endswith("bias") else 0.1
        expected = before[name] - after.grad - penalty * before[name]
        torch.testing.assert_close(after.detach(), expected)


def test_he_normal_weights_have_the_deviation_of_equation_37() -> None:
    """And biases are 0 (equation 39); Glorot's weights lie within sqrt(6 / (inputs + outputs))."""
    layers = network_layers(MLPConfig(hidden=[300, 200]), 10)
    he, glorot = (build(layers, (3, 32, 32), seed=0, init=init) for init in ("he_normal", "glorot"))
    for name, inputs, outputs in (("Linear1", 3072, 300), ("Linear2", 300, 200)):
        assert float(he.get_parameter(f"{name}.weight").detach().std()) == pytest.approx(np.sqrt(2 / inputs), rel=0.02)
        largest = float(glorot.get_parameter(f"{name}.weight").detach().abs().max())
        assert largest == pytest.approx(np.sqrt(6 / (inputs + outputs)), rel=0.01)
        for network in (he, glorot):
            assert not network.get_parameter(f"{name}.bias").detach().any()
