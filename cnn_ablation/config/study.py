"""What every study can be told, whatever it trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from cnn_ablation.config.schema import (
    CONDUCT,
    LABEL,
    LARGEST_SEED,
    OWN_CODE,
    SEEDS,
    SHOWN,
    WHAT_IS_TRAINED,
    Section,
    setting,
)

_MOST_SEEDS = 10**4  # beyond it a number is a slip of the pen
AUTO = "auto"
ANYTIME = "anytime"
"""The test whose verdicts hold however often a study is looked at and whenever it ends."""


@dataclass
class StatsConfig(Section):
    """`alpha`: probability of any false `better` or `worse` in a table, and apart from it of any false `equivalent`.

    `metric`: the column of runs.csv by which arms are compared. `direction`: which values of it are better; null is
    lower for a name that ends in loss, error or seconds, else higher. Differences within the margin do not matter:
    `margin_pp` of an accuracy, in percentage points; `margin` of any other metric, in its own unit, without which no
    arm is called equivalent. Times are equal whose ratio is at most 1 + `time_margin`, either way. `simultaneous`
    intervals hold for all arms of a study at once, not each for itself. `reserve`: the share of alpha that the first
    look at a table leaves for seeds that are added later.
    """

    alpha: float = setting(0.05, above=0, below=0.5, role=CONDUCT)
    metric: str = setting("test_accuracy", role=CONDUCT)
    direction: str | None = setting(None, choices=("higher", "lower"), role=CONDUCT)
    margin_pp: float = setting(0.5, above=0, role=CONDUCT)
    margin: float | None = setting(None, above=0, role=CONDUCT)
    time_margin: float = setting(0.05, above=0, role=CONDUCT)
    test: str = setting("t", choices=("t", "sign_flip", ANYTIME, "dunnett"), role=CONDUCT)
    simultaneous: bool = setting(False, role=CONDUCT)
    reserve: float = setting(0.2, at_least=0, below=1, role=CONDUCT)


@dataclass
class ArmConfig(Section):
    """Which arm of a study this run belongs to; set by the sweeper."""

    name: str = setting("baseline", role=LABEL)
    knob: str = setting("", role=LABEL)
    level: str = setting("", role=LABEL)


@dataclass
class TaskConfig(Section):
    """What is trained. Each task has a class of its own, whose `name` is fixed."""

    is_option = False
    name: str = setting("", role=WHAT_IS_TRAINED)


@dataclass(kw_only=True)
class StudyConfig(Section):
    """One configuration of some task: what no study can do without. Tasks add their own keys."""

    groups: ClassVar[dict[str, dict[str, type]]] = {}
    """The schemas of each config group."""

    task: TaskConfig = field(default_factory=TaskConfig)
    stats: StatsConfig = field(default_factory=StatsConfig)
    arm: ArmConfig = field(default_factory=ArmConfig)
    seed: int = setting(0, at_least=0, at_most=LARGEST_SEED, role=SEEDS)
    replicates: int | str = setting(3, at_least=1, at_most=_MOST_SEEDS, or_word=AUTO, role=SEEDS)
    min_replicates: int = setting(3, at_least=2, at_most=_MOST_SEEDS, role=SEEDS)  # of every arm, with replicates=auto
    max_replicates: int = setting(30, at_least=2, at_most=_MOST_SEEDS, role=SEEDS)  # of an arm without a verdict
    device: str = setting("auto", choices=("auto", "cpu", "cuda", "mps"))
    threads: int | None = setting(None, at_least=1)  # of a run on a CPU; null lets the study and the machine decide
    timing: str = setting("packed", choices=("packed", "isolated"), role=CONDUCT)
    reuse: bool = setting(True, role=CONDUCT)
    store: str = setting(".ablation_runs", role=CONDUCT, is_folder=True)
    on_error: str = setting("continue", choices=("continue", "stop"), role=CONDUCT)
    dry_run: bool = setting(False, role=CONDUCT)
    extensions: list[str] = setting([], role=OWN_CODE)
    trackers: list[str] = setting([], role=SHOWN, words="each tensorboard, mlflow, wandb or MODULE.CLASS")

    @property
    def adds_seeds(self) -> bool:
        """Whether arms get seeds until they have a verdict."""
        return self.replicates == AUTO

    @property
    def seeds(self) -> range:
        """Those that every arm gets."""
        count = self.replicates if isinstance(self.replicates, int) else self.min_replicates
        return range(self.seed, self.seed + count)

    @property
    def most_seeds(self) -> range:
        """Those that an arm may come to get."""
        return range(self.seed, self.seed + self.max_replicates) if self.adds_seeds else self.seeds
