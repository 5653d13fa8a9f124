"""What a table of arms is made from, checked once at the entry: the settings and the table of runs."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from numbers import Integral, Real
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

from cnn_ablation.common.errors import ConfigError, Problem, RecordError
from cnn_ablation.config import StatsConfig, nearest, shown, value_problems
from cnn_ablation.study.metric import ACCURACIES, Metric, metric_of, settings_problems, unknown_metric

LABELS = ("arm", "knob", "level", "seed", "status")
CHOICE_AND_TEST = ("val_accuracy", "test_accuracy")
REQUIRED_COLUMNS = (*LABELS, *CHOICE_AND_TEST, "train_seconds")
"""For a metric that is an accuracy, where the one that is not the metric may be missing; for any other, the first five
and the metric's column."""
STATUSES = ("ok", "diverged", "failed")
LOSSES = ("train_loss", "val_loss", "test_loss")

# Further columns of runs.csv, used where a table has them.
_SHARES = ("dead_units", "saturated_outputs")
_CIRCUMSTANCES = ("threads", "neighbours", "train_started", "train_ended")
_AMOUNTS = ("train_seconds", "cpu_seconds", "total_seconds", "images_per_second", "epochs", "updates", "num_params",
            "concurrent_runs", *_CIRCUMSTANCES, "num_classes", "multiply_adds")  # fmt: skip
_REALS = (*LOSSES, "lowest_train_loss", "initial_gradient_norm")  # infinite where training diverged
_SWITCHES = ("images_in_host_memory", "reused", "double_softmax")
_WORDS = ("hardware", "dead_layer", "saturated_layer")

Floats = npt.NDArray[np.float64]


def checked_settings(given: dict[str, Any], prefix: str = "") -> StatsConfig:
    """The settings of the statistics, each of the right type and within its field's bounds.

    Args:
        given: by the names of `StatsConfig`'s fields; what is not given has its default.
        prefix: stands before the names in messages.

    Raises:
        ConfigError: with all problems found.
    """
    names = [item.name for item in dataclasses.fields(StatsConfig)]
    problems = [
        Problem(f"{prefix}{name}", shown(value), ", ".join(names), nearest(str(name), names))
        for name, value in given.items()
        if name not in names
    ]
    settings = StatsConfig(**{name: value for name, value in given.items() if name in names})
    problems += value_problems(settings, prefix) or settings_problems(settings, prefix)
    if problems:
        raise ConfigError(problems)
    return settings


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _is_word(value: object) -> bool:
    """Whether it is a text that is no number either."""
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def checked_runs(runs: object, metric: Metric | None = None) -> pd.DataFrame:
    """A copy of a table of runs in plain types: texts, whole seeds, numbers as float64 with NaN for what is missing.

    Args:
        runs: has `REQUIRED_COLUMNS`, one row per run; for a metric that is no accuracy `LABELS` and its column. Of an
            accuracy that is not the metric the column may be missing.
        metric: what arms are compared by; None for the default.

    Raises:
        ConfigError: the metric is no column of numbers.
        RecordError: it is no frame, has no row, lacks columns, or a value is of the wrong kind or out of range; the
            message names the first such run.
    """
    if not isinstance(runs, pd.DataFrame):
        raise RecordError(
            f"a table of runs is a pandas DataFrame, not {type(runs).__name__} ({reprlib.repr(runs)})\n"
            "  remedy: cnn_ablation.load_runs(DIR) makes one from a study's folder"
        )
    metric = metric or metric_of(StatsConfig())
    if metric.column not in runs and "status" in runs and (runs["status"] == "failed").all():
        runs = runs.assign(**{metric.column: math.nan})  # a figure that a run leaves, and none was left
    if metric.is_accuracy and metric.column in runs:  # a function of one's own may return this one alone
        runs = runs.assign(**{name: math.nan for name in CHOICE_AND_TEST if name not in runs})
    _check_columns(runs, metric)
    table = _Table(runs.reset_index(drop=True))
    known: dict[str, Any] = {name: table.words(name) for name in ("knob", "level", *_WORDS) if name in runs}
    known |= {name: table.fractions(name, _NOT_PERCENT) for name in ACCURACIES if name in runs}
    known |= {name: table.fractions(name) for name in _SHARES if name in runs}
    known |= {name: table.amounts(name) for name in _AMOUNTS if name in runs}
    known |= {name: table.numbers(name) for name in _REALS if name in runs}
    known |= {name: table.switches(name) for name in _SWITCHES if name in runs}
    if not metric.is_accuracy:
        known |= {"train_seconds": math.nan, **known, metric.column: table.finite(metric.column)}
    return table.frame.assign(arm=table.arms, seed=table.seeds, status=table.statuses(), **known)


_NOT_PERCENT = "\n  remedy: accuracies are fractions; divide percentages by 100"


def _check_columns(runs: pd.DataFrame, metric: Metric) -> None:
    missing = [name for name in (REQUIRED_COLUMNS if metric.is_accuracy else LABELS) if name not in runs.columns]
    if missing:
        figures = [name for name in _figures(runs) if name not in _NO_METRICS]
        is_foreign = metric.column in missing and figures
        remedy = f"\n  remedy: metric=COLUMN compares by a figure that it has: {figures[0]}" if is_foreign else ""
        raise RecordError(f"the table of runs lacks the columns {', '.join(missing)}{remedy}")
    if metric.column in LABELS or metric.column not in runs.columns:
        raise ConfigError([unknown_metric(metric.column, _figures(runs))])
    used = [*REQUIRED_COLUMNS, metric.column, *ACCURACIES, *_SHARES, *_AMOUNTS, *_REALS, *_SWITCHES, *_WORDS]
    twice = [column for column in dict.fromkeys(used) if list(runs.columns).count(column) > 1]
    if twice:
        raise RecordError(f"the table of runs has the column {twice[0]} more than once")
    if not len(runs):
        raise RecordError("the table of runs has no rows")


