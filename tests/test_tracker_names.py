"""What trackers call studies, arms and figures; no tracker has to be installed for it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from cnn_ablation.launch.observers import ObservedRun
from cnn_ablation.trackers import naming


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("model.activation=leaky", True),
        ("model.filters=[4,8,16]", True),
        ("data.root=../pictures/cats", False),
        ("zip.large=two words", False),
        ("..", False),
        ("x" * 100, True),
        ("x" * 101, False),
    ],
)
def test_an_arm_is_a_folder(name: str, kept: bool, tmp_path: Path) -> None:
    folder = naming.file_name(name)
    assert (folder == name) is kept
    (tmp_path / folder).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_names_that_have_to_be_changed_stay_apart() -> None:
    names = ["a/b", "a b", "a_b", "x" * 200 + "1", "x" * 200 + "2"]
    assert len({naming.file_name(name) for name in names}) == len(names)


def test_a_row_of_the_table_is_numbers_and_texts() -> None:
    table = pd.DataFrame({"arm": ["baseline"], "n": [3], "delta_pp": [math.nan], "p": [0.25], "verdict": ["better"],
                          "notes": [""]})  # fmt: skip
    [row] = naming.rows_of(table)
    assert naming.figures_of_arm(row) == ({"n": 3.0, "p": 0.25}, {"verdict": "better"})


def test_values_of_the_knobs_are_what_a_table_can_hold() -> None:
    study: Any = SimpleNamespace(
        arms={"baseline": {}, "a": {"model.filters": [8]}, "b": {"optimizer": "sgd", "lr": 0.1}}
    )
    settings = {"model.filters": [4, 8], "optimizer.name": "adam", "lr": 0.5, "seed": 0}
    run = ObservedRun("a", "", "", 0, "running", "", settings)
    assert naming.knob_values(study, run) == {"model.filters": "[4, 8]", "optimizer": "adam", "lr": 0.5}
