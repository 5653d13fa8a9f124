"""Every design, and seeds until verdicts stand, on Slurm and on Ray: the same table as on this machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from clusters import ray_running, slurm_folder
from kills import RAY, SLURM, Study

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("kills")]

KNOBS = ["settings.shift=-1.0,0.5", "settings.kind=1,2", "settings.seconds=0.05"]
DESIGNS = {
    "one_at_a_time": (5, []),
    "greedy": (5, ["hydra.sweeper.design=greedy"]),
    "leave_one_out": (3, ["hydra.sweeper.design=leave_one_out"]),
    "grid": (5, ["hydra.sweeper.design=grid"]),
    "auto": (5, ["replicates=auto", "max_replicates=8", "stats.margin=0.2"]),
}
"""Rows, and overrides."""
Trained = Callable[[str], tuple[pd.DataFrame, pd.DataFrame]]
ENGINES = {"slurm": ("slurm_folder", SLURM), "ray": ("ray_running", RAY)}
OF_TIME = re.compile(r"processor for|time|side by side|next to each other")


def tables(folder: Path, launcher: list[str], overrides: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of arms and of runs, without what a clock has measured."""
    study = Study(folder, launcher, [*KNOBS, *overrides], arms=1, seeds=3)
    code, said = study.carried_out()
    assert code == 0, said
    arms = study.table()
    arms["notes"] = [
        "; ".join(part for part in notes.split("; ") if not OF_TIME.search(part)) for notes in arms["notes"].fillna("")
    ]
    runs = pd.read_csv(study.folders[-1] / "runs.csv").sort_values(["arm", "seed"], ignore_index=True)
    settings = [name for name in runs if name.startswith("settings.")]
    timed = [name for name in arms if name.startswith(("time_", "train_seconds"))]
    return arms.drop(columns=timed), runs[["arm", "knob", "level", "seed", "status", "loss", "reused", *settings]]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    @cache
    def trained(design: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        return tables(tmp_path_factory.mktemp("here") / design, [], DESIGNS[design][1])

    return trained


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_table_is_that_of_this_machine(
    engine: str, design: str, here: Trained, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    cluster, launcher = ENGINES[engine]
    request.getfixturevalue(cluster)
    num_arms, overrides = DESIGNS[design]
    expected_arms, expected_runs = here(design)
    arms, runs = tables(tmp_path / "there", launcher, overrides)
    assert len(arms) == num_arms
    if design == "auto":  # elsewhere a round is three seeds, here one: a verdict is looked for less often
        assert arms["n"].ge(expected_arms["n"]).all()
        assert arms["n"].max() > 3
        runs = runs.merge(expected_runs[["arm", "seed"]])
        arms, expected_arms = (table[["arm", "verdict"]] for table in (arms, expected_arms))
    pd.testing.assert_frame_equal(arms, expected_arms, check_exact=True)
    pd.testing.assert_frame_equal(runs, expected_runs, check_exact=True)
