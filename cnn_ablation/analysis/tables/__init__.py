"""Records on disk -> table of runs -> table of arms. pandas, no torch."""

from __future__ import annotations

from cnn_ablation.analysis.tables.arms import (
    ARM_COLUMNS,
    ablation_table,
    arm_columns,
    num_comparisons,
    open_arms,
    reference_words,
)
from cnn_ablation.analysis.tables.finished import FinishedStudy, load_curves, load_runs, read_study
from cnn_ablation.analysis.tables.input import REQUIRED_COLUMNS, checked_runs, checked_settings
from cnn_ablation.analysis.tables.judged import arms_of_study, judged
from cnn_ablation.analysis.tables.rows import COUNTED, TRAINED

__all__ = [
    "ARM_COLUMNS",
    "COUNTED",
    "REQUIRED_COLUMNS",
    "TRAINED",
    "FinishedStudy",
    "ablation_table",
    "arm_columns",
    "arms_of_study",
    "checked_runs",
    "checked_settings",
    "judged",
    "load_curves",
    "load_runs",
    "num_comparisons",
    "open_arms",
    "read_study",
    "reference_words",
]
