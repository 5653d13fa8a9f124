"""Records on disk -> table of runs -> table of arms. pandas, no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnn_ablation import notes, stats
from cnn_ablation.config import StatsConfig
from cnn_ablation.designs import BASELINE, FULL
from cnn_ablation.errors import RecordError
from cnn_ablation.plans import FILE_NAME, PathStep, Plan, counted, read_plan, setting_of
from cnn_ablation.progress import warn
from cnn_ablation.records import DIAGNOSIS_COLUMNS, RUN_COLUMNS, Run, read_run, record_paths

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
        frame = pd.DataFrame(
            [
                {name: getattr(run, name) for name in (*RUN_COLUMNS, *DIAGNOSIS_COLUMNS)}
                | {key: setting_of(run.settings, key) for key in keys}
                for run in self.runs
            ],
            columns=[*RUN_COLUMNS, *keys, *DIAGNOSIS_COLUMNS],
        )
        frame.loc[frame["arm"].isin(self.plan.dropped), ["test_accuracy", "test_loss"]] = math.nan
        return frame

    def curves(self) -> pd.DataFrame:
        """Learning curves: `arm, seed, epoch, train_loss, val_loss, val_accuracy, train_seconds` per epoch."""
        return pd.DataFrame([{"arm": run.arm, "seed": run.seed, **point} for run in self.runs for point in run.curves])


def read_study(folder: Path) -> FinishedStudy:
    """Reads what is on disk; a damaged record is named and counts as unfinished.

    Raises:
        RecordError: there is no study in the folder, or none of its runs has finished.
    """
    plan = read_plan(folder)
    found: dict[tuple[str, int], Run] = {}
    for path in sorted(record_paths(folder), key=_time_of_writing):  # the newest counts, should one be there twice
        try:
            run = read_run(path)
        except RecordError as error:
            warn(str(error))
            continue
        found[run.arm, run.seed] = run
    wanted = [(arm, seed) for arm in plan.arms for seed in plan.seeds]
    runs = [found[arm.name, seed] for arm, seed in wanted if (arm.name, seed) in found]
    if not runs:
        raise RecordError(f"{folder} holds no finished run of the study in its {FILE_NAME}")
    return FinishedStudy(plan, runs)


def _time_of_writing(path: Path) -> int:
    return path.stat().st_mtime_ns


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
    return read_study(Path(folder)).run_table()


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
    order = [str(name) for name in dict.fromkeys(runs["arm"])]
    runs = runs.drop_duplicates(["arm", "seed"], keep="last").sort_values("seed", kind="stable")
    arms = {str(name): group for name, group in runs.groupby("arm", sort=False)}
    reference = BASELINE if BASELINE in arms else FULL
    baseline = arms.get(reference, runs.iloc[:0])
    if with_score(baseline).empty:
        raise RecordError(f"no finished run of the arm '{BASELINE}': there is nothing to compare with")
    order = [reference, *(name for name in order if name != reference)]
    tested = [name for name in order if name != reference and _is_tested(arms[name])]
    family = _Family(baseline, settings, len(tested))
    compared = [_compare(arms[name], family) for name in tested]
    decided = dict(zip(tested, zip(compared, stats.verdicts(compared, alpha), strict=True), strict=True))
    undecided = (stats.NO_COMPARISON, (math.nan, "undecided"))
    path_notes = dict(_path_notes(arms, path))
    rows = []
    for name in order:
        comparison, (p_holm, verdict) = decided.get(name, undecided)
        row = _row(arms[name], family, comparison)
        words = [path_notes.get(name, ""), *_notes(arms[name], family, comparison)]
        verdict = "baseline" if name == reference else verdict
        rows.append(row | {"p_holm": p_holm, "verdict": verdict, "notes": "; ".join(filter(None, words))})
    return pd.DataFrame(rows, columns=list(ARM_COLUMNS))


def with_score(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with a score."""
    return runs[runs["status"].isin(COUNTED)]


def _is_tested(arm: pd.DataFrame) -> bool:
    """Whether the arm is compared on the test set; a greedy study shows no test score of what validation dropped."""
    scored = with_score(arm)
    return bool(scored.empty or scored["test_accuracy"].notna().any())


@dataclass(frozen=True)
class _Family:
    """What all comparisons of a table share."""

    baseline: pd.DataFrame
    settings: StatsConfig
    num_comparisons: int

    def paired_scores(self, arm: pd.DataFrame) -> tuple[stats.Floats, stats.Floats]:
        """Test accuracies of an arm and of the baseline, seed by seed."""
        return _paired(with_score(arm), with_score(self.baseline), "test_accuracy")


def _compare(arm: pd.DataFrame, family: _Family) -> stats.Comparison:
    first, second = family.paired_scores(arm)
    comparison = stats.compare(first, second, family.settings, num_comparisons=family.num_comparisons)
    needed = stats.seeds_needed(100 * (first - second), family.settings, num_comparisons=family.num_comparisons)
    return dataclasses.replace(comparison, seeds_needed=needed)


def _paired(arm: pd.DataFrame, baseline: pd.DataFrame, column: str) -> tuple[stats.Floats, stats.Floats]:
    """Values of the seeds that both have, in the order of the seeds."""
    first, second = arm.set_index("seed")[column].dropna(), baseline.set_index("seed")[column].dropna()
    both = first.index.intersection(second.index).sort_values()
    return first.loc[both].to_numpy(dtype=float), second.loc[both].to_numpy(dtype=float)


