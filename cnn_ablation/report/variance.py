"""The section "variance by source" of a study whose knob is `vary`: table, picture and files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table

from cnn_ablation.analysis.variance import ALL, SUM, variance_columns
from cnn_ablation.report.drawing import Drawing, picture
from cnn_ablation.report.figures.colours import INK, MUTED, VERDICT_STYLE
from cnn_ablation.report.figures.frame import INTERVAL, Entry, inches_of, label_x, legend_above, tidied
from cnn_ablation.report.figures.lettering import as_text, points, wrapped
from cnn_ablation.report.figures.titles import titled
from cnn_ablation.report.files import as_csv
from cnn_ablation.report.pictures import drawn_on_axes
from cnn_ablation.report.terminal import printable, standard_output
from cnn_ablation.report.text import number_format, with_interval
from cnn_ablation.runs.store.memory import Memory
from cnn_ablation.study.metric import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_WITHOUT_TERMINAL = 120
_COLOURS = {ALL: MUTED, SUM: VERDICT_STYLE["undecided"][0]}
_SINGLE = VERDICT_STYLE["equivalent"][0]
_NAMES = 0.34
"""Of the picture's width, for names of sources."""
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
    return {"variance.csv": as_csv(variance)} | picture(variance_drawing(variance, metric), "variance", memory)


def variance_drawing(variance: pd.DataFrame, metric: Metric, *, width: float = 8.0) -> Drawing:
    """The picture of the section, not yet drawn; `width` in inches."""
    title = f"Standard deviation of {metric.words} over seeds by source of chance"
    return drawn_on_axes(
        plot_variance, variance, inches=1.3 + 0.34 * len(variance), width=width, title=title, metric=metric
    )


def plot_variance(variance: pd.DataFrame, ax: Axes, *, metric: Metric, width: float | None = None) -> Axes:
    """Each source's standard deviation over seeds with its interval, and its share of the variance of all together.

    Args:
        variance: from `variance_by_source`.
        ax: drawn on.
        metric: as there.
        width: of the picture in inches; None for what the axes have.
    """
    std, low, high = (variance[name].to_numpy(np.float64) for name in variance_columns(metric)[2:5])
    colours = [_COLOURS.get(source, _SINGLE) for source in variance["source"]]
    places = np.arange(len(variance))
    tidied(ax, grid="x")
    bars = ax.barh(places, np.nan_to_num(std), color=colours, alpha=0.75, height=0.62)
    known = ~np.isnan(low)
    ax.hlines(places[known], low[known], high[known], color=INK, linewidth=1.2)
    ends = np.where(np.isnan(high), np.nan_to_num(std), high)
    remarks = [_remark(row) for _, row in variance.iterrows()]
    for place, end, remark in zip(places, ends, remarks, strict=True):
        ax.annotate(remark, (end, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize="small")
    for bar, source, value, remark in zip(bars, variance["source"], std, remarks, strict=True):
        titled(bar, [f"{source}: {value:.3g}, {remark}"])
    width = width or inches_of(ax)
    names = [wrapped(as_text(str(name)), 72 * _NAMES * width) for name in variance["source"]]
    ax.set_yticks(places, names, fontsize="small")
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(variance) - 0.5, -0.5)
    room = width - max(map(points, names)) / 72 - 0.3
    wanted = max(end + 0.0 for end in ends) or float(np.finfo(float).tiny)
    share = max(0.3, 1 - (max(map(points, remarks)) + 10) / (72 * room))
    ax.set_xlim(0, wanted / share)
    unit = " (percentage points)" if metric.is_accuracy else ""
    words = as_text(metric.words)
    label_x(ax, f"standard deviation of {words} over seeds{unit}; in percent: share of the variance of all", room)
    legend_above(ax, [Entry("interval", INTERVAL, INK)], room)
    return ax


def _remark(row: pd.Series[Any]) -> str:
    """The share in percent; in words where there is none."""
    share = float(row["share"])
    if row["source"] not in (ALL, SUM) and row["note"]:
        return str(row["note"])
    return "" if math.isnan(share) else f"{100 * share:.0f} %"
