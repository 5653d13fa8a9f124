"""A study's folder -> its plan and its finished runs, as tables."""

from __future__ import annotations

import gc
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation.analysis.tables.first_look import remember
from cnn_ablation.analysis.tables.plan import read_checked_plan
from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.progress import warn
from cnn_ablation.config import StatsConfig
from cnn_ablation.runs.records import (
    DIAGNOSIS_COLUMNS,
    FIGURES,
    NAN,
    RUN_COLUMNS,
    TAKEN_NAMES,
    TASK_COLUMNS,
    Run,
    read_run,
    record_files,
)
from cnn_ablation.study.metric import chosen_by, for_task
from cnn_ablation.study.plans import FILE_NAME, Plan, setting_of


@dataclass(frozen=True)
class FinishedStudy:
    """A study's plan and those of its runs that are on disk, arm by arm and seed by seed."""

    plan: Plan
    runs: list[Run]

    @cached_property
    def metrics(self) -> list[str]:
        """Names of what runs of another task than image classification measured; none of image classification."""
        return list(dict.fromkeys(name for run in self.runs for name in run.metrics))

    @property
    def stats(self) -> StatsConfig:
        """The plan's, with a metric that its runs have."""
        return for_task(self.plan.stats, self.metrics)

    @property
    def choice(self) -> str:
        """The column by which a greedy study chose."""
        return chosen_by(self.stats.metric, self.metrics or FIGURES)

    def run_table(self) -> pd.DataFrame:
        """One row per run: `records.RUN_COLUMNS`, one column per swept key, then `records.DIAGNOSIS_COLUMNS`.

        Where runs have metrics of their own these stand behind `status`, without the columns of image classification
        that no run fills.
        """
        own = {name: [run.metrics.get(name, NAN) for run in self.runs] for name in self.metrics}
        unfilled = {name for name in TASK_COLUMNS if own and not any(map(_is_filled, map(attrgetter(name), self.runs)))}
        names = [name for name in (*RUN_COLUMNS, *DIAGNOSIS_COLUMNS) if name not in (unfilled | own.keys())]
        place = names.index("status") + 1
        keys = [key for key in self.plan.keys if key not in RUN_COLUMNS and key not in own]  # `precision` is one anyway
        found = zip(*map(attrgetter(*names), self.runs), strict=True)
        columns = dict(zip(names, map(list, found), strict=True)) | own
        columns |= {key: _levels([setting_of(run.settings, key) for run in self.runs]) for key in keys}
        last = [name for name in names if name in DIAGNOSIS_COLUMNS]
        order = [*names[:place], *own, *names[place : len(names) - len(last)], *keys, *last]
        frame = pd.DataFrame(columns, columns=order)
        figures = dict.fromkeys((*own, *FIGURES))
        hidden = [name for name in figures if _is_of_test(name) and name != self.choice and name in frame]
        frame.loc[frame["arm"].isin(self.plan.dropped), hidden] = math.nan
        return frame

    def per_class(self) -> pd.DataFrame:
        """Means over seeds: `arm, part, class`, the columns of `metrics.per_class`, and the number of seeds `n`."""
        dropped = set(self.plan.dropped)
        rows = [
            {"arm": run.arm, "part": part, **row}
            for run in self.runs
            for part, found in run.per_class.items()
            for row in found
            if part != "test" or run.arm not in dropped
        ]
        if not rows:
            return pd.DataFrame()
        groups = pd.DataFrame(rows).groupby(["arm", "part", "class"], sort=False)
        return groups.mean().join(groups.size().rename("n")).reset_index()

    def confusions(self) -> pd.DataFrame:
        """Confusion matrices of all arms: `arm, part, true_class, predicted_class`, mean `images`, `percent`."""
        frames = []
        for (arm, part), (matrix, names) in self.mean_confusions.items():
            percent = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            true, predicted = (np.asarray(names)[places.ravel()] for places in np.indices(matrix.shape))
            counts = {"images": matrix.ravel(), "percent": percent.ravel()}
            frames.append(
                pd.DataFrame({"arm": arm, "part": part, "true_class": true, "predicted_class": predicted, **counts})
            )
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    @cached_property
    def mean_confusions(self) -> dict[tuple[str, str], tuple[npt.NDArray[np.float64], list[str]]]:
        """Mean over seeds and names of classes, by arm and part ("val", "test"), of the matrices that may be shown."""
        dropped, names = set(self.plan.dropped), dict[tuple[str, str], list[str]]()
        matrices = defaultdict[tuple[str, str], list[list[list[int]]]](list)
        for run in self.runs:
            for part, matrix in run.confusion.items():
                if part != "test" or run.arm not in dropped:
                    matrices[run.arm, part].append(matrix)
                    names[run.arm, part] = run.class_names
        return {key: (np.mean(found, axis=0, dtype=np.float64), names[key]) for key, found in matrices.items()}

    def curves(self) -> pd.DataFrame:
        """Learning curves: `arm, seed, epoch, train_loss, val_loss, val_accuracy, train_seconds` per epoch."""
        return pd.DataFrame([{"arm": run.arm, "seed": run.seed, **point} for run in self.runs for point in run.curves])


