"""What a test set of a given size can tell, in formulas and in plans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Answer
from PIL import Image

import cnn_ablation
from cnn_ablation.config import StatsConfig
from cnn_ablation.runs.task import HeldOut
from cnn_ablation.study.resolution import chance_of_test_set, examples_needed, resolution_lines
from cnn_ablation.tasks.function import task as function_task
from cnn_ablation.tasks.function.config import FunctionConfig
from cnn_ablation.tasks.image_classification import data, task
from cnn_ablation.tasks.image_classification.config import ArraysConfig, Config, ImageFolderConfig, TorchvisionConfig


@pytest.mark.parametrize(("num_examples", "disagreement"), [(540, 0.05), (2000, 0.2), (10_000, 0.05)])
def test_the_range_is_that_of_drawn_test_sets(num_examples: int, disagreement: float) -> None:
    """Of two networks that are equally good, over many test sets."""
    generator = np.random.default_rng(0)
    sides = [disagreement / 2, disagreement / 2, 1 - disagreement]
    counts = generator.multinomial(num_examples, sides, size=20_000)
    differences = (counts[:, 0] - counts[:, 1]) / num_examples
    half = chance_of_test_set(num_examples, disagreement)
    assert half == pytest.approx(1.96 * differences.std(), rel=0.02)
    assert np.mean(np.abs(differences) <= half) == pytest.approx(0.95, abs=0.02)  # counts are discrete


@pytest.mark.parametrize("margin", [0.001, 0.005, 0.02])
def test_so_many_examples_tell_a_margin(margin: float) -> None:
    needed = examples_needed(margin)
    assert chance_of_test_set(needed) <= margin < chance_of_test_set(needed - 1)


ONE = "540 test images: one image is 0.19 points; where two networks disagree on 5 % of them,"
TWO = "  other test images would move their difference by about 1.9 points either way (95 %)"
FINER = (
    "  stats.margin_pp=0.5 is finer than that: what is equivalent on these images may",
    "  differ on others; about 7,700 would tell",
)


@pytest.mark.parametrize(
    ("held_out", "settings", "expected"),
    [
        (HeldOut(540), StatsConfig(), [ONE, TWO, *FINER]),
        (HeldOut(540), StatsConfig(margin_pp=2), [ONE, TWO]),
        (
            HeldOut(10_000),
            StatsConfig(),
            [ONE.replace("540", "10,000").replace("0.19", "0.01"), TWO.replace("1.9", "0.44")],
        ),
        (
            HeldOut(540, differ_by_seed=True),
            StatsConfig(),
            ["540 test images, drawn anew for each seed: one image is 0.19 points"],
        ),
        (HeldOut(540), StatsConfig(metric="val_accuracy"), []),
        (HeldOut(540), StatsConfig(metric="test_loss"), []),
        (None, StatsConfig(), []),
    ],
    ids=["finer", "coarse", "large", "redrawn", "validation", "loss", "unknown"],
)
def test_lines(held_out: HeldOut | None, settings: StatsConfig, expected: list[str]) -> None:
    assert resolution_lines(held_out, settings) == expected


def test_a_plan_tells_it_once_and_before_training(cli: Callable[..., Answer]) -> None:
    told = "40 test images: one image is 2.5 points; where two networks disagree on 5 % of them,"
    study = cli(*TINY, "-m", "train.batch_size=16,32", "dry_run=true").out.splitlines()
    assert study.count(told) == 1
    assert study.index(told) < study.index("changes besides the knob:")
    assert told not in cli(*TINY, "dry_run=true").out.splitlines()  # nothing is compared
    redrawn = cli("vary=[init,split]", "-m", "train.batch_size=64,32", "dry_run=true").out
    assert "540 test images, drawn anew for each seed: one image is 0.19 points" in redrawn


def sizes(*overrides: str) -> HeldOut | None:
    config = cnn_ablation.compose([*overrides])
    assert isinstance(config, Config)
    return task.held_out(config)


def test_only_digits_have_no_test_set_of_their_own() -> None:
    assert sizes("vary=[split]") == HeldOut(540, differ_by_seed=True)
    assert sizes("vary=[init]") == HeldOut(540)
    assert sizes(*TINY, "vary=[split]") == HeldOut(40)
    assert sizes("vary=[split]", "data=svhn") == HeldOut(26_032)


@pytest.mark.parametrize(
    ("name", "expected"), [("cifar10", 10_000), ("mnist", 10_000), ("fashion_mnist", 10_000), ("svhn", 26_032)]
)
def test_published_sizes(name: str, expected: int) -> None:
    assert data.describe(TorchvisionConfig(name=name)).test_images == expected


def test_sizes_of_ones_own_pictures(tmp_path: Path) -> None:
    for part, count in (("train", 6), ("test", 3)):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (8, 8)).save(tmp_path / part / name / f"{index}.png")
    assert data.describe(ImageFolderConfig(root=str(tmp_path))).test_images == 6
    config = ArraysConfig(target="own_data.load")
    assert data.describe(config).test_images == len(data.load(config).test)


def test_what_a_function_tests_on_is_not_known() -> None:
    assert function_task.held_out(FunctionConfig()) is None
