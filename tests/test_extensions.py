"""Parts of one's own: registered by decorator, known to checks, help and workers, part of a run's identity."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Answer, parts_forgotten, without_pictures

import cnn_ablation
from cnn_ablation import store
from cnn_ablation.common import extensions
from cnn_ablation.common.errors import ConfigError, RecordError
from cnn_ablation.predict import predict
from cnn_ablation.report import __main__ as report
from cnn_ablation.study import checks
from cnn_ablation.tasks.image_classification import parts
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS
from cnn_ablation.tasks.image_classification.schedules import schedule_of

PARTS = """
from dataclasses import dataclass

import cnn_ablation
from cnn_ablation import layers, setting


@cnn_ablation.activation("squared")
def squared(nn):
    class Squared(nn.Module):
        def forward(self, x):
            return x.clamp(min=0) ** 2
    return Squared()


@dataclass
class Tiny:
    '''One convolution.'''
    width: int = setting(4, at_least=1, at_most=64)


@cnn_ablation.network("tiny", settings=Tiny)
def tiny(settings, num_classes):
    return [layers.Conv(settings.width, 3), layers.Activation("squared"), layers.Flatten(), layers.Linear(num_classes)]


@cnn_ablation.schedule("square_root")
def square_root(step, num_steps):
    return (step + 1) ** -0.5


@cnn_ablation.schedule("sinking")
def sinking(step, num_steps):
    return 1 - 3 * step / num_steps


@cnn_ablation.network("headless")
def headless(settings, num_classes):
    return [layers.Flatten(), layers.Linear(num_classes + 1)]


@cnn_ablation.network("broken")
def broken(settings, num_classes):
    return [layers.Conv(settings.width, 3)]


@dataclass
class Signs:
    beta: float = setting(0.5, at_least=0, below=1)


@cnn_ablation.optimizer("signs", settings=Signs)
def signs(params, settings):
    import torch
    return torch.optim.SGD(params, lr=settings.lr, momentum=settings.beta)


@cnn_ablation.loss("focal")
def focal(outputs, labels):
    p = outputs.softmax(1).gather(1, labels[:, None])[:, 0]
    return -((1 - p) ** 2) * p.log()
"""

SMALL = (
    "data=shapes", "data.image_size=8", "data.train_images=60", "data.test_images=40", "train.epochs=1",
    "train.batch_size=16", "replicates=1", "device=cpu", "threads=1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`ext_parts.py` in the working directory; what it registers is forgotten afterwards."""
    (tmp_path / "ext_parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with parts_forgotten():
        yield
    for name in [name for name in sys.modules if name.startswith("ext_")]:
        del sys.modules[name]


def composed(*overrides: str) -> cnn_ablation.config.Config:
    return cnn_ablation.compose(["extensions=[ext_parts]", *SMALL, *overrides])


@pytest.mark.parametrize(
    ("value", "key", "overrides"),
    [
        pytest.param("squared", "model.activation", ["model.activation=squared"], id="activation"),
        pytest.param(4, "model.width", ["model=tiny"], id="default-of-a-network"),
        pytest.param(9, "model.width", ["model=tiny", "model.width=9"], id="key-of-a-network"),
        pytest.param(0.25, "optimizer.beta", ["optimizer=signs", "optimizer.beta=0.25"], id="key-of-an-optimiser"),
        pytest.param(1e-3, "optimizer.lr", ["optimizer=signs"], id="key-of-all-optimisers"),
        pytest.param("focal", "train.loss", ["train.loss=focal"], id="loss"),
        pytest.param("square_root", "train.schedule", ["train.schedule=square_root"], id="schedule"),
    ],
)
def test_parts_are_options(value: object, key: str, overrides: list[str]) -> None:
    config = composed("data.image_size=32", *overrides)
    checks.check(config)
    settings = cnn_ablation.config.all_settings(config)
    assert settings[key] == value
    assert cnn_ablation.config.from_settings(type(config), settings) == config


@pytest.mark.parametrize(
    ("line", "overrides"),
    [
        pytest.param("did you mean: model.activation=squared", ["model.activation=squard"], id="activation"),
        pytest.param("did you mean: model=tiny", ["model=tinny"], id="option"),
        pytest.param("did you mean: model.width=3", ["model=tiny", "model.widht=3"], id="key"),
        pytest.param("at least 1 and at most 64", ["model=tiny", "model.width=65"], id="bounds"),
        pytest.param("Cannot|int, at least 1", ["model=tiny", "model.width=wide"], id="type"),
        pytest.param("did you mean: train.loss=focal", ["train.loss=focall"], id="loss"),
        pytest.param("did you mean: train.schedule=sinking", ["train.schedule=sinkin"], id="schedule"),
        pytest.param(r"at step \d+ of \d+ it is -", ["train.schedule=sinking"], id="negative-factors"),
        pytest.param(r"end in 10 numbers, one for each class; here \(11,\)", ["model=headless"], id="outputs"),
        pytest.param("its function raised AttributeError", ["model=broken"], id="a-function-that-fails"),
    ],
)
def test_mistakes_are_told_with_what_extensions_know(line: str, overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=line):
        checks.check(composed(*overrides))


@pytest.mark.parametrize(
    ("line", "override"),
    [
        pytest.param("did you mean: extensions=ext_parts", "extensions=[ext_part]", id="misspelt"),
        pytest.param(r"remedy: 'extensions=\[ext_parts\]'", "extensions=ext_parts", id="no-list"),
        pytest.param("one list: it is no knob", "extensions=[ext_parts],[]", id="swept"),
    ],
)
def test_extensions_that_cannot_be_had(line: str, override: str) -> None:
    with pytest.raises(ConfigError, match=line):
        cnn_ablation.compose([override])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        pytest.param("activations has this one", 'activation("relu")', id="activation"),
        pytest.param("cnn_ablation has this one", 'optimizer("adam")', id="optimiser"),
        pytest.param("letters, digits", 'activation("my act")', id="no-name"),
        pytest.param("that are a dataclass", 'network("x", settings=dict)', id="no-dataclass"),
    ],
)
def test_names_are_not_taken_from_others(line: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "ext_clash.py").write_text(f"import cnn_ablation\n@cnn_ablation.{text}\ndef own(*given): ...\n")
    with pytest.raises(ConfigError, match=line):
        extensions.load(["ext_clash"])


