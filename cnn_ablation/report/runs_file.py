"""A table of runs from a file."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from cnn_ablation.common.errors import RecordError

_TEXT_COLUMNS = ("arm", "knob", "level", "status", "hardware", "error", "dead_layer", "saturated_layer")
# What stands for a missing number. In texts `null` or `None` is a word, the name of a level; nothing is empty there.
_MISSING_NUMBERS = ("", "NaN", "nan", "NA", "N/A", "null", "None")
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zip": "zip", ".zst": "zstd"}


def read_runs_file(path: str | Path) -> pd.DataFrame:
    """A table of runs from CSV or Parquet.

    Raises:
        RecordError: it cannot be read.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pandas only warns of lines that are longer than the header
            return pd.read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except Exception as error:  # whatever pandas, pyarrow and what unpacks files raise
        told = error.strerror if isinstance(error, OSError) else None  # the path is named already
        reason = told or str(error).strip().partition("\n")[0] or type(error).__name__
        raise RecordError(f"{path} cannot be read as a table of runs ({reason})") from error


def _read_csv(path: Path) -> pd.DataFrame:
    content = path.read_bytes()  # once: it may be a pipe
    how: dict[str, Any] = {"compression": _COMPRESSIONS.get(path.suffix.lower()), "index_col": False}
    names = pd.read_csv(io.BytesIO(content), nrows=0, **how).columns
    missing = {name: [] if name in _TEXT_COLUMNS else list(_MISSING_NUMBERS) for name in names}
    texts = {name: str for name in _TEXT_COLUMNS if name in names}
    how |= {"dtype": texts, "keep_default_na": False, "na_values": missing, "low_memory": False}
    frame: pd.DataFrame = pd.read_csv(io.BytesIO(content), **how)
    return frame