def _paired_times(arm: pd.DataFrame, baseline: pd.DataFrame) -> tuple[stats.Floats, stats.Floats]:
    """Training times of the seeds that both have and that shared their machine with equally many runs."""
    if "concurrent_runs" in arm.columns:
        both = arm.merge(baseline, on=["seed", "concurrent_runs"])["seed"]
        arm, baseline = arm[arm["seed"].isin(both)], baseline[baseline["seed"].isin(both)]
    return _paired(arm, baseline, "train_seconds")


def _row(arm: pd.DataFrame, family: _Family, comparison: stats.Comparison) -> dict[str, Any]:
    """Everything of one arm that does not depend on the other arms."""
    settings, scored, trained = family.settings, with_score(arm), _fully_trained(arm)
    test = scored["test_accuracy"].dropna().to_numpy(dtype=float)
    accuracy = stats.mean_interval(test, settings.alpha, settings.interval)
    times = _paired_times(trained, _fully_trained(family.baseline))
    ratio = stats.log_ratio_interval(*times, settings.alpha, settings.interval)
    first = arm.iloc[0]
    return {
        "arm": first["arm"],
        "knob": first["knob"],
        "level": first["level"],
        "n": len(scored),
        "val_accuracy_mean": _mean(scored, "val_accuracy"),
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
        "train_seconds_mean": _mean(trained, "train_seconds"),
        "time_ratio": ratio.mean,
        "time_ratio_ci_low": ratio.low,
        "time_ratio_ci_high": ratio.high,
        "images_per_second_mean": _mean(trained, "images_per_second"),
        "num_params": _mean(scored, "num_params"),
        "updates": _mean(trained, "updates"),
        "num_failed": int((arm["status"] == "failed").sum()),
    }


def _fully_trained(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["status"].isin(TRAINED)]


def _mean(runs: pd.DataFrame, column: str) -> float:
    """The mean of a column, NaN if the table has none."""
    return float(runs[column].astype(float).mean()) if column in runs.columns and len(runs) else math.nan


def _notes(arm: pd.DataFrame, family: _Family, comparison: stats.Comparison) -> Iterator[str]:
    """What a reader must know before believing the row."""
    yield from notes.confounds(_cost(arm), _cost(family.baseline))
    yield from _diagnoses(arm, family.baseline)
    for status, word in (("diverged", "diverged"), ("failed", "failed")):
        count = int((arm["status"] == status).sum())
        if count:
            yield f"{count} of {len(arm)} runs {word}" + (_when(arm) if status == "diverged" else "")
    trained, baseline = _fully_trained(arm), _fully_trained(family.baseline)
    if len(_paired_times(trained, baseline)[0]) < len(_paired(trained, baseline, "train_seconds")[0]):
        yield "times of runs side by side and of lone runs are not compared"
    if arm is not family.baseline and _is_tested(arm):
        yield from _limits_of_the_test(len(family.paired_scores(arm)[0]), family, comparison)
    elif len(with_score(arm)) < 2:
        yield "1 seed: no interval"


def _cost(arm: pd.DataFrame) -> notes.Cost:
    scored = with_score(arm)
    return notes.Cost(
        _mean(_fully_trained(arm), "updates"), _mean(scored, "num_params"), _mean(scored, "multiply_adds")
    )


def _diagnoses(arm: pd.DataFrame, baseline: pd.DataFrame) -> Iterator[str]:
    """From the columns behind the swept keys; a table of runs without them has nothing to say."""
    scored = with_score(arm)
    if scored.empty:
        return
    yield from notes.double_softmax(_mean(scored, "double_softmax") > 0, _mean(scored, "num_classes"))
    if "lowest_train_loss" in scored.columns:
        yield from notes.stuck(scored["lowest_train_loss"].tolist(), _mean(scored, "num_classes"))
    yield from notes.dead_units(_mean(scored, "dead_units"), _most_common(scored, "dead_layer"))
    yield from notes.saturated_outputs(_mean(scored, "saturated_outputs"), _most_common(scored, "saturated_layer"))
    norms = [_mean(with_score(runs), "initial_gradient_norm") for runs in (arm, baseline)]
    yield from notes.gradient(*norms)
    yield from notes.generalisation_gap(_mean(scored, "train_accuracy"), _mean(scored, "val_accuracy"))


def _most_common(runs: pd.DataFrame, column: str) -> str:
    return str(runs[column].mode().iloc[0]) if column in runs.columns and runs[column].notna().any() else ""


def _when(arm: pd.DataFrame) -> str:
    diverged = arm[arm["status"] == "diverged"]
    return f" at epoch {int(diverged['epochs'].min())}" if "epochs" in arm.columns else ""


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


def _path_notes(arms: dict[str, pd.DataFrame], path: Sequence[PathStep]) -> Iterator[tuple[str, str]]:
    """What a greedy study did with each arm, and by how much it differed in validation accuracy."""
    for number, step in enumerate(path, start=1):
        for name in step.candidates:
            if name in arms and step.before in arms and step.kept is not None:
                first, second = _paired(with_score(arms[name]), with_score(arms[step.before]), "val_accuracy")
                difference = (
                    round(100 * float(np.mean(first - second)), 2) + 0.0 if len(first) else math.nan
                )  # no -0.00
                by = f"{difference:+.2f} pp on validation" if len(first) else "no score"
                yield name, f"step {number}: {'kept' if name == step.kept else 'dropped'}, {by}"
