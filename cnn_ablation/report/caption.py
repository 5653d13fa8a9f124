"""What is said of a table of arms: what was measured and what was done, sentence by sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from cnn_ablation.common.words import counted
from cnn_ablation.config import StatsConfig
from cnn_ablation.report.text import more_seeds
from cnn_ablation.runs.task import Chance
from cnn_ablation.study.metric import Metric, metric_of
from cnn_ablation.study.seeds import AddedSeeds

_TEST_NAMES = {
    "t": "a paired t test",
    "sign_flip": "an exact paired sign-flip test",
    "anytime": "a paired t test that holds at every number of seeds",
    "dunnett": "Dunnett's test with one variance for all arms",
}


@dataclass(frozen=True)
class Caption:
    """Sentences by what they are about, in the order in which a caption says them."""

    measured: tuple[str, ...] = ()
    """The metric, its intervals and what seeds vary."""
    compared: tuple[str, ...] = ()
    """Test, correction, and what verdicts promise."""
    looks: tuple[str, ...] = ()
    added_seeds: tuple[str, ...] = ()
    choice: tuple[str, ...] = ()
    """How the arms came about."""
    more_seeds: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    """Those that are not what one expects."""
    made_with: tuple[str, ...] = ()

    def __str__(self) -> str:
        """All of it in one block."""
        return " ".join(paragraph for _, paragraph in self.paragraphs())

    def paragraphs(self) -> list[tuple[str, str]]:
        """Heading and text of each part that has something to say."""
        parts = [(_HEADINGS[item.name], getattr(self, item.name)) for item in dataclasses.fields(self)]
        return [(heading, " ".join(sentences)) for heading, sentences in parts if sentences]


_HEADINGS = {
    "measured": "What was measured",
    "compared": "How arms are compared",
    "looks": "Looks at this table",
    "added_seeds": "Seeds that were added",
    "choice": "How the arms were chosen",
    "more_seeds": "More seeds",
    "times": "Times",
    "runs": "Runs",
    "made_with": "Hardware and versions",
}


def caption(
    runs: pd.DataFrame,
    arms: pd.DataFrame,
    settings: StatsConfig,
    *,
    choice: str | None = "",
    auto: AddedSeeds | None = None,
    made_with: str = "",
    chance: Chance | None = None,
) -> str:
    """What was measured and how, in the words of a paper's table caption; `described` says of what."""
    how = described(runs, arms, settings, choice=choice, auto=auto, made_with=made_with, chance=chance)
    return str(how)


def described(
    runs: pd.DataFrame,
    arms: pd.DataFrame,
    settings: StatsConfig,
    *,
    choice: str | None = "",
    auto: AddedSeeds | None = None,
    made_with: str = "",
    chance: Chance | None = None,
) -> Caption:
    """The caption of a table of arms, by what its sentences are about.

    Args:
        runs: the table of runs.
        arms: the table of arms made from it.
        settings: as used for `arms`.
        choice: the column by which a greedy study chose, empty for another study; None where only the table of runs is
            known.
        auto: how many seeds each arm has, where they were added until it had a verdict.
        made_with: hardware and versions.
        chance: what the seeds vary; None where that is not known.
    """
    # These import pandas and scipy, which pictures of a prediction do not need.
    from cnn_ablation.analysis.tables import checked_runs
    from cnn_ablation.report.looked import looked

    metric = metric_of(settings)
    runs = checked_runs(runs, metric).drop_duplicates(["arm", "seed"], keep="last")
    of_images = "val_accuracy" in runs.columns
    return Caption(
        measured=tuple(_measured(arms, settings, metric, chance)),
        compared=tuple(_compared(arms, settings, metric)),
        looks=tuple(looked(runs, arms, settings, _TEST_NAMES)),
        added_seeds=tuple(_added(auto)) if auto else (),
        choice=(_chosen(choice, metric),),
        more_seeds=(_more_seeds(),) if any(map(more_seeds, arms.to_dict("records"))) else (),
        times=(*_timed(runs, of_images=of_images), *_times_compared(arms, settings)),
        runs=tuple(_counts(runs, metric)),
        made_with=(made_with.strip(),) if made_with.strip() else (),
    )


def _more_seeds() -> str:
    from cnn_ablation.analysis.stats import MAX_SEEDS_NEEDED

    return (
        "More seeds is how many decide an arm in half and in 80 % of what these seeds leave possible, with effect and "
        f"spread as uncertain as they are. It cannot be said yet beyond {MAX_SEEDS_NEEDED} in all, or of a wide range."
    )


def _added(auto: AddedSeeds) -> Iterator[str]:
    """How many seeds arms have, and why not equally many."""
    yield (
        "Seeds were added to arms without a verdict, and to the arm that they are compared with, one round after "
        f"another, from {auto.min_replicates} to at most {auto.max_replicates}: {auto.words()}."
    )


def _counts(runs: pd.DataFrame, metric: Metric) -> Iterator[str]:
    """Runs that are not what one expects."""
    failed, diverged = (int((runs["status"] == status).sum()) for status in ("failed", "diverged"))
    if failed:
        yield f"{failed} of {len(runs)} runs failed and have no score."
    if diverged:
        lost = diverged - int(runs.loc[runs["status"] == "diverged", metric.column].count())
        count = "count as what they scored" if lost < diverged else f"have no {metric.score}"
        some = f"; {lost} of them have no {metric.score}" if 0 < lost < diverged else ""
        yield f"{diverged} of {len(runs)} runs diverged and {count}{some}."
    reused = int(runs["reused"].sum()) if "reused" in runs.columns else 0
    if reused:
        yield f"{reused} of {len(runs)} runs were reused from earlier studies, with their times of then."


