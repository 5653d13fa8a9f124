"""Images moved and mirrored at random while training (gonzalez, on AlexNet), on the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cnn_ablation.common.streams import stream_seed
from cnn_ablation.tasks.image_classification.config import TrainConfig


def augments(train: TrainConfig) -> bool:
    """Whether training images are changed at all."""
    return train.max_translation > 0 or train.horizontal_flip


def image_moves(train: TrainConfig, num_images: int, *, seed: int) -> Iterator[Tensor | None]:
    """For each epoch, rows down, columns right and whether to mirror: int64 (num_images, 3) on the CPU.

    From a stream of its own; what one of the two knobs draws does not depend on the other. None without augmentation.
    """
    shifts, flips = (
        torch.Generator().manual_seed(stream_seed(seed, f"augmentation/{name}")) for name in ("translation", "flip")
    )
    most = train.max_translation
    while True:
        if not augments(train):
            yield None
            continue
        shift = torch.randint(-most, most + 1, (num_images, 2), generator=shifts)
        flip = torch.randint(2, (num_images, 1), generator=flips) * int(train.horizontal_flip)
        yield torch.cat([shift, flip], dim=1)


def moved(pixels: Tensor, moves: Tensor) -> Tensor:
    """Images mirrored, then shifted; what comes in from outside is black, as with torchvision's random crop.

    Args:
        pixels: (batch, channels, height, width) of any type.
        moves: int64 (batch, 3) from `image_moves`, on the same device.

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
