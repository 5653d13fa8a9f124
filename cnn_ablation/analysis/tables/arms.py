"""The table of arms: metric, difference from the baseline, verdict, time and notes, from a table of runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd

from cnn_ablation.analysis import notes, skewness, stats
from cnn_ablation.analysis.tables import looks
from cnn_ablation.analysis.tables.family import Family
from cnn_ablation.analysis.tables.first_look import Seeds, arms_beside, first_look_of
from cnn_ablation.analysis.tables.identical import identical_arms
from cnn_ablation.analysis.tables.input import checked_runs, checked_settings
from cnn_ablation.analysis.tables.rows import ArmRuns, paired_values, runs_by_arm
from cnn_ablation.analysis.tables.times import (
    TimeComparison,
    TimePairs,
    compare_times,
    processor_shares,
    with_occasions,
)
from cnn_ablation.common.errors import ConfigError, Problem, RecordError
from cnn_ablation.common.words import counted
from cnn_ablation.config import StatsConfig
from cnn_ablation.runs.task import Cost
from cnn_ablation.study.chance import VARY
from cnn_ablation.study.designs import BASELINE, FULL
from cnn_ablation.study.metric import Metric, chosen_by, metric_of
from cnn_ablation.study.plans import PathStep


def arm_columns(metric: Metric) -> tuple[str, ...]:
    """The columns of a table of arms: the metric's stand where those of the test accuracy are by default."""
    choice = ("val_accuracy_mean",) if metric.is_accuracy else ()
    return tuple(dict.fromkeys((
        "arm", "knob", "level", "n", *choice, *metric.estimate, *metric.delta, "p_value", "p_holm",
        "verdict", "seeds_needed_low", "seeds_needed", "seed_correlation",
        "train_seconds_mean", "time_ratio", "time_ratio_ci_low", "time_ratio_ci_high", "time_verdict",
        "images_per_second_mean", "num_params", "updates", "num_failed", "notes",
    )))  # fmt: skip


ARM_COLUMNS = arm_columns(metric_of(StatsConfig()))


def ablation_table(
    runs: pd.DataFrame,
    alpha: float = 0.05,
    margin_pp: float = 0.5,
    *,
    test: str = "t",
    simultaneous: bool = False,
    metric: str = "test_accuracy",
    direction: str | None = None,
    margin: float | None = None,
    time_margin: float = 0.05,
    reserve: float = 0.2,
    first_look: Mapping[str, Seeds] | None = None,
    path: Sequence[PathStep] = (),
    choice: str | None = None,
) -> pd.DataFrame:
    """The table of arms: metric, difference from the baseline, verdict, time, one row per arm.

    Differences are paired by seed. p-values are corrected by Holm's method over all arms that are compared. Dunnett's
    test pairs nothing and corrects them itself. Not compared are arms without the metric (a greedy study dropped them),
    arms whose runs are another arm's bit for bit, and arms whose seeds vary something else than those of the arm to
    compare with.

    Args:
        runs: any frame with `REQUIRED_COLUMNS`; accuracies in 0..1. For a metric that is no accuracy, any frame with
            `arm knob level seed status` and the metric. Further columns of runs.csv are used if present. Arms are
            compared with the arm `baseline`, or in its absence with `full`. Of an arm and seed that are there twice,
            the last row counts.
        alpha: probability of any false `better` or `worse`, apart from it that of any false `equivalent`, and
            1 - confidence of the intervals.
        margin_pp: half-width, in percentage points, of the range inside which accuracies are equivalent.
        test: "t"; "sign_flip" for the exact test that assumes symmetric noise only; "anytime", whose p-values and
            intervals hold however often the study is looked at and whenever it is stopped; or "dunnett", which compares
            all arms at once, without pairing, and corrects p-values in place of Holm's method.
        simultaneous: intervals of differences that hold for all arms at once (Bonferroni's or Dunnett's).
        metric: the column that arms are compared by.
        direction: "higher" or "lower" is better; None for lower where the name ends in loss, error or seconds, else
            higher.
        margin: as `margin_pp`, of a metric that is no accuracy, in its own unit; None for no verdict `equivalent`.
        time_margin: ratios of times from 1 / (1 + margin) to 1 + margin are equal.
        reserve: the share of alpha that the first look at a table leaves for seeds that are added, which the test
            "anytime" judges; without meaning where that is the test from the start.
        first_look: arm -> the seeds of its first look, or None while planned runs of it are missing; of an arm that is
            not named, all that are there. By default what `load_runs` found on record.
        path: the steps of a greedy study, for its notes.
        choice: the column by which that study chose; None for the one that `metric` asks for.

    Returns:
        A frame with `arm_columns`, the baseline first; see also `num_comparisons`.

    Raises:
        ConfigError: a setting is of the wrong type or out of its bounds, or the metric is no column.
        RecordError: `runs` is no table of runs (a column is missing, a value is of the wrong kind or out of range), or
            no run of the arm to compare with has the metric.
    """
    given = {"alpha": alpha, "margin_pp": margin_pp, "test": test, "simultaneous": simultaneous, "metric": metric}
    given |= {"direction": direction, "margin": margin, "time_margin": time_margin, "reserve": reserve}
    settings, path = checked_settings(given), _checked_path(path)
    compared_by, first_seeds = metric_of(settings), first_look_of(runs, metric, first_look)
    beside = arms_beside(runs, metric) if first_look is None else 0
    runs = checked_runs(runs, compared_by)
    arms = runs_by_arm(with_occasions(runs), metric, choice or chosen_by(metric, runs.columns))
    reference = _reference(arms, compared_by)
    arms = {reference: arms.pop(reference), **arms}
    apart = _varying_otherwise(arms, reference)
    same_as = {name: other for name, other in identical_arms(arms).items() if name not in apart}
    family = Family(arms[reference], settings, _tested(arms, reference, apart | same_as.keys()), first_seeds, beside)
    times = compare_times(arms, arms[reference], settings)
    remarks = _remarks(arms, runs, reference, same_as, dict(_path_notes(arms, path)))
    for name in apart:
        remarks[name].append(notes.other_chance(_WORDS[reference]))
    table = pd.DataFrame(_rows(arms, family, times, remarks), columns=list(arm_columns(compared_by)))
    compared = {_COMPARISONS: family.num_comparisons, "test": test, **family.look_attributes()}
    compared |= {"alpha": alpha}
    table.attrs |= compared | compared_by.attributes()
    table.attrs[_OPEN] = _Uncopied(family.open())
    return table


