"""What a study would do: runs it would reuse, what its arms change besides their knob, and how long it would take.

From configurations and past runs alone: no data are loaded and no torch is imported.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_ablation.analysis import notes
from cnn_ablation.config import Config, result_settings
from cnn_ablation.runs import provenance
from cnn_ablation.runs.records import Run
from cnn_ablation.runs.store.entries import entries
from cnn_ablation.study.designs import Arm
from cnn_ablation.study.plans import counted
from cnn_ablation.tasks.image_classification import data, models, parts
from cnn_ablation.tasks.image_classification.computing import Computing
from cnn_ablation.tasks.image_classification.lengths import epoch_images, num_epochs, num_updates


@dataclass(frozen=True)
class ArmForecast:
    """What is known of an arm before it is trained."""

    arm: Arm
    confounds: list[str]
    reused_seeds: list[int] | None
    """None where only another machine can tell."""
    num_seeds: int
    seconds_per_run: float
    """NaN where no past run tells."""


def cost(config: Config) -> notes.Cost:
    """Updates, parameters and work of a configuration."""
    spec = data.describe(config.data)
    updates = num_updates(config.train, spec.train_images(config.data))
    network = models.describe(config.model, spec.num_classes, spec.input_shape)
    return notes.Cost(updates, network.num_params, network.multiply_adds)


def forecast(configs: dict[Arm, Config], how_of: Callable[[Config], Computing] | None) -> list[ArmForecast]:
    """The forecast of every arm, the first of them being the one that others are compared with.

    Args:
        configs: by arm.
        how_of: how a configuration's runs are computed; None where only another machine can tell.
    """
    baseline = next(iter(configs.values()))
    past = _Past([entry.run for entry in entries(Path(baseline.store)) if entry.run])
    return [
        ArmForecast(
            arm=arm,
            confounds=list(notes.confounds(cost(config), cost(baseline))),
            reused_seeds=past.reused_seeds(config, how_of(config)) if how_of else None,
            num_seeds=len(config.seeds),
            seconds_per_run=past.seconds_per_run(config, how_of(config) if how_of else None),
        )
        for arm, config in configs.items()
    ]


class _Past:
    """Finished runs of a store, to be looked up by what a run to come will be."""

    def __init__(self, runs: Sequence[Run]):
        self._any, self._alone = set[str](), set[str]()
        self._seconds, self._rates = dict[str, list[float]](), list[float]()
        for run in runs:
            identity = run.provenance.get("identity", {})
            name = _name({**identity, "data": ""})
            self._any.add(name)
            if run.concurrent_runs == 1:
                self._alone.add(name)
            if run.provenance.get("host") == platform.node() and run.status == "ok":
                self._seconds.setdefault(_name(identity.get("settings")), []).append(_machine_seconds(run))
                self._rates += [_machine_seconds(run) / _work_done(run)] if _work_done(run) > 0 else []

    def reused_seeds(self, config: Config, how: Computing) -> list[int]:
        """Seeds whose runs the store has, if the content of the data is as it was."""
        known = self._any if config.timing == "packed" else self._alone
        return [seed for seed in config.seeds if config.reuse and _name(_identity(config, how, seed)) in known]

    def seconds_per_run(self, config: Config, how: Computing | None) -> float:
        """From runs of the same configuration, or else from the work that runs did in a second; NaN from none."""
        same = self._seconds.get(_name(_identity(config, how, config.seed)["settings"])) if how else None
        if same:
            return statistics.median(same)
        return statistics.median(self._rates) * _work_to_do(config) if self._rates else math.nan


def _identity(config: Config, how: Computing, seed: int) -> dict[str, Any]:
    """Of a run to come; the data are known only once they are loaded."""
    settings, added = result_settings(config), parts.used(config)
    return provenance.identity(settings, seed=seed, data_digest="", computing=how, extensions=added)


def _name(content: Any) -> str:
    return json.dumps(content, sort_keys=True)


def _machine_seconds(run: Run) -> float:
    """What a run took of the machine that it may have shared."""
    return run.total_seconds / run.concurrent_runs


def _work_done(run: Run) -> float:
    """Multiply-adds of all training images."""
    return run.multiply_adds * run.images_per_second * run.train_seconds


def _work_to_do(config: Config) -> float:
    images = data.describe(config.data).train_images(config.data)
    seen = sum(epoch_images(config.train, epoch, images) for epoch in range(num_epochs(config.train, images)))
    return cost(config).multiply_adds * seen


def lines(forecasts: Sequence[ArmForecast], store_folder: str) -> Iterator[str]:
    """The forecast for a reader."""
    confounded = [item for item in forecasts if item.confounds]
    if confounded:
        yield "changes besides the knob:"
        yield from (f"  {item.arm.name}: {', '.join(item.confounds)}" for item in confounded)
    planned, reused = sum(item.num_seeds for item in forecasts), _num_reused(forecasts)
    if any(item.reused_seeds is None for item in forecasts):
        yield "what would be reused is known only where the jobs will run"
    else:
        yield f"would reuse {reused} of {counted(planned, 'run')} from {store_folder}, if the data are as they were"
    to_train = [(item.num_seeds - len(item.reused_seeds or ()), item.seconds_per_run) for item in forecasts]
    seconds = math.fsum(count * each for count, each in to_train if count)
    if math.isnan(seconds):
        yield "estimated time: unknown, there are no past runs on this machine"
    else:
        yield f"estimated time: about {duration(seconds)} for {counted(planned - reused, 'run')}, from past runs"


def _num_reused(forecasts: Sequence[ArmForecast]) -> int:
    return sum(len(item.reused_seeds or ()) for item in forecasts)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
