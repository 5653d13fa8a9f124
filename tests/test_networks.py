"""The papers' networks: parameter counts and layer tables as printed, and every knob against what torch builds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import cnn_ablation
from cnn_ablation import describe
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.tasks.image_classification.config import ModelConfig, NetworkConfig
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.build import build
from cnn_ablation.tasks.image_classification.models.layers import LayerError, trace

# What the papers print: all parameters, trainable ones.
COUNTS = [
    ("model=three_conv data=cifar10", 256_058, 256_058),  # eq2425
    ("model=sorensen data=cifar10", 34_912, 34_656),  # figure A.2
    ("model=jappinen_mlp data=cifar10", 404_010, 404_010),  # figure 18
    ("model=jappinen_mlp data=fashion_mnist", 111_146, 111_146),  # figure 27
    ("model=jappinen_cnn data=cifar10", 329_194, 328_810),  # figure 22
    ("model=jappinen_cnn data=fashion_mnist", 267_178, 266_794),  # figure 31
    ("model=lenet5 data=mnist data.image_size=32", 61_706, 61_706),  # figure 13
    ("model=alexnet input=[3,227,227] classes=1000", 60_965_224, 60_965_224),  # figure 15
]


@pytest.mark.parametrize(("arguments", "parameters", "trainable"), COUNTS, ids=str)
def test_describe_prints_the_papers_parameter_counts(
    arguments: str, parameters: int, trainable: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert describe.main(arguments.split()) == 0
    assert f"{parameters:,} parameters, {trainable:,} of them trainable" in capsys.readouterr().out


def test_describe_prints_sorensens_layer_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Figure A.2: output shapes and parameters of all layers."""
    describe.main(["model=sorensen", "data=cifar10"])
    rows = [line.strip("│ ").split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    table = [(row[0].strip(), row[2].strip(), row[3].strip()) for row in rows]
    assert table == [
        ("Conv1", "32 x 32 x 32", "896"), ("Activation1", "32 x 32 x 32", "0"), ("BatchNorm1", "32 x 32 x 32", "128"),
        ("MaxPool1", "32 x 16 x 16", "0"), ("Dropout1", "32 x 16 x 16", "0"),
        ("Conv2", "32 x 14 x 14", "9,248"), ("Activation2", "32 x 14 x 14", "0"), ("BatchNorm2", "32 x 14 x 14", "128"),
        ("MaxPool2", "32 x 7 x 7", "0"), ("Dropout2", "32 x 7 x 7", "0"),
        ("Conv3", "64 x 7 x 7", "18,496"), ("Activation3", "64 x 7 x 7", "0"), ("BatchNorm3", "64 x 7 x 7", "256"),
        ("MaxPool3", "64 x 3 x 3", "0"), ("Dropout3", "64 x 3 x 3", "0"),
        ("Flatten1", "576", "0"), ("Linear1", "10", "5,760"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["input=[3,x]"], ["input=[3,x]", "input=[3,32,32]"]),
        (["input=[3,0,32]"], ["each at least 1"]),
        (["classes=one"], ["classes=one", "at least 2"]),
        (["model=alexnet"], ["a 3x3 pooling window does not fit a 2x2 map", "data.image_size above 32"]),
        (["model.activation=rleu"], ["did you mean: model.activation=relu"]),
        (["model=lenet6"], ["lenet5"]),
        (["model.dropout=2"], ["model.dropout=2", "below 1"]),
    ],
)
def test_describe_refuses_bad_input(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert describe.main(arguments) == 2
    printed = capsys.readouterr().err
    assert all(word in printed for word in words), printed


def test_torchvisions_alexnet_is_another_one() -> None:
    """Its 61,100,840 parameters are those of one tower: 64, 192, 384, 256, 256 filters, no groups."""
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        theirs = sum(parameter.numel() for parameter in torchvision.models.alexnet().parameters())
    one_tower = ["model.filters=[64,192,384,256,256]", "model.groups=1"]
    ours = cnn_ablation.compose(["model=alexnet", *one_tower]).model
    assert theirs == 61_100_840
    assert sum(step.num_params for step in trace(network_layers(ours, 1000), (3, 227, 227))) == theirs


PER_MODEL = [
    ("sorensen", (3, 32, 32)),
    ("svalheim_mlp", (1, 28, 28)),
    ("svalheim_cnn", (3, 32, 32)),
    ("jappinen_mlp", (3, 32, 32)),
    ("jappinen_cnn", (1, 28, 28)),
    ("lenet5", (1, 32, 32)),
]
KNOBS: list[dict[str, Any]] = [
    {"strides": 2, "padding": "same", "pool_after": False},
    {"strides": [1, 2, 1], "padding": ["same", "valid", "same"], "kernel_sizes": [3]},
    {"pool": "average", "pool_size": 3, "pool_stride": 1},
    {"pool_after": [True, False, True], "conv_dropout": 0.2},
    {"groups": [1, 2, 4], "last_activation": True},
    {"batch_norm": True, "batch_norm_place": "after", "activation": "prelu"},
    {"output_bias": False, "init": "glorot"},
]


def assert_arithmetic_agrees(model: NetworkConfig, shape: tuple[int, int, int]) -> None:
    layers = network_layers(model, 10)
    network = build(layers, shape, seed=0, init=model.init).eval()
    steps = trace(layers, shape)
    assert sum(step.num_params for step in steps) == sum(values.numel() for values in network.parameters())
    kept = sum(values.numel() for name, values in network.named_buffers() if name.endswith(("mean", "var")))
    assert sum(step.num_statistics for step in steps) == kept
    values = torch.zeros(2, *shape)
    for step, module in zip(steps, network, strict=True):
        values = module(values)
        assert values.shape[1:] == step.output_shape


@pytest.mark.parametrize(("name", "shape"), PER_MODEL)
def test_arithmetic_agrees_with_torch(name: str, shape: tuple[int, int, int]) -> None:
    assert_arithmetic_agrees(cnn_ablation.compose([f"model={name}"]).model, shape)


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_every_knob_of_a_network_agrees_with_torch(knobs: dict[str, Any]) -> None:
    assert_arithmetic_agrees(replace(ModelConfig(filters=[4, 8, 12], hidden=[9]), **knobs), (2, 32, 32))


def test_batch_norm_stands_before_or_after_the_activation() -> None:
    def kinds(place: str) -> list[str]:
        model = ModelConfig(filters=[4, 4], kernel_sizes=[3], batch_norm=True, batch_norm_place=place, hidden=[])
        return [layer.kind for layer in network_layers(model, 10)][:3]

    assert kinds("before") == ["Conv", "BatchNorm", "Activation"]
    assert kinds("after") == ["Conv", "Activation", "BatchNorm"]


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"strides": [1, 2]}, "3 strides, one for each"),
        ({"pool_after": [True]}, None),
        ({"padding": ["same", "valid"]}, "3 padding, one for each"),
        ({"padding": "same", "kernel_sizes": [5, 4, 3]}, "odd filter sizes; here 4x4"),
    ],
)
def test_lists_have_one_entry_for_each_convolution(knobs: dict[str, Any], words: str | None) -> None:
    model = ModelConfig(**knobs)
    if words is None:
        assert network_layers(model, 10)
        return
    with pytest.raises(ConfigError, match=words):
        network_layers(model, 10)


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(LayerError, match="does not fit 2 groups of 3 channels"):
        trace(network_layers(ModelConfig(groups=2), 10), (3, 32, 32))


def test_a_knob_of_the_network_leaves_other_layers_initial_weights() -> None:
    """Each layer has a stream of its own, whatever its initial distribution is."""

    def first(**knobs: Any) -> torch.Tensor:
        model = replace(ModelConfig(init="he_normal"), **knobs)
        return build(network_layers(model, 10), (3, 32, 32), seed=3, init=model.init).Conv1.weight

    assert torch.equal(first(), first(batch_norm=True, padding="same", pool="average"))
    assert not torch.equal(first(), first(init="glorot"))


def test_average_pooling_is_not_rewritten() -> None:
    """max(f(a)) = f(max(a)) holds for the maximum only."""
    from cnn_ablation.tasks.image_classification.engine.networks import rewritten

    model = ModelConfig(filters=[4], kernel_sizes=[3], pool="average", last_activation=True)
    network = build(network_layers(model, 10), (1, 16, 16), seed=0)
    assert [type(module) for module in rewritten(network)][1:3] == [nn.ReLU, nn.AvgPool2d]
