"""Folders that a configuration names: the same ones wherever a job works, and missed where they are not seen."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cnn_ablation.common.errors import ConfigError, DataError
from cnn_ablation.config import StudyConfig, with_settings
from cnn_ablation.runs import places
from cnn_ablation.runs.task import task_of
from cnn_ablation.tasks.function.config import FunctionConfig
from cnn_ablation.tasks.image_classification import task as images_task
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS
from cnn_ablation.tasks.image_classification.config import Config, ImageFolderConfig, TorchvisionConfig


def with_pictures(config: Config, root: str) -> Config:
    return replace(config, data=ImageFolderConfig(root=root), store="runs")


def test_relative_folders_are_those_below_where_the_study_was_started(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    given = with_pictures(tiny_config, "pictures/../cats")
    assert places.folders(given) == {
        "store": str(tmp_path / "runs"),
        "data.root": str(tmp_path / "cats"),
        "data.cache": "/home/somebody/.cache/cnn_ablation",
    }
    published = replace(tiny_config, data=TorchvisionConfig(root="~/data"))
    assert places.folders(published)["data.root"] == "/home/somebody/data"
    function = places.folders(FunctionConfig(store="s", settings={"root": "mine"}))
    assert function == {"store": str(tmp_path / "s")}, "a function's own settings mean what it makes of them"


def test_a_home_that_is_not_known_is_refused(tiny_config: Config) -> None:
    with pytest.raises(DataError, match=r"^data\.root=~nobody-of-that-name/x: .*\n  allowed: the name of a folder$"):
        places.folders(with_pictures(tiny_config, "~nobody-of-that-name/x"))


def test_where_folders_lie_changes_no_run(tiny_config: Config) -> None:
    """A run is known by the content of its data."""
    config = with_pictures(tiny_config, "cats")
    how = images_task.resolve(config, planned=True)
    here, there = (
        images_task.identity(each, how, seed=0, planned=True)
        for each in (config, with_settings(config, places.folders(config).items()))
    )
    assert here == there


@pytest.mark.parametrize(
    ("expected", "config"),
    [
        (["data.root"], Config(ImageFolderConfig(root="cats"), *[None] * 2)),  # type: ignore[list-item]
        ([], Config(TorchvisionConfig(root="nowhere"), *[None] * 2)),  # type: ignore[list-item]
        ([], FunctionConfig()),
    ],
    ids=["pictures", "published data", "a function"],
)
def test_tasks_say_which_folders_must_be_there(
    expected: list[str], config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = task_of(config).paths(config)
    assert [key for key, _ in found] == expected
    assert all(path == tmp_path / "cats" for _, path in found)


def test_a_node_names_the_folders_that_it_does_not_see(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, however many arms read it; a file is no folder."""
    monkeypatch.setattr("platform.node", lambda: "n7")
    (tmp_path / "here").mkdir()
    (tmp_path / "file").touch()
    roots = [str(tmp_path / name) for name in ("here", "gone", "gone", "file", "here")]
    found = places.missing([with_pictures(tiny_config, root) for root in roots])
    assert [problem.value for problem in found] == [roots[1], roots[3]]
    assert str(ConfigError(found[:1])).splitlines() == [
        f"configuration error: data.root={tmp_path}/gone",
        "  allowed: a folder that all machines of this study see; there is none on n7",
        "  remedy: copy it to a folder that they share, and data.root=DIR",
    ]
    assert places.missing([tiny_config]) == []


def test_what_a_notebook_defines_is_sent_nowhere(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIVATIONS, "mine", lambda nn: nn.Hardswish())
    own = with_settings(tiny_config, [("model.activation", "mine")])
    places.check_known_elsewhere([tiny_config])
    with pytest.raises(ConfigError) as refused:
        places.check_known_elsewhere([tiny_config, own])
    assert str(refused.value).splitlines() == [
        "configuration error: extensions=[]",
        "  allowed: modules with all that is trained: what this script or notebook itself defines is known here alone",
        "  remedy: move it into my_parts.py; extensions=[my_parts], or task.target=my_parts.train for a function",
    ]


SCRIPT = """
from cnn_ablation.runs import places
from cnn_ablation.tasks.function import task
from cnn_ablation.tasks.function.config import Function, FunctionConfig
def train(*, seed):
    return {"loss": 0.0}
places.check_known_elsewhere([task.complete(FunctionConfig(task=Function(target=TARGET)))])
"""


@pytest.mark.parametrize(
    ("expected", "target"),
    [("", "my_train.train"), ("ConfigError: configuration error: extensions=[]", "__main__.train")],
    ids=["of a module", "of a script"],
)
def test_a_function_of_a_script_is_sent_nowhere(tmp_path: Path, expected: str, target: str) -> None:
    (tmp_path / "my_train.py").write_text("def train(*, seed):\n    return {}\n")
    (tmp_path / "study.py").write_text(SCRIPT.replace("TARGET", repr(target)))
    done = subprocess.run([sys.executable, "study.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == bool(expected)
    assert expected in done.stderr
