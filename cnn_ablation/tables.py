"""Records on disk -> table of runs -> table of arms. pandas, no torch."""

from __future__ import annotations

import dataclasses
import gc
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from cnn_ablation import notes, stats
from cnn_ablation.config import StatsConfig
from cnn_ablation.designs import BASELINE, FULL
from cnn_ablation.errors import RecordError
from cnn_ablation.plans import FILE_NAME, PathStep, Plan, counted, read_plan, setting_of
from cnn_ablation.progress import warn
from cnn_ablation.records import DIAGNOSIS_COLUMNS, RUN_COLUMNS, Run, read_run, record_files

REQUIRED_COLUMNS = ("arm", "knob", "level", "seed", "status", "val_accuracy", "test_accuracy", "train_seconds")
COUNTED = ("ok", "diverged")  # a diverged run counts as what it scored; a failed one has no score
TRAINED = ("ok",)  # only full trainings are compared by time

ARM_COLUMNS = (
    "arm", "knob", "level", "n",
    "val_accuracy_mean", "test_accuracy_mean", "test_accuracy_std", "test_accuracy_ci_low", "test_accuracy_ci_high",
    "delta_pp", "delta_ci_low_pp", "delta_ci_high_pp", "p_value", "p_holm",
    "verdict", "seeds_needed", "seed_correlation",
    "train_seconds_mean", "time_ratio", "time_ratio_ci_low", "time_ratio_ci_high", "images_per_second_mean",
    "num_params", "updates", "num_failed", "notes",
)  # fmt: skip


@dataclass(frozen=True)
class FinishedStudy:
    """A study's plan and those of its runs that are on disk, arm by arm and seed by seed."""

    plan: Plan
    runs: list[Run]

    def run_table(self) -> pd.DataFrame:
        """One row per run: `records.RUN_COLUMNS`, one column per swept key, then `records.DIAGNOSIS_COLUMNS`."""
        keys = [key for key in self.plan.keys if key not in RUN_COLUMNS]  # `precision` is a column in any case
        names = (*RUN_COLUMNS, *DIAGNOSIS_COLUMNS)
        columns = dict(zip(names, map(list, zip(*map(attrgetter(*names), self.runs), strict=True)), strict=True))
        swept = {key: [setting_of(run.settings, key) for run in self.runs] for key in keys}
        frame = pd.DataFrame(columns | swept, columns=[*RUN_COLUMNS, *keys, *DIAGNOSIS_COLUMNS])
        frame.loc[frame["arm"].isin(self.plan.dropped), ["test_accuracy", "test_loss"]] = math.nan
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


