"""An exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """mean_t = d mean_(t-1) + (1 - d) w_t from mean_0 = 0, divided by 1 - d^t (Kingma & Ba 2015, section 7.2).

    The division leaves out the initial weights, which would outweigh all others in a short training. Batch norm's
    running means and variances are averaged alike: they then belong to the averaged weights, not to the last ones.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.network = copy.deepcopy(network)
        """What has the averages, in tensors that stay where they are."""
        values = [(average, network.state_dict()[name]) for name, average in self.network.state_dict().items()]
        self.averages: list[Tensor] = [average for average, _ in values if average.is_floating_point()]
        self.latest: list[Tensor] = [latest for _, latest in values if latest.is_floating_point()]
        self.counts = [pair for pair in values if not pair[0].is_floating_point()]

    def share(self, step: int) -> float:
        """What the weights after a step, counted from 0, have in the average then: (1 - d) / (1 - d^(step + 1))."""
        return (1 - self.decay) / (1 - self.decay ** (step + 1))

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Takes in the network's weights after a step, counted from 0."""
        for average, latest in zip(self.averages, self.latest, strict=True):
            average.lerp_(latest, self.share(step))
        self.copy_counts()

    def copy_counts(self) -> None:
        """Of batches that batch norm has seen."""
        for average, latest in self.counts:
            average.copy_(latest)