def test_the_loss_is_a_mean_over_images() -> None:
    import torch

    from cnn_ablation.tasks.image_classification.losses import LOSSES

    composed()
    outputs, labels = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 0])
    chances = [0.5, 1 / (1 + torch.e**-2)]
    expected = [-((1 - p) ** 2) * float(torch.log(torch.tensor(p))) for p in chances]
    assert float(LOSSES["focal"](outputs, labels)) == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert LOSSES["focal"](outputs, labels, reduction="none").tolist() == pytest.approx(expected, rel=1e-5)


def test_help_lists_what_extensions_bring(cli: Callable[..., Answer]) -> None:
    out = cli("--help", "extensions=[ext_parts]").out
    assert "model=tiny\n    One convolution.\n" in out
    assert "  model.width=4                          int, at least 1 and at most 64" in out


def test_only_what_a_run_uses_or_names_identifies_it(tmp_path: Path) -> None:
    """A comment changes nothing; a constant does, in every run that names the extension."""

    def versions(*overrides: str) -> list[str]:
        config = composed(*overrides)
        used = parts.used(config)
        return [version for part in used if (version := cnn_ablation.runs.provenance.extension_version(part))]

    import cnn_ablation.runs.provenance

    before = versions("model=tiny")
    (tmp_path / "ext_parts.py").write_text(f"# a comment\n{PARTS}")
    assert versions("model=tiny") == before
    (tmp_path / "ext_parts.py").write_text(PARTS.replace("** 2", "**  3"))
    assert versions("model=tiny") != before


def test_parts_that_other_processes_can_import_are_packed(tmp_path: Path) -> None:
    assert not parts.lives_here_alone(composed("model.activation=squared"))
    assert not parts.lives_here_alone(composed("model=tiny", "optimizer=signs", "train.loss=focal"))
    ACTIVATIONS["here"] = lambda nn: nn.ReLU()
    config = composed()
    config.model.activation = "here"  # type: ignore[attr-defined]
    assert parts.lives_here_alone(config)


