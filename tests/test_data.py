from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import re
import shutil
import socket
import socketserver
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_ablation.common.errors import DataError
from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.config import (
    DataConfig,
    DigitsConfig,
    ImageFolderConfig,
    ShapesConfig,
    TorchvisionConfig,
)
from cnn_ablation.tasks.image_classification.data import image_folder, shapes, torchvision_sets
from cnn_ablation.tasks.image_classification.data.images import num_held_out


@pytest.fixture(autouse=True)
def nothing_loaded_yet() -> None:
    data.forget()


def test_digits_are_the_1797_images_of_scikit_learn_upscaled() -> None:
    from sklearn.datasets import load_digits

    images = data.load(DigitsConfig())
    assert sum(map(len, (images.train, images.val, images.test))) == len(load_digits().target) == 1797
    assert images.train.images.shape[1:] == (3, 32, 32)
    assert images.train.images.dtype == np.uint8
    small = data.load(DigitsConfig(image_size=8))
    everything = np.concatenate([small.train.images, small.val.images, small.test.images])[:, 0].reshape(1797, -1)
    expected = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, everything)) == sorted(map(bytes, expected))


@pytest.mark.parametrize(
    "config",
    [DigitsConfig(), DigitsConfig(test_fraction=0.25, val_fraction=0.13), ShapesConfig(train_images=77, image_size=8)],
    ids=["digits", "other fractions", "shapes"],
)
def test_description_agrees_with_what_is_loaded(config: DataConfig) -> None:
    spec, images = data.describe(config), data.load(config)
    assert spec.train_images(config) == len(images.train)
    assert spec.input_shape == images.input_shape
    assert spec.num_classes == images.num_classes


def test_parts_are_disjoint_stratified_and_fixed_by_the_split_seed() -> None:
    config = ShapesConfig(train_images=200, test_images=50, image_size=8)
    first = data.load(config)
    data.forget()
    again, other = data.load(config), data.load(replace(config, split_seed=1))
    assert first.digest == again.digest != other.digest
    assert len(first.val) == num_held_out(200, 0.2) == 40
    assert np.bincount(first.val.labels).tolist() == [4] * 10
    train, val = ({bytes(image) for image in part.images} for part in (first.train, first.val))
    assert not train & val
    assert np.array_equal(first.test.images, other.test.images)