_NO_METRICS = (*LABELS, *_AMOUNTS, *ACCURACIES, *_SHARES)


def _figures(runs: pd.DataFrame) -> list[str]:
    """Columns of numbers that may be a metric."""
    return [
        str(name)
        for name in runs.columns
        if name not in (*LABELS, *_CIRCUMSTANCES)
        and types.is_numeric_dtype(runs[name])
        and not types.is_bool_dtype(runs[name])
    ]


class _Table:
    """Columns of a table of runs, each checked; the arm and seed of a wrong value stand in its message."""

    def __init__(self, frame: pd.DataFrame):
        self.frame = frame
        self.arms = self.words("arm")
        self._refuse("arm", np.array([not arm.strip() for arm in self.arms]), "the name of an arm")
        seeds = self.numbers("seed")
        self._refuse("seed", ~np.isfinite(seeds) | (seeds != np.round(seeds)), "a whole number")
        whole = types.is_integer_dtype(frame["seed"])
        self.seeds = frame["seed"].to_numpy(np.int64) if whole else seeds.astype(np.int64)

    def words(self, column: str) -> npt.NDArray[np.object_]:
        """Text; empty where it is missing."""
        entries = self.frame[column].tolist()
        if all(type(entry) is str for entry in entries):
            return np.array(entries, object)
        return np.array(["" if _is_missing(entry) else _as_word(entry) for entry in entries], object)

    def statuses(self) -> npt.NDArray[np.object_]:
        found = self.words("status")
        self._refuse("status", ~np.isin(found, STATUSES), f"one of {', '.join(STATUSES)}")
        return found

    def numbers(self, column: str) -> Floats:
        """One number a run, NaN where it is missing; a column of another kind is read value by value."""
        values = self.frame[column]
        if types.is_numeric_dtype(values) and not (types.is_bool_dtype(values) or types.is_complex_dtype(values)):
            return values.to_numpy(np.float64, na_value=math.nan)
        entries = values.tolist()
        missing = np.array([_is_missing(entry) for entry in entries])
        is_number = np.array([_is_number(entry) for entry in entries])
        # One word makes texts of a whole column of a file: it is the word that is wrong, not the numbers before it.
        self._refuse(column, np.array([_is_word(entry) for entry in entries]), "a number")
        self._refuse(column, ~missing & ~is_number, "a number")
        return np.array([math.nan if gap else float(entry) for entry, gap in zip(entries, missing, strict=True)])

    def fractions(self, column: str, remedy: str = "") -> Floats:
        values = self.numbers(column)
        self._refuse(column, (values < 0) | (values > 1), "a fraction in 0..1", remedy)
        return values

    def amounts(self, column: str) -> Floats:
        values = self.numbers(column)
        self._refuse(column, (values < 0) | np.isinf(values), "a number that is at least 0")
        return values

    def finite(self, column: str) -> Floats:
        """Numbers; one that is not finite is missing where its run diverged, and wrong elsewhere."""
        values = self.numbers(column)
        wrong = np.isinf(values) & (self.words("status") == "ok")
        self._refuse(column, wrong, "a finite number", "\n  remedy: a run that diverged has the status diverged")
        return np.where(np.isinf(values), math.nan, values)

    def switches(self, column: str) -> npt.NDArray[np.bool_]:
        """True or false, also as 1 and 0; false where it is missing."""
        entries = self.frame[column].tolist()
        missing = np.array([_is_missing(entry) for entry in entries])
        known = np.array([isinstance(entry, bool | Integral | Real) and entry in (0, 1) for entry in entries])
        self._refuse(column, ~missing & ~known, "true or false")
        return np.array([not gap and bool(entry) for entry, gap in zip(entries, missing, strict=True)])

    def _refuse(self, column: str, wrong: npt.NDArray[np.bool_], allowed: str, remedy: str = "") -> None:
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        arm = self.arms[row] if column != "arm" else ""
        seed = f", seed {self.seeds[row]}" if column not in ("arm", "seed") else ""
        where = f"arm '{arm}'{seed}" if arm else f"row {row + 1} of the table of runs"
        others = int(wrong.sum()) - 1
        more = f" (and {others} more {'run' if others == 1 else 'runs'})" if others else ""
        _refuse_value(where, column, self.frame[column][row], allowed, more + remedy)


def _refuse_value(where: str, column: str, value: object, allowed: str, rest: str) -> NoReturn:
    value = value.item() if isinstance(value, np.generic) else value
    shown = f"{value:g}" if isinstance(value, float) else reprlib.repr(value)
    raise RecordError(f"{where}: {column} is {shown}; {allowed} is wanted{rest}")


def _as_word(entry: object) -> str:
    """Numbers as typed: a column of levels that pandas read as floats holds 64.0 for 64."""
    if isinstance(entry, float) and entry.is_integer():
        return str(int(entry))
    return str(entry)
