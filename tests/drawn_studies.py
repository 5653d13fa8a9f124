"""Studies of every shape that pictures have to hold for, made up: tables of runs and of curves, nothing trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cnn_ablation.analysis.tables import ablation_table
from cnn_ablation.config import StatsConfig

LONG = (
    "{train.batch_size:256,optimizer.lr:0.004,model.filters:[64,128,256],model.kernel_sizes:[7,5,3],model.dropout:0.3}"
)


@dataclass(frozen=True)
class Shape:
    """Of a study: how many arms, letters of a name, epochs and seeds, and what happens in it."""

    arms: int = 5
    letters: int = 20
    epochs: int = 5
    seeds: int = 3
    kind: str = "usual"
    name: str = ""
    stats: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def settings(self) -> StatsConfig:
        return StatsConfig(**self.stats)


SHAPES = [
    Shape(2, 10, 1, 2, name="two short"),
    Shape(9, 24, 20, 10, "levels", "nine levels"),
    Shape(3, 120, 5, 5, name="three of 120 letters"),
    Shape(5, 60, 5, 3, "wide letters", "wide letters"),
    Shape(8, 30, 12, 3, "equal", "all equal"),
    Shape(15, 90, 30, 3, "failed", "failed and diverged"),
    Shape(12, 40, 10, 30, "wild", "wildly unequal"),
    Shape(6, 50, 8, 5, "wild", "a metric of its own", {"metric": "cost", "direction": "lower", "margin": 0.01}),
    Shape(40, 120, 300, 2, "failed", "forty of 120 letters"),
    Shape(40, 12, 1, 2, "equal", "forty equal"),
]


def names_of(shape: Shape) -> list[str]:
    """The baseline and the other arms."""
    if shape.kind == "levels":
        return ["baseline", *(f"optimizer.lr={10.0 ** (number / 2 - 5):.3g}" for number in range(1, shape.arms))]
    filling = "W" * 120 if shape.kind == "wide letters" else LONG
    heads = [f"arm{number}=" for number in range(1, shape.arms)]
    return ["baseline", *(head + (filling + filling)[: shape.letters - len(head)] for head in heads)]


def runs_of(shape: Shape) -> pd.DataFrame:
    """Its table of runs."""
    draw, rows = np.random.default_rng(0), []
    for place, arm in enumerate(names_of(shape)):
        knob, _, level = arm.partition("=") if place else ("", "", "")
        effect = 0.0 if shape.kind == "equal" or not place else 0.03 * np.sin(place)
        for seed in range(shape.seeds):
            noise = 0.0 if shape.kind == "equal" else 0.004 * draw.standard_normal()
            score, seconds = 0.9 + effect + noise, (1.0 if shape.kind == "equal" else 1 + place * 0.2 + 0.1 * noise)
            status = "ok"
            if shape.kind in ("wild", "failed") and place == 1:
                score, seconds, status = 0.1 + noise, 80 * seconds, "diverged" if shape.kind == "failed" else "ok"
            if shape.kind == "failed" and (place == 2 or (place == 3 and seed == 0)):
                score, seconds, status = np.nan, np.nan, "failed"
            rows.append({
                "arm": arm, "knob": knob, "level": level, "seed": seed, "status": status, "test_accuracy": score,
                "val_accuracy": score, "train_seconds": seconds, "cost": 1e6 if score < 0.5 else 1 - score,
                **({"optimizer.lr": 1e-5 if not place else float(level)} if shape.kind == "levels" else {}),
            })  # fmt: skip
    return pd.DataFrame(rows)


def curves_of(shape: Shape) -> pd.DataFrame:
    """Learning curves of the runs that did not fail."""
    runs = runs_of(shape)
    done = runs[runs["status"] != "failed"]
    epochs = np.arange(1, shape.epochs + 1)
    parts = [
        pd.DataFrame({
            "arm": row["arm"], "seed": row["seed"], "epoch": epochs, "train_seconds": row["train_seconds"],
            "val_accuracy": row["val_accuracy"] * (1 - np.exp(-3 * epochs / len(epochs))),
            "cost": row["cost"] * (1 + np.exp(-3 * epochs / len(epochs))),
        })
        for _, row in done.iterrows()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def arms_of(shape: Shape) -> pd.DataFrame:
    """Its table of arms."""
    return ablation_table(runs_of(shape), **shape.stats)