def _rows(
    arms: dict[str, ArmRuns], family: Family, times: dict[str, TimeComparison], remarks: dict[str, list[str]]
) -> Iterator[dict[str, Any]]:
    """One for each arm, the one that others are compared with first."""
    decided, means = family.decided(), family.means(list(arms.values()))
    skew = skewness.marked([family.differences(arm) for arm in family.tested.values()])
    for (name, arm), mean in zip(arms.items(), means, strict=True):
        comparison, p_holm, verdict = decided.get(name, _NOT_COMPARED)
        words = [*remarks[name], *_notes(name, arm, family, times[name].pairs, decided.get(name))]
        words += notes.skewed(skew, verdict, comparison.difference.mean)
        row = _row(arm, times[name]) | _measured(arm, family.metric, mean, comparison)
        verdict = BASELINE if arm is family.baseline else verdict
        yield row | {"p_holm": p_holm, "verdict": verdict, "notes": "; ".join(words)}


_COMPARISONS, _OPEN = "num_comparisons", "open_arms"
_WORDS = {BASELINE: "the baseline", FULL: "the full configuration"}
_NOT_COMPARED = (stats.NO_COMPARISON, math.nan, "undecided")


def num_comparisons(arms: pd.DataFrame) -> int | None:
    """How many comparisons the p-values of a table of arms were corrected for; None where it was read from a file."""
    return arms.attrs.get(_COMPARISONS)


def open_arms(arms: pd.DataFrame) -> list[str]:
    """Arms of a table without a verdict to which more seeds may bring one.

    Not among them: those that are not compared (another arm's runs bit for bit, test scores that a greedy study does
    not show), those whose every run failed, and those whose verdict is withheld because diverged runs have no metric.
    """
    return list(arms.attrs.get(_OPEN, []))


