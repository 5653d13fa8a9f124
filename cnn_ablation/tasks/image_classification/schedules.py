"""Learning rates over a training: a step's number -> the factor of `optimizer.lr`. Arithmetic alone, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cnn_ablation.tasks.image_classification import parts
from cnn_ablation.tasks.image_classification.config import TrainConfig
from cnn_ablation.tasks.image_classification.lengths import num_updates, updates_per_epoch

# PyTorch's defaults of OneCycleLR
_RISING_SHARE = 0.3
_START_FACTOR = 1 / 25
_END_FACTOR = _START_FACTOR / 1e4


@dataclass(frozen=True)
class Schedule:
    """The factors of a training; equal schedules of the same number of steps give equal factors.

    Settings that do not act have one value: those of another shape, a warm-up that is over with the first step, steps
    that never come.
    """

    num_steps: int
    """Of the longest training; one that stops early leaves the rest."""
    shape: str = "constant"
    warmup_steps: int = 0
    step_every: int = 0
    step_factor: float = 1.0
    final_factor: float = 1.0

    @property
    def is_constant(self) -> bool:
        """Whether every factor is 1."""
        return self.shape == "constant" and not self.warmup_steps

    def factor(self, step: int) -> float:
        """Of a step, counted from 0."""
        warm = warm_up(step, self.warmup_steps)
        if self.shape == "step":
            return warm * step_decay(step, self.step_every, self.step_factor)
        if self.shape == "cosine" and step >= self.warmup_steps:
            return cosine(step - self.warmup_steps, self.num_steps - self.warmup_steps, self.final_factor)
        if self.shape in parts.SCHEDULES:
            return warm * float(parts.SCHEDULES[self.shape](step, self.num_steps))
        return one_cycle(step, self.num_steps) if self.shape == "one_cycle" else warm


def schedule_of(train: TrainConfig, train_images: int) -> Schedule:
    """What `train.schedule` and its keys come to for so many training images; `train.scale` shortens all of it."""
    num_steps = num_updates(train, train_images)
    if train.schedule == "one_cycle":
        return Schedule(num_steps, "one_cycle")  # rises by itself
    warm = warmup_steps(train, train_images)
    warm = warm if warm > 1 else 0
    every = step_length(train, train_images)
    if train.schedule == "step" and train.step_factor < 1 and every < num_steps:
        return Schedule(num_steps, "step", warm, step_every=every, step_factor=train.step_factor)
    if train.schedule == "cosine" and train.final_lr_factor < 1 and num_steps - warm > 1:
        return Schedule(num_steps, "cosine", warm, final_factor=train.final_lr_factor)
    return Schedule(num_steps, train.schedule if train.schedule in parts.SCHEDULES else "constant", warm)


def warmup_steps(train: TrainConfig, train_images: int) -> int:
    """Optimiser steps that `train.warmup_epochs` last."""
    return _steps(train, train.warmup_epochs, train_images)


def step_length(train: TrainConfig, train_images: int) -> int:
    """Optimiser steps that `train.step_epochs` last, from one fall of the rate to the next."""
    return max(1, _steps(train, train.step_epochs, train_images))


def _steps(train: TrainConfig, epochs: float, train_images: int) -> int:
    return round(train.scale * epochs * updates_per_epoch(train, train_images))


def warm_up(step: int, num_steps: int) -> float:
    """Linear: 1/n at the first of n steps, 1 from the last of them on (Goyal et al. 2017, section 2.2)."""
    return min(1.0, (step + 1) / num_steps) if num_steps else 1.0


def step_decay(step: int, every: int, factor: float) -> float:
    """`factor` once more after every so many steps."""
    return float(factor ** (step // every))


def cosine(step: int, num_steps: int, final: float) -> float:
    """Half a period from 1 down to `final`, which would be reached one step after the last.

    Loshchilov & Hutter 2017, equation 5, without restarts.
    """
    return final + (1 - final) * (1 + math.cos(math.pi * step / num_steps)) / 2


def one_cycle(step: int, num_steps: int) -> float:
    """Up from 1/25 in three tenths of the steps, then down to a ten-thousandth of that, both along a cosine.

    Smith & Topin 2018, as PyTorch's `OneCycleLR` has it by default; momentum is left as it is.
    """
    peak = _RISING_SHARE * num_steps - 1
    if step <= peak:
        return _along_cosine(_START_FACTOR, 1.0, step / peak)
    return _along_cosine(1.0, _END_FACTOR, (step - peak) / (num_steps - 1 - peak))


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
