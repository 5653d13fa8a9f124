"""Tables of arms of all kinds, made by `ablation_table` from tables of runs that are made up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from cnn_ablation import ablation_table
from cnn_ablation.config import StatsConfig
from cnn_ablation.report.caption import caption
from cnn_ablation.study.plans import PathStep


def runs_of(shifts: Mapping[str, float], seeds: int = 5, **columns: Any) -> pd.DataFrame:
    """Runs of a baseline at 90 % and of arms that differ by so much from it, in a frame like `load_runs` gives."""
    rows, common = [], np.random.default_rng(99).normal(0, 0.004, seeds)
    for number, (arm, shift) in enumerate({"baseline": 0.0, **shifts}.items()):
        knob, _, level = arm.partition("=")
        noise = common + np.random.default_rng(number).normal(0, 0.001, seeds)
        rows.append(
            pd.DataFrame(
                {
                    "arm": arm, "knob": knob if level else "", "level": level, "seed": range(seeds), "status": "ok",
                    "val_accuracy": 0.89 + shift + noise, "test_accuracy": 0.90 + shift + noise,
                    "train_seconds": 1.0 + 0.3 * number + np.abs(noise), **columns,
                }
            )
        )  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def described(runs: pd.DataFrame, path: Sequence[PathStep] = (), **settings: Any) -> tuple[pd.DataFrame, str]:
    """The table of arms and its caption."""
    used = StatsConfig(**settings)
    arms = ablation_table(runs, path=path, **asdict(used))
    return arms, caption(runs, arms, used, choice="val_accuracy" if path else "", made_with="Trained on a machine.")


def knobs() -> tuple[pd.DataFrame, str]:
    """Names, differences and notes as in a study of eight knobs."""
    runs = runs_of(
        {
            "model.filters=[4,8,16]": -0.06, "model.filters=[64,128,256]": 0.007, "model.activation=leaky": 0.0,
            "model.dropout=0.3": 0.002, "model.batch_norm=true": 0.033, "train.batch_size=256": -0.12,
        },
        seeds=8,
    )  # fmt: skip
    runs["num_params"] = runs["arm"].map({"model.filters=[4,8,16]": 16.0}).fillna(100.0)
    runs["concurrent_runs"] = 2
    apart = (runs["seed"] < 2) | ((runs["seed"] == 2) & (runs["arm"] == "model.dropout=0.3"))
    runs.loc[apart & (runs["arm"] != "baseline"), "concurrent_runs"] = 1
    return described(runs)


def long_names() -> tuple[pd.DataFrame, str]:
    """Fifteen arms whose names have 90 characters."""
    names = [f"zip.large={{train.batch_size:{256 + n},optimizer.lr:{n}e-3,".ljust(88, "x") + "}y" for n in range(14)]
    assert {len(name) for name in names} == {90}
    return described(runs_of({name: -0.004 * n for n, name in enumerate(names)}))


SPECIAL = "".join(map(chr, range(32, 127))) + "äéÅçñßøœŁıπΩλςΑ±×≤→µ°…–“’½ﬁ²中😀\u0301\u200b\u00a0--''`` ,,<<>>?`"


def special_names() -> tuple[pd.DataFrame, str]:
    """Every printable character of ASCII, what Europe writes, Greek, mathematics, and what TeX has no sign for."""
    names = [f"k={SPECIAL[start : start + 30]}" for start in range(0, len(SPECIAL), 30)]
    return described(runs_of({name: 0.001 * n for n, name in enumerate(names)}))


def failed_arms() -> tuple[pd.DataFrame, str]:
    """One arm of which no run has finished, and one of which some have diverged."""
    runs = runs_of({"optimizer.lr=10": 0.0, "optimizer.lr=3": -0.2})
    runs.loc[runs["arm"] == "optimizer.lr=10", ["test_accuracy", "val_accuracy", "train_seconds"]] = math.nan
    runs.loc[runs["arm"] == "optimizer.lr=10", "status"] = "failed"
    runs.loc[(runs["arm"] == "optimizer.lr=3") & (runs["seed"] < 2), "status"] = "diverged"
    return described(runs.assign(epochs=3))


def another_metric(unit: float = 1e-5) -> tuple[pd.DataFrame, str]:
    """A figure of one's own whose numbers need an exponent."""
    runs = runs_of({"settings.lr=0.1": -0.01, "settings.lr=0.001": 0.2}).rename(columns={"test_accuracy": "mae_$_of_x"})
    runs["mae_$_of_x"] *= unit
    return described(runs.drop(columns="val_accuracy"), metric="mae_$_of_x", direction="lower", margin=0.01 * unit)


def greedy() -> tuple[pd.DataFrame, str]:
    """Two steps of a greedy study, with arms that validation dropped."""
    shifts = {"model.activation=leaky": 0.02, "model.activation=tanh": -0.03,
              "model.activation=leaky,model.dropout=0.3": 0.03}  # fmt: skip
    runs = runs_of(shifts)
    runs.loc[runs["arm"] == "model.activation=tanh", "test_accuracy"] = math.nan
    names = list(shifts)
    path = [
        PathStep("model.activation", "baseline", names[:2], names[0]),
        PathStep("model.dropout", names[0], names[2:], names[2]),
    ]
    return described(runs, path)


def one_seed() -> tuple[pd.DataFrame, str]:
    return described(runs_of({"k=v": 0.01}, seeds=1))


def alone() -> tuple[pd.DataFrame, str]:
    """A single configuration."""
    return described(runs_of({}))


STUDIES: dict[str, Callable[[], tuple[pd.DataFrame, str]]] = {
    "knobs": knobs,
    "15 arms of 90 characters": long_names,
    "special characters": special_names,
    "failed and diverged arms": failed_arms,
    "another metric": another_metric,
    "a metric in thousands": lambda: another_metric(1e4),
    "greedy": greedy,
    "one seed": one_seed,
    "one configuration": alone,
}