class _Uncopied(list[str]):
    """Names that frames share: pandas copies their attributes for every column that is taken from one, name by name."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Uncopied:
        return self


def reference_words(arms: pd.DataFrame) -> str:
    """What the arms of a table are compared with."""
    return _WORDS[next(iter(arms["arm"][arms["verdict"] == BASELINE]), BASELINE)]


def _checked_path(path: object) -> Sequence[PathStep]:
    if isinstance(path, Sequence) and all(isinstance(step, PathStep) for step in path):
        return path
    raise ConfigError([Problem("path", type(path).__name__, "a list of PathStep, as study.yaml holds it")])


def _reference(arms: dict[str, ArmRuns], metric: Metric) -> str:
    """The arm that others are compared with."""
    reference = BASELINE if BASELINE in arms or FULL not in arms else FULL
    if reference not in arms:
        raise RecordError(
            f"no finished run of the arm '{BASELINE}': there is nothing to compare with\n"
            f"  the table of runs has {_listed(list(arms))}; others are compared with '{BASELINE}', or with '{FULL}'"
        )
    if not len(arms[reference].scored):
        raise RecordError(f"no finished run of the arm '{reference}': there is nothing to compare with")
    if not len(arms[reference].with_metric):
        raise RecordError(f"no run of the arm '{reference}' has a {metric.column}: there is nothing to compare with")
    return reference


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return f"the arms {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _tested(arms: dict[str, ArmRuns], reference: str, left_out: Set[str]) -> dict[str, ArmRuns]:
    """The arms that are compared; each spends one of the comparisons that p-values are corrected for."""
    return {name: arm for name, arm in arms.items() if name != reference and name not in left_out and arm.is_tested}


def _varying_otherwise(arms: dict[str, ArmRuns], reference: str) -> set[str]:
    """Arms whose seeds vary something else: their mean is that of one draw of what stands still."""
    if VARY not in arms[reference]:
        return set()
    of_reference = set(map(str, arms[reference][VARY]))
    return {name for name, arm in arms.items() if set(map(str, arm[VARY])) != of_reference}


def _row(arm: ArmRuns, time: TimeComparison) -> dict[str, Any]:
    """Everything of one arm that does not depend on the metric."""
    scored, trained = arm.scored, arm.trained
    return {
        "arm": arm["arm"][0],
        "knob": arm["knob"][0],
        "level": arm["level"][0],
        "n": arm.num_scores,
        "val_accuracy_mean": scored.mean("val_accuracy"),
        "train_seconds_mean": trained.mean("train_seconds"),
        "time_ratio": time.ratio.mean,
        "time_ratio_ci_low": time.ratio.low,
        "time_ratio_ci_high": time.ratio.high,
        "time_verdict": time.verdict,
        "images_per_second_mean": trained.mean("images_per_second"),
        "num_params": scored.mean("num_params"),
        "updates": trained.mean("updates"),
        "num_failed": arm.count("failed"),
    }


def _measured(arm: ArmRuns, metric: Metric, mean: stats.Interval, compared: stats.Comparison) -> dict[str, Any]:
    """The metric of one arm and its difference from the baseline's."""
    values, difference = arm.with_metric[metric.column], compared.difference
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    least, most = (0.0, 1.0) if metric.is_accuracy else (-math.inf, math.inf)
    limits = float(np.maximum(mean.low, least)), float(np.minimum(mean.high, most))
    return {
        **dict(zip(metric.estimate, (mean.mean, deviation, *limits), strict=True)),
        **dict(zip(metric.delta, (difference.mean, difference.low, difference.high), strict=True)),
        "p_value": compared.p_value,
        "seeds_needed_low": compared.seeds_needed_low,
        "seeds_needed": compared.seeds_needed,
        "seed_correlation": compared.seed_correlation,
    }


def _remarks(
    arms: dict[str, ArmRuns], runs: pd.DataFrame, reference: str, same_as: dict[str, str], path_notes: dict[str, str]
) -> dict[str, list[str]]:
    """What the other arms, the path of a greedy study and the table of runs have to say about each arm."""
    found: dict[str, list[str]] = {name: [path_notes[name]] if name in path_notes else [] for name in arms}
    for name, other in same_as.items():
        found[name] += notes.identical("" if other == reference else other, _WORDS[reference])
    for name, arm in arms.items():
        if not arm.is_tested and name not in path_notes and name not in same_as:
            found[name].append(f"no {Metric(arm.metric).score}: not compared")
    repeated = runs["arm"][runs.duplicated(["arm", "seed"], keep="last")].value_counts()
    for repeated_name, count in repeated.items():
        found[str(repeated_name)].append(f"{counted(count, 'row')} of the same seed as a later one left out")
    return found


