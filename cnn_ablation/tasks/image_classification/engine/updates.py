"""The steps of `updates.Updates` as a graph can replay them: what changes from step to step is read from the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cnn_ablation.tasks.image_classification.updates import Updates


class ReplayableUpdates:
    """Stands where a torch optimiser stands; takes nothing from Python that differs between two steps.

    Factors of the rate and shares of the average lie in tables on the device, one entry for each step of an epoch. A
    step of any of our optimisers is proportional to the rate, so that it is taken at the full rate and then shortened:
    not every optimiser of PyTorch takes a rate that lies on the device.

    Args:
        updates: of the network in training.
        most_steps: of an epoch.
        device: where the network is.
    """

    def __init__(self, updates: Updates, most_steps: int, device: torch.device):
        self.updates, self.optimizer = updates, updates.optimizer
        self.parameters = [parameter.detach() for parameter in updates.parameters]
        self.before = [] if updates.schedule.is_constant else [torch.empty_like(each) for each in self.parameters]
        self.factors, self.shares = torch.ones(most_steps, device=device), torch.ones(most_steps, device=device)
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        """Of the next step in the epoch; graphs read and advance it on the device."""

    def begin(self, num_steps: int) -> None:
        """An epoch of so many steps, which count as taken from now on."""
        first, average = self.updates.num_taken, self.updates.average
        if self.before:
            _fill(self.factors, self.updates.schedule.factor, first, num_steps)
        if average:
            _fill(self.shares, average.share, first, num_steps)
        self.updates.num_taken += num_steps

    def rewind(self) -> None:
        """Back to the first step of the epoch."""
        self.place.zero_()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """One update at the full rate, then shortened by the factor of its place, and its share in the average."""
        average = self.updates.average
        self.updates.clip_gradients()
        if self.before:
            torch._foreach_copy_(self.before, self.parameters)
        self.optimizer.step()
        if self.before:
            factor = self.factors.index_select(0, self.place)[0]
            torch._foreach_copy_(self.parameters, _between(self.before, self.parameters, factor))
        if average:
            share = self.shares.index_select(0, self.place)[0]
            torch._foreach_copy_(average.averages, _between(average.averages, average.latest, share))
            average.copy_counts()
        if self.before or average:
            self.place += 1


def _between(start: list[Tensor], end: list[Tensor], share: Tensor) -> list[Tensor]:
    """By `share` of the way from `start` to `end`."""
    found = list(torch._foreach_sub(end, start))
    torch._foreach_mul_(found, share)
    torch._foreach_add_(found, start)
    return found


def _fill(table: Tensor, value: Callable[[int], float], first: int, num_steps: int) -> None:
    """With the values of so many steps from `first` on."""
    table[:num_steps].copy_(torch.tensor([value(step) for step in range(first, first + num_steps)]))
