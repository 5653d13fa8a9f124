"""CIFAR-10, MNIST, Fashion-MNIST and SVHN: read by torchvision, downloaded with a progress bar on first use."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn_ablation.config import TorchvisionConfig
from cnn_ablation.data.images import DataSpec, Source, Split, channels_first, resize
from cnn_ablation.errors import DataError
from cnn_ablation.progress import file_download

_TIMEOUT_SECONDS = 30

DIGIT_NAMES = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class Archive:
    """A file that torchvision expects in `folder` below `root`, and where it may be fetched."""

    folder: str
    filename: str
    md5: str | None
    urls: tuple[str, ...]


@dataclass(frozen=True)
class TorchvisionSet:
    """One data set: its torchvision class, sizes, how its two parts are opened, and the files it needs."""

    class_name: str
    channels: int
    image_size: int
    train_images: int
    open_part: Callable[[Any, str, bool], Any]
    archives: Callable[[Any], list[Archive]]


def _cifar_archives(dataset: Any) -> list[Archive]:
    return [Archive("", dataset.filename, dataset.tgz_md5, (dataset.url,))]


def _mnist_archives(dataset: Any) -> list[Archive]:
    return [
        Archive(f"{dataset.__name__}/raw", name, md5, tuple(mirror + name for mirror in dataset.mirrors))
        for name, md5 in dataset.resources
    ]


def _svhn_archives(dataset: Any) -> list[Archive]:
    return [Archive("", name, md5, (url,)) for url, name, md5 in map(dataset.split_list.get, ("train", "test"))]


def _by_train_flag(dataset: Any, root: str, train: bool) -> Any:
    return dataset(root, train=train, download=True)


def _by_split_name(dataset: Any, root: str, train: bool) -> Any:
    return dataset(root, split="train" if train else "test", download=True)


SETS = {
    "cifar10": TorchvisionSet("CIFAR10", 3, 32, 50_000, _by_train_flag, _cifar_archives),
    "mnist": TorchvisionSet("MNIST", 1, 28, 60_000, _by_train_flag, _mnist_archives),
    "fashion_mnist": TorchvisionSet("FashionMNIST", 1, 28, 60_000, _by_train_flag, _mnist_archives),
    "svhn": TorchvisionSet("SVHN", 3, 32, 73_257, _by_split_name, _svhn_archives),
}


def describe(data: TorchvisionConfig) -> DataSpec:
    """Sizes of the published data set."""
    known = SETS[data.name]
    return DataSpec(known.channels, data.image_size or known.image_size, 10, known.train_images)


def load(data: TorchvisionConfig) -> Source:
    """Fetches what is missing, then opens both parts.

    Raises:
        DataError: a file cannot be downloaded, or what lies in `data.root` cannot be read.
    """
    import torchvision

    known = SETS[data.name]
    dataset = getattr(torchvision.datasets, known.class_name)
    root = Path(data.root).expanduser()
    for archive in known.archives(dataset):
        _fetch(archive, root, data.name)
    try:
        train, test = (known.open_part(dataset, str(root), is_train) for is_train in (True, False))
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise DataError(
            f"data={data.name}: the files in {root} cannot be read ({error}); delete them there and start again"
        ) from error
    names = tuple(str(name) for name in getattr(train, "classes", DIGIT_NAMES))
    return Source(_to_split(train, data.image_size), _to_split(test, data.image_size), names)


def _fetch(archive: Archive, root: Path, name: str) -> None:
    """Downloads one file unless it is there and whole.

    Raises:
        DataError: no address answered with the right file; says which file to put where.
    """
    from torchvision.datasets.utils import check_integrity

    path = root / archive.folder / archive.filename
    if check_integrity(str(path), archive.md5):
        return
    problem: object = None
    for url in archive.urls:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(url, path)
        except OSError as error:  # urllib's errors are OSErrors; one with a status holds its connection open
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            problem = error
            continue
        if check_integrity(str(path), archive.md5):
            return
        problem = "its checksum is wrong"
    raise DataError(
        f"data={name}: {archive.filename} could not be downloaded ({problem})\n"
        f"  remedy: fetch {' or '.join(archive.urls)}\n"
        f"          and put it at {path}\n"
        f"  or use data=digits, which needs no download"
    )


def _download(url: str, path: Path) -> None:
    """Streams `url` into `path` by way of a `.part` file, so that a broken download never looks whole."""
    partial = path.with_name(path.name + ".part")
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
        num_bytes = int(response.headers.get("Content-Length") or 0)
        with partial.open("wb") as target, file_download(path.name, num_bytes) as advance:
            while block := response.read(1 << 20):
                target.write(block)
                advance(len(block))
    partial.replace(path)


def _to_split(part: Any, image_size: int | None) -> Split:
    """Torchvision keeps uint8 pixels in `.data` (N, H, W[, C]), SVHN (N, C, H, W); labels as a list or an array."""
    pixels = np.asarray(part.data)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif pixels.shape[1] == 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    labels = part.labels if hasattr(part, "labels") else part.targets
    return Split(channels_first(resize(pixels, image_size)), np.asarray(labels, dtype=np.int64))
