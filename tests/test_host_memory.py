"""Images that stay in host memory, where a GPU has no room for them: the same batches and results, bit for bit.

No GPU is needed for the host's way; that it is taken, and what it does there, `test_gpu.py` holds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import Tensor

import cnn_ablation
from cnn_ablation.runs import run as runs
from cnn_ablation.tasks.image_classification import data, devices, engine, models
from cnn_ablation.tasks.image_classification.checkpoints import Checkpoints
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data import resident as residents
from cnn_ablation.tasks.image_classification.data.augmentation import Draws, epoch_draws
from cnn_ablation.tasks.image_classification.data.host import HostSplit, on_host
from cnn_ablation.tasks.image_classification.data.images import ImageData, Split
from cnn_ablation.tasks.image_classification.data.mixup import MixedLabels
from cnn_ablation.tasks.image_classification.data.placement import bytes_of_a_run, bytes_of_images, fits
from cnn_ablation.tasks.image_classification.data.resident import ResidentSplit, resident
from cnn_ablation.tasks.image_classification.training import TrainingResult, train

CPU = torch.device("cpu")
GIB = 2**30
AUGMENTATION: dict[str, Any] = {
    "max_translation": 2, "horizontal_flip": True, "color_jitter": 0.4, "cutout": 3, "mixup": 0.5,
}  # fmt: skip


def images_of(channels: int = 3, dtype: type = np.uint8, *, lie_last: bool = False) -> ImageData:
    """Fifty images of 6x5 pixels to train on, and some more, in either order of memory."""
    draw = np.random.default_rng(7)

    def part(count: int) -> Split:
        pixels = draw.integers(0, 256, (count, channels, 6, 5)).astype(dtype)
        if lie_last:
            pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        return Split(pixels, draw.integers(0, 4, count))

    return ImageData(part(50), part(11), part(23), ("a", "b", "c", "d"), "standard", np.arange(61))


MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]
DATA: dict[str, dict[str, Any]] = {
    "channels first": {}, "channels last": {"lie_last": True}, "grey": {"channels": 1}, "floats": {"dtype": np.float32},
}  # fmt: skip


def draws_for(images: ImageData, **knobs: Any) -> Draws | None:
    config = cnn_ablation.compose([*TINY, *(f"train.{key}={value}" for key, value in knobs.items())])
    return next(epoch_draws(config.train, len(images.train), images.input_shape[1:], seed=3))


def assert_same(found: Iterator[tuple[Any, Any]], expected: Iterator[tuple[Any, Any]]) -> int:
    """Bit for bit and in the same order of memory, which decides what computes them; how many batches there are."""
    count = 0
    for (inputs, labels), (their_inputs, their_labels) in zip(found, expected, strict=True):
        assert (inputs.dtype, inputs.stride()) == (their_inputs.dtype, their_inputs.stride())
        assert torch.equal(inputs, their_inputs)
        for each, theirs in zip(parts_of(labels), parts_of(their_labels), strict=True):
            assert torch.equal(each, theirs)
        count += 1
    return count


def parts_of(labels: Tensor | MixedLabels) -> list[Tensor]:
    return [labels.labels, labels.others, labels.shares] if isinstance(labels, MixedLabels) else [labels]


def both(images: ImageData, memory_format: torch.memory_format) -> tuple[HostSplit, ResidentSplit]:
    return on_host(images, CPU, memory_format).train, resident(images, CPU, memory_format).train


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS, ids=str)
@pytest.mark.parametrize("knobs", [{}, *({key: value} for key, value in AUGMENTATION.items()), AUGMENTATION], ids=str)
@pytest.mark.parametrize("which", DATA)
def test_batches_to_train_on_are_those_of_a_device_that_holds_all(
    which: str, knobs: dict[str, Any], memory_format: torch.memory_format
) -> None:
    images = images_of(**DATA[which])
    host, there = both(images, memory_format)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    draws = draws_for(images, **knobs, batch_size=16)
    found = host.training_batches(order, 16, draws)
    assert assert_same(found, there.training_batches(order, 16, draws)) == 4, "the last one is smaller"


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS, ids=str)
@pytest.mark.parametrize("which", DATA)
def test_batches_to_score_are_those_of_a_device_that_holds_all(which: str, memory_format: torch.memory_format) -> None:
    host, there = both(images_of(**DATA[which]), memory_format)
    assert assert_same(host.in_order(20), there.in_order(20)) == 3
    assert assert_same(host.in_order(99), there.in_order(99)) == 1
    for count in (1, 7, 50, 99):
        assert assert_same(host.head(count), there.head(count)) == 1
        some, theirs = host.evenly_spaced(count), there.evenly_spaced(count)
        assert len(some) == len(theirs) == min(count, 50)
        assert assert_same(some.in_order(4), theirs.in_order(4)) == math.ceil(len(theirs) / 4)
        assert assert_same(some.evenly_spaced(3).in_order(2), theirs.evenly_spaced(3).in_order(2)) > 0
    places = torch.tensor([5, 5, 49, 0])
    assert_same(iter([host.batch(places)]), iter([there.batch(places)]))


def test_a_sample_copies_no_image() -> None:
    host = on_host(images_of(), CPU).train
    assert host.evenly_spaced(7).pixels.data_ptr() == host.pixels.data_ptr()


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS, ids=str)
@pytest.mark.parametrize("which", DATA)
def test_images_copied_to_a_device_part_by_part_are_the_same(
    which: str, memory_format: torch.memory_format, size: int
) -> None:
    pixels = torch.from_numpy(images_of(**DATA[which]).train.images)
    found = residents.copied(pixels, CPU, memory_format, part_bytes=size * pixels[0].nbytes)
    assert torch.equal(found, pixels)
    assert found.is_contiguous(memory_format=memory_format)
    assert found.data_ptr() != pixels.data_ptr()


def test_a_pass_that_is_given_up_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    batches = on_host(images_of(), CPU).train.in_order(4)
    next(batches)
    own = set(threading.enumerate()) - before
    assert own, "the next ones are on their way"
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in own if thread.is_alive()]


def test_what_goes_wrong_on_the_way_is_raised_where_batches_are_used() -> None:
    order = torch.tensor([0, 1, 99, 2])
    batches = on_host(images_of(), CPU).train.batches(order, 2)
    next(batches)
    with pytest.raises(IndexError, match="out of bounds"):
        next(batches)


# -- in training ------------------------------------------------------------------------------------------------------


def assert_equal(found: TrainingResult, expected: TrainingResult) -> None:
    """All but times."""
    for one, other in zip(found.curves, expected.curves, strict=True):
        assert repr(replace(one, train_seconds=0)) == repr(replace(other, train_seconds=0))  # NaN is no NaN
    for part in ("train", "val", "test"):
        score, theirs = getattr(found, part), getattr(expected, part)
        assert repr(replace(score, probabilities=None)) == repr(replace(theirs, probabilities=None))
    assert (found.status, found.updates, found.images_seen) == (expected.status, expected.updates, expected.images_seen)
    weights = expected.network.state_dict()
    for name, value in found.network.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0, equal_nan=True, msg=name)
    assert found.network.state_dict().keys() == weights.keys()


RECIPES = {
    "plain": [],
    "augmented": [f"train.{key}={value}" for key, value in AUGMENTATION.items()],
    "dropout, batch norm, averaged weights": ["model.dropout=0.3", "model.batch_norm=true", "train.ema_decay=0.9"],
    "stops early": ["train.stop_on=val_loss", "train.patience=1", "train.epochs=8", "optimizer=sgd", "optimizer.lr=2"],
    "an epoch cut short": ["train.updates=5"],
    "diverges": ["optimizer=sgd", "optimizer.lr=1e30"],
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["fast", "reference"])
def test_a_run_gives_the_same_bits_wherever_its_images_lie(name: str, recipe: str) -> None:
    config = cnn_ablation.compose([*TINY, "device=cpu", f"engine={name}", *RECIPES[recipe]])
    images = data.load(config.data)
    expected = engine.train(config, images, seed=2, device=CPU)
    assert_equal(engine.train(config, images, seed=2, device=CPU, in_host_memory=True), expected)


class InterruptionError(Exception):
    """Stands for the end of the process."""


class Interrupting(Checkpoints):
    """Saves after every batch and ends in the middle of the second epoch."""

    def save(self, state: dict[str, Any]) -> None:
        super().save(state)
        if (len(state["curves"]), state["sums"]["num_batches"]) == (1, 2):
            raise InterruptionError


def test_an_interrupted_run_goes_on_with_its_images_elsewhere(tmp_path: Path) -> None:
    """Begun with all images on the device, ended with them in host memory: nothing of a run depends on that."""
    config = cnn_ablation.compose([*TINY, "device=cpu", *RECIPES["augmented"], "model.dropout=0.3"])
    images = data.load(config.data)
    expected = train(config, images, seed=0, device=CPU)
    with pytest.raises(InterruptionError):
        train(config, images, seed=0, device=CPU, checkpoints=Interrupting(tmp_path / "checkpoint", 1e-9))
    checkpoints = Checkpoints(tmp_path / "checkpoint", 60)
    assert_equal(train(config, images, seed=0, device=CPU, checkpoints=checkpoints, in_host_memory=True), expected)


# -- the decision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "data_gib", "run_gib", "free_gib"),
    [
        (True, 30, 5, 78),
        (True, 65, 5, 78),
        (False, 66, 5, 78),
        (False, 30, 41, 78),
        (False, 190, 5, 139),
        (False, 1, 1, 0),
    ],
)
def test_images_lie_on_the_device_where_they_and_a_run_take_nine_tenths_of_what_is_free(
    expected: bool, data_gib: int, run_gib: int, free_gib: int
) -> None:
    assert fits(data_gib * GIB, run_gib * GIB, free_gib * GIB) is expected


def test_a_second_copy_of_the_images_has_to_fit_beside_the_first() -> None:
    """Each process of a GPU has its own: what the first one took is not free."""
    total, images, run = 78 * GIB, 35 * GIB, 3 * GIB
    assert fits(images, run, total)
    assert not fits(images, run, total - images - run)


def test_bytes_are_those_of_all_images_and_labels() -> None:
    assert bytes_of_images(images_of()) == (50 + 11 + 23) * (3 * 6 * 5 + 8)
    assert bytes_of_images(images_of(dtype=np.float32)) == (50 + 11 + 23) * (4 * 3 * 6 * 5 + 8)


def test_what_a_run_takes_grows_with_weights_maps_and_batches(tiny_config: Config) -> None:
    images = data.load(tiny_config.data)
    network = models.describe(tiny_config.model, images.num_classes, images.input_shape)

    def taken(**changes: int) -> int:
        counts = {"batch_size": 64, "scored_at_once": 100, "sample": 10} | changes
        return bytes_of_a_run(network, images, **counts)

    values = 4 * (network.num_values + 3 * 8 * 8)
    assert taken(batch_size=65) - taken() == 2 * values, "maps of an image and their gradients"
    assert taken(scored_at_once=128) == taken(), "no gradients"
    assert taken(scored_at_once=130) - taken() == 2 * values
    assert taken(sample=11) - taken() == 3 * 8 * 8
    assert taken(sample=10**6) == taken(sample=len(images.train))
    assert taken() > 7 * 4 * network.num_params + GIB


@pytest.fixture
def crowded(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A device with a GiB to spare, which what libraries take of it would fill."""
    monkeypatch.setattr(devices, "free_memory", lambda device: GIB)
    return replace(tiny_config, replicates=2)


