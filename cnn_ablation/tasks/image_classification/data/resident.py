"""A data set on the device: uint8 once, normalised to float batch by batch. One that does not fit: `host`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from cnn_ablation.common import lanes
from cnn_ablation.tasks.image_classification import devices
from cnn_ablation.tasks.image_classification.data.augmentation import Draws, cut_out, jittered, moved
from cnn_ablation.tasks.image_classification.data.images import ImageData, Split
from cnn_ablation.tasks.image_classification.data.mixup import MixedLabels, mixed


@dataclass(frozen=True)
class ResidentSplit:
    """Pixels uint8 (N, channels, height, width) and labels int64 (N,).

    Factor and shift, float32 (1, channels, height, width), are those of a channel, repeated for every pixel: rows of
    three numbers are slow to broadcast.
    """

    pixels: Tensor
    labels: Tensor
    factor: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images float32 (batch, channels, height, width) and their labels, by int64 `indices` (batch,).

        The images have the memory format of `pixels`.
        """
        return normalised(rows(self.pixels, indices).float(), self.factor, self.shift), self.labels[indices]

    def augmented(self, indices: Tensor, draws: Draws) -> tuple[Tensor, Tensor | MixedLabels]:
        """The same images as they were drawn: mirrored, moved, other colours, normalised, cut out, mixed."""
        return augmented(rows(self.pixels, indices), self.labels[indices], draws, self.factor, self.shift)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches of one pass in the given order; the last one may be smaller."""
        for start in range(0, len(order), batch_size):
            yield self.batch(order[start : start + batch_size])

    def training_batches(
        self, order: Tensor, batch_size: int, draws: Draws | None
    ) -> Iterator[tuple[Tensor, Tensor | MixedLabels]]:
        """`batches`, augmented where something was drawn for the images in this order."""
        if draws is None:
            yield from self.batches(order, batch_size)
            return
        for start in range(0, len(order), batch_size):
            part = slice(start, start + batch_size)
            yield self.augmented(order[part], draws[part])

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches of one pass in stored order."""
        return self.batches(torch.arange(len(self), device=self.labels.device), batch_size)

    def head(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One batch of the first `count` images, or of all if there are fewer."""
        return itertools.islice(self.in_order(count), 1)

    def evenly_spaced(self, count: int) -> ResidentSplit:
        """`count` images from the first to near the last, so that images stored by class are of all classes."""
        if count >= len(self):
            return self
        places = torch.arange(count, device=self.labels.device) * len(self) // count
        return replace(self, pixels=rows(self.pixels, places), labels=self.labels[places])


class Resident(NamedTuple):
    """The three parts of a data set on a device."""

    train: ResidentSplit
    val: ResidentSplit
    test: ResidentSplit


def normalised(values: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """Pixels as float, which are changed in place, as input of a network."""
    return values.mul_(factor).add_(shift)


def augmented(
    pixels: Tensor, labels: Tensor, draws: Draws, factor: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor | MixedLabels]:
    """A batch as it was drawn: mirrored, moved, other colours, normalised, cut out, mixed."""
    values = (pixels if draws.moves is None else moved(pixels, draws.moves)).float()
    inputs = normalised(values if draws.jitter is None else jittered(values, draws.jitter), factor, shift)
    if draws.squares is not None:
        cut_out(inputs, draws.squares)
    if draws.partners is None or draws.shares is None:
        return inputs, labels
    both = MixedLabels(labels, labels[draws.partners], draws.shares)
    return mixed(inputs, rows(inputs, draws.partners), draws.shares), both


def rows(pixels: Tensor, indices: Tensor) -> Tensor:
    """`pixels[indices]` in the memory format of `pixels`; images are copied whole, in the order they lie in memory."""
    if pixels.is_contiguous():
        return pixels.index_select(0, indices)
    return pixels.permute(0, 2, 3, 1).index_select(0, indices).permute(0, 3, 1, 2)


def resident(
    data: ImageData, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format
) -> Resident:
    """A data set on a device; the last one asked for is kept there, because runs of a study share it."""
    with lanes.turn:
        if found := kept(data, device, memory_format):
            return found
        forget()
        found = Resident(*(to_device(part, data, device, memory_format) for part in (data.train, data.val, data.test)))
        devices.synchronise(device)  # it is there before another thread's stream reads it
        _kept.append((data, (_exactly(device), memory_format), found))
    return found


def kept(
    data: ImageData, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format
) -> Resident | None:
    """The data set where it is the one that is there already."""
    key = (_exactly(device), memory_format)
    return next((found for one, its_key, found in _kept if one is data and its_key == key), None)


def _exactly(device: torch.device) -> torch.device:
    """`cuda` is the GPU that is current, which whoever works in a notebook may change."""
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def forget() -> None:
    """Gives back what the last one takes, once no run uses it."""
    _kept.clear()


_kept: list[tuple[ImageData, tuple[torch.device, torch.memory_format], Resident]] = []


def to_device(
    split: Split, data: ImageData, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format
) -> ResidentSplit:
    """Copies one part of a data set to the device, with the data set's normalisation."""
    pixels = torch.from_numpy(split.images)
    pixels = pixels.contiguous(memory_format=memory_format) if device.type == "cpu" else copied(
        pixels, device, memory_format
    )  # fmt: skip
    return ResidentSplit(pixels, torch.from_numpy(split.labels).to(device), *normalisation(data, device, memory_format))


def normalisation(data: ImageData, device: torch.device, memory_format: torch.memory_format) -> tuple[Tensor, Tensor]:
    """(factor, shift) of `ResidentSplit`."""
    size = (1, *data.input_shape)
    factor, shift = (
        torch.from_numpy(values).view(1, -1, 1, 1).expand(size).to(device).contiguous(memory_format=memory_format)
        for values in data.normalisation
    )
    return factor, shift


def copied(
    pixels: Tensor, device: torch.device, memory_format: torch.memory_format, part_bytes: int = 64 * 2**20
) -> Tensor:
    """Pixels on the device, part by part: in another memory format they would be there twice for a while."""
    found = torch.empty(pixels.shape, dtype=pixels.dtype, device=device, memory_format=memory_format)
    count = max(1, part_bytes // max(1, pixels[:1].nbytes))
    for start in range(0, len(pixels), count):
        found[start : start + count].copy_(pixels[start : start + count])
    return found
