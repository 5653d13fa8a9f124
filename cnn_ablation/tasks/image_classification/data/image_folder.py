"""A folder of pictures, `train/<class>/*` and `test/<class>/*`, decoded once and kept as arrays in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.common import looks, machine
from cnn_ablation.common.errors import DataError
from cnn_ablation.common.progress import track, warn, warn_once
from cnn_ablation.tasks.image_classification.config import ImageFolderConfig
from cnn_ablation.tasks.image_classification.data import pictures
from cnn_ablation.tasks.image_classification.data.images import DataSpec, Labels, Pixels, Source, Split, channels_first

SUFFIXES = {".png", ".jpg", ".jpeg"}
PARTS = ("train", "test")
_MAX_NAMED = 3  # damaged images of a part named in one message


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder, by class and name."""

    root: Path
    classes: tuple[str, ...]
    paths: dict[str, list[str]]
    """By part."""
    labels: dict[str, Labels]
    left_out: list[str]
    """What lies among the pictures and has not the name of one."""

    @cached_property
    def stamp(self) -> str:
        """Equal exactly while every picture is the one that was listed; looked for only where images are loaded."""
        digest = hashlib.sha256()
        for paths in self.paths.values():
            digest.update("".join(map(looks.stamp_of, paths)).encode(errors="surrogateescape"))
        return digest.hexdigest()


def stamp(data: ImageFolderConfig) -> str:
    """Changes when a picture is added, removed or written.

    Raises:
        DataError: the folder has not the right form.
    """
    return _listing(data).stamp


def describe(data: ImageFolderConfig) -> DataSpec:
    """Counts the files and opens one of them.

    Raises:
        DataError: the folder has not the right form.
    """
    listing = _listing(data)
    size = data.image_size or _image_size(listing)
    num_train, num_test = (len(listing.paths[part]) for part in PARTS)
    return DataSpec(data.channels, size, len(listing.classes), num_train, num_test)


def load(data: ImageFolderConfig) -> Source:
    """The pictures of both parts, from the cache if the folder has not changed since it was written.

    Raises:
        DataError: the folder has not the right form, pictures differ in size, or some cannot be decoded.
    """
    listing = _listing(data)
    if listing.left_out:
        few, first = f"{len(listing.left_out)} in {listing.root}", listing.left_out[0]
        warn_once(f"what does not end in .png, .jpg or .jpeg is left out: {few}, the first {first}")
    cached = looks.folder("data.cache", data.cache) / f"{_cache_key(listing, data)}.npz"
    arrays = _read_cache(cached, listing)
    if arrays is None:
        arrays = _decode_all(listing, data)
        _write_cache(cached, arrays)
    train, test = (Split(arrays[part], listing.labels[part]) for part in PARTS)
    return Source(train, test, listing.classes)


def _listing(data: ImageFolderConfig) -> Listing:
    root = looks.folder("data.root", data.root)
    return looks.seen(("image_folder", root), partial(_listed, root, data.root))


def _listed(root: Path, given: str) -> Listing:
    try:
        _check_form(root, given)
        classes = _class_names(root)
        found = {part: [_files(root, part, name) for name in classes] for part in PARTS}
    except OSError as error:
        raise DataError(
            f"data.root={given}: {error.filename} cannot be listed ({error.strerror})\n"
            f"  allowed: a folder that can be read, with train/<class>/* and test/<class>/* in it"
        ) from error
    paths, labels, left_out = {}, {}, list[str]()
    for part, by_class in found.items():
        paths[part] = [path for names, _ in by_class for path in names]
        labels[part] = np.repeat(np.arange(len(classes)), [len(names) for names, _ in by_class])
        left_out += [path for _, others in by_class for path in others]
    return Listing(root, classes, paths, labels, left_out)


def _check_form(root: Path, given: str) -> None:
    for part in PARTS:
        if not (root / part).is_dir():
            raise DataError(
                f"data.root={given}: there is no folder {root / part}\n"
                f"  allowed: a folder that holds train/<class>/* and test/<class>/* with PNG or JPEG files\n"
                f"  remedy: set data.root=DIR, or use data=digits, which needs no files"
            )


def _class_names(root: Path) -> tuple[str, ...]:
    train, test = (
        sorted(entry.name for entry in (root / part).iterdir() if entry.is_dir() and entry.name[0] != ".")
        for part in PARTS
    )
    if train != test:
        different = ", ".join(sorted(set(train) ^ set(test))[:_MAX_NAMED])
        raise DataError(f"data.root={root}: train and test must hold the same classes; only one has {different}")
    if len(train) < 2:
        raise DataError(f"data.root={root}: {root / 'train'} holds {len(train)} class folders; two or more are needed")
    return tuple(train)


