"""The reference training loop: plain, readable, and what every faster way of training is compared with."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn, optim

from cnn_ablation.common import machine
from cnn_ablation.common.streams import stream_seed
from cnn_ablation.tasks.image_classification import devices, generators
from cnn_ablation.tasks.image_classification.checkpoints import DAMAGED, Checkpoints
from cnn_ablation.tasks.image_classification.config import Config, TrainConfig
from cnn_ablation.tasks.image_classification.data.augmentation import epoch_draws
from cnn_ablation.tasks.image_classification.data.images import ImageData
from cnn_ablation.tasks.image_classification.data.mixup import MixedLabels
from cnn_ablation.tasks.image_classification.data.placement import Batches, Parts, placed
from cnn_ablation.tasks.image_classification.lengths import epoch_images, num_epochs
from cnn_ablation.tasks.image_classification.losses import LOSSES, Loss, cross_entropy, loss_in_training, loss_to_train
from cnn_ablation.tasks.image_classification.models import build_network, describe
from cnn_ablation.tasks.image_classification.scoring import Evaluation, evaluate, probabilities_from
from cnn_ablation.tasks.image_classification.seeds import stream_seeds
from cnn_ablation.tasks.image_classification.updates import Updates

EVALUATION_BATCH = 250  # images; 500 were as fast on a processor with large caches and a third slower on another
EVALUATION_BATCH_ON_GPU = 2_000  # where a batch of 250 takes less time than starting its kernels
EVALUATION_BYTES_ON_GPU = 2 * 2**30  # of all maps of such a batch, more than are there at once

SCORED_TRAIN_IMAGES = 10_000  # at most; the accuracy of a sample of so many has a standard error below 0.5 points


@dataclass(frozen=True)
class Technique:
    """How the steps are computed, not what they compute; the reference's own is PyTorch's plain way."""

    memory_format: torch.memory_format = torch.contiguous_format
    """Of weights and images."""
    fused_optimizer: bool = False
    """One kernel for all parameters, where PyTorch has one."""
    rewrite: Callable[[nn.Module], nn.Module] = lambda network: network
    """A network with the same parameters and the same function, to compute with."""


REFERENCE = Technique()

_WARM: set[tuple[object, ...]] = set()
"""Networks and batches that this process has computed gradients of."""


@dataclass(frozen=True)
class Epoch:
    """One point of the learning curves."""

    epoch: int
    train_loss: float
    """Mean over the images of the epoch as they were trained on: augmented, with dropout and label smoothing, and while
    the weights moved."""
    val_loss: float
    val_accuracy: float
    train_seconds: float
    """Time spent in training steps since the run began."""


@dataclass(frozen=True)
class TrainingResult:
    """A trained network and what was measured on the way.

    `status` is `ok`, or `diverged` if a loss stopped being finite; a diverged network is evaluated all the same.
    """

    network: nn.Module
    status: str
    train: Evaluation
    """Of up to `SCORED_TRAIN_IMAGES` training images, evenly spaced; the other two are of all images."""
    val: Evaluation
    test: Evaluation
    curves: tuple[Epoch, ...]
    train_seconds: float
    cpu_seconds: float
    updates: int
    images_seen: int
    num_params: int
    precision: str


@dataclass
class EpochSums:
    """Sums over the batches of the epoch in training."""

    loss: Tensor
    """Of all images so far; on the device."""
    num_images: int = 0
    num_batches: int = 0


class TrainingState:
    """Where a run is: all that decides how it goes on, and what it has measured so far."""

    def __init__(
        self, config: Config, data: ImageData, *, seed: int, device: torch.device, technique: Technique = REFERENCE
    ):
        self.device, self.train = device, config.train
        self.loss, self.trained_loss = LOSSES[config.train.loss], loss_to_train(config.train)
        self.to_probabilities = probabilities_from(config.model.output)
        self.seeds = stream_seeds(config.vary, seed)
        network = build_network(config.model, data.num_classes, data.input_shape, seed=self.seeds.init)
        self.network = network.to(device).to(memory_format=technique.memory_format)
        self.computed = technique.rewrite(self.network)
        self.updates = Updates(config, self.network, len(data.train), device, fused=technique.fused_optimizer)
        average = self.updates.average
        self.scored = average.network if average else self.network
        """What is scored and kept: the network in training, or the one with its averaged weights."""
        self.scored_computed = technique.rewrite(self.scored) if average else self.computed
        self.clock = StepClock(device)
        self.curves: list[Epoch] = []
        self.val: Evaluation | None = None
        """After the last epoch; None at the start and right after a checkpoint was read."""
        self.evaluation_batch = evaluation_batch(config, data, device)
        self.begin_epoch()
        self.random = {
            kind: torch.Generator(kind).manual_seed(stream_seed(self.seeds.dropout, "dropout")).get_state()
            for kind in {"cpu", device.type}
        }

    def begin_epoch(self) -> None:
        self.sums = EpochSums(torch.zeros((), device=self.device))

    def end_epoch(self, train_loss: float, val: Evaluation, train_seconds: float) -> None:
        """Adds a point to the curves."""
        self.val = val
        self.curves.append(Epoch(len(self.curves) + 1, train_loss, val.loss, val.accuracy, train_seconds))
        self.begin_epoch()

    @property
    def diverged(self) -> bool:
        """Whether a loss of the last epoch was not finite."""
        return bool(self.curves) and not (
            math.isfinite(self.curves[-1].train_loss) and math.isfinite(self.curves[-1].val_loss)
        )

    def is_finished(self, num_images: int) -> bool:
        """Whether training has come to its end: as long as asked for, diverged, or no longer improving."""
        return (
            self.diverged
            or len(self.curves) >= num_epochs(self.train, num_images)
            or has_stalled(self.curves, self.train)
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, lists and dictionaries only, so that it can be read without unpickling code."""
        return {
            "network": self.network.state_dict(),
            "updates": self.updates.state_dict(),
            "random": self.random,
            "train_seconds": self.clock.seconds,
            "cpu_seconds": self.clock.cpu_seconds,
            "curves": [asdict(epoch) for epoch in self.curves],
            "sums": {**asdict(self.sums), "loss": self.sums.loss.cpu()},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave; raises one of `checkpoints.DAMAGED` where that does not fit."""
        self.network.load_state_dict(saved["network"])
        self.updates.load_state_dict(saved["updates"])
        self.random = saved["random"]
        self.clock.seconds, self.clock.cpu_seconds = saved["train_seconds"], saved["cpu_seconds"]
        self.curves = [Epoch(**epoch) for epoch in saved["curves"]]
        self.sums = EpochSums(**{**saved["sums"], "loss": saved["sums"]["loss"].to(self.device)})


def train(
    config: Config,
    data: ImageData,
    *,
    seed: int,
    device: torch.device,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    technique: Technique = REFERENCE,
    in_host_memory: bool = False,
) -> TrainingResult:
    """Trains one configuration with one seed and evaluates it on the three parts of the data.

    The seed feeds separate streams for initial weights, order of images and dropout, as far as `vary` names them; the
    caller's random state is left as it was. The clock counts training steps only. A run that was interrupted goes on
    from its checkpoint and ends in the same result. Images that stay in host memory change no bit of it.
    """
    precision = devices.resolve_precision(config.precision, device)
    parts = placed(data, device, technique.memory_format, in_host_memory=in_host_memory)
    checkpoints = checkpoints or Checkpoints()
    state = _started_or_resumed(config, data, checkpoints, seed=seed, device=device, technique=technique)
    num_images, batch_size = len(parts.train), config.train.batch_size
    orders = image_orders(num_images, shuffle=config.train.shuffle, seed=state.seeds.order)
    draws_of = epoch_draws(config.train, num_images, parts.train.pixels.shape[2:], seed=state.seeds.order)
    epochs = itertools.islice(zip(orders, draws_of, strict=True), len(state.curves), None)
    for epoch in state.curves:
        on_epoch(epoch)

    with generators.kept(device):
        warm_up(state.computed, next(parts.train.in_order(batch_size)), precision=precision, loss_of=state.trained_loss)
    while not state.is_finished(num_images):
        order, draws = next(epochs)
        rest = slice(state.sums.num_batches * batch_size, epoch_images(config.train, len(state.curves), num_images))
        draws = None if draws is None else draws[rest].to(device)
        batches = parts.train.training_batches(order[rest].to(device), batch_size, draws)
        with generators.at(state.random, device):  # dropout can only draw from torch's global generators
            train_loss = _train_epoch(state, batches, checkpoints, precision=precision)
            state.end_epoch(train_loss, score(state, parts.val, precision), state.clock.seconds)
        on_epoch(state.curves[-1])
    with generators.at(state.random, device):
        return result_of(state, parts, precision=precision)


def has_stalled(curves: Sequence[Epoch], train: TrainConfig) -> bool:
    """Whether `stop_on` was at its best `patience` or more epochs ago; False where nothing is watched."""
    if train.stop_on is None or not curves:
        return False
    sign = -1 if train.stop_on.endswith("accuracy") else 1
    values = [sign * getattr(epoch, train.stop_on) for epoch in curves]
    return len(values) - 1 - values.index(min(values)) >= train.patience


def score(state: TrainingState, part: Batches, precision: str, *, keep_probabilities: bool = True) -> Evaluation:
    """The network as it is now, or its averaged weights where there are any, on a part of the data."""
    to_probabilities = state.to_probabilities if keep_probabilities else None
    with autocast(state.device, precision):
        return evaluate(state.scored_computed, part.in_order(state.evaluation_batch), state.loss, to_probabilities)


def evaluation_batch(config: Config, data: ImageData, device: torch.device) -> int:
    """How many images are scored at once: by what a network makes of one, not by what is free, which changes."""
    if device.type == "cpu":
        return EVALUATION_BATCH
    values = describe(config.model, data.num_classes, data.input_shape).num_values
    return max(1, min(EVALUATION_BATCH_ON_GPU, EVALUATION_BYTES_ON_GPU // (4 * max(values, 1))))


def result_of(state: TrainingState, parts: Parts, *, precision: str) -> TrainingResult:
    """A network at the end of its training, with its scores on all parts of the data."""
    num_images, train = len(parts.train), state.train
    seen = [epoch_images(train, epoch, num_images) for epoch in range(len(state.curves))]
    return TrainingResult(
        network=state.scored,
        status="diverged" if state.diverged else "ok",
        train=score(state, parts.train.evenly_spaced(SCORED_TRAIN_IMAGES), precision, keep_probabilities=False),
        val=state.val or score(state, parts.val, precision),
        test=score(state, parts.test, precision),
        curves=tuple(state.curves),
        train_seconds=state.curves[-1].train_seconds,
        cpu_seconds=state.clock.cpu_seconds,
        updates=sum(math.ceil(images / train.batch_size) for images in seen),
        images_seen=sum(seen),
        num_params=sum(parameter.numel() for parameter in state.network.parameters()),
        precision=precision,
    )


def _started_or_resumed(
    config: Config, data: ImageData, checkpoints: Checkpoints, *, seed: int, device: torch.device, technique: Technique
) -> TrainingState:
    """The state of a new run, or that of its checkpoint."""
    start = partial(TrainingState, config, data, seed=seed, device=device, technique=technique)
    saved, state = checkpoints.load(), start()
    if saved is None:
        return state
    try:
        state.load_state_dict(saved)
    except DAMAGED as error:
        checkpoints.refuse(error)
        return start()
    return state


def _train_epoch(
    state: TrainingState,
    batches: Iterator[tuple[Tensor, Tensor | MixedLabels]],
    checkpoints: Checkpoints,
    *,
    precision: str,
) -> float:
    """The rest of an epoch under the clock, which stands still while a checkpoint is written."""
    steps = partial(
        train_batches,
        state.computed,
        state.updates,
        batches,
        state.sums,
        precision=precision,
        loss_of=state.trained_loss,
    )
    while True:
        with state.clock.running():
            ended = steps(pause=checkpoints.due)
        if ended:
            return float(state.sums.loss) / state.sums.num_images
        state.random.update(generators.states(state.device))
        checkpoints.save(state.state_dict())


def train_batches(
    network: nn.Module,
    optimizer: optim.Optimizer | Updates,
    batches: Iterable[tuple[Tensor, Tensor | MixedLabels]],
    sums: EpochSums,
    *,
    precision: str = "float32",
    loss_of: Loss = cross_entropy,
    pause: Callable[[], bool] = lambda: False,
) -> bool:
    """One optimiser step per batch on the mean loss, until the batches end or `pause` says so.

    Adds to `sums` in place; nothing is read back from the device.

    Returns:
        Whether the batches have ended.
    """
    network.train()
    mean_loss = loss_in_training(loss_of)
    for inputs, labels in batches:
        optimizer.zero_grad()
        with autocast(inputs.device, precision):
            loss = mean_loss(network(inputs), labels)
        loss.backward()
        optimizer.step()
        sums.loss += loss.detach() * len(labels)
        sums.num_images += len(labels)
        sums.num_batches += 1
        if pause():
            return False
    return True


def image_orders(num_images: int, *, shuffle: bool, seed: int) -> Iterator[Tensor]:
    """The order of the training images in each epoch, int64 (num_images,) on the CPU; depends on nothing else."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "order"))
    while True:
        yield torch.randperm(num_images, generator=generator) if shuffle else torch.arange(num_images)


def warm_up(network: nn.Module, batch: tuple[Tensor, Tensor], *, precision: str, loss_of: Loss) -> None:
    """Takes the gradients of a batch, so that no first-call set-up falls into the timed steps.

    Nothing is left to set up where this process has trained an equal network in equal batches before.
    """
    equal = str(network), batch[0].shape, batch[0].device, precision, loss_of
    if equal not in _WARM:
        gradients(network, batch, precision=precision, loss_of=loss_of)
        _WARM.add(equal)


def gradients(
    network: nn.Module, batch: tuple[Tensor, Tensor], *, precision: str = "float32", loss_of: Loss = cross_entropy
) -> list[Tensor]:
    """Of the mean loss of a batch in training mode, by parameter that has one; the network is left as it was."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    was_training, statistics = network.training, [(buffer, buffer.clone()) for buffer in network.buffers()]
    inputs, labels = batch
    network.train()
    try:
        with autocast(inputs.device, precision):
            loss = loss_of(network(inputs), labels)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    finally:
        network.train(was_training)
        for buffer, before in statistics:
            buffer.copy_(before)
    return [gradient for gradient in found if gradient is not None]


class StepClock:
    """Sums the wall-clock time of `running` blocks, waiting for the device on both sides, and the CPU time in them."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = self.cpu_seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Both clocks run within it."""
        devices.synchronise(self.device)
        started, cpu_started = time.perf_counter(), machine.cpu_seconds()
        yield
        devices.synchronise(self.device)
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += machine.cpu_seconds() - cpu_started


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Casts the layers that gain from it to bfloat16 where `precision` says so; float32 changes nothing.

    For one forward pass at a time: PyTorch keeps the cast weights until the block ends, and an optimiser step inside it
    would not reach them.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
