"""Data sets: one file per source, each with `describe` (sizes, without loading), `load` and `stamp`.

A stamp is a text that changes with the files of a source. What was loaded is kept in memory and served only while the
stamp is the same. The digest of its content is remembered in the store likewise, for processes to come.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn_ablation.common import lanes, machine
from cnn_ablation.common.looks import folder, one_look, seen
from cnn_ablation.runs import provenance
from cnn_ablation.runs.store.memory import DIGESTS, Memory, key_of
from cnn_ablation.tasks.image_classification import parts
from cnn_ablation.tasks.image_classification.config import DataConfig, TorchvisionConfig
from cnn_ablation.tasks.image_classification.data import arrays, digits, image_folder, shapes, torchvision_sets
from cnn_ablation.tasks.image_classification.data.images import DataSpec, ImageData, Split, redraw, split
from cnn_ablation.tasks.image_classification.identity import CODE, LIBRARIES

__all__ = [
    "DataSpec", "ImageData", "Split",
    "check_available", "describe", "forget", "known_digest", "learn_digest", "load", "one_look",
]  # fmt: skip

_SOURCES: dict[str, Any] = {
    "digits": digits,
    "shapes": shapes,
    "image_folder": image_folder,
    "arrays": arrays,
    **dict.fromkeys(torchvision_sets.SETS, torchvision_sets),
}


class _Memory:
    """The data sets last used in this process, by their settings: runs of a study share them."""

    _MOST = 3

    def __init__(self) -> None:
        self.images: dict[str, ImageData] = {}
        self.stamps: dict[str, str] = {}
        """Of what this process loaded itself; what another one gave it is served for as long as the process lives."""
        self.at_rest: set[str] = set()
        """Keys of what had the same stamp before it was loaded: nobody wrote to the files meanwhile."""
        self.redrawn: tuple[ImageData, int, ImageData] | None = None
        """(data set, seed, the same split for that seed): the last one only, for each is a copy of the images."""

    def find(self, key: str, stamp: Callable[[], str]) -> ImageData | None:
        """What is kept under a key, unless its files have changed since."""
        if key in self.stamps and self.stamps[key] != stamp():
            self.drop(key)
        return self.images.get(key)

    def keep(self, key: str, stamp: str, images: ImageData) -> None:
        if len(self.images) == self._MOST:
            self.drop(next(iter(self.images)))
        self.images[key], self.stamps[key] = images, stamp

    def drop(self, key: str) -> None:
        self.images.pop(key)
        self.stamps.pop(key, None)
        self.at_rest.discard(key)
        self.redrawn = None

    def split_for(self, seed: int, images: ImageData, data: DataConfig) -> ImageData:
        """A data set of this memory, split for a run's seed; arms that are trained with the same seed share it."""
        if self.redrawn is None or self.redrawn[0] is not images or self.redrawn[1] != seed:
            self.redrawn = None
            self.redrawn = images, seed, redraw(images, seed, has_test_set=data.has_test_set)
        return self.redrawn[2]


_memory = _Memory()


def loaded() -> dict[str, ImageData]:
    """The data sets last used in this process, for `take_over` in another one."""
    return dict(_memory.images)


def take_over(data_sets: dict[str, ImageData]) -> None:
    """Spares this process loading what another one has loaded, and looking whether it has changed since."""
    _memory.images.update(data_sets)


def forget() -> None:
    """Drops every data set that this process keeps."""
    for key in list(_memory.images):
        _memory.drop(key)


def _key(data: DataConfig) -> str:
    """The settings as text, with the folder that a relative `root` means from here."""
    settings = dataclasses.asdict(data)
    if "root" in settings:
        settings["root"] = str(folder("data.root", settings["root"]))
    return json.dumps(settings, sort_keys=True, default=repr)


def _source(data: DataConfig) -> Any:
    """What reads a data set; a source that an extension has registered gives arrays."""
    return arrays if data.name in parts.SOURCES else _SOURCES[data.name]


@one_look()
def describe(data: DataConfig) -> DataSpec:
    """Channels, image size, classes and number of images, without loading or downloading.

    Raises:
        DataError: `data.root` of an image folder has not the right form.
    """
    spec: DataSpec = _source(data).describe(data)
    return spec


@one_look()
def load(data: DataConfig, *, seed: int | None = None) -> ImageData:
    """The data set; the same object as before while settings and files are the same.

    Args:
        data: what to load.
        seed: of the run that it is split for; None for the split that `data.split_seed` draws.

    Raises:
        DataError: files cannot be downloaded, read or decoded.
    """
    key, source = _key(data), _source(data)
    with lanes.turn:
        images = _memory.find(key, lambda: source.stamp(data))
        if images is None:
            before = source.stamp(data)
            images = split(source.load(data), data)
            _memory.keep(key, source.stamp(data), images)
            _memory.at_rest |= {key} if _memory.stamps[key] == before else set()
        return images if seed is None else _memory.split_for(seed, images, data)


@one_look()
def known_digest(data: DataConfig, store: Path) -> str | None:
    """The digest of a data set that has been loaded, here or by another process, and has not changed since.

    None where it has to be loaded for that. What a function gives is asked of it in every process: nobody knows what
    it reads.

    Args:
        data: its settings.
        store: the folder of the store that may remember it.
    """
    key, source = _key(data), _source(data)
    images = _memory.find(key, lambda: source.stamp(data))
    if images is not None:
        return images.digest
    if source is arrays:
        return None
    found: bytes | None = seen(("digest", store, key), lambda: Memory(store, DIGESTS).find(_name(data)))
    return found.decode() if found else None


@one_look()
def learn_digest(data: DataConfig, store: Path) -> None:
    """Loads a data set, and lets the store remember its digest, unless its files were written to meanwhile.

    Raises:
        DataError: as `load`.
    """
    digest, key = load(data).digest.encode(), _key(data)
    if key in _memory.at_rest and _source(data) is not arrays:
        memory, name = Memory(store, DIGESTS), _name(data)
        if memory.find(name) != digest:
            memory.keep(name, digest)


def _name(data: DataConfig) -> str:
    """What a digest is remembered by: settings, files, code, libraries, and the instructions that compute images."""
    made_with = provenance.code_identity(CODE, LIBRARIES)
    return key_of(_key(data), _source(data).stamp(data), made_with, machine.instructions(), machine.cpu_name())


def check_available(data: DataConfig) -> None:
    """Refuses published data that are not there and cannot be fetched; costs nothing where they are there. No torch.

    Raises:
        DataError: says which file to put where.
    """
    if isinstance(data, TorchvisionConfig):
        torchvision_sets.check_available(data)
