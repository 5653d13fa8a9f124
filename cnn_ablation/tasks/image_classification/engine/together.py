"""All seeds of an arm trained together on one device: the reference loop's epochs, for several runs at once."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

import torch
from torch import Tensor

from cnn_ablation.tasks.image_classification import devices
from cnn_ablation.tasks.image_classification.checkpoints import DAMAGED, Checkpoints
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data.images import ImageData
from cnn_ablation.tasks.image_classification.data.resident import Resident, ResidentSplit, resident
from cnn_ablation.tasks.image_classification.lengths import epoch_images
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

    def random_states(self) -> Sequence[Tensor]:
        """Where each seed's dropout is in its stream, as `torch.Generator.get_state` gives it."""


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
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> list[TrainingResult]:
    """Trains one configuration with several seeds at once; each seed's streams are those of a lone run.

    `train_seconds` and `cpu_seconds` are those of all of them: they share the device as runs side by side do. A seed
    that diverged or stopped early is evaluated in the epoch where it did; the others go on. One checkpoint, written
    between two epochs, holds all of them.
    """
    precision = devices.resolve_precision(config.precision, device)
    parts = resident(data, device, technique.memory_format)
    start = partial(_Group, config, data, seeds=seeds, device=device, technique=technique)
    checkpoints = checkpoints or Checkpoints()
    group = _started_or_resumed(start, checkpoints)
    group.take_results(parts, precision)
    num_images = len(parts.train)
    orders = [image_orders(num_images, shuffle=config.train.shuffle, seed=each.seeds.order) for each in group.states]
    orders = [itertools.islice(each, group.num_epochs, None) for each in orders]
    steps = make_steps(config, group.states, parts.train, precision)
    while not group.is_finished:
        size = epoch_images(config.train, group.num_epochs, num_images)
        order = torch.stack([next(each)[:size] for each in orders]).to(device)
        with group.clock.running():
            losses = steps.epoch(order)
        group.end_epoch([loss / size for loss in losses.tolist()], parts, precision)
        on_epoch(group.num_epochs)
        if checkpoints.due() and not group.is_finished:
            checkpoints.save(group.state_dict(steps.random_states()))
    return [group.results[index] for index in range(len(seeds))]


class _Group:
    """Where the runs are that are trained together."""

    def __init__(
        self, config: Config, data: ImageData, *, seeds: Sequence[int], device: torch.device, technique: Technique
    ):
        self.states = [TrainingState(config, data, seed=seed, device=device, technique=technique) for seed in seeds]
        self.results: dict[int, TrainingResult] = {}
        """Of those that have come to their end, by their place."""
        self.ends: dict[int, dict[str, Any]] = {}
        """Where these were then: the steps of the others change the weights of all."""
        self.clock = StepClock(device)
        for state in self.states:
            state.clock = self.clock

    @property
    def is_finished(self) -> bool:
        return len(self.results) == len(self.states)

    @property
    def num_epochs(self) -> int:
        """That those still in training have behind them."""
        return max(len(state.curves) for state in self.states)

    def end_epoch(self, train_losses: Sequence[float], parts: Resident, precision: str) -> None:
        """Adds a point to the curves of those in training; some may have come to their end by it."""
        for index, (state, loss) in enumerate(zip(self.states, train_losses, strict=True)):
            if index not in self.results:
                state.end_epoch(loss, score(state, parts.val, precision), self.clock.seconds)
        self.take_results(parts, precision)

    def take_results(self, parts: Resident, precision: str) -> None:
        """Scores those that have come to their end, as they are now."""
        for index, state in enumerate(self.states):
            if index not in self.results and state.is_finished(len(parts.train)):
                self.results[index] = _as_it_is_now(result_of(state, parts, precision=precision))
                if not self.is_finished:
                    self.ends[index] = copy.deepcopy(state.state_dict())

    def state_dict(self, random_states: Sequence[Tensor]) -> dict[str, Any]:
        """Tensors, numbers, strings, lists and dictionaries only."""
        for state, random in zip(self.states, random_states, strict=True):
            state.random[state.device.type] = random
        return {"runs": [self.ends.get(index, state.state_dict()) for index, state in enumerate(self.states)]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave; raises one of `checkpoints.DAMAGED` where that does not fit."""
        for state, run in zip(self.states, saved["runs"], strict=True):
            state.clock = StepClock(state.device)
            state.load_state_dict(run)
        self.clock = max((state.clock for state in self.states), key=attrgetter("seconds"))
        for state in self.states:
            if state.clock.seconds == self.clock.seconds:  # still in training
                state.clock = self.clock


def _started_or_resumed(start: Callable[[], _Group], checkpoints: Checkpoints) -> _Group:
    """New runs, or those of a checkpoint."""
    saved, group = checkpoints.load(), start()
    if saved is None:
        return group
    try:
        group.load_state_dict(saved)
    except DAMAGED as error:
        checkpoints.refuse(error)
        return start()
    return group


def _as_it_is_now(result: TrainingResult) -> TrainingResult:
    """With a network of its own: the steps of the seeds that go on change the weights of this one too."""
    return replace(result, network=copy.deepcopy(result.network))
