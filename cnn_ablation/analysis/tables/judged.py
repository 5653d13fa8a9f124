"""A study's folder -> its table of arms as its report shows it, for whoever decides by the verdicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from cnn_ablation.analysis.tables.arms import ablation_table, open_arms
from cnn_ablation.analysis.tables.finished import FinishedStudy, read_study
from cnn_ablation.config import StatsConfig
from cnn_ablation.study.seeds import AddedSeeds


def judged(folder: Path) -> pd.DataFrame:
    """The table of arms of the study in a folder, from what is on disk.

    Raises:
        ConfigError: the study's metric is no column.
        RecordError: there is no study, none of its runs has finished, or there is nothing to compare with.
    """
    study = read_study(folder, details=False)
    return arms_of_study(study, study.run_table(), study.stats)


def arms_of_study(study: FinishedStudy, runs: pd.DataFrame, settings: StatsConfig) -> pd.DataFrame:
    """The table of arms of a study, with the notes that only its plan can give.

    Args:
        study: its plan.
        runs: its table of runs.
        settings: the study's, or others in their place.

    Raises:
        ConfigError, RecordError: as `ablation_table`.
    """
    plan = study.plan
    choice = study.choice if plan.path else None
    table = ablation_table(runs, **dataclasses.asdict(settings), path=plan.path, choice=choice)
    if plan.auto:
        _note_the_largest_number(table, plan.auto)
    return table


def _note_the_largest_number(arms: pd.DataFrame, auto: AddedSeeds) -> None:
    """Says of which arms the study gave up; in place."""
    said = f"no verdict with max_replicates={auto.max_replicates} seeds"
    at_most = {name for name in open_arms(arms) if auto.replicates[name] >= auto.max_replicates}
    for row in arms.index[arms["arm"].isin(at_most)]:
        arms.loc[row, "notes"] = "; ".join(filter(None, (said, arms.loc[row, "notes"])))
