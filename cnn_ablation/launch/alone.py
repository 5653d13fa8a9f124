"""One configuration in Python, with observers: `cnn_ablation.run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cnn_ablation.config import StudyConfig
from cnn_ablation.launch.following import Expected
from cnn_ablation.launch.observers import makers
from cnn_ablation.launch.observing import Observation, observed_study
from cnn_ablation.runs import run as runs
from cnn_ablation.runs.records import Run, stamp
from cnn_ablation.runs.task import check


def run(config: StudyConfig, folder: str | Path, *, observers: Sequence[object] = ()) -> list[Run]:
    """Trains (or reuses) one configuration with each of its seeds; every run is on disk the moment it ends.

    A run that raises becomes a record with `status=failed` and a traceback file beside it. There is no table, so that
    observers get no report.

    Args:
        config: from `cnn_ablation.compose`, or made by hand.
        folder: where `run-seed<seed>.json` is written.
        observers: objects that are told (`launch.observers.Observer`), besides those of `config.trackers`.

    Raises:
        ConfigError: the configuration must not be trained, its device is not here, or an observer is none.
        RecordError: a record cannot be written.
    """
    folder = Path(folder)
    if not observers and not getattr(config, "trackers", None):
        return runs.run(config, folder)
    from cnn_ablation.launch.planning import Planning

    check(config)
    made = makers(config.trackers, observers)
    folder.mkdir(parents=True, exist_ok=True)
    plan = Planning("one_at_a_time", [], lambda arm: config).plan()
    expected = [Expected(replace(config, seed=seed, replicates=1), seed, folder) for seed in config.seeds]
    before = {each.record: stamp(each.record) for each in expected}

    def is_new(path: Path) -> bool:
        return stamp(path) not in (None, before[path])

    with Observation(made, observed_study(plan, folder.absolute()), lambda: expected, is_new):
        return runs.run(config, folder)
