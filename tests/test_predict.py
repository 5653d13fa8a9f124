"""A trained run and pictures of all kinds: the real network, the real files, the real command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnn_ablation import data, predict, trained
from cnn_ablation.config import Config, all_settings, from_settings
from cnn_ablation.data import pictures
from cnn_ablation.records import read_run
from cnn_ablation.runs import run

MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "LA", "I;16", "I", "F"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A job's folder with two trained seeds."""
    import cnn_ablation

    folder = tmp_path_factory.mktemp("run")
    config = cnn_ablation.compose(
        [
            "data=digits",
            "data.image_size=8",
            "model.filters=[16]",
            "model.kernel_sizes=[3]",
            "model.hidden=[32]",
            "train.epochs=4",
            "replicates=2",
            "device=cpu",
            "optimizer.lr=5e-3",
            f"store={folder / 'store'}",
        ]
    )
    run(config, folder / "0")
    return config, folder / "0"


def picture(mode: str, path: Path, size: tuple[int, int] = (30, 20)) -> Path:
    """A bright bar on a dark ground."""
    image = Image.new("L", size, 0)
    image.paste(255, (size[0] // 3, 2, 2 * size[0] // 3, size[1] - 2))
    suffix = ".tiff" if mode in ("CMYK", "F", "I") else ".png"
    deep = {"I;16": np.uint16, "I": np.int32}  # 65,535 is white
    found = Image.fromarray(np.asarray(image).astype(deep[mode]) * 257) if mode in deep else image.convert(mode)
    found.save(path.with_suffix(suffix))
    return path.with_suffix(suffix)


def test_settings_of_a_record_give_its_configuration_back(finished: tuple[Config, Path]) -> None:
    config, folder = finished
    record = read_run(folder / "run-seed0.json")
    assert all_settings(from_settings(record.settings)) == all_settings(config)


def test_weights_on_disk_are_the_trained_network(finished: tuple[Config, Path]) -> None:
    config, folder = finished
    network = trained.read(folder / "weights-seed0.pt", config)
    test = data.load(config.data).test
    predicted = network.probabilities(test.images).argmax(axis=1)
    assert np.mean(predicted == test.labels) == pytest.approx(
        read_run(folder / "run-seed0.json").test_accuracy, abs=0.01
    )
    assert network.class_names == data.load(config.data).class_names


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_every_mode_and_any_size(
    mode: str, finished: tuple[Config, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = picture(mode, tmp_path / "mine")
    assert predict.main([str(finished[1]), str(path), "--out", str(tmp_path)]) == 0
    assert f"{path}: " in capsys.readouterr().out
    with Image.open(tmp_path / "predictions.png") as drawn:
        assert np.asarray(drawn.convert("L")).std() > 5


def test_all_modes_show_the_network_the_same_bar(tmp_path: Path) -> None:
    seen = [
        predict.as_input(pictures.opened(picture(mode, tmp_path / f"p{index}")), 1, 8).astype(int)
        for index, mode in enumerate(MODES)
    ]
    for mode, pixels in zip(MODES, seen, strict=True):
        assert np.abs(pixels - seen[1]).max() <= 3, mode


def test_the_pixels_of_the_data_set_give_its_own_predictions(finished: tuple[Config, Path], tmp_path: Path) -> None:
    """A validation image saved as a picture is classified as it is inside."""
    config, folder = finished
    image = data.load(config.data).val.images[0]
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "one.png")
    network = trained.read(folder / "weights-seed0.pt", config)
    inside = network.probabilities(image[None])
    outside = network.probabilities(predict.as_input(pictures.opened(tmp_path / "one.png"), 3, 8))
    np.testing.assert_array_equal(inside, outside)


def test_without_pictures_there_are_grids_of_validation_images(
    finished: tuple[Config, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder = finished
    assert predict.main([str(folder), "--seed", "1", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.glob("*.png")} >= {"samples.png", "right.png"}
    val = len(data.load(config.data).val)
    right = round(read_run(folder / "run-seed1.json").val_accuracy * val)
    said = int(capsys.readouterr().out.split()[0])
    assert abs(said - right) <= 1  # bfloat16 may round one image over a boundary


def test_reused_runs_have_their_weights(finished: tuple[Config, Path], tmp_path: Path) -> None:
    config, folder = finished
    assert all(record.reused for record in run(config, tmp_path / "1"))
    assert (tmp_path / "1" / "weights-seed1.pt").read_bytes() == (folder / "weights-seed1.pt").read_bytes()


def test_weights_need_not_be_kept(tiny_config: Config, tmp_path: Path) -> None:
    from dataclasses import replace

    run(replace(tiny_config, keep_weights=False, replicates=1), tmp_path / "0")
    assert not list(tmp_path.rglob("weights*"))
    assert predict.main([str(tmp_path / "0")]) == 2


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda run: run / "nowhere", "give the folder of a run"),
        (lambda run: (run / "weights-seed0.pt").write_bytes(b"PK") and run, "missing, damaged or of another network"),
        (lambda run: (run / "run-seed0.json").write_text("{") and run, "damaged or unreadable"),
        (lambda run: (run / "weights-seed0.pt").unlink() or run, "keep_weights=true"),
    ],
)
def test_broken_runs_are_refused(
    break_it: Callable[[Path], Path],
    words: str,
    finished: tuple[Config, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(finished[1], tmp_path / "copy")
    path = picture("L", tmp_path / "mine")
    assert predict.main([str(break_it(tmp_path / "copy")), str(path)]) == 2
    assert words in capsys.readouterr().err


def test_broken_pictures_are_refused_before_anything_is_computed(
    finished: tuple[Config, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = picture("RGB", tmp_path / "mine")
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:60])
    for path in (cut, tmp_path / "none.png", tmp_path):
        assert predict.main([str(finished[1]), str(whole), str(path), "--out", str(tmp_path)]) == 2
        assert f"{path} cannot be read as a picture" in capsys.readouterr().err
    assert not (tmp_path / "predictions.png").exists()


def test_weights_of_another_network_are_refused(finished: tuple[Config, Path]) -> None:
    from dataclasses import replace

    from cnn_ablation.errors import RecordError

    config, folder = finished
    other = replace(config, model=replace(config.model, hidden=[9]))
    with pytest.raises(RecordError, match="of another network"):
        trained.read(folder / "weights-seed0.pt", other)


def test_a_weights_file_is_never_run_as_code(finished: tuple[Config, Path], tmp_path: Path) -> None:
    from cnn_ablation.errors import RecordError

    path = tmp_path / "weights.pt"
    torch.save({"format": 1, "network": Path("/tmp")}, path)  # an object that must not be unpickled
    with pytest.raises(RecordError):
        trained.read(path, finished[0])
