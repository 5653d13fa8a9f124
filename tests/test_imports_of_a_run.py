"""What a run imports is waited for by every study: its worker has everything from the server that forked it."""

from __future__ import annotations

import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from cnn_ablation.launch import children
from cnn_ablation.runs.run import run
from cnn_ablation.tasks.image_classification import data, task
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data.images import ImageData


def modules_of_runs(answer: Connection, loaded: dict[str, ImageData], config: Config, folder: Path) -> None:
    """What a worker does, in a process of its own: its runs, and what they have imported."""
    task.take_over(loaded)
    found = [run(replace(config, engine=engine), folder / engine) for engine in ("fast", "reference")]
    answer.send(([each for runs in found for each in runs], sorted(sys.modules)))


def test_a_worker_does_not_import_what_torch_compile_needs(tiny_config: Config, tmp_path: Path) -> None:
    config = replace(tiny_config, replicates=1)
    data.load(config.data)  # by the study's own process
    children.start_loading(task.PRELOADED)
    ours, theirs = children.context().Pipe()
    with children.without_main():
        worker = children.context().Process(target=modules_of_runs, args=(theirs, task.loaded(), config, tmp_path))
        worker.start()
    theirs.close()
    runs, modules = ours.recv()
    worker.join()
    assert [(each.status, set(each.per_class), bool(each.activation_layers)) for each in runs] == [
        ("ok", {"val", "test"}, True)
    ] * 2
    assert {"torch", "sklearn.metrics"} <= set(modules)
    assert "torch._dynamo" not in modules
