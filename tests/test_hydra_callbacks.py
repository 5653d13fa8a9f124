"""Hydra's own callbacks: called when and as Hydra promises, whoever starts a job."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Answer

Cli = Callable[..., Answer]

TRAIN = """
def train(lr: float = 0.1, fails: float = -1.0, *, seed: int) -> dict[str, float]:
    with open("order.txt", "a") as file:
        print(f"train lr={lr} seed={seed}", file=file)
    if lr == fails:
        raise RuntimeError("no such luck")
    return {"score": 10 * lr + seed}
"""

CALLBACK = """
import json
import os

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback


class Noting(Callback):
    def _note(self, what, **more):
        with open("order.txt", "a") as file:
            print(what, file=file)
        with open("told.jsonl", "a") as file:
            print(json.dumps({"what": what, "process": os.getpid(), **more}), file=file)

    def on_run_start(self, config, **kwargs):
        self._note("run start")

    def on_run_end(self, config, job_return, **kwargs):
        self._note("run end", status=job_return.status.name)

    def on_multirun_start(self, config, **kwargs):
        self._note("multirun start")

    def on_multirun_end(self, config, config_name, **kwargs):
        self._note("multirun end", config_name=config_name)

    def on_job_start(self, config, *, task_function, **kwargs):
        self._note(f"start lr={config.settings.get('lr', 0.1)} seed={config.seed}", callable=callable(task_function))

    def on_job_end(self, config, job_return, **kwargs):
        own = HydraConfig.get()
        self._note(
            f"end lr={config.settings.get('lr', 0.1)} seed={config.seed}",
            status=job_return.status.name,
            returned=str(job_return._return_value),
            overrides=list(job_return.overrides),
            working_dir=job_return.working_dir,
            task_name=job_return.task_name,
            arm=job_return.cfg.arm.name,
            number=[own.job.get("num"), job_return.hydra_cfg.hydra.job.get("num")],
            output_dir=own.runtime.output_dir,
        )


class Raising(Noting):
    def on_job_start(self, config, **kwargs):
        raise ValueError("not today")
