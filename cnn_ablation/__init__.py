"""What does a knob do to a network's accuracy and training time? A controlled answer.

    cnn_ablation.compose(["model.activation=leaky"])    a configuration, as on the command line
    cnn_ablation.ablate(baseline, {"model.activation": ["leaky"]})      a whole study
    cnn_ablation.run(config, folder)                    train it with all its seeds
    cnn_ablation.load_runs(DIR)                         table of runs of a study
    cnn_ablation.load_curves(DIR)                       its learning curves
    cnn_ablation.ablation_table(runs)                   table of arms: intervals, verdicts, notes
    cnn_ablation.styled_table(arms)                     that table as a notebook shows it: rounded, in colour
    cnn_ablation.plot.differences(arms, runs)           pictures; also scores, against_time, levels, curves, confusion
    @cnn_ablation.activation("mish")                    a part of your own; also network, optimizer, loss, schedule ...
    cnn_ablation.__version__                            of the installed package

Importing the package loads none of torch, pandas and hydra; each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers know the name; `typing` itself takes longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

    from cnn_ablation.analysis.tables import ablation_table, load_curves, load_runs
    from cnn_ablation.app.composition import compose
    from cnn_ablation.config import setting
    from cnn_ablation.launch.alone import run
    from cnn_ablation.launch.execution import ablate
    from cnn_ablation.report.styled import styled_table
    from cnn_ablation.tasks.image_classification.parts import (
        activation,
        data_source,
        loss,
        network,
        optimizer,
        schedule,
    )

    __version__: str

__all__ = [
    "ablate",
    "ablation_table",
    "activation",
    "compose",
    "data_source",
    "load_curves",
    "load_runs",
    "loss",
    "network",
    "optimizer",
    "run",
    "schedule",
    "setting",
    "styled_table",
]

_HOMES = {
    "ablate": "launch.execution",
    "ablation_table": "analysis.tables",
    "compose": "app.composition",
    "load_curves": "analysis.tables",
    "load_runs": "analysis.tables",
    "run": "launch.alone",
    "setting": "config",
    "styled_table": "report.styled",
    **dict.fromkeys(
        ("activation", "data_source", "loss", "network", "optimizer", "schedule"), "tasks.image_classification.parts"
    ),
}

_MODULES = {
    "layers": "tasks.image_classification.models.layers",
    "metrics": "analysis.metrics",
    "plot": "plot",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version(__name__)
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
