"""What surrounds an optimiser's step: a scheduled rate, clipped gradients, smoothed labels, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import Tensor, optim
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import cnn_ablation
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.runs.run import run
from cnn_ablation.study import checks
from cnn_ablation.tasks.image_classification import data, engine, training
from cnn_ablation.tasks.image_classification.config import Config, SGDConfig
from cnn_ablation.tasks.image_classification.data.resident import resident
from cnn_ablation.tasks.image_classification.engine.steps import EagerSteps
from cnn_ablation.tasks.image_classification.engine.together import train_together
from cnn_ablation.tasks.image_classification.losses import (
    LOSSES,
    SmoothedCrossEntropy,
    cross_entropy,
    loss_to_train,
)
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.build import build
from cnn_ablation.tasks.image_classification.scoring import evaluate
from cnn_ablation.tasks.image_classification.training import TrainingResult, TrainingState
from cnn_ablation.tasks.image_classification.updates import Updates

CPU = torch.device("cpu")


def composed(*overrides: str) -> Config:
    return cnn_ablation.compose([*TINY, "precision=float32", "device=cpu", *overrides])


def trained(config: Config) -> TrainingResult:
    return training.train(config, data.load(config.data), seed=0, device=CPU)


def started(config: Config) -> dict[str, Tensor]:
    images = data.load(config.data)
    return build(network_layers(config.model, images.num_classes), images.input_shape, seed=0).state_dict()


def weights_of(optimizer: optim.Optimizer) -> list[Tensor]:
    return [each.detach().clone() for group in optimizer.param_groups for each in group["params"]]


@contextmanager
def watched() -> Iterator[tuple[list[float], list[list[Tensor]]]]:
    """The rate of every step that any optimiser takes, and the weights after it."""
    rates, weights = list[float](), list[list[Tensor]]()
    hooks = [
        register_optimizer_step_pre_hook(lambda optimizer, *given: rates.append(optimizer.param_groups[0]["lr"])),
        register_optimizer_step_post_hook(lambda optimizer, *given: weights.append(weights_of(optimizer))),
    ]
    try:
        yield rates, weights
    finally:
        for hook in hooks:
            hook.remove()


# -- the rate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "factors"),
    [
        ((), [1.0] * 6),
        (("train.warmup_epochs=1",), [1 / 3, 2 / 3, 1.0, 1.0, 1.0, 1.0]),
        (("train.schedule=step", "train.step_epochs=1"), [1.0] * 3 + [0.1] * 3),
        (("train.schedule=cosine", "train.updates=4"), [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]),
        (("train.schedule=step", "train.step_epochs=4", "train.epochs=8", "train.scale=0.25"), [1.0] * 3 + [0.1] * 3),
    ],
    ids=str,
)
@pytest.mark.parametrize("engine_name", ["reference", "fast"])
def test_every_step_is_taken_at_its_rate(engine_name: str, overrides: tuple[str, ...], factors: list[float]) -> None:
    config = composed(*overrides, f"engine={engine_name}", "optimizer.lr=0.02")
    with watched() as (rates, _):
        engine.train(config, data.load(config.data), seed=0, device=CPU)
    assert rates == pytest.approx([0.02 * factor for factor in factors], rel=1e-12)


def test_a_training_that_stops_early_had_the_rates_of_the_whole_one() -> None:
    whole = composed("train.schedule=cosine", "train.epochs=12", "optimizer.lr=1e-12")
    with watched() as (rates, _):
        trained(replace(whole, train=replace(whole.train, stop_on="val_accuracy", patience=2)))
    with watched() as (longer, _):
        trained(whole)
    assert (len(rates), len(longer)) == (9, 36)
    assert rates == longer[:9]


OPTIMIZERS = [
    ("optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.9", "optimizer.nesterov=true"),
    ("optimizer=sgd", "optimizer.lr=0.1", "optimizer.weight_decay=0.1"),
    ("optimizer=adam", "optimizer.weight_decay=0.1"),
    ("optimizer=adamw", "optimizer.weight_decay=0.1"),
    ("optimizer=adagrad",),
    ("optimizer=rmsprop", "optimizer.momentum=0.5"),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_step_taken_whole_and_shortened_is_one_at_the_lower_rate(optimizer: tuple[str, ...]) -> None:
    """What graphs rely on: the steps of all optimisers are proportional to the rate, whatever they remember."""
    config = composed(*optimizer, "train.schedule=step", "train.step_epochs=0.34", "train.step_factor=0.3")
    images = data.load(config.data)
    (found,) = train_together(
        config, images, seeds=[0], device=CPU, make_steps=EagerSteps, technique=training.REFERENCE
    )
    alone = trained(config)
    before = started(config)
    for name, value in alone.network.state_dict().items():
        moved = float((value - before[name]).abs().max())
        torch.testing.assert_close(found.network.state_dict()[name], value, rtol=0, atol=1e-4 * moved, msg=name)


# -- clipped gradients ------------------------------------------------------------------------------------------------


def one_step(*overrides: str) -> Tensor:
    """How far plain gradient descent at rate 1 goes in one step: the gradient that it was given."""
    config = composed("optimizer=sgd", "optimizer.lr=1.0", "train.updates=1", *overrides)
    after, before = trained(config).network.state_dict(), started(config)
    return torch.cat([(before[name].double() - value.double()).flatten() for name, value in after.items()])


def test_gradients_are_shortened_together_to_the_norm() -> None:
    gradient = one_step().numpy()
    length = float(np.sqrt((gradient**2).sum()))
    clipped = one_step(f"train.clip_norm={length / 4}").numpy()
    np.testing.assert_allclose(clipped, gradient / 4, rtol=0, atol=1e-4 * np.abs(gradient).max())
    assert np.sqrt((clipped**2).sum()) == pytest.approx(length / 4, rel=1e-4)


def test_gradients_within_the_norm_stay_as_they_are() -> None:
    assert torch.equal(one_step("train.clip_norm=100"), one_step())


# -- smoothed labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.1, 0.7])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_smoothed_labels_are_cross_entropy_with_mixed_targets(smoothing: float, reduction: str) -> None:
    outputs, labels = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)).double(), torch.arange(7) % 4
    logs = outputs.numpy() - np.log(np.exp(outputs.numpy()).sum(axis=1, keepdims=True))
    targets = (1 - smoothing) * np.eye(4)[labels.numpy()] + smoothing / 4
    each = -(targets * logs).sum(axis=1)
    expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    found = SmoothedCrossEntropy(smoothing)(outputs, labels, reduction=reduction)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_without_smoothing_the_loss_is_the_plain_one() -> None:
    train = composed().train
    assert loss_to_train(train) is cross_entropy
    assert loss_to_train(replace(train, label_smoothing=0.1)) == SmoothedCrossEntropy(0.1)
    assert loss_to_train(replace(train, label_smoothing=0.1, loss="mean_squared_error")) is LOSSES["mean_squared_error"]


@pytest.mark.parametrize("technique", [training.REFERENCE, engine.FAST], ids=["reference", "fast"])
def test_curves_tell_the_smoothed_loss_of_training_and_scores_the_plain_one(technique: training.Technique) -> None:
    config = composed("train.label_smoothing=0.5", "optimizer.lr=1e-12", "train.epochs=1")
    images = data.load(config.data)
    result = training.train(config, images, seed=0, device=CPU, technique=technique)
    (together,) = train_together(config, images, seeds=[0], device=CPU, make_steps=EagerSteps, technique=technique)
    parts, network = resident(images, CPU), result.network
    smoothed = evaluate(network, parts.train.in_order(48), SmoothedCrossEntropy(0.5)).loss
    plain = [evaluate(network, part.in_order(60)).loss for part in (parts.train, parts.val, parts.test)]
    assert abs(smoothed - plain[0]) > 1e-4
    for found in (result, together):
        assert found.curves[0].train_loss == pytest.approx(smoothed, rel=1e-5)
        assert [found.train.loss, found.val.loss, found.test.loss] == pytest.approx(plain, rel=1e-5)
        assert found.curves[0].val_loss == pytest.approx(plain[1], rel=1e-5)


# -- averaged weights -------------------------------------------------------------------------------------------------


def averaged(history: list[Tensor], decay: float) -> np.ndarray:
    """Of the weights after each step, the later the heavier, with shares that add up to 1."""
    shares = decay ** np.arange(len(history))[::-1]
    return np.tensordot(shares / shares.sum(), np.stack([each.double().numpy() for each in history]), axes=1)


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_average_of_the_weights_is_what_is_kept_and_scored(decay: float) -> None:
    config = composed(f"train.ema_decay={decay}", "optimizer.lr=0.02", "train.updates=5")
    with watched() as (_, history):
        result = trained(config)
    assert len(history) == 5
    for index, parameter in enumerate(result.network.parameters()):
        expected = averaged([weights[index] for weights in history], decay)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-6)
        assert np.abs(expected - history[-1][index].numpy()).max() > 1e-3
    parts = resident(data.load(config.data), CPU)
    for found, part in ((result.test, parts.test), (result.val, parts.val), (result.train, parts.train)):
        again = evaluate(result.network, part.in_order(60))
        assert (found.loss, found.accuracy) == (pytest.approx(again.loss, rel=1e-6), again.accuracy)
    assert result.curves[-1].val_loss == result.val.loss


def test_training_itself_does_not_see_the_average() -> None:
    plain, with_average = (trained(composed(f"train.ema_decay={decay}")) for decay in ("null", "0.9"))
    assert [point.train_loss for point in plain.curves] == [point.train_loss for point in with_average.curves]
    assert plain.test.loss != with_average.test.loss


def test_statistics_of_batch_norm_are_averaged_with_the_weights() -> None:
    config = composed("model.batch_norm=true", "train.ema_decay=0.7", "optimizer=sgd", "optimizer.lr=0.1")
    images = data.load(config.data)
    state = TrainingState(config, images, seed=0, device=CPU)
    assert state.updates.average is not None
    history = []
    for inputs, labels in resident(images, CPU).train.in_order(16):
        training.train_batches(state.network, state.updates, [(inputs, labels)], state.sums)
        history.append({name: value.clone() for name, value in state.network.state_dict().items()})
    found = state.scored.state_dict()
    floating = [name for name, value in found.items() if value.is_floating_point()]
    assert {name.rpartition(".")[2] for name in floating} == {"weight", "bias", "running_mean", "running_var"}
    for name in floating:
        expected = averaged([each[name] for each in history], 0.7)
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=0, atol=1e-6, err_msg=name)
    counts = [int(value) for name, value in found.items() if name.endswith("num_batches_tracked")]
    assert set(counts) == {len(history)} == {3}


def test_the_first_average_is_the_weights_after_the_first_step() -> None:
    config = composed("train.updates=1")
    plain, with_average = (trained(replace(config, train=replace(config.train, ema_decay=d))) for d in (None, 0.999))
    for name, value in plain.network.state_dict().items():
        assert torch.equal(value, with_average.network.state_dict()[name]), name


def test_a_record_holds_the_averaged_network_and_its_scores(tmp_path: Path) -> None:
    config = composed("train.ema_decay=0.9", "replicates=1", f"store={tmp_path / 'store'}")
    (record,) = run(config, tmp_path)
    expected = trained(config)
    assert (record.status, record.test_accuracy) == ("ok", expected.test.accuracy)
    assert record.num_params == sum(each.numel() for each in expected.network.parameters())
    assert record.final_gradient_norm > 0


# -- all of it together -----------------------------------------------------------------------------------------------

EVERYTHING = (
    *OPTIMIZERS[0],
    *("train.schedule=cosine", "train.warmup_epochs=1", "train.clip_norm=0.5", "train.label_smoothing=0.1"),
    *("train.ema_decay=0.8", "train.batch_size=20", "train.updates=8"),
)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_seeds_trained_together_with_everything_are_those_trained_alone(precision: str) -> None:
    config = composed(*EVERYTHING, f"precision={precision}")
    images = data.load(config.data)
    joined = train_together(
        config, images, seeds=[0, 1], device=CPU, make_steps=EagerSteps, technique=training.REFERENCE
    )
    for seed, found in enumerate(joined):
        alone = training.train(config, images, seed=seed, device=CPU)
        assert [point.train_loss for point in found.curves] == pytest.approx(
            [point.train_loss for point in alone.curves], rel=1e-5 if precision == "float32" else 1e-2
        )
        assert found.test.loss == pytest.approx(alone.test.loss, rel=1e-5 if precision == "float32" else 1e-2)


def test_without_a_recipe_a_step_is_the_optimisers_own(tiny_config: Config) -> None:
    """Nothing is kept, and no rate moved, where nothing was asked for."""
    updates = Updates(tiny_config, torch.nn.Sequential(torch.nn.Linear(2, 2)), 48, CPU, fused=False)
    assert (updates.average, updates.clip_norm, updates.schedule.is_constant) == (None, None, True)
    (layer,) = updates.parameters[:1]
    layer.grad = torch.ones_like(layer)
    updates.step()
    assert updates.optimizer.param_groups[0]["lr"] == tiny_config.optimizer.lr


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("optimizer=sgd", "optimizer.nesterov=true"),
            "optimizer.nesterov=true\n"
            "  allowed: false with optimizer.momentum=0: without momentum there is nothing to look ahead along\n"
            "  remedy: optimizer.momentum=0.9",
        ),
        (
            ("train.warmup_epochs=2.5",),
            "train.warmup_epochs=2.5\n"
            "  allowed: a warm-up within the 6 updates of the training; here it takes 8\n"
            "  remedy: a shorter one, or a longer training",
        ),
        (("train.schedule=linear",), "train.schedule=linear\n  allowed: constant, step, cosine, one_cycle"),
        (("train.schedule=cosin",), "did you mean: train.schedule=cosine"),
        (("train.warmup_epochs=-1",), "train.warmup_epochs=-1.0\n  allowed: at least 0"),
        (("train.step_epochs=0",), "train.step_epochs=0.0\n  allowed: above 0"),
        (("train.step_factor=2",), "train.step_factor=2.0\n  allowed: above 0 and at most 1"),
        (("train.final_lr_factor=-0.1",), "train.final_lr_factor=-0.1\n  allowed: at least 0 and at most 1"),
        (("train.clip_norm=0",), "train.clip_norm=0.0\n  allowed: above 0"),
        (("train.label_smoothing=1",), "train.label_smoothing=1.0\n  allowed: at least 0 and below 1"),
        (("train.ema_decay=1",), "train.ema_decay=1.0\n  allowed: above 0 and below 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_before_training(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checks.check(composed(*overrides))
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 10


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0.9"),
        ("train.warmup_epochs=2",),
        ("train.warmup_epochs=20", "train.epochs=20", "train.scale=0.1"),
        ("train.warmup_epochs=20", "train.schedule=one_cycle"),
    ],
    ids=" ".join,
)
def test_what_fits_passes(overrides: tuple[str, ...]) -> None:
    checks.check(composed(*overrides))


def test_nesterov_belongs_to_gradient_descent() -> None:
    with pytest.raises(ConfigError, match=r"this key belongs to optimizer=sgd"):
        composed("optimizer=adam", "optimizer.nesterov=true")
    assert SGDConfig().nesterov is False


def test_seeds_with_any_recipe_are_trained_together_on_a_gpu() -> None:
    assert engine.trains_together(replace(composed(*EVERYTHING), device="auto"), torch.device("cuda"))


def test_a_knob_of_the_recipe_is_part_of_a_runs_identity() -> None:
    from cnn_ablation.config import result_settings

    changes: dict[str, Any] = {
        "train.schedule": "cosine",
        "train.warmup_epochs": 1.0,
        "train.step_epochs": 1.0,
        "train.step_factor": 0.5,
        "train.final_lr_factor": 0.5,
        "train.clip_norm": 1.0,
        "train.label_smoothing": 0.1,
        "train.ema_decay": 0.9,
    }
    before = result_settings(composed())
    for key, value in changes.items():
        assert before[key] != value
        assert result_settings(composed(f"{key}={value}"))[key] == value
