"""Settings that do nothing: told before training, and held to be true by training with and without them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cnn_ablation import ablate
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.config import all_settings, result_settings, with_settings
from cnn_ablation.launch.planning import Planning
from cnn_ablation.study import checks
from cnn_ablation.study.checks import check_effects
from cnn_ablation.study.designs import Knob, knob, zipped_knob
from cnn_ablation.tasks.image_classification import data, effects, engine
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS
from cnn_ablation.tasks.image_classification.config import (
    GROUPS,
    AdamConfig,
    AdamWConfig,
    Config,
    MLPConfig,
    ModelConfig,
    OptimizerConfig,
    SGDConfig,
)
from cnn_ablation.tasks.image_classification.effects import effective, inert
from cnn_ablation.tasks.image_classification.models.layers import Activation, Conv, Residual, trace
from cnn_ablation.tasks.image_classification.training import TrainingResult

Settings = dict[str, Any]
MLP: Settings = {"model": MLPConfig("svalheim_mlp", hidden=[])}
DEEP: Settings = {"model": MLPConfig("svalheim_mlp", hidden=[6])}
THREE: Settings = {
    "model": ModelConfig(filters=[3, 4, 4], kernel_sizes=[3, 1, 1], hidden=[6], pool_after=[False, False, True])
}
TWO: Settings = {"model": ModelConfig(filters=[3, 4], kernel_sizes=[3, 1], hidden=[6], pool_after=[True, False])}
PENALTIES: Settings = {"optimizer.weight_decay_biases": 0.1, "optimizer.weight_decay_output": 0.2}


def made(config: Config, *settings: Settings) -> Config:
    changed = with_settings(config, [pair for each in settings for pair in each.items()])
    checks.check(changed)
    return changed


_TRAINED: dict[str, TrainingResult] = {}


def trained(config: Config) -> TrainingResult:
    """Each configuration is trained once, for the tests of all keys."""
    key = repr(result_settings(config))
    if key not in _TRAINED:
        _TRAINED[key] = engine.train(config, data.load(config.data), seed=0, device=torch.device("cpu"))
    return _TRAINED[key]


def same_bits(first: TrainingResult, second: TrainingResult) -> bool:
    """Whether two runs ended in the same weights, scores and curves."""
    weights = [list(result.network.state_dict().values()) for result in (first, second)]
    scores = [
        (result.train, result.val, result.test, [point.train_loss for point in result.curves])
        for result in (first, second)
    ]
    return (
        len(weights[0]) == len(weights[1])
        and all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(*weights, strict=True))
        and scores[0] == scores[1]
    )


# (what else is set, key, two values, why)
IDLE: list[tuple[Settings, str, tuple[Any, Any], str]] = [
    ({}, "model.leaky_slope", (0.01, 0.3), "model.activation=relu"),
    ({"model.activation": "elu"}, "model.leaky_slope", (0.01, 0.3), "model.activation=elu"),
    (MLP, "model.leaky_slope", (0.01, 0.3), "no layer has an activation"),
    (MLP, "model.activation", ("relu", "tanh"), "no layer has an activation"),
    ({"model.hidden": []}, "model.activation", ("relu", "tanh"), "no layer has an activation"),
    ({"model.activation": "none"}, "model.last_activation", (False, True), "model.activation=none"),
    ({}, "model.batch_norm_place", ("before", "after"), "model.batch_norm=false"),
    ({"model.batch_norm": True}, "model.batch_norm_place", ("before", "after"), "no batch norm stands beside"),
    (
        {"model.batch_norm": True, "model.last_activation": True, "model.activation": "none"},
        "model.batch_norm_place", ("before", "after"), "no batch norm stands beside",
    ),
    (MLP, "model.batch_norm", (False, True), "model.hidden=[]"),
    (MLP, "model.batch_norm_place", ("before", "after"), "model.hidden=[]"),
    (MLP, "model.dropout", (0.0, 0.5), "model.hidden=[]"),
    ({"model.hidden": []}, "model.dropout", (0.0, 0.5), "model.hidden=[]"),
    ({"model.pool_after": False}, "model.pool", ("max", "average"), "model.pool_after=false"),
    ({"model.pool_after": False}, "model.pool_size", (2, 3), "model.pool_after=false"),
    ({"model.pool_after": False}, "model.pool_stride", (1, 2), "model.pool_after=false"),
    ({"model.pool_after": [False]}, "model.conv_dropout", (0.0, 0.5), "model.pool_after=[false]"),
    ({"model.pool_size": 1}, "model.pool", ("max", "average"), "model.pool_size=1"),
    ({"model.pool_size": 1, "model.pool_stride": 1}, "model.pool_after", (True, False), "model.pool_stride=1"),
    ({"model.pool_size": 6}, "model.pool_stride", (1, 4), "one window covers the whole map"),
    ({}, "model.residual", (0, 2), "no convolution after the first keeps the size of its maps"),
    (THREE | {"model.kernel_sizes": 3}, "model.residual", (0, 1), "no convolution after the first keeps"),
    ({"model.pool_size": 6}, "model.global_pool", (False, True), "the last maps are single pixels"),
    ({"data.val_images": 14}, "data.val_fraction", (0.2, 0.5), "data.val_images=14"),
    ({"train.updates": 4}, "train.epochs", (1, 5), "train.updates=4"),
    ({"train.batch_size": 1, "train.updates": 4}, "train.mixup", (0.0, 0.5), "train.batch_size=1"),
    ({}, "train.patience", (1, 4), "train.stop_on=null"),
    ({"train.patience": 1}, "train.stop_on", (None, "val_loss"), "never runs out in 2 epochs"),
    ({**MLP, "model.output_bias": False}, "optimizer.weight_decay_biases", (None, 0.3), "no layer has a bias"),
    ({**MLP, **PENALTIES}, "optimizer.weight_decay", (0.0, 0.3), "have penalties of their own"),
    ({}, "train.step_epochs", (1.0, 0.5), "train.schedule=constant"),
    ({}, "train.step_factor", (0.1, 0.5), "train.schedule=constant"),
    ({"train.schedule": "cosine"}, "train.step_factor", (0.1, 0.5), "train.schedule=cosine"),
    ({"train.schedule": "step"}, "train.step_factor", (0.1, 0.5), "train.step_epochs=2.0 lasts as long"),
    ({"train.schedule": "step", "train.step_factor": 1.0}, "train.step_epochs", (1.0, 0.5), "train.step_factor=1"),
    ({"train.schedule": "step"}, "train.final_lr_factor", (0.0, 0.5), "train.schedule=step"),
    ({"train.schedule": "one_cycle"}, "train.final_lr_factor", (0.0, 0.5), "train.schedule=one_cycle"),
    ({"train.schedule": "one_cycle"}, "train.warmup_epochs", (0.0, 1.0), "train.schedule=one_cycle rises by itself"),
    ({"train.loss": "kullback_leibler"}, "train.label_smoothing", (0.0, 0.1), "train.loss=kullback_leibler"),
]  # fmt: skip

# (what else is set, two settings that come to the same without either doing nothing)
ALIKE: list[tuple[Settings, Settings, Settings]] = [
    ({}, {"model.kernel_sizes": 3}, {"model.kernel_sizes": [3]}),
    (TWO, {"model.kernel_sizes": 3}, {"model.kernel_sizes": [3, 3]}),
    (TWO, {"model.strides": 1}, {"model.strides": [1, 1]}),
    ({"model.kernel_sizes": 1}, {"model.padding": "same"}, {"model.padding": "valid"}),
    ({"model.pool_size": 4}, {"model.pool_stride": 3}, {"model.pool_stride": 4}),
    (THREE, {"model.residual": 2}, {"model.residual": 9}),
    (THREE | {"model.pool_after": [False, True, False]}, {"model.residual": 1}, {"model.residual": 2}),
    ({}, {"data.image_size": 32, "data.train_images": 60}, {"data.image_size": None}),
    ({}, {"data.val_fraction": 0.2}, {"data.val_fraction": 0.199}),
    ({}, {"data.val_fraction": 0.2}, {"data.val_images": 12}),
    ({}, {"train.epochs": 2}, {"train.updates": 6}),
    ({"train.scale": 0.1}, {"train.epochs": 5}, {"train.epochs": 12}),
    ({"train.scale": 0.5}, {"train.epochs": 4}, {"train.epochs": 2, "train.scale": 1.0}),
    ({"train.stop_on": "val_loss"}, {"train.patience": 1}, {"train.patience": 9}),
    ({"optimizer.weight_decay": 0.1}, {"optimizer.weight_decay_biases": None}, {"optimizer.weight_decay_biases": 0.1}),
    ({}, {"optimizer.weight_decay_output": None}, {"optimizer.weight_decay_output": 0.0}),
    ({}, {"model.dropout": 0.0}, {"model.dropout": -0.0}),
    ({}, {"model.name": "three_conv"}, {"model.name": "lenet5"}),
    ({}, {"optimizer": AdamConfig()}, {"optimizer": AdamWConfig(weight_decay=0.0)}),
    ({}, {"train.warmup_epochs": 0.0}, {"train.warmup_epochs": 0.3}),
    ({"train.warmup_epochs": 1.0}, {"train.warmup_epochs": 1.1}, {"train.warmup_epochs": 0.9}),
    ({"train.step_epochs": 1.0}, {"train.schedule": "constant"}, {"train.schedule": "step", "train.step_factor": 1.0}),
    ({"train.final_lr_factor": 1.0}, {"train.schedule": "constant"}, {"train.schedule": "cosine"}),
    ({"train.schedule": "step"}, {"train.step_epochs": 1.0}, {"train.step_epochs": 1.1}),
    ({"train.updates": 1}, {"train.schedule": "constant"}, {"train.schedule": "cosine"}),
]

# (what else is set, key, two values): the nearest relatives of the above that do something
ALIVE: list[tuple[Settings, str, tuple[Any, Any]]] = [
    ({"model.activation": "leaky"}, "model.leaky_slope", (0.01, 0.3)),
    ({}, "model.activation", ("relu", "tanh")),
    ({}, "model.last_activation", (False, True)),
    (TWO | {"model.batch_norm": True}, "model.batch_norm_place", ("before", "after")),
    (DEEP | {"model.batch_norm": True}, "model.batch_norm_place", ("before", "after")),
    (DEEP, "model.batch_norm", (False, True)),
    (DEEP, "model.dropout", (0.0, 0.5)),
    ({}, "model.dropout", (0.0, 0.5)),
    ({}, "model.conv_dropout", (0.0, 0.5)),
    ({}, "model.pool", ("max", "average")),
    ({}, "model.pool_size", (2, 3)),
    ({}, "model.pool_stride", (1, 2)),
    ({"model.pool_size": 1}, "model.pool_stride", (1, 2)),
    ({}, "model.pool_after", (True, False)),
    ({"model.pool_size": 1, "model.pool_stride": 1, "model.conv_dropout": 0.5}, "model.pool_after", (True, False)),
    (TWO, "model.residual", (0, 1)),
    (THREE, "model.residual", (1, 2)),
    (THREE | {"model.padding": "same", "model.kernel_sizes": 3}, "model.residual", (0, 2)),
    (
        THREE | {"model.residual": 2, "model.batch_norm": True, "model.activation": "none"},
        "model.batch_norm_place",
        ("before", "after"),
    ),
    ({}, "model.global_pool", (False, True)),
    ({}, "model.init", ("pytorch", "glorot")),
    ({}, "model.output", ("logits", "softmax")),
    ({}, "model.output_bias", (True, False)),
    ({}, "model.strides", (1, 2)),
    (TWO, "model.groups", (1, [3, 1])),
    ({}, "data.val_fraction", (0.2, 0.5)),
    ({}, "data.val_images", (12, 20)),
    ({}, "data.split_seed", (0, 1)),
    ({}, "data.scale", ("half", "unit")),
    ({}, "data.train_images", (60, 80)),
    ({}, "train.epochs", (1, 2)),
    ({}, "train.updates", (4, 5)),
    ({"train.epochs": 20}, "train.scale", (0.1, 0.2)),
    ({}, "train.shuffle", (True, False)),
    ({}, "train.batch_size", (16, 8)),
    ({}, "train.loss", ("cross_entropy", "mean_squared_error")),
    ({}, "train.max_translation", (0, 2)),
    ({}, "train.horizontal_flip", (False, True)),
    ({}, "train.color_jitter", (0.0, 0.4)),
    ({}, "train.cutout", (0, 3)),
    ({}, "train.mixup", (0.0, 0.5)),
    ({"train.epochs": 9, "train.patience": 1, "optimizer.lr": 0.3}, "train.stop_on", (None, "val_loss")),
    ({"train.epochs": 9, "train.stop_on": "val_loss", "optimizer.lr": 0.3}, "train.patience", (1, 8)),
    ({}, "optimizer.lr", (0.001, 0.01)),
    ({}, "optimizer.beta1", (0.9, 0.5)),
    ({}, "optimizer.beta2", (0.999, 0.5)),
    ({}, "optimizer.eps", (1e-8, 1e-2)),
    ({"optimizer": SGDConfig()}, "optimizer.momentum", (0.0, 0.9)),
    ({}, "optimizer.weight_decay", (0.0, 0.3)),
    (PENALTIES, "optimizer.weight_decay", (0.0, 0.3)),
    (MLP, "optimizer.weight_decay", (0.0, 0.3)),
    (MLP, "optimizer.weight_decay_biases", (None, 0.3)),
    ({"model.output_bias": False}, "optimizer.weight_decay_biases", (None, 0.3)),
    ({}, "optimizer.weight_decay_output", (None, 0.3)),
    ({"model.activation": "prelu", **MLP}, "optimizer.weight_decay", (0.0, 0.3)),
    ({"optimizer": SGDConfig(momentum=0.9)}, "optimizer.nesterov", (False, True)),
    ({"optimizer": AdamWConfig()}, "optimizer.weight_decay", (0.0, 0.3)),
    ({"optimizer.weight_decay": 0.3}, "optimizer", (AdamConfig(weight_decay=0.3), AdamWConfig(weight_decay=0.3))),
    ({}, "train.schedule", ("constant", "cosine")),
    ({}, "train.schedule", ("constant", "one_cycle")),
    ({"train.step_epochs": 1.0}, "train.schedule", ("constant", "step")),
    ({"train.schedule": "step"}, "train.step_epochs", (2.0, 1.0)),
    ({"train.schedule": "step", "train.step_epochs": 1.0}, "train.step_factor", (0.1, 0.5)),
    ({"train.schedule": "cosine"}, "train.final_lr_factor", (0.0, 0.5)),
    ({}, "train.warmup_epochs", (0.0, 1.0)),
    ({"train.schedule": "cosine"}, "train.warmup_epochs", (0.0, 1.0)),
    ({}, "train.clip_norm", (None, 0.1)),
    ({}, "train.label_smoothing", (0.0, 0.1)),
    ({}, "train.ema_decay", (None, 0.9)),
]


def named(case: tuple[Any, ...]) -> str:
    return ",".join(str(part) if not isinstance(part, dict) else "+".join(part) for part in case)[:90]


@pytest.mark.parametrize("case", IDLE, ids=named)
def test_a_key_that_does_nothing_leaves_every_bit(tiny_config: Config, case: Any) -> None:
    given, key, values, because = case
    first, second = (made(tiny_config, given, {key: value}) for value in values)
    assert effective(first) == effective(second)
    for config in (first, second):
        assert because in inert(config)[key].because
    assert f"{key} does nothing here: " in checks.same_because(first, second)
    assert same_bits(trained(first), trained(second))


@pytest.mark.parametrize("case", ALIKE, ids=named)
def test_settings_that_come_to_the_same_leave_every_bit(tiny_config: Config, case: Any) -> None:
    given, *both = case
    first, second = (made(tiny_config, given, each) for each in both)
    assert effective(first) == effective(second)
    assert same_bits(trained(first), trained(second))


@pytest.mark.parametrize("case", ALIVE, ids=named)
def test_a_key_that_does_something_is_never_called_idle(tiny_config: Config, case: Any) -> None:
    given, key, values = case
    first, second = (made(tiny_config, given, {key: value}) for value in values)
    assert effective(first) != effective(second)
    assert key not in inert(first)
    assert not same_bits(trained(first), trained(second))


# -- every key of a network or an optimiser, in many of them -----------------------------------------------------------

VALUES: dict[str, Sequence[Any]] = {
    "model.activation": ("relu", "leaky", "prelu", "none"),
    "model.leaky_slope": (0.01, 0.3),
    "model.dropout": (0.0, 0.5),
    "model.batch_norm": (False, True),
    "model.batch_norm_place": ("before", "after"),
    "model.hidden": ([], [6]),
    "model.output_bias": (False, True),
    "model.last_activation": (False, True),
    "model.pool": ("max", "average"),
    "model.pool_size": (1, 2),
    "model.pool_stride": (1, 2),
    "model.pool_after": (False, True),
    "model.conv_dropout": (0.0, 0.5),
    "model.residual": (0, 1, 2),
    "model.global_pool": (False, True),
    "optimizer.weight_decay": (0.0, 0.3),
    "optimizer.weight_decay_biases": (None, 0.1),
    "optimizer.weight_decay_output": (None, 0.2),
    "train.schedule": ("constant", "step", "cosine", "one_cycle"),
    "train.warmup_epochs": (0.0, 1.0),
    "train.step_epochs": (1.0, 2.0),
    "train.step_factor": (0.1, 1.0),
    "train.final_lr_factor": (0.0, 1.0),
    "train.loss": ("cross_entropy", "mean_squared_error"),
    "train.label_smoothing": (0.0, 0.1),
}


def around(config: Config, key: str) -> bool:
    """Whether no value of a key makes a difference to what is trained."""
    return len({effective(with_settings(config, [(key, value)])) for value in VALUES[key]}) == 1


def test_blocks_of_the_same_layers_are_told_apart_by_where_they_begin() -> None:
    one, three = Conv(2, 1), [Conv(2, 1)] * 3
    networks = [[one, Residual(tuple(three[:2]))], [Residual(tuple(three))], [*three, Residual((one,))], [one] * 4]
    shown = [repr(list(effects._acting(trace(layers, (2, 8, 8))))) for layers in networks]
    assert len(set(shown)) == len(shown)
    idle = [Activation("none"), Residual((one, Activation("none")))]
    assert list(effects._acting(trace(idle, (2, 8, 8)))) == list(effects._acting(trace([Residual((one,))], (2, 8, 8))))


CORNERS = {
    "convolutional": ModelConfig(filters=[4], kernel_sizes=3),
    "deeper": ModelConfig(filters=[4, 4, 4], kernel_sizes=[3, 1, 1]),
    "mlp": MLPConfig("svalheim_mlp"),
}


@pytest.mark.parametrize("network", CORNERS)
@pytest.mark.parametrize("corner", range(32))
def test_reasons_are_given_exactly_where_no_value_matters(tiny_config: Config, network: str, corner: int) -> None:
    """In configurations drawn from all corners: what `inert` says of a key is what `effective` shows of its values."""
    generator = random.Random(corner)
    base = replace(tiny_config, model=CORNERS[network])
    if network == "deeper":  # three poolings need larger images
        base = replace(base, data=replace(base.data, image_size=12))
    keys = [key for key in VALUES if key in all_settings(base)]
    config = made(base, {key: generator.choice(VALUES[key]) for key in keys})
    assert {key for key in inert(config) if key in keys} == {key for key in keys if around(config, key)}


def test_somebodys_own_activation_may_have_a_slope_and_weights(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ACTIVATIONS, "mine", lambda nn: nn.LeakyReLU())
    config = made(tiny_config, {"model.activation": "mine"})
    assert "model.leaky_slope" not in inert(config)
    assert effective(config) != effective(made(config, {"model.leaky_slope": 0.3}))


def test_of_somebodys_own_network_nothing_is_said(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnn_ablation.tasks.image_classification.models import NETWORKS, convolutional

    monkeypatch.setitem(NETWORKS, "three_conv", lambda *given: convolutional.layers(*given))  # noqa: PLW0108
    assert {key.partition(".")[0] for key in inert(tiny_config)} == {"train"}
    assert effective(tiny_config) != effective(made(tiny_config, {"model.batch_norm_place": "after"}))
    assert effective(tiny_config) == effective(made(tiny_config, {"model.kernel_sizes": 3}))


@pytest.mark.parametrize(("key", "values"), [("device", ("auto", "cpu")), ("precision", ("auto", "float32"))])
def test_what_auto_stands_for_may_be_told(tiny_config: Config, key: str, values: tuple[str, str]) -> None:
    first, second = (made(tiny_config, {key: value}) for value in values)
    assert effective(first) != effective(second)
    assert effective(first, {key: values[1]}) == effective(second, {key: values[1]})


def test_every_optimiser_has_the_penalties_that_are_looked_at() -> None:
    """Whoever adds a key to all optimisers or networks decides here whether something else may make it idle."""
    known = {"name", "lr", "weight_decay", "weight_decay_biases", "weight_decay_output"}
    assert {item.name for item in dataclasses.fields(OptimizerConfig)} == known
    for option in GROUPS["optimizer"].values():
        assert {item.name for item in dataclasses.fields(option)} - known <= {
            "momentum",
            "nesterov",
            "beta1",
            "beta2",
            "eps",
            "alpha",
        }


# -- studies -----------------------------------------------------------------------------------------------------------

ONE = "one_at_a_time"
SLOPE = knob("model.leaky_slope", [0.01, 0.1])
ACTIVATION = knob("model.activation", ["leaky", "tanh"])
TANH = knob("model.activation", ["tanh"])
PLACE = knob("model.batch_norm_place", ["before", "after"])


def study(config: Config, design: str, knobs: Sequence[Knob]) -> Planning:
    return Planning(design, knobs, lambda arm: with_settings(config, arm.settings))


@pytest.mark.parametrize(
    ("design", "knobs", "given", "words"),
    [
        (
            "one_at_a_time", [SLOPE], {},
            ["model.leaky_slope=0.01,0.1", "nothing here: model.activation=relu", "remedy: model.activation=leaky"],
        ),
        ("one_at_a_time", [PLACE], {}, ["model.batch_norm=false", "remedy: model.batch_norm=true"]),
        (ONE, [knob("train.patience", [1, 2])], {}, ["train.stop_on=null", "remedy: train.stop_on="]),
        ("one_at_a_time", [ACTIVATION, SLOPE], {}, ["model.leaky_slope=0.01,0.1", "model.activation=relu"]),
        (ONE, [knob("model.activation", ["relu", "relu"])], {}, ["nothing to compare", "another level"]),
        (ONE, [knob("optimizer.lr", [1e-3, 0.001])], {}, ["optimizer.lr=0.001,0.001", "nothing to compare"]),
        (ONE, [knob("model.dropout", [0])], {}, ["model.dropout=0", "nothing to compare"]),
        (ONE, [knob("model.kernel_sizes", [3, [3]])], {}, ["model.kernel_sizes=3,[3]", "nothing to compare"]),
        (ONE, [knob("train.epochs", [3, 9])], {"train.scale": 0.1}, ["train.epochs=2 and 3 come to the same"]),
        (
            "one_at_a_time", [zipped_knob("both", [{"model.leaky_slope": 0.1, "train.patience": 9}])], {},
            ["both={model.leaky_slope:0.1,train.patience:9}", "model.leaky_slope does nothing", "train.patience does"],
        ),
        ("greedy", [SLOPE, ACTIVATION], {}, ["model.leaky_slope=0.01,0.1", "model.activation=relu"]),
        ("greedy", [TANH, SLOPE], {}, ["model.leaky_slope=0.01,0.1"]),
        ("grid", [SLOPE, TANH], {}, ["model.leaky_slope=0.01,0.1"]),
        ("leave_one_out", [TANH, SLOPE], {}, ["model.leaky_slope=0.01,0.1", "model.activation=tanh"]),
        ("leave_one_out", [knob("train.epochs", [2]), TANH], {}, ["train.epochs=2", "nothing to compare"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_knob_that_does_nothing_is_refused_with_the_reason(
    tiny_config: Config, design: str, knobs: list[Knob], given: Settings, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        study(made(tiny_config, given), design, knobs)
    message = str(refused.value)
    assert [word for word in words if word not in message] == [], message
    assert len(message.splitlines()) <= 10


@pytest.mark.parametrize(
    ("design", "knobs", "arms", "merged"),
    [
        (
            "one_at_a_time", [knob("model.leaky_slope", [0.1]), knob("model.activation", ["leaky"])],
            None, {},
        ),
        ("greedy", [ACTIVATION, SLOPE], ["baseline", "model.activation=leaky", "model.activation=tanh"], {}),
        (
            "grid", [SLOPE, knob("model.activation", ["relu", "leaky"])],
            ["baseline", *(f"model.leaky_slope={slope},model.activation=leaky" for slope in (0.01, 0.1))],
            {
                "model.leaky_slope=0.1,model.activation=relu":
                "baseline (model.leaky_slope does nothing here: model.activation=relu)"
            },
        ),
        (
            "leave_one_out", [knob("model.activation", ["leaky"]), knob("model.leaky_slope", [0.1])],
            ["full", "full without model.activation", "full without model.leaky_slope"], {},
        ),
        (
            "one_at_a_time", [knob("train.epochs", [2, 3]), knob("train.updates", [6, 9])],
            ["baseline", "train.epochs=3"],
            {
                "train.updates=6": "baseline (train.updates=6 and null come to the same)",
                "train.updates=9": "train.epochs=3 (train.epochs=2 and 3 come to the same; train.updates=9 and null",
            },
        ),
        (ONE, [knob("optimizer.lr", [1e-3, 2e-3])], ["baseline", "optimizer.lr=0.002"], {}),
    ],
    ids=["slope alone", "greedy", "grid", "leave_one_out", "lengths", "the baseline's value"],
)  # fmt: skip
def test_only_arms_that_come_to_the_same_are_merged_and_the_plan_says_why(
    tiny_config: Config, design: str, knobs: list[Knob], arms: list[str] | None, merged: dict[str, str]
) -> None:
    if arms is None:  # idle at the baseline, and this design tries nothing else
        with pytest.raises(ConfigError, match="does nothing here"):
            study(tiny_config, design, knobs)
        return
    plan = study(tiny_config, design, knobs).plan()
    assert [arm.name for arm in plan.arms] == arms
    assert plan.merged.keys() == merged.keys()
    for name, reason in merged.items():
        assert plan.merged[name].startswith(reason), plan.merged[name]
        assert f"  {name} is the same as {plan.merged[name]}" in plan.lines()


def test_a_knob_that_may_wake_up_is_not_refused_however_many_come_before(tiny_config: Config) -> None:
    others = [knob(key, [1e-3 * n for n in range(1, 12)]) for key in ("optimizer.lr", "optimizer.weight_decay")]
    more = [knob("train.epochs", list(range(1, 12))), SLOPE]
    assert study(tiny_config, "greedy", [*others, *more]).plan().num_runs
    wide = made(tiny_config, TWO, {"model.batch_norm": True})
    check_effects("grid", [TANH, PLACE], lambda arm: made(wide, dict(arm.settings)))


@pytest.mark.usefixtures("undrawn")
def test_an_arm_of_a_later_step_is_checked_before_it_is_trained(tiny_config: Config, tmp_path: Path) -> None:
    """Each level is right alone; together they are not. What was trained until then is reported."""
    easy = {"data.difficulty": 0.0, "data.image_size": 16, "data.train_images": 300, "optimizer.lr": 1e-12}
    config = made(replace(tiny_config, timing="isolated"), easy, {"train.epochs": 5})
    knobs = {
        "deep": [{"label": "yes", "model.filters": [8, 8], "optimizer.lr": 0.02}],
        "model.kernel_sizes": [9],
    }
    with pytest.raises(ConfigError, match=r"in arm deep=yes,model\.kernel_sizes=9\): model\.kernel_sizes=9"):
        ablate(config, knobs, tmp_path / "study", design="greedy")
    assert list(pd.read_csv(tmp_path / "study" / "ablation.csv")["arm"]) == ["baseline", "deep=yes"]


def test_pooling_of_single_pixels_still_ends_the_blocks_of_skip_connections(tiny_config: Config) -> None:
    """`pool_after` says where blocks end, whatever the windows do."""
    settings = {"model.filters": [4, 4, 4], "model.kernel_sizes": [3, 1, 1], "model.pool_size": 1}
    plain = made(tiny_config, {**settings, "model.pool_stride": 1})
    assert "model.pool_after" in inert(plain)
    residual = made(plain, {"model.residual": 2})
    assert "model.pool_after" not in inert(residual)
    assert effective(residual) != effective(made(residual, {"model.pool_after": False}))
