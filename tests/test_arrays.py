"""Images of one's own from a function: every usual form, the same splits and checks, and one message for mistakes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import own_data
import pytest
import torch
from conftest import Answer
from own_data import labels, pixels

import cnn_ablation
from cnn_ablation.common.errors import ConfigError, RecordError
from cnn_ablation.predict import predict
from cnn_ablation.study import checks
from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.config import ArraysConfig, Config
from cnn_ablation.tasks.image_classification.data import arrays

TRAIN = pixels(60, 8, 8, 3)


@pytest.fixture(autouse=True)
def nothing_known_yet() -> None:
    data.forget()
    arrays._described.clear()
    arrays._made.clear()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ArraysConfig]:
    """Settings of a function that gives what it is told to."""

    def make(train: Any, test: Any, **more: Any) -> ArraysConfig:
        monkeypatch.setattr(own_data, "told", lambda: {"train": train, "test": test, **more}, raising=False)
        return ArraysConfig(target="own_data.told")

    return make


@pytest.mark.parametrize(
    ("channels", "images"),
    [
        pytest.param(1, pixels(60, 8, 8), id="grey"),
        pytest.param(3, TRAIN, id="channels-last"),
        pytest.param(3, TRAIN.transpose(0, 3, 1, 2), id="channels-first"),
        pytest.param(3, torch.from_numpy(TRAIN), id="tensor"),
        pytest.param(3, TRAIN / np.float32(255), id="floats-that-are-grey-levels"),
        pytest.param(3, TRAIN.astype(np.float64), id="floats-to-255"),
    ],
)
def test_every_usual_layout_is_kept_as_bytes(channels: int, images: Any, given: Callable[..., ArraysConfig]) -> None:
    config = given((images, labels(60)), (images[:30], labels(30)))
    spec, found = data.describe(config), data.load(config)
    assert (spec.input_shape, spec.num_classes, spec.source_train_images) == ((channels, 8, 8), 3, 60)
    assert found.train.images.dtype == np.uint8
    assert (len(found.train), len(found.val), len(found.test)) == (48, 12, 30)
    expected = pixels(60, 8, 8)[:, None] if channels == 1 else TRAIN.transpose(0, 3, 1, 2)
    assert np.array_equal(found.test.images, expected[:30])
    assert found.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("expected", "scale"),
    [
        pytest.param((0.25, 0.75), "unit", id="unit"),
        pytest.param((-0.25, 0.25), "half", id="half"),
        pytest.param((-1.0, 1.0), "standard", id="standard"),
    ],
)
def test_other_floats_are_held_as_they_are(
    expected: tuple[float, float], scale: str, given: Callable[..., ArraysConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.full((60, 1, 8, 8), 0.25, np.float64)
    images[:, :, 4:] = 0.75
    images = images.repeat(2, axis=3)  # not square
    config = dataclasses.replace(given((images, labels(60)), (images[:30], labels(30))), scale=scale)
    found = data.load(config)
    assert found.train.images.dtype == np.float32
    assert data.describe(config).input_shape == found.input_shape == (1, 8, 16)
    assert data.describe(config).bytes_per_value == 4
    from cnn_ablation.tasks.image_classification.data.resident import resident

    inputs, _ = next(resident(found, torch.device("cpu")).train.in_order(10))
    assert (float(inputs.min()), float(inputs.max())) == pytest.approx(expected, rel=1e-5)


def test_labels_may_be_any_whole_numbers(given: Callable[..., ArraysConfig]) -> None:
    found = data.load(given((TRAIN, labels(60) * 10 + 5), (TRAIN[:30], labels(30).astype(np.uint8) * 10 + 5)))
    assert found.class_names == ("5", "15", "25")
    assert found.test.labels.tolist() == labels(30).tolist()


def test_map_style_datasets_and_names_of_classes() -> None:
    found = data.load(ArraysConfig(target="own_data.datasets"))
    assert found.class_names == ("cat", "dog", "owl")
    assert np.array_equal(found.test.images, own_data.Both.test.images)


def test_images_in_a_mapped_file(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", TRAIN)
    found = data.load(ArraysConfig(target="own_data.mapped", kwargs={"folder": str(tmp_path)}))
    everything = np.concatenate([found.train.images, found.val.images])
    assert sorted(map(bytes, everything)) == sorted(map(bytes, TRAIN.transpose(0, 3, 1, 2).copy()))


def test_content_and_not_the_name_identifies(given: Callable[..., ArraysConfig]) -> None:
    def digest(images: Any) -> str:
        data.forget()
        arrays._described.clear()
        return data.load(given((images, labels(60)), (images[:30], labels(30)))).digest

    first = digest(TRAIN)
    assert digest(TRAIN.transpose(0, 3, 1, 2)) == digest(TRAIN / np.float32(255)) == first
    assert digest(255 - TRAIN) != first
    settings = cnn_ablation.config.result_settings(cnn_ablation.compose(["data=arrays", "data.target=own_data.load"]))
    assert not [key for key in settings if key in ("data.target", "data.kwargs")]


def test_the_function_is_called_once_for_sizes_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(own_data, "counted", lambda: calls.append(1) or own_data.load(), raising=False)
    config = ArraysConfig(target="own_data.counted")
    data.describe(config)
    data.load(config)
    data.load(dataclasses.replace(config))
    data.describe(dataclasses.replace(config, val_fraction=0.5))
    assert len(calls) == 1


def test_images_are_resized_where_that_can_be_done(given: Callable[..., ArraysConfig]) -> None:
    config = dataclasses.replace(given((TRAIN, labels(60)), (TRAIN[:30], labels(30))), image_size=16)
    assert data.load(config).input_shape == data.describe(config).input_shape == (3, 16, 16)


GOOD = (TRAIN[:30], labels(30))


@pytest.mark.parametrize(
    ("line", "train", "test"),
    [
        pytest.param("as many labels (N,) as images", (TRAIN, labels(59)), GOOD, id="lengths"),
        pytest.param("train has (60, 3) for 60", (TRAIN, np.eye(3, dtype=int)[labels(60)]), GOOD, id="one-hot"),
        pytest.param("labels that are whole numbers", (TRAIN, labels(60) / 2), GOOD, id="floats-as-labels"),
        pytest.param("test has 3, train has not", (TRAIN, labels(60)), (TRAIN[:30], labels(30, 8)), id="unseen-class"),
        pytest.param("there is 0 alone", (TRAIN, labels(60) * 0), (TRAIN[:30], labels(30) * 0), id="one-class"),
        pytest.param("images of one shape", (TRAIN, labels(60)), (pixels(30, 9, 9, 3), labels(30)), id="shapes"),
        pytest.param("train has (60, 8, 8, 8)", (pixels(60, 8, 8, 8), labels(60)), GOOD, id="which-are-channels"),
        pytest.param("uint8 or floats; here int32", (TRAIN.astype(np.int32), labels(60)), GOOD, id="type"),
        pytest.param("NaN or infinite", (TRAIN * np.nan, labels(60)), (TRAIN[:30] / 255, labels(30)), id="nan"),
        pytest.param("train has 3 entries", (TRAIN, labels(60), 1), GOOD, id="no-pair"),
        pytest.param("no test in dict", (TRAIN, labels(60)), None, id="no-test"),
        pytest.param("here train is int", 3, GOOD, id="no-data-set"),
        pytest.param("one or more; train has (0,)", (TRAIN[:0], labels(0)), GOOD, id="empty"),
    ],
)
def test_what_is_no_data_set_is_one_message(
    line: str, train: Any, test: Any, given: Callable[..., ArraysConfig], tiny_config: Config
) -> None:
    with pytest.raises(ConfigError) as caught:
        checks.check(dataclasses.replace(tiny_config, data=given(train, test)))
    message = str(caught.value)
    assert message.startswith("configuration error: data.target=own_data.told\n")
    assert line in message
    assert len(message.splitlines()) <= 10


@pytest.mark.parametrize(
    ("line", "config"),
    [
        pytest.param("data.target=my_data.load", ArraysConfig(), id="no-target"),
        pytest.param("did you mean: data.target=own_data.load", ArraysConfig(target="own_data.laod"), id="misspelt"),
        pytest.param("here is int", ArraysConfig(target="own_data.NUMBER"), id="no-function"),
        pytest.param(
            "did you mean: data.kwargs.count=30",
            ArraysConfig(target="own_data.load", kwargs={"cuont": 30}),
            id="misspelt-parameter",
        ),
        pytest.param("folder has no default|has no default", ArraysConfig(target="own_data.mapped"), id="missing"),
        pytest.param(
            "it raised FileNotFoundError",
            ArraysConfig(target="own_data.mapped", kwargs={"folder": "no"}),
            id="raises",
        ),
    ],
)
def test_a_function_that_cannot_be_called(line: str, config: ArraysConfig, tiny_config: Config) -> None:
    with pytest.raises(ConfigError, match=line):
        checks.check(dataclasses.replace(tiny_config, data=config))


SMALL = ("model.filters=[4]", "model.kernel_sizes=[3]", "model.hidden=[8]", "train.epochs=1", "train.batch_size=16")


@pytest.mark.usefixtures("undrawn")
def test_a_study_of_own_data_and_its_predictions(cli: Callable[..., Answer], tmp_path: Path) -> None:
    """Grids need the data, so the function's name; pictures need neither."""
    from PIL import Image

    own = ["data=arrays", "data.target=own_data.load", "data.kwargs.count=90", *SMALL]
    answer = cli("-m", *own, "model.batch_norm=false,true", "replicates=1", "hydra.sweep.dir=study")
    assert answer.code == 0, answer.err
    assert list(cnn_ablation.load_runs("study")["status"]) == ["ok", "ok"]
    with pytest.raises(RecordError, match=r"data.target=own_data.load.*\n  remedy: --module own_data.load"):
        predict(Path("study/0"), [])
    assert predict(Path("study/0"), [], modules=["own_data.load"])
    Image.fromarray(TRAIN[0]).save(tmp_path / "one.png")
    assert predict(Path("study/0"), [tmp_path / "one.png"])


