"""Records on disk -> table of runs -> table of arms. pandas, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnn_ablation import stats
from cnn_ablation.designs import BASELINE
from cnn_ablation.errors import RecordError
from cnn_ablation.plans import FILE_NAME, read_plan, setting_of
from cnn_ablation.progress import warn
from cnn_ablation.records import RUN_COLUMNS, Run, read_run, record_paths

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


def load_runs(folder: str | Path) -> pd.DataFrame:
    """The table of runs of a study, one row per arm and seed, rebuilt from the records on disk.

    Args:
        folder: a study's folder, as printed at its end.

    Returns:
        A frame with `records.RUN_COLUMNS` and one column per swept key.

    Raises:
        RecordError: there is no study in the folder, or none of its runs has finished.
    """
    runs = _planned_runs(Path(folder))
    keys = sorted({key for run in runs for key in run.knob.split(",") if key})
    rows = [
        {**{name: getattr(run, name) for name in RUN_COLUMNS}, **{key: setting_of(run.settings, key) for key in keys}}
        for run in runs
    ]
    return pd.DataFrame(rows, columns=[*RUN_COLUMNS, *keys])


def load_curves(folder: str | Path) -> pd.DataFrame:
    """Learning curves of a study: `arm, seed, epoch, train_loss, val_loss, val_accuracy, train_seconds` per epoch.

    Raises:
        RecordError: as `load_runs`.
    """
    rows = [{"arm": run.arm, "seed": run.seed, **point} for run in _planned_runs(Path(folder)) for point in run.curves]
    return pd.DataFrame(rows)


def _planned_runs(folder: Path) -> list[Run]:
    """The runs of the study's plan, arm by arm and seed by seed; a damaged record is named and counts as unfinished."""
    plan = read_plan(folder)
    found: dict[tuple[str, int], Run] = {}
    for path in record_paths(folder):
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
    return runs


def ablation_table(runs: pd.DataFrame, alpha: float = 0.05, margin_pp: float = 0.5) -> pd.DataFrame:
    """The table of arms: accuracy, difference from the baseline, verdict, time, one row per arm.

    Differences are paired by seed. p-values are corrected by Holm's method over all arms of the table.

    Args:
        runs: any frame with `REQUIRED_COLUMNS`; accuracies in 0..1. Further columns of runs.csv are used if present.
        alpha: family-wise error of the verdicts, and 1 - confidence of the intervals.
        margin_pp: half-width, in percentage points, of the range inside which arms are equivalent.

    Returns:
        A frame with `ARM_COLUMNS`, the baseline first.

    Raises:
        RecordError: a column is missing, or no run of the arm `baseline` has finished.
    """
    missing = [column for column in REQUIRED_COLUMNS if column not in runs.columns]
    if missing:
        raise RecordError(f"the table of runs lacks the columns {', '.join(missing)}")
    runs = runs.drop_duplicates(["arm", "seed"], keep="last").sort_values("seed", kind="stable")
    arms = {str(name): group for name, group in runs.groupby("arm", sort=False)}
    baseline = arms.pop(BASELINE, pd.DataFrame(columns=runs.columns))
    if with_score(baseline).empty:
        raise RecordError(f"no finished run of the arm '{BASELINE}': there is nothing to compare with")
    order = list(dict.fromkeys(runs.sort_index(kind="stable")["arm"]))
    comparisons = {
        name: _compare(arms[name], baseline, alpha, margin_pp, len(arms)) for name in order if name != BASELINE
    }
    verdicts = _verdicts(list(comparisons.values()), alpha)
    rows = [_row(baseline, baseline, stats.NO_COMPARISON, alpha) | {"verdict": "baseline"}]
    for (name, comparison), verdict in zip(comparisons.items(), verdicts, strict=True):
        rows.append(_row(arms[name], baseline, comparison, alpha) | verdict)
    return pd.DataFrame(rows, columns=list(ARM_COLUMNS))


