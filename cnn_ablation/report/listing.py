"""The studies below a folder, as a list on the terminal: what was varied, how far each is, what its table says."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from cnn_ablation.analysis.tables import read_study
from cnn_ablation.analysis.tables.plan import read_checked_plan
from cnn_ablation.common.errors import RecordError
from cnn_ablation.report.terminal import printable, standard_output
from cnn_ablation.study.plans import A_STUDY, FILE_NAME, Plan

_DEEPEST = 4  # folders below the one that is given: multirun/DATE/TIME is two
_MOST_KNOBS = 4  # that are named
_WIDTH_WITHOUT_TERMINAL = 160
_NOT_COMPARED = "not compared"
_VERDICTS = ("better", "worse", "equivalent", "undecided", _NOT_COMPARED)
_DIFFERENCES = ("delta_pp", "delta")
_NO_TABLE = "no table yet"


@dataclass(frozen=True)
class Listed:
    """A study in one line."""

    folder: Path
    moment: str = ""
    title: str = ""
    arms: str = ""
    runs: str = ""
    """Finished and planned."""
    failed: str = ""
    verdicts: str = ""


def is_study(folder: Path) -> bool:
    """Whether a folder holds the plan of a study."""
    return (folder / FILE_NAME).exists()


def studies_below(folder: Path) -> list[Listed]:
    """All studies in the folders below one, newest first.

    Raises:
        RecordError: there is none.
    """
    found = [_listed(each) for each in _folders(folder, _DEEPEST)]
    if not found:
        raise RecordError(
            f"{folder} is no study: there is no {FILE_NAME} in it, nor in a folder below it\n"
            f"  remedy: {A_STUDY}, or one that holds several (multirun)"
        )
    return sorted(found, key=lambda study: (study.moment, str(study.folder)), reverse=True)


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """Those of studies; what lies inside a study is its own, and what is hidden is a store."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name[0] != "." and _is_folder(entry))
    except OSError:  # one that may not be looked into
        return
    for name in names:
        below = folder / name
        if is_study(below):
            yield below
        elif depth > 1:
            yield from _folders(below, depth - 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _listed(folder: Path) -> Listed:
    try:
        plan = read_checked_plan(folder)
    except RecordError:
        return Listed(folder, title=f"{FILE_NAME} is damaged")
    finished, failed = _counts(folder)
    return Listed(
        folder=folder,
        moment=str(plan.provenance.get("time", ""))[:16].replace("T", " "),
        title=_title(plan),
        arms=str(len(plan.arms)),
        runs=f"{finished}/{plan.num_runs}",
        failed=str(failed) if failed else "",
        verdicts=_verdicts(folder),
    )


def _title(plan: Plan) -> str:
    knobs = list(plan.knobs)
    if not knobs:
        return "single configuration"
    more = f" and {len(knobs) - _MOST_KNOBS} more" if len(knobs) > _MOST_KNOBS else ""
    of = f" ({plan.design})" if plan.design != "one_at_a_time" else ""
    return f"{', '.join(knobs[:_MOST_KNOBS])}{more}{of}"


def _counts(folder: Path) -> tuple[int, int]:
    """Runs with a record, and those among them that failed."""
    try:
        runs = read_study(folder, details=False).runs
    except RecordError:  # none has finished
        return 0, 0
    return len(runs), sum(run.status == "failed" for run in runs)


def _verdicts(folder: Path) -> str:
    """As the study's table says; judging anew would be another look at it."""
    try:
        with open(folder / "ablation.csv", encoding="utf-8", errors="replace", newline="") as file:
            counts = Counter(map(_verdict, csv.DictReader(file)))
    except (OSError, csv.Error):
        return _NO_TABLE
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in _VERDICTS if counts[verdict])


def _verdict(row: Mapping[str, str]) -> str:
    """An arm without a difference, such as one that a greedy study dropped, is not one that seeds will decide."""
    verdict = row.get("verdict") or ""
    differences = [row[name] for name in _DIFFERENCES if name in row]
    return verdict if verdict != "undecided" or not differences or any(differences) else _NOT_COMPARED


def print_studies(found: list[Listed]) -> None:
    """Prints the list to standard output."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("date", "study", "arms", "runs", "failed", "verdicts", "folder"):
        is_number = name in ("arms", "runs", "failed")
        table.add_column(
            name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number or name == "date"
        )
    for study in found:
        words = (study.moment, study.title, study.arms, study.runs, study.failed, study.verdicts, str(study.folder))
        table.add_row(*map(printable, words))
    standard_output(_WIDTH_WITHOUT_TERMINAL).print(table)
