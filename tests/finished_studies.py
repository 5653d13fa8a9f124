"""Studies written to disk without any training, with all that a report reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_ablation.config import StatsConfig
from cnn_ablation.runs.records import Run, record_path, write_run
from cnn_ablation.study.designs import Arm
from cnn_ablation.study.plans import Plan, write_plan

CLASSES = ("cat", "dog", "newt")
MATRIX = [[8, 2, 0], [1, 9, 0], [0, 0, 10]]
PROVENANCE = {
    "hardware": "A processor", "torch_threads": 1, "cpu_count": 2, "platform": "Linux-6", "git_commit": "abc123",
    "git_dirty": False, "time": "2026-11-26T09:11:17+0000", "versions": {"python": "3.11.9", "cnn_ablation": "0.1.0"},
}  # fmt: skip


def write_study(
    folder: Path,
    scores: Mapping[str, Sequence[float]],
    *,
    baseline: Mapping[str, Any] | None = None,
    of_plan: Mapping[str, Any] | None = None,
    change: Mapping[tuple[str, int], Mapping[str, Any]] | None = None,
    epochs: int = 3,
    classes: Sequence[str] = CLASSES,
    matrix: Sequence[Sequence[int]] = MATRIX,
) -> Path:
    """A study with these test accuracies, seed by seed.

    Args:
        folder: of the study.
        scores: by arm, `KEY=LEVEL`; NaN for a run that failed.
        baseline: its settings, besides a few.
        of_plan: what stands otherwise in the plan.
        change: what stands otherwise in the record of an arm and seed.
        epochs: of the learning curves.
        classes: their names.
        matrix: images by true and predicted class, of every run and part.
    """
    arms = [Arm(name, *_knob_and_level(name)) for name in scores]
    knobs: dict[str, list[str]] = {}
    for arm in arms:
        if arm.knob:
            knobs.setdefault(arm.knob, []).append(arm.level)
    seeds = list(range(max(map(len, scores.values()))))
    settings = {"task.name": "image_classification", "data.name": "digits", "train.epochs": epochs, **(baseline or {})}
    plan: dict[str, Any] = {"stats": StatsConfig(), "provenance": {**PROVENANCE, "command": "python -m cnn_ablation"}}
    plan |= of_plan or {}
    write_plan(folder, Plan("one_at_a_time", knobs, list(knobs), arms, seeds, settings, **plan))
    for number, arm in enumerate(arms):
        for seed, score in enumerate(scores[arm.name]):
            fields = _fields(score, seed, epochs, classes, matrix) | dict((change or {}).get((arm.name, seed), {}))
            run = Run(arm.name, arm.knob, arm.level, seed, **{"settings": settings, "provenance": PROVENANCE} | fields)
            write_run(record_path(folder / str(number), seed), run)
    return folder


def _knob_and_level(name: str) -> tuple[str, str]:
    key, separator, level = name.partition("=")
    return (key, level) if separator else ("", "")


def _fields(
    score: float, seed: int, epochs: int, classes: Sequence[str], matrix: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Of one record; of a run that failed its error alone."""
    if math.isnan(score):
        return {"status": "failed", "error": "ValueError: no such thing"}
    rows = [
        {"class": name, "support": 10.0, "precision": 0.9, "recall": 0.8, "f1": 0.85, "auc": 0.95}
        for name in (*classes, "weighted")
    ]
    rows[-1]["support"] = 10.0 * len(classes)
    curve = [
        {"epoch": epoch, "train_loss": 1 / epoch, "val_loss": 1.1 / epoch, "val_accuracy": score - 0.1 / epoch,
         "train_seconds": float(epoch)}
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    return {
        "status": "ok", "train_accuracy": score + 0.01, "val_accuracy": score - 0.01, "test_accuracy": score,
        "train_loss": 0.1, "val_loss": 0.2, "test_loss": 0.2 + seed / 100 + (1 - score), "train_seconds": 10.0 + seed,
        "epochs": epochs, "updates": 100, "num_params": 1000, "hardware": "A processor", "threads": 1,
        "num_classes": len(classes), "multiply_adds": 5000, "lowest_train_loss": 0.05, "initial_gradient_norm": 1.0,
        "final_gradient_norm": 0.5, "dead_units": 0.02, "class_names": list(classes),
        "per_class": {"val": rows, "test": rows}, "confusion": {"val": list(matrix), "test": list(matrix)},
        "curves": curve,
    }  # fmt: skip
