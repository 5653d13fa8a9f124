"""What a study would do: runs it would reuse, what its arms change besides their knob, and how long it would take.

From configurations and past runs alone: no data are loaded and no torch is imported.
"""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_ablation import data, notes
from cnn_ablation.config import Config, result_settings
from cnn_ablation.designs import Arm
from cnn_ablation.models import network_layers
from cnn_ablation.models.layers import trace
from cnn_ablation.plans import counted
from cnn_ablation.records import Run
from cnn_ablation.store.entries import entries


@dataclass(frozen=True)
class ArmForecast:
    """What is known of an arm before it is trained."""

    arm: Arm
    confounds: list[str]
    reused_seeds: list[int]
    num_seeds: int
    seconds_per_run: float
    """NaN where no past run tells."""


def cost(config: Config) -> notes.Cost:
    """Updates, parameters and work of a configuration, by arithmetic."""
    spec = data.describe(config.data)
    updates = config.train.num_updates(spec.train_images(config.data))
    steps = trace(network_layers(config.model, spec.num_classes), spec.input_shape)
    return notes.Cost(updates, sum(step.num_params for step in steps), sum(step.multiply_adds for step in steps))


def forecast(configs: dict[Arm, Config]) -> list[ArmForecast]:
    """The forecast of every arm, the first of them being the one that others are compared with."""
    baseline = next(iter(configs.values()))
    finished = [entry for entry in entries(Path(baseline.store)) if entry.run is not None]
    past = [entry.run for entry in finished if entry.run]
    reusable = [entry.run for entry in finished if entry.run and entry.current] if baseline.reuse else []
    return [
        ArmForecast(
            arm=arm,
            confounds=list(notes.confounds(cost(config), cost(baseline))),
            reused_seeds=[run.seed for run in reusable if run.seed in config.seeds and _is_of(run, config)],
            num_seeds=len(config.seeds),
            seconds_per_run=_seconds_per_run(config, past),
        )
        for arm, config in configs.items()
    ]


def _is_of(run: Run, config: Config) -> bool:
    """Whether a past run had this configuration; the content of its data is not compared."""
    wanted = {key: value for key, value in result_settings(config).items() if key not in ("device", "precision")}
    return (
        all(run.settings.get(key) == value for key, value in wanted.items())
        and wanted.keys() == _result_keys(run.provenance.get("identity", {}))
        and config.device in ("auto", run.device)
        and config.precision in ("auto", run.precision)
    )


def _result_keys(identity: dict[str, Any]) -> set[str]:
    return set(identity.get("settings", {})) - {"device", "precision"}


def _seconds_per_run(config: Config, past: Sequence[Run]) -> float:
    """From past runs of the same configuration, or else from the work that past runs did in a second; NaN from none."""
    here = [run for run in past if run.provenance.get("host") == platform.node() and run.status == "ok"]
    same = [_machine_seconds(run) for run in here if _is_of(run, config)]
    if same:
        return statistics.median(same)
    rates = [_machine_seconds(run) / _work_done(run) for run in here if _work_done(run) > 0]
    return statistics.median(rates) * _work_to_do(config) if rates else math.nan


def _machine_seconds(run: Run) -> float:
    """What a run took of the machine that it may have shared."""
    return run.total_seconds / run.concurrent_runs


def _work_done(run: Run) -> float:
    """Multiply-adds of all training images."""
    return run.multiply_adds * run.images_per_second * run.train_seconds


def _work_to_do(config: Config) -> float:
    images = data.describe(config.data).train_images(config.data)
    seen = sum(config.train.epoch_images(epoch, images) for epoch in range(config.train.num_epochs(images)))
    return cost(config).multiply_adds * seen


def lines(forecasts: Sequence[ArmForecast], store_folder: str) -> Iterator[str]:
    """The forecast for a reader."""
    confounded = [item for item in forecasts if item.confounds]
    if confounded:
        yield "changes besides the knob:"
        yield from (f"  {item.arm.name}: {', '.join(item.confounds)}" for item in confounded)
    reused, planned = sum(len(item.reused_seeds) for item in forecasts), sum(item.num_seeds for item in forecasts)
    yield f"would reuse {reused} of {counted(planned, 'run')} from {store_folder}, if the data are as they were"
    to_train = [(item.num_seeds - len(item.reused_seeds), item.seconds_per_run) for item in forecasts]
    seconds = math.fsum(count * each for count, each in to_train if count)
    if math.isnan(seconds):
        yield "estimated time: unknown, there are no past runs on this machine"
    else:
        yield f"estimated time: about {duration(seconds)} for {counted(planned - reused, 'run')}, from past runs"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
