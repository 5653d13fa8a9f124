"""What docs/papers_data.py and docs/papers_nets.py give: CIFAR-10 and a network as published programs have them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.config import ArraysConfig

SIZE, COUNT = 4, 3
DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def papers_data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.delitem(sys.modules, "papers_data", raising=False)
    import papers_data

    return papers_data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of each of two classes in both parts, every value once in 0..255."""
    draw = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(COUNT):
                pixels = draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def pictures(folder: Path, part: str) -> npt.NDArray[np.uint8]:
    """(N, height, width, channels), by class and name."""
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / part).rglob("*.png"))])


def test_test_images_are_half_a_unit_brighter(papers_data: ModuleType, folder: Path, tmp_path: Path) -> None:
    """The network's input: training images in [-0.5, 0.5], test images in [0, 1], as the program scales them."""
    given = papers_data.eq2425(str(folder), folder=True)
    assert given["class_names"] == ("cat", "dog")
    config = ArraysConfig(
        target="papers_data.eq2425",
        kwargs={"root": str(folder), "folder": True},
        scale="half",
        val_fraction=0.5,
    )
    images = data.load(config)
    factor, shift = (each[:, None, None] for each in images.normalisation)
    seen = {part: getattr(images, part).images * factor + shift for part in ("train", "val", "test")}
    expected = pictures(folder, "test").transpose(0, 3, 1, 2) / 255
    assert seen["test"] == pytest.approx(expected, abs=1e-6)
    for part in ("train", "val"):
        assert -0.5 <= seen[part].min() < -0.4
        assert 0.4 < seen[part].max() <= 0.5


def test_values_of_one_colour_become_the_channels_of_a_pixel(papers_data: ModuleType, folder: Path) -> None:
    """Value f of a file is colour f // 16, row f % 16 // 4, column f % 4; read as row f // 12, column f % 12 // 3."""
    given = papers_data.svalheim(str(folder), folder=True)
    for part in ("train", "test"):
        images, labels = given[part]
        assert labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert images.dtype == np.uint8
        right = pictures(folder, part)
        for f in range(3 * SIZE * SIZE):
            found = images[:, f // 12, f % 12 // 3, f % 3]
            assert np.array_equal(found, right[:, f % 16 // 4, f % 4, f // 16])


def test_the_network_of_the_program_is_that_of_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters by layer as the program printed them; 967,306 in all."""
    monkeypatch.syspath_prepend(str(DOCS))
    import papers_nets

    network = papers_nets.eq2425(10)
    counts = [sum(each.numel() for each in layer.parameters()) for layer in network]
    printed = [4864, 0, 128, 0, 73856, 0, 256, 0, 295168, 0, 0, 524800, 0, 0, 1024, 65664, 0, 256, 1290, 0]
    assert counts == printed
    assert sum(counts) == 967306
    outputs = network.eval()(torch.rand(2, 3, 32, 32))
    assert outputs.sum(dim=1).tolist() == pytest.approx([1, 1])
    assert outputs.shape == (2, 10)


def test_the_commands_of_the_page_name_what_is_there(papers_data: ModuleType) -> None:
    page = (DOCS / "papers.md").read_text(encoding="utf-8")
    for name in ("eq2425", "svalheim"):
        assert f"data.target=papers_data.{name}" in page
        assert callable(getattr(papers_data, name))
