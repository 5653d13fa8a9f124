"""The whole report of a study: read what is on disk, compute, print, write."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cnn_ablation import papers, tables
from cnn_ablation.config import StatsConfig
from cnn_ablation.errors import RecordError
from cnn_ablation.plans import PathStep, counted
from cnn_ablation.records import Run, write_atomically
from cnn_ablation.report.files import write_frame, write_tables
from cnn_ablation.report.paper import print_section, section
from cnn_ablation.report.pictures import write_confusion, write_pictures
from cnn_ablation.report.terminal import print_table
from cnn_ablation.report.text import caption

_TEXT_COLUMNS = ("arm", "knob", "level", "error")  # empty means empty here, not missing


@dataclass(frozen=True)
class Report:
    """The table of runs and the table of arms made from it."""

    runs: pd.DataFrame
    arms: pd.DataFrame


def report_study(folder: Path, out: Path | None = None, overrides: dict[str, Any] | None = None) -> Report:
    """Rebuilds every table and picture of a study from the records in its folder.

    Args:
        folder: the study's folder.
        out: where to write; None for the study's folder.
        overrides: fields of `StatsConfig` that take the place of the study's own.

    Raises:
        RecordError: there is nothing to report, or a table cannot be written.
    """
    study = tables.read_study(folder)
    plan = study.plan
    unfinished = plan.num_runs - len(study.runs)
    made_with = _scaled_down(plan.baseline) + _made_with(study.runs)
    if unfinished:
        made_with = f"{unfinished} of {plan.num_runs} planned runs have not finished. {made_with}"
    settings = dataclasses.replace(plan.stats, **(overrides or {}))
    out = out or folder
    report = _report(study.run_table(), study.curves(), out, settings, made_with=made_with, path=plan.path)
    more = [*_write_per_class(study, out), *_write_paper(study, out, settings)]
    if more:
        print(f"and {', '.join(_grouped(more))}")
    return report


def _scaled_down(baseline: dict[str, Any]) -> str:
    """What a study with `train.scale` below 1 has to say of itself."""
    scale, updates = baseline.get("train.scale", 1.0), baseline.get("train.updates")
    if scale == 1:
        return ""
    whole = f"{updates} updates" if updates else f"{baseline['train.epochs']} epochs"
    return f"Scaled down to {scale:g} of the {whole} of the baseline, and other arms likewise. "


def _write_per_class(study: tables.FinishedStudy, out: Path) -> Iterator[Path]:
    """Figures per class of every arm, and the confusion matrices of the arm that others are compared with."""
    per_class = study.per_class()
    if not len(per_class):
        return
    yield write_frame(out, "per_class", per_class)
    confusions = study.confusions()
    if len(confusions):
        yield write_frame(out, "confusion", confusions)
    reference = study.plan.arms[0].name
    found = {part: matrix for (arm, part), matrix in study.mean_confusions.items() if arm == reference}
    names = next(iter(found.values()))[1] if found else []
    yield from write_confusion(out, {part: matrix for part, (matrix, _) in found.items()}, names)


def _write_paper(study: tables.FinishedStudy, out: Path, settings: StatsConfig) -> Iterator[Path]:
    """The section "paper against ours" of a study that names its paper."""
    name = study.plan.baseline.get("paper")
    if not name:
        return
    paper = papers.read(name)
    comparison = papers.compare(paper, study, settings.alpha)
    if not len(comparison):
        return
    departures = list(paper.departures(study.plan.baseline))
    print_section(paper, comparison, departures)
    yield write_frame(out, "paper", comparison)
    write_atomically(out / "paper.md", section(paper, comparison, departures).encode())
    yield out / "paper.md"


def report_runs(runs_file: Path, out: Path, overrides: dict[str, Any] | None = None) -> Report:
    """The same from a table of runs alone, which holds no learning curves.

    Raises:
        RecordError: the file cannot be read, lacks columns, or a table cannot be written.
    """
    return _report(read_runs_file(runs_file), pd.DataFrame(), out, StatsConfig(**(overrides or {})))


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
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    out: Path,
    settings: StatsConfig,
    *,
    made_with: str = "",
    path: Sequence[PathStep] = (),
) -> Report:
    arms = tables.ablation_table(runs, **dataclasses.asdict(settings), path=path)
    text = caption(runs, arms, settings, chosen_by_validation=bool(path), made_with=made_with)
    try:
        written = write_tables(out, runs, arms, text) + write_pictures(out, runs, arms, curves, settings)
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


def _made_with(runs: Sequence[Run]) -> str:
    """Hardware and versions; all of them, where runs of several machines or versions meet in a table."""
    made = Counter(_hardware_and_versions(run.provenance) for run in runs if run.provenance)
    several = len(made) > 1
    parts = [f"{words} ({counted(count, 'run')})" if several else words for words, count in made.most_common()]
    return f"Trained on {'; on '.join(parts)}." if parts else ""


def _hardware_and_versions(provenance: dict[str, Any]) -> str:
    versions, threads = provenance["versions"], counted(provenance["torch_threads"], "thread")
    software = f"torch {versions['torch']}, cnn_ablation {versions['cnn_ablation']}"
    return f"{provenance['hardware']} with {threads}, {software}"
