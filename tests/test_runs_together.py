from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cnn_ablation.runs import run as runs
from cnn_ablation.runs.records import read_run, record_path
from cnn_ablation.runs.task import How
from cnn_ablation.tasks.image_classification import engine
from cnn_ablation.tasks.image_classification.config import Config


@pytest.fixture
def together(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """As on a GPU: the seeds of an arm are trained together, here by stacked weights on the CPU."""
    monkeypatch.setattr(engine, "trains_together", lambda config, device: True)
    return replace(tiny_config, replicates=3, precision="float32")


def test_every_seed_leaves_its_record_and_is_reused(together: Config, tmp_path: Path) -> None:
    first = runs.run(together, tmp_path / "a")
    assert [(run.seed, run.status, run.concurrent_runs, run.reused) for run in first] == [
        (seed, "ok", 3, False) for seed in range(3)
    ]
    assert [read_run(record_path(tmp_path / "a", seed)) for seed in range(3)] == first
    again = runs.run(together, tmp_path / "b")
    assert [(run.seed, run.reused, run.test_loss) for run in again] == [
        (run.seed, True, run.test_loss) for run in first
    ]


def test_one_seed_at_a_time_by_the_same_steps_for_a_fair_time_column(together: Config, tmp_path: Path) -> None:
    isolated = runs.run(replace(together, timing="isolated"), tmp_path / "a")
    assert [(run.seed, run.concurrent_runs) for run in isolated] == [(0, 1), (1, 1), (2, 1)]
    assert len({run.train_seconds for run in isolated}) == 3
    packed = runs.run(replace(together, reuse=False), tmp_path / "b")
    assert [run.test_loss for run in isolated] == pytest.approx([run.test_loss for run in packed], rel=1e-5)


def test_arms_beside_it_count(together: Config, tmp_path: Path) -> None:
    asked = []

    def two(how: How) -> int:
        asked.append(how.device)
        return 2

    found = runs.run(together, tmp_path, concurrent_jobs=two)
    assert [run.concurrent_runs for run in found] == [6, 6, 6]
    assert asked == ["cpu"] * (together.train.epochs + 1)  # after each epoch, so that others start after the first


def test_only_missing_seeds_are_trained(together: Config, tmp_path: Path) -> None:
    runs.run(replace(together, replicates=1), tmp_path / "a")
    both = {run.seed: run for run in runs.run(together, tmp_path / "b")}
    assert {seed: run.reused for seed, run in both.items()} == {0: True, 1: False, 2: False}
    assert both[1].concurrent_runs == 2


def test_seeds_are_trained_one_by_one_where_together_fails(
    together: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine.together, "train_together", lambda *given, **named: 1 / 0)
    found = runs.run(together, tmp_path)
    assert [(run.status, run.concurrent_runs) for run in found] == [("ok", 1)] * 3
    assert capsys.readouterr().err.count("one seed after the other") == 1
