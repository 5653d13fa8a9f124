"""Images of the user's own: a function of hers gives a training and a test part, as arrays or map-style datasets.

    def load():
        return {"train": (images, labels), "test": (images, labels)}

All of it is held in memory; what is mapped into memory (`numpy.memmap`) is read once, when the parts are split.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.common import imports, signatures
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.common.progress import warn_once
from cnn_ablation.runs import sources
from cnn_ablation.tasks.image_classification import parts
from cnn_ablation.tasks.image_classification.config import ArraysConfig, DataConfig
from cnn_ablation.tasks.image_classification.data.images import DataSpec, Source, Split, channels_first, resize

_PARTS = ("train", "test")
_FORM = "train and test, each a pair (images, labels) or a map-style dataset, in a dictionary or as attributes"
_EXAMPLE = "data.target=my_data.load, for the function load in my_data.py"
_LOSSLESS = 1e-6  # half a step of float32 at 1 is 6e-8

_described: dict[str, DataSpec] = {}
"""Sizes of what a function gave in this process: it is called once for them, and once for the images."""
_made: dict[str, Source] = {}
"""What has been made for its sizes, until it is asked for."""


def stamp(data: DataConfig) -> str:
    """Of the code that gives the images; what that reads is not known."""
    target, _ = _call(data)
    return sources.version(target.__module__)


def describe(data: DataConfig) -> DataSpec:
    """Sizes, for which the function is called.

    Raises:
        ConfigError: it cannot be called, or gives what is no data set of images.
    """
    key = _key(data)
    if key not in _described:
        _made.clear()
        _made[key] = source = _source(data)
        channels, height, width = source.train.images.shape[1:]
        _described[key] = DataSpec(
            channels,
            height,
            len(source.class_names),
            len(source.train),
            len(source.test),
            width=width,
            bytes_per_value=source.train.images.itemsize,
        )
    return _described[key]


def load(data: DataConfig) -> Source:
    """The images of both parts."""
    return _made.pop(_key(data), None) or _source(data)


def _key(data: DataConfig) -> str:
    """Settings of the images before their split, and the code that gives them."""
    of_split = ("val_fraction", "val_images", "split_seed", "scale")
    settings = {name: value for name, value in vars(data).items() if name not in of_split}
    return json.dumps([settings, stamp(data)], sort_keys=True, default=repr)


def _call(data: DataConfig) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function, and what it is called with.

    Raises:
        ConfigError: there is no such function, or it has no such parameters.
    """
    if not isinstance(data, ArraysConfig):
        return parts.SOURCES[data.name], {}
    if not data.target:
        raise ConfigError([Problem("data.target", "''", "a function of yours", remedy=_EXAMPLE)])
    function = imports.named("data.target", data.target)
    if not callable(function):
        here = f"here is {type(function).__name__}"
        raise ConfigError([Problem("data.target", data.target, f"a function; {here}", remedy=_EXAMPLE)])
    wrong = list(signatures.problems("data.kwargs", data.target, function, data.kwargs))
    if wrong:
        raise ConfigError(wrong)
    return function, data.kwargs


def _source(data: DataConfig) -> Source:
    function, arguments = _call(data)
    try:
        given = function(**arguments) if isinstance(data, ArraysConfig) else function(data)
    except Exception as error:
        raise _refused(data, f"a function that gives {_FORM}; it raised {type(error).__name__}: {error}") from error
    pairs = [_pair(data, name, _part_of(data, given, name)) for name in _PARTS]
    if pairs[0][0].shape[1:] != pairs[1][0].shape[1:]:
        shapes = " and ".join(str(images.shape[1:]) for images, _ in pairs)
        raise _refused(data, f"train and test images of one shape; here {shapes} (channels, height, width)")
    names, labels = _classes(data, [labels for _, labels in pairs], _optional(given, "class_names"))
    kept = _as_pixels(data, [images for images, _ in pairs])
    train, test = (Split(_sized(data, images), each) for images, each in zip(kept, labels, strict=True))
    return Source(train, test, names)


def _refused(data: DataConfig, allowed: str) -> ConfigError:
    key, value = ("data.target", data.target) if isinstance(data, ArraysConfig) else ("data", data.name)
    return ConfigError([Problem(key, value, allowed, remedy="docs/your_own_network.md shows one")])


def _optional(given: Any, name: str) -> Any:
    return given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)


def _part_of(data: DataConfig, given: Any, name: str) -> Any:
    part = _optional(given, name)
    if part is None:
        raise _refused(data, f"{_FORM}; here is no {name} in {type(given).__name__}")
    return part


