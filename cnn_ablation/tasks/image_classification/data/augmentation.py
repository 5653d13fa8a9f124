"""Images changed at random while training, on the device: what is drawn for an epoch, and what it does to a batch.

Every knob draws from streams of its own: what one of them draws does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cnn_ablation.common.streams import stream_seed
from cnn_ablation.tasks.image_classification.config import TrainConfig
from cnn_ablation.tasks.image_classification.data.changes import augments, mixes, shifts_or_mirrors
from cnn_ablation.tasks.image_classification.data.mixup import draw_pairs

_LUMA = (0.2989, 0.587, 0.114)
"""Red, green and blue in a grey value (ITU-R BT.601), as torchvision has them."""

_BRIGHTEST = 255.0


@dataclass(frozen=True)
class Draws:
    """What was drawn for images in the order in which they are trained on; None for what is not asked for."""

    moves: Tensor | None = None
    """int64 (images, 3): rows down, columns right, whether to mirror."""
    jitter: Tensor | None = None
    """float32 (images, 3): factors of brightness, contrast and saturation."""
    squares: Tensor | None = None
    """bool (images, height + width): rows, then columns, that the square covers."""
    partners: Tensor | None = None
    """int64 (images,): the place in its batch of the image that each one is mixed with."""
    shares: Tensor | None = None
    """float32 (images,): of the image itself in the mixture."""

    def __getitem__(self, part: slice) -> Draws:
        return Draws(*(None if values is None else values[part] for values in self._all()))

    def to(self, device: torch.device) -> Draws:
        return Draws(*(None if values is None else values.to(device) for values in self._all()))

    def _all(self) -> tuple[Tensor | None, ...]:
        return self.moves, self.jitter, self.squares, self.partners, self.shares


def epoch_draws(train: TrainConfig, num_images: int, size: Sequence[int], *, seed: int) -> Iterator[Draws | None]:
    """For each epoch what is drawn for its images, on the CPU; None without augmentation.

    Args:
        train: the knobs.
        num_images: of an epoch.
        size: (height, width) of an image.
        seed: of the streams.
    """
    names = ("translation", "flip", "color_jitter", "cutout")
    streams = {name: torch.Generator().manual_seed(stream_seed(seed, f"augmentation/{name}")) for name in names}
    pairs = draw_pairs(train, num_images, seed=seed)
    while True:
        if not augments(train):
            yield None
            continue
        moves = (
            _draw_moves(train, num_images, streams["translation"], streams["flip"])
            if shifts_or_mirrors(train)
            else None
        )
        jitter = _draw_jitter(train.color_jitter, num_images, streams["color_jitter"]) if train.color_jitter else None
        squares = _draw_squares(train.cutout, num_images, size, streams["cutout"]) if train.cutout else None
        yield Draws(moves, jitter, squares, *(next(pairs) if mixes(train) else ()))


def _draw_moves(train: TrainConfig, num_images: int, shifts: torch.Generator, flips: torch.Generator) -> Tensor:
    most = train.max_translation
    shift = torch.randint(-most, most + 1, (num_images, 2), generator=shifts)
    flip = torch.randint(2, (num_images, 1), generator=flips) * int(train.horizontal_flip)
    return torch.cat([shift, flip], dim=1)


def _draw_jitter(strength: float, num_images: int, generator: torch.Generator) -> Tensor:
    """Factors from 1 - strength (but at least 0) to 1 + strength, each with the same probability."""
    least = max(0.0, 1 - strength)
    return torch.rand(num_images, 3, generator=generator).mul_(1 + strength - least).add_(least)


def _draw_squares(side: int, num_images: int, size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Squares around pixels that are drawn from all of an image: those near the border lie partly outside."""
    covered = []
    for length in size:
        first = torch.randint(length, (num_images, 1), generator=generator) - side // 2
        places = torch.arange(length)
        covered.append((places >= first) & (places < first + side))
    return torch.cat(covered, dim=1)


def moved(pixels: Tensor, moves: Tensor) -> Tensor:
    """Images mirrored, then shifted; what comes in from outside is black.

    The same as torchvision's `RandomCrop(size, padding=max_translation)`: every place of the crop is a shift.

    Args:
        pixels: (batch, channels, height, width) of any type.
        moves: of these images, as in `Draws`, on the same device.

    Returns:
        The same shape, type and memory format.
    """
    height, width = pixels.shape[2:]
    rows, inside_rows = _places(height, moves[:, 0])
    columns, inside_columns = _places(width, moves[:, 1])
    columns = torch.where(moves[:, 2:] == 1, width - 1 - columns, columns)
    image = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    found = pixels.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]
    shifted = (found * inside[..., None]).permute(0, 3, 1, 2)
    keeps_order = pixels.is_contiguous()
    return shifted.contiguous(memory_format=torch.contiguous_format if keeps_order else torch.channels_last)


def _places(size: int, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row (or column) of the shifted image comes from (batch, size), and whether that lies inside."""
    source = torch.arange(size, device=shift.device)[None, :] - shift[:, None]
    return source.clamp(0, size - 1), (source >= 0) & (source < size)


def jittered(pixels: Tensor, factors: Tensor) -> Tensor:
    """Images with other brightness, then contrast, then saturation; every value stays within 0..255.

    Each of the three mixes an image with a poorer one, x <- f x + (1 - f) y: with black, with its mean grey value, with
    itself in grey. torchvision's `ColorJitter` does so in random order.

    Args:
        pixels: float (batch, channels, height, width), 0..255; changed in place.
        factors: of these images, as in `Draws`. Saturation is that of three channels and leaves others as they are.
    """
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(1)
    pixels.mul_(brightness).clamp_(0, _BRIGHTEST)
    mean = _grey(pixels).mean(dim=(1, 2, 3), keepdim=True)
    pixels.mul_(contrast).add_(mean * (1 - contrast)).clamp_(0, _BRIGHTEST)
    if pixels.shape[1] == len(_LUMA):
        grey = _grey(pixels)
        pixels.mul_(saturation).add_(grey * (1 - saturation)).clamp_(0, _BRIGHTEST)
    return pixels


def _grey(pixels: Tensor) -> Tensor:
    """Grey values (batch, 1, height, width) of three colours; the mean of any other number of channels."""
    if pixels.shape[1] != len(_LUMA):
        return pixels.mean(dim=1, keepdim=True)
    red, green, blue = (part * share for part, share in zip(pixels.split(1, dim=1), _LUMA, strict=True))
    grey: Tensor = red + green + blue
    return grey


def cut_out(inputs: Tensor, squares: Tensor) -> Tensor:
    """Network inputs with a square of zeros (DeVries and Taylor 2017, arXiv:1708.04552).

    With `data.scale=standard` a zero is the mean of the training images, as in the paper; with `half` it is grey, with
    `unit` black.

    Args:
        inputs: float (batch, channels, height, width); changed in place.
        squares: of these images, as in `Draws`.
    """
    height = inputs.shape[2]
    rows, columns = squares[:, :height], squares[:, height:]
    return inputs.masked_fill_(rows[:, None, :, None] & columns[:, None, None, :], 0)
