"""All seeds of an arm trained together on one device: the reference loop's epochs, for several runs at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from cnn_ablation.tasks.image_classification import devices
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data.images import ImageData
from cnn_ablation.tasks.image_classification.data.resident import ResidentSplit, resident
from cnn_ablation.tasks.image_classification.lengths import epoch_images, num_epochs
from cnn_ablation.tasks.image_classification.training import (
    StepClock,
    Technique,
    TrainingResult,
    TrainingState,
    image_orders,
    result_of,
    score,
)


class Steps(Protocol):
    """Trains several networks, each on its own batches. Made before the clock starts: compiling belongs here."""

    def epoch(self, orders: Tensor) -> Tensor:
        """One epoch.

        Args:
            orders: int64 (seeds, images) on the device: each seed's order of the training images.

        Returns:
            float32 (seeds,): each seed's sum of losses over its images.
        """


MakeSteps = Callable[[Config, Sequence[TrainingState], ResidentSplit, str], Steps]
"""(configuration, one state per seed, training images, precision) -> steps."""


def train_together(
    config: Config,
    data: ImageData,
    *,
    seeds: Sequence[int],
    device: torch.device,
    make_steps: MakeSteps,
    technique: Technique,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> list[TrainingResult]:
    """Trains one configuration with several seeds at once; each seed's streams are those of a lone run.

    `train_seconds` and `cpu_seconds` are those of all of them: they share the device as runs side by side do. A seed
    that diverged or stopped early is evaluated in the epoch where it did; the others go on.
    """
    precision = devices.resolve_precision(config.precision, device)
    parts = resident(data, device, technique.memory_format)
    states = [TrainingState(config, data, seed=seed, device=device, technique=technique) for seed in seeds]
    num_images = len(parts.train)
    orders = [image_orders(num_images, shuffle=config.train.shuffle, seed=state.seeds.order) for state in states]
    steps, clock = make_steps(config, states, parts.train, precision), StepClock(device)
    for state in states:
        state.clock = clock
    results: dict[int, TrainingResult] = {}
    for epoch in range(num_epochs(config.train, num_images)):
        size = epoch_images(config.train, epoch, num_images)
        order = torch.stack([next(each)[:size] for each in orders]).to(device)
        with clock.running():
            losses = steps.epoch(order)
        for index, (state, loss) in enumerate(zip(states, losses.tolist(), strict=True)):
            if index in results:
                continue
            state.end_epoch(loss / size, score(state, parts.val, precision), clock.seconds)
            if state.is_finished(num_images):
                results[index] = _as_it_is_now(result_of(state, parts, precision=precision))
        on_epoch(epoch + 1)
        if len(results) == len(states):
            break
    return [results[index] for index in range(len(states))]


def _as_it_is_now(result: TrainingResult) -> TrainingResult:
    """With a network of its own: the steps of the seeds that go on change the weights of this one too."""
    return replace(result, network=copy.deepcopy(result.network))
