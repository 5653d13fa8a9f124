"""A trained run and pictures of all kinds: the real network, the real files, the real command."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnn_ablation import predict
from cnn_ablation import predict as predict_command
from cnn_ablation.config import all_settings, from_settings
from cnn_ablation.runs.records import read_run
from cnn_ablation.runs.run import run
from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification import weights as trained
from cnn_ablation.tasks.image_classification.config import Config, ImageFolderConfig
from cnn_ablation.tasks.image_classification.data import pictures

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


def cut(path: Path) -> None:
    """Keeps the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_settings_of_a_record_give_its_configuration_back(finished: tuple[Config, Path]) -> None:
    config, folder = finished
    record = read_run(folder / "run-seed0.json")
    assert all_settings(from_settings(Config, record.settings)) == all_settings(config)


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


@pytest.mark.parametrize(("images", "rows"), [(1, 1), (4, 1), (5, 2), (12, 3)])
def test_a_grid_has_no_empty_row(tiny_config: Config, images: int, rows: int) -> None:
    part = data.load(tiny_config.data).val
    drawn = predict._grid(
        part.take(np.arange(images)), [str(label) for label in range(int(part.labels.max()) + 1)], None
    )
    assert drawn.axes[0].get_gridspec().nrows == rows


def test_reused_runs_have_their_weights(finished: tuple[Config, Path], tmp_path: Path) -> None:
    config, folder = finished
    assert all(record.reused for record in run(config, tmp_path / "1"))
    assert (tmp_path / "1" / "weights-seed1.pt").read_bytes() == (folder / "weights-seed1.pt").read_bytes()


def test_weights_need_not_be_kept(tiny_config: Config, tmp_path: Path) -> None:
    from dataclasses import replace

    run(replace(tiny_config, keep_weights=False, replicates=1), tmp_path / "0")
    assert not list(tmp_path.rglob("weights*"))
    assert predict.main([str(tmp_path / "0")]) == 2


