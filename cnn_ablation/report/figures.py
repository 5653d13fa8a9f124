"""Pictures of an ablation. Each function takes tables and an `ax`, draws on it and returns it; none reads files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation.study.designs import BASELINE, FULL
from cnn_ablation.study.metric import Metric, metric_of_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

MAX_NAMES_INSIDE = 6  # arms in a legend from which it stands beside the curves
_MOST_BARS = 10
_MOST_TICKS = 30  # values of a knob that stand below its axis each
MIN_LOG_SPAN = 4  # largest over smallest value from which an axis is logarithmic

# Okabe and Ito's colours, which colour-blind readers can tell apart; the marker says the same in black and white.
VERDICT_STYLE = {
    "baseline": ("#000000", "s"),
    "better": ("#009E73", "^"),
    "worse": ("#D55E00", "v"),
    "equivalent": ("#0072B2", "D"),
    "undecided": ("#8A8A8A", "o"),
}


def folded(arm: str) -> str:
    """An arm's name with one setting per line; commas inside lists and dictionaries stay, and $ starts no formula."""
    return ",\n".join(re.split(r",(?=[\w.]+=)", arm)).replace("$", r"\$")


def plot_differences(arms: pd.DataFrame, ax: Axes, *, margin_pp: float | None = None) -> Axes:
    """Forest plot: each arm's difference from the baseline with its interval, in points or the metric's own unit.

    Args:
        arms: from `ablation_table`.
        ax: drawn on.
        margin_pp: half-width of the grey band inside which differences do not matter, of accuracies; None for the one
            that the table was made with.
    """
    from cnn_ablation.analysis.tables import reference_words  # imports scipy, which other pictures do not need

    compared, metric = arms[arms["verdict"] != BASELINE].reset_index(drop=True), _metric(arms)
    unit = " pp" if metric.is_accuracy else ""
    if half := margin_pp or metric.margin:
        ax.axvspan(-half, half, color="0.93", zorder=0, label=f"margin ±{half:g}{unit}")
    ax.axvline(0, color="black", linewidth=0.8, zorder=1)
    deltas = compared[metric.delta[0]]
    for verdict, (colour, marker) in VERDICT_STYLE.items():
        rows = compared[(compared["verdict"] == verdict) & deltas.notna()]
        if len(rows):
            mean, *limits = (rows[name].to_numpy() for name in metric.delta)
            spread = _error_bars(mean, *limits)
            ax.errorbar(mean, rows.index, xerr=spread, fmt=marker, color=colour, capsize=3, label=verdict)
    remarks = deltas.map(lambda delta: "\n(not compared)" if np.isnan(delta) else "")
    ax.set_yticks(range(len(compared)), compared["arm"].map(folded) + remarks)
    ax.set_ylim(len(compared) - 0.5, -0.5)
    what = " (percentage points)" if metric.is_accuracy else f" ({metric.direction} is better)"
    ax.set_xlabel(f"difference in {_name(metric)} from {reference_words(arms)}{what}")
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_metric(arms: pd.DataFrame, ax: Axes) -> Axes:
    """The metric of every arm with its interval, accuracies in percent."""
    metric = _metric(arms)
    for position, (_, row) in enumerate(arms.iterrows()):
        colour, marker = VERDICT_STYLE[row["verdict"]]
        mean, spread = _estimate(row, metric)
        ax.errorbar(mean, position, xerr=spread, fmt=marker, color=colour, capsize=3)
    ax.set_yticks(range(len(arms)), arms["arm"].map(folded))
    ax.set_ylim(len(arms) - 0.5, -0.5)
    ax.set_xlabel(_axis_label(metric))
    return ax


