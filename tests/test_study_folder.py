"""A study may be repeated and extended in its folder; any other study is refused, before anything is loaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from cnn_ablation import ablate, compose, load_runs
from cnn_ablation.common import leases
from cnn_ablation.common.errors import ConfigError, RecordError
from cnn_ablation.common.processes import HOST_VARIABLE
from cnn_ablation.config import with_settings
from cnn_ablation.launch.folders import claimed
from cnn_ablation.launch.planning import Planning
from cnn_ablation.runs.records import Run, read_run, write_run
from cnn_ablation.runs.run import run
from cnn_ablation.runs.store import RunStore
from cnn_ablation.study.designs import Knob, knob, zipped_knob
from cnn_ablation.study.plans import FILE_NAME, Plan, read_plan, refuse_other_study, write_plan
from cnn_ablation.tasks.image_classification.config import Config, SGDConfig

ACTIVATION = knob("model.activation", ["leaky", "tanh"])
EPOCHS = knob("train.epochs", [3])
LARGE = zipped_knob("large", [{"label": "x", "train.batch_size": 8}])
KNOBS = [ACTIVATION, EPOCHS]


def plan_of(config: Config, knobs: Sequence[Knob], design: str, **settings: Any) -> Plan:
    baseline = with_settings(config, [(name.replace("__", "."), value) for name, value in settings.items()])
    return Planning(design, knobs, lambda arm: with_settings(baseline, arm.settings)).plan()


Given = tuple[list[Knob], str, dict[str, Any]]
ONE = "one_at_a_time"
BEFORE: Given = (KNOBS, ONE, {})

FITTING: dict[str, tuple[Given, Given]] = {
    "repeated": (BEFORE, BEFORE),
    "more seeds": (BEFORE, (KNOBS, ONE, {"replicates": 4})),
    "seeds before": ((KNOBS, ONE, {"seed": 2}), (KNOBS, ONE, {"seed": 0, "replicates": 4})),
    "another level": (BEFORE, ([knob("model.activation", ["elu", "leaky", "tanh"]), EPOCHS], ONE, {})),
    "another knob": (BEFORE, ([knob("optimizer.lr", [0.1]), *KNOBS], ONE, {})),
    "knobs after a single run": (([], ONE, {}), (KNOBS, "greedy", {})),
    "another order": (BEFORE, (KNOBS[::-1], ONE, {})),
    "how it is carried out": (
        BEFORE,
        (
            KNOBS,
            ONE,
            {
                "timing": "isolated", "on_error": "stop", "checkpoint_seconds": 1.0, "reuse": False, "store": "s",
                "keep_weights": False, "paper": "sorensen", "dry_run": True, "stats__alpha": 0.1,
                "stats__test": "sign_flip",
            },
        ),
    ),
    "one size for all layers": (BEFORE, (KNOBS, ONE, {"model__kernel_sizes": 3, "model__strides": [1]})),
    "a greedy study goes on": ((KNOBS, "greedy", {}), ([*KNOBS, LARGE], "greedy", {})),
    "a level of the full configuration": (
        (KNOBS, "leave_one_out", {}),
        ([knob("model.activation", ["elu", "leaky", "tanh"]), EPOCHS], "leave_one_out", {}),
    ),
}  # fmt: skip
OTHER: dict[str, tuple[Given, Given, str]] = {
    "another baseline": (BEFORE, (KNOBS, ONE, {"optimizer__lr": 0.1}), "optimizer.lr: 0.001 there, 0.1 here"),
    "another optimiser": (BEFORE, (KNOBS, ONE, {"optimizer": SGDConfig()}), "optimizer.name: adam there, sgd here"),
    "another size": (BEFORE, (KNOBS, ONE, {"model__kernel_sizes": 5}), "model.kernel_sizes: 3 there, 5 here"),
    "another precision": (BEFORE, (KNOBS, ONE, {"precision": "float32"}), "precision: auto there, float32 here"),
    "other data": (BEFORE, (KNOBS, ONE, {"data__train_images": 70}), "data.train_images: 60 there, 70 here"),
    "another design": (BEFORE, (KNOBS, "grid", {}), "hydra.sweeper.design: one_at_a_time there, grid here"),
    "a knob less": (BEFORE, ([ACTIVATION], ONE, {}), "the knob train.epochs is there, not here"),
    "no knob": (BEFORE, ([], ONE, {}), "the knob model.activation is there, not here"),
    "a level less": (
        BEFORE,
        ([knob("model.activation", ["leaky"]), EPOCHS], ONE, {}),
        "model.activation=tanh is there, not here",
    ),
    "fewer seeds": (BEFORE, (KNOBS, ONE, {"replicates": 1}), "seed 1 is there, not here; more seeds extend a study"),
    "other seeds": (BEFORE, (KNOBS, ONE, {"seed": 100}), "seed 0 is there, not here"),
    "a label for something else": (
        ([LARGE], ONE, {}),
        ([zipped_knob("large", [{"label": "x", "train.batch_size": 12}])], ONE, {}),
        "large=x: train.batch_size=8 there, train.batch_size=12 here",
    ),
    "a label that comes later": (
        ([ACTIVATION, LARGE], "greedy", {}),
        ([ACTIVATION, zipped_knob("large", [{"label": "x", "train.batch_size": 12}])], "greedy", {}),
        "large=x: train.batch_size=8 there, train.batch_size=12 here",
    ),
    "an optimiser by the same name": (
        ([knob("optimizer", [SGDConfig(lr=0.1)])], ONE, {}),
        ([knob("optimizer", [SGDConfig(lr=0.2)])], ONE, {}),
        "optimizer=sgd: optimizer.name=sgd,optimizer.lr=0.1,",
    ),
    "another full configuration": (
        (KNOBS, "leave_one_out", {}),
        ([*KNOBS, LARGE], "leave_one_out", {}),
        "full: model.activation=tanh,train.epochs=3 there, model.activation=tanh,train.epochs=3,train.batch_size=8",
    ),
    "another order of choosing": (
        (KNOBS, "greedy", {}),
        (KNOBS[::-1], "greedy", {}),
        "knobs in the order model.activation, train.epochs there, train.epochs, model.activation here",
    ),
}


def plans(config: Config, *given: Given) -> list[Plan]:
    return [plan_of(config, knobs, design, **settings) for knobs, design, settings in given]


@pytest.mark.parametrize("case", FITTING)
def test_a_study_is_repeated_and_extended_in_its_folder(tiny_config: Config, tmp_path: Path, case: str) -> None:
    before, after = plans(tiny_config, *FITTING[case])
    write_plan(tmp_path, before)
    refuse_other_study(tmp_path, after)
    write_plan(tmp_path, after)
    assert read_plan(tmp_path).seeds == after.seeds


@pytest.mark.parametrize("case", OTHER)
def test_another_study_is_refused_with_the_first_difference(tiny_config: Config, tmp_path: Path, case: str) -> None:
    before, after = plans(tiny_config, *OTHER[case][:2])
    write_plan(tmp_path, before)
    kept = (tmp_path / FILE_NAME).read_bytes()
    for refused_by in (refuse_other_study, write_plan):
        with pytest.raises(RecordError) as refused:
            refused_by(tmp_path, after)
        message = str(refused.value)
        assert message.startswith(f"{tmp_path} holds another study ({OTHER[case][2]}"), message
        assert "hydra.sweep.dir=DIR (hydra.run.dir=DIR without -m, folder=DIR in Python)" in message
        assert len(message.splitlines()) == 2
    assert (tmp_path / FILE_NAME).read_bytes() == kept


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a: [1", b"- 1", b"design: grid", b"3"], ids=repr)
def test_a_damaged_plan_in_the_folder_is_named(tiny_config: Config, tmp_path: Path, content: bytes) -> None:
    (plan,) = plans(tiny_config, BEFORE)
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(RecordError, match=re.escape(f"{tmp_path / FILE_NAME} is damaged or unreadable")) as refused:
        refuse_other_study(tmp_path, plan)
    assert "remedy: remove that file, or choose another folder" in str(refused.value)
    assert (tmp_path / FILE_NAME).read_bytes() == content


@pytest.mark.parametrize("key", ["baseline", "knobs", "arms", "stats", "path"])
def test_a_plan_of_another_form_is_named(tiny_config: Config, tmp_path: Path, key: str) -> None:
    import yaml

    (plan,) = plans(tiny_config, BEFORE)
    write_plan(tmp_path, plan)
    content = yaml.safe_load((tmp_path / FILE_NAME).read_bytes())
    (tmp_path / FILE_NAME).write_text(yaml.safe_dump({**content, key: 3}))
    with pytest.raises(RecordError, match="damaged or unreadable"):
        refuse_other_study(tmp_path, plan)


def test_a_plan_of_an_earlier_version_counts_with_the_defaults_of_keys_it_lacks(
    tiny_config: Config, tmp_path: Path
) -> None:
    (plan,) = plans(tiny_config, BEFORE)
    older = {key: value for key, value in plan.baseline.items() if key not in ("train.loss", "timing")}
    write_plan(tmp_path, replace(plan, baseline=older))
    refuse_other_study(tmp_path, plan)


def test_a_folder_without_a_study_is_free(tiny_config: Config, tmp_path: Path) -> None:
    (plan,) = plans(tiny_config, BEFORE)
    for folder in (tmp_path, tmp_path / "new"):
        refuse_other_study(folder, plan)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("undrawn")
def test_a_folder_keeps_its_study_and_grows(tiny_config: Config, tmp_path: Path) -> None:
    """Trained, extended under another `timing`, then asked to hold another study."""
    folder, knobs = tmp_path / "study", {"model.activation": ["leaky"]}
    ablate(replace(tiny_config, timing="isolated"), knobs, folder)
    longer = replace(tiny_config, timing="isolated", on_error="stop", checkpoint_seconds=9.0, replicates=3)
    arms = ablate(longer, {**knobs, "train.epochs": [3]}, folder)
    assert list(arms["n"]) == [3, 3, 3]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if not path.name.startswith(".lease")}
    with pytest.raises(RecordError, match=r"holds another study \(optimizer\.lr: 0\.001 there, 0\.01 here\)"):
        ablate(with_settings(longer, [("optimizer.lr", 0.01)]), {**knobs, "train.epochs": [3]}, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if not path.name.startswith(".lease")} == before


def test_a_folder_of_a_host_that_died_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dying = (
        "import os, sys; from pathlib import Path; from cnn_ablation.common import leases\n"
        "leases.acquire(Path(sys.argv[1], '.lease')); print(os.getpid(), flush=True); os._exit(0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", dying, str(tmp_path)],
        env={**os.environ, HOST_VARIABLE: "node7"},
        capture_output=True,
        text=True,
        check=True,
    )
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 0.2)
    with claimed(tmp_path):
        pass
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"{tmp_path} was in use by process {ended.stdout.strip()} on node7, since ")
    assert said.endswith("; looking up to 0 s whether it still is")


def test_a_run_that_another_host_finished_first_keeps_that_record(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This process was not heard of for a while: another one took the run, finished it and let go."""
    store = RunStore(Path(tiny_config.store))
    first = Run("baseline", "", "", 0, "ok", test_accuracy=0.125)

    def meanwhile(_: object) -> int:
        (folder,) = store.folder.glob("[0-9a-f]*")
        (folder / ".lease.2").touch()
        store.keep(folder.name, first)
        return 1

    (mine,) = run(replace(tiny_config, replicates=1), tmp_path / "0", concurrent_jobs=meanwhile)
    assert mine.status == "ok"
    assert repr(store.find(mine.fingerprint)) == repr(first)
    assert read_run(tmp_path / "0" / "run-seed0.json").train_started == mine.train_started
    said = " ".join(capsys.readouterr().err.split())
    assert f"warning: {store.run_path(mine.fingerprint)} is there already" in said


