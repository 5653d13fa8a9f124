"""Images in memory: uint8, split once, normalised later, batch by batch, on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.common.errors import DataError
from cnn_ablation.common.streams import stream_seed
from cnn_ablation.config import LARGEST_SEED
from cnn_ablation.tasks.image_classification.config import DataConfig

Pixels = npt.NDArray[np.uint8]  # float32 for images of the user's own that grey levels do not hold
Labels = npt.NDArray[np.int64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DataSpec:
    """What is known of a data source before its images are loaded."""

    channels: int
    image_size: int
    num_classes: int
    source_train_images: int
    """Images of the source's training part, before the validation split."""
    test_images: int
    width: int | None = None
    """In pixels, where images are not square; `image_size` is their height then."""
    bytes_per_value: int = 1

    def train_images(self, data: DataConfig) -> int:
        """Images left for training after the validation split; below 1 where that takes all."""
        return self.source_train_images - num_validation(self.source_train_images, data)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return (self.channels, self.image_size, self.width or self.image_size)


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, channels, height, width) and labels int64 (N,)."""

    images: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> Split:
        return Split(np.ascontiguousarray(self.images[indices]), self.labels[indices])

    def __reduce__(self) -> Any:
        """For another process: channels last in memory, as the engine computes with them, so that it copies nothing."""
        return _channels_last, (np.ascontiguousarray(self.images.transpose(0, 2, 3, 1)), self.labels)


def _channels_last(images: Pixels, labels: Labels) -> Split:
    """From images (N, height, width, channels)."""
    return Split(images.transpose(0, 3, 1, 2), labels)


@dataclass(frozen=True)
class Source:
    """Images as a source gives them: a training and a test part, and the names of the classes."""

    train: Split
    test: Split
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ImageData:
    """A data set ready for training: three disjoint parts and the affine map from pixels to network input."""

    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    scale: str
    places: npt.NDArray[np.int64]
    """Of each training image, then of each validation image: where it stands in the source's training part."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.train.images.shape[1:]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over class names, pixels and labels of all parts: equal exactly for equal data in equal order."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for split in (self.train, self.val, self.test):
            digest.update(repr(split.images.shape).encode())
            digest.update(b"" if split.images.dtype == np.uint8 else str(split.images.dtype).encode())
            digest.update(np.ascontiguousarray(split.images).data)
            digest.update(np.ascontiguousarray(split.labels).data)
        return digest.hexdigest()

    @cached_property
    def normalisation(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(factor, shift), each float32 (channels,), so that input = pixel * factor + shift.

        `half` gives [-0.5, 0.5] (eq2425, section 3), `unit` [0, 1], `standard` mean 0 and deviation 1 per channel over
        the training part. Images that are held as floats are in the user's own unit, which counts as [0, 1].
        """
        channels, largest = self.input_shape[0], 255 if self.train.images.dtype == np.uint8 else 1
        factor, shift = np.full(channels, 1 / largest), np.zeros(channels)
        if self.scale == "half":
            shift -= 0.5
        elif self.scale == "standard":
            mean, deviation = _channel_moments(self.train.images)
            factor, shift = 1 / deviation, -mean / deviation
        return factor.astype(np.float32), shift.astype(np.float32)


def _channel_moments(images: Pixels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation per channel, of uint8 exact, from the 256-bin histogram of each channel."""
    if images.dtype != np.uint8:
        deviation = images.std(axis=(0, 2, 3), dtype=np.float64)
        return images.mean(axis=(0, 2, 3), dtype=np.float64), np.where(deviation > 0, deviation, 1.0)
    levels = np.arange(256)
    shares = np.stack(
        [np.bincount(images[:, channel].ravel(), minlength=256) for channel in range(images.shape[1])]
    ) / (images.size // images.shape[1])
    mean = shares @ levels
    deviation = np.sqrt(shares @ levels**2 - mean**2)
    return mean, np.where(deviation > 0, deviation, 1.0)


def num_held_out(total: int, fraction: float) -> int:
    """Images that a split by `fraction` takes away: rounded up, as scikit-learn does."""
    return int(np.ceil(total * fraction))


def num_validation(total: int, data: DataConfig) -> int:
    """Images of a training part of `total` that the validation split takes away."""
    return num_held_out(total, data.val_fraction) if data.val_images is None else data.val_images


def split_off(images: Split, held_out: int, seed: int) -> tuple[Split, Split]:
    """(kept, held out): a stratified random split, both parts in mixed class order.

    Raises:
        DataError: a part would have fewer images than classes, or a class has a single image.
    """
    kept, taken = _drawn(images.labels, held_out, seed)
    return images.take(kept), images.take(taken)


def _drawn(labels: Labels, held_out: int, seed: int) -> tuple[Places, Places]:
    """The places of a stratified random split: of what is kept, of what is held out.

    Raises:
        DataError: as `split_off`.
    """
    from sklearn.model_selection import train_test_split

    places = np.arange(len(labels))
    try:
        kept, taken = train_test_split(places, test_size=held_out, stratify=labels, random_state=seed)
    except ValueError as error:
        raise DataError(f"{held_out} of {len(labels)} images cannot be split off: {error}") from error
    return kept, taken


def split(source: Source, data: DataConfig) -> ImageData:
    """Splits a source into training, validation and test parts, once, by `data.split_seed`.

    The training part is left in mixed class order, so that `train.shuffle=false` means a fixed order and not one class
    after the other.
    """
    kept, taken = _drawn(source.train.labels, num_validation(len(source.train), data), data.split_seed)
    train, val = source.train.take(kept), source.train.take(taken)
    return ImageData(train, val, source.test, source.class_names, data.scale, np.concatenate([kept, taken]))


def redraw(images: ImageData, seed: int, *, has_test_set: bool) -> ImageData:
    """The same images split anew for a run's seed, with parts of the same sizes.

    Test images are drawn first and do not depend on how many are for validation, so that arms which differ in that are
    tested on the same ones.

    Args:
        images: as `split` left them.
        seed: of the run; it feeds two streams of its own, for the test part and for the validation part.
        has_test_set: the source's own test part stays; else that is drawn anew too.
    """
    parts = (images.train, images.val) if has_test_set else (images.train, images.val, images.test)
    rows = np.argsort(images.places)  # of the source's images, in its own order
    rows = np.concatenate([rows, np.arange(len(rows), sum(map(len, parts)))])
    labels = np.concatenate([part.labels for part in parts])
    test = images.test
    if not has_test_set:
        kept, taken = _drawn(labels[rows], len(images.test), _split_seed(seed, "test"))
        rows, test = rows[kept], _gathered(parts, rows[taken])
    kept, taken = _drawn(labels[rows], len(images.val), _split_seed(seed, "validation"))
    train, val = (_gathered(parts, rows[chosen]) for chosen in (kept, taken))
    places = np.concatenate([kept, taken])
    return ImageData(train, val, test, images.class_names, images.scale, places)


def _split_seed(seed: int, part: str) -> int:
    return stream_seed(seed, f"split/{part}") % (LARGEST_SEED + 1)


def _gathered(parts: Sequence[Split], rows: Places) -> Split:
    """Images by their rows in all parts together, in the order of channels that those have in memory."""
    images = np.empty_like(parts[0].images, shape=(len(rows), *parts[0].images.shape[1:]))
    labels = np.concatenate([part.labels for part in parts])[rows]
    start = 0
    for part in parts:
        inside = (rows >= start) & (rows < start + len(part))
        images[inside] = part.images[rows[inside] - start]
        start += len(part)
    return Split(images, labels)


def resize(images: npt.NDArray[np.uint8], size: int | None) -> npt.NDArray[np.uint8]:
    """Bicubic resizing of uint8 (N, height, width, channels) images to `size` x `size`; None keeps the size."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    from PIL import Image

    def one(pixels: Any) -> npt.NDArray[np.uint8]:
        grey_or_colour = pixels[..., 0] if images.shape[3] == 1 else pixels
        picture = Image.fromarray(grey_or_colour).resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(picture).reshape(size, size, images.shape[3])

    return np.stack([one(pixels) for pixels in images])


def channels_first(images: npt.NDArray[np.uint8]) -> Pixels:
    """(N, height, width, channels) -> (N, channels, height, width)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
