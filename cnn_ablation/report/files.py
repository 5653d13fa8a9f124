"""The tables of a study as files, each whole or not at all."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path

import pandas as pd

from cnn_ablation.records import write_atomically
from cnn_ablation.report.text import TEXT_COLUMNS, readable_table

_COLOURS = {"better": "#d8f0dc", "worse": "#f8dcdc", "equivalent": "#d9eef5", "undecided": "#f7f0d0", "baseline": ""}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Ablation</title><style>
body {{ font-family: system-ui, sans-serif; margin: 2rem; color: #222; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
caption {{ caption-side: bottom; text-align: left; padding-top: .8rem; color: #555; max-width: 70rem; }}
th, td {{ padding: .35rem .7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }}
td:first-child {{ white-space: normal; overflow-wrap: anywhere; min-width: 13rem; max-width: 26rem; }}
td:last-child {{ white-space: normal; min-width: 18rem; }}
</style></head><body>
{table}
</body></html>
"""


def write_tables(folder: Path, runs: pd.DataFrame, arms: pd.DataFrame, caption: str) -> list[Path]:
    """Writes runs.csv and .parquet and ablation.csv, .parquet, .md, .tex and .html.

    Returns:
        The files written.

    Raises:
        RecordError: one of them cannot be written.
    """
    readable = readable_table(arms)
    contents = {
        "runs.csv": runs.to_csv(index=False).encode(),
        "runs.parquet": _parquet(runs),
        "ablation.csv": arms.to_csv(index=False).encode(),
        "ablation.parquet": _parquet(arms),
        "ablation.md": f"{markdown(readable)}\n\n{caption}\n".encode(),
        "ablation.tex": _tex(readable, caption).encode(),
        "ablation.html": _html(arms, readable, caption).encode(),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def markdown(readable: pd.DataFrame) -> str:
    """A table whose texts stay as they are: left for words, right for numbers."""
    sides = ["left" if name in TEXT_COLUMNS else "right" for name in readable.columns]
    return str(readable.to_markdown(index=False, disable_numparse=True, colalign=sides))


def _parquet(frame: pd.DataFrame) -> bytes:
    """A swept key whose levels are of several types becomes text, since a Parquet column has one type."""
    mixed = [name for name in frame.columns if frame[name].map(type).nunique() > 1 and frame[name].dtype == object]
    buffer = io.BytesIO()
    frame.astype(dict.fromkeys(mixed, str)).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _tex(readable: pd.DataFrame, caption: str) -> str:
    """A booktabs table; names like batch_norm are escaped."""
    style = readable.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    columns = "".join("l" if name in TEXT_COLUMNS else "r" for name in readable.columns)
    text: str = style.to_latex(hrules=True, caption=_tex_escape(caption), column_format=columns, position="htbp")
    return text.replace("& <", "& $<$")


def _tex_escape(text: str) -> str:
    return text.replace("%", r"\%").replace("_", r"\_").replace("±", r"$\pm$")


def _html(arms: pd.DataFrame, readable: pd.DataFrame, caption: str) -> str:
    """A page with the table, rows coloured by verdict."""
    colours = [f"background-color: {_COLOURS[verdict]}" if _COLOURS[verdict] else "" for verdict in arms["verdict"]]
    styler = (
        readable.style.hide(axis="index")
        .set_uuid("ablation")  # not random: the same table gives the same page
        .format(escape="html")
        .apply(lambda column: colours, axis=0)
        .set_caption(escape(caption))
    )
    return _PAGE.format(table=styler.to_html())


def write_frame(folder: Path, name: str, frame: pd.DataFrame) -> Path:
    """Writes one more table as CSV.

    Raises:
        RecordError: it cannot be written.
    """
    path = folder / f"{name}.csv"
    write_atomically(path, frame.to_csv(index=False).encode())
    return path
