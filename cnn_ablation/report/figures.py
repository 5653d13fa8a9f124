"""Pictures of an ablation. Each function takes tables and an `ax`, draws on it and returns it; none reads files."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from cnn_ablation.designs import BASELINE

Floats = npt.NDArray[np.float64]

# Okabe and Ito's colours, which colour-blind readers can tell apart; the marker says the same in black and white.
VERDICT_STYLE = {
    "baseline": ("#000000", "s"),
    "better": ("#009E73", "^"),
    "worse": ("#D55E00", "v"),
    "equivalent": ("#0072B2", "D"),
    "undecided": ("#8A8A8A", "o"),
}


def plot_differences(arms: pd.DataFrame, ax: Axes, *, margin_pp: float = 0.5) -> Axes:
    """Forest plot: each arm's difference from the baseline in percentage points with its interval.

    Args:
        arms: from `ablation_table`.
        ax: drawn on.
        margin_pp: half-width of the grey band inside which differences do not matter.
    """
    compared = arms[arms["arm"] != BASELINE].reset_index(drop=True)
    ax.axvspan(-margin_pp, margin_pp, color="0.93", zorder=0, label=f"margin ±{margin_pp:g} pp")
    ax.axvline(0, color="black", linewidth=0.8, zorder=1)
    for verdict, (colour, marker) in VERDICT_STYLE.items():
        rows = compared[compared["verdict"] == verdict]
        if len(rows):
            spread = _error_bars(
                *(rows[name].to_numpy() for name in ("delta_pp", "delta_ci_low_pp", "delta_ci_high_pp"))
            )
            ax.errorbar(rows["delta_pp"], rows.index, xerr=spread, fmt=marker, color=colour, capsize=3, label=verdict)
    ax.set_yticks(range(len(compared)), compared["arm"])
    ax.set_ylim(len(compared) - 0.5, -0.5)
    ax.set_xlabel("difference in test accuracy from the baseline (percentage points)")
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_accuracy(arms: pd.DataFrame, ax: Axes) -> Axes:
    """Test accuracy of every arm in percent with its interval."""
    for position, (_, row) in enumerate(arms.iterrows()):
        colour, marker = VERDICT_STYLE[row["verdict"]]
        mean, spread = _accuracy_percent(row)
        ax.errorbar(mean, position, xerr=spread, fmt=marker, color=colour, capsize=3)
    ax.set_yticks(range(len(arms)), arms["arm"])
    ax.set_ylim(len(arms) - 0.5, -0.5)
    ax.set_xlabel("test accuracy (%)")
    return ax


def plot_accuracy_against_time(arms: pd.DataFrame, ax: Axes) -> Axes:
    """Test accuracy in percent against the seconds spent in training steps, one numbered point per arm."""
    for number, (_, row) in enumerate(arms.iterrows()):
        colour, marker = VERDICT_STYLE[row["verdict"]]
        mean, spread = _accuracy_percent(row)
        at = (row["train_seconds_mean"], mean)
        ax.errorbar(*at, yerr=spread, fmt=marker, color=colour, capsize=3, label=f"{number}  {row['arm']}")
        ax.annotate(str(number), at, xytext=(5, 5), textcoords="offset points", fontsize="small", color=colour)
    ax.set_xlabel("training time (s)")
    ax.set_ylabel("test accuracy (%)")
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def plot_curves(curves: pd.DataFrame, ax: Axes, *, column: str = "val_accuracy") -> Axes:
    """Learning curves: the mean over seeds of `column` by epoch, one line per arm, with the range over seeds.

    Args:
        curves: from `load_curves`.
        ax: drawn on.
        column: `train_loss`, `val_loss` (nats) or `val_accuracy` (drawn in percent).
    """
    factor = 100 if column.endswith("accuracy") else 1
    for arm, points in curves.groupby("arm", sort=False):
        by_epoch = factor * points.groupby("epoch")[column].agg(["mean", "min", "max"])
        style: dict[str, Any] = {"color": "black", "linewidth": 2.5} if arm == BASELINE else {}
        (line,) = ax.plot(by_epoch.index, by_epoch["mean"], marker="o", markersize=3, label=str(arm), **style)
        ax.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=line.get_color(), alpha=0.15)
    ax.set_xlabel("epoch")
    ax.set_ylabel(column.replace("val_", "validation ").replace("_", " ") + (" (%)" if factor == 100 else " (nats)"))
    ax.legend(frameon=False, fontsize="small")
    return ax


def _accuracy_percent(row: pd.Series[Any]) -> tuple[float, Floats]:
    """Mean test accuracy and the distances (2, 1) to its limits, in percent."""
    mean, low, high = (100 * row[f"test_accuracy_{name}"] for name in ("mean", "ci_low", "ci_high"))
    return mean, _error_bars(np.array([mean]), np.array([low]), np.array([high]))


def _error_bars(mean: Floats, low: Floats, high: Floats) -> Floats:
    """Distances (2, n) from a mean to its limits; 0 where there is no interval."""
    distances: Floats = np.nan_to_num(np.stack([mean - low, high - mean]))
    return distances