def _notes(name: str, arm: ArmRuns, family: Family, times: TimePairs, judged: looks.Judged | None) -> Iterator[str]:
    """What a reader must know before believing the row; without a comparison it has none to be told of."""
    yield from notes.confounds(_cost(arm), _cost(family.baseline))
    yield from _diagnoses(arm, family.baseline)
    for status, word in (("diverged", "diverged"), ("failed", "failed")):
        count = arm.count(status)
        if count:
            yield f"{count} of {len(arm)} runs {word}" + (_when(arm) if status == "diverged" else "")
    without = len(arm.scored) - arm.num_scores
    if without:
        yield f"{without} of {len(arm)} runs without {_score_words(arm.metric if arm.is_tested else arm.choice)}"
    if arm.num_lost:
        never = "other arms are never worse" if arm is family.baseline else "it is never better"
        yield f"diverged runs have no {Metric(arm.metric).score}: {never} or equivalent"
    if arm is not family.baseline:
        yield from notes.uncompared_times(len(times), times.num_shared, times.reasons, times.num_in_one_go)
    yield from notes.waited(arm.trained["seed"].tolist(), processor_shares(arm).tolist())
    if not family.is_paired:
        yield from notes.uneven_scatter(family.relative_spreads.get(str(arm["arm"][0]), math.nan))
    if judged:
        yield from _limits_of_the_test(name, family, judged)
    elif arm.num_scores == 1:
        yield "1 seed: no interval"


def _score_words(column: str) -> str:
    return {"test_accuracy": "a test score", "val_accuracy": "a validation score"}.get(column, column)


def _cost(arm: ArmRuns) -> Cost:
    return Cost(arm.trained.mean("updates"), arm.scored.mean("num_params"), arm.scored.mean("multiply_adds"))


def _diagnoses(arm: ArmRuns, baseline: ArmRuns) -> Iterator[str]:
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


def _when(arm: ArmRuns) -> str:
    diverged = arm.where(arm["status"] == "diverged")
    return notes.diverged(diverged["epochs"].tolist() if "epochs" in arm else [])


def _limits_of_the_test(name: str, family: Family, judged: looks.Judged) -> Iterator[str]:
    """Why no verdict may come out, from how many seeds it came, and where pairing costs more than it gives."""
    arm, (comparison, _, verdict) = family.tested[name], judged
    if not family.is_paired and family.stages[name] == looks.FIRST:
        if math.isnan(comparison.p_value):
            yield "no run to compare" if not arm.num_scores else "no seeds that differ in any arm: no test possible"
        return
    shared = len(family.paired_scores(arm)[0])
    if 2 <= shared < arm.num_scores:
        yield f"difference from the {shared} of {arm.num_scores} seeds that the baseline has too"
    test, level = family.level(name)
    if shared < 2:
        yield f"{counted(shared, 'seed')} to compare: a verdict needs two or more"
    elif verdict == "undecided" and stats.smallest_p_value(test, shared) > level > 0:
        yield f"no verdict possible with {shared} seeds: {test} needs {stats.fewest_seeds(test, level)} here"
    elif math.isnan(comparison.p_value):
        yield "the same difference for every seed: no test possible"
    yield from notes.pairing(comparison.widened)


def _path_notes(arms: dict[str, ArmRuns], path: Sequence[PathStep]) -> Iterator[tuple[str, str]]:
    """What a greedy study did with each arm, and by how much it differed in the figure that decided."""
    for number, step in enumerate(path, start=1):
        for name in step.candidates:
            if name in arms and step.before in arms and step.kept is not None:
                by = _step_words(arms[name], arms[step.before])
                yield name, f"step {number}: {'kept' if name == step.kept else 'dropped'}, {by}"


def _step_words(arm: ArmRuns, before: ArmRuns) -> str:
    """`+0.42 pp on validation`, `-0.031 in val_loss`."""
    choice = Metric(arm.choice)
    if choice.column not in arm:
        return "no score"
    first, second = paired_values(arm.scored, before.scored, choice.column)
    if not len(first):
        return "no score"
    difference = choice.factor * float(np.mean(first - second))
    if not choice.is_accuracy:
        return f"{difference + 0.0:+.3g} in {choice.column}"
    on = "on validation" if choice.column == "val_accuracy" else f"in {choice.words}"
    return f"{round(difference, 2) + 0.0:+.2f} pp {on}"  # no -0.00
