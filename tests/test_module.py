"""A network of one's own: built, measured, checked, trained and diagnosed as those of the package."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Answer
from torch import nn

import cnn_ablation
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.config import all_settings, from_settings, with_settings
from cnn_ablation.runs.records import read_run
from cnn_ablation.study import checks
from cnn_ablation.tasks.image_classification import data, diagnoses, engine, models, training
from cnn_ablation.tasks.image_classification.config import Config, ModuleConfig
from cnn_ablation.tasks.image_classification.engine.modules import rewritten_module

SHAPE, CLASSES = (3, 8, 8), 10
RESNET = ModuleConfig(target="own_nets.ResNet", kwargs={"width": 8})


def module(name: str, **kwargs: object) -> ModuleConfig:
    return ModuleConfig(target=f"own_nets.{name}", kwargs=kwargs)


@pytest.fixture
def own_config(tiny_config: Config) -> Config:
    return dataclasses.replace(tiny_config, model=RESNET, precision="float32")


@pytest.mark.parametrize(
    ("lines", "model"),
    [
        pytest.param(["model.target=''", "model.target=my_nets.ResNet8"], ModuleConfig(), id="no-target"),
        pytest.param(["did you mean: model.target=own_nets.ResNet"], module("Resnet"), id="misspelt-target"),
        pytest.param(
            [
                "model.kwargs.widht=8",
                "parameters of own_nets.ResNet: width, skip",
                "did you mean: model.kwargs.width=8",
            ],
            module("ResNet", widht=8),
            id="misspelt-parameter",
        ),
        pytest.param(["remedy: leave it out"], module("ResNet", zzzz=8), id="unknown-parameter"),
        pytest.param(["it is that of the data"], module("ResNet", num_classes=3), id="what-the-data-say"),
        pytest.param(
            ["own_nets.Failing has no default", "remedy: model.kwargs.width=VALUE"], module("Failing"), id="missing"
        ),
        pytest.param(
            ["Failing(num_classes=10, width=3) raised ValueError: width 3 is odd (own_nets.py, line"],
            module("Failing", width=3),
            id="cannot-be-built",
        ),
        pytest.param(
            ["images (batch, 3, 8, 8)", "raised RuntimeError", "(own_nets.py, line", "parameter input_shape"],
            module("Failing", width=3, later=True),
            id="fails-on-images",
        ),
        pytest.param(
            ["(2, 10) for 2 images", "here shape (2, 5)", "a parameter num_classes"], module("FixedOutputs"), id="shape"
        ),
        pytest.param(["here tuple"], module("Pair"), id="outputs-that-are-no-tensor"),
        pytest.param(["a function that returns one; here is int"], module("no_module"), id="makes-no-module"),
        pytest.param(["here is str"], module("WORD"), id="not-callable"),
    ],
)
def test_what_cannot_be_trained_is_one_message(lines: list[str], model: ModuleConfig, own_config: Config) -> None:
    with pytest.raises(ConfigError) as caught:
        checks.check(dataclasses.replace(own_config, model=model))
    message = str(caught.value)
    assert [line for line in lines if line not in message] == []
    assert len(message.splitlines()) <= 10


@pytest.mark.parametrize(
    "model",
    [RESNET, *map(module, ("Viewing", "Looking", "Dropping", "Values", "Attending", "Lazy", "make_linear"))],
    ids=lambda model: model.target,
)
def test_modules_of_many_kinds_pass_their_checks_and_train(model: ModuleConfig, own_config: Config) -> None:
    config = dataclasses.replace(own_config, model=model, engine="fast")
    checks.check(config)
    result = engine.train(config, data.load(config.data), seed=0, device=torch.device("cpu"))
    assert (result.status, len(result.curves)) == ("ok", 2)


def test_work_and_parameters_are_those_of_the_papers_arithmetic() -> None:
    """Kernels times places for a convolution, products for a linear layer, one for each value of a batch norm."""
    spec = models.describe(module("ResNet", width=4), CLASSES, SHAPE)
    stem = 4 * 8 * 8 * 27
    first = 2 * (4 * 4 * 4 * 36) + 4 * 4 * 4 * 4 + 2 * 4 * 16  # two convolutions, the short cut, two batch norms
    second = 8 * 2 * 2 * 36 + 8 * 2 * 2 * 72 + 8 * 2 * 2 * 4 + 2 * 8 * 4
    assert spec.multiply_adds == stem + first + second + 8 * CLASSES
    weights = [4 * 27 + 4, 2 * 4 * 36 + 4 * 4 + 4 + 4 * 4, 8 * 36 + 8 * 72 + 8 * 4 + 8 + 4 * 8, 8 * CLASSES + CLASSES]
    assert (spec.num_params, spec.num_trainable, spec.num_kept) == (sum(weights), sum(weights), 2 * 2 * (4 + 8))


@pytest.mark.parametrize(
    ("work", "name"),
    [
        pytest.param(3 * 8 * 8 * CLASSES, "make_linear", id="one-layer"),
        pytest.param(2 * 8 * 8 * 24 + 24 * CLASSES, "Attending", id="products-without-a-layer"),
        pytest.param(3 * CLASSES, "Values", id="built-on-the-cpu"),
        pytest.param(4 * 36 * 27 + 144 * CLASSES, "Lazy", id="sizes-from-the-first-images"),
        pytest.param(8 * 64 * 27 + 72 // 3 * CLASSES, "Looking", id="weights-used-by-a-function"),
    ],
)
def test_work_per_image_counts_every_product(work: int, name: str) -> None:
    assert models.describe(module(name), CLASSES, SHAPE).multiply_adds == work


def test_work_that_cannot_be_counted_is_unknown() -> None:
    assert math.isnan(models.describe(module("Recurrent"), CLASSES, SHAPE).multiply_adds)


def test_a_large_network_is_looked_at_without_memory() -> None:
    """A trillion weights would not fit anywhere."""
    spec = models.describe(module("Wide", width=10**6), CLASSES, SHAPE)
    assert spec.num_params == 3 * 10**6 + 10**6 + 10**12 + 10**6 + 10**6 * CLASSES + CLASSES
    with pytest.raises(ConfigError, match=r"model.kwargs=\{width:1000000\}\n  allowed: widths that give at most"):
        checks.check(cnn_ablation.compose(["model=module", "model.target=own_nets.Wide", "model.kwargs.width=1000000"]))


def test_a_layer_table_has_names_shapes_and_parameters() -> None:
    rows = {row.name: row for row in models.describe(module("ResNet", width=4), CLASSES, SHAPE).rows}
    assert (rows["stem.0"].output_shape, rows["stem.0"].num_trainable) == ((4, 8, 8), 4 * 27 + 4)
    assert rows["blocks.1.conv1"].summary == "Conv2d, 8 of 3x3, stride 2x2, padding 1x1"
    assert (rows["blocks.1.norm2"].num_trainable, rows["blocks.1.norm2"].num_kept) == (16, 16)
    assert (rows["head"].summary, rows["head"].output_shape) == ("Linear, 10 units", (10,))


def test_initial_weights_come_from_the_run_and_leave_the_callers_state_alone() -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first, again, other = (models.build_network(RESNET, CLASSES, SHAPE, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])
    weights = [network.stem[0].weight for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_rewritten_module_is_the_same_function_with_the_same_gradients() -> None:
    network, images = models.build_network(RESNET, CLASSES, SHAPE, seed=0), torch.randn(5, *SHAPE)
    images = images.contiguous(memory_format=torch.channels_last)
    twin = rewritten_module(network)
    assert type(twin.blocks[0].conv1).__name__ == "Convolution"
    assert [type(part).__name__ for part in twin.stem] == ["Convolution"]  # with the pooling, before the activation
    expected, found = network(images), twin(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    parameters = list(network.parameters())
    for one, other in zip(
        torch.autograd.grad(expected.square().sum(), parameters),
        torch.autograd.grad(found.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("memory_format", "is_rewritten", "name"),
    [
        pytest.param(torch.channels_last, True, "ResNet", id="fits"),
        pytest.param(torch.contiguous_format, False, "Viewing", id="view"),
        pytest.param(torch.channels_last, False, "Looking", id="looks-at-its-layers"),
    ],
)
def test_what_does_not_fit_a_module_is_left_out(
    memory_format: torch.memory_format, is_rewritten: bool, name: str, own_config: Config
) -> None:
    config = dataclasses.replace(own_config, model=module(name))
    technique = engine.technique_of(config, data.load(config.data))
    assert (technique.memory_format, technique.rewrite is rewritten_module) == (memory_format, is_rewritten)


@pytest.mark.parametrize("name", ["ResNet", "Viewing", "Looking"])
def test_the_engine_follows_the_reference_loop(name: str, own_config: Config) -> None:
    config = dataclasses.replace(own_config, model=module(name))
    images, cpu = data.load(config.data), torch.device("cpu")
    reference = training.train(config, images, seed=1, device=cpu)
    fast = engine.train(config, images, seed=1, device=cpu)
    for one, other in zip(fast.network.parameters(), reference.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)
    assert fast.curves[-1].train_loss == pytest.approx(reference.curves[-1].train_loss, rel=1e-3)


def test_the_same_seed_gives_the_same_bits(own_config: Config) -> None:
    config = dataclasses.replace(own_config, model=module("Dropping"))
    images, cpu = data.load(config.data), torch.device("cpu")
    first, again = (engine.train(config, images, seed=1, device=cpu).network for _ in range(2))
    assert all(map(torch.equal, first.parameters(), again.parameters()))


def test_dead_units_are_found_by_the_types_of_modules_at_every_call() -> None:
    network = models.build_network(RESNET, CLASSES, SHAPE, seed=0)
    with torch.no_grad():
        network.blocks[0].norm1.bias[:2] = -100  # two of eight channels, where its ReLU is called first
    batches = [(torch.randn(4, *SHAPE), torch.zeros(4)), (torch.randn(3, *SHAPE), torch.zeros(3))]
    found = {layer.layer: layer for layer in diagnoses.activation_layers(network, batches)}
    assert list(found) == ["stem.1", "blocks.0.relu", "blocks.0.relu, call 2", "blocks.1.relu", "blocks.1.relu, call 2"]
    assert (found["blocks.0.relu"].dead, found["blocks.0.relu, call 2"].dead) == (pytest.approx(2 / 8), 0)
    assert found["blocks.0.relu"].label == "ReLU units in blocks.0.relu"


def test_units_of_tokens_are_their_features() -> None:
    network = nn.Sequential(nn.Flatten(2), nn.ReLU())  # (batch, tokens, features)
    images = torch.ones(2, 3, 2, 2)
    images[:, :, 0] = -1
    found = diagnoses.activation_layers(network, [(images, torch.zeros(2))])
    assert (found[0].units, found[0].dead) == (4, 0.5)


def test_settings_survive_a_record_and_python() -> None:
    config = cnn_ablation.compose(
        [
            "model=module",
            "model.target=own_nets.ResNet",
            "model.kwargs={width:4,block:{kind:a}}",
            "model.kwargs.skip=false",
        ]
    )
    expected = {"width": 4, "block": {"kind": "a"}, "skip": False}
    assert config.model.kwargs == expected
    assert from_settings(Config, all_settings(config)).model == config.model
    changed = with_settings(config, [("model.kwargs.width", np.int64(8)), ("model.kwargs.block.kind", "b")])
    assert changed.model.kwargs == {"width": 8, "block": {"kind": "b"}, "skip": False}
    assert config.model.kwargs == expected


@pytest.mark.parametrize(
    ("line", "override"),
    [
        pytest.param("this key belongs to model=module", "model.kwargs.width=3", id="of-another-network"),
        pytest.param("did you mean: model.kwargs.width=3", "model.kwarg.width=3", id="misspelt"),
    ],
)
def test_keys_of_ones_own_lie_below_kwargs_only(line: str, override: str) -> None:
    chosen = ["model=module"] if "kwarg." in override else []
    with pytest.raises(ConfigError, match=line):
        cnn_ablation.compose([*chosen, override])


OWN = (
    "model=module", "model.target=own_nets.ResNet", "data=shapes", "data.image_size=8", "data.train_images=60",
    "data.test_images=40", "train.epochs=1", "train.batch_size=16",
)  # fmt: skip


@pytest.mark.usefixtures("undrawn")
def test_a_study_over_a_key_of_kwargs_side_by_side(cli: Callable[..., Answer], tmp_path: Path) -> None:
    """In processes that import the module anew; a level that is the default of the signature is the baseline."""
    (tmp_path / "own_nets_copy.py").write_text((Path(__file__).parent / "own_nets.py").read_text())
    own = [word.replace("own_nets", "own_nets_copy") for word in OWN]
    answer = cli(
        "-m", *own, "model.kwargs.width=4,8", "model.kwargs.skip=false",
        "timing=packed", "hydra.sweep.dir=study", "threads=1", "device=cpu", "replicates=1",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    runs = cnn_ablation.load_runs("study")
    assert list(runs["arm"].unique()) == ["baseline", "model.kwargs.width=4"]
    assert "model.kwargs.width=8" in answer.out
    record = read_run(Path("study/0/run-seed0.json"))
    assert record.settings["model.kwargs.skip"] is False
    assert (record.num_params > 0, math.isfinite(record.initial_gradient_norm)) == (True, True)
    assert record.activation_layers[0]["layer"] == "stem.1"
