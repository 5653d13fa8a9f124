"""CIFAR-10, MNIST, Fashion-MNIST and SVHN: read by torchvision, downloaded with a progress bar on first use.

Where a file may be fetched is torchvision's to say. Importing it takes seconds, so its source text is read for that
where a data set may have to be refused.
"""

from __future__ import annotations

import ast
import importlib.util
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cnn_ablation.common import looks
from cnn_ablation.common.errors import DataError
from cnn_ablation.common.progress import file_download
from cnn_ablation.tasks.image_classification.config import TorchvisionConfig
from cnn_ablation.tasks.image_classification.data.images import DataSpec, Source, Split, channels_first, resize

_TIMEOUT_SECONDS = 30
_ANSWER_SECONDS = 3  # within which a server must begin to answer, before anything is loaded
_NETWORK_ERRORS = (OSError, HTTPException, ValueError)  # the last where a server's answer makes no sense

DIGIT_NAMES = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class Archive:
    """A file that torchvision expects in `folder` below `root`, and where it may be fetched."""

    folder: str
    filename: str
    md5: str | None
    urls: tuple[str, ...]

    def path(self, root: Path) -> Path:
        return root / self.folder / self.filename


@dataclass(frozen=True)
class TorchvisionSet:
    """One data set: its torchvision class, sizes, how its two parts are opened, and the files it needs."""

    class_name: str
    module: str
    """Of `torchvision.datasets`, which defines the class."""
    folder: str
    """Below `root`, where torchvision reads what it has unpacked."""
    channels: int
    image_size: int
    train_images: int
    test_images: int
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
    "cifar10": TorchvisionSet(
        "CIFAR10", "cifar", "cifar-10-batches-py", 3, 32, 50_000, 10_000, _by_train_flag, _cifar_archives
    ),
    "mnist": TorchvisionSet("MNIST", "mnist", "MNIST/raw", 1, 28, 60_000, 10_000, _by_train_flag, _mnist_archives),
    "fashion_mnist": TorchvisionSet(
        "FashionMNIST", "mnist", "FashionMNIST/raw", 1, 28, 60_000, 10_000, _by_train_flag, _mnist_archives
    ),
    "svhn": TorchvisionSet("SVHN", "svhn", "", 3, 32, 73_257, 26_032, _by_split_name, _svhn_archives),
}


def stamp(data: TorchvisionConfig) -> str:
    """Changes when an archive or an unpacked file in `data.root` is written."""
    root = looks.folder("data.root", data.root)
    return looks.folder_stamp(dict.fromkeys([root, root / SETS[data.name].folder]))


def describe(data: TorchvisionConfig) -> DataSpec:
    """Sizes of the published data set."""
    known = SETS[data.name]
    return DataSpec(known.channels, data.image_size or known.image_size, 10, known.train_images, known.test_images)


def check_available(data: TorchvisionConfig) -> None:
    """Asks for the first file that is missing, without fetching it and without torch; free where all are there.

    Raises:
        DataError: it can be neither fetched nor written.
    """
    root = looks.folder("data.root", data.root)
    missing = [archive for archive in _known_archives(data.name) if not _lies_at(archive.path(root))]
    if not missing:
        return
    _check_writable(data, missing[0].path(root).parent)
    problem = _why_not(missing[0].urls)
    if problem:
        raise _refusal(missing[0], root, data.name, problem)


def load(data: TorchvisionConfig) -> Source:
    """Fetches what is missing, then opens both parts.

    Raises:
        DataError: a file cannot be downloaded, or what lies in `data.root` cannot be read.
    """
    import torchvision

    known = SETS[data.name]
    dataset = getattr(torchvision.datasets, known.class_name)
    root = looks.folder("data.root", data.root)
    for archive in known.archives(dataset):
        _fetch(archive, root, data)
    try:
        train, test = (known.open_part(dataset, str(root), is_train) for is_train in (True, False))
        names = tuple(str(name) for name in getattr(train, "classes", DIGIT_NAMES))
        return Source(_to_split(train, data.image_size), _to_split(test, data.image_size), names)
    except Exception as error:  # torchvision asserts, and its readers raise what they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"data={data.name}: the files in {root} cannot be read ({reason}); delete them there and start again"
        ) from error


def _known_archives(name: str) -> list[Archive]:
    """The archives of a data set; none where torchvision's source does not say, so that loading it has to."""
    known = SETS[name]
    try:
        return known.archives(_loaded_class(known) or _class_in_source(known))
    except (AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError):
        return []