def read_study(folder: Path, *, details: bool = True) -> FinishedStudy:
    """Reads what is on disk; a damaged record is named and counts as unfinished.

    Args:
        folder: of the study.
        details: False reads no more of each run than `FinishedStudy.run_table` shows.

    Raises:
        RecordError: there is no study in the folder, or none of its runs has finished.
    """
    plan = read_plan(folder)
    with _no_search_for_garbage():
        found = _read_runs(folder, details=details)
    wanted = [(arm, seed) for arm in plan.arms for seed in plan.seeds]
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
            run = read_run(path, details=details)
        except RecordError as error:
            warn(str(error))
            continue
        name = run.arm, run.seed
        if name not in found or _time_of_writing(path) > _time_of_writing(paths[name]):
            found[name], paths[name] = run, path
    return found


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Among thousands of records that are all kept, the search takes a fifth of the time that reading does."""
    was_searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_searching:
            gc.enable()


def _time_of_writing(path: str) -> int:
    return os.stat(path).st_mtime_ns


def load_runs(folder: str | Path) -> pd.DataFrame:
    """The table of runs of a study, one row per arm and seed, rebuilt from the records on disk.

    Of a greedy study, the test scores of arms that validation dropped are left out (NaN).

    Args:
        folder: a study's folder, as printed at its end.

    Returns:
        A frame with `records.RUN_COLUMNS`, one column per swept key, and `records.DIAGNOSIS_COLUMNS`.

    Raises:
        RecordError: there is no study in the folder, or none of its runs has finished.
    """
    return read_study(Path(folder), details=False).run_table()


def load_curves(folder: str | Path) -> pd.DataFrame:
    """Learning curves of a study: `arm, seed, epoch, train_loss, val_loss, val_accuracy, train_seconds` per epoch.

    Raises:
        RecordError: as `load_runs`.
    """
    return read_study(Path(folder)).curves()


def ablation_table(
    runs: pd.DataFrame,
    alpha: float = 0.05,
    margin_pp: float = 0.5,
    *,
    test: str = "t",
    interval: str = "t",
    simultaneous: bool = False,
    path: Sequence[PathStep] = (),
) -> pd.DataFrame:
    """The table of arms: accuracy, difference from the baseline, verdict, time, one row per arm.

    Differences are paired by seed. p-values are corrected by Holm's method over all arms of the table.

    Args:
        runs: any frame with `REQUIRED_COLUMNS`; accuracies in 0..1. Further columns of runs.csv are used if present.
            Arms are compared with the arm `baseline`, or in its absence with `full`.
        alpha: family-wise error of the verdicts, and 1 - confidence of the intervals.
        margin_pp: half-width, in percentage points, of the range inside which arms are equivalent.
        test: "t", or "sign_flip" for the exact test that assumes symmetric noise only.
        interval: "t", or "bca" for the bias-corrected and accelerated bootstrap.
        simultaneous: intervals of differences that hold for all arms at once (Bonferroni).
        path: the steps of a greedy study, for its notes.

    Returns:
        A frame with `ARM_COLUMNS`, the baseline first.

    Raises:
        RecordError: a column is missing, or no run of the arm to compare with has finished.
    """
    settings = StatsConfig(alpha, margin_pp, test, interval, simultaneous)
    missing = [column for column in REQUIRED_COLUMNS if column not in runs.columns]
    if missing:
        raise RecordError(f"the table of runs lacks the columns {', '.join(missing)}")
    arms = _arms(runs)
    reference = BASELINE if BASELINE in arms else FULL
    baseline = arms.get(reference, _Arm({}, np.zeros(0, dtype=np.intp)))
    if not len(baseline.scored):
        raise RecordError(f"no finished run of the arm '{BASELINE}': there is nothing to compare with")
    order = [reference, *(name for name in arms if name != reference)]
    tested = [name for name in order if name != reference and _is_tested(arms[name])]
    family = _Family(baseline, settings, len(tested))
    compared = family.compare([arms[name] for name in tested])
    decided = dict(zip(tested, zip(compared, stats.verdicts(compared, alpha), strict=True), strict=True))
    undecided = (stats.NO_COMPARISON, (math.nan, "undecided"))
    accuracies, ratios = (
        family.accuracies([arms[name] for name in order]),
        family.ratios([arms[name] for name in order]),
    )
    path_notes = dict(_path_notes(arms, path))
    rows = []
    for name, accuracy, ratio in zip(order, accuracies, ratios, strict=True):
        comparison, (p_holm, verdict) = decided.get(name, undecided)
        row = _row(arms[name], comparison, accuracy, ratio)
        words = [path_notes.get(name, ""), *_notes(arms[name], family, comparison)]
        verdict = "baseline" if name == reference else verdict
        rows.append(row | {"p_holm": p_holm, "verdict": verdict, "notes": "; ".join(filter(None, words))})
    return pd.DataFrame(rows, columns=list(ARM_COLUMNS))


def with_score(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with a score."""
    return runs[runs["status"].isin(COUNTED)]


