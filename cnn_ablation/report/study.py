"""The whole report of a study: read what is on disk, compute, print, write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cnn_ablation import tables
from cnn_ablation.config import StatsConfig
from cnn_ablation.errors import RecordError
from cnn_ablation.plans import counted, read_plan
from cnn_ablation.records import read_run, record_paths
from cnn_ablation.report.files import write_tables
from cnn_ablation.report.pictures import write_pictures
from cnn_ablation.report.terminal import print_table
from cnn_ablation.report.text import caption

_TEXT_COLUMNS = ("arm", "knob", "level", "error")  # empty means empty here, not missing


@dataclass(frozen=True)
class Report:
    """The table of runs and the table of arms made from it."""

    runs: pd.DataFrame
    arms: pd.DataFrame


def report_study(
    folder: Path, out: Path | None = None, *, alpha: float | None = None, margin_pp: float | None = None
) -> Report:
    """Rebuilds every table and picture of a study from the records in its folder.

    Args:
        folder: the study's folder.
        out: where to write; None for the study's folder.
        alpha: None for the study's own.
        margin_pp: None for the study's own.

    Raises:
        RecordError: there is nothing to report, or a table cannot be written.
    """
    plan = read_plan(folder)
    runs, curves = tables.load_runs(folder), tables.load_curves(folder)
    unfinished = plan.num_runs - len(runs)
    made_with = _made_with(folder)
    if unfinished:
        made_with = f"{unfinished} of {plan.num_runs} planned runs have not finished. {made_with}"
    return _report(
        runs,
        curves,
        out or folder,
        alpha=plan.alpha if alpha is None else alpha,
        margin_pp=plan.margin_pp if margin_pp is None else margin_pp,
        made_with=made_with,
    )


def report_runs(runs_file: Path, out: Path, *, alpha: float | None = None, margin_pp: float | None = None) -> Report:
    """The same from a table of runs alone, which holds no learning curves.

    Raises:
        RecordError: the file cannot be read, lacks columns, or a table cannot be written.
    """
    defaults = StatsConfig()
    return _report(
        read_runs_file(runs_file),
        pd.DataFrame(),
        out,
        alpha=defaults.alpha if alpha is None else alpha,
        margin_pp=defaults.margin_pp if margin_pp is None else margin_pp,
    )


def read_runs_file(path: Path) -> pd.DataFrame:
    """A table of runs from CSV or Parquet.

    Raises:
        RecordError: it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        runs = pd.read_csv(path, dtype=dict.fromkeys(_TEXT_COLUMNS, str))
        return runs.fillna({name: "" for name in _TEXT_COLUMNS if name in runs.columns})
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read as a table of runs ({error})") from error


def _report(
    runs: pd.DataFrame, curves: pd.DataFrame, out: Path, *, alpha: float, margin_pp: float, made_with: str = ""
) -> Report:
    arms = tables.ablation_table(runs, alpha=alpha, margin_pp=margin_pp)
    text = caption(runs, arms, alpha=alpha, margin_pp=margin_pp, made_with=made_with)
    try:
        written = write_tables(out, runs, arms, text) + write_pictures(out, arms, curves, margin_pp=margin_pp)
    finally:  # on a full disk the screen is the only place left
        print_table(arms, text)
    print(f"written to {_short(out)}: {', '.join(_grouped(written))}")
    return Report(runs, arms)


def _grouped(files: list[Path]) -> list[str]:
    """`ablation.csv .parquet .md`: files of one name together."""
    by_stem: dict[str, list[str]] = {}
    for path in files:
        by_stem.setdefault(path.stem, []).append(path.suffix)
    return [f"{stem}{' '.join(suffixes)}" for stem, suffixes in by_stem.items()]


def _short(folder: Path) -> Path:
    """The folder as a person would type it here."""
    folder = folder.absolute()
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _made_with(folder: Path) -> str:
    """Hardware and versions, from the first run that has them."""
    for path in record_paths(folder):
        try:
            found: dict[str, Any] = read_run(path).provenance
        except RecordError:
            continue
        if found:
            versions, threads = found["versions"], counted(found["torch_threads"], "thread")
            software = f"torch {versions['torch']}, cnn_ablation {versions['cnn_ablation']}"
            return f"Trained on {found['hardware']} with {threads}, {software}."
    return ""