@pytest.mark.usefixtures("undrawn")
def test_a_study_of_own_parts_side_by_side(cli: Callable[..., Answer]) -> None:
    answer = cli(
        "-m", "extensions=[ext_parts]", *SMALL, "model=tiny", "model.width=2,4", "optimizer=signs", "train.loss=focal",
        "timing=packed", "hydra.sweep.dir=study",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "2 runs side by side" in answer.err
    runs = cnn_ablation.load_runs("study")
    assert list(runs["status"]) == ["ok", "ok"]
    record = cnn_ablation.runs.records.read_run(Path("study/0/run-seed0.json"))
    assert record.settings["extensions"] == ["ext_parts"]
    with pytest.raises(RecordError, match="remedy: --module ext_parts, if you trust it"):
        predict(Path("study/0"), [])
    assert predict(Path("study/0"), [], modules=["ext_parts"])


def test_a_study_file_of_ones_own_may_name_extensions(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "mine" / "study").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - override /model: tiny\n\nextensions: [ext_parts]\nhydra:\n  sweeper:\n"
    (tmp_path / "mine/study/own.yaml").write_text(f'{text}    params:\n      model.width: "2,4"\n')
    answer = cli("-m", "--config-dir", "mine", "study=own", *SMALL, "dry_run=true")
    assert answer.code == 0, answer.err
    assert "model.width=2" in answer.out


def test_a_named_network_of_known_layers_takes_a_yaml_file_alone(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = "defaults:\n  - /schema/model@_here_: convolutional\n  - _self_\n\nfilters: [4]\nkernel_sizes: [3]\n"
    (tmp_path / "mine/model/two_conv.yaml").write_text(text)
    answer = cli("-m", "--config-dir", "mine", "model=two_conv", "model.batch_norm=false,true", *SMALL, "dry_run=true")
    assert answer.code == 0, answer.err
    assert "model.batch_norm=true" in answer.out


def test_installed_packages_extend_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ext_installed.py").write_text(
        'import cnn_ablation\ncnn_ablation.activation("plugged")(lambda nn: nn.ELU())\n'
    )
    info = tmp_path / "ext_installed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ext-installed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cnn_ablation]\nparts = ext_installed\n")
    extensions.installed.cache_clear()
    try:
        assert cnn_ablation.compose(["model.activation=plugged"]).model.activation == "plugged"
    finally:
        monkeypatch.undo()
        extensions.installed.cache_clear()


MARK = "from pathlib import Path\nPath({path!r}).touch()\n"


NETS = """from torch import nn


def Net(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
"""


def test_reading_what_somebody_sent_imports_nothing_of_it(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    """A study's files name a network and an extension; only `predict` with their names imports them."""
    (tmp_path / "ext_sent.py").write_text(NETS)
    named = ["extensions=[ext_sent]", "model=module", "model.target=ext_sent.Net"]
    with without_pictures():
        assert cli("-m", *named, *SMALL, "train.batch_size=16,32", "hydra.sweep.dir=study").code == 0
    mark = tmp_path / "mark"
    (tmp_path / "ext_sent.py").write_text(MARK.format(path=str(mark)) + NETS)
    del sys.modules["ext_sent"]
    assert len(cnn_ablation.load_runs("study")) == 2
    assert len(cnn_ablation.load_curves("study")) > 0
    assert report.main(["study"]) == 0
    assert store.main(["list"]) == 0
    with pytest.raises(RecordError, match="--module ext_sent, if you trust it"):
        predict(Path("study/0"), [])
    assert not mark.exists()
    with pytest.raises(RecordError, match=r"model.target=ext_sent.Net.*\n  remedy: --module ext_sent.Net"):
        predict(Path("study/0"), [], modules=["ext_sent_other", "ext_sent"])
    mark.unlink()  # an extension that is named is imported
    del sys.modules["ext_sent"]
    assert predict(Path("study/0"), [], modules=["ext_sent", "ext_sent.Net"])
    assert mark.exists()


def test_the_package_stays_light_with_its_decorators() -> None:
    heavy = "[name for name in ('torch', 'pandas', 'hydra') if name in sys.modules]"
    code = f"import sys, cnn_ablation; cnn_ablation.activation; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_schedule_of_ones_own_multiplies_the_rate_after_its_warm_up(own_parts: None) -> None:
    train = composed("train.schedule=square_root", "train.warmup_epochs=0.5").train
    schedule = schedule_of(train, 64 * train.batch_size)
    warm = [min(1.0, (step + 1) / 32) for step in range(64)]
    assert [schedule.factor(step) for step in range(64)] == pytest.approx(
        [warm[step] * (step + 1) ** -0.5 for step in range(64)]
    )
