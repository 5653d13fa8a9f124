"""The whole report of a study: read what is on disk, compute, print, write."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from cnn_ablation.analysis import tables
from cnn_ablation.analysis.tables.first_look import put_on_record
from cnn_ablation.analysis.variance import variance_by_source
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.common.words import counted
from cnn_ablation.config import ANYTIME, StatsConfig
from cnn_ablation.report import papers
from cnn_ablation.report.caption import caption
from cnn_ablation.report.files import as_csv, as_text, check_folder, table_files, write_files
from cnn_ablation.report.paper import print_section, section
from cnn_ablation.report.pictures import confusion_files, left_out, picture_files
from cnn_ablation.report.runs_file import read_runs_file
from cnn_ablation.report.terminal import print_table, printable
from cnn_ablation.report.variance import print_variance, variance_files
from cnn_ablation.runs.records import Run
from cnn_ablation.runs.store.memory import PICTURES, Memory
from cnn_ablation.runs.task import Chance, task_of_settings
from cnn_ablation.study.metric import Metric, metric_of


@dataclass(frozen=True)
class Report:
    """The table of runs and the table of arms made from it."""

    runs: pd.DataFrame
    arms: pd.DataFrame


def report_study(folder: str | Path, out: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Report:
    """Rebuilds every table and picture of a study from the records in its folder.

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
    unfinished = plan.num_runs - len(study.runs)
    made_with = _scaled_down(plan.baseline) + _made_with(study.runs)
    if unfinished:
        made_with = f"{unfinished} of {plan.num_runs} planned runs have not finished. {made_with}"
    runs = study.run_table()
    settings = put_on_record(runs, study, Path(folder), settings)
    arms = tables.arms_of_study(study, runs, settings)
    choice = study.choice if plan.path else ""
    words = caption(runs, arms, settings, choice=choice, auto=plan.auto, made_with=made_with, chance=_chance(study))
    memory = _memory_of(plan.baseline)
    made = _Made(runs, arms, words, study.curves(), settings, memory)
    compared = _paper_section(study, settings)
    more = _per_class_files(study, memory) | (compared.files if compared else {})
    return _leave(made, out, more, compared)


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


def _scaled_down(baseline: dict[str, Any]) -> str:
    """What a study with `train.scale` below 1 has to say of itself."""
    scale, epochs, updates = (baseline.get(f"train.{name}") for name in ("scale", "epochs", "updates"))
    if scale is None or scale == 1:
        return ""
    whole = f"{updates} updates" if updates else f"{epochs} epochs"
    return f"Scaled down to {scale:g} of the {whole} of the baseline, and other arms likewise. "


def _memory_of(baseline: Mapping[str, Any]) -> Memory | None:
    """Of pictures, in the study's store; plans of earlier versions, and of tests, may name none."""
    store = baseline.get("store")
    return Memory(Path(store), PICTURES) if store else None


def _per_class_files(study: tables.FinishedStudy, memory: Memory | None) -> dict[str, bytes]:
    """Figures per class of every arm, and the confusion matrices of the arm that others are compared with."""
    per_class, confusions = study.per_class(), study.confusions()
    if not len(per_class):
        return {}
    frames = {"per_class.csv": per_class} | ({"confusion.csv": confusions} if len(confusions) else {})
    reference = study.plan.arms[0].name
    found = {part: matrix for (arm, part), matrix in study.mean_confusions.items() if arm == reference}
    names = next(iter(found.values()))[1] if found else []
    pictures = confusion_files({part: matrix for part, (matrix, _) in found.items()}, names, memory, arm=reference)
    return {name: as_csv(frame) for name, frame in frames.items()} | pictures


@dataclass(frozen=True)
class _PaperSection:
    """The section "paper against ours"."""

    paper: papers.Paper
    comparison: pd.DataFrame
    departures: list[str]

    @property
    def files(self) -> dict[str, bytes]:
        text = section(self.paper, self.comparison, self.departures)
        return {"paper.csv": as_csv(self.comparison), "paper.md": as_text(text)}


def _paper_section(study: tables.FinishedStudy, settings: StatsConfig) -> _PaperSection | None:
    """Of a study that names its paper, and has trained one of the paper's arms."""
    name = study.plan.baseline.get("paper")
    if not name:
        return None
    paper = papers.read(name)
    comparison = papers.compare(paper, study, settings.alpha)
    departures = list(paper.departures(study.plan.baseline))
    return _PaperSection(paper, comparison, departures) if len(comparison) else None


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
    return _leave(_Made(runs, arms, caption(runs, arms, settings, choice=None), pd.DataFrame(), settings), out)


@dataclass(frozen=True)
class _Made:
    """A report before it is written: everything is computed first, so that what fails leaves nothing behind."""

    runs: pd.DataFrame
    arms: pd.DataFrame
    caption: str
    curves: pd.DataFrame
    settings: StatsConfig
    memory: Memory | None = None
    """Of pictures that were drawn before."""

    @cached_property
    def variance(self) -> pd.DataFrame:
        """By source of chance; without rows where the study does not vary that."""
        return variance_by_source(self.runs, self.metric, self.settings.alpha)

    @property
    def metric(self) -> Metric:
        return metric_of(self.settings)

    @property
    def files(self) -> dict[str, bytes]:
        pictures = picture_files(self.runs, self.arms, self.curves, self.settings, self.memory)
        of_variance = variance_files(self.variance, self.metric, self.memory) if len(self.variance) else {}
        return table_files(self.runs, self.arms, self.caption) | pictures | of_variance


def _leave(
    made: _Made, out: Path, more: dict[str, bytes] | None = None, compared: _PaperSection | None = None
) -> Report:
    """Writes what was made, and prints the tables."""
    more = more or {}
    try:
        files = made.files
        written = write_files(out, files | more)
    finally:  # on a full disk the screen is the only place left
        print_table(made.arms, made.caption)
        if len(made.variance):
            print_variance(made.variance, made.metric)
    print(printable(f"written to {_short(out)}: {', '.join(_grouped(written[: len(files)]))}"))
    if sentence := left_out(made.arms):
        print(printable(sentence))
    if compared:
        print_section(compared.paper, compared.comparison, compared.departures)
    if more:
        print(printable(f"and {', '.join(_grouped(written[len(files) :]))}"))
    return Report(made.runs, made.arms)


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
    """Those that a record knows; an older one may know fewer."""
    versions, threads = provenance.get("versions", {}), provenance.get("torch_threads")
    hardware = provenance.get("hardware", "unknown hardware") + (
        f" with {counted(threads, 'thread')}" if threads else ""
    )
    return ", ".join(
        [hardware, *(f"{name} {versions[name]}" for name in ("torch", "cnn_ablation") if name in versions)]
    )