SAID = "do not fit on the GPU beside a run of 1.07 GB: they stay in host memory, and seeds train one by one"


def test_a_study_on_a_device_without_room_gives_the_same_runs_and_says_so_once(
    crowded: Config, tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("cnn_ablation.common.progress._warned", set())
    found = runs.run(replace(crowded, store=str(tmp_path / "crowded")), tmp_path / "a")
    said = capsys.readouterr().err
    assert " ".join(said.split()).count(SAID) == 1, said
    monkeypatch.undo()
    expected = runs.run(tiny_config, tmp_path / "b")
    for one, other in zip(found, expected, strict=True):
        assert (one.test_loss, one.val_loss, one.train_loss) == (other.test_loss, other.val_loss, other.train_loss)
        assert (one.initial_gradient_norm, one.dead_units) == (other.initial_gradient_norm, other.dead_units)
        assert one.fingerprint == other.fingerprint, "where images lie is no part of what a run is"
        assert (one.images_in_host_memory, other.images_in_host_memory) == (True, False)


def test_seeds_that_would_train_together_train_one_by_one_there(
    crowded: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "trains_together", lambda config, device: True)
    found = runs.run(crowded, tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert "the images of baseline stay in host memory; training one seed after the other" in said
    assert [(run.status, run.error, run.concurrent_runs) for run in found] == [("ok", "", 1)] * 2
    assert all(run.images_in_host_memory for run in found)


def test_images_that_are_on_the_device_already_count_as_room(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device of 3 GiB, of which the images take what they take: the second run has less free, and as much room."""
    images = data.load(tiny_config.data)
    taken = bytes_of_images(images)
    monkeypatch.setattr(
        devices, "free_memory",
        lambda device: 3 * GIB - (taken if residents.kept(images, CPU, torch.channels_last) else 0),
    )  # fmt: skip
    residents.forget()
    found = runs.run(tiny_config, tmp_path)
    assert [run.images_in_host_memory for run in found] == [False, False]
    assert residents.kept(images, CPU, torch.channels_last) is not None


def test_the_memory_of_a_computer_is_not_asked_for() -> None:
    assert devices.free_memory(CPU) is None
