"""The tables of a study as files, each whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pandas as pd
from pandas.api import types

from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.files import write_together
from cnn_ablation.report.html_table import html_page
from cnn_ablation.report.markdown import markdown_page
from cnn_ablation.report.tex_table import tex_table

_COUNTS = (
    "n", "seeds_needed_low", "seeds_needed", "num_params", "updates", "num_failed", "seed", "epochs", "threads",
    "concurrent_runs", "num_classes", "multiply_adds",
)  # fmt: skip
"""Columns of whole numbers, which pandas keeps as floats where some are missing or are means of equal ones."""


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
    return {
        "runs.csv": as_csv(runs),
        "runs.parquet": _parquet(runs),
        "ablation.csv": as_csv(arms),
        "ablation.parquet": _parquet(arms),
        "ablation.md": as_text(markdown_page(arms, caption)),
        "ablation.tex": as_text(tex_table(arms, caption)),
        "ablation.html": as_text(html_page(arms, caption)),
    }


def write_files(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    """Writes files all or none: on a full disk, or where a place is taken, those of an earlier report stay together.

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
    write_together(dict(zip(paths, contents.values(), strict=True)))
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


def _parquet(frame: pd.DataFrame) -> bytes:
    """With counts as whole numbers; a key whose levels are of several types becomes text, as a column has one type."""
    mixed = [name for name in frame.columns if frame[name].map(type).nunique() > 1 and frame[name].dtype == object]
    buffer = io.BytesIO()
    try:
        texts = {name: frame[name].map(str, na_action="ignore") for name in mixed}
        _with_counts(frame).assign(**texts).to_parquet(buffer, index=False)
    except (ValueError, TypeError, NotImplementedError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise RecordError(f"a column of the table cannot be written as Parquet ({reason})") from error
    return buffer.getvalue()


def as_csv(frame: pd.DataFrame) -> bytes:
    """A frame as UTF-8, with counts as whole numbers; names of folders that are no Unicode keep what they are."""
    return _with_counts(frame).to_csv(index=False).encode(errors="surrogateescape")


def _with_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """With counts as whole numbers, which may be missing."""
    floats = [name for name in _COUNTS if name in frame and types.is_float_dtype(frame[name])]
    counts = [name for name in floats if (frame[name].isna() | (frame[name] % 1 == 0)).all()]
    return frame.astype({name: "Int64" if frame[name].isna().any() else "int64" for name in counts})


def as_text(text: str) -> bytes:
    """A text as UTF-8, with `?` for what is no Unicode."""
    return text.encode(errors="replace")