def test_training_order_mixes_the_classes() -> None:
    labels = data.load(DigitsConfig()).train.labels
    changes = np.count_nonzero(np.diff(labels))
    assert changes > 0.8 * len(labels)


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_shapes_depend_on_the_seed_alone(difficulty: float) -> None:
    draw = partial(shapes.draw, 30, 16, difficulty)
    first, again, other = (draw(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    assert np.bincount(first.labels).tolist() == [3] * 10


def test_every_shape_leaves_a_mark_of_its_own() -> None:
    """At difficulty 0 the shapes stand still: the mean picture of a class tells it from all others."""
    drawn = shapes.draw(600, 24, 0.0, np.random.default_rng(0))
    grey = drawn.images.astype(float).mean(axis=1)
    edges = np.abs(grey - np.median(grey, axis=(1, 2), keepdims=True))
    means = np.stack([edges[drawn.labels == label].mean(axis=0) for label in range(10)]).reshape(10, -1)
    correlations = np.corrcoef(means) - np.eye(10)
    assert correlations.max() < 0.97


def test_standard_scaling_uses_the_training_part_only() -> None:
    images = data.load(ShapesConfig(train_images=100, image_size=8, scale="standard"))
    factor, shift = images.normalisation
    pixels = images.train.images.astype(np.float64)
    np.testing.assert_allclose(1 / factor, pixels.std(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(-shift / factor, pixels.mean(axis=(0, 2, 3)), rtol=1e-5)


# -- image folders ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, PNG and JPEG, grey and colour: 12 training and 4 test pictures of 10x10 pixels."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (10, 10, 3), dtype=np.uint8)
                picture = Image.fromarray(pixels).convert("L" if index == 1 else "RGB")
                picture.save(tmp_path / "images" / part / name / f"{index}.{'jpg' if index == 0 else 'png'}")
    return tmp_path / "images"


def folder_config(folder: Path, **settings: object) -> ImageFolderConfig:
    return ImageFolderConfig(root=str(folder), cache=str(folder.parent / "cache"), val_fraction=0.25, **settings)


def test_image_folder_holds_the_pixels_of_its_files(folder: Path) -> None:
    config = folder_config(folder)
    assert data.describe(config).input_shape == (3, 10, 10)
    images = data.load(config)
    assert images.class_names == ("cat", "dog")
    assert (len(images.train), len(images.val), len(images.test)) == (9, 3, 4)
    expected = np.asarray(Image.open(folder / "test" / "dog" / "1.png").convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(images.test.images[3], expected)
    assert images.test.labels.tolist() == [0, 0, 1, 1]


def test_second_load_reads_the_cache_and_a_changed_file_does_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    original = image_folder._decode_into
    monkeypatch.setattr(
        image_folder,
        "_decode_into",
        lambda images, *rest: (decoded.append(len(images)), original(images, *rest))[1],
    )
    first = data.load(folder_config(folder)).digest
    data.forget()
    assert data.load(folder_config(folder)).digest == first
    assert decoded == [12, 4]
    Image.new("RGB", (10, 10), "red").save(folder / "train" / "cat" / "2.png")
    data.forget()
    assert data.load(folder_config(folder)).digest != first
    assert decoded == [12, 4, 12, 4]


@pytest.mark.parametrize("damage", ["truncate", "overwrite"])
def test_a_damaged_cache_is_named_and_decoded_anew(
    folder: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = folder_config(folder)
    expected = data.load(config).digest
    (cache,) = (folder.parent / "cache").iterdir()
    content = bytearray(cache.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    else:
        content[400:500] = bytes(100)
    cache.write_bytes(content)
    data.forget()
    assert data.load(config).digest == expected
    assert f"damaged image cache {cache}" in capsys.readouterr().err


def test_damaged_images_are_named_all_of_them(folder: Path) -> None:
    broken = [folder / "train" / "cat" / "0.jpg", folder / "train" / "dog" / "3.png"]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError) as error:
        data.load(folder_config(folder))
    message = str(error.value)
    assert "train: 2 of 12 images cannot be used:\n" in message
    assert "test" not in message.replace(str(folder), "")
    assert all(str(path) in message for path in broken)
    assert "remedy" in message


def test_damaged_images_of_both_parts_are_named_in_one_message(folder: Path) -> None:
    for part, count in (("train", 5), ("test", 1)):
        for path in sorted((folder / part / "dog").iterdir())[:count]:
            path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError) as error:
        data.load(folder_config(folder))
    lines = str(error.value).splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [
        f"data.root={folder}",
        "train: 5 of 12 images cannot be used, the first 3:",
        "test: 1 of 4 images cannot be used:",
    ]
    assert f"  {folder / 'test' / 'dog' / '0.jpg'} cannot be read as a picture" in lines[6]
    assert len(lines) <= 10


def test_test_images_have_the_size_of_training_images(folder: Path) -> None:
    """Each part alone is of one size; together they are not."""
    for path in (folder / "test").rglob("*.*"):
        Image.new("RGB", (12, 12)).save(path)
    with pytest.raises(DataError, match=r"test: 4 of 4 images .*\n.*12x12 pixels, others are 10x10"):
        data.load(folder_config(folder))


def test_a_link_to_nowhere_is_a_damaged_image(folder: Path) -> None:
    (folder / "train" / "cat" / "9.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(DataError, match=r"1 of 13 .*\n.*9\.png cannot be read as a picture \(No such file"):
        data.load(folder_config(folder))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root": "~nobody-of-this-name/images"}, "data.root=~nobody-of-this-name/images: "),
        ({"root": "x" * 300}, r"cannot be listed \(File name too long\)"),
        ({"cache": "~nobody-of-this-name"}, "data.cache=~nobody-of-this-name: "),
    ],
    ids=["unknown home", "name too long", "cache in an unknown home"],
)
def test_folders_that_cannot_be_are_refused(folder: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.load(replace(folder_config(folder), **settings))


def test_what_is_left_out_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures in other formats, and in folders of their own; hidden files are nobody's pictures."""
    Image.new("RGB", (10, 10)).save(folder / "train" / "cat" / "more.bmp")
    shutil.copytree(folder / "test" / "dog", folder / "train" / "dog" / "more")
    for name in (".DS_Store", "._0.png"):
        (folder / "train" / "cat" / name).touch()
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    assert len(data.load(folder_config(folder)).train) == 9
    first = folder / "train" / "cat" / "more.bmp"
    said = f"what does not end in .png, .jpg or .jpeg is left out: 2 in {folder}, the first {first}"
    assert said in capsys.readouterr().err


def test_an_interrupt_does_not_wait_for_all_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after the first of 12 images: those that no thread has begun are left alone."""
    decoded: list[str] = []
    ends = threading.Event()

    def slow(path: str, **settings: object) -> str:
        decoded.append(path)
        if Path(path) != folder / "train" / "cat" / "0.jpg":
            ends.wait(60)
            time.sleep(0.2)
        return path

    def interrupted(items: Iterator[object], **settings: object) -> Iterator[object]:
        yield next(items)
        ends.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(image_folder, "_decode", slow)
    monkeypatch.setattr(image_folder, "track", interrupted)
    monkeypatch.setattr(image_folder.os, "cpu_count", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        data.load(folder_config(folder))
    assert len(decoded) < 8


def test_images_of_several_sizes_need_an_image_size(folder: Path) -> None:
    Image.new("RGB", (12, 12)).save(folder / "train" / "cat" / "9.png")
    with pytest.raises(DataError, match=r"9\.png: 12x12 pixels, others are 10x10; set data\.image_size=N"):
        data.load(folder_config(folder))
    assert data.load(folder_config(folder, image_size=8)).input_shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (shutil.rmtree, "there is no folder"),
        (lambda root: shutil.rmtree(root / "test"), "there is no folder"),
        (lambda root: shutil.rmtree(root / "test" / "cat"), "same classes; only one has cat"),
        (lambda root: [path.unlink() for path in (root / "train" / "dog").iterdir()], "holds no PNG or JPEG"),
        (lambda root: [shutil.rmtree(root / part / "cat") for part in ("train", "test")], "two or more are needed"),
    ],
    ids=["no root", "no test", "class missing", "empty class", "one class"],
)
def test_a_folder_of_the_wrong_form_says_what_is_wrong(folder: Path, breakage: object, message: str) -> None:
    breakage(folder)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        data.describe(folder_config(folder))


def test_greyscale_channels(folder: Path) -> None:
    assert data.load(folder_config(folder, channels=1)).input_shape == (1, 10, 10)


# -- torchvision sets: small files of the right format, served by a real server on this machine ------------------------


def cifar_archive(path: Path) -> None:
    generator = np.random.default_rng(0)
    inside = path.parent / "cifar-10-batches-py"
    inside.mkdir(parents=True)
    for name in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        batch = {"data": generator.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [*range(10)] * 2}
        (inside / name).write_bytes(pickle.dumps(batch))
    (inside / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {index}" for index in range(10)]}))
    with tarfile.open(path, "w:gz") as archive:
        archive.add(inside, "cifar-10-batches-py")
    shutil.rmtree(inside)


def idx_file(path: Path, values: np.ndarray) -> None:
    header = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class JoinedServer(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for them, so that no socket is left open


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which a local server offers it."""
    offered = tmp_path / "offered"
    offered.mkdir()
    with JoinedServer(("127.0.0.1", 0), partial(Quiet, directory=str(offered))) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield offered, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


@pytest.fixture
def cifar(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR10 of torchvision, pointed at a small archive on the local server; returns the archive."""
    from torchvision.datasets import CIFAR10

    offered, address = server
    archive = offered / CIFAR10.filename
    cifar_archive(archive)
    monkeypatch.setattr(CIFAR10, "url", address + archive.name)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: (Path(self.root) / self.base_folder).is_dir())
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    return archive


def test_cifar10_is_downloaded_checked_and_read(cifar: Path, tmp_path: Path) -> None:
    config = TorchvisionConfig(name="cifar10", root=str(tmp_path / "root"))
    images = data.load(config)
    assert (len(images.train), len(images.val), len(images.test)) == (80, 20, 20)
    assert images.input_shape == (3, 32, 32)
    assert images.class_names[3] == "class 3"
    cifar.unlink()
    data.forget()
    assert data.load(config).digest == images.digest


def test_mnist_form(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torchvision.datasets import MNIST

    offered, address = server
    generator = np.random.default_rng(0)
    resources = []
    for name, _ in MNIST.resources:
        count = 100 if name.startswith("train") else 30
        labels = (np.arange(count) % 10).astype(np.uint8)
        idx_file(offered / name, labels if "labels" in name else generator.integers(0, 256, (count, 28, 28), np.uint8))
        resources.append((name, md5(offered / name)))
    monkeypatch.setattr(MNIST, "mirrors", [address + "nowhere/", address])
    monkeypatch.setattr(MNIST, "resources", resources)
    images = data.load(TorchvisionConfig(name="mnist", root=str(tmp_path / "root")))
    assert (len(images.train), len(images.val), len(images.test)) == (80, 20, 30)
    assert images.input_shape == (1, 28, 28)
    assert images.num_classes == 10


def test_svhn_form(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    offered, address = server
    generator, split_list = np.random.default_rng(0), {}
    for part, count in (("train", 100), ("test", 30)):
        path = offered / f"{part}_32x32.mat"
        labels = (np.arange(count) % 10 + 1)[:, None]  # the file writes the digit 0 as 10
        savemat(path, {"X": generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8), "y": labels})
        split_list[part] = [address + path.name, path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", split_list)
    images = data.load(TorchvisionConfig(name="svhn", root=str(tmp_path / "root")))
    assert (len(images.train), len(images.test)) == (80, 30)
    assert images.input_shape == (3, 32, 32)
    assert sorted(set(images.test.labels)) == list(range(10))


def test_a_failed_download_says_which_file_to_put_where(
    cifar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cifar.unlink()
    with pytest.raises(DataError) as error:
        data.load(TorchvisionConfig(name="cifar10", root=str(tmp_path / "root")))
    message = str(error.value)
    assert "cifar-10-python.tar.gz could not be downloaded (HTTP Error 404" in message
    assert f"put it at {tmp_path / 'root' / 'cifar-10-python.tar.gz'}" in message
    assert "data=digits" in message


def test_a_download_with_the_wrong_content_is_refused(cifar: Path, tmp_path: Path) -> None:
    cifar.write_bytes(b"not the archive")
    with pytest.raises(DataError, match="its checksum is wrong"):
        data.load(TorchvisionConfig(name="cifar10", root=str(tmp_path / "root")))


def test_known_sizes_are_named_for_every_set() -> None:
    assert set(torchvision_sets.SETS) == {"cifar10", "mnist", "fashion_mnist", "svhn"}
    for name in torchvision_sets.SETS:
        assert data.describe(TorchvisionConfig(name=name)).source_train_images >= 50_000


# -- published sets that are not there ---------------------------------------------------------------------------------

ADDRESSES = {
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz",
    "svhn": "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
}


@pytest.mark.parametrize("name", torchvision_sets.SETS)
def test_archives_are_known_without_importing_torchvision(name: str) -> None:
    """From its source text; equal to what the imported class says."""
    from torchvision import datasets

    known = torchvision_sets.SETS[name]
    archives = known.archives(torchvision_sets._class_in_source(known))
    assert archives == known.archives(getattr(datasets, known.class_name))
    assert ADDRESSES[name] in archives[0].urls


def point_at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """CIFAR-10 of torchvision, to be fetched from another address."""
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "url", address)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Nobody listens there, nor does another process that looks for a free one get it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_what_can_be_fetched_is_not_fetched_yet(cifar: Path, tmp_path: Path) -> None:
    data.check_available(TorchvisionConfig(name="cifar10", root=str(tmp_path / "root")))
    assert not (tmp_path / "root").exists()


def test_what_cannot_be_fetched_is_refused_with_the_message_of_a_failed_download(
    closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://127.0.0.1:{closed_port}/cifar-10-python.tar.gz"
    point_at(monkeypatch, address)
    config = TorchvisionConfig(name="cifar10", root=str(tmp_path / "root"))
    messages = []
    for refused in (data.check_available, data.load):
        with pytest.raises(DataError) as error:
            refused(config)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    first, *others = messages[0].splitlines()
    assert re.fullmatch(
        r"data=cifar10: cifar-10-python\.tar\.gz could not be downloaded \(<urlopen error .* refused>\)", first
    )
    assert others == [
        f"  remedy: fetch {address}",
        f"          and put it at {tmp_path / 'root' / 'cifar-10-python.tar.gz'}",
        "  or use data=digits, which needs no download",
    ]


def test_a_file_that_the_server_has_not_is_refused(cifar: Path, tmp_path: Path) -> None:
    cifar.unlink()
    with pytest.raises(DataError, match=r"could not be downloaded \(HTTP Error 404"):
        data.check_available(TorchvisionConfig(name="cifar10", root=str(tmp_path / "root")))


def test_one_address_of_several_is_enough(
    server: tuple[Path, str], closed_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torchvision.datasets import MNIST

    offered, address = server
    (offered / MNIST.resources[0][0]).write_bytes(b"content")
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{closed_port}/", address])
    data.check_available(TorchvisionConfig(name="mnist", root=str(tmp_path / "root")))


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


def test_a_server_that_does_not_answer_is_not_waited_for(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, silent)
    monkeypatch.setattr(torchvision_sets, "_ANSWER_SECONDS", 0.1)
    started = time.monotonic()
    with pytest.raises(DataError, match=r"no answer within 0\.1 s|timed out"):
        data.check_available(TorchvisionConfig(name="cifar10", root=str(tmp_path / "root")))
    assert time.monotonic() - started < 30


@pytest.fixture
def babbling() -> Iterator[str]:
    """The address of a server whose answers are not HTTP."""

    class Babble(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1024)
            self.request.sendall(b"what?\n\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Babble) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("refused", [data.check_available, data.load], ids=["check", "load"])
def test_a_server_that_talks_nonsense_is_refused(
    refused: Callable[[DataConfig], object], babbling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, babbling)
    with pytest.raises(DataError, match=r"could not be downloaded \(what\?"):
        refused(TorchvisionConfig(name="cifar10", root=str(tmp_path / "root")))


@pytest.mark.parametrize("refused", [data.check_available, data.load], ids=["check", "load"])
def test_a_root_that_cannot_be_written_to_is_refused(
    refused: Callable[[DataConfig], object], cifar: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError) as error:
        refused(TorchvisionConfig(name="cifar10", root=str(tmp_path / "file" / "below")))
    assert f"cannot write to {tmp_path / 'file' / 'below'} ({tmp_path / 'file'} is a file)" in str(error.value)
    assert "remedy: set data.root=DIR" in str(error.value)


def test_nothing_is_asked_where_the_files_are(
    closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, f"http://127.0.0.1:{closed_port}/")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"something")
    for config in (TorchvisionConfig(name="cifar10", root=str(tmp_path)), DigitsConfig(), ShapesConfig()):
        data.check_available(config)


def test_refusing_needs_no_torch(closed_port: int, tmp_path: Path) -> None:
    """The proxy is a closed port of this machine, so that no other one is asked."""
    code = (
        "import sys, time; from cnn_ablation.tasks.image_classification import config\n"
        "from cnn_ablation.common import errors; from cnn_ablation.tasks.image_classification import data\n"
        f"settings = config.TorchvisionConfig(name='mnist', root={str(tmp_path / 'root')!r})\n"
        "try: data.check_available(settings)\n"
        "except errors.DataError as error: print(error)\n"
        "print({'torch', 'torchvision', 'scipy', 'sklearn', 'pandas'} & set(sys.modules))"
    )
    proxy = f"http://127.0.0.1:{closed_port}"
    environment = {**os.environ, "http_proxy": proxy, "https_proxy": proxy}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "train-images-idx3-ubyte.gz could not be downloaded (<urlopen error" in done.stdout
    assert done.stdout.endswith("set()\n")


def test_a_file_that_is_not_the_published_one_is_named(
    closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, f"http://127.0.0.1:{closed_port}/")
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(b"something")
    with pytest.raises(DataError, match=f"the file {path} is not the published one: its checksum is wrong"):
        data.load(TorchvisionConfig(name="cifar10", root=str(tmp_path)))
    assert path.read_bytes() == b"something"


def test_a_download_with_the_wrong_content_is_not_kept(cifar: Path, tmp_path: Path) -> None:
    cifar.write_bytes(b"not the archive")
    with pytest.raises(DataError, match="its checksum is wrong"):
        data.load(TorchvisionConfig(name="cifar10", root=str(tmp_path / "root")))
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0", bytes(40)], ids=["empty", "short", "zeros"])
def test_damaged_unpacked_files_are_named(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchvision checks the archives alone, and asserts."""
    from torchvision.datasets import MNIST

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, _ in MNIST.resources:
        (raw / name.removesuffix(".gz")).write_bytes(content)
        (raw / name).write_bytes(gzip.compress(content))
    monkeypatch.setattr(MNIST, "resources", [(name, md5(raw / name)) for name, _ in MNIST.resources])
    with pytest.raises(DataError, match=f"the files in {tmp_path} cannot be read"):
        data.load(TorchvisionConfig(name="mnist", root=str(tmp_path)))
