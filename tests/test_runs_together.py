from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from cnn_ablation.common.errors import RecordError
from cnn_ablation.runs import run as runs
from cnn_ablation.runs.records import is_stopped, read_run, record_path
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


class KilledError(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.mark.parametrize("timing", ["packed", "isolated"])
def test_they_go_on_from_their_checkpoint(together: Config, tmp_path: Path, timing: str) -> None:
    def killed(how: How) -> int:
        asked.append(how)
        if len(asked) == 3:
            raise KilledError
        return 1

    asked: list[How] = []
    config = replace(together, timing=timing, train=replace(together.train, epochs=4), checkpoint_seconds=1e-9)
    config.model.dropout = 0.5
    with pytest.raises(KilledError):
        runs.run(config, tmp_path / "a", concurrent_jobs=killed)
    store = Path(config.store)
    assert len(list(store.glob("*/checkpoint.pt"))) == 1
    resumed = runs.run(config, tmp_path / "b")
    assert not list(store.glob("*/checkpoint.pt")), "it is of no more use"
    assert [math.isnan(run.neighbours) for run in resumed] == (
        [True] * 3 if timing == "packed" else [True, False, False]
    )
    whole = runs.run(replace(config, store=str(tmp_path / "other")), tmp_path / "c")
    assert [run.test_loss for run in resumed] == [run.test_loss for run in whole]
    assert [run.curves[-1]["val_loss"] for run in resumed] == [run.curves[-1]["val_loss"] for run in whole]


def test_a_record_that_cannot_be_written_stops_the_study(together: Config, tmp_path: Path) -> None:
    """Where a record belongs there is a folder; no seed is trained a second time."""
    record_path(tmp_path / "job", 1).mkdir(parents=True)
    with pytest.raises(RecordError, match=r"run-seed1\.json"):
        runs.run(together, tmp_path / "job", study=tmp_path)
    assert is_stopped(tmp_path)
    assert len(list(Path(together.store).glob("*/run.json"))) == 2, "trained in one go, kept up to the one that failed"
