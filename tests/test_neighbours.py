"""How many runs were in training beside a run."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnn_ablation.common.processes import HOST_VARIABLE
from cnn_ablation.runs.neighbours import TRAINING, Entry, in_training, mean_neighbours

HOLDS = (
    "import pathlib, sys, time\n"
    "from cnn_ablation.runs.neighbours import in_training\n"
    "with in_training(pathlib.Path(sys.argv[1]), num_runs=2):\n"
    "    print('training', flush=True)\n"
    "    time.sleep(60)\n"
)


def files(store: Path) -> list[str]:
    return sorted(path.name for path in (store / TRAINING).rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("expected", "own", "others"),
    [
        (0.0, Entry(100, 200, 1, 1), []),
        (2.0, Entry(100, 200, 3, 1), []),
        (1.0, Entry(100, 200, 1, 1), [Entry(50, 300, 1, 2)]),
        (0.25, Entry(100, 200, 1, 1), [Entry(50, 125, 1, 2)]),
        (0.4, Entry(100, 200, 1, 1), [Entry(160, None, 1, 2)]),
        (0.0, Entry(100, 200, 1, 1), [Entry(10, 100, 1, 2), Entry(200, 300, 1, 2)]),
        (2.5, Entry(100, 200, 1, 1), [Entry(150, None, 3, 2), Entry(100, 200, 1, 3)]),
        (0.0, Entry(100, 100, 1, 1), []),
    ],
    ids=["alone", "three seeds in one go", "all the time", "a quarter", "one that lasts", "before and after",
         "two, one of several seeds", "of no length"],
)  # fmt: skip
def test_the_mean_is_over_the_time_of_the_run(expected: float, own: Entry, others: list[Entry]) -> None:
    assert mean_neighbours(own, others) == pytest.approx(expected)


def test_trainings_count_each_other_and_leave_nothing(tmp_path: Path) -> None:
    with in_training(tmp_path) as outer:
        with in_training(tmp_path, num_runs=3) as inner:
            time.sleep(0.02)
        time.sleep(0.02)
        assert len(files(tmp_path)) == 2  # the one that has ended is kept for the one that has not
    share = (inner.ended - inner.started) / (outer.ended - outer.started)
    assert outer.started < inner.started < inner.ended < outer.ended
    assert inner.neighbours == pytest.approx(2 + 1)
    assert outer.neighbours == pytest.approx(3 * share, abs=0.01)
    assert files(tmp_path) == []


def test_one_that_raises_was_there_all_the_same(tmp_path: Path) -> None:
    def fails() -> None:
        with in_training(tmp_path):
            time.sleep(0.02)
            raise ZeroDivisionError

    with in_training(tmp_path) as outer, pytest.raises(ZeroDivisionError):
        fails()
    assert 0.02 / (outer.ended - outer.started) <= outer.neighbours <= 1


def test_other_processes_count_until_they_are_killed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    with in_training(tmp_path) as beside:
        pass
    assert beside.neighbours == pytest.approx(2, abs=0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with in_training(tmp_path) as after:
        pass
    assert after.neighbours == 0
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["notes.txt", "1--1", "a-b-c-d-e", ".1--1-1-1.x", "1--1-1"])
def test_what_else_lies_there_is_passed_over(tmp_path: Path, name: str) -> None:
    with in_training(tmp_path):
        (folder,) = (tmp_path / TRAINING).iterdir()
        (folder / name).touch()
    with in_training(tmp_path) as training:
        pass
    assert (training.neighbours, files(tmp_path)) == (0, [name])


def test_a_store_that_cannot_be_written_to_costs_no_run(tmp_path: Path) -> None:
    (tmp_path / TRAINING).write_text("in the way")
    with in_training(tmp_path) as training:
        pass
    assert math.isnan(training.neighbours)
    assert 0 <= training.ended - training.started < 60


def test_the_folder_is_that_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of other machines, in a store that all share, are no neighbours."""
    with in_training(tmp_path):
        monkeypatch.setenv(HOST_VARIABLE, "another/../host")
        with in_training(tmp_path) as elsewhere:
            found = [path for path in (tmp_path / TRAINING).rglob("*") if path.is_file()]
            assert [path.parent.parent for path in found] == 2 * [tmp_path / TRAINING]
            assert len({path.parent for path in found}) == 2
    assert elsewhere.neighbours == 0
