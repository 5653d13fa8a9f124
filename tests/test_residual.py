"""Skip connections and global average pooling: which convolutions they span, what they count, what they leave alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Answer
from torch import Tensor, nn
from torch.nn import functional as F

from cnn_ablation import describe
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.common.streams import stream_seed
from cnn_ablation.runs.run import run
from cnn_ablation.study import checks
from cnn_ablation.tasks.image_classification import data, diagnoses, engine
from cnn_ablation.tasks.image_classification import weights as trained
from cnn_ablation.tasks.image_classification.config import Config, ModelConfig
from cnn_ablation.tasks.image_classification.engine import linear
from cnn_ablation.tasks.image_classification.engine.convolution import Convolution
from cnn_ablation.tasks.image_classification.engine.dropout import OwnDropout
from cnn_ablation.tasks.image_classification.engine.networks import rewritten
from cnn_ablation.tasks.image_classification.engine.pooling import PooledActivation
from cnn_ablation.tasks.image_classification.engine.steps import _with_generator
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.build import build
from cnn_ablation.tasks.image_classification.models.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    Layer,
    LayerError,
    Linear,
    MaxPool,
    Residual,
    trace,
)
from cnn_ablation.tasks.image_classification.models.modules import ResidualBlock
from cnn_ablation.tasks.image_classification.task import cost, footprint

CPU = torch.device("cpu")
SAME: dict[str, Any] = {"kernel_sizes": 3, "padding": "same", "pool_after": False, "hidden": []}


def resnet(depth: int, width: int = 16, **changes: Any) -> ModelConfig:
    """He et al.'s network for CIFAR-10 of 6 n + 2 weighted layers (section 4.2), with projections (their option B)."""
    n = (depth - 2) // 6
    filters = [width, *[width] * 2 * n, *[2 * width] * 2 * n, *[4 * width] * 2 * n]
    strides = [1, *[1] * 2 * n, *[2, *[1] * (2 * n - 1)] * 2]
    model = ModelConfig(
        filters=filters, strides=strides, residual=2, batch_norm=True, last_activation=True, global_pool=True, **SAME
    )
    return replace(model, **changes)


RESNET_8 = resnet(8, width=4)


def outline(layers: list[Layer] | tuple[Layer, ...]) -> str:
    """`C [C C] P [C|S]`: convolutions, blocks, and shortcuts that are no identity."""
    words = {"Conv": "C", "MaxPool": "P"}
    parts = []
    for layer in layers:
        if isinstance(layer, Residual):
            parts.append(f"[{outline(layer.branch)}{'|' + outline(layer.shortcut) if layer.shortcut else ''}]")
        elif layer.kind in words:
            parts.append(words[layer.kind])
    return " ".join(parts)


