"""The table of arms as a reader wants it: rounded, with intervals, and with a caption that says what was done."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from cnn_ablation.common.words import counted
from cnn_ablation.config import StatsConfig

TEXT_COLUMNS = {"arm", "verdict", "notes", "figure", "the paper's is", "printed in", "why"}


def readable_table(arms: pd.DataFrame) -> pd.DataFrame:
    """The table of arms as text, one column per question a reader asks; empty where a number cannot be computed."""
    return pd.DataFrame([_readable(row) for _, row in arms.iterrows()])


def _readable(row: pd.Series[Any]) -> dict[str, str]:
    accuracy, is_baseline = "test_accuracy", row["verdict"] == "baseline"
    return {
        "arm": row["arm"],
        "n": str(row["n"]),
        "test accuracy %": _with_interval(
            100 * row[[f"{accuracy}_mean", f"{accuracy}_ci_low", f"{accuracy}_ci_high"]], "{:.2f}"
        ),
        "difference pp": _with_interval(row[["delta_pp", "delta_ci_low_pp", "delta_ci_high_pp"]], "{:+.2f}"),
        "p (Holm)": _p_value(row["p_holm"]),
        "verdict": row["verdict"],
        "more seeds": _more_seeds(row),
        "train s": _number(row["train_seconds_mean"], "{:.2f}"),
        "time ratio": ""
        if is_baseline
        else _with_interval(row[["time_ratio", "time_ratio_ci_low", "time_ratio_ci_high"]], "{:.2f}"),
        "notes": row["notes"],
    }


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _with_interval(estimate: pd.Series[Any], form: str) -> str:
    """`95.81 [93.80, 97.82]` from mean, low and high; says so where there is no interval."""
    mean, low, high = (_number(float(value), form) for value in estimate)
    if not mean:
        return ""
    return f"{mean} [{low}, {high}]" if low else f"{mean} [no interval]"


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else _number(value, "{:.3f}")


def _more_seeds(row: pd.Series[Any]) -> str:
    """How many more seeds would probably decide an undecided arm."""
    from cnn_ablation.analysis.stats import MAX_SEEDS_NEEDED

    more = row["seeds_needed"] - row["n"]
    if row["verdict"] != "undecided" or not more > 0:
        return ""
    return f">{more:.0f}" if row["seeds_needed"] >= MAX_SEEDS_NEEDED else f"{more:.0f}"


MIN_SEEDS_FOR_BCA = 20  # with 10, "95 %" intervals hold the truth in 90 % of simulated studies, with 3 in 73 %
_TEST_NAMES = {"t": "a paired t test", "sign_flip": "an exact paired sign-flip test"}
_INTERVAL_NAMES = {"t": "t interval", "bca": "BCa bootstrap interval"}


def caption(
    runs: pd.DataFrame,
    arms: pd.DataFrame,
    settings: StatsConfig,
    *,
    chosen_by_validation: bool | None = False,
    made_with: str = "",
) -> str:
    """What was measured and how, in the words of a paper's table caption.

    Args:
        runs: the table of runs.
        arms: the table of arms made from it.
        settings: as used for `arms`.
        chosen_by_validation: whether arms came from a greedy study; None where only the table of runs is known.
        made_with: hardware and versions.
    """
    from cnn_ablation.analysis.tables import (
        checked_runs,  # imports statsmodels, which pictures of a prediction do not need
    )

    runs = checked_runs(runs).drop_duplicates(["arm", "seed"], keep="last")
    is_study = chosen_by_validation is not None
    sentences = [*_measured(arms, settings, is_study=is_study), *_compared(arms, settings)]
    sentences.append(_CHOICE[chosen_by_validation])
    if any(_more_seeds(row) for _, row in arms.iterrows()):
        sentences.append("More seeds is how many would probably decide it (80 % power at the observed spread).")
    sentences += [*_timed(runs), *_counts(runs)]
    return " ".join([*sentences, made_with]).strip()


def _counts(runs: pd.DataFrame) -> Iterator[str]:
    """Runs that are not what one expects."""
    failed, diverged = (int((runs["status"] == status).sum()) for status in ("failed", "diverged"))
    if failed:
        yield f"{failed} of {len(runs)} runs failed and have no score."
    if diverged:
        yield f"{diverged} of {len(runs)} runs diverged and count as what they scored."
    reused = int(runs["reused"].sum()) if "reused" in runs.columns else 0
    if reused:
        yield f"{reused} of {len(runs)} runs were reused from earlier studies, with their times of then."


def _timed(runs: pd.DataFrame) -> Iterator[str]:
    trained = runs[(runs["status"] == "ok") & runs["train_seconds"].notna()]
    if not len(trained):
        return
    counts = sorted(set(trained["concurrent_runs"].dropna())) if "concurrent_runs" in runs.columns else []
    words = ["one run at a time" if count == 1 else f"{count:g} runs side by side" for count in counts]
    how = f", measured with {' and with '.join(words)}" if words else ""
    yield f"Train s is the time of training steps alone{how}."


_CHOICE = {
    False: "All arms were fixed before the first run; the study chose nothing by a score.",
    True: "At each step the level with the best mean validation accuracy was kept and the next knob tried on top; test "
    "scores are shown only for what validation kept. The seeds that chose also report, which flatters what was kept.",
    None: "Made from a table of runs alone, which does not say what its seeds vary or how its arms were chosen.",
}


def _measured(arms: pd.DataFrame, settings: StatsConfig, *, is_study: bool) -> Iterator[str]:
    counts = sorted(set(arms["n"][arms["test_accuracy_mean"].notna()]))
    what = "Top-1 test accuracy at the end of training"
    vary = "which differ in initial weights, order of images and dropout, not in the split of data"
    if counts[-1] < 2:
        yield f"{what}, one seed for each arm: there is no interval."
        return
    how_many = f"n = {counts[0]}" if len(counts) == 1 else f"n from {counts[0]} to {counts[-1]}"
    confidence = f"{100 * (1 - settings.alpha):g} %"
    yield (
        f"{what}, mean and {confidence} {_INTERVAL_NAMES[settings.interval]} over seeds ({how_many})"
        f"{f', {vary}' if is_study else ''}."
    )
    if settings.interval == "bca" and counts[0] < MIN_SEEDS_FOR_BCA:
        yield f"BCa intervals from fewer than {MIN_SEEDS_FOR_BCA} seeds are too narrow; t intervals are not."


def _compared(arms: pd.DataFrame, settings: StatsConfig) -> Iterator[str]:
    """Test, correction and bars of the differences; nothing where there is nothing to compare."""
    from cnn_ablation.analysis.tables import num_comparisons, reference_words

    comparisons = num_comparisons(arms)
    if comparisons == 0:
        return
    bars, test = "simultaneous" if settings.simultaneous else "individual", _TEST_NAMES[settings.test]
    family = "all comparisons" if comparisons is None else counted(comparisons, "comparison")
    equivalent = f"equivalent means two one-sided tests inside ±{settings.margin_pp:g} percentage points"
    no_test = arms["p_value"].isna().all()
    outcome = "with these seeds no test is possible" if no_test else f"{equivalent}, corrected likewise"
    yield (
        f"Differences from {reference_words(arms)} are paired by seed, with {bars} intervals, {test} and Holm's "
        f"correction over {family} at {settings.alpha:g}; {outcome}."
    )