"""

WAYS = {
    "one at a time, by Hydra's launcher": ["timing=isolated"],
    "side by side": ["timing=packed", "threads=1"],
    "jobs of an engine": ["hydra/launcher=joblib", "hydra.launcher.jobs=1", "hydra.launcher.cpus=1"],
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Iterator[None]:
    (tmp_path / "cb_train.py").write_text(TRAIN)
    (tmp_path / "cb_noting.py").write_text(CALLBACK)
    for name in ("Noting", "Raising"):
        file = tmp_path / "own" / "hydra" / "callbacks" / f"{name.lower()}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump({"mine": {"_target_": f"cb_noting.{name}"}}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("cb_train", "cb_noting"):
        sys.modules.pop(name, None)


def study(*words: str, callbacks: str = "noting") -> list[str]:
    return ["-cd", "own", "-m", f"hydra/callbacks={callbacks}", "task=function", "task.target=cb_train.train",
            "settings.lr=0.1,0.2", "hydra.sweep.dir=out", *words]  # fmt: skip


def order(folder: Path) -> list[str]:
    return (folder / "order.txt").read_text().splitlines()


def told(folder: Path) -> dict[str, dict[str, Any]]:
    notes = map(json.loads, (folder / "told.jsonl").read_text().splitlines())
    return {note.pop("what"): note for note in notes}


JOBS = [(0.1, 0), (0.2, 0), (0.1, 1), (0.2, 1)]


@pytest.mark.parametrize("way", WAYS)
def test_each_job_is_told_before_and_after_it_trains(cli: Cli, tmp_path: Path, way: str) -> None:
    answer = cli(*study("replicates=2", *WAYS[way]))
    assert answer.code == 0, answer.err
    found = order(tmp_path)
    assert (found[0], found[-1]) == ("multirun start", "multirun end")
    for lr, seed in JOBS:
        run = f"lr={lr} seed={seed}"
        assert [line.partition(" ")[0] for line in found if line.endswith(run)] == ["start", "train", "end"]
    notes = told(tmp_path)
    assert {note["process"] for note in notes.values()} == {notes["multirun start"]["process"]}
    assert notes["multirun end"]["config_name"] == "config"
    assert all(notes[f"start lr={lr} seed={seed}"]["callable"] for lr, seed in JOBS)
    for lr, seed in JOBS:
        note = notes[f"end lr={lr} seed={seed}"]
        number = note["number"][0]
        folder = tmp_path / "out" / str(number)
        assert (note["status"], float(note["returned"])) == ("COMPLETED", 10 * lr + seed)
        assert (note["number"], note["output_dir"]) == ([number, number], str(folder))
        assert (note["working_dir"], note["task_name"]) == (str(tmp_path), "__main__")
        assert note["arm"] == ("baseline" if lr == 0.1 else "settings.lr=0.2")
        assert {"replicates=1", f"seed={seed}"} <= set(note["overrides"])
        assert (folder / f"run-seed{seed}.json").exists()
        assert (folder / ".hydra" / "config.yaml").exists()


@pytest.mark.parametrize("way", list(WAYS)[:2])
def test_side_by_side_ends_are_told_as_they_come(cli: Cli, tmp_path: Path, way: str) -> None:
    """Not all at the end: what is told of a job may decide what a person does with her morning."""
    assert cli(*study("replicates=3", *WAYS[way])).code == 0
    found = order(tmp_path)
    first_end = next(place for place, line in enumerate(found) if line.startswith("end"))
    last_start = max(place for place, line in enumerate(found) if line.startswith("train"))
    assert first_end < last_start


@pytest.mark.parametrize("way", list(WAYS)[:2])
def test_a_job_that_fails_says_so(cli: Cli, tmp_path: Path, way: str) -> None:
    answer = cli(*study("replicates=1", "settings.fails=0.2", *WAYS[way]))
    assert answer.code == 1
    notes = told(tmp_path)
    failed = notes["end lr=0.2 seed=0"]
    assert failed["status"] == "FAILED"
    assert failed["returned"] == "settings.lr=0.2, seed 0: RuntimeError: no such luck"
    assert notes["end lr=0.1 seed=0"]["status"] == "COMPLETED"
    assert "1 of 2 runs failed" in answer.err
    assert "left no record" not in answer.err
    assert order(tmp_path).count("multirun end") == 1


@pytest.mark.parametrize("way", list(WAYS)[:2])
def test_runs_of_the_store_are_jobs_too(cli: Cli, tmp_path: Path, way: str) -> None:
    words = study("replicates=1", *WAYS[way])
    assert cli(*words).code == 0
    (tmp_path / "order.txt").unlink()
    assert cli(*words).code == 0
    runs = [f"{what} lr={lr} seed=0" for what in ("start", "end") for lr in (0.1, 0.2)]
    assert sorted(order(tmp_path)) == sorted(["multirun start", *runs, "multirun end"])
    assert told(tmp_path)["end lr=0.2 seed=0"]["returned"] == "2.0"


def test_a_worker_that_dies_is_told_as_a_job_that_failed(cli: Cli, tmp_path: Path) -> None:
    text = TRAIN.replace('raise RuntimeError("no such luck")', "import os; os._exit(3)")
    (tmp_path / "cb_train.py").write_text(text)
    answer = cli(*study("replicates=1", "settings.fails=0.2", *WAYS["side by side"]))
    assert answer.code == 1
    note = told(tmp_path)["end lr=0.2 seed=0"]
    assert (note["status"], note["returned"]) == ("FAILED", "left no record of seed 0")


@pytest.mark.parametrize("way", list(WAYS)[:2])
@pytest.mark.filterwarnings("default")
def test_a_callback_that_raises_is_said_as_hydra_does_and_costs_nobody_a_run(cli: Cli, way: str) -> None:
    with pytest.warns(UserWarning, match=r"Callback Raising.on_job_start raised ValueError: not today"):
        assert cli(*study("replicates=1", *WAYS[way], callbacks="raising")).code == 0


@pytest.mark.parametrize(
    ("more", "code", "status"), [([], 0, "COMPLETED"), (["settings.fails=0.1"], 1, "FAILED")], ids=["well", "badly"]
)
def test_a_single_configuration_is_a_run(cli: Cli, tmp_path: Path, more: list[str], code: int, status: str) -> None:
    words = ["-cd", "own", "hydra/callbacks=noting", "task=function", "task.target=cb_train.train", "replicates=1"]
    answer = cli(*words, *more)
    assert answer.code == code
    assert order(tmp_path) == [
        "run start", "start lr=0.1 seed=0", "train lr=0.1 seed=0", "end lr=0.1 seed=0", "run end"
    ]  # fmt: skip
    notes = told(tmp_path)
    assert (notes["end lr=0.1 seed=0"]["status"], notes["run end"]["status"]) == (status, status)
    assert "Traceback" not in answer.err


def test_a_dry_run_has_no_jobs(cli: Cli, tmp_path: Path) -> None:
    assert cli(*study("dry_run=true")).code == 0
    assert order(tmp_path) == ["multirun start", "multirun end"]


def test_the_real_command_tells_them_in_its_own_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cnn_ablation", *study("replicates=1", *WAYS["side by side"])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert len({note["process"] for note in told(tmp_path).values()}) == 1
    assert sorted(line.partition(" ")[0] for line in order(tmp_path)) == sorted(
        ["multirun"] * 2 + ["start", "train", "end"] * 2
    )
