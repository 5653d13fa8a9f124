"""What was loaded is served only while its files are the same, and files are listed once a study or run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnn_ablation
from cnn_ablation.common.errors import DataError
from cnn_ablation.runs.records import read_run
from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.config import Config, DigitsConfig, ImageFolderConfig, TorchvisionConfig
from cnn_ablation.tasks.image_classification.data import image_folder, torchvision_sets
from cnn_ablation.tasks.image_classification.data.images import Source, Split

SIDE = 8


@pytest.fixture(autouse=True)
def nothing_loaded_yet() -> None:
    data.forget()


def picture(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (level, 255 - level, level)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 10 training and 3 test pictures."""
    for part, count in (("train", 10), ("test", 3)):
        for label, name in enumerate(("cat", "dog")):
            for index in range(count):
                picture(tmp_path / "images" / part / name / f"{index}.png", 100 * label + index)
    return tmp_path / "images"


@pytest.fixture
def config(root: Path, tiny_config: Config) -> Config:
    settings = ImageFolderConfig(root=str(root), cache=str(root.parent / "cache"))
    tiny_config.train.batch_size = 4
    return replace(tiny_config, data=settings, replicates=1)


@contextmanager
def listings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The folders listed meanwhile."""
    found: list[Path] = []
    original = image_folder._listed
    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "_listed", lambda root, given: (found.append(root), original(root, given))[1])
        yield found


def overwrite(root: Path) -> None:
    picture(root / "train" / "cat" / "3.png", 200)


def overwrite_unseen(root: Path) -> None:
    """Same size and same time of writing, other pixels."""
    path = root / "train" / "cat" / "3.png"
    before = path.stat()
    content = bytearray(path.read_bytes())
    for level in range(256):
        picture(path, level)
        if path.stat().st_size == before.st_size and path.read_bytes() != content:
            break
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda root: picture(root / "train" / "cat" / "new.png", 77),
    "removed": lambda root: (root / "train" / "cat" / "3.png").unlink(),
    "overwritten": overwrite,
    "overwritten unseen": overwrite_unseen,
    "class renamed": lambda root: [(root / part / "dog").rename(root / part / "eel") for part in ("train", "test")],
    "test picture overwritten": lambda root: picture(root / "test" / "dog" / "1.png", 5),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_folder_is_loaded_anew(config: Config, root: Path, change: Callable[[Path], object]) -> None:
    before = data.load(config.data)
    assert data.load(config.data) is before
    change(root)
    after = data.load(config.data)
    assert after.digest != before.digest
    assert data.load(config.data) is after


def test_a_description_counts_what_lies_there_now(config: Config, root: Path) -> None:
    assert data.describe(config.data).source_train_images == 20
    picture(root / "train" / "cat" / "new.png", 77)
    assert data.describe(config.data).source_train_images == 21


def test_a_folder_that_is_gone_is_not_served(config: Config, root: Path) -> None:
    data.load(config.data)
    shutil.rmtree(root)
    with pytest.raises(DataError, match="there is no folder"):
        data.load(config.data)


def identity(folder: Path) -> str:
    data_digest: str = read_run(folder / "run-seed0.json").provenance["identity"]["data"]
    return data_digest


def test_a_run_trains_what_lies_there_now(config: Config, root: Path, tmp_path: Path) -> None:
    cnn_ablation.run(config, tmp_path / "0")
    overwrite(root)
    cnn_ablation.run(config, tmp_path / "1")
    data.forget()
    assert identity(tmp_path / "0") != identity(tmp_path / "1") == data.load(config.data).digest


@pytest.mark.usefixtures("undrawn")
def test_a_study_trains_what_lies_there_now(config: Config, root: Path, tmp_path: Path) -> None:
    baseline = replace(config, timing="isolated", replicates=2)
    for name in ("first", "second"):
        cnn_ablation.ablate(baseline, {"model.activation": ["leaky"]}, tmp_path / name)
        overwrite(root)
    assert identity(tmp_path / "first" / "0") != identity(tmp_path / "second" / "0")


@pytest.mark.usefixtures("undrawn")
def test_a_folder_is_listed_once_when_planned_and_once_when_trained(
    config: Config, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two arms, one of them of other data settings, and two seeds each: four runs."""
    baseline = replace(config, timing="isolated", replicates=2)
    with listings(monkeypatch) as found:
        cnn_ablation.ablate(baseline, {"data.val_fraction": [0.3]}, tmp_path / "study")
    assert found == [root, root]


def test_a_run_lists_a_folder_once(config: Config, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listings(monkeypatch) as found:
        cnn_ablation.run(replace(config, replicates=3), tmp_path / "0")
    assert found == [root]


def test_what_another_process_gave_is_neither_listed_nor_loaded(
    config: Config, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = data.load(config.data)
    handed_over = data.loaded()
    data.forget()
    data.take_over(handed_over)
    overwrite(root)  # while the study goes on, its workers train the same images
    with listings(monkeypatch) as found:
        assert data.load(config.data) is given
    assert found == []


def test_a_relative_root_means_another_folder_elsewhere(
    config: Config, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relative = replace(config.data, root="images")
    monkeypatch.chdir(root.parent)
    here = data.load(relative)
    there = root.parent / "there"
    shutil.copytree(root, there / "images")
    picture(there / "images" / "train" / "cat" / "0.png", 250)
    monkeypatch.chdir(there)
    assert data.load(relative).digest != here.digest
    monkeypatch.chdir(root.parent)
    assert data.load(relative) is here


def test_generated_and_bundled_images_are_loaded_once() -> None:
    assert data.load(DigitsConfig()) is data.load(DigitsConfig())


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("fashion_mnist", "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz"),
        ("svhn", "train_32x32.mat"),
    ],
)
def test_published_data_are_loaded_anew_once_their_files_are_replaced(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torchvision's part alone is played: its files would be of 11 MiB. The first load writes the file; no change."""
    path = tmp_path / file
    config = TorchvisionConfig(name=name, root=str(tmp_path))

    def load(_: TorchvisionConfig) -> Source:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"one")
        part = Split(np.zeros((100, 1, 2, 2), np.uint8), np.arange(100) % 10)
        return Source(part, part, tuple("0123456789"))

    monkeypatch.setattr(torchvision_sets, "load", load)
    first = data.load(config)
    assert data.load(config) is first
    path.write_bytes(b"two")
    assert data.load(config) is not first