def test_what_gives_the_pictures_is_no_knob(cli: Callable[..., Answer]) -> None:
    answer = cli("-m", "data=arrays", "data.target=own_data.load", "data.kwargs.count=60,90", *SMALL)
    assert (answer.code, "it is no knob" in answer.err) == (2, True)


def test_a_source_of_ones_own_has_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: Config) -> None:
    from cnn_ablation.tasks.image_classification import parts
    from cnn_ablation.tasks.image_classification.config import GROUPS

    text = (
        "from dataclasses import dataclass\nimport cnn_ablation, own_data\n\n@dataclass\nclass Mine:\n"
        "    count: int = cnn_ablation.setting(60, at_least=30)\n\n@cnn_ablation.data_source('mine', settings=Mine)\n"
        "def mine(settings): return own_data.load(settings.count)\n"
    )
    (tmp_path / "arr_source.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        config = cnn_ablation.compose(["extensions=[arr_source]", "data=mine", "data.count=45"])
        checks.check(dataclasses.replace(tiny_config, data=config.data, extensions=["arr_source"]))
        assert data.describe(config.data).source_train_images == 45
        assert len(data.load(config.data).test) == 30
    finally:
        for table in (GROUPS["data"], parts.SOURCES, parts.OPTIONS):
            table.pop("mine" if table is not parts.OPTIONS else "data", None)
        sys.modules.pop("arr_source", None)
