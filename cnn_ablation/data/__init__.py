"""Data sets: one file per source, each with `describe` (sizes, without loading) and `load`."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from cnn_ablation.config import DataConfig
from cnn_ablation.data import digits, image_folder, shapes, torchvision_sets
from cnn_ablation.data.images import DataSpec, ImageData, Split, split

__all__ = ["DataSpec", "ImageData", "Split", "describe", "load"]

_SOURCES: dict[str, Any] = {
    "digits": digits,
    "shapes": shapes,
    "image_folder": image_folder,
    **dict.fromkeys(torchvision_sets.SETS, torchvision_sets),
}

_loaded: dict[str, ImageData] = {}  # the data sets last used in this process: runs of a study share them
_MAX_LOADED = 3
_described: dict[str, DataSpec] = {}  # an image folder is listed once, not once per arm


def _key(data: DataConfig) -> str:
    return json.dumps(dataclasses.asdict(data), sort_keys=True)


def loaded() -> dict[str, ImageData]:
    """The data sets last used in this process, for `take_over` in another one."""
    return dict(_loaded)


def take_over(data_sets: dict[str, ImageData]) -> None:
    """Spares this process loading what another one has loaded."""
    _loaded.update(data_sets)


def describe(data: DataConfig) -> DataSpec:
    """Channels, image size, classes and number of images, without loading or downloading.

    Raises:
        DataError: `data.root` of an image folder has not the right form.
    """
    key = _key(data)
    if key not in _described:
        _described[key] = _SOURCES[data.name].describe(data)
    return _described[key]


def load(data: DataConfig) -> ImageData:
    """The data set, split by `data.split_seed`; a second call with the same settings returns the same object.

    Raises:
        DataError: files cannot be downloaded, read or decoded.
    """
    key = _key(data)
    if key not in _loaded:
        if len(_loaded) == _MAX_LOADED:
            _loaded.pop(next(iter(_loaded)))
        _loaded[key] = split(_SOURCES[data.name].load(data), data)
    return _loaded[key]
