"""Training protocols of the papers: losses, updates, early stopping, augmentation, validation parts of a given size."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnn_ablation.common.errors import ConfigError
from cnn_ablation.runs.run import run
from cnn_ablation.study import checks
from cnn_ablation.tasks.image_classification import data, engine
from cnn_ablation.tasks.image_classification.checkpoints import Checkpoints
from cnn_ablation.tasks.image_classification.config import Config, ModelConfig, TrainConfig
from cnn_ablation.tasks.image_classification.data.augmentation import epoch_draws, moved
from cnn_ablation.tasks.image_classification.lengths import num_updates
from cnn_ablation.tasks.image_classification.losses import LOSSES
from cnn_ablation.tasks.image_classification.task import cost
from cnn_ablation.tasks.image_classification.training import Epoch, TrainingResult, has_stalled, train

CPU = torch.device("cpu")


def trained(config: Config, **train_settings: Any) -> TrainingResult:
    config = replace(config, train=replace(config.train, **train_settings))
    return train(config, data.load(config.data), seed=0, device=CPU)


@pytest.mark.parametrize("updates", [1, 2, 3, 4, 7])
def test_training_ends_after_a_number_of_updates(tiny_config: Config, updates: int) -> None:
    """48 images in batches of 16: three updates an epoch, and the last epoch may be cut short."""
    result = trained(tiny_config, updates=updates)
    assert (
        result.updates
        == updates
        == cost(replace(tiny_config, train=TrainConfig(updates=updates, batch_size=16))).updates
    )
    assert result.images_seen == 16 * updates
    assert len(result.curves) == math.ceil(updates / 3)


def test_updates_that_end_with_an_epoch_are_that_many_epochs(tiny_config: Config) -> None:
    by_updates, by_epochs = trained(tiny_config, updates=6), trained(tiny_config, epochs=2)
    assert by_updates.test == by_epochs.test
    for name, values in by_epochs.network.state_dict().items():
        assert torch.equal(values, by_updates.network.state_dict()[name])


@pytest.mark.parametrize(
    ("settings", "updates"),
    [({"epochs": 50, "scale": 0.1}, 15), ({"epochs": 2, "scale": 0.01}, 3), ({"updates": 40, "scale": 0.1}, 4)],
)
def test_scale_shortens_a_protocol(settings: dict[str, Any], updates: int) -> None:
    assert num_updates(TrainConfig(batch_size=16, **settings), 48) == updates


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_and_is_what_the_scores_report(tiny_config: Config, loss: str) -> None:
    config = replace(tiny_config, data=replace(tiny_config.data, difficulty=0.0, train_images=200))
    result = trained(config, epochs=8, loss=loss)
    losses = [epoch.val_loss for epoch in result.curves]
    assert losses[-1] < losses[0]
    images = data.load(config.data).test
    factor, shift = data.load(config.data).normalisation
    pixels = torch.from_numpy(images.images).float() * torch.from_numpy(factor).view(1, -1, 1, 1)
    with torch.no_grad():
        outputs = result.network.eval()(pixels + torch.from_numpy(shift).view(1, -1, 1, 1))
    expected = LOSSES[loss](outputs, torch.from_numpy(images.labels)).item()
    assert result.test.loss == pytest.approx(expected, rel=1e-4)


def curves(*values: float) -> list[Epoch]:
    return [Epoch(index + 1, value, value, 1 - value, 0.0) for index, value in enumerate(values)]


@pytest.mark.parametrize("quantity", ["train_loss", "val_loss", "val_accuracy"])
def test_early_stopping_waits_for_patience_epochs_without_a_better_one(quantity: str) -> None:
    settings = TrainConfig(stop_on=quantity, patience=2)
    assert not has_stalled(curves(0.9, 0.8, 0.85), settings)
    assert has_stalled(curves(0.9, 0.8, 0.85, 0.8), settings)
    assert not has_stalled(curves(0.9, 0.8, 0.85, 0.79), settings)
    assert not has_stalled(curves(*[0.9] * 9), replace(settings, stop_on=None))


def test_a_run_that_stops_early_has_the_epochs_it_trained(tiny_config: Config) -> None:
    stuck = replace(tiny_config, optimizer=replace(tiny_config.optimizer, lr=1e-12))
    result = trained(stuck, epochs=30, stop_on="val_accuracy", patience=3)
    assert len(result.curves) == 4
    assert result.updates == 12


def test_seeds_trained_together_stop_each_for_itself(tiny_config: Config) -> None:
    config = replace(tiny_config, train=replace(tiny_config.train, epochs=12, stop_on="val_accuracy", patience=2))
    images = data.load(config.data)
    together = engine.train_together(config, images, seeds=[0, 1, 2], device=CPU)
    alone = [train(config, images, seed=seed, device=CPU) for seed in (0, 1, 2)]
    assert [len(result.curves) for result in together] == [len(result.curves) for result in alone]
    assert len({len(result.curves) for result in alone}) > 1


def test_seeds_trained_together_end_in_the_middle_of_an_epoch(tiny_config: Config) -> None:
    config = replace(tiny_config, train=replace(tiny_config.train, updates=5))
    images = data.load(config.data)
    together = engine.train_together(config, images, seeds=[0, 1], device=CPU)
    for seed, result in enumerate(together):
        alone = train(config, images, seed=seed, device=CPU)
        assert (result.updates, result.images_seen) == (alone.updates, alone.images_seen) == (5, 80)
        assert result.curves[-1].train_loss == pytest.approx(alone.curves[-1].train_loss, rel=1e-4)


def test_images_are_moved_as_drawn() -> None:
    pixels = torch.arange(24, dtype=torch.uint8).view(1, 2, 3, 4).repeat(4, 1, 1, 1) + 1
    moves = torch.tensor([[0, 0, 0], [1, 0, 0], [0, -2, 0], [0, 0, 1]])
    same, down, left, mirrored = moved(pixels, moves).numpy()
    image = pixels[0].numpy()
    assert (same == image).all()
    assert (down[:, 0] == 0).all()
    assert (down[:, 1:] == image[:, :-1]).all()
    assert (left[:, :, -2:] == 0).all()
    assert (left[:, :, :-2] == image[:, :, 2:]).all()
    assert (mirrored == image[:, :, ::-1]).all()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_moved_images_keep_their_memory_format(memory_format: torch.memory_format) -> None:
    pixels = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8).contiguous(memory_format=memory_format)
    assert moved(pixels, torch.ones(5, 3, dtype=torch.int64)).is_contiguous(memory_format=memory_format)


def test_moves_come_from_streams_of_their_own() -> None:
    def moves(**settings: Any) -> torch.Tensor:
        drawn = next(epoch_draws(TrainConfig(**settings), 500, (8, 8), seed=0))
        assert drawn is not None
        assert drawn.moves is not None
        return drawn.moves

    both = moves(max_translation=4, horizontal_flip=True)
    assert set(both[:, :2].unique().tolist()) == set(range(-4, 5))
    assert 200 < int(both[:, 2].sum()) < 300
    assert torch.equal(moves(horizontal_flip=True)[:, 2], both[:, 2])
    assert torch.equal(moves(max_translation=4)[:, :2], both[:, :2])
    assert next(epoch_draws(TrainConfig(), 500, (8, 8), seed=0)) is None


def test_augmentation_changes_what_is_trained_on_and_nothing_else(tiny_config: Config) -> None:
    """Same initial weights and order: the first validation scores differ only by what the images did."""
    plain, augmented = trained(tiny_config, epochs=1), trained(tiny_config, epochs=1, max_translation=2)
    assert plain.curves[0].train_loss != augmented.curves[0].train_loss
    unmoved = trained(tiny_config, epochs=1, horizontal_flip=False, max_translation=0)
    assert unmoved.curves[0].train_loss == plain.curves[0].train_loss


def test_an_interrupted_augmented_run_goes_on_with_the_same_moves(tiny_config: Config, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise StoppedError

    config = replace(
        tiny_config, train=replace(tiny_config.train, epochs=4, max_translation=2, horizontal_flip=True, updates=11)
    )
    images = data.load(config.data)
    whole = train(config, images, seed=0, device=CPU)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(StoppedError):
        train(config, images, seed=0, device=CPU, checkpoints=Checkpoints(path, every_seconds=0.0), on_epoch=stop)
    resumed = train(config, images, seed=0, device=CPU, checkpoints=Checkpoints(path, every_seconds=60))
    assert resumed.test == whole.test
    for name, values in whole.network.state_dict().items():
        assert torch.equal(values, resumed.network.state_dict()[name])


def test_a_validation_part_of_a_given_size(tiny_config: Config) -> None:
    config = replace(tiny_config.data, val_images=25)
    images = data.load(config)
    assert (len(images.val), len(images.train)) == (25, 35) == (25, data.describe(config).train_images(config))
    assert set(np.unique(images.val.labels)) == set(np.unique(images.train.labels))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data.val_images": 60}, "data.val_images=60"),
        ({"train.max_translation": 8}, "train.max_translation=8\n  allowed: fewer pixels than the 8 of an image"),
        (
            {"train.cutout": 8},
            "train.cutout=8\n  allowed: fewer pixels than the 8 of an image\n  remedy: a smaller square; 8 to",
        ),
        ({"train.cutout": -1}, "train.cutout=-1\n  allowed: at least 0"),
        ({"train.color_jitter": -0.4}, "train.color_jitter=-0.4\n  allowed: at least 0"),
        ({"train.mixup": math.inf}, "train.mixup=inf\n  allowed: a finite number, at least 0"),
        ({"train.stop_on": "test_loss"}, "train_loss, val_loss, val_accuracy"),
        ({"train.scale": 0.0}, "above 0"),
        ({"train.loss": "mse"}, "mean_squared_error"),
    ],
)
def test_bad_protocols_are_refused(tiny_config: Config, change: dict[str, Any], words: str) -> None:
    config = tiny_config
    for key, value in change.items():
        group, name = key.split(".")
        config = replace(config, **{group: replace(getattr(config, group), **{name: value})})
    with pytest.raises(ConfigError, match=words):
        checks.check(config)


def test_a_run_records_figures_per_class_of_validation_and_test(tiny_config: Config, tmp_path: Path) -> None:
    (record,) = run(replace(tiny_config, replicates=1), tmp_path)
    images = data.load(tiny_config.data)
    assert record.class_names == list(images.class_names)
    for part, labels in (("val", images.val.labels), ("test", images.test.labels)):
        rows = {row["class"]: row for row in record.per_class[part]}
        assert set(rows) == {*images.class_names, "weighted"}
        assert rows["weighted"]["support"] == len(labels) == np.sum(record.confusion[part])
        assert rows["weighted"]["true_positives"] == np.trace(record.confusion[part])
        assert rows["weighted"]["recall"] == pytest.approx(getattr(record, f"{part}_accuracy"))


@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-6), ("bfloat16", 2**-9)])
def test_a_softmax_output_is_taken_as_probabilities(tiny_config: Config, precision: str, rounding: float) -> None:
    softmax = ModelConfig(filters=[4], kernel_sizes=[3], hidden=[8], output="softmax")
    config = replace(tiny_config, model=softmax, precision=precision)
    result = train(config, data.load(config.data), seed=0, device=CPU)
    assert result.test.probabilities is not None
    torch.testing.assert_close(result.test.probabilities.sum(dim=1), torch.ones(40), rtol=0, atol=rounding)
    assert float(result.test.probabilities.max()) > 0.12  # a second softmax would leave nearly equal ones


def test_only_cross_entropy_can_stay_at_the_loss_of_guessing(tiny_config: Config, tmp_path: Path) -> None:
    config = replace(tiny_config, replicates=1, train=replace(tiny_config.train, loss="mean_squared_error"))
    (record,) = run(config, tmp_path)
    assert math.isnan(record.lowest_train_loss)
    assert not record.double_softmax


def test_a_network_that_learnt_in_its_only_epoch_is_not_called_stuck(tiny_config: Config, tmp_path: Path) -> None:
    """The mean loss of a first epoch may lie near ln K while the network at its end does not."""
    easy = replace(tiny_config.data, difficulty=0.0, train_images=400)
    config = replace(tiny_config, data=easy, replicates=1, train=TrainConfig(epochs=1, batch_size=16))
    (record,) = run(config, tmp_path)
    assert record.lowest_train_loss == pytest.approx(record.train_loss)
    assert record.lowest_train_loss < record.curves[0]["train_loss"]