def with_score(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with a score."""
    return runs[runs["status"].isin(COUNTED)]


def _compare(
    arm: pd.DataFrame, baseline: pd.DataFrame, alpha: float, margin_pp: float, num_comparisons: int
) -> stats.Comparison:
    first, second = _paired(with_score(arm), with_score(baseline), "test_accuracy")
    return stats.compare(first, second, alpha=alpha, margin_pp=margin_pp, num_comparisons=num_comparisons)


def _paired(arm: pd.DataFrame, baseline: pd.DataFrame, column: str) -> tuple[stats.Floats, stats.Floats]:
    """Values of the seeds that both have, in the order of the seeds."""
    first, second = arm.set_index("seed")[column], baseline.set_index("seed")[column]
    both = first.index.intersection(second.index).sort_values()
    return first.loc[both].to_numpy(dtype=float), second.loc[both].to_numpy(dtype=float)


def _verdicts(comparisons: list[stats.Comparison], alpha: float) -> list[dict[str, Any]]:
    """p-values and verdicts, corrected over all comparisons."""
    p_holm = stats.holm([comparison.p_value for comparison in comparisons])
    p_equivalence = stats.holm([comparison.p_equivalence for comparison in comparisons])
    return [
        {"p_holm": corrected, "verdict": stats.verdict(comparison.difference.mean, corrected, equivalence, alpha)}
        for comparison, corrected, equivalence in zip(comparisons, p_holm, p_equivalence, strict=True)
    ]


def _row(arm: pd.DataFrame, baseline: pd.DataFrame, comparison: stats.Comparison, alpha: float) -> dict[str, Any]:
    """Everything of one arm that does not depend on the other arms."""
    scored = with_score(arm)
    test = scored["test_accuracy"].to_numpy(dtype=float)
    accuracy = stats.mean_interval(test, alpha)
    ratio = stats.log_ratio_interval(*_paired(_fully_trained(arm), _fully_trained(baseline), "train_seconds"), alpha)
    first = arm.iloc[0]
    return {
        "arm": first["arm"],
        "knob": first["knob"],
        "level": first["level"],
        "n": len(scored),
        "val_accuracy_mean": _mean(scored, "val_accuracy"),
        "test_accuracy_mean": accuracy.mean,
        "test_accuracy_std": float(np.std(test, ddof=1)) if len(test) > 1 else math.nan,
        "test_accuracy_ci_low": accuracy.low,
        "test_accuracy_ci_high": accuracy.high,
        "delta_pp": comparison.difference.mean,
        "delta_ci_low_pp": comparison.difference.low,
        "delta_ci_high_pp": comparison.difference.high,
        "p_value": comparison.p_value,
        "p_holm": math.nan,
        "seeds_needed": comparison.seeds_needed,
        "seed_correlation": comparison.seed_correlation,
        "train_seconds_mean": _mean(_fully_trained(arm), "train_seconds"),
        "time_ratio": ratio.mean,
        "time_ratio_ci_low": ratio.low,
        "time_ratio_ci_high": ratio.high,
        "images_per_second_mean": _mean(_fully_trained(arm), "images_per_second"),
        "num_params": _mean(scored, "num_params"),
        "updates": _mean(_fully_trained(arm), "updates"),
        "num_failed": int((arm["status"] == "failed").sum()),
        "notes": "; ".join(_notes(arm, baseline)),
    }


def _fully_trained(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["status"].isin(TRAINED)]


def _mean(runs: pd.DataFrame, column: str) -> float:
    """The mean of a column, NaN if the table has none."""
    return float(runs[column].astype(float).mean()) if column in runs.columns and len(runs) else math.nan


def _notes(arm: pd.DataFrame, baseline: pd.DataFrame) -> Iterable[str]:
    """What a reader must know before believing the row."""
    scored = with_score(arm)
    updates = _mean(_fully_trained(arm), "updates") / _mean(_fully_trained(baseline), "updates")
    if updates > 1.05 or updates < 1 / 1.05:
        yield f"{updates:.2g}x more updates" if updates > 1 else f"{1 / updates:.2g}x fewer updates"
    params = _mean(scored, "num_params") / _mean(with_score(baseline), "num_params") - 1
    if abs(params) >= 0.005:
        yield f"{100 * params:+.0f} % parameters"
    diverged = arm[arm["status"] == "diverged"]
    if len(diverged):
        when = f" at epoch {int(diverged['epochs'].min())}" if "epochs" in arm.columns else ""
        yield f"{len(diverged)} of {len(arm)} runs diverged{when}"
    failed = int((arm["status"] == "failed").sum())
    if failed:
        yield f"{failed} of {len(arm)} runs failed"
    shared = scored["seed"].isin(with_score(baseline)["seed"]).sum()
    if shared < 2:
        yield f"{shared} seed{'' if shared == 1 else 's'} to compare: a verdict needs two or more"
    elif arm is not baseline and _differences_are_all_equal(scored, with_score(baseline)):
        yield "the same difference for every seed: no test possible"


def _differences_are_all_equal(arm: pd.DataFrame, baseline: pd.DataFrame) -> bool:
    first, second = _paired(arm, baseline, "test_accuracy")
    return bool(np.ptp(first - second) < 1e-11)