def plot_metric_against_time(arms: pd.DataFrame, ax: Axes) -> Axes:
    """The metric, accuracies in percent, against the seconds spent in training, one numbered point per arm."""
    metric = _metric(arms)
    for number, (_, row) in enumerate(arms.iterrows()):
        colour, marker = VERDICT_STYLE[row["verdict"]]
        mean, spread = _estimate(row, metric)
        at = (row["train_seconds_mean"], mean)
        ax.errorbar(*at, yerr=spread, fmt=marker, color=colour, capsize=3, label=f"{number}  {folded(row['arm'])}")
        ax.annotate(str(number), at, xytext=(5, 5), textcoords="offset points", fontsize="small", color=colour)
    ax.set_xlabel("training time (s)")
    ax.set_ylabel(_axis_label(metric))
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def numeric_levels(runs: pd.DataFrame, arms: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Of each knob whose levels are numbers: the values by arm, with the baseline's, in ascending order.

    Only arms that change nothing but this knob count.

    Args:
        runs: from `load_runs`, with a column per swept key.
        arms: from `ablation_table`.
    """
    found = {}
    for key, rows in arms[arms["arm"] == arms["knob"] + "=" + arms["level"]].groupby("knob", sort=False):
        names = [BASELINE, *rows["arm"]]
        if key not in runs.columns or not runs["arm"].eq(BASELINE).any():
            continue
        values = runs[runs["arm"].isin(names)].groupby("arm", sort=False)[key].first()
        if all(isinstance(value, int | float) and not isinstance(value, bool | np.bool_) for value in values) and (
            np.isfinite(values.astype(float)).all()  # null, a level of some keys, has no place on an axis
        ):
            found[str(key)] = values.astype(float).sort_values()
    return found


def plot_levels(arms: pd.DataFrame, values: pd.Series[float], ax: Axes, *, key: str) -> Axes:
    """The metric with its interval over the values of a numeric knob, on a logarithmic axis where they span decades.

    Args:
        arms: from `ablation_table`.
        values: by arm, from `numeric_levels`.
        ax: drawn on.
        key: the knob, for the axis.
    """
    rows, metric = arms.set_index("arm").loc[list(values.index)], _metric(arms)
    ax.plot(values, metric.factor * rows[metric.estimate[0]], color="0.8", zorder=1)
    for verdict, alike in rows.groupby("verdict", sort=False):
        colour, marker = VERDICT_STYLE[str(verdict)]
        mean, spread = _estimates(alike, metric)
        ax.errorbar(values[alike.index], mean, yerr=spread, fmt=marker, color=colour, capsize=3, label=verdict)
    if values.min() > 0 and values.max() / values.min() >= MIN_LOG_SPAN:
        from matplotlib.ticker import NullFormatter

        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    if len(values) <= _MOST_TICKS:
        ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.set_xlabel(key)
    ax.set_ylabel(_axis_label(metric))
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend(handles.values(), handles.keys(), frameon=False, fontsize="small")
    return ax


def plot_curves(curves: pd.DataFrame, ax: Axes, *, column: str = "val_accuracy") -> Axes:
    """Learning curves: the mean over seeds of `column` by epoch, one line per arm, with the range over seeds.

    Where some seeds have stopped early, the mean of the others is dotted.

    Args:
        curves: from `load_curves`.
        ax: drawn on.
        column: `train_loss`, `val_loss`, `val_accuracy` (drawn in percent), or what a task of one's own reports.
    """
    shown = Metric(column)
    factor = shown.factor
    for arm, points in curves.groupby("arm", sort=False):
        by_epoch = points.groupby("epoch")[column].agg(["mean", "min", "max", "count"]) * [factor, factor, factor, 1]
        whole = by_epoch[by_epoch["count"] == by_epoch["count"].max()]
        style: dict[str, Any] = {"color": "black", "linewidth": 2.5} if arm in (BASELINE, FULL) else {}
        (line,) = ax.plot(whole.index, whole["mean"], marker="o", markersize=3, label=folded(str(arm)), **style)
        if len(whole) < len(by_epoch):  # a mean of fewer seeds is not the mean of all
            rest = by_epoch.loc[whole.index[-1] :]
            ax.plot(rest.index, rest["mean"], linestyle=":", color=line.get_color())
        ax.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=line.get_color(), alpha=0.15)
    some = curves.groupby(["arm", "epoch"]).size().groupby("arm").nunique().gt(1).any()
    ax.set_xlabel("epoch (dotted: some seeds had stopped)" if some else "epoch")
    ax.set_ylabel(f"{shown.words} (%)" if shown.is_accuracy else _name(shown))
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    ax.legend(frameon=False, fontsize="small", **(beside if curves["arm"].nunique() > MAX_NAMES_INSIDE else {}))
    return ax


def plot_confusion(counts: npt.ArrayLike, class_names: Sequence[str], ax: Axes) -> Axes:
    """Confusion matrix: percent of each true class (rows) by predicted class, the number where it is not 0.

    Args:
        counts: images (K, K), true class by predicted class.
        class_names: K names.
        ax: drawn on.
    """
    images = np.asarray(counts, dtype=np.float64)
    percent = 100 * images / np.maximum(images.sum(axis=1, keepdims=True), 1)
    ax.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    places = range(len(class_names))
    ax.set_xticks(places, class_names, rotation=45, ha="right")
    ax.set_yticks(places, class_names)
    for row, column in np.argwhere(percent >= 0.5):
        value = percent[row, column]
        colour = "white" if value > 60 else "black"
        ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize="small", color=colour)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class (rows sum to 100 %)")
    return ax


def plot_image(pixels: npt.NDArray[np.uint8], ax: Axes, *, title: str = "", colour: str = "black") -> Axes:
    """A picture, uint8 (channels, height, width) or (height, width, channels) with 1 or 3 channels."""
    image = pixels.transpose(1, 2, 0) if pixels.shape[0] in (1, 3) and pixels.shape[-1] not in (1, 3) else pixels
    ax.imshow(image.squeeze(), cmap="gray" if image.shape[-1] == 1 else None, vmin=0, vmax=255)
    ax.set_title(title, fontsize="small", color=colour)
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def plot_probabilities(
    probabilities: npt.ArrayLike, class_names: Sequence[str], ax: Axes, *, true_class: int | None = None
) -> Axes:
    """Bar chart of one picture's class probabilities in percent: blue the prediction, red a true class that it missed.

    Args:
        probabilities: float (K,).
        class_names: K names; beyond ten classes the ten most probable are drawn.
        ax: drawn on.
        true_class: where it is known.
    """
    percent = 100 * np.asarray(probabilities, dtype=np.float64)
    shown = np.sort(np.argsort(-percent, kind="stable")[:_MOST_BARS])
    best = int(percent.argmax())
    colours = ["#0072B2" if place == best else "#D55E00" if place == true_class else "0.75" for place in shown]
    ax.barh([str(class_names[place]) for place in shown], percent[shown], color=colours)
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("probability (%)", fontsize="small")
    ax.tick_params(labelsize="small")
    return ax


def _metric(arms: pd.DataFrame) -> Metric:
    return metric_of_table(arms.attrs, arms.columns)


def _name(metric: Metric) -> str:
    """A column may have any name; $ starts no formula."""
    return metric.words.replace("$", r"\$")


def _axis_label(metric: Metric) -> str:
    return f"{metric.words} (%)" if metric.is_accuracy else f"{_name(metric)} ({metric.direction} is better)"


def _estimate(row: pd.Series[Any], metric: Metric) -> tuple[float, Floats]:
    """The metric's mean and the distances (2, 1) to its limits, as they are drawn."""
    mean, _, low, high = (metric.factor * row[name] for name in metric.estimate)
    return mean, _error_bars(np.array([mean]), np.array([low]), np.array([high]))


def _estimates(arms: pd.DataFrame, metric: Metric) -> tuple[Floats, Floats]:
    """The same of several arms (n,), (2, n)."""
    mean, _, low, high = (metric.factor * arms[name].to_numpy(np.float64) for name in metric.estimate)
    return mean, _error_bars(mean, low, high)


def _error_bars(mean: Floats, low: Floats, high: Floats) -> Floats:
    """Distances (2, n) from a mean to its limits; 0 where there is no limit.

    So too where the mean lies beyond it: an interval that holds at every number of seeds keeps what earlier ones ruled
    out.
    """
    distances: Floats = np.nan_to_num(np.stack([mean - low, high - mean]), posinf=0.0, neginf=0.0)
    return np.maximum(distances, 0.0)
