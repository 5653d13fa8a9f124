"""scikit-learn's bundled handwritten digits: 1,797 real images, always there, no download."""

from __future__ import annotations

import numpy as np

from cnn_ablation.tasks.image_classification.config import DigitsConfig
from cnn_ablation.tasks.image_classification.data.images import (
    DataSpec,
    Source,
    Split,
    channels_first,
    num_held_out,
    resize,
    split_off,
)

NUM_IMAGES = 1797
NATIVE_SIZE = 8
MAX_INTENSITY = 16


def stamp(_: DigitsConfig) -> str:
    """Always the same: the settings say all."""
    return ""


def describe(data: DigitsConfig) -> DataSpec:
    """Sizes of the data set after its own test split."""
    test_images = num_held_out(NUM_IMAGES, data.test_fraction)
    return DataSpec(3, data.image_size or NATIVE_SIZE, 10, NUM_IMAGES - test_images, test_images)


def load(data: DigitsConfig) -> Source:
    """The digits with intensities 0..16 spread over 0..255, upscaled, the same in three channels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / MAX_INTENSITY)).astype(np.uint8)[..., None]
    pixels = channels_first(np.repeat(resize(grey, data.image_size), 3, axis=3))
    num_test = num_held_out(NUM_IMAGES, data.test_fraction)
    train, test = split_off(Split(pixels, digits.target.astype(np.int64)), num_test, data.split_seed)
    return Source(train, test, tuple(str(digit) for digit in range(10)))
