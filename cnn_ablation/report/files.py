"""The tables of a study as files, each whole or not at all."""

from __future__ import annotations

import io
import os
from html import escape
from pathlib import Path

import pandas as pd

from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.files import write_atomically
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
    return write_files(folder, table_files(runs, arms, caption))


def table_files(runs: pd.DataFrame, arms: pd.DataFrame, caption: str) -> dict[str, bytes]:
    """Name and content of every file of `write_tables`.

    Raises:
        RecordError: a column cannot be written as Parquet.
    """
    readable = readable_table(arms)
    return {
        "runs.csv": as_csv(runs),
        "runs.parquet": _parquet(runs),
        "ablation.csv": as_csv(arms),
        "ablation.parquet": _parquet(arms),
        "ablation.md": as_text(f"{markdown(readable)}\n\n{caption}\n"),
        "ablation.tex": as_text(_tex(readable, caption)),
        "ablation.html": as_text(_html(arms, readable, caption)),
    }


def write_files(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    """Writes files, none of them where one has a place that is taken.

    Raises:
        RecordError: one of them cannot be written.
    """
    check_folder(folder)
    paths = [folder / name for name in contents]
    for path in paths:
        if path.is_dir():
            raise RecordError(
                f"cannot write {path}: Is a directory\n  remedy: move that folder away, or write elsewhere"
            )
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomically(path, content)
    return paths


def check_folder(folder: Path) -> None:
    """Refuses a place to write to that is, or lies below, a file or a folder without permission.

    Raises:
        RecordError: nothing can be written there.
    """
    if "\0" in str(folder):
        raise RecordError(f"cannot write to {str(folder)!r}: no folder has such a name")
    try:
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise RecordError(f"cannot write to {folder}: {error.strerror or error}") from error
    if not there.is_dir():
        raise RecordError(f"cannot write to {folder}: {there} is a file\n  remedy: the name of a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RecordError(f"cannot write to {folder}: no permission in {there}\n  remedy: another folder")


def markdown(readable: pd.DataFrame) -> str:
    """A table whose texts stay as they are: left for words, right for numbers."""
    sides = ["left" if name in TEXT_COLUMNS else "right" for name in readable.columns]
    return str(readable.to_markdown(index=False, disable_numparse=True, colalign=sides))


def _parquet(frame: pd.DataFrame) -> bytes:
    """A swept key whose levels are of several types becomes text, since a Parquet column has one type."""
    mixed = [name for name in frame.columns if frame[name].map(type).nunique() > 1 and frame[name].dtype == object]
    buffer = io.BytesIO()
    try:
        texts = {name: frame[name].map(str, na_action="ignore") for name in mixed}
        frame.assign(**texts).to_parquet(buffer, index=False)
    except (ValueError, TypeError, NotImplementedError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise RecordError(f"a column of the table cannot be written as Parquet ({reason})") from error
    return buffer.getvalue()


def _tex(readable: pd.DataFrame, caption: str) -> str:
    """A booktabs table; names like batch_norm are escaped."""
    style = readable.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    columns = "".join("l" if name in TEXT_COLUMNS else "r" for name in readable.columns)
    text: str = style.to_latex(hrules=True, caption=_tex_escape(caption), column_format=columns, position="htbp")
    return text.replace("& <", "& $<$")


_TEX = str.maketrans(
    {character: rf"\{character}" for character in "%_&#${}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "±": r"$\pm$"}
)


def _tex_escape(text: str) -> str:
    return text.translate(_TEX)


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


def as_csv(frame: pd.DataFrame) -> bytes:
    """A frame as UTF-8; names of folders that are no Unicode keep what they are."""
    return frame.to_csv(index=False).encode(errors="surrogateescape")


def as_text(text: str) -> bytes:
    """A text as UTF-8, with `?` for what is no Unicode."""
    return text.encode(errors="replace")
