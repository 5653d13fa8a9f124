"""CIFAR-10 as the published programs of two papers read it, for `data=arrays` (see papers.md).

    python -m cnn_ablation -m study=eq2425_program data=arrays data.target=papers_data.eq2425

Both take `root`, torchvision's folder, or with `folder=True` one of pictures (`train/<class>/*`, `test/<class>/*`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.tasks.image_classification.config import ImageFolderConfig, TorchvisionConfig
from cnn_ablation.tasks.image_classification.data import image_folder, torchvision_sets
from cnn_ablation.tasks.image_classification.data.images import Source


def eq2425(root: str = "data", folder: bool = False) -> dict[str, Any]:
    """Test images half a unit brighter than those for training, for `data.scale=half`.

    The program takes 0.5 from training images in [0, 1], and nothing from test images.
    """
    source = _cifar10(root, folder)
    train, test = (part.images / np.float32(255) for part in (source.train, source.test))
    return _parts(source, train, test + np.float32(0.5))


def svalheim(root: str = "data", folder: bool = False) -> dict[str, Any]:
    """Every image with its values in another order, those for training and for testing alike."""
    source = _cifar10(root, folder)
    return _parts(source, misread(source.train.images), misread(source.test.images))


def misread(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(N, channels, height, width) taken, value by value, for (N, height, width, channels).

    CIFAR-10's files hold all red values of an image row by row, then the green, then the blue ones. Read as if each
    pixel's three values stood together, three neighbours of one colour become the channels of one pixel.
    """
    count, channels, height, width = images.shape
    return np.ascontiguousarray(images).reshape(count, height, width, channels)


def _cifar10(root: str, folder: bool) -> Source:
    if folder:
        return image_folder.load(ImageFolderConfig(root=root))
    return torchvision_sets.load(TorchvisionConfig(root=root))


def _parts(source: Source, train: npt.NDArray[Any], test: npt.NDArray[Any]) -> dict[str, Any]:
    return {
        "train": (train, source.train.labels),
        "test": (test, source.test.labels),
        "class_names": source.class_names,
    }