@pytest.mark.parametrize(
    ("expected", "settings"),
    [
        ("C C C C C", {"residual": 0}),
        ("C [C C] [C C]", {}),
        ("C [C C C] [C]", {"residual": 3}),
        ("C [C] [C] [C] [C]", {"residual": 1}),
        ("C [C C C C]", {"residual": 9}),
        ("C [C C|C] [C C]", {"filters": [3, 3, 5, 5, 5]}),
        ("C [C C] [C C]", {"filters": [3, 3, 3, 5, 3]}),
        ("C [C C] [C C|C]", {"strides": [1, 1, 1, 1, 2]}),
        ("C [C] P [C C] [C]", {"pool_after": [False, True, False, False, False]}),
        ("C P [C] P [C] P [C] P [C] P", {"pool_after": True}),
        ("C C [C C] C", {"padding": ["same", "valid", "same", "same", "valid"]}),
        ("C [C] C C C", {"kernel_sizes": [3, 1, 3, 3, 3], "padding": "valid"}),
        ("C C C C C", {"padding": "valid"}),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_a_skip_connection_spans_convolutions_that_keep_their_maps(expected: str, settings: dict[str, Any]) -> None:
    model = replace(ModelConfig(filters=[3] * 5, residual=2, **SAME), **settings)
    assert outline(network_layers(model, 10)) == expected


@pytest.mark.parametrize("size", [7, 8, 9, 16])
@pytest.mark.parametrize("strides", [[1, 2, 1], [1, 2, 3], [1, 3, 2], [1, 1, 4]], ids=str)
@pytest.mark.parametrize("kernels", [[3, 3, 3], [3, 5, 1], [3, 1, 3]], ids=str)
def test_a_shortcut_ends_in_the_size_of_its_branch(size: int, strides: list[int], kernels: list[int]) -> None:
    """Whatever the strides are and the sizes left over; torch adds only what has one shape."""
    model = ModelConfig(filters=[2, 3, 3], residual=2, **SAME | {"strides": strides, "kernel_sizes": kernels})
    layers = network_layers(model, 4)
    assert "|" in outline(layers)
    network = build(layers, (1, size, size), seed=0)
    assert network(torch.zeros(2, 1, size, size)).shape == (2, 4)
    assert [step.output_shape for step in trace(layers, (1, size, size))][-1] == (4,)


# -- against He et al. -------------------------------------------------------------------------------------------------


def test_resnet_20_has_the_parameters_of_the_paper() -> None:
    """269,722 without biases of convolutions and with shortcuts that have no weights: 0.27 million (their table 6)."""
    steps = trace(network_layers(resnet(20), 10), (3, 32, 32))
    biases = sum(step.layer.filters for step in steps if isinstance(step.layer, Conv))
    shortcuts = sum(step.num_params for step in steps if step.name.startswith("Shortcut"))
    biases_of_shortcuts = 32 + 64
    assert shortcuts == (16 * 32 + 32) + 2 * 32 + (32 * 64 + 64) + 2 * 64
    assert sum(step.num_params for step in steps) - (biases - biases_of_shortcuts) - shortcuts == 269_722


def by_hand(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """ResNet-8 in evaluation mode, from the paper's figure 2: relu(F(x) + x), strides in the second and third block."""

    def conv_norm(inputs: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = weights[f"{conv}.weight"]
        maps = F.conv2d(inputs, weight, weights[f"{conv}.bias"], stride=stride, padding=weight.shape[-1] // 2)
        mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        return F.batch_norm(maps, mean, variance, weights[f"{norm}.weight"], weights[f"{norm}.bias"])

    def of_block(number: int, inputs: Tensor, stride: int) -> Tensor:
        first, second = (
            (f"Residual{number}.branch.Conv{n}", f"Residual{number}.branch.BatchNorm{n}")
            for n in (2 * number, 2 * number + 1)
        )
        maps = conv_norm(conv_norm(inputs, *first, stride).relu(), *second)
        within = f"Residual{number}.shortcut.Shortcut"
        place = number - 1
        beside = conv_norm(inputs, f"{within}Conv{place}", f"{within}BatchNorm{place}", stride) if place else inputs
        return (maps + beside).relu()

    maps = conv_norm(images, "Conv1", "BatchNorm1").relu()
    for number, stride in [(1, 1), (2, 2), (3, 2)]:
        maps = of_block(number, maps, stride)
    return maps.mean(dim=(2, 3)) @ weights["Linear1.weight"].T + weights["Linear1.bias"]


def stirred(network: nn.Sequential) -> nn.Sequential:
    """With parameters and statistics of batch norm that are not those of the start."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, values in network.state_dict().items():
            if "BatchNorm" in name and values.is_floating_point():
                values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    return network


def test_a_residual_network_computes_what_the_paper_draws() -> None:
    network = stirred(build(network_layers(RESNET_8, 10), (3, 9, 9), seed=2)).double().eval()
    images = torch.randn(3, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = by_hand(dict(network.state_dict()), images)
    torch.testing.assert_close(network(images), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rewritten(network)(images), expected, rtol=1e-12, atol=1e-12)


# -- counts ------------------------------------------------------------------------------------------------------------


def measured(network: nn.Sequential, shape: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """By the last part of a module's name: its output shape, its parameters, and multiplications seen by a hook."""
    found: dict[str, tuple[tuple[int, ...], int, int]] = {}

    def hook(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            own = sum(parameter.numel() for parameter in module.parameters(recurse=isinstance(module, nn.Module)))
            per_output = module.weight[0].numel() if isinstance(module, nn.Conv2d | nn.Linear) else 0
            per_output = 1 if isinstance(module, nn.BatchNorm2d) else per_output
            own = 0 if isinstance(module, ResidualBlock) else own
            found[name] = tuple(output.shape[1:]), own, output[0].numel() * per_output

        return look

    hooks = [
        module.register_forward_hook(hook(name.rpartition(".")[2]))
        for name, module in network.named_modules()
        if not isinstance(module, nn.Sequential)
    ]
    network.eval()(torch.zeros(2, *shape))
    for each in hooks:
        each.remove()
    return found


@pytest.mark.parametrize(
    "model",
    [
        RESNET_8,
        replace(RESNET_8, batch_norm_place="after", activation="prelu"),
        ModelConfig(filters=[4, 8, 8], groups=[1, 2, 4], residual=1, **SAME | {"pool_after": True, "hidden": [7]}),
        ModelConfig(global_pool=True),
    ],
    ids=["resnet", "norm after", "groups", "global pool"],
)
def test_shapes_parameters_and_work_are_those_of_the_modules(model: ModelConfig) -> None:
    layers, shape = network_layers(model, 10), (3, 33, 33)
    network, steps = build(layers, shape, seed=0), trace(layers, shape)
    assert {step.name: (step.output_shape, step.num_params, step.multiply_adds) for step in steps} == measured(
        network, shape
    )
    kept = sum(values.numel() for name, values in network.named_buffers() if name.endswith(("mean", "var")))
    assert sum(step.num_statistics for step in steps) == kept
    assert sum(step.num_params for step in steps) == sum(values.numel() for values in network.parameters())


def test_forecasts_and_the_memory_of_a_process_see_inside(tiny_config: Config) -> None:
    config = replace(tiny_config, model=RESNET_8)
    network = build(network_layers(RESNET_8, 10), (3, 8, 8), seed=0)
    images = data.describe(config.data)
    assert (images.input_shape, images.num_classes) == ((3, 8, 8), 10)
    assert cost(config).num_params == sum(values.numel() for values in network.parameters())
    work = sum(work for _, _, work in measured(network, (3, 8, 8)).values())
    assert cost(config).multiply_adds == work
    plain = replace(config, model=replace(RESNET_8, residual=0))
    assert footprint(config).own > footprint(plain).own > footprint(replace(config, model=resnet(8, width=2))).own


@pytest.mark.parametrize(
    ("residual", "place", "words"),
    [
        (Residual((Conv(4, 3),)), 2, "a residual branch does not fit a shortcut of (2, 8, 8): it gives (4, 6, 6)"),
        (Residual((Conv(4, 1),), (Conv(3, 1),)), 3, "does not fit a shortcut of (3, 8, 8): it gives (4, 8, 8)"),
        (Residual((Conv(4, 9),)), 1, "a 9x9 filter does not fit a 8x8 map"),
        (Residual((Conv(2, 1), Conv(3, 1, groups=2))), 2, "does not fit 2 groups of 2 channels"),
    ],
    ids=["size", "channels", "a filter inside", "groups inside"],
)
def test_a_block_that_does_not_fit_is_refused_with_its_place(residual: Residual, place: int, words: str) -> None:
    """Counted as in the table of `describe`."""
    with pytest.raises(LayerError) as error:
        trace([Conv(2, 1), residual, Flatten()], (1, 8, 8))
    assert words in str(error.value)
    assert error.value.index == place


# -- what a skip connection leaves alone -------------------------------------------------------------------------------


def test_skip_connections_leave_names_and_initial_weights() -> None:
    """All layers of the plain network have their weights in the residual one; a shortcut draws from its own stream."""
    plain, residual = (
        build(network_layers(replace(RESNET_8, residual=spans), 10), (3, 8, 8), seed=7) for spans in (0, 2)
    )
    weights = {
        ".".join(name.split(".")[-2:]): values
        for name, values in residual.state_dict().items()
        if "Shortcut" not in name
    }
    assert weights.keys() == plain.state_dict().keys()
    assert [name for name, values in plain.state_dict().items() if not torch.equal(values, weights[name])] == []
    for number, (channels, filters) in enumerate([(4, 8), (8, 16)], start=1):
        torch.manual_seed(stream_seed(7, f"weights/ShortcutConv{number}"))
        expected = nn.Conv2d(channels, filters, 1, stride=2).weight
        assert torch.equal(
            residual.get_parameter(f"Residual{number + 1}.shortcut.ShortcutConv{number}.weight"), expected
        )


def test_initial_distributions_reach_into_blocks() -> None:
    network = build(network_layers(RESNET_8, 10), (3, 8, 8), seed=0, init="glorot")
    biases = [values for name, values in network.named_parameters() if "Conv" in name and name.endswith("bias")]
    assert len(biases) == 9
    assert not any(values.any() for values in biases)


def test_describe_shows_what_lies_in_a_block(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "model.filters=[4,4,8]",
        "model.kernel_sizes=3",
        "model.padding=same",
        "model.pool_after=[true,false,false]",
    ]
    assert describe.main([*words, "model.hidden=[]", "model.residual=2", "model.global_pool=true", "data=cifar10"]) == 0
    printed = capsys.readouterr().out
    rows = [line.strip("│").split("│") for line in printed.splitlines() if line.startswith("│")]
    assert [(row[0].rstrip(), row[1].strip(), row[2].strip(), row[3].strip()) for row in rows] == [
        (" Conv1", "4 of 3x3, stride 1, padding 1", "4 x 32 x 32", "112"),
        (" Activation1", "relu", "4 x 32 x 32", "0"),
        (" MaxPool1", "2x2, stride 2", "4 x 16 x 16", "0"),
        ("   Conv2", "4 of 3x3, stride 1, padding 1", "4 x 16 x 16", "148"),
        ("   Activation2", "relu", "4 x 16 x 16", "0"),
        ("   Conv3", "8 of 3x3, stride 1, padding 1", "8 x 16 x 16", "296"),
        ("   ShortcutConv1", "8 of 1x1, stride 1, padding 0", "8 x 16 x 16", "40"),
        (" Residual1", "adds the shortcut's maps", "8 x 16 x 16", "0"),
        (" GlobalAveragePool1", "", "8", "0"),
        (" Linear1", "10 units", "10", "90"),
    ]
    assert "686 parameters, 686 of them trainable" in printed


# -- the engine --------------------------------------------------------------------------------------------------------


def test_rewritings_reach_into_blocks_and_stop_at_sums() -> None:
    inside = (Conv(8, 3, padding=1), Activation("relu"), MaxPool(), Conv(8, 1))
    layers = [
        Conv(8, 3, padding=1),
        Residual(inside, (Conv(8, 1, stride=2),)),
        Activation("relu"),
        MaxPool(),
        Flatten(),
    ]
    network = build([*layers, Linear(3)], (3, 8, 8), seed=0)
    computed = rewritten(network)
    assert [type(module) for module in computed] == [
        Convolution, ResidualBlock, PooledActivation, nn.Flatten, linear.Linear,
    ]  # fmt: skip
    assert [type(module) for module in computed[1].branch] == [Convolution, Convolution]
    assert computed[1].branch[0].pooled is not None
    assert computed[1].branch[0].convolution is network.Residual1.branch.Conv2
    assert [type(module) for module in computed[1].shortcut] == [nn.Conv2d], "a stride has no compiled form"
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(rewritten(network.double())(images), network(images), rtol=1e-12, atol=1e-12)


def test_dropout_in_a_block_draws_from_the_seeds_own_stream() -> None:
    layers = [Residual((Conv(2, 1), Dropout(0.5))), Dropout(0.25), Flatten(), Linear(3)]
    network = _with_generator(build(layers, (2, 4, 4), seed=0), torch.Generator())
    assert [module.probability for module in network.modules() if isinstance(module, OwnDropout)] == [0.5, 0.25]
    assert not any(isinstance(module, nn.Dropout) for module in network.modules())


def tiny_residual(config: Config, **changes: Any) -> Config:
    model = replace(resnet(8, width=8), pool_after=[True, *[False] * 6], **changes)
    return replace(config, model=model, precision="float32")


def test_the_fast_engine_trains_a_residual_network_as_the_reference_does(tiny_config: Config) -> None:
    config = tiny_residual(tiny_config)
    images = data.load(config.data)
    fast, slow = (
        engine.train(replace(config, engine=name), images, seed=0, device=CPU) for name in ("fast", "reference")
    )
    assert fast.curves[0].train_loss == pytest.approx(slow.curves[0].train_loss, rel=1e-4)
    assert fast.num_params == slow.num_params == cost(config).num_params


def test_seeds_of_a_residual_network_train_together_as_alone(tiny_config: Config) -> None:
    config = tiny_residual(tiny_config, conv_dropout=0.2)
    images = data.load(config.data)
    together = engine.train_together(config, images, seeds=[0, 1], device=CPU)
    assert together[0].test.loss != together[1].test.loss
    plain = tiny_residual(tiny_config)
    for seed, result in enumerate(engine.train_together(plain, images, seeds=[0, 1], device=CPU)):
        alone = engine.train(plain, images, seed=seed, device=CPU)
        assert result.curves[0].train_loss == pytest.approx(alone.curves[0].train_loss, rel=1e-4)


# -- diagnoses, records, predict ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rewrite", [lambda network: network, rewritten], ids=["plain", "rewritten"])
def test_dead_units_are_found_in_blocks_and_after_sums(rewrite: Callable[[nn.Module], nn.Module]) -> None:
    inside = (Conv(8, 3, padding=1), Activation("relu"), MaxPool(), Conv(8, 1), BatchNorm())
    layers = [
        Conv(8, 1),
        Residual(inside, (Conv(8, 1, stride=2),)),
        Activation("relu"),
        MaxPool(),
        Flatten(),
        Linear(3),
    ]
    network = build(layers, (1, 8, 8), seed=0)
    block = network.Residual1
    with torch.no_grad():
        block.branch.Conv2.bias.fill_(1)
        block.branch.Conv2.bias[[1, 5]] = -100
        block.shortcut.ShortcutConv1.bias.fill_(10)
        block.shortcut.ShortcutConv1.bias[3] = -100
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = diagnoses.activation_layers(network, [(images, torch.zeros(6))], rewrite)
    assert [(layer.layer, layer.units, layer.dead) for layer in found] == [
        ("Activation1", 8, pytest.approx(2 / 8)),
        ("Activation2", 8, pytest.approx(1 / 8)),
    ]
    assert found[0].label == "ReLU units in Activation1"


def test_activations_in_a_block_are_seen_before_pooling() -> None:
    """The engine computes both at once, and would show the pooled ones: tanh saturates where four are far from 0."""
    inside = (Conv(8, 1), Activation("tanh"), MaxPool(), Conv(8, 1))
    network = build([Residual(inside, (Conv(8, 1, stride=2),)), Flatten(), Linear(3)], (1, 8, 8), seed=0)
    first = network.Residual1.branch.Conv1
    with torch.no_grad():
        first.weight.fill_(1)
        first.bias.zero_()
    images = torch.zeros(5, 1, 8, 8)
    images[:, :, ::2, ::2] = 9.0  # one in four: 1 - tanh(9)^2 is below 0.05
    (found,) = diagnoses.activation_layers(network, [(images, torch.zeros(5))], rewritten)
    assert found.saturated == pytest.approx(1 / 4)


def test_a_residual_run_is_recorded_and_its_weights_read(tiny_config: Config, tmp_path: Path) -> None:
    config = replace(tiny_residual(tiny_config), replicates=1)
    (record,) = run(config, tmp_path)
    assert (record.status, record.error) == ("ok", "")
    assert record.multiply_adds == cost(config).multiply_adds
    assert [layer["layer"] for layer in record.activation_layers] == [f"Activation{n}" for n in range(1, 8)]
    network = trained.read(tmp_path / "weights-seed0.pt", config)
    test = data.load(config.data).test
    predicted = network.probabilities(test.images).argmax(axis=1)
    assert math.isclose((predicted == test.labels).mean(), record.test_accuracy, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"residual": -1}, "model.residual=-1\n  allowed: at least 0"),
        ({"residual": True}, "model.residual=true\n  allowed: int, at least 0"),
        ({"global_pool": 1}, "model.global_pool=1\n  allowed: bool"),
    ],
)
def test_bad_values_are_refused(tiny_config: Config, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checks.check(replace(tiny_config, model=replace(tiny_config.model, **settings)))
    assert words in str(refused.value)


def test_a_skip_connection_that_spans_nothing_is_refused_as_a_knob(cli: Callable[..., Answer]) -> None:
    answer = cli("-m", *TINY, "model.residual=0,2")
    assert answer.code == 2
    assert "model.residual does nothing here: no convolution after the first keeps the size of its maps" in answer.err
    assert "remedy: model.padding=same, two or more model.filters" in answer.err