def _timed(runs: pd.DataFrame, *, of_images: bool) -> Iterator[str]:
    trained = runs[(runs["status"] == "ok") & runs["train_seconds"].notna()]
    if not len(trained):
        return
    counts = sorted(set(trained["concurrent_runs"].dropna())) if "concurrent_runs" in runs.columns else []
    words = ["one run at a time" if count == 1 else f"{count:g} runs side by side" for count in counts]
    how = f", measured with {' and with '.join(words)}{_more_company(trained)}" if words else ""
    which = "training steps alone" if of_images else "a run's whole training"
    yield f"Times are those of {which}{how}."


_UNSEEN_COMPANY = 0.25
"""Runs more than planned, in the mean: beginnings and ends of runs count for less."""


def _more_company(trained: pd.DataFrame) -> str:
    """What really ran beside runs, where that was more than their own job knew: other jobs, other studies."""
    if "neighbours" not in trained.columns or not trained["neighbours"].notna().any():
        return ""
    neighbours = trained["neighbours"].mean()
    planned = trained.loc[trained["neighbours"].notna(), "concurrent_runs"].mean() - 1
    if neighbours <= planned + _UNSEEN_COMPANY:
        return ""
    return f" as far as each job knew, but with {1 + neighbours:.1f} in the mean on their machine"


def _times_compared(arms: pd.DataFrame, settings: StatsConfig) -> Iterator[str]:
    """What the verdicts on times mean; nothing where there is none."""
    from cnn_ablation.analysis.tables import reference_words

    num_tested = int((arms["time_verdict"] != "").sum())
    if num_tested:
        most = 1 + settings.time_margin
        yield (
            f"Slower and faster hold after Holm's correction over {counted(num_tested, 'comparison')} of times, a "
            f"family of its own, at {settings.alpha:g}; equal means shown to lie between {1 / most:.3g} and {most:.3g} "
            f"times {reference_words(arms)}'s."
        )


def _chosen(choice: str | None, metric: Metric) -> str:
    """How the arms came about, and whether the figures that chose are those that are shown."""
    if choice is None:
        return "Made from a table of runs alone, which does not say what its seeds vary or how its arms were chosen."
    if not choice:
        return "All arms were fixed before the first run; the study chose nothing by a score."
    kept = f"At each step the level with the best mean {Metric(choice).words} was kept and the next knob tried on top"
    if choice == metric.column:
        flattered = "The figures that chose are those shown here, which flatters what was kept"
        return f"{kept}. {flattered}; new seeds would give an unbiased one."
    hidden = "; test scores are shown only for what validation kept" if metric.column.startswith("test_") else ""
    return f"{kept}{hidden}. The seeds that chose also report, which flatters what was kept."


def _measured(arms: pd.DataFrame, settings: StatsConfig, metric: Metric, chance: Chance | None) -> Iterator[str]:
    counts = sorted(set(arms["n"][arms[metric.estimate[0]].notna()]))
    what = (
        f"Top-1 {metric.words} at the end of training"
        if metric.is_accuracy
        else f"{metric.column} ({metric.direction} is better)"
    )
    if counts[-1] < 2:
        yield f"{what}, one seed for each arm: there is no interval."
        return
    how_many = f"n = {counts[0]}" if len(counts) == 1 else f"n from {counts[0]} to {counts[-1]}"
    seeds = f", which {chance.words}" if chance else ""
    interval = "confidence sequence" if settings.test == "anytime" else "t interval"
    yield f"{what}, mean and {100 * (1 - settings.alpha):g} % {interval} over seeds ({how_many}){seeds}."
    if chance and chance.same_tests and metric.column.startswith("test_"):
        yield "Intervals say what other seeds would give on these test images, not what other images would."


def _compared(arms: pd.DataFrame, settings: StatsConfig, metric: Metric) -> Iterator[str]:
    """Test, correction and bars of the differences; nothing where there is nothing to compare."""
    from cnn_ablation.analysis.tables import num_comparisons, reference_words

    comparisons = num_comparisons(arms)
    if comparisons == 0:
        return
    bars, test = "simultaneous" if settings.simultaneous else "individual", _TEST_NAMES[settings.test]
    family = "all comparisons" if comparisons is None else counted(comparisons, "comparison")
    no_test = arms["p_value"].isna().all()
    outcome = "With these seeds no test is possible" if no_test else _equivalent(metric)
    test = f"{test} over {family}" if settings.test == "dunnett" else f"{test} and Holm's correction over {family}"
    pairs = "not paired" if settings.test == "dunnett" else "paired by seed"
    yield f"Differences from {reference_words(arms)} are {pairs}, with {bars} intervals, {test} at {settings.alpha:g}."
    yield f"{outcome}."
    if not no_test:
        yield _promised(settings.alpha, metric)


def _promised(alpha: float, metric: Metric) -> str:
    """What alpha holds for: two families, of differences and of equivalences."""
    likewise = "" if metric.margin is None else ", and apart from them any false equivalent likewise"
    return f"Any false better or worse in the table has a probability of at most {100 * alpha:g} %{likewise}."


def _equivalent(metric: Metric) -> str:
    """What equivalence means; a margin in a unit that nobody named would be invented."""
    if metric.margin is None:
        return f"No arm can be called equivalent, because stats.margin, in the unit of {metric.column}, is not given"
    unit = "percentage points" if metric.is_accuracy else f"in {metric.column}"
    return f"Equivalent means two one-sided tests inside ±{metric.margin:g} {unit}, corrected likewise"
