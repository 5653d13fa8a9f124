"""A data set in host memory, where it does not fit on the device: batches are gathered and copied while others train.

The same batches as those of `resident`, bit for bit.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from cnn_ablation.tasks.image_classification.data.augmentation import Draws
from cnn_ablation.tasks.image_classification.data.images import ImageData, Split
from cnn_ablation.tasks.image_classification.data.mixup import MixedLabels
from cnn_ablation.tasks.image_classification.data.resident import augmented, normalisation, normalised

_AHEAD = 2  # batches on their way while one is trained on: one that is gathered, one that is copied


@dataclass(frozen=True)
class HostSplit:
    """Pixels (N, channels, height, width) and labels int64 (N,) in host memory, as they are there for all processes.

    Factor and shift, as those of `ResidentSplit`, lie on the device, and so do batches.
    """

    pixels: Tensor
    labels: Tensor
    factor: Tensor
    shift: Tensor
    memory_format: torch.memory_format
    """Of batches."""
    places: Tensor
    """int64 (images,): the images of this part, by their rows."""

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """As `ResidentSplit.batch`."""
        pixels, labels = self._arrived(self._sent(indices.cpu()))
        return normalised(pixels.float(), self.factor, self.shift), labels

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `ResidentSplit.batches`."""
        for pixels, labels in self._arriving(order, batch_size):
            yield normalised(pixels.float(), self.factor, self.shift), labels

    def training_batches(
        self, order: Tensor, batch_size: int, draws: Draws | None
    ) -> Iterator[tuple[Tensor, Tensor | MixedLabels]]:
        """As `ResidentSplit.training_batches`; what was drawn lies on the device."""
        if draws is None:
            yield from self.batches(order, batch_size)
            return
        for start, (pixels, labels) in zip(itertools.count(0, batch_size), self._arriving(order, batch_size)):
            yield augmented(pixels, labels, draws[start : start + batch_size], self.factor, self.shift)

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `ResidentSplit.in_order`."""
        return self.batches(torch.arange(len(self)), batch_size)

    def head(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `ResidentSplit.head`."""
        return iter([self.batch(torch.arange(min(count, len(self))))])

    def evenly_spaced(self, count: int) -> HostSplit:
        """As `ResidentSplit.evenly_spaced`, without copying an image."""
        if count >= len(self):
            return self
        return replace(self, places=self.places[torch.arange(count) * len(self) // count])

    def _arriving(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels and labels of each batch; a thread sees to the next ones."""
        coming = iter(order.cpu().split(batch_size))
        with ThreadPoolExecutor(max_workers=1) as thread:
            ahead = deque[Future[_Sent]]()
            for indices in coming:
                ahead.append(thread.submit(self._sent, indices))
                if len(ahead) > _AHEAD:
                    yield self._arrived(ahead.popleft().result())
            while ahead:
                yield self._arrived(ahead.popleft().result())

    def _sent(self, indices: Tensor) -> _Sent:
        """A batch gathered in memory that the device reads by itself, and on its way there."""
        chosen, device = self.places[indices], self.factor.device
        lies_last = not self.pixels.is_contiguous()
        stored = self.pixels.permute(0, 2, 3, 1) if lies_last else self.pixels
        pixels = _gathered(stored, chosen, pinned=device.type == "cuda")
        labels = _gathered(self.labels, chosen, pinned=device.type == "cuda")
        if device.type != "cuda":
            return _Sent(pixels.to(device), labels.to(device), lies_last, None)
        stream = _stream_of_copies(device)
        with torch.cuda.stream(stream):
            pixels, labels = (each.to(device, non_blocking=True) for each in (pixels, labels))
        return _Sent(pixels, labels, lies_last, stream.record_event())

    def _arrived(self, sent: _Sent) -> tuple[Tensor, Tensor]:
        """Pixels and labels for the stream that computes, which waits for them; nobody else does."""
        if sent.event is not None:
            current = torch.cuda.current_stream(sent.labels.device)
            current.wait_event(sent.event)
            for each in (sent.pixels, sent.labels):
                each.record_stream(current)  # their memory is not given away before it has read them
        pixels = sent.pixels.permute(0, 3, 1, 2) if sent.lies_last else sent.pixels
        return pixels.contiguous(memory_format=self.memory_format), sent.labels


class _Sent(NamedTuple):
    """A batch on its way."""

    pixels: Tensor
    """As they lie in host memory: channels last, or first."""
    labels: Tensor
    lies_last: bool
    event: torch.cuda.Event | None
    """That it has arrived; None where it has."""


def _gathered(values: Tensor, chosen: Tensor, *, pinned: bool) -> Tensor:
    """Rows of a tensor; PyTorch gives pinned memory to the next batch only once its copy has been made."""
    found = torch.empty((len(chosen), *values.shape[1:]), dtype=values.dtype, pin_memory=pinned)
    return torch.index_select(values, 0, chosen, out=found)


@cache
def _stream_of_copies(device: torch.device) -> torch.cuda.Stream:
    """Beside those that compute, so that a batch is copied while another one is trained on."""
    return torch.cuda.Stream(device)


class OnHost(NamedTuple):
    """The three parts of a data set in host memory."""

    train: HostSplit
    val: HostSplit
    test: HostSplit


def on_host(
    data: ImageData, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format
) -> OnHost:
    """A data set whose batches come to the device; its images are not copied for that."""
    factor, shift = normalisation(data, device, memory_format)

    def part(split: Split) -> HostSplit:
        pixels, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
        return HostSplit(pixels, labels, factor, shift, memory_format, torch.arange(len(labels)))

    return OnHost(part(data.train), part(data.val), part(data.test))