def test_a_run_that_is_reused_takes_no_lease(tiny_config: Config, tmp_path: Path) -> None:
    one = replace(tiny_config, replicates=1)
    for folder in ("0", "1", "2"):
        (found,) = run(one, tmp_path / folder)
    path = Path(one.store) / found.fingerprint
    assert found.reused
    assert sorted(each.name for each in path.iterdir()) == [".lease.1", "run.json", "weights.pt"]
    (again,) = run(replace(one, reuse=False), tmp_path / "3")
    assert not again.reused
    assert sorted(each.name for each in path.iterdir()) == [".lease.1", ".lease.2", "run.json", "weights.pt"]
    kept = RunStore(Path(one.store)).find(found.fingerprint)
    assert kept
    assert kept.train_started == again.train_started > found.train_started


def test_a_failed_run_leaves_the_record_that_came_meanwhile(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that was given up and goes on all the same fails after its successor has finished."""
    path, finished = tmp_path / "0" / "run-seed0.json", Run("baseline", "", "", 0, "ok", test_accuracy=0.125)

    def meanwhile(_: object) -> int:
        write_run(path, finished)
        raise ZeroDivisionError

    (found,) = run(replace(tiny_config, replicates=1), tmp_path / "0", concurrent_jobs=meanwhile)
    assert repr(found) == repr(read_run(path)) == repr(finished)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{path} was written by another process meanwhile; this one failed: ZeroDivisionError" in said


INTERRUPTED = """
from pathlib import Path

import own_data


def load():
    if list(Path("study").glob("*/run-seed0.json")):
        raise {raised}
    return own_data.load()
"""


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt, "KeyboardInterrupt"), (ConfigError, "ValueError('the disk has gone')")],
    ids=["interrupted", "data that are gone"],
)
def test_a_later_step_whose_data_cannot_be_loaded_leaves_the_table_of_those_before(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[BaseException],
    raised: str,
) -> None:
    """Each step of a greedy study may have data of its own; here the second one's come to nothing."""
    name = f"gone_{error.__name__.lower()}"
    (tmp_path / f"{name}.py").write_text(INTERRUPTED.format(raised=raised))
    monkeypatch.chdir(tmp_path)
    words = [*TINY[4:], "data=arrays", f"data.target={name}.load", "replicates=1", "timing=isolated"]
    knobs = {"model.activation": ["leaky"], "data.val_fraction": [0.3]}
    with pytest.raises(error):
        ablate(compose(words), knobs, "study", design="greedy")
    assert load_runs("study")["arm"].tolist() == ["baseline", "model.activation=leaky"]
    assert "model.activation=leaky" in Path("study/ablation.md").read_text(encoding="utf-8")
    assert "stopped after 2 of 3 runs; the same command goes on" in " ".join(capsys.readouterr().err.split())
