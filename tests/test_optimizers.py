"""Optimisers: PyTorch's own steps, bit for bit, without what it wraps around them."""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, optim

from cnn_ablation.tasks.image_classification.config import (
    AdaGradConfig,
    AdamConfig,
    AdamWConfig,
    OptimizerConfig,
    RMSPropConfig,
    SGDConfig,
)
from cnn_ablation.tasks.image_classification.optimizers import make_optimizer, undecorated

CPU = torch.device("cpu")
Make = Callable[..., optim.Optimizer]


def weights() -> list[tuple[str, Tensor]]:
    drawn = torch.Generator().manual_seed(0)
    shapes = {"first.weight": (4, 3), "first.bias": (4,), "last.weight": (2, 4)}
    return [(name, torch.randn(shape, generator=drawn).requires_grad_()) for name, shape in shapes.items()]


def after_steps(optimizer: optim.Optimizer, named: list[tuple[str, Tensor]], *, steps: int = 3) -> list[list[Any]]:
    """The parameters after every step along gradients that are the same for all optimisers."""
    drawn, found = torch.Generator().manual_seed(1), []
    for _ in range(steps):
        optimizer.zero_grad()
        for _, parameter in named:
            parameter.grad = torch.randn(parameter.shape, generator=drawn)
        optimizer.step()
        found.append([parameter.tolist() for _, parameter in named])
    return found


@pytest.mark.parametrize(
    ("torchs", "config", "fused"),
    [
        pytest.param(
            lambda p, **how: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, **how),
            SGDConfig(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
            True,
            id="sgd",
        ),
        pytest.param(lambda p, **how: optim.Adam(p, lr=0.1, **how), AdamConfig(lr=0.1), True, id="adam"),
        pytest.param(
            lambda p, **how: optim.AdamW(p, lr=0.1, weight_decay=0.3, **how),
            AdamWConfig(lr=0.1, weight_decay=0.3),
            True,
            id="adamw",
        ),
        pytest.param(
            lambda p, **how: optim.Adagrad(p, lr=0.1, eps=1e-8, **how), AdaGradConfig(lr=0.1, eps=1e-8), True,
            id="adagrad",
        ),
        pytest.param(
            lambda p, **how: optim.RMSprop(p, lr=0.1, alpha=0.9, eps=1e-8, momentum=0.5, **how),
            RMSPropConfig(lr=0.1, alpha=0.9, eps=1e-8, momentum=0.5),
            False,
            id="rmsprop",
        ),
    ],
)  # fmt: skip
def test_steps_are_pytorchs_bit_for_bit(torchs: Make, config: OptimizerConfig, fused: bool) -> None:
    for how in ({}, {"fused": True})[: 1 + fused]:
        theirs, ours = weights(), weights()
        optimizer = make_optimizer(config, ours, CPU, fused=bool(how))
        reference = torchs([parameter for _, parameter in theirs], **how)
        is_ours = bool(how) and isinstance(reference, optim.Adam)  # a kernel's call of our own, AdamW's too
        assert type(optimizer).__name__ == ("FusedAdam" if is_ours else type(reference).__name__)
        assert after_steps(optimizer, ours) == after_steps(reference, theirs)
        found, expected = optimizer.state_dict(), reference.state_dict()
        torch.testing.assert_close(found["state"], expected["state"], rtol=0, atol=0)
        assert found["param_groups"] == expected["param_groups"]


@pytest.mark.parametrize("config", [AdamConfig(lr=0.1), AdamWConfig(lr=0.1, weight_decay=0.3)], ids=["adam", "adamw"])
@pytest.mark.parametrize("then", [True, False], ids=["pytorchs-to-ours", "ours-to-pytorchs"])
def test_a_checkpoint_of_one_is_gone_on_with_by_the_other(config: OptimizerConfig, then: bool) -> None:
    """As of a run that an earlier version began: PyTorch's optimiser, with its single kernel."""
    kind = {"adam": optim.Adam, "adamw": optim.AdamW}[config.name]
    how = {"lr": 0.1, "weight_decay": config.weight_decay, "fused": True}

    def made(named: list[tuple[str, Tensor]], of_ours: bool) -> optim.Optimizer:
        return make_optimizer(config, named, CPU, fused=True) if of_ours else kind([p for _, p in named], **how)

    straight, broken = weights(), weights()
    optimizer, beginning = made(straight, then), made(broken, not then)
    after_steps(optimizer, straight)
    after_steps(beginning, broken)
    file = io.BytesIO()
    torch.save(beginning.state_dict(), file)
    file.seek(0)
    going_on = made(broken, then)
    going_on.load_state_dict(torch.load(file, weights_only=True))
    assert after_steps(going_on, broken) == after_steps(optimizer, straight)


@pytest.mark.parametrize("fused", [False, True])
def test_a_closure_is_asked_with_gradients(fused: bool) -> None:
    optimizer = make_optimizer(AdamConfig(), weights(), CPU, fused=fused)
    assert optimizer.step(lambda: float(torch.is_grad_enabled())) == 1.0  # type: ignore[arg-type]


ORDERS = {"rows": torch.contiguous_format, "channels last": torch.channels_last}


@pytest.mark.parametrize("of_averages", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("of_gradient", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("of_weights", ORDERS.values(), ids=ORDERS)
def test_adams_kernel_pairs_numbers_by_their_places_not_by_their_order_in_memory(
    of_weights: torch.memory_format, of_gradient: torch.memory_format, of_averages: torch.memory_format
) -> None:
    drawn = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(5, 6, 5, 3, 3, generator=drawn)
    found = []
    for fused in (True, False):
        weight = start.clone(memory_format=of_weights).requires_grad_()
        optimizer = make_optimizer(AdamConfig(lr=0.1), [("weight", weight)], CPU, fused=fused)
        for gradient in gradients:
            weight.grad = gradient.clone(memory_format=of_gradient)
            optimizer.step()
            state = optimizer.state[weight]
            state |= {name: state[name].clone(memory_format=of_averages) for name in ("exp_avg", "exp_avg_sq")}
        found.append(weight.detach())
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW, optim.Adagrad, optim.RMSprop])
def test_what_torch_compile_wants_is_not_imported(kind: type[optim.Optimizer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it fails
    named = weights()
    optimizer = undecorated(kind)([parameter for _, parameter in named], lr=0.1)
    after_steps(optimizer, named, steps=1)
    optimizer.load_state_dict(optimizer.state_dict())
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    assert [name for name in wrapped if inspect.unwrap(of := getattr(type(optimizer), name)) is not of] == []


def test_a_step_keeps_no_graph() -> None:
    named = weights()
    optimizer = make_optimizer(AdamConfig(), named, CPU)
    after_steps(optimizer, named, steps=1)
    assert all(parameter.is_leaf and parameter.requires_grad for _, parameter in named)
    assert not any(value.requires_grad for state in optimizer.state.values() for value in state.values())
