"""Factors of the learning rate, beside PyTorch's own schedulers and closed formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import optim
from torch.optim import lr_scheduler

from cnn_ablation.tasks.image_classification.config import TrainConfig
from cnn_ablation.tasks.image_classification.schedules import Schedule, schedule_of

RATE = 0.3
Make = Callable[[optim.Optimizer, int], lr_scheduler.LRScheduler]


def factors(schedule: Schedule) -> list[float]:
    return [schedule.factor(step) for step in range(schedule.num_steps)]


def of_pytorch(make: Make, num_steps: int) -> list[float]:
    optimizer = optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler, found = make(optimizer, num_steps), []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"] / RATE)
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 7, 20, 101])
@pytest.mark.parametrize(
    ("settings", "make"),
    [
        ({}, lambda o, n: lr_scheduler.LambdaLR(o, lambda step: 1.0)),
        ({"shape": "step", "step_every": 3, "step_factor": 0.4}, lambda o, n: lr_scheduler.StepLR(o, 3, gamma=0.4)),
        ({"shape": "cosine", "final_factor": 0.0}, lr_scheduler.CosineAnnealingLR),
        ({"shape": "cosine", "final_factor": 0.2}, lambda o, n: lr_scheduler.CosineAnnealingLR(o, n, 0.2 * RATE)),
        ({"shape": "one_cycle"}, lambda o, n: lr_scheduler.OneCycleLR(o, RATE, total_steps=n, cycle_momentum=False)),
        ({"warmup_steps": 2}, lambda o, n: lr_scheduler.LinearLR(o, start_factor=1 / 2, total_iters=1)),
        ({"warmup_steps": 5}, lambda o, n: lr_scheduler.LinearLR(o, start_factor=1 / 5, total_iters=4)),
    ],
    ids=["constant", "step", "cosine", "cosine to a fifth", "one cycle", "warm-up of 2", "warm-up of 5"],
)
def test_the_factors_are_those_of_pytorchs_schedulers(settings: dict[str, Any], make: Make, num_steps: int) -> None:
    expected = of_pytorch(make, num_steps)
    assert factors(Schedule(num_steps, **settings)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def half_cosine(num_steps: int) -> np.ndarray:
    """(1 + cos) / 2 = cos^2 of half the angle."""
    return np.cos(np.pi / 2 * np.arange(num_steps) / num_steps) ** 2


RISE = [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0]

# (train settings, factors): 48 images in batches of 16, three updates an epoch
PLANS: list[tuple[str, dict[str, Any], list[float] | np.ndarray]] = [
    ("default", {"epochs": 2}, [1.0] * 6),
    ("warm-up", {"epochs": 3, "warmup_epochs": 2}, [*RISE, 1.0, 1.0, 1.0]),
    ("warm-up to the end", {"epochs": 2, "warmup_epochs": 2}, RISE),
    ("warm-up of half an epoch", {"epochs": 1, "warmup_epochs": 0.5}, [1 / 2, 1.0, 1.0]),
    ("step", {"epochs": 3, "schedule": "step", "step_epochs": 1}, [1.0] * 3 + [0.1] * 3 + [0.01] * 3),
    ("step of one update", {"epochs": 1, "schedule": "step", "step_epochs": 0.01, "step_factor": 0.5}, [1, 0.5, 0.25]),
    (
        "steps count from the start of a warm-up",
        {"epochs": 3, "schedule": "step", "step_epochs": 1, "step_factor": 0.5, "warmup_epochs": 2},
        np.array([*RISE, 1.0, 1.0, 1.0]) * np.repeat([1, 0.5, 0.25], 3),
    ),
    ("cosine", {"epochs": 3, "schedule": "cosine"}, half_cosine(9)),
    ("cosine of updates", {"updates": 5, "schedule": "cosine"}, half_cosine(5)),
    ("cosine after a warm-up", {"epochs": 5, "schedule": "cosine", "warmup_epochs": 2}, [*RISE, *half_cosine(9)]),
    (
        "scale shortens all of it",
        {"epochs": 50, "scale": 0.1, "schedule": "cosine", "warmup_epochs": 20},
        [*RISE, *half_cosine(9)],
    ),
    (
        "scale of steps",
        {"updates": 90, "scale": 0.1, "schedule": "step", "step_epochs": 10, "step_factor": 0.5},
        np.repeat([1, 0.5, 0.25], 3),
    ),
    (
        "stopping early leaves the plan",
        {"epochs": 3, "schedule": "cosine", "stop_on": "val_loss", "patience": 1},
        half_cosine(9),
    ),
]


@pytest.mark.parametrize(("settings", "expected"), [pytest.param(*case[1:], id=case[0]) for case in PLANS])
def test_a_plan_in_epochs_is_one_in_updates(settings: dict[str, Any], expected: Any) -> None:
    schedule = schedule_of(TrainConfig(batch_size=16, **settings), 48)
    assert factors(schedule) == pytest.approx(list(expected), rel=1e-12)


def test_the_smaller_last_batch_of_an_epoch_is_an_update() -> None:
    schedule = schedule_of(TrainConfig(epochs=2, batch_size=20, schedule="step", step_epochs=1, step_factor=0.5), 48)
    assert factors(schedule) == [1, 1, 1, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("settings", "is_constant"),
    [
        ({}, True),
        ({"schedule": "step", "step_epochs": 2}, True),
        ({"schedule": "step", "step_epochs": 1.7}, False),
        ({"schedule": "step", "step_epochs": 1, "step_factor": 1.0}, True),
        ({"schedule": "cosine", "final_lr_factor": 1.0}, True),
        ({"schedule": "cosine"}, False),
        ({"schedule": "one_cycle"}, False),
        ({"warmup_epochs": 0.4}, True),
        ({"warmup_epochs": 0.6}, False),
    ],
    ids=str,
)
def test_only_what_changes_no_rate_is_constant(settings: dict[str, Any], is_constant: bool) -> None:
    schedule = schedule_of(TrainConfig(epochs=2, batch_size=16, **settings), 48)
    assert schedule.is_constant == is_constant == (set(factors(schedule)) == {1.0})
    assert (schedule == Schedule(6)) == is_constant