def flipped(path: Path) -> None:
    """One bit of a weight, where no reader of PyTorch's looks."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edited(path: Path, **fields: object) -> None:
    """A record with other values."""
    content = json.loads(path.read_text())
    content["run"].update(fields)
    path.write_text(json.dumps(content))


def without(path: Path, key: str) -> None:
    content = json.loads(path.read_text())
    del content["run"]["settings"][key]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda run: run / "nowhere", "nowhere is not there; give the folder of a run"),
        (lambda run: run / "run-seed0.json", "run-seed0.json is a file; give the folder of a run"),
        (lambda run: (run / "empty").mkdir() or run / "empty", "empty holds no run-seed*.json; give the folder of a"),
        (lambda run: cut(run / "run-seed0.json") or run, "run-seed0.json is damaged or unreadable"),
        (lambda run: without(run / "run-seed0.json", "model.name") or run, "its configuration is not whole"),
        (lambda run: edited(run / "run-seed0.json", settings=[]) or run, "its configuration is not whole"),
        (lambda run: edited(run / "run-seed0.json", status="failed", error="why") or run, "has no network (why)"),
        (lambda run: edited(run / "run-seed0.json", class_names=["a", "b"]) or run, "its classes are not those of"),
        (lambda run: (run / "weights-seed0.pt").write_bytes(b"") or run, "no whole file of weights"),
        (lambda run: (run / "weights-seed0.pt").write_text("hello") and run, "no whole file of weights"),
        (lambda run: cut(run / "weights-seed0.pt") or run, "no whole file of weights"),
        (lambda run: flipped(run / "weights-seed0.pt") or run, "no whole file of weights"),
        (lambda run: torch.save([1], run / "weights-seed0.pt") or run, "no file of weights that a run has kept"),
        (lambda run: (run / "weights-seed0.pt").write_bytes(b"PK") and run, "missing, damaged or of another network"),
        (lambda run: (run / "run-seed0.json").write_text("{") and run, "damaged or unreadable"),
        (lambda run: (run / "weights-seed0.pt").unlink() or run, "keep_weights=true"),
    ],
    ids=[
        "nowhere", "a file", "an empty folder", "record cut short", "setting missing", "no settings", "failed run",
        "other classes", "weights empty", "weights a text", "weights cut short", "weights with a flipped bit",
        "weights of something else", "weights a stub", "record a stub", "no weights",
    ],
)  # fmt: skip
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
    printed = capsys.readouterr()
    assert words in printed.err
    assert len(printed.err.splitlines()) <= 3
    assert "weights_only" not in printed.err
    assert printed.out == ""


def test_of_many_seeds_the_first_by_number_is_the_default(finished: tuple[Config, Path], tmp_path: Path) -> None:
    """run-seed10 comes before run-seed2 by the alphabet."""
    for seed in (2, 10):
        shutil.copy(finished[1] / "run-seed0.json", tmp_path / f"run-seed{seed}.json")
        edited(tmp_path / f"run-seed{seed}.json", seed=seed)
        shutil.copy(finished[1] / "weights-seed0.pt", tmp_path / f"weights-seed{seed}.pt")
    assert predict._record(tmp_path, None).seed == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "7"], "holds no run-seed7.json\n  allowed: --seed 0, 1\n"),
        (["--seed", "-1"], "holds no run-seed-1.json\n  allowed: --seed 0, 1\n"),
        (["--out", "FILE"], "is a file)\n  remedy: name another folder with --out DIR\n"),
        (["--out", "FILE/below"], "is a file)\n  remedy: name another folder with --out DIR\n"),
    ],
    ids=["seed", "negative seed", "out is a file", "out below a file"],
)
def test_options_that_cannot_be_are_refused(
    arguments: list[str], words: str, finished: tuple[Config, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = picture("L", tmp_path / "mine")
    given = [argument.replace("FILE", str(path)) for argument in arguments]
    assert predict.main([str(finished[1]), str(path), *given]) == 2
    printed = capsys.readouterr()
    assert printed.err.endswith(words)
    assert printed.out == ""


def test_a_seed_that_is_no_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        predict.main(["RUN", "--seed", "x"])
    assert ended.value.code == 2
    assert "argument --seed: invalid int value: 'x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "make",
    [
        lambda run, path: path.write_bytes(b""),
        lambda run, path: path.write_text("hello"),
        lambda run, path: path.mkdir(),
        lambda run, path: None,
        lambda run, path: (run / "weights-seed0.pt").write_bytes(b"PK"),
        lambda run, path: (run / "run-seed0.json").write_text("{"),
    ],
    ids=["empty", "text", "folder", "missing", "weights", "record"],
)
def test_refusing_imports_nothing_heavy(
    make: Callable[[Path, Path], object], finished: tuple[Config, Path], tmp_path: Path
) -> None:
    shutil.copytree(finished[1], tmp_path / "run")
    make(tmp_path / "run", tmp_path / "one.png")
    code = (
        "import sys; from cnn_ablation import predict\n"
        f"code = predict.main([{str(tmp_path / 'run')!r}, {str(tmp_path / 'one.png')!r}])\n"
        "print(code, *{'torch', 'pandas', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
    assert "Traceback" not in done.stderr


def test_all_pictures_that_cannot_be_read_are_named_up_to_a_few(
    finished: tuple[Config, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    assert predict.main([str(finished[1]), *map(str, paths)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        *(f"{path} cannot be read as a picture (No such file or directory)" for path in paths[:3]),
        "... and 2 more",
    ]


@pytest.fixture
def odd_names(finished: tuple[Config, Path], tmp_path: Path) -> Path:
    """The run with classes and a picture whose names hold a formula that is none, a broken character and others."""
    names = [r"$\frac$", "50$ or 60$", "caf\udce9", "\u00fc\u00df", "a\\b", "two\nlines", "", "\u732b", "{x}", "%s\a"]
    run = tmp_path / "run"
    shutil.copytree(finished[1], run)
    edited(run / "run-seed0.json", class_names=names)
    content = torch.load(run / "weights-seed0.pt", weights_only=True)
    torch.save({**content, "class_names": names}, run / "weights-seed0.pt")
    return run


def test_names_of_any_characters_are_drawn(odd_names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = picture("L", tmp_path / r"$\alpha$ \u00e9")
    assert predict.main([str(odd_names), str(path), "--out", str(tmp_path)]) == 0
    with Image.open(tmp_path / "predictions.png") as drawn:
        assert np.asarray(drawn.convert("L")).std() > 5
    assert capsys.readouterr().err == ""


def test_names_reach_a_console_of_few_characters(
    odd_names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = picture("L", tmp_path / "\u00e9")
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", console)
        assert predict.main([str(odd_names), str(path), "--out", str(tmp_path)]) == 0
    console.seek(0)
    assert "?.png: " in console.read()


def test_a_picture_of_one_row_is_squeezed_like_any_other(
    finished: tuple[Config, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode in ("L", "RGB"):
        path = tmp_path / f"{mode}.png"
        Image.new(mode, (30, 1), 7).save(path)
        assert predict.main([str(finished[1]), str(path), "--out", str(tmp_path)]) == 0
        assert f"{path}: " in capsys.readouterr().out


def test_of_many_pictures_the_first_are_drawn(
    finished: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "_MAX_DRAWN", 2)
    paths = [picture("L", tmp_path / str(index)) for index in range(5)]
    assert predict.main([str(finished[1]), *map(str, paths), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert all(f"{path}: " in printed for path in paths)
    assert "the first 2 of 5 are drawn" in printed


def test_a_diverged_network_answers_nothing(
    finished: tuple[Config, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished[1], tmp_path / "run")
    content = torch.load(tmp_path / "run" / "weights-seed0.pt", weights_only=True)
    network = {name: torch.full_like(value, torch.nan) for name, value in content["network"].items()}
    torch.save({**content, "network": network}, tmp_path / "run" / "weights-seed0.pt")
    for images in ([str(picture("L", tmp_path / "mine"))], []):
        assert predict.main([str(tmp_path / "run"), *images]) == 2
        printed = capsys.readouterr()
        assert "gives no numbers, because its training diverged" in printed.err
        assert "%" not in printed.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: None, ""),
        (lambda root: Image.new("L", (8, 8), 99).save(root / "train" / "cat" / "0.png"), "has changed since"),
        (lambda root: [(root / part / "dog").rename(root / part / "eel") for part in ("train", "test")], "other"),
        (shutil.rmtree, "there is no folder"),
    ],
    ids=["same", "other pictures", "other classes", "gone"],
)
def test_validation_images_are_those_of_the_training(
    change: Callable[[Path], object],
    words: str,
    tiny_config: Config,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dataclasses import replace

    for part, count in (("train", 10), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                Image.new("L", (8, 8), 100 * label + index).save(tmp_path / "images" / part / name / f"{index}.png")
    settings = ImageFolderConfig(root=str(tmp_path / "images"), cache=str(tmp_path / "cache"))
    train = replace(tiny_config.train, batch_size=4, epochs=1)
    run(replace(tiny_config, data=settings, train=train, replicates=1), tmp_path / "0")
    change(tmp_path / "images")
    capsys.readouterr()
    assert predict.main([str(tmp_path / "0")]) == (2 if words in ("other", "there is no folder") else 0)
    said = capsys.readouterr().err
    assert words in said
    assert ("has changed since" in said) == (words == "has changed since")


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

    from cnn_ablation.common.errors import RecordError

    config, folder = finished
    other = replace(config, model=replace(config.model, hidden=[9]))
    with pytest.raises(RecordError, match="of another network"):
        trained.read(folder / "weights-seed0.pt", other)


def test_a_weights_file_is_never_run_as_code(finished: tuple[Config, Path], tmp_path: Path) -> None:
    from cnn_ablation.common.errors import RecordError

    path = tmp_path / "weights.pt"
    torch.save({"format": 1, "network": Path("/tmp")}, path)  # an object that must not be unpickled
    with pytest.raises(RecordError):
        trained.read(path, finished[0])


def test_options_may_stand_between_the_run_and_the_pictures() -> None:
    options = predict_command._parse(["run", "--module", "my_nets.Net", "cat.jpg", "dog.jpg"])
    assert (options.run, options.module) == (Path("run"), ["my_nets.Net"])
    assert options.images == [Path("cat.jpg"), Path("dog.jpg")]
