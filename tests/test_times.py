"""When runs are trained, in which order, and what is written of the time that they took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cnn_ablation import ablate, load_runs
from cnn_ablation.config import with_settings
from cnn_ablation.launch.execution import NumberedJob, Study
from cnn_ablation.launch.planning import Planning
from cnn_ablation.runs.run import run
from cnn_ablation.runs.store import RunStore
from cnn_ablation.study.designs import knob
from cnn_ablation.tasks.image_classification import engine
from cnn_ablation.tasks.image_classification import task as images_task
from cnn_ablation.tasks.image_classification.config import Config


@pytest.mark.usefixtures("undrawn")
def test_lone_runs_are_trained_back_and_forth_and_say_when(tiny_config: Config, tmp_path: Path) -> None:
    config = replace(tiny_config, timing="isolated", replicates=3)
    ablate(config, {"model.activation": ["leaky"], "model.dropout": [0.5]}, tmp_path / "study")
    runs = load_runs(tmp_path / "study")
    assert list(dict.fromkeys(runs["arm"])) == ["baseline", "model.activation=leaky", "model.dropout=0.5"]
    trained = runs.sort_values("train_started")
    arms = [name.rpartition("=")[2] for name in trained["arm"]]
    assert arms == ["baseline", "leaky", "0.5", "0.5", "leaky", "baseline", "baseline", "leaky", "0.5"]
    assert trained["seed"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (trained["train_ended"] - trained["train_started"] >= trained["train_seconds"]).all()
    assert (trained["neighbours"] == 0).all()
    assert (trained["hardware"] != "").all()
    assert trained["cpu_seconds"].between(0, 1.5 * trained["train_seconds"] * trained["threads"], "neither").all()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        ("packed", [("baseline", 2), ("leaky", 2), ("true", 1), ("true", 1)]),
        ("isolated", [("baseline", 1), ("leaky", 1), ("true", 1), ("true", 1), ("leaky", 1), ("baseline", 1)]),
    ],
)
def test_arms_go_arm_by_arm_only_where_their_seeds_are_trained_in_one_go(
    timing: str, expected: list[tuple[str, int]], tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where an arm that augments its images is trained seed by seed."""
    monkeypatch.setattr(images_task, "device", lambda config: "cuda")
    monkeypatch.setattr(engine, "trains_together", lambda config, device: not config.train.horizontal_flip)
    config = replace(tiny_config, replicates=2, timing=timing)
    knobs = [knob("model.activation", ["leaky"]), knob("train.horizontal_flip", [True])]
    study = Study(tmp_path, Planning("one_at_a_time", knobs, lambda arm: with_settings(config, arm.settings)))
    begun: list[tuple[str, int]] = []

    def launch(jobs: Sequence[NumberedJob]) -> list[str]:
        for item in jobs:
            begun.append((item.job.arm.level or "baseline", len(item.job.seeds)))
            each = study.assignment(item)
            run(each.config, each.folder, study=each.study)
        return []

    study.carry_out(launch)
    assert begun == expected


def test_seeds_trained_in_one_go_have_one_start_and_are_neighbours(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "trains_together", lambda config, device: True)
    found = run(replace(tiny_config, replicates=3), tmp_path)
    assert len({(each.train_started, each.train_ended, each.cpu_seconds) for each in found}) == 1
    assert [each.neighbours for each in found] == [2, 2, 2]
    assert all(0 < each.cpu_seconds < each.train_ended - each.train_started + 0.1 for each in found)


def test_of_the_neighbours_before_an_interruption_nothing_is_known(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, store = replace(tiny_config, replicates=1), RunStore(Path(tiny_config.store))
    (first,) = run(config, tmp_path / "a")
    store.run_path(first.fingerprint).unlink()
    store.checkpoint_path(first.fingerprint).write_bytes(b"left by a run that was killed")
    (again,) = run(config, tmp_path / "b")
    assert (first.neighbours, again.reused) == (0, False)
    assert math.isnan(again.neighbours)
    assert "starting this run anew" in capsys.readouterr().err


def test_a_run_that_is_reused_keeps_its_time(tiny_config: Config, tmp_path: Path) -> None:
    config = replace(tiny_config, replicates=1)
    (first,), (again,) = (run(config, tmp_path / name) for name in "ab")
    names = ("cpu_seconds", "hardware", "threads", "neighbours", "train_started", "train_ended", "fingerprint")
    assert [again.reused, *(getattr(again, name) for name in names)] == [
        True,
        *(getattr(first, name) for name in names),
    ]
