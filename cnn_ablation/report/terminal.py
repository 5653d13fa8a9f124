"""The ablation table on the terminal: one line per arm where it fits, two where it does not."""

from __future__ import annotations

import sys

import pandas as pd
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from cnn_ablation.report.text import NOT_YET, SCORES, TEXT_COLUMNS, readable_table
from cnn_ablation.study.metric import Metric, metric_of_table

_COLOURS = {"better": "green", "worse": "red", "equivalent": "cyan", "undecided": "yellow", "baseline": "bold"}
_WIDTH_WITHOUT_TERMINAL = 200
_MOST_ARMS = 40  # besides the one that others are compared with; a longer table is read from its file


def standard_output(width_elsewhere: int) -> Console:
    """A console on standard output, `width_elsewhere` columns wide where that is no terminal."""
    is_terminal = sys.stdout.isatty()  # rich alone would also believe FORCE_COLOR, which notebooks set
    width = None if is_terminal else width_elsewhere
    return Console(force_terminal=is_terminal, width=width, highlight=False, markup=False)


def printable(text: str) -> str:
    """A text with `?` for every character that the encoding of standard output lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def print_table(arms: pd.DataFrame, caption: str) -> None:
    """Prints the table of arms to standard output, coloured by verdict on a terminal; of many arms a part."""
    shown = _shortened(arms)
    if len(shown) < len(arms):
        half = f"{_MOST_ARMS // 2} of the {len(arms)} arms with the best and with the worst {_score(arms).column}"
        caption = f"Here are {half}, and {arms['arm'].iloc[0]}; all are in ablation.md and ablation.csv. {caption}"
    arms, console, caption = shown, standard_output(_WIDTH_WITHOUT_TERMINAL), printable(caption)
    readable = readable_table(arms).map(printable)
    colours = [_COLOURS[verdict] for verdict in arms["verdict"]]
    wide = _rich_table(_without_empty(readable), colours, caption, box.HEAVY_HEAD)
    needed = Measurement.get(console, console.options.update(width=10 * _WIDTH_WITHOUT_TERMINAL), wide).maximum
    if needed <= console.width:
        console.print(wide)
    else:
        console.print(_rich_table(_two_lines(readable), colours, caption, box.HORIZONTALS))


def _score(arms: pd.DataFrame) -> Metric:
    return metric_of_table(arms.attrs, arms.columns)


def _shortened(arms: pd.DataFrame) -> pd.DataFrame:
    """The arm that others are compared with, and those with the best and the worst scores, in their order."""
    if len(arms) <= _MOST_ARMS + 1:
        return arms
    metric = _score(arms)
    best_first = arms[metric.estimate[0]].iloc[1:].sort_values(ascending=metric.direction == "lower", kind="stable")
    extreme = [*best_first.index[: _MOST_ARMS // 2], *best_first.dropna().index[-_MOST_ARMS // 2 :]]
    return arms[arms.index.isin([arms.index[0], *extreme])]


def _rich_table(readable: pd.DataFrame, colours: list[str], caption: str, borders: box.Box) -> Table:
    narrow = borders is box.HORIZONTALS
    table = Table(
        caption=caption,
        caption_justify="left",
        header_style="bold",
        box=borders,
        padding=0 if narrow else (0, 1),
        pad_edge=not narrow,
        show_lines=narrow,
    )
    for column in readable.columns:
        is_text = column in TEXT_COLUMNS
        table.add_column(
            column, justify="left" if is_text else "right", overflow="fold", no_wrap=column not in TEXT_COLUMNS
        )
    for colour, values in zip(colours, readable.itertuples(index=False), strict=True):
        table.add_row(*values, style=colour)
    return table


def _without_empty(readable: pd.DataFrame) -> pd.DataFrame:
    """Leaves out columns that have nothing to say about any arm."""
    return readable.drop(columns=[name for name in ("more seeds", "notes") if not readable[name].any()])


def _two_lines(readable: pd.DataFrame) -> pd.DataFrame:
    """The same for 80 columns: intervals below their estimates, notes below the arm."""
    with_interval = {name: readable[name].str.replace(" [", "\n[") for name in readable.columns[SCORES]}
    more_seeds, ratio = readable["more seeds"].replace(NOT_YET, "?"), readable["time ratio"].str.partition(" ")[0]
    return pd.DataFrame(
        {
            "arm": _below(readable["arm"], readable["notes"]),
            "n": readable["n"],
            **with_interval,
            "p": readable.filter(like="p (").iloc[:, 0],
            "verdict": _below(readable["verdict"], ("+" + more_seeds + " seeds").where(more_seeds != "", "")),
            "train s": _below(readable["train s"], (printable("×").replace("?", "x") + ratio).where(ratio != "", "")),
        }
    )


def _below(first: pd.Series[str], second: pd.Series[str]) -> pd.Series[str]:
    """Two texts on two lines, or one where there is only one."""
    return (first + "\n" + second).str.rstrip("\n")