def _is_filled(value: Any) -> bool:
    """Whether a run has something in a column: an empty number is NaN or 0."""
    return bool(value) and not (isinstance(value, float) and math.isnan(value))


def _levels(values: list[Any]) -> Any:
    """The values of a swept key; of whole numbers beside null, a column that keeps them whole."""
    numbers = [value for value in values if value is not None]
    if len(numbers) in (0, len(values)) or not all(type(value) is int and abs(value) < 2**63 for value in numbers):
        return values
    return pd.array(values, dtype="Int64")


def _is_of_test(column: str) -> bool:
    return column.startswith("test_")


def read_study(folder: str | Path, *, details: bool = True) -> FinishedStudy:
    """Reads what is on disk; a damaged record is named and counts as unfinished.

    Args:
        folder: of the study.
        details: False reads no more of each run than `FinishedStudy.run_table` shows.

    Raises:
        RecordError: there is no study in the folder, or none of its runs has finished.
    """
    plan = read_checked_plan(folder)
    folder = Path(folder)
    with _no_search_for_garbage():
        found = _read_runs(folder, details=details)
    wanted = [(arm, seed) for arm in plan.arms for seed in plan.seeds_of(arm.name)]
    runs = [found[arm.name, seed] for arm, seed in wanted if (arm.name, seed) in found]
    if not runs:
        raise RecordError(f"{folder} holds no finished run of the study in its {FILE_NAME}")
    return FinishedStudy(plan, runs)


def _read_runs(folder: Path, *, details: bool) -> dict[tuple[str, int], Run]:
    """By arm and seed; of one that is there twice, the newest."""
    found: dict[tuple[str, int], Run] = {}
    paths: dict[tuple[str, int], str] = {}
    for path in record_files(folder):
        try:
            run = _checked(read_run(path, details=details), path)
        except RecordError as error:
            warn(str(error))
            continue
        name = run.arm, run.seed
        if name not in found or _time_of_writing(path) > _time_of_writing(paths[name]):
            found[name], paths[name] = run, path
    return found


def _checked(run: Run, path: str) -> Run:
    """A run whose nested values have the form that tables are made from; the table of runs checks the others.

    Raises:
        RecordError: they have not.
    """
    size = len(run.class_names) if isinstance(run.class_names, list) else -1
    form = {
        "settings": isinstance(run.settings, dict),
        "provenance": isinstance(run.provenance, dict),
        "class_names": size >= 0,
        "metrics": all(isinstance(name, str) and name not in TAKEN_NAMES for name in run.metrics),
        "curves": all(isinstance(point, dict) and "epoch" in point for point in run.curves),
        "per_class": _is_by_part(run.per_class, _is_table),
        "confusion": _is_by_part(run.confusion, lambda matrix: np.shape(matrix) == (size, size)),
    }
    wrong = [name for name, is_right in form.items() if not is_right]
    if wrong:
        raise RecordError(f"{path} is damaged or unreadable ({wrong[0]} has not its form)")
    return run


def _is_by_part(value: object, is_right: Callable[[Any], bool]) -> bool:
    """Whether it holds something right for the validation part, the test part, or both."""
    try:
        return isinstance(value, dict) and value.keys() <= {"val", "test"} and all(map(is_right, value.values()))
    except ValueError:  # rows of different lengths
        return False


def _is_table(rows: object) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, dict)
        and "class" in row
        and all(value is None or isinstance(value, int | float) for name, value in row.items() if name != "class")
        for row in rows
    )


_MANY_OBJECTS = 10_000


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Among thousands of records that are all kept, the search takes a fifth of the time that reading does.

    What was made meanwhile counts as old afterwards, or the next search would go through all of it at once.
    """
    was_searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_searching:
            # What somebody has frozen stays so; to count that takes long where it is much.
            if gc.get_count()[0] > _MANY_OBJECTS and not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _time_of_writing(path: str) -> int:
    return os.stat(path).st_mtime_ns


def load_runs(folder: str | Path) -> pd.DataFrame:
    """The table of runs of a study, one row per arm and seed, rebuilt from the records on disk.

    Of a greedy study, the test scores of arms that validation dropped are left out (NaN). Runs of another task than
    image classification have their own metrics in place of its columns.

    Args:
        folder: a study's folder, as printed at its end.

    Returns:
        A frame with `records.RUN_COLUMNS`, one column per swept key, and `records.DIAGNOSIS_COLUMNS`. Its attribute
        "first_look" says, by metric, which seeds of each arm were there at the first look at the study's table.

    Raises:
        RecordError: there is no study in the folder, or none of its runs has finished.
    """
    study = read_study(folder, details=False)
    runs = study.run_table()
    remember(runs, study, Path(folder))
    return runs


def load_curves(folder: str | Path) -> pd.DataFrame:
    """Learning curves of a study: `arm, seed, epoch, train_loss, val_loss, val_accuracy, train_seconds` per epoch.

    Raises:
        RecordError: as `load_runs`.
    """
    return read_study(folder).curves()