def _loaded_class(known: TorchvisionSet) -> Any:
    return getattr(sys.modules.get("torchvision.datasets"), known.class_name, None)


@cache
def _class_in_source(known: TorchvisionSet) -> SimpleNamespace:
    """The literal attributes of a torchvision class, from its source text, without importing it."""
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.origin:
        raise LookupError("torchvision is not installed")
    text = (Path(package.origin).parent / "datasets" / f"{known.module}.py").read_text(encoding="utf-8")
    classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    found: dict[str, Any] = {"__name__": known.class_name}
    for node in classes[known.class_name].body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with suppress(ValueError):  # no literal
                found[node.targets[0].id] = ast.literal_eval(node.value)
    return SimpleNamespace(**found)


def _lies_at(path: Path) -> bool:
    """Whether there is a file with something in it; its checksum is compared when it is loaded."""
    return path.is_file() and path.stat().st_size > 0


def _check_writable(data: TorchvisionConfig, folder: Path) -> None:
    problem = looks.cannot_write(folder)
    if problem:
        raise DataError(
            f"data.root={data.root}: cannot write to {folder} ({problem})\n"
            f"  allowed: a folder in which the files of data={data.name} lie, or can be put\n"
            f"  remedy: set data.root=DIR, or use data=digits, which needs no download"
        )


def _why_not(urls: Sequence[str]) -> object:
    """Why none of these addresses can be fetched; None where one answers.

    All are asked at once, each by a thread that is left behind if no answer comes: looking up a name can take long.
    """
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    for url in urls:
        threading.Thread(target=_ask, args=(url, answers), daemon=True).start()
    problem: object = f"no answer within {_ANSWER_SECONDS} s"
    ends = time.monotonic() + _ANSWER_SECONDS
    for _ in urls:
        try:
            problem = answers.get(timeout=max(0.0, ends - time.monotonic()))
        except queue.Empty:
            break
        if problem is None:
            break
    return problem


def _ask(url: str, answers: queue.SimpleQueue[object]) -> None:
    """Puts None where the address can be fetched, else what is wrong."""
    import urllib.error
    import urllib.request

    try:
        first_byte = urllib.request.Request(url, headers={"Range": "bytes=0-0"})
        with urllib.request.urlopen(first_byte, timeout=_ANSWER_SECONDS):
            answers.put(None)
    except urllib.error.HTTPError as error:  # holds its connection open
        error.close()
        answers.put(error)
    except _NETWORK_ERRORS as error:
        answers.put(error)


def _fetch(archive: Archive, root: Path, data: TorchvisionConfig) -> None:
    """Downloads one file unless it is there and whole.

    Raises:
        DataError: no address answered with the right file; says which file to put where.
    """
    from torchvision.datasets.utils import check_integrity

    path = archive.path(root)
    if check_integrity(str(path), archive.md5):
        return
    _check_writable(data, path.parent)
    problem: object = None
    for url in archive.urls:
        partial = path.with_name(path.name + ".part")  # a broken download never looks whole
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(url, partial)
            if check_integrity(str(partial), archive.md5):
                partial.replace(path)
                return
            problem = "its checksum is wrong"
        except _NETWORK_ERRORS as error:
            problem = error
        partial.unlink(missing_ok=True)
    raise _refusal(archive, root, data.name, problem)


def _refusal(archive: Archive, root: Path, name: str, problem: object) -> DataError:
    path = archive.path(root)
    return DataError(
        f"data={name}: {archive.filename} could not be downloaded ({problem})\n"
        + (f"  the file {path} is not the published one: its checksum is wrong\n" if _lies_at(path) else "")
        + f"  remedy: fetch {' or '.join(archive.urls)}\n"
        f"          and put it at {path}\n"
        f"  or use data=digits, which needs no download"
    )


def _download(url: str, path: Path) -> None:
    """Streams `url` into `path`."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            num_bytes = int(response.headers.get("Content-Length") or 0)
            with path.open("wb") as target, file_download(path.name.removesuffix(".part"), num_bytes) as advance:
                while block := response.read(1 << 20):
                    target.write(block)
                    advance(len(block))
    except urllib.error.HTTPError as error:  # holds its connection open
        error.close()
        raise


def _to_split(part: Any, image_size: int | None) -> Split:
    """Torchvision keeps uint8 pixels in `.data` (N, H, W[, C]), SVHN (N, C, H, W); labels as a list or an array."""
    pixels = np.asarray(part.data)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif pixels.shape[1] == 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    labels = part.labels if hasattr(part, "labels") else part.targets
    return Split(channels_first(resize(pixels, image_size)), np.asarray(labels, dtype=np.int64))
