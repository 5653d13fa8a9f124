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
    """How arms are compared, and when a difference counts. Changes no run."""

    alpha: float = setting(
        0.05,
        doc="probability of any false better or worse in a table, and apart from it of any false equivalent",
        above=0,
        below=0.5,
        role=CONDUCT,
    )
    metric: str = setting(
        "test_accuracy",
        doc="column of runs.csv by which arms are compared; of a function without this one its first",
        role=CONDUCT,
    )
    direction: str | None = setting(
        None,
        doc="which values are better; null is lower for names that end in loss, error or seconds, else higher",
        choices=("higher", "lower"),
        role=CONDUCT,
    )
    margin_pp: float = setting(
        0.5, doc="accuracies that differ by less are equivalent, in percentage points", above=0, role=CONDUCT
    )
    margin: float | None = setting(
        None,
        doc="the same of any other metric, in its own unit; without it no arm is called equivalent",
        above=0,
        role=CONDUCT,
    )
    time_margin: float = setting(
        0.05, doc="times are equal whose ratio is at most 1 plus this, either way", above=0, role=CONDUCT
    )
    test: str = setting(
        "t",
        doc="how differences are tested: anytime holds at every look, the others at a number of seeds fixed beforehand",
        choices=("t", "sign_flip", ANYTIME, "dunnett"),
        role=CONDUCT,
    )
    simultaneous: bool = setting(
        False, doc="intervals hold for all arms of a study at once, not each for itself", role=CONDUCT
    )
    reserve: float = setting(
        0.2,
        doc="share of alpha that the first look at a table leaves for seeds that are added later",
        at_least=0,
        below=1,
        role=CONDUCT,
    )


@dataclass
class ArmConfig(Section):
    """Which arm of a study this run belongs to; set by the sweeper."""

    name: str = setting("baseline", doc="of the arm that a run belongs to", role=LABEL)
    knob: str = setting("", doc="what that arm varies; empty for the baseline", role=LABEL)
    level: str = setting("", doc="the value that it has there", role=LABEL)


@dataclass
class TaskConfig(Section):
    """What is trained. Each task has a class of its own, whose `name` is fixed."""

    is_option = False
    name: str = setting("", doc="set by the option of its group", role=WHAT_IS_TRAINED)


@dataclass(kw_only=True)
class StudyConfig(Section):
    """One configuration of some task: what no study can do without. Tasks add their own keys."""

    groups: ClassVar[dict[str, dict[str, type]]] = {}
    """The schemas of each config group."""

    task: TaskConfig = field(default_factory=TaskConfig)
    stats: StatsConfig = field(default_factory=StatsConfig)
    arm: ArmConfig = field(default_factory=ArmConfig)
    seed: int = setting(
        0,
        doc="the first seed of every arm; the others count up from it",
        at_least=0,
        at_most=LARGEST_SEED,
        role=SEEDS,
    )
    replicates: int | str = setting(
        3,
        doc="seeds of every arm; auto adds seeds until each arm has its verdict",
        at_least=1,
        at_most=_MOST_SEEDS,
        or_word=AUTO,
        role=SEEDS,
    )
    min_replicates: int = setting(
        3, doc="seeds of every arm, with replicates=auto", at_least=2, at_most=_MOST_SEEDS, role=SEEDS
    )
    max_replicates: int = setting(
        30,
        doc="most seeds of an arm without a verdict, with replicates=auto",
        at_least=2,
        at_most=_MOST_SEEDS,
        role=SEEDS,
    )
    device: str = setting(
        "auto",
        doc="what trains: auto is cuda, then mps, then cpu; cuda:N is one GPU of those that are visible, from 0",
        choices=("auto", "cpu", "cuda", "mps"),
        numbered="cuda",
    )
    threads: int | None = setting(None, doc="of a run on a CPU; null lets the study and the machine decide", at_least=1)
    timing: str = setting(
        "packed",
        doc="packed trains runs side by side; isolated one at a time, for fair times",
        choices=("packed", "isolated"),
        role=CONDUCT,
    )
    reuse: bool = setting(True, doc="takes finished runs from the store instead of training them again", role=CONDUCT)
    store: str = setting(
        ".ablation_runs", doc="where finished runs are kept for later studies", role=CONDUCT, is_folder=True
    )
    on_error: str = setting(
        "continue", doc="after a failed run: go on with the others, or stop", choices=("continue", "stop"), role=CONDUCT
    )
    dry_run: bool = setting(False, doc="prints arms, confounds, reuse and time, and trains nothing", role=CONDUCT)
    extensions: list[str] = setting([], doc="modules of yours that register parts", role=OWN_CODE)
    trackers: list[str] = setting(
        [],
        doc="who is shown how the study goes, while it trains and afterwards",
        role=SHOWN,
        words="each tensorboard, mlflow, wandb or MODULE.CLASS",
    )

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