def _pair(data: DataConfig, name: str, part: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images (N, channels, height, width) and labels (N,) of a part."""
    if not isinstance(part, tuple | list):
        part = _items_of(data, name, part)
    if len(part) != 2:
        raise _refused(data, f"{_FORM}; here {name} has {len(part)} entries")
    images, labels = (np.asarray(each) for each in part)
    if not len(images) or len(images) != len(labels) or labels.ndim != 1:
        raise _refused(
            data, f"as many labels (N,) as images, one or more; {name} has {labels.shape} for {len(images)} images"
        )
    return _channels_first(data, name, images), labels


def _items_of(data: DataConfig, name: str, dataset: Any) -> tuple[Any, Any]:
    """Images and labels of a map-style dataset, which is read whole."""
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise _refused(data, f"{_FORM}; here {name} is {type(dataset).__name__}")
    items = [dataset[place] for place in range(len(dataset))]
    try:
        return np.stack([np.asarray(image) for image, _ in items]), np.asarray([int(label) for _, label in items])
    except (TypeError, ValueError) as error:
        raise _refused(data, f"images of one shape, each with a whole number, in {name}; {error}") from error


def _channels_first(data: DataConfig, name: str, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, height, width), (N, height, width, channels) or (N, channels, height, width): channels are the fewest."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4 or images.shape[1] == images.shape[3]:
        allowed = "images (N, height, width), (N, height, width, channels) or (N, channels, height, width)"
        raise _refused(data, f"{allowed}, with fewer channels than rows; {name} has {images.shape}")
    return images if images.shape[1] < images.shape[3] else images.transpose(0, 3, 1, 2)


def _classes(
    data: DataConfig, labels: list[npt.NDArray[Any]], names: Any
) -> tuple[tuple[str, ...], list[npt.NDArray[np.int64]]]:
    """Names of the classes, and labels as their places 0, 1, ..."""
    kinds = [each.dtype for each in labels]
    if not all(np.issubdtype(kind, np.integer) for kind in kinds):
        raise _refused(data, f"labels that are whole numbers; here {kinds[0]} and {kinds[1]}")
    values = np.unique(labels[0])
    unknown = np.setdiff1d(labels[1], values)
    if len(unknown) or len(values) < 2:
        here = f"test has {unknown[0]}, train has not" if len(unknown) else f"there is {values[0]} alone"
        raise _refused(data, f"two classes or more, all of them in train; here {here}")
    if names is None:
        return tuple(map(str, values.tolist())), [np.searchsorted(values, each).astype(np.int64) for each in labels]
    if len(values) != len(names) or values[0] != 0 or values[-1] != len(names) - 1:
        here = f"labels {values[0]} to {values[-1]}, {len(values)} of them"
        raise _refused(data, f"a name for each label 0, 1, ...; here {len(names)} names and {here}")
    return tuple(map(str, names)), [each.astype(np.int64) for each in labels]


def _as_pixels(data: DataConfig, images: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """uint8 as they are; floats as uint8 where no value is lost by it, else as float32."""
    if all(each.dtype == np.uint8 for each in images):
        return images
    if not all(np.issubdtype(each.dtype, np.floating) for each in images):
        kinds = " and ".join(str(each.dtype) for each in images)
        raise _refused(data, f"images of uint8 or floats; here {kinds}")
    if not all(np.isfinite(each).all() for each in images):
        raise _refused(data, "finite values; here are NaN or infinite ones")
    for most in (1.0, 255.0):
        if all(_is_lossless(each, most) for each in images):
            return [np.rint(each * (255 / most)).astype(np.uint8) for each in images]
    warn_once(f"data={data.name}: images are held as float32, four bytes a value, as 256 grey levels do not hold them")
    return [each.astype(np.float32) for each in images]


def _is_lossless(images: npt.NDArray[Any], most: float) -> bool:
    """Whether 0 to `most` in 255 steps are all the values there are."""
    if images.min() < 0 or images.max() > most:
        return False
    levels = images * (255 / most)
    return bool(np.abs(levels - np.rint(levels)).max() <= 255 * _LOSSLESS)


def _sized(data: DataConfig, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if data.image_size is None or images.shape[2:] == (data.image_size, data.image_size):
        return np.ascontiguousarray(images)
    if images.dtype != np.uint8 or images.shape[1] not in (1, 3):
        allowed = "null for images of floats, or of channels other than 1 and 3: they are not resized"
        raise ConfigError([Problem("data.image_size", data.image_size, allowed, remedy="data.image_size=null")])
    return channels_first(resize(images.transpose(0, 2, 3, 1), data.image_size))
