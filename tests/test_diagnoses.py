from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnn_ablation.analysis import notes
from cnn_ablation.runs.task import Cost
from cnn_ablation.tasks.image_classification import diagnoses
from cnn_ablation.tasks.image_classification.models.build import build
from cnn_ablation.tasks.image_classification.models.layers import (
    Activation,
    Conv,
    Dropout,
    Flatten,
    Layer,
    Linear,
    Softmax,
)

IMAGES = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
BATCHES = [(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])]


def network(activation: str, *more: Layer) -> nn.Sequential:
    layers = [Conv(4, 3), Activation(activation), Flatten(), Linear(5), Activation(activation), Linear(3), *more]
    return build(layers, (1, 4, 4), seed=0)


def test_a_unit_that_no_image_activates_is_dead() -> None:
    """One of four channels and two of five features get a bias that no image can make up for."""
    killed = network("relu")
    with torch.no_grad():
        killed.Conv1.bias[1] = -100
        killed.Linear1.bias[[0, 3]] = -100
        killed.Linear1.bias[[1, 2, 4]] = 100
    found = {layer.layer: layer for layer in diagnoses.activation_layers(killed, BATCHES)}
    assert (found["Activation1"].units, found["Activation1"].dead) == (4, pytest.approx(1 / 4))
    assert (found["Activation2"].units, found["Activation2"].dead) == (5, pytest.approx(2 / 5))
    assert found["Activation2"].label == "ReLU units in Activation2"


def test_a_unit_that_one_image_activates_at_one_place_lives() -> None:
    alive = network("relu")
    with torch.no_grad():
        alive.Conv1.weight.zero_()
        alive.Conv1.weight[:, :, 0, 0] = 1
        alive.Conv1.bias.fill_(0)
    last = torch.full((1, 1, 4, 4), -1.0)
    last[0, 0, 1, 1] = 1.0
    batches = [(torch.full((3, 1, 4, 4), -1.0), LABELS[:3]), (last, LABELS[:1])]
    assert diagnoses.activation_layers(alive, batches)[0].dead == 0


@pytest.mark.parametrize("activation", ["leaky", "elu", "tanh", "none"])
def test_functions_that_pass_a_gradient_below_zero_have_no_dead_units(activation: str) -> None:
    negative = network(activation)
    with torch.no_grad():
        negative.Linear1.bias.fill_(-100)
    assert diagnoses.activation_layers(negative, BATCHES)[1].dead == 0


@pytest.mark.parametrize(("activation", "limit"), [("sigmoid", 4.357), ("tanh", 2.178)])
def test_saturation_begins_where_the_slope_is_a_twentieth(activation: str, limit: float) -> None:
    """1 / (4 cosh^2(x / 2)) and 1 / cosh^2(x) fall below 5 % of their largest value at 2 acosh(20^.5), acosh(20^.5)."""
    assert limit == pytest.approx(math.acosh(math.sqrt(20)) * (2 if activation == "sigmoid" else 1), abs=1e-3)
    saturated = network(activation)
    with torch.no_grad():
        saturated.Linear1.weight.zero_()
        saturated.Linear1.bias.copy_(torch.tensor([limit + 0.01, -limit - 0.01, limit - 0.01, 0.0, -1.0]))
    assert diagnoses.activation_layers(saturated, BATCHES)[1].saturated == pytest.approx(2 / 5)


def test_watching_leaves_no_hooks_and_the_mode_as_it_was() -> None:
    watched = network("relu", Dropout(0.5)).train()
    diagnoses.activation_layers(watched, BATCHES)
    assert watched.training
    assert not any(module._forward_hooks for module in watched.modules())


def test_gradient_norm_is_that_of_the_mean_loss_and_touches_nothing() -> None:
    measured = network("tanh")
    parameters = list(measured.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(measured(IMAGES), LABELS), parameters)
    expected = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    state = torch.get_rng_state()
    assert diagnoses.gradient_norm(measured, (IMAGES, LABELS), seed=0, precision="float32") == pytest.approx(expected)
    assert all(parameter.grad is None for parameter in parameters)
    assert torch.equal(torch.get_rng_state(), state)


def test_gradient_norm_repeats_with_dropout() -> None:
    dropping = network("relu", Dropout(0.5), Linear(3))
    norms = {diagnoses.gradient_norm(dropping, (IMAGES, LABELS), seed=0, precision="float32") for _ in range(2)}
    assert len(norms) == 1


def test_probabilities_are_told_from_logits() -> None:
    assert diagnoses.gives_probabilities(network("relu", Softmax()), IMAGES)
    assert not diagnoses.gives_probabilities(network("relu"), IMAGES)


BASELINE = Cost(updates=100, num_params=1000, multiply_adds=5000)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (notes.confounds(BASELINE, BASELINE), []),
        (notes.confounds(Cost(25, 1180, 5000), BASELINE), ["4x fewer updates", "+18 % parameters"]),
        (notes.confounds(Cost(200, 1000, 15000), BASELINE), ["2x more updates", "3x the work per image"]),
        (notes.confounds(Cost(100, 1000, 500), BASELINE), ["10x less work per image"]),
        (notes.confounds(Cost(math.nan, math.nan, 0), BASELINE), []),
        (notes.dead_units(0.312, "ReLU units in Activation2"), ["31 % dead ReLU units in Activation2"]),
        (notes.dead_units(0.05, "ReLU units in Activation2"), []),
        (notes.dead_units(math.nan, ""), []),
        (notes.saturated_outputs(0.62, "Tanh units in Activation1"), ["62 % saturated Tanh units in Activation1"]),
        (notes.gradient(0.02, 0.1), ["gradient 5x smaller at the start"]),
        (notes.gradient(0.8, 0.1), ["gradient 8x larger at the start"]),
        (notes.gradient(0.1, 0.11), []),
        (notes.stuck([2.29, 2.4], 10), ["loss never left ln 10"]),
        (notes.stuck([2.2, 2.3, 0.1], 10), ["loss never left ln 10 in 1 of 3 runs"]),
        (notes.stuck([2.2], 10), []),
        (notes.stuck([math.nan], 10), []),
        (notes.stuck([2.3], math.nan), []),
        (notes.generalisation_gap(0.99, 0.7), ["training accuracy 29 pp above validation"]),
        (notes.generalisation_gap(0.75, 0.7), []),
        (notes.double_softmax(False, 10), []),
    ],
)  # fmt: skip
def test_words_come_beyond_thresholds_only(found: object, expected: list[str]) -> None:
    assert list(found) == expected  # type: ignore[call-overload]


def test_the_floor_of_a_double_softmax_is_the_loss_of_a_certain_and_right_answer() -> None:
    certain = torch.zeros(1, 10)
    certain[0, 3] = 1.0
    floor = float(F.cross_entropy(certain, torch.tensor([3])))
    (words,) = notes.double_softmax(True, 10)
    assert words.endswith(f"cannot fall below {floor:.2f}")
