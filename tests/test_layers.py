"""Sizes and counts by arithmetic, against the formulas of the papers and against what torch builds."""

from __future__ import annotations

import pytest
import torch

from cnn_ablation.tasks.image_classification.config import ModelConfig
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.build import build
from cnn_ablation.tasks.image_classification.models.layers import (
    Conv,
    Flatten,
    LayerError,
    Linear,
    MaxPool,
    total_params,
    trace,
    window_output_size,
)

EQ2425 = ModelConfig()


@pytest.mark.parametrize(("n_f", "f", "c"), [(24, 5, 3), (48, 3, 24), (96, 3, 48), (1, 1, 1)])
def test_a_convolution_has_n_f_times_f_f_c_plus_1_parameters(n_f: int, f: int, c: int) -> None:
    expected = n_f * (f * f * c + 1)
    assert Conv(n_f, f).num_params((c, 32, 32)) == expected
    assert sum(p.numel() for p in torch.nn.Conv2d(c, n_f, f).parameters()) == expected


@pytest.mark.parametrize("n", [5, 8, 32])
@pytest.mark.parametrize("f", [1, 3, 5])
@pytest.mark.parametrize("s", [1, 2, 3])
@pytest.mark.parametrize("p", [0, 1, 2])
def test_output_size_is_floor_n_plus_2p_minus_f_over_s_plus_1(n: int, f: int, s: int, p: int) -> None:
    out = torch.nn.functional.conv2d(torch.zeros(1, 1, n, n), torch.zeros(1, 1, f, f), stride=s, padding=p)
    assert window_output_size(n, f, s, p) == out.shape[-1]


def test_eq2425_has_256058_parameters_and_these_maps() -> None:
    layers = network_layers(EQ2425, 10)
    assert total_params(layers, (3, 32, 32)) == 256_058
    maps = [step.output_shape for step in trace(layers, (3, 32, 32)) if isinstance(step.layer, Conv | MaxPool | Linear)]
    assert maps == [
        (24, 28, 28), (24, 14, 14), (48, 12, 12), (48, 6, 6), (96, 4, 4), (96, 2, 2), (512,), (10,),
    ]  # fmt: skip


def test_eq2425_follows_the_order_of_layers_of_the_paper() -> None:
    kinds = [layer.kind for layer in network_layers(EQ2425, 10)]
    assert kinds == [
        "Conv", "Activation", "MaxPool", "Conv", "Activation", "MaxPool", "Conv", "MaxPool",
        "Flatten", "Linear", "Activation", "Linear",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "shape", "classes"),
    [
        (ModelConfig(), (3, 32, 32), 10),
        (ModelConfig(filters=[64, 128, 256], hidden=[512, 128], kernel_sizes=[7, 5, 3]), (3, 32, 32), 10),
        (ModelConfig(batch_norm=True, dropout=0.3, activation="prelu"), (1, 28, 28), 7),
        (ModelConfig(filters=[5], kernel_sizes=[4], hidden=[]), (2, 9, 9), 3),
        (ModelConfig(activation="none"), (3, 64, 64), 100),
    ],
    ids=["eq2425", "wide", "all knobs", "one layer", "larger"],
)
def test_arithmetic_agrees_with_torch(model: ModelConfig, shape: tuple[int, int, int], classes: int) -> None:
    layers = network_layers(model, classes)
    network = build(layers, shape, seed=0).eval()
    assert total_params(layers, shape) == sum(p.numel() for p in network.parameters())
    values = torch.zeros(2, *shape)
    for step, module in zip(trace(layers, shape), network, strict=True):
        values = module(values)
        assert values.shape[1:] == step.output_shape
    assert values.shape == (2, classes)


def test_a_filter_larger_than_its_map_is_refused_with_its_place() -> None:
    with pytest.raises(LayerError, match="a 7x7 filter does not fit a 4x4 map") as error:
        trace([MaxPool(), Conv(8, 7), Flatten()], (3, 8, 8))
    assert error.value.index == 1


def test_multiply_adds_of_a_convolution_count_every_position() -> None:
    assert Conv(24, 5).multiply_adds((3, 32, 32)) == 28 * 28 * 24 * 5 * 5 * 3
    assert Linear(10).multiply_adds((512,)) == 5120
