from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.checkpoints import Checkpoints
from cnn_ablation.tasks.image_classification.config import Config, SGDConfig
from cnn_ablation.tasks.image_classification.engine.steps import EagerSteps
from cnn_ablation.tasks.image_classification.engine.together import train_together
from cnn_ablation.tasks.image_classification.training import REFERENCE, TrainingResult, train


class InterruptionError(Exception):
    """Stands for the end of the process."""


class Interrupting(Checkpoints):
    """Saves after every batch and ends after some of them."""

    def __init__(self, path: Path, after: int):
        super().__init__(path, every_seconds=1e-9, identity="run")
        self.left = after

    def save(self, state: dict[str, object]) -> None:
        super().save(state)
        self.left -= 1
        if not self.left:
            raise InterruptionError


def trained(config: Config, checkpoints: Checkpoints | None = None) -> TrainingResult:
    return train(config, data.load(config.data), seed=0, device=torch.device("cpu"), checkpoints=checkpoints)


def scores(result: TrainingResult) -> list[object]:
    curves = [(point.epoch, point.train_loss, point.val_loss, point.val_accuracy) for point in result.curves]
    weights = [parameter.detach().clone() for parameter in result.network.state_dict().values()]
    return [result.train, result.val, result.test, curves, result.updates, [weight.tolist() for weight in weights]]


@pytest.fixture
def random_config(tiny_config: Config) -> Config:
    """Everything that has a state: dropout, batch norm, Adam, shuffling, the rate, averaged weights."""
    tiny_config.model.dropout, tiny_config.model.batch_norm = 0.5, True
    tiny_config.train.epochs, tiny_config.train.schedule, tiny_config.train.ema_decay = 3, "one_cycle", 0.9
    return tiny_config


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8], ids=lambda number: f"{number} batches")
def test_a_run_goes_on_from_any_batch_with_the_same_result(random_config: Config, tmp_path: Path, after: int) -> None:
    """An epoch has three batches, so that the interruptions fall inside and at the end of epochs."""
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(InterruptionError):
        trained(random_config, Interrupting(path, after))
    saved = torch.load(path, weights_only=True)["state"]
    assert (len(saved["curves"]), saved["sums"]["num_batches"]) == ((after - 1) // 3, (after - 1) % 3 + 1)
    resumed = trained(random_config, Checkpoints(path, identity="run"))
    assert scores(resumed) == scores(trained(random_config))
    assert resumed.train_seconds > saved["train_seconds"]
    assert resumed.cpu_seconds > saved["cpu_seconds"] > 0


def test_the_time_before_the_interruption_counts(random_config: Config, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(InterruptionError):
        trained(random_config, Interrupting(path, 2))
    content = torch.load(path, weights_only=True)
    torch.save({**content, "elapsed_seconds": 1000.0}, path)
    checkpoints = Checkpoints(path, identity="run")
    trained(random_config, checkpoints)
    assert 1000 < checkpoints.elapsed_seconds < 1100


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another_network(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["state"]["network"] = {"Conv1.weight": torch.zeros(1)}
    torch.save(content, path)


def of_another_run(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "identity": "other"}, path)


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("exploded",)


def foreign_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))


@pytest.mark.parametrize(
    "breakage", [truncate, of_another_network, of_another_run, foreign_pickle, lambda path: path.write_bytes(b"")]
)
def test_a_checkpoint_that_cannot_be_used_is_named_and_the_run_starts_anew(
    random_config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    breakage: Callable[[Path], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(InterruptionError):
        trained(random_config, Interrupting(path, 4))
    breakage(path)
    result = trained(random_config, Checkpoints(path, identity="run"))
    assert scores(result) == scores(trained(random_config))
    assert f"{path} is damaged or unreadable" in capsys.readouterr().err
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_that_cannot_be_written_costs_no_run(
    random_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    result = trained(random_config, Checkpoints(blocked / "checkpoint.pt", every_seconds=1e-9))
    assert scores(result) == scores(trained(random_config))
    assert "going on without a checkpoint" in capsys.readouterr().err


def test_short_runs_leave_no_checkpoint(random_config: Config, tmp_path: Path) -> None:
    trained(random_config, Checkpoints(tmp_path / "checkpoint.pt"))
    assert list(tmp_path.iterdir()) == []


def trained_together(config: Config, checkpoints: Checkpoints | None = None) -> list[TrainingResult]:
    return train_together(
        config,
        data.load(config.data),
        seeds=[0, 1, 2],
        device=torch.device("cpu"),
        make_steps=EagerSteps,
        technique=REFERENCE,
        checkpoints=checkpoints,
    )


@pytest.mark.parametrize("after", [1, 2, 4], ids=lambda number: f"{number} epochs")
@pytest.mark.parametrize("stop", [None, "val_loss"])
def test_seeds_trained_together_go_on_after_any_epoch_with_the_same_results(
    random_config: Config, tmp_path: Path, after: int, stop: str | None
) -> None:
    """Two of those that stop early have come to their end before the last interruption."""
    config = replace(
        random_config,
        optimizer=SGDConfig(lr=0.2, momentum=0.9),
        train=replace(random_config.train, epochs=6, stop_on=stop, patience=1),
    )
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(InterruptionError):
        trained_together(config, Interrupting(path, after))
    whole = trained_together(config)
    if stop and after == 4:  # of 3, 6 and 4 epochs
        assert min(len(result.curves) for result in whole) < after < max(len(result.curves) for result in whole)
    resumed = trained_together(config, Checkpoints(path, identity="run"))
    assert [scores(result) for result in resumed] == [scores(result) for result in whole]
    saved = torch.load(path, weights_only=True)["state"]["runs"]
    assert all(result.train_seconds >= run["train_seconds"] for result, run in zip(resumed, saved, strict=True))


def test_a_checkpoint_of_other_seeds_together_is_named_and_all_start_anew(
    random_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(InterruptionError):
        trained_together(random_config, Interrupting(path, 1))
    content = torch.load(path, weights_only=True)
    torch.save({**content, "state": {"runs": content["state"]["runs"][:2]}}, path)
    found = trained_together(random_config, Checkpoints(path, identity="run"))
    assert [scores(result) for result in found] == [scores(result) for result in trained_together(random_config)]
    assert f"{path} is damaged or unreadable" in capsys.readouterr().err