def _files(root: Path, part: str, name: str) -> tuple[list[str], list[str]]:
    """Paths of a class's pictures and of what else lies among them, by name; hidden files are not looked at."""
    with os.scandir(root / part / name) as entries:
        paths = sorted(entry.path for entry in entries if entry.name[0] != ".")
    found = [path for path in paths if os.path.splitext(path)[1].lower() in SUFFIXES]
    if not found:
        raise DataError(f"data.root={root}: {root / part / name} holds no PNG or JPEG file")
    return found, sorted(set(paths) - set(found))


def _image_size(listing: Listing) -> int:
    """Side of the first training picture that can be opened; a damaged one is reported later, with all others.

    Raises:
        DataError: no picture can be opened, or the first one is not square.
    """
    paths, problem = listing.paths["train"], ""
    with pictures.without_remarks():
        for path in paths:
            try:
                width, height = pictures.opened(path).size
            except DataError as error:
                problem = problem or str(error)
                continue
            if width != height:
                raise DataError(
                    f"{path} is {width}x{height} pixels; set data.image_size=N to resize all images to N x N"
                )
            return int(width)
    raise DataError(
        f"none of the {len(paths)} images below {listing.root / 'train'} can be opened; the first:\n  {problem}"
    )


def _cache_key(listing: Listing, data: ImageFolderConfig) -> str:
    """A hash of the files and of how they are decoded."""
    how = [data.image_size, data.channels, *_decoder_version(), listing.stamp]
    return hashlib.sha256(json.dumps(how).encode()).hexdigest()[:32]


@cache
def _decoder_version() -> tuple[str, str]:
    """Of our decoder, by its source, and of the library beneath it."""
    import PIL

    return hashlib.sha256(Path(pictures.__file__).read_bytes()).hexdigest(), PIL.__version__


def _decode_all(listing: Listing, data: ImageFolderConfig) -> dict[str, Pixels]:
    """All pictures as uint8 (N, channels, size, size), by part; both have the size of the first training picture.

    Raises:
        DataError: pictures that cannot be decoded, or differ in size while `data.image_size` is not set.
    """
    size = data.image_size or _image_size(listing)
    decode = partial(_decode, size=size, channels=data.channels, may_resize=bool(data.image_size))
    arrays, damaged = {}, {}
    with pictures.without_remarks():
        for part, paths in listing.paths.items():
            images = np.empty((len(paths), size, size, data.channels), dtype=np.uint8)
            damaged[part] = _decode_into(images, paths, decode, part)
            arrays[part] = channels_first(images)
    if any(damaged.values()):
        raise DataError(_named(damaged, listing))
    return arrays


def _decode_into(images: Pixels, paths: Sequence[str], decode: Callable[[str], Pixels | str], part: str) -> list[str]:
    """Fills `images` (N, size, size, channels) and returns what is wrong with those that cannot be used.

    Decoding releases the interpreter lock, so threads share the cores.
    """
    damaged = []
    with _threads() as pool:
        decoded = pool.map(decode, paths)
        for index, result in enumerate(track(decoded, total=len(paths), label=f"decoding {part} images")):
            if isinstance(result, str):
                damaged.append(result)
            else:
                images[index] = result
    return damaged


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """A pool that an interrupt does not let go on through thousands of pictures."""
    pool = ThreadPoolExecutor(max_workers=machine.cores_now())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _named(damaged: dict[str, list[str]], listing: Listing) -> str:
    lines = []
    for part, found in damaged.items():
        if found:
            first = f", the first {_MAX_NAMED}" if len(found) > _MAX_NAMED else ""
            lines.append(f"{part}: {len(found)} of {len(listing.paths[part])} images cannot be used{first}:")
            lines += [f"  {reason}" for reason in found[:_MAX_NAMED]]
    return "\n".join([f"data.root={listing.root}", *lines, "  remedy: repair or remove them, then start again"])


def _decode(path: str, *, size: int, channels: int, may_resize: bool) -> npt.NDArray[np.uint8] | str:
    """Pixels (size, size, channels), or what is wrong with the file."""
    try:
        picture = pictures.opened(path)
    except DataError as error:
        return str(error)
    if picture.size != (size, size) and not may_resize:
        found = "x".join(map(str, picture.size))
        return f"{path}: {found} pixels, others are {size}x{size}; set data.image_size=N"
    return pictures.pixels(picture, channels, size)


def _read_cache(path: Path, listing: Listing) -> dict[str, Pixels] | None:
    """The cached arrays, or None if there are none; a damaged file is named and decoded anew."""
    if not path.exists():
        return None
    try:
        # Opened here, because np.load leaves a damaged file open. The zip container checks a CRC of every array.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {part: stored[part] for part in PARTS}
        if any(len(arrays[part]) != len(listing.paths[part]) for part in PARTS):
            raise ValueError("it holds another number of images")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        warn(f"damaged image cache {path} ({error}); decoding the images again")
        return None
    return arrays


def _write_cache(path: Path, arrays: dict[str, Any]) -> None:
    """Writes whole or not at all; a cache that cannot be written costs time, not results, and is said."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            temporary = file.name
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        warn(f"the decoded images could not be kept in {path} ({error}); they will be decoded again next time")