class _Arm:
    """Rows of the table of runs that belong to one arm, in the order of their seeds.

    Plain arrays: a frame per arm costs milliseconds, and a study may have a thousand arms.
    """

    def __init__(self, columns: dict[str, np.ndarray], rows: npt.NDArray[np.intp]):
        self.columns, self.rows = columns, rows
        self._means: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column][self.rows]

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def where(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> _Arm:
        return _Arm(self.columns, self.rows[chosen])

    @cached_property
    def scored(self) -> _Arm:
        return self.where(np.isin(self["status"], COUNTED)) if len(self) else self

    @cached_property
    def trained(self) -> _Arm:
        return self.where(np.isin(self["status"], TRAINED)) if len(self) else self

    def count(self, status: str) -> int:
        return int((self["status"] == status).sum())

    def mean(self, column: str) -> float:
        """NaN if the table has no such column, or the arm no run; gaps are left out."""
        if column not in self._means:
            values = self[column].astype(float) if column in self else np.zeros(0)
            values = values[~np.isnan(values)]
            self._means[column] = float(values.mean()) if len(values) else math.nan
        return self._means[column]

    def most_common(self, column: str) -> str:
        """Of the texts in a column; the first in the alphabet among equals."""
        texts = [text for text in self[column] if isinstance(text, str) and text] if column in self else []
        return min(Counter(texts).items(), key=lambda item: (-item[1], item[0]))[0] if texts else ""


def _arms(runs: pd.DataFrame) -> dict[str, _Arm]:
    """The arms in the order of their first rows; of an arm and seed that are there twice, the last row counts."""
    names = [str(name) for name in dict.fromkeys(runs["arm"])]
    runs = runs.drop_duplicates(["arm", "seed"], keep="last").sort_values("seed", kind="stable")
    columns = {str(name): runs[name].to_numpy() for name in runs.columns}
    rows = {str(name): np.asarray(found, dtype=np.intp) for name, found in runs.groupby("arm").indices.items()}
    return {name: _Arm(columns, rows[name]) for name in names}


def _is_tested(arm: _Arm) -> bool:
    """Whether the arm is compared on the test set; a greedy study shows no test score of what validation dropped."""
    scores = arm.scored["test_accuracy"].astype(float)
    return bool(not len(scores) or not np.isnan(scores).all())


Pair = tuple[stats.Floats, stats.Floats]


@dataclass(frozen=True)
class _Family:
    """What all comparisons of a table share. Arms with equally many seeds are computed at once."""

    baseline: _Arm
    settings: StatsConfig
    num_comparisons: int

    def paired_scores(self, arm: _Arm) -> Pair:
        """Test accuracies of an arm and of the baseline, seed by seed."""
        return _paired(arm.scored, self.baseline.scored, "test_accuracy")

    def paired_times(self, arm: _Arm) -> Pair:
        """Training times of the seeds that both have and that shared their machine with equally many runs."""
        return _paired(arm.trained, self.baseline.trained, "train_seconds", alike="concurrent_runs")

    def compare(self, arms: Sequence[_Arm]) -> list[stats.Comparison]:
        """Every arm against the baseline."""

        def of(first: stats.Floats, second: stats.Floats) -> stats.Comparison:
            found = stats.compare(first, second, self.settings, num_comparisons=self.num_comparisons)
            differences = 100 * (first - second)
            needed = stats.seeds_needed(differences, self.settings, num_comparisons=self.num_comparisons)
            return dataclasses.replace(found, seeds_needed=needed)

        return _at_once(of, [self.paired_scores(arm) for arm in arms])

    def accuracies(self, arms: Sequence[_Arm]) -> list[stats.Interval]:
        """Mean test accuracy with its interval."""
        tests = [arm.scored["test_accuracy"].astype(float) for arm in arms]
        alpha, kind = self.settings.alpha, self.settings.interval
        return _at_once(
            lambda scores: stats.mean_interval(scores, alpha, kind), [(scores[~np.isnan(scores)],) for scores in tests]
        )

    def ratios(self, arms: Sequence[_Arm]) -> list[stats.Interval]:
        """Training time over the baseline's."""
        alpha, kind = self.settings.alpha, self.settings.interval
        return _at_once(
            lambda first, second: stats.log_ratio_interval(first, second, alpha, kind),
            [self.paired_times(arm) for arm in arms],
        )


T = TypeVar("T")


def _at_once(function: Callable[..., T], samples: Sequence[tuple[stats.Floats, ...]]) -> list[T]:
    """`function` of every sample, called once per length of samples with all of that length stacked."""
    places: dict[int, list[int]] = {}
    for place, sample in enumerate(samples):
        places.setdefault(len(sample[0]), []).append(place)
    results: dict[int, T] = {}
    for alike in places.values():
        stacked = [np.stack(arrays) for arrays in zip(*(samples[place] for place in alike), strict=True)]
        results |= dict(zip(alike, _one_by_one(function(*stacked), len(alike)), strict=True))
    return [results[place] for place in range(len(samples))]


def _one_by_one(value: Any, count: int) -> list[Any]:
    """The entries of numbers, or of dataclasses of numbers, that were computed for `count` at once."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [_one_by_one(getattr(value, item.name), count) for item in dataclasses.fields(value)]
        return [type(value)(*entries) for entries in zip(*fields, strict=True)]
    found: list[Any] = np.broadcast_to(np.asarray(value, dtype=float), (count,)).tolist()
    return found


def _paired(arm: _Arm, baseline: _Arm, column: str, *, alike: str = "") -> Pair:
    """Values of the seeds that both have, in the order of the seeds; `alike` names a column that must agree."""
    first, second = (side.where(~np.isnan(side[column].astype(float))) for side in (arm, baseline))
    if not np.array_equal(first["seed"], second["seed"]):  # most often they are the same
        _, places, others = np.intersect1d(first["seed"], second["seed"], return_indices=True)
        first, second = first.where(places), second.where(others)
    if alike in first:
        same = first[alike] == second[alike]
        first, second = first.where(same), second.where(same)
    return first[column].astype(float), second[column].astype(float)


def _row(arm: _Arm, comparison: stats.Comparison, accuracy: stats.Interval, ratio: stats.Interval) -> dict[str, Any]:
    """Everything of one arm that does not depend on the other arms."""
    scored, trained = arm.scored, arm.trained
    test = scored["test_accuracy"].astype(float)
    test = test[~np.isnan(test)]
    return {
        "arm": arm["arm"][0],
        "knob": arm["knob"][0],
        "level": arm["level"][0],
        "n": len(scored),
        "val_accuracy_mean": scored.mean("val_accuracy"),
        "test_accuracy_mean": accuracy.mean,
        "test_accuracy_std": float(np.std(test, ddof=1)) if len(test) > 1 else math.nan,
        "test_accuracy_ci_low": float(np.maximum(accuracy.low, 0.0)),  # an accuracy lies in 0..1
        "test_accuracy_ci_high": float(np.minimum(accuracy.high, 1.0)),
        "delta_pp": comparison.difference.mean,
        "delta_ci_low_pp": comparison.difference.low,
        "delta_ci_high_pp": comparison.difference.high,
        "p_value": comparison.p_value,
        "seeds_needed": comparison.seeds_needed,
        "seed_correlation": comparison.seed_correlation,
        "train_seconds_mean": trained.mean("train_seconds"),
        "time_ratio": ratio.mean,
        "time_ratio_ci_low": ratio.low,
        "time_ratio_ci_high": ratio.high,
        "images_per_second_mean": trained.mean("images_per_second"),
        "num_params": scored.mean("num_params"),
        "updates": trained.mean("updates"),
        "num_failed": arm.count("failed"),
    }


def _notes(arm: _Arm, family: _Family, comparison: stats.Comparison) -> Iterator[str]:
    """What a reader must know before believing the row."""
    yield from notes.confounds(_cost(arm), _cost(family.baseline))
    yield from _diagnoses(arm, family.baseline)
    for status, word in (("diverged", "diverged"), ("failed", "failed")):
        count = arm.count(status)
        if count:
            yield f"{count} of {len(arm)} runs {word}" + (_when(arm) if status == "diverged" else "")
    if len(family.paired_times(arm)[0]) < len(_paired(arm.trained, family.baseline.trained, "train_seconds")[0]):
        yield "times of runs side by side and of lone runs are not compared"
    if arm is not family.baseline and _is_tested(arm):
        yield from _limits_of_the_test(len(family.paired_scores(arm)[0]), family, comparison)
    elif len(arm.scored) < 2:
        yield "1 seed: no interval"


def _cost(arm: _Arm) -> notes.Cost:
    return notes.Cost(arm.trained.mean("updates"), arm.scored.mean("num_params"), arm.scored.mean("multiply_adds"))


def _diagnoses(arm: _Arm, baseline: _Arm) -> Iterator[str]:
    """From the columns behind the swept keys; a table of runs without them has nothing to say."""
    scored = arm.scored
    if not len(scored):
        return
    yield from notes.double_softmax(scored.mean("double_softmax") > 0, scored.mean("num_classes"))
    if "lowest_train_loss" in scored:
        yield from notes.stuck(scored["lowest_train_loss"].tolist(), scored.mean("num_classes"))
    yield from notes.dead_units(scored.mean("dead_units"), scored.most_common("dead_layer"))
    yield from notes.saturated_outputs(scored.mean("saturated_outputs"), scored.most_common("saturated_layer"))
    yield from notes.gradient(*(side.scored.mean("initial_gradient_norm") for side in (arm, baseline)))
    yield from notes.generalisation_gap(scored.mean("train_accuracy"), scored.mean("val_accuracy"))


def _when(arm: _Arm) -> str:
    diverged = arm.where(arm["status"] == "diverged")
    return f" at epoch {int(diverged['epochs'].min())}" if "epochs" in arm else ""


def _limits_of_the_test(shared: int, family: _Family, comparison: stats.Comparison) -> Iterator[str]:
    """Why no verdict may come out, and where pairing by seed costs more than it gives."""
    test, level = family.settings.test, family.settings.alpha / max(family.num_comparisons, 1)
    if shared < 2:
        yield f"{counted(shared, 'seed')} to compare: a verdict needs two or more"
    elif stats.smallest_p_value(test, shared) > level:
        yield f"no verdict possible with {shared} seeds: {test} needs {stats.fewest_seeds(test, level)} here"
    elif math.isnan(comparison.p_value):
        yield "the same difference for every seed: no test possible"
    if not math.isnan(comparison.p_welch):
        yield f"pairing does not pay: Welch p {comparison.p_welch:.2g}"


def _path_notes(arms: dict[str, _Arm], path: Sequence[PathStep]) -> Iterator[tuple[str, str]]:
    """What a greedy study did with each arm, and by how much it differed in validation accuracy."""
    for number, step in enumerate(path, start=1):
        for name in step.candidates:
            if name in arms and step.before in arms and step.kept is not None:
                first, second = _paired(arms[name].scored, arms[step.before].scored, "val_accuracy")
                difference = (
                    round(100 * float(np.mean(first - second)), 2) + 0.0 if len(first) else math.nan
                )  # no -0.00
                by = f"{difference:+.2f} pp on validation" if len(first) else "no score"
                yield name, f"step {number}: {'kept' if name == step.kept else 'dropped'}, {by}"
