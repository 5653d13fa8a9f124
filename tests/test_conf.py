"""Every YAML file composes, starts with the command that runs it, and holds no key that nothing uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cnn_ablation
from cnn_ablation.app.composition import CONF_DIR
from cnn_ablation.config import leaves
from cnn_ablation.study import checks
from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.config import GROUPS as SCHEMAS
from cnn_ablation.tasks.image_classification.config import Config

FILES = sorted(Path(CONF_DIR).rglob("*.yaml"))
GROUPS = ("data", "model", "optimizer")


def test_there_are_files() -> None:
    assert {path.parent.name for path in FILES} == {"conf", "data", "launcher", "model", "optimizer", "study", "task"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_starts_with_its_command(path: Path) -> None:
    comments = [line for line in path.read_text().splitlines()[:2] if line.startswith("# python -m cnn_ablation")]
    assert len(comments) == 1
    if path.parent.name != "conf":
        assert comments[0].endswith(f"{path.parent.name}={path.stem}")


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name in GROUPS], ids=lambda path: path.stem)
def test_every_option_of_a_group_composes_and_passes_its_checks(path: Path) -> None:
    fitting = ["data.image_size=227"] if path.stem == "alexnet" else []
    config = cnn_ablation.compose([f"{path.parent.name}={path.stem}", *fitting])
    assert isinstance(config, Config)
    assert getattr(config, path.parent.name).name == path.stem
    if path.stem not in ("arrays", "image_folder", "module"):  # what they name is the user's
        checks.check(config)


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "study"], ids=lambda path: path.stem)
def test_every_study_plans(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cnn_ablation.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cnn_ablation", f"study={path.stem}", "dry_run=true"])  # also without -m
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 2


def test_the_study_of_knobs_varies_the_eight_knobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cnn_ablation.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cnn_ablation", "-m", "study=knobs", "dry_run=true"])
    with pytest.raises(SystemExit):
        main()
    plan = capsys.readouterr().out.partition("540 test images")[0]
    arms = [line.strip().partition("=")[0] for line in plan.splitlines()[2:]]
    assert set(arms) == {
        "model.filters", "model.kernel_sizes", "model.activation", "model.dropout", "model.batch_norm",
        "train.batch_size", "optimizer.lr", "train.shuffle",
    }  # fmt: skip


def test_every_schema_is_chosen_by_a_file_and_every_key_is_read() -> None:
    """A field that no code outside the schema mentions would be a setting without effect."""
    package = Path(cnn_ablation.__file__).parent
    code = "\n".join(path.read_text() for path in package.rglob("*.py") if path.name != "config.py")
    text = "\n".join(path.read_text() for path in FILES)
    for group, options in SCHEMAS.items():
        for name in options:
            assert f"/schema/{group}@_here_: {name}" in text
    for group, options in SCHEMAS.items():
        for owner in options.values():
            keys = {key.rpartition(".")[2] for key, _, _ in leaves(owner())}
            assert {key for key in keys if f".{key}" not in code} == set(), (group, owner)


def test_composing_works_in_a_fresh_process() -> None:
    """Nothing but `compose` has told Hydra of our schemas and our sweeper there."""
    code = "import cnn_ablation; print(cnn_ablation.compose(['train.epochs=3']).train.epochs)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_composing_in_python_gives_what_the_command_line_composes() -> None:
    config = cnn_ablation.compose(["data=shapes", "data.difficulty=0.25", "model.filters=[8,8,8]", "optimizer=sgd"])
    assert (config.data.name, config.data.difficulty, config.optimizer.name) == ("shapes", 0.25, "sgd")
    assert config.model.filters == [8, 8, 8]
    assert data.describe(config.data).image_size == 32
