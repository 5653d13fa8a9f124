"""What a report shows: everything is computed, nothing is drawn or written yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from cnn_ablation.analysis.tables import FinishedStudy
from cnn_ablation.analysis.variance import variance_by_source
from cnn_ablation.config import StatsConfig
from cnn_ablation.report import papers
from cnn_ablation.report.caption import Caption
from cnn_ablation.report.files import as_csv, as_text
from cnn_ablation.report.paper import section
from cnn_ablation.runs.store.memory import PICTURES, Memory
from cnn_ablation.study.metric import Metric, metric_of
from cnn_ablation.study.plans import Plan


@dataclass(frozen=True)
class PaperComparison:
    """The section "paper against ours"."""

    paper: papers.Paper
    rows: pd.DataFrame
    departures: list[str]

    @property
    def files(self) -> dict[str, bytes]:
        text = section(self.paper, self.rows, self.departures)
        return {"paper.csv": as_csv(self.rows), "paper.md": as_text(text)}


def compared_with_paper(study: FinishedStudy, settings: StatsConfig) -> PaperComparison | None:
    """Of a study that names its paper, and has trained one of the paper's arms.

    Raises:
        ConfigError: there is no such paper.
    """
    name = study.plan.baseline.get("paper")
    if not name:
        return None
    paper = papers.read(name)
    comparison = papers.compare(paper, study, settings.alpha)
    departures = list(paper.departures(study.plan.baseline))
    return PaperComparison(paper, comparison, departures) if len(comparison) else None


@dataclass(frozen=True)
class Findings:
    """Tables of a study, or of a table of runs alone, which has neither plan nor learning curves."""

    runs: pd.DataFrame
    arms: pd.DataFrame
    caption: Caption
    settings: StatsConfig
    study: FinishedStudy | None = None
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    paper: PaperComparison | None = None

    @property
    def plan(self) -> Plan | None:
        return self.study.plan if self.study else None

    @property
    def metric(self) -> Metric:
        return metric_of(self.settings)

    @cached_property
    def variance(self) -> pd.DataFrame:
        """By source of chance; without rows where the study does not vary that."""
        return variance_by_source(self.runs, self.metric, self.settings.alpha)

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """Figures per class of every arm; without rows where there are none."""
        return self.study.per_class() if self.study else pd.DataFrame()

    @cached_property
    def confusions(self) -> dict[tuple[str, str], Any]:
        """By arm and part of the data: mean images (K, K) by true and predicted class, and the names of K classes."""
        return self.study.mean_confusions if self.study else {}

    @cached_property
    def memory(self) -> Memory | None:
        """Of pictures, in the study's store; None where there is none."""
        return memory_of(self.plan.baseline) if self.plan else None


def memory_of(baseline: Mapping[str, Any]) -> Memory | None:
    """Of pictures, in the study's store; plans of earlier versions, and of tests, may name none."""
    store = baseline.get("store")
    return Memory(Path(store), PICTURES) if store else None
