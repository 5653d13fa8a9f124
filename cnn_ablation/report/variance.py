"""The section "variance by source" of a study whose knob is `vary`: table, picture and files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table

from cnn_ablation.analysis.variance import ALL, SUM, variance_columns
from cnn_ablation.report.drawing import picture
from cnn_ablation.report.files import as_csv
from cnn_ablation.report.pictures import drawn_on_axes
from cnn_ablation.report.terminal import printable, standard_output
from cnn_ablation.report.text import number_format, with_interval
from cnn_ablation.runs.store.memory import Memory
from cnn_ablation.study.metric import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_WITHOUT_TERMINAL = 120
_COLOURS = {ALL: "#6F6F6F", SUM: "#A8A8A8"}
_SINGLE = "#0072B2"
HOW_TO_READ = (
    "Standard deviation over seeds with its interval (chi-squared), and the share of its square in that of all "
    "together (F), for normal values. What a row does not name stands still, as seed 0 draws it."
)


def readable_variance(variance: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The frame of `variance_by_source` as text, shares in percent."""
    _, _, *deviation = variance_columns(metric)[:5]
    form = "{:.2f}" if metric.is_accuracy else number_format(variance[deviation])
    return pd.DataFrame(
        {
            "source": row["source"],
            "n": "" if pd.isna(row["n"]) else f"{row['n']:.0f}",
            f"std of {metric.words}{', pp' if metric.is_accuracy else ''}": with_interval(row[deviation], form),
            "share of variance, %": with_interval(100 * row[["share", "share_ci_low", "share_ci_high"]], "{:.0f}")
            if row["source"] != ALL
            else "100",
            "note": row["note"],
        }
        for _, row in variance.iterrows()
    )


def print_variance(variance: pd.DataFrame, metric: Metric) -> None:
    """Prints the section to standard output."""
    readable = readable_variance(variance, metric).map(printable)
    table = Table(
        title="Variance by source", title_justify="left", caption=HOW_TO_READ, caption_justify="left", box=box.SIMPLE
    )
    for name in readable.columns:
        table.add_column(name, justify="left" if name in ("source", "note") else "right", overflow="fold")
    for row in readable.itertuples(index=False):
        table.add_row(*row)
    standard_output(_WIDTH_WITHOUT_TERMINAL).print(table)


def variance_files(variance: pd.DataFrame, metric: Metric, memory: Memory | None = None) -> dict[str, bytes]:
    """variance.csv, .png and .svg; `memory` as `drawing.picture` takes it."""
    drawing = drawn_on_axes(plot_variance, variance, inches=1.6 + 0.42 * len(variance), metric=metric)
    return {"variance.csv": as_csv(variance)} | picture(drawing, "variance", memory)


def plot_variance(variance: pd.DataFrame, ax: Axes, *, metric: Metric) -> Axes:
    """Each source's standard deviation over seeds with its interval, and its share of the variance of all together.

    Args:
        variance: from `variance_by_source`.
        ax: drawn on.
        metric: as there.
    """
    std, low, high = (variance[name].to_numpy(np.float64) for name in variance_columns(metric)[2:5])
    colours = [_COLOURS.get(source, _SINGLE) for source in variance["source"]]
    places = np.arange(len(variance))
    ax.barh(places, np.nan_to_num(std), color=colours, alpha=0.75, height=0.62)
    spread = np.nan_to_num(np.stack([std - low, high - std]))
    ax.errorbar(np.nan_to_num(std), places, xerr=spread, fmt="none", ecolor="black", capsize=3)
    ends = np.where(np.isnan(high), np.nan_to_num(std), high)
    for place, end, (_, row) in zip(places, ends, variance.iterrows(), strict=True):
        ax.annotate(
            _remark(row), (end, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize="small"
        )
    ax.set_yticks(places, [name.replace("$", r"\$") for name in variance["source"]])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.25 * max(float(ends.max()), np.finfo(float).tiny))
    unit = " (percentage points)" if metric.is_accuracy else ""
    words = metric.words.replace("$", r"\$")
    ax.set_xlabel(f"standard deviation of {words} over seeds{unit}\nin percent: share of the variance of all together")
    return ax


def _remark(row: pd.Series[Any]) -> str:
    """The share in percent; in words where there is none."""
    share = float(row["share"])
    if row["source"] not in (ALL, SUM) and row["note"]:
        return str(row["note"])
    return "" if math.isnan(share) else f"{100 * share:.0f} %"
