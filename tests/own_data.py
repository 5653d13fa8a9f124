"""Data as a person gives them, for the tests that name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def pixels(count: int, *shape: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels(count: int, classes: int = 3) -> npt.NDArray[np.int64]:
    return np.arange(count) % classes


def load(count: int = 60, classes: int = 3) -> dict[str, Pair]:
    return {
        "train": (pixels(count, 8, 8, 3), labels(count, classes)),
        "test": (pixels(30, 8, 8, 3, seed=1), labels(30, classes)),
    }


class Dataset:
    """A map-style dataset of channels-first images."""

    def __init__(self, count: int, seed: int):
        self.images, self.labels = pixels(count, 3, 8, 8, seed=seed), labels(count)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[npt.NDArray[np.uint8], int]:
        return self.images[place], int(self.labels[place])


class Both:
    """An object with two datasets."""

    train, test = Dataset(60, 0), Dataset(30, 1)
    class_names = ("cat", "dog", "owl")


def datasets() -> type[Both]:
    return Both


def mapped(folder: str) -> dict[str, Pair]:
    """Images in a file that is mapped into memory."""
    path = Path(folder) / "images.npy"
    return {"train": (np.load(path, mmap_mode="r"), labels(60)), "test": (pixels(30, 8, 8, 3, seed=1), labels(30))}


NUMBER = 3
