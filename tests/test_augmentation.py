"""What training images go through, against torchvision's and NumPy's formulas, and what draws where it draws from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cnn_ablation.common.streams import stream_seed
from cnn_ablation.tasks.image_classification import data, engine
from cnn_ablation.tasks.image_classification.checkpoints import Checkpoints
from cnn_ablation.tasks.image_classification.config import Config, TrainConfig
from cnn_ablation.tasks.image_classification.data import augmentation
from cnn_ablation.tasks.image_classification.data.augmentation import Draws, epoch_draws
from cnn_ablation.tasks.image_classification.data.mixup import MixedLabels, mixed
from cnn_ablation.tasks.image_classification.data.resident import resident
from cnn_ablation.tasks.image_classification.losses import LOSSES, loss_in_training
from cnn_ablation.tasks.image_classification.scoring import evaluate
from cnn_ablation.tasks.image_classification.training import TrainingResult, train

CPU = torch.device("cpu")
KNOBS: dict[str, Any] = {
    "max_translation": 2,
    "horizontal_flip": True,
    "color_jitter": 0.4,
    "cutout": 3,
    "mixup": 0.5,
}
ONE_BY_ONE = [{name: value} for name, value in KNOBS.items()]


def drawn(num_images: int = 2000, size: tuple[int, int] = (8, 8), **settings: Any) -> Draws:
    found = next(epoch_draws(TrainConfig(**settings), num_images, size, seed=0))
    assert found is not None
    return found


def colours(images: int = 6, channels: int = 3) -> Tensor:
    return torch.rand(images, channels, 5, 4, generator=torch.Generator().manual_seed(1)).mul_(255)


# -- what is done to images --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [1, 3])
def test_translations_are_the_random_crops_of_a_padded_image(padding: int) -> None:
    """Every place of torchvision's crop is one shift, and every shift one place."""
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    image = torch.randint(1, 256, (3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    padded = functional.pad(image, [padding] * 4)
    shifts = [(down, right) for down in range(-padding, padding + 1) for right in range(-padding, padding + 1)]
    crops = [functional.crop(padded, padding - down, padding - right, 6, 5) for down, right in shifts]
    moves = torch.tensor([[down, right, 0] for down, right in shifts])
    assert torch.equal(augmentation.moved(image.expand(len(shifts), -1, -1, -1), moves), torch.stack(crops))
    assert set(drawn(max_translation=padding).moves[:, :2].unique().tolist()) == set(range(-padding, padding + 1))


@pytest.mark.parametrize("channels", [3, 1])
def test_colours_change_as_torchvision_changes_them(channels: int) -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    pixels = colours(channels=channels).double()
    factors = torch.tensor([[1, 1, 1], [1.3, 1, 1], [1, 0.4, 1], [1, 1, 1.7], [0.6, 1.4, 0.2], [0, 2, 2]]).double()
    expected = []
    for image, (brightness, contrast, saturation) in zip(pixels / 255, factors.tolist(), strict=True):
        lighter = functional.adjust_brightness(image, brightness)
        expected.append(functional.adjust_saturation(functional.adjust_contrast(lighter, contrast), saturation) * 255)
    found = augmentation.jittered(pixels.clone(), factors)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(found[0], pixels[0], rtol=1e-12, atol=1e-9)
    assert not torch.equal(found[1], pixels[1])


def test_a_square_is_cut_out_around_its_centre() -> None:
    """By the loop of the paper: the side's half before the centre, and the rest from it; outside counts for nothing."""
    height, width, side = 7, 9, 4
    inputs = torch.randn(1000, 2, height, width, generator=torch.Generator().manual_seed(2)) + 5
    squares = drawn(1000, (height, width), cutout=side).squares
    found = augmentation.cut_out(inputs.clone(), squares)
    centres = set()
    for before, after, square in zip(inputs.numpy(), found.numpy(), squares.numpy(), strict=True):
        rows, columns = np.flatnonzero(square[:height]), np.flatnonzero(square[height:])
        row = rows[0] + side // 2 if rows[0] else rows[-1] - (side - side // 2) + 1
        column = columns[0] + side // 2 if columns[0] else columns[-1] - (side - side // 2) + 1
        expected = before.copy()
        for i in range(height):
            for j in range(width):
                if row - side // 2 <= i < row + side // 2 and column - side // 2 <= j < column + side // 2:
                    expected[:, i, j] = 0
        np.testing.assert_array_equal(after, expected)
        centres.add((row, column))
    assert centres == {(row, column) for row in range(height) for column in range(width)}


@pytest.mark.parametrize("side", [1, 2, 5])
def test_a_square_inside_the_image_has_the_side_that_was_asked_for(side: int) -> None:
    squares = drawn(500, (16, 12), cutout=side).squares
    sides = torch.stack([squares[:, :16].sum(dim=1), squares[:, 16:].sum(dim=1)], dim=1)
    assert int(sides.max()) == side
    assert float((sides == side).all(dim=1).float().mean()) > 0.4


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("knobs", [*ONE_BY_ONE, KNOBS], ids="+".join)
def test_augmented_images_keep_their_memory_format(
    tiny_config: Config, knobs: dict[str, Any], memory_format: torch.memory_format
) -> None:
    part = resident(data.load(tiny_config.data), CPU, memory_format).train
    ((inputs, labels),) = part.training_batches(torch.arange(16), 16, drawn(16, batch_size=16, **knobs))
    assert inputs.is_contiguous(memory_format=memory_format)
    assert (inputs.dtype, len(labels)) == (torch.float32, 16)
    assert not torch.equal(inputs, part.batch(torch.arange(16))[0])


def test_all_at_once_are_one_after_the_other(tiny_config: Config) -> None:
    """Moves and colours of pixels, then normalised, cut out, mixed."""
    part = resident(data.load(tiny_config.data), CPU).train
    draws, order = drawn(16, batch_size=16, **KNOBS), torch.arange(30, 46)
    ((inputs, labels),) = part.training_batches(order, 16, draws)
    pixels = augmentation.jittered(augmentation.moved(part.pixels[order], draws.moves).float(), draws.jitter)
    single = augmentation.cut_out(pixels * part.factor + part.shift, draws.squares)
    share = draws.shares.view(-1, 1, 1, 1)
    torch.testing.assert_close(inputs, share * single + (1 - share) * single[draws.partners])
    assert isinstance(labels, MixedLabels)
    assert torch.equal(labels.labels, part.labels[order])
    assert torch.equal(labels.others, part.labels[order][draws.partners])


# -- what is drawn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strength", "least", "most"), [(0.4, 0.6, 1.4), (1.5, 0.0, 2.5)])
def test_factors_of_colours_are_drawn_evenly(strength: float, least: float, most: float) -> None:
    factors = drawn(4000, color_jitter=strength).jitter
    assert least <= float(factors.min()) < least + 0.01
    assert most - 0.01 < float(factors.max()) <= most
    assert factors.mean(dim=0).tolist() == pytest.approx([(least + most) / 2] * 3, abs=0.03)
    assert float(factors.std()) == pytest.approx((most - least) / np.sqrt(12), rel=0.03)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    """Mean 1/2, variance 1 / (4 (2 alpha + 1)), one for each batch."""
    shares = drawn(8000, mixup=alpha, batch_size=2).shares.view(-1, 2)
    assert torch.equal(shares[:, 0], shares[:, 1])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(shares[:, 0].var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_partners_are_a_random_order_of_their_batch() -> None:
    partners = drawn(70, mixup=1.0, batch_size=16).partners
    for start, size in [(0, 16), (16, 16), (32, 16), (48, 16), (64, 6)]:
        batch = partners[start : start + size].tolist()
        assert sorted(batch) == list(range(size))
        assert batch != list(range(size))


@pytest.mark.parametrize("name", KNOBS)
def test_what_a_knob_draws_depends_on_no_other(name: str) -> None:
    """Each alone, and with all others, in the first two epochs."""

    def epochs(**settings: Any) -> list[Draws]:
        draws = epoch_draws(TrainConfig(batch_size=16, **settings), 40, (8, 8), seed=3)
        return [next(draws), next(draws)]

    column = {"max_translation": slice(0, 2), "horizontal_flip": slice(2, 3)}.get(name, slice(None))
    fields = {"color_jitter": ["jitter"], "cutout": ["squares"], "mixup": ["partners", "shares"]}.get(name, ["moves"])
    alone, among = epochs(**{name: KNOBS[name]}), epochs(**KNOBS)
    for field in fields:
        first, second = ([getattr(draws, field) for draws in both] for both in (alone, among))
        for one, other in zip(first, second, strict=True):
            assert torch.equal(
                one[..., column] if one.dim() > 1 else one, other[..., column] if one.dim() > 1 else other
            )
        assert not torch.equal(first[0], first[1]), "each epoch draws anew"


def test_every_draw_has_a_stream_of_its_own() -> None:
    """By name, so that the same seed draws the same in every version."""

    def stream(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed(0, f"augmentation/{name}"))

    draws = drawn(20, batch_size=16, **KNOBS)
    torch.testing.assert_close(draws.jitter, 0.6 + 0.8 * torch.rand(20, 3, generator=stream("color_jitter")))
    centres = torch.randint(8, (20, 1), generator=stream("cutout"))
    covered = (torch.arange(8) >= centres - 1) & (torch.arange(8) <= centres + 1)
    assert torch.equal(draws.squares[:, :8], covered)
    orders = stream("mixup_partners")
    partners = torch.cat([torch.randperm(16, generator=orders), torch.randperm(4, generator=orders)])
    assert torch.equal(draws.partners, partners)
    shares = np.random.default_rng(stream_seed(0, "augmentation/mixup")).beta(0.5, 0.5, 2)
    assert draws.shares[[0, 16]].tolist() == pytest.approx(shares.tolist())


def test_draws_are_cut_and_moved_whole() -> None:
    draws = drawn(40, batch_size=16, **KNOBS)
    part = draws[16:40].to(torch.device("meta"))
    for name in ("moves", "jitter", "squares", "partners", "shares"):
        assert getattr(part, name).is_meta
        assert torch.equal(getattr(draws[16:], name), getattr(draws, name)[16:])
    assert Draws()[3:].to(CPU) == Draws()


# -- the loss of mixtures ----------------------------------------------------------------------------------------------


def batch_of_mixtures() -> tuple[Tensor, MixedLabels]:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 4, dtype=torch.float64, generator=generator).requires_grad_()
    labels, others = (torch.randint(4, (6,), generator=generator) for _ in range(2))
    return outputs, MixedLabels(labels, others, torch.rand(6, dtype=torch.float64, generator=generator))


def test_cross_entropy_of_a_mixture_is_that_with_mixed_targets() -> None:
    """As the paper writes it: the loss of one-hot labels mixed as the images are; torch takes such targets."""
    outputs, labels = batch_of_mixtures()
    share = labels.shares[:, None]
    targets = share * F.one_hot(labels.labels, 4) + (1 - share) * F.one_hot(labels.others, 4)
    expected, found = F.cross_entropy(outputs, targets), loss_in_training(LOSSES["cross_entropy"])(outputs, labels)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    wanted, gradient = (torch.autograd.grad(loss, outputs)[0] for loss in (expected, found))
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_mixture_is_the_mixture_of_losses(name: str) -> None:
    outputs, labels = batch_of_mixtures()
    expected = np.mean([
        share * LOSSES[name](outputs[i : i + 1], labels.labels[i : i + 1]).item()
        + (1 - share) * LOSSES[name](outputs[i : i + 1], labels.others[i : i + 1]).item()
        for i, share in enumerate(labels.shares.tolist())
    ])  # fmt: skip
    assert loss_in_training(LOSSES[name])(outputs, labels).item() == pytest.approx(expected, rel=1e-12)
    plain = loss_in_training(LOSSES[name])(outputs, labels.labels)
    assert torch.equal(plain, LOSSES[name](outputs, labels.labels))


def test_an_image_mixed_with_itself_stays_what_it_is() -> None:
    inputs = colours()
    torch.testing.assert_close(mixed(inputs.clone(), inputs.clone(), torch.linspace(0, 1, 6)), inputs)


# -- in training -------------------------------------------------------------------------------------------------------


def trained(config: Config, **settings: Any) -> TrainingResult:
    config = replace(config, train=replace(config.train, **settings))
    return train(config, data.load(config.data), seed=0, device=CPU)


@pytest.mark.parametrize("knobs", ONE_BY_ONE, ids="+".join)
def test_scores_are_those_of_images_as_they_are(tiny_config: Config, knobs: dict[str, Any]) -> None:
    exact = replace(tiny_config, precision="float32")
    result, plain = trained(exact, **knobs), trained(exact)
    part = resident(data.load(tiny_config.data), CPU).train
    expected = evaluate(result.network, [part.batch(torch.arange(len(part)))])
    assert result.train.loss == pytest.approx(expected.loss, rel=1e-5)
    assert result.curves[0].train_loss != plain.curves[0].train_loss


@pytest.mark.parametrize("knobs", ONE_BY_ONE, ids="+".join)
def test_initial_weights_and_order_stay(tiny_config: Config, knobs: dict[str, Any]) -> None:
    """A network that does not learn scores the same, whatever its training images went through."""
    idle = replace(tiny_config, optimizer=replace(tiny_config.optimizer, lr=1e-30))
    changed, plain = trained(idle, **knobs), trained(idle)
    assert (changed.test, changed.val, changed.train) == (plain.test, plain.val, plain.train)


def test_the_fast_engine_sees_the_same_images(tiny_config: Config) -> None:
    config = replace(tiny_config, precision="float32", train=replace(tiny_config.train, **KNOBS))
    images = data.load(config.data)
    fast, slow = (
        engine.train(replace(config, engine=name), images, seed=0, device=CPU) for name in ("fast", "reference")
    )
    assert fast.curves[0].train_loss == pytest.approx(slow.curves[0].train_loss, rel=1e-5)
    assert fast.test.loss == pytest.approx(slow.test.loss, rel=1e-4)


class InterruptionError(Exception):
    """Stands for the end of the process."""


class Interrupting(Checkpoints):
    """Saves after every batch and ends after the fifth: in the middle of the second epoch."""

    def save(self, state: dict[str, object]) -> None:
        super().save(state)
        if (len(state["curves"]), state["sums"]["num_batches"]) == (1, 2):
            raise InterruptionError


@pytest.mark.parametrize("knobs", [*ONE_BY_ONE, KNOBS], ids="+".join)
def test_an_interrupted_run_goes_on_with_what_was_drawn(
    tiny_config: Config, tmp_path: Path, knobs: dict[str, Any]
) -> None:
    config = replace(tiny_config, train=replace(tiny_config.train, epochs=3, **knobs))
    images, path = data.load(config.data), tmp_path / "checkpoint.pt"
    whole = train(config, images, seed=0, device=CPU)
    with pytest.raises(InterruptionError):
        train(config, images, seed=0, device=CPU, checkpoints=Interrupting(path, every_seconds=1e-9))
    resumed = train(config, images, seed=0, device=CPU, checkpoints=Checkpoints(path))
    assert [epoch.train_loss for epoch in resumed.curves] == [epoch.train_loss for epoch in whole.curves]
    assert resumed.test == whole.test


@pytest.mark.parametrize(
    ("knobs", "together"),
    [({}, True), *((knobs, False) for knobs in ONE_BY_ONE), ({"mixup": 0.5, "batch_size": 1}, True)],
    ids=str,
)
def test_seeds_with_images_of_their_own_are_not_trained_together(
    tiny_config: Config, knobs: dict[str, Any], together: bool
) -> None:
    config = replace(tiny_config, train=TrainConfig(**knobs))
    assert engine.trains_together(config, torch.device("cuda")) == together
