"""Where the images of a run lie: on its device, or, where they do not fit, in host memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from cnn_ablation.tasks.image_classification.data.augmentation import Draws
from cnn_ablation.tasks.image_classification.data.host import on_host
from cnn_ablation.tasks.image_classification.data.images import ImageData
from cnn_ablation.tasks.image_classification.data.mixup import MixedLabels
from cnn_ablation.tasks.image_classification.data.resident import resident
from cnn_ablation.tasks.image_classification.models.spec import NetworkSpec

_COPIES_OF_WEIGHTS = 6  # gradients, two moments, an average, and what an optimiser makes for a while
_BYTES_OF_LIBRARIES = 2**30  # what cuDNN and cuBLAS work in, and kernels
_SHARE = 0.9  # of what is free: an allocator leaves gaps


class Batches(Protocol):
    """One part of a data set, whose batches lie on the device: `ResidentSplit` says what each gives."""

    @property
    def pixels(self) -> Tensor: ...
    def __len__(self) -> int: ...
    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]: ...
    def training_batches(
        self, order: Tensor, batch_size: int, draws: Draws | None
    ) -> Iterator[tuple[Tensor, Tensor | MixedLabels]]: ...
    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]: ...
    def head(self, count: int) -> Iterator[tuple[Tensor, Tensor]]: ...
    def evenly_spaced(self, count: int) -> Batches: ...


class Parts(Protocol):
    """The three parts of a data set."""

    @property
    def train(self) -> Batches: ...
    @property
    def val(self) -> Batches: ...
    @property
    def test(self) -> Batches: ...


def placed(data: ImageData, device: torch.device, memory_format: torch.memory_format, *, in_host_memory: bool) -> Parts:
    """A data set, on the device or in host memory; batches are the same."""
    return on_host(data, device, memory_format) if in_host_memory else resident(data, device, memory_format)


def fits(data_bytes: int, run_bytes: int, free_bytes: int) -> bool:
    """Whether a device has room for a data set beside a run.

    Args:
        data_bytes: of all images and labels.
        run_bytes: what a run takes besides.
        free_bytes: what the device has left, other processes and their copies of the data counted.
    """
    return data_bytes + run_bytes <= _SHARE * free_bytes


def bytes_of_images(data: ImageData) -> int:
    """Of all three parts, labels included."""
    return sum(int(part.images.nbytes) + int(part.labels.nbytes) for part in (data.train, data.val, data.test))


def bytes_of_a_run(network: NetworkSpec, data: ImageData, *, batch_size: int, scored_at_once: int, sample: int) -> int:
    """What one seed in training takes of a device besides the data; an upper estimate, as if all were float32.

    A step keeps its maps for the gradient, and their gradients; scoring keeps nothing. What an epoch draws for its
    images is counted as if every augmentation were asked for.

    Args:
        network: what is trained.
        data: what it is trained on.
        batch_size: images of a step.
        scored_at_once: images of a batch that is scored.
        sample: training images that are scored, which are copied for it.
    """
    one_image = data.train.images[:1]
    values = network.num_values + int(one_image.size)
    maps = 4 * values * max(2 * batch_size, scored_at_once)
    weights = 4 * (network.num_params + network.num_kept) * (1 + _COPIES_OF_WEIGHTS)
    height, width = map(int, data.train.images.shape[2:])
    drawn = len(data.train) * (8 + 3 * 8 + 3 * 4 + height + width + 8 + 4)
    sampled = min(sample, len(data.train)) * int(one_image.nbytes)
    return maps + weights + drawn + sampled + _BYTES_OF_LIBRARIES
