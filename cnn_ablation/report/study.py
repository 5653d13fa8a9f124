"""The whole report of a study: read what is on disk, compute, print, write."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cnn_ablation.analysis import tables
from cnn_ablation.analysis.tables.first_look import put_on_record
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.config import ANYTIME, StatsConfig
from cnn_ablation.report import page
from cnn_ablation.report.caption import described
from cnn_ablation.report.files import as_csv, check_folder, table_files, write_files
from cnn_ablation.report.findings import Findings, compared_with_paper
from cnn_ablation.report.origin import made_with
from cnn_ablation.report.paper import print_section
from cnn_ablation.report.pictures import confusion_files, left_out, picture_files
from cnn_ablation.report.runs_file import read_runs_file
from cnn_ablation.report.terminal import print_files, print_table, printable
from cnn_ablation.report.variance import print_variance, variance_files
from cnn_ablation.runs.task import Chance, task_of_settings


@dataclass(frozen=True)
class Report:
    """The table of runs and the table of arms made from it."""

    runs: pd.DataFrame
    arms: pd.DataFrame


def report_study(folder: str | Path, out: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Report:
    """Rebuilds every table and picture of a study, and its page, from the records in its folder.

    Args:
        folder: the study's folder.
        out: where to write; None for the study's folder.
        overrides: fields of `StatsConfig` that take the place of the study's own.

    Raises:
        ConfigError: a setting is of the wrong type or out of its bounds.
        RecordError: there is nothing to report, or a table cannot be written.
    """
    out = Path(out or folder)
    study = tables.read_study(folder)
    check_folder(out)
    plan = study.plan
    settings = _settings(study.stats, overrides or {})
    if plan.auto:
        _refuse_other_tests(settings)
    runs = study.run_table()
    settings = put_on_record(runs, study, Path(folder), settings)
    arms = tables.arms_of_study(study, runs, settings)
    choice, origin = study.choice if plan.path else "", made_with(plan, study.runs)
    words = described(runs, arms, settings, choice=choice, auto=plan.auto, made_with=origin, chance=_chance(study))
    compared = compared_with_paper(study, settings)
    return _leave(Findings(runs, arms, words, settings, study, study.curves(), compared), out)


def _chance(study: tables.FinishedStudy) -> Chance | None:
    """What its seeds vary; None where only the code that was trained knows, or this version does not know that."""
    if study.metrics:  # a task of somebody's own
        return None
    try:
        return task_of_settings(study.plan.baseline).chance([run.settings for run in study.runs])
    except ConfigError:
        return None


def _settings(of_study: StatsConfig, overrides: dict[str, Any]) -> StatsConfig:
    """The study's settings with what takes their place; direction and margin belong to the metric they were given for.

    Raises:
        ConfigError: a setting is of the wrong type or out of its bounds.
    """
    kept = dataclasses.asdict(of_study)
    if overrides.get("metric", of_study.metric) != of_study.metric:
        kept = {name: value for name, value in kept.items() if name not in ("direction", "margin")}
    return tables.checked_settings(kept | overrides)


def _refuse_other_tests(settings: StatsConfig) -> None:
    """Of a study whose seeds were added after looks at its table.

    Raises:
        ConfigError: the test is one for a number of seeds that is fixed.
    """
    if settings.test != ANYTIME:
        allowed = f"{ANYTIME}: this study added seeds after looks at its table, for which no other test holds"
        raise ConfigError([Problem("test", settings.test, allowed, remedy="leave out --test")])


def report_runs(runs_file: str | Path, out: str | Path, overrides: dict[str, Any] | None = None) -> Report:
    """The same from a table of runs alone, which holds no learning curves.

    Raises:
        ConfigError: a setting is of the wrong type or out of its bounds.
        RecordError: the file cannot be read, holds no table of runs, or a table cannot be written.
    """
    out, settings = Path(out), tables.checked_settings(overrides or {})
    check_folder(out)
    runs = read_runs_file(runs_file)
    arms = tables.ablation_table(runs, **dataclasses.asdict(settings))
    return _leave(Findings(runs, arms, described(runs, arms, settings, choice=None), settings), out)


def _files(found: Findings) -> dict[str, bytes]:
    """Tables and pictures."""
    pictures = picture_files(found.runs, found.arms, found.curves, found.settings, found.memory)
    of_variance = variance_files(found.variance, found.metric, found.memory) if len(found.variance) else {}
    return table_files(found.runs, found.arms, str(found.caption)) | pictures | of_variance


def _per_class_files(found: Findings) -> dict[str, bytes]:
    """Figures per class of every arm, and the confusion matrices of the arm that others are compared with."""
    if not found.study or not len(found.per_class):
        return {}
    confusions = found.study.confusions()
    frames = {"per_class.csv": found.per_class} | ({"confusion.csv": confusions} if len(confusions) else {})
    reference = found.study.plan.arms[0].name
    matrices = {part: matrix for (arm, part), matrix in found.confusions.items() if arm == reference}
    names = next(iter(matrices.values()))[1] if matrices else []
    counts = {part: matrix for part, (matrix, _) in matrices.items()}
    pictures = confusion_files(counts, names, found.memory, arm=reference)
    return {name: as_csv(frame) for name, frame in frames.items()} | pictures


def _leave(found: Findings, out: Path) -> Report:
    """Writes everything, which is made before, so that what fails leaves nothing behind, and prints the tables."""
    try:
        more = _per_class_files(found) | (found.paper.files if found.paper else {})
        files = _files(found) | page.files(found)
        written = write_files(out, files | more)
        if page.NAME not in files:  # that of an earlier table would say something else than the tables beside it
            (out / page.NAME).unlink(missing_ok=True)
    finally:  # on a full disk the screen is the only place left
        print_table(found.arms, str(found.caption))
        if len(found.variance):
            print_variance(found.variance, found.metric)
        if found.paper:
            print_section(found.paper.paper, found.paper.rows, found.paper.departures)
    print_files(_short(out), [path.name for path in written])
    if sentence := left_out(found.arms):
        print(printable(sentence))
    if page.NAME in files:
        print(printable(f"open {shlex.quote(str(_short(out) / page.NAME))}"))
    return Report(found.runs, found.arms)


def _short(folder: Path) -> Path:
    """The folder as a person would type it here."""
    folder = folder.absolute()
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
