"""An optimiser's step with what the recipe puts around it: clipped gradients, a scheduled rate, averaged weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cnn_ablation.tasks.image_classification.averaging import WeightAverage
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.optimizers import make_optimizer
from cnn_ablation.tasks.image_classification.schedules import schedule_of


class Updates:
    """Stands where a torch optimiser stands, and counts its steps.

    Args:
        config: with the optimiser and `train`.
        network: on `device`; its parameters are stepped in place.
        train_images: how many there are, by which epochs are steps.
        device: where the network is.
        fused: asks for the optimiser's single kernel where there is one.
    """

    def __init__(self, config: Config, network: nn.Module, train_images: int, device: torch.device, *, fused: bool):
        self.parameters = list(network.parameters())
        self.optimizer = make_optimizer(config.optimizer, network.named_parameters(), device, fused=fused)
        self.lr, self.clip_norm = config.optimizer.lr, config.train.clip_norm
        self.schedule = schedule_of(config.train, train_images)
        decay = config.train.ema_decay
        self.average = None if decay is None else WeightAverage(network, decay)
        self.num_taken = 0

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Takes a step along the gradients that the parameters have."""
        self.clip_gradients()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.schedule.factor(self.num_taken)
        self.optimizer.step()
        if self.average:
            self.average.add(self.num_taken)
        self.num_taken += 1

    def clip_gradients(self) -> None:
        """Shortens all gradients alike where the L2 norm of all of them together exceeds `clip_norm`.

        Pascanu et al. 2013, algorithm 1. Nothing is read back from the device.
        """
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, lists and dictionaries only."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "num_taken": self.num_taken,
            "average": self.average.network.state_dict() if self.average else None,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(saved["optimizer"])
        self.num_taken = saved["num_taken"]
        if self.average:
            self.average.network.load_state_dict(saved["average"])
