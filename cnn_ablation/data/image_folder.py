"""A folder of pictures, `train/<class>/*` and `test/<class>/*`, decoded once and kept as arrays in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.config import ImageFolderConfig
from cnn_ablation.data.images import DataSpec, Pixels, Source, Split, channels_first
from cnn_ablation.errors import DataError
from cnn_ablation.progress import track, warn

SUFFIXES = {".png", ".jpg", ".jpeg"}
_MAX_NAMED = 3  # damaged images named in one message


def describe(data: ImageFolderConfig) -> DataSpec:
    """Counts the files and opens one of them.

    Raises:
        DataError: the folder has not the right form.
    """
    root = _root(data)
    classes = _class_names(root)
    files = _files(root, "train", classes)
    size = data.image_size or _image_size(path for path, _ in files)
    return DataSpec(data.channels, size, len(classes), len(files))


def load(data: ImageFolderConfig) -> Source:
    """The pictures of both parts, from the cache if the folder has not changed since it was written.

    Raises:
        DataError: the folder has not the right form, pictures differ in size, or one cannot be decoded.
    """
    root = _root(data)
    classes = _class_names(root)
    parts = {part: _files(root, part, classes) for part in ("train", "test")}
    cache = Path(data.cache).expanduser() / f"{_cache_key(root, parts, data)}.npz"
    arrays = _read_cache(cache)
    if arrays is None:
        arrays = {part: _decode_all([path for path, _ in files], data, part) for part, files in parts.items()}
        _write_cache(cache, arrays)
    labels = {part: np.array([label for _, label in files], dtype=np.int64) for part, files in parts.items()}
    return Source(Split(arrays["train"], labels["train"]), Split(arrays["test"], labels["test"]), classes)


def _root(data: ImageFolderConfig) -> Path:
    root = Path(data.root).expanduser()
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise DataError(
                f"data.root={data.root}: there is no folder {root / part}\n"
                f"  allowed: a folder that holds train/<class>/* and test/<class>/* with PNG or JPEG files\n"
                f"  remedy: set data.root=DIR, or use data=digits, which needs no files"
            )
    return root


def _class_names(root: Path) -> tuple[str, ...]:
    train, test = (
        sorted(entry.name for entry in (root / part).iterdir() if entry.is_dir()) for part in ("train", "test")
    )
    if train != test:
        different = ", ".join(sorted(set(train) ^ set(test))[:_MAX_NAMED])
        raise DataError(f"data.root={root}: train and test must hold the same classes; only one has {different}")
    if len(train) < 2:
        raise DataError(f"data.root={root}: {root / 'train'} holds {len(train)} class folders; two or more are needed")
    return tuple(train)


def _files(root: Path, part: str, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """(path, label) of every picture, by class and name."""
    found = []
    for label, name in enumerate(classes):
        with os.scandir(root / part / name) as entries:
            paths = sorted(entry.path for entry in entries if os.path.splitext(entry.name)[1].lower() in SUFFIXES)
        if not paths:
            raise DataError(f"data.root={root}: {root / part / name} holds no PNG or JPEG file")
        found += [(Path(path), label) for path in paths]
    return found


def _image_size(paths: Iterable[Path]) -> int:
    """Side of the first picture that can be opened; a damaged one is reported later, with all others.

    Raises:
        DataError: no picture can be opened, or the first one is not square.
    """
    from PIL import Image

    for path in paths:
        try:
            with Image.open(path) as picture:
                width, height = picture.size
        except OSError:
            continue
        if width != height:
            raise DataError(f"{path} is {width}x{height} pixels; set data.image_size=N to resize all images to N x N")
        return width
    raise DataError("none of the images can be opened; they are damaged, or no images")


def _cache_key(root: Path, parts: dict[str, list[tuple[Path, int]]], data: ImageFolderConfig) -> str:
    """A hash of every file's name, size and time of change and of how it is decoded."""
    digest = hashlib.sha256(json.dumps([str(root.resolve()), data.image_size, data.channels]).encode())
    for part, files in parts.items():
        for path, label in files:
            status = path.stat()
            digest.update(f"{part}/{label}/{path.name}/{status.st_size}/{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _decode_all(paths: list[Path], data: ImageFolderConfig, part: str) -> Pixels:
    """All pictures of a part as uint8 (N, channels, size, size).

    Decoding releases the interpreter lock, so threads share the cores.

    Raises:
        DataError: pictures that cannot be decoded, or differ in size while `data.image_size` is not set.
    """
    size = data.image_size or _image_size(paths)
    decode = partial(_decode, size=size, mode="RGB" if data.channels == 3 else "L", may_resize=bool(data.image_size))
    images, damaged = np.empty((len(paths), size, size, data.channels), dtype=np.uint8), []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        decoded: Iterable[Pixels | str] = pool.map(decode, paths, chunksize=256)
        for index, result in enumerate(track(decoded, total=len(paths), label=f"decoding {part} images")):
            if isinstance(result, str):
                damaged.append(result)
            else:
                images[index] = result
    if damaged:
        more = f"\n  ... and {len(damaged) - _MAX_NAMED} more" if len(damaged) > _MAX_NAMED else ""
        raise DataError(
            f"{len(damaged)} of {len(paths)} images cannot be used:\n  "
            + "\n  ".join(damaged[:_MAX_NAMED])
            + more
            + "\n  remedy: repair or remove them, then start again"
        )
    return channels_first(images)


def _decode(path: Path, *, size: int, mode: str, may_resize: bool) -> npt.NDArray[np.uint8] | str:
    """Pixels (size, size, channels), or what is wrong with the file."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            picture = file.convert(mode)
            if picture.size != (size, size):
                if not may_resize:
                    found = "x".join(map(str, picture.size))
                    return f"{path}: {found} pixels, others are {size}x{size}; set data.image_size=N"
                picture = picture.resize((size, size), Image.Resampling.BICUBIC)
            return np.asarray(picture).reshape(size, size, -1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{path}: {error}"


def _read_cache(path: Path) -> dict[str, Pixels] | None:
    """The cached arrays, or None if there are none; a damaged file is named and decoded anew."""
    if not path.exists():
        return None
    try:
        # Opened here, because np.load leaves a damaged file open. The zip container checks a CRC of every array.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {part: stored[part] for part in ("train", "test")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        warn(f"damaged image cache {path} ({error}); decoding the images again")
        return None


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
