"""The reference training loop: plain, readable, and what every faster way of training is compared with."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from cnn_ablation import devices
from cnn_ablation.config import Config
from cnn_ablation.data.images import ImageData
from cnn_ablation.data.resident import ResidentSplit, to_device
from cnn_ablation.metrics import Evaluation, evaluate
from cnn_ablation.models import network_layers
from cnn_ablation.models.build import build
from cnn_ablation.optimizers import make_optimizer
from cnn_ablation.streams import stream_seed

EVALUATION_BATCH = 500  # images; larger batches were not faster on two cores


@dataclass(frozen=True)
class Epoch:
    """One point of the learning curves."""

    epoch: int
    train_loss: float
    """Mean over the images of the epoch as they were trained on: with dropout, and while the weights moved."""
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
    val: Evaluation
    test: Evaluation
    curves: tuple[Epoch, ...]
    train_seconds: float
    updates: int
    images_seen: int
    num_params: int
    precision: str


def train(
    config: Config,
    data: ImageData,
    *,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> TrainingResult:
    """Trains one configuration with one seed and evaluates it on the three parts of the data.

    The seed feeds separate streams for initial weights, order of images and dropout; the caller's random state is
    left as it was. The clock counts training steps only.
    """
    precision = resolve_precision(config.precision)
    train_part, val_part, test_part = (to_device(part, data, device) for part in (data.train, data.val, data.test))
    network = build(network_layers(config.model, data.num_classes), data.input_shape, seed=seed).to(device)
    optimizer = make_optimizer(config.optimizer, network.parameters())
    orders = image_orders(len(train_part), shuffle=config.train.shuffle, seed=seed)
    clock, curves = StepClock(device), []

    def score(part: ResidentSplit) -> Evaluation:
        with autocast(device, precision):
            return evaluate(network, part.in_order(EVALUATION_BATCH))

    with _random_state_restored(device):
        warm_up(network, next(train_part.in_order(config.train.batch_size)), precision=precision)
        torch.manual_seed(stream_seed(seed, "dropout"))
        for number in range(1, config.train.epochs + 1):
            batches = train_part.batches(next(orders).to(device), config.train.batch_size)
            with clock.running():
                train_loss = train_epoch(network, optimizer, batches, precision=precision)
            val = score(val_part)
            curves.append(Epoch(number, train_loss, val.loss, val.accuracy, clock.seconds))
            on_epoch(curves[-1])
            diverged = not (math.isfinite(train_loss) and math.isfinite(val.loss))
            if diverged:
                break
        train_score, test_score = score(train_part), score(test_part)

    return TrainingResult(
        network=network,
        status="diverged" if diverged else "ok",
        train=train_score,
        val=val,
        test=test_score,
        curves=tuple(curves),
        train_seconds=clock.seconds,
        updates=len(curves) * math.ceil(len(train_part) / config.train.batch_size),
        images_seen=len(curves) * len(train_part),
        num_params=sum(parameter.numel() for parameter in network.parameters()),
        precision=precision,
    )


def train_epoch(
    network: nn.Module,
    optimizer: optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    precision: str = "float32",
) -> float:
    """One pass over the training images: a step per batch.

    Returns:
        The mean cross-entropy over all images, in nats; the only value that is read back from the device.
    """
    network.train()
    loss_sum, num_images = torch.zeros((), device=next(network.parameters()).device), 0
    for inputs, labels in batches:
        optimizer.zero_grad()
        with autocast(inputs.device, precision):
            loss = F.cross_entropy(network(inputs), labels)
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(labels)
        num_images += len(labels)
    return float(loss_sum) / num_images


def image_orders(num_images: int, *, shuffle: bool, seed: int) -> Iterator[Tensor]:
    """The order of the training images in each epoch, int64 (num_images,) on the CPU; depends on nothing else."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "order"))
    while True:
        yield torch.randperm(num_images, generator=generator) if shuffle else torch.arange(num_images)


def warm_up(network: nn.Module, batch: tuple[Tensor, Tensor], *, precision: str = "float32") -> None:
    """Runs one step on a copy that is thrown away, so that no first-call set-up falls into the timed steps."""
    rehearsal = copy.deepcopy(network).train()
    inputs, labels = batch
    with autocast(inputs.device, precision):
        loss = F.cross_entropy(rehearsal(inputs), labels)
    loss.backward()


class StepClock:
    """Sums the wall-clock time of `running` blocks, waiting for the device on both sides."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        devices.synchronise(self.device)
        started = time.perf_counter()
        yield
        devices.synchronise(self.device)
        self.seconds += time.perf_counter() - started


def resolve_precision(name: str) -> str:
    """`auto` is float32."""
    return "float32" if name == "auto" else name


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Casts the layers that gain from it to bfloat16 where `precision` says so; float32 changes nothing.

    For one forward pass at a time: PyTorch keeps the cast weights until the block ends, and an optimiser step inside it
    would not reach them.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def _random_state_restored(device: torch.device) -> Iterator[None]:
    """Dropout can only draw from torch's global generators; they are the caller's again afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
