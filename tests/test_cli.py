"""The real command line, with assertions on the rows it leaves and on every message it gives."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import TINY, UNDRAWN_COMMAND, Answer

import cnn_ablation
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.launch.execution import StudyFailedError
from cnn_ablation.runs.records import Run, write_run
from cnn_ablation.tasks.image_classification.config import Config

Cli = Callable[..., Answer]
UNDRAWN = pytest.mark.usefixtures("undrawn")  # whose pictures nobody looks at
TABLES = {f"ablation.{end}" for end in ("csv", "parquet", "md", "tex", "html")} | {"runs.csv", "runs.parquet"}
RESULTS = ["train_accuracy", "val_accuracy", "test_accuracy", "train_loss", "val_loss", "test_loss"]


def ablated(
    folder: Path, knobs: dict[str, list[object]], *overrides: str, design: str = "one_at_a_time"
) -> pd.DataFrame:
    """The study of a command line, by the function beneath it: Hydra composes the baseline, and not every run."""
    baseline = cnn_ablation.compose([*TINY, "timing=isolated", f"store={folder.parent / 'store'}", *overrides])
    return cnn_ablation.ablate(baseline, knobs, folder, design=design)


def runs_in(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "runs.csv", keep_default_na=False, na_values=["nan"])


@UNDRAWN
def test_one_knob_leaves_two_arms_with_every_seed(cli: Cli, tmp_path: Path) -> None:
    answer = cli("-m", *TINY, "model.activation=relu,leaky", "hydra.sweep.dir=study")
    assert answer.code == 0, answer.err
    assert answer.out.startswith(
        "one_at_a_time: 2 arms x 3 seeds (0, 1, 2) = 6 runs\n  baseline (model.activation=relu)"
    )
    runs = runs_in(tmp_path / "study")
    assert list(zip(runs["arm"], runs["knob"], runs["level"], runs["seed"], runs["status"], strict=True)) == [
        *(("baseline", "", "", seed, "ok") for seed in range(3)),
        *(("model.activation=leaky", "model.activation", "leaky", seed, "ok") for seed in range(3)),
    ]
    assert list(runs["model.activation"]) == ["relu"] * 3 + ["leaky"] * 3
    assert runs["test_accuracy"].between(0, 1).all()
    assert (runs["updates"] == 2 * 3).all()
    assert (runs["train_seconds"] < runs["total_seconds"]).all()
    arms = pd.read_csv(tmp_path / "study" / "ablation.csv")
    assert list(arms["arm"]) == ["baseline", "model.activation=leaky"]
    assert list(arms["n"]) == [3, 3]
    assert arms["verdict"][0] == "baseline"
    assert {path.name for path in (tmp_path / "study").iterdir() if path.is_file()} >= TABLES | {"study.yaml"}
    assert {path.name for path in (tmp_path / "study" / "4").iterdir()} == {
        ".hydra",
        "cnn_ablation.log",
        "run-seed2.json",
        "weights-seed2.pt",
    }
    assert "model.activation=leaky" in answer.out


@UNDRAWN
def test_tables_in_all_formats_hold_the_same(tmp_path: Path) -> None:
    ablated(tmp_path / "study", {"model.batch_norm": [True]})
    folder = tmp_path / "study"
    for name in ("runs", "ablation"):
        csv, parquet = pd.read_csv(folder / f"{name}.csv"), pd.read_parquet(folder / f"{name}.parquet")
        assert list(csv.columns) == list(parquet.columns)
        assert len(csv) == len(parquet)
    for end in ("md", "tex", "html"):
        text = (folder / f"ablation.{end}").read_text().replace(r"\_", "_")
        for break_ in (r"\allowbreak{}", "<wbr>"):
            text = text.replace(break_, "")
        assert "model.batch_norm=true" in text
        assert "Holm" in text


@UNDRAWN
@pytest.mark.parametrize(("design", "arms"), [("one_at_a_time", 3), ("grid", 4)])
def test_two_knobs(cli: Cli, tmp_path: Path, design: str, arms: int) -> None:
    answer = cli(
        "-m", *TINY, "model.activation=relu,leaky", "train.batch_size=16,8", "replicates=1", "hydra.sweep.dir=study",
        f"hydra.sweeper.design={design}",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert len(runs_in(tmp_path / "study")) == arms


def test_equal_levels_are_trained_once(cli: Cli) -> None:
    answer = cli("-m", *TINY, "optimizer.lr=1e-3,0.001,2e-3", "model.filters=[4],[8]", "dry_run=true")
    assert answer.out.splitlines()[1:4] == [
        "  baseline (optimizer.lr=0.001, model.filters=[4])",
        "  optimizer.lr=0.002",
        "  model.filters=[8]",
    ]


@UNDRAWN
def test_a_config_group_can_be_a_knob(cli: Cli, tmp_path: Path) -> None:
    answer = cli("-m", *TINY, "optimizer=adam,sgd", "replicates=1", "hydra.sweep.dir=study")
    assert answer.code == 0, answer.err
    assert list(runs_in(tmp_path / "study")["optimizer"]) == ["adam", "sgd"]


@UNDRAWN
def test_the_same_command_gives_the_same_bits(cli: Cli, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        cli("-m", *TINY, "model.dropout=0,0.5", "replicates=1", "reuse=false", f"hydra.sweep.dir={folder}")
    first, second = runs_in(tmp_path / "first"), runs_in(tmp_path / "second")
    assert not second["reused"].any()
    pd.testing.assert_frame_equal(first[["arm", "seed", *RESULTS]], second[["arm", "seed", *RESULTS]], check_exact=True)


@UNDRAWN
def test_finished_runs_are_reused_and_new_seeds_are_trained(cli: Cli, tmp_path: Path) -> None:
    cli("-m", *TINY, "model.activation=relu,leaky", "replicates=1", "hydra.sweep.dir=first")
    cli("-m", *TINY, "model.activation=relu,tanh", "replicates=2", "hydra.sweep.dir=second")
    second = runs_in(tmp_path / "second")
    reused = second[second["reused"]]
    assert list(zip(reused["arm"], reused["seed"], strict=True)) == [("baseline", 0)]
    first = runs_in(tmp_path / "first")
    columns = ["seed", *RESULTS, "train_seconds", "fingerprint"]
    pd.testing.assert_frame_equal(
        first[first["arm"] == "baseline"][columns].reset_index(drop=True), reused[columns].reset_index(drop=True)
    )


@UNDRAWN
def test_a_damaged_stored_run_is_named_and_trained_again(cli: Cli, tmp_path: Path) -> None:
    cli(*TINY, "replicates=1", "hydra.run.dir=first")
    (stored,) = (tmp_path / ".ablation_runs").glob("*/run.json")
    stored.write_bytes(stored.read_bytes()[:50])
    answer = cli(*TINY, "replicates=1", "hydra.run.dir=second")
    assert answer.code == 0
    assert f"{stored.relative_to(tmp_path)} is damaged" in answer.err
    assert not runs_in(tmp_path / "second")["reused"].any()
    assert json.loads(stored.read_text())["run"]["status"] == "ok"


@UNDRAWN
def test_a_single_configuration_trains_all_its_seeds(cli: Cli, tmp_path: Path) -> None:
    answer = cli(*TINY, "hydra.run.dir=single")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("single configuration: 1 arm x 3 seeds (0, 1, 2) = 3 runs")
    assert list(runs_in(tmp_path / "single")["seed"]) == [0, 1, 2]


@UNDRAWN
def test_a_failing_arm_is_a_row_and_the_table_is_written(cli: Cli, tmp_path: Path) -> None:
    """Its runs fail, and those of the arms around it are trained all the same."""
    from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS

    ACTIVATIONS["broken"] = lambda nn: nn.Linear(3, 3)  # a layer that does not fit where an activation stands
    try:
        answer = cli("-m", *TINY, "model.activation=relu,broken,leaky", "replicates=2", "hydra.sweep.dir=study")
    finally:
        del ACTIVATIONS["broken"]
    assert answer.code == 1
    runs = runs_in(tmp_path / "study")
    failed = runs[runs["status"] == "failed"]
    assert list(failed["arm"]) == ["model.activation=broken"] * 2
    assert failed["error"].str.contains("RuntimeError: .*shapes cannot be multiplied").all()
    assert list(pd.read_csv(tmp_path / "study" / "ablation.csv")["num_failed"]) == [0, 2, 0]
    assert sorted(runs["status"]) == ["failed"] * 2 + ["ok"] * 4
    assert "2 of 6 runs failed" in answer.err
    assert "shapes cannot be multiplied" in answer.err
    assert "Traceback" not in answer.err
    (traceback,) = (tmp_path / "study" / "1").glob("*.traceback.txt")
    assert "RuntimeError" in traceback.read_text()


@UNDRAWN
def test_divergence_is_a_result(cli: Cli, tmp_path: Path) -> None:
    answer = cli(
        "-m",
        *TINY,
        "optimizer=sgd",
        "optimizer.lr=1e-3,1e30",
        "train.epochs=4",
        "replicates=2",
        "hydra.sweep.dir=study",
    )
    assert answer.code == 0, answer.err
    runs = runs_in(tmp_path / "study")
    assert list(runs["status"]) == ["ok", "ok", "diverged", "diverged"]
    notes = pd.read_csv(tmp_path / "study" / "ablation.csv")["notes"]
    assert "2 of 2 runs diverged at epoch 1" in notes[1]


@UNDRAWN
def test_a_table_that_cannot_be_written_is_an_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "study" / "ablation.csv").mkdir(parents=True)
    answer = cli("-m", *TINY, "model.activation=relu,leaky", "replicates=1", "hydra.sweep.dir=study")
    assert answer.code == 2
    assert re.search(r"cannot write .*ablation\.csv: Is a directory", answer.err)
    assert "verdict" in answer.out


def test_dry_run_prints_the_plan_and_touches_nothing(cli: Cli, tmp_path: Path) -> None:
    answer = cli("-m", "study=knobs", "dry_run=true")
    assert answer.code == 0
    assert answer.out.startswith("one_at_a_time: 10 arms x 5 seeds (0, 1, 2, 3, 4) = 50 runs\n  baseline (")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_replaces_a_knob_of_the_study(cli: Cli) -> None:
    answer = cli("-m", "study=knobs", "dry_run=true", "model.filters=[24,48,96]", "train.batch_size=64,32")
    assert "  train.batch_size=32\n" in answer.out
    assert "model.filters=" not in answer.out
    assert "train.batch_size=256" not in answer.out


# -- the report command -----------------------------------------------------------------------------------------------


@UNDRAWN
def test_report_rebuilds_the_same_tables(tmp_path: Path) -> None:
    from cnn_ablation.report.__main__ import main as report

    folder = tmp_path / "study"
    ablated(folder, {"model.activation": ["leaky"]})
    before = {name: (folder / name).read_bytes() for name in TABLES}
    for name in TABLES:
        (folder / name).unlink()
    assert report([str(folder)]) == 0
    assert {name: (folder / name).read_bytes() for name in TABLES} == before
    assert report(["--runs", str(folder / "runs.csv"), "--out", str(tmp_path / "again")]) == 0
    again = pd.read_csv(tmp_path / "again" / "ablation.csv")
    pd.testing.assert_frame_equal(again, pd.read_csv(folder / "ablation.csv"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no study: it is not there"),
        (
            ["--runs", "nowhere.csv", "--out", "x"],
            "nowhere.csv cannot be read as a table of runs (No such file or directory)",
        ),
        (["--runs", "empty.csv", "--out", "x"], "empty.csv cannot be read as a table of runs"),
        (["--runs", "other.csv", "--out", "x"], "lacks the columns arm, knob"),
    ],
)
def test_report_says_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    from cnn_ablation.report.__main__ import main as report

    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert report(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["a", "--runs", "b"], ["--runs", "b"], ["a", "--alpha", "2"], ["a", "--margin-pp", "0"]]
)
def test_report_checks_its_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from cnn_ablation.report.__main__ import main as report

    with pytest.raises(SystemExit) as ended:
        report(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


# -- messages ---------------------------------------------------------------------------------------------------------

MESSAGES = {
    "unknown key": (["model.activatoin=relu"], ["model.activatoin=relu", "did you mean: model.activation=relu"]),
    "unknown group key": (["modle.activation=relu"], ["modle.activation=relu", "did you mean: model.activation=relu"]),
    "key of another option": (
        ["data.difficulty=1"],
        ["data.difficulty=1", "keys of data: name", "belongs to data=shapes"],
    ),
    "added key": (["+model.filter=[1]"], ["model.filter=[1]", "did you mean: model.filters=[1]"]),
    "added top-level key": (["+epochs=3"], ["epochs=3", "did you mean: train.epochs=3"]),
    "unknown Hydra key": (["hydra.swep.dir=x"], ["hydra.swep.dir=x", "did you mean: hydra.sweep.dir=x"]),
    "unknown option": (["optimizer=adm"], ["optimizer=adm", "adagrad, adam, adamw, rmsprop, sgd", "optimizer=adam"]),
    "unknown study": (["study=knob"], ["study=knob", "allowed: eq2425, ", "did you mean: study=knobs"]),
    "not an integer": (["train.epochs=many"], ["train.epochs=many", "allowed: int, at least 1", "the default is 6"]),
    "levels in brackets": (
        ["optimizer.lr=[0.1,0.01]"],
        ["optimizer.lr=[0.1,0.01]", "float, above 0", "-m optimizer.lr=0.1,0.01 without brackets"],
    ),
    "one value in brackets": (["train.shuffle=[true]"], ["remedy: train.shuffle=true without brackets; the default"]),
    "a list of something else": (["model.filters=many"], ["list[int]", "remedy: the default is [24,48,96]"]),
    "not a list": (["model.filters=64"], ["model.filters=64", "1 or more values, each at least 1", "[24,48,96]"]),
    "wrong element": (["model.filters=[1.5]"], ["model.filters[0]=1.5", "list[int]"]),
    "null": (["model.hidden=null"], ["model.hidden=null", "list[int]", "the default is [512]"]),
    "not a boolean": (["train.shuffle=maybe"], ["train.shuffle=maybe", "allowed: bool", "the default is true"]),
    "unreadable": (["model.filters=[24,48"], ["model.filters=[24,48", "cannot be read as KEY=VALUE", "quote"]),
    "no value": (["train.epochs"], ["train.epochs", "cannot be read as KEY=VALUE", "did you mean: train.epochs=6"]),
    "missing": (["train.epochs=???"], ["train.epochs=???", "a value must be given"]),
    "interpolation": (["train.epochs=${sed}"], ["train.epochs=", "'sed' not found"]),
    "unknown activation": (["model.activation=leeky"], ["model.activation=leeky", "prelu", "model.activation=leaky"]),
    "dropout": (["model.dropout=1.5"], ["model.dropout=1.5", "at least 0 and below 1"]),
    "negative learning rate": (["optimizer.lr=-0.1"], ["optimizer.lr=-0.1", "above 0"]),
    "learning rate not a number": (["optimizer.lr=nan"], ["optimizer.lr=nan", "above 0"]),
    "batch larger than the data": (["train.batch_size=9999"], ["train.batch_size=9999", "at most the 1005 training"]),
    "filter larger than its map": (
        ["model.kernel_sizes=[5,3,7]"],
        ["model.kernel_sizes=[5,3,7]", "a 7x7 filter does not fit a 6x6 map", "data.image_size above 32"],
    ),
    "unequal lengths": (
        ["model.filters=[8,8]"],
        ["model.kernel_sizes=[5,3,3]", "2 kernel sizes, one for each"],
    ),
    "no filters": (["model.filters=[]", "model.kernel_sizes=[]"], ["model.filters=[]", "1 or more values"]),
    "name instead of group": (["optimizer.name=sgd"], ["optimizer.name=sgd", "write optimizer=sgd"]),
    "image folder": (["data=image_folder", "data.root=nowhere"], ["data.root=nowhere", "train/<class>/*"]),
    "unknown design": (
        ["-m", "hydra.sweeper.design=greed"],
        ["hydra.sweeper.design=greed", "one_at_a_time, greedy, leave_one_out, grid"],
    ),
    "seed as a knob": (["-m", "seed=0,1,2"], ["seed=0,1,2", "it is no knob", "replicates=N"]),
    "zip of no knob": (["-m", "zip.z={seed:3}"], ["seed={seed:3}", "it is no knob"]),
    "zip without keys": (["-m", "zip.z=3,4"], ["zip.z=3,4", "dictionaries of config keys"]),
    "zip of an unknown key": (["-m", "zip.z={train.epoch:3}"], ["did you mean: train.epochs"]),
    "two knobs on one key": (
        ["-m", "hydra.sweeper.design=grid", "zip.z={train.epochs:3}", "train.epochs=1,2"],
        ["hydra.sweeper.design=grid", "two knobs move train.epochs"],
    ),
    "unknown test": (["stats.test=u"], ["stats.test=u", "t, sign_flip, anytime, dunnett"]),
    "test of times that are not paired": (
        ["stats.test=dunnett", "stats.metric=train_seconds"],
        ["stats.test=dunnett", "t, sign_flip, anytime with stats.metric=train_seconds", "remedy: stats.test=t"],
    ),
    "intervals that were too narrow": (["stats.interval=bca"], ["stats.interval=bca", "leave it out: all intervals"]),
    "metric misspelt": (["stats.metric=val_los"], ["stats.metric=val_los", "did you mean: stats.metric=val_loss"]),
    "metric no number": (["stats.metric=device"], ["stats.metric=device", "a column of numbers"]),
    "direction misspelt": (["stats.direction=low"], ["higher, lower", "did you mean: stats.direction=lower"]),
    "margin zero": (["stats.metric=val_loss", "stats.margin=0"], ["stats.margin=0.0", "allowed: above 0"]),
    "margin of an accuracy": (["stats.margin=0.5"], ["stats.margin=0.5", "remedy: stats.margin_pp=POINTS"]),
    "open interval": (["-m", "optimizer.lr=interval(0,1)"], ["optimizer.lr=interval(0,1)", "a list of levels"]),
    "bad arm": (
        ["-m", "model.activation=relu,leeky"],
        ["(in arm model.activation=leeky)", "did you mean: model.activation=leaky"],
    ),
    "bad type in an arm": (["-m", "train.epochs=1,many"], ["(in arm train.epochs=many)", "allowed: int"]),
    "sweep without -m": (["model.activation=relu,leaky"], ["model.activation=relu,leaky", "add --multirun"]),
    "no such device": (["device=cuda"], ["device=cuda", "on this machine", "device=auto"]),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_bad_input_gives_one_clear_message_before_anything_trains(cli: Cli, tmp_path: Path, case: str) -> None:
    import torch

    if case == "no such device" and torch.cuda.is_available():
        pytest.skip("this machine has the device")
    arguments, expected = MESSAGES[case]
    answer = cli(*arguments)
    assert answer.code == 2
    assert [part for part in expected if part not in answer.err] == [], answer.err
    assert len(answer.err.strip().splitlines()) <= 10, answer.err
    assert "Traceback" not in answer.err
    assert not list(tmp_path.rglob("run-seed*.json"))


def test_several_problems_come_in_one_message(cli: Cli) -> None:
    answer = cli("model.dropout=2", "optimizer.lr=0", "train.epochs=0", "model.activation=x")
    assert "and 2 more" in answer.err
    assert len(answer.err.strip().splitlines()) <= 10


def test_a_broken_yaml_file_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine" / "study").mkdir(parents=True)
    (tmp_path / "mine" / "study" / "broken.yaml").write_text("a: [1, 2\nb: }")
    answer = cli("--config-dir", "mine", "-m", "study=broken")
    assert answer.code == 2
    assert "broken.yaml" in answer.err
    assert len(answer.err.strip().splitlines()) <= 10


# -- processes of their own -------------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cnn_ablation", *arguments]


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["-m", "study=knobs", "dry_run=true"]])
def test_quick_answers_load_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from cnn_ablation.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code, ended.code\n"
        "heavy = {'torch', 'torchvision', 'pandas', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@UNDRAWN
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_study_leaves_its_table_and_goes_on(cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    study = ["-m", *TINY, "model.activation=relu,leaky", "train.epochs=300", "replicates=2", "hydra.sweep.dir=study"]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs inherit that it is ignored
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    undrawn = [sys.executable, UNDRAWN_COMMAND, *study]
    with subprocess.Popen(undrawn, cwd=tmp_path, preexec_fn=heed, **pipes) as running:  # noqa: PLW1509
        deadline = time.monotonic() + 120
        while (
            not list(tmp_path.glob("study/0/run-seed*.json")) and time.monotonic() < deadline
        ):  # the baseline, for a table
            time.sleep(0.02)
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert "the same command goes on from there" in err
    finished = len(runs_in(tmp_path / "study"))
    assert 1 <= finished < 4
    if number == signal.SIGTERM:
        return  # going on is the same for both
    assert cli(*study, "timing=packed").code == 0
    runs = runs_in(tmp_path / "study")
    assert len(runs) == 4
    assert runs["reused"].sum() >= finished


@UNDRAWN
def test_a_killed_study_goes_on_where_it_was(cli: Cli, tmp_path: Path) -> None:
    """Kill -9 in the middle of the third run, which has left a checkpoint: nothing finished is trained again."""
    study = ["-m", *TINY, "model.activation=relu,leaky", "train.epochs=80", "replicates=2", "model.dropout=0.2"]
    killed = [*study, "hydra.sweep.dir=study", "checkpoint_seconds=0.01"]
    with subprocess.Popen(
        command(*killed), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".ablation_runs/*/checkpoint.pt")) or len(list(tmp_path.glob("study/*/run*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        running.kill()
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".ablation_runs/*/run.json")}
    answer = cli(*killed, "timing=packed")
    assert answer.code == 0, answer.err
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    assert list(tmp_path.glob(".ablation_runs/*/checkpoint.pt")) == []
    resumed = runs_in(tmp_path / "study")
    assert len(stored) <= resumed["reused"].sum() < len(resumed)  # a worker may have kept its run as it was ended
    whole = ("train.epochs=80", "replicates=2", "model.dropout=0.2", "reuse=false", "threads=1")
    ablated(tmp_path / "whole", {"model.activation": ["leaky"]}, *whole)
    columns = ["arm", "seed", *RESULTS]
    pd.testing.assert_frame_equal(resumed[columns], runs_in(tmp_path / "whole")[columns], check_exact=True)


@UNDRAWN
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="the system knows no limit on file sizes")
def test_a_full_disk_is_named_and_nothing_finished_is_lost(cli: Cli, tmp_path: Path) -> None:
    """A limit on file sizes stands in for the full disk: writing fails in the same places, as an OSError."""
    study = ["-m", *TINY, "model.activation=relu,leaky", "replicates=2", "hydra.sweep.dir=study", "timing=isolated"]
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); "
    limit += (
        "sys.dont_write_bytecode = True; "  # Python 3.11 keeps what it could write of a module, for all to stumble on
    )
    start = f"import runpy; runpy.run_path({UNDRAWN_COMMAND!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", limit + start, *study], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert cli(*study).code == 0
    assert (runs_in(tmp_path / "study")["status"] == "ok").all()


def test_two_sweeps_at_once_keep_out_of_each_others_way(tmp_path: Path) -> None:
    """Started together, each gets a folder of its own, and every run is trained by one of them only."""
    study = ["-m", *TINY, "model.activation=relu,leaky", "replicates=2"]
    both = [sys.executable, UNDRAWN_COMMAND, *study]
    running = [subprocess.Popen(both, cwd=tmp_path, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    tables = [pd.read_csv(path) for path in tmp_path.glob("multirun/*/*/ablation.csv")]
    assert len(tables) == 2
    pd.testing.assert_series_equal(tables[0]["test_accuracy_mean"], tables[1]["test_accuracy_mean"])
    reused = pd.concat(runs_in(path) for path in tmp_path.glob("multirun/*/*"))["reused"]
    assert (~reused).sum() == 4
    assert reused.sum() == 4


@UNDRAWN
def test_a_folder_in_use_is_refused(cli: Cli, tmp_path: Path) -> None:
    from cnn_ablation.launch.folders import claimed

    with claimed(tmp_path / "study"):
        answer = cli("-m", *TINY, "model.activation=relu,leaky", "hydra.sweep.dir=study")
    assert answer.code == 2
    assert f"another study is being written to {tmp_path / 'study'}\n  by: process {os.getpid()} on " in answer.err
    assert "hydra.sweep.dir=DIR" in answer.err
    assert cli("-m", *TINY, "model.activation=relu,leaky", "replicates=1", "hydra.sweep.dir=study").code == 0


def test_studies_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    from cnn_ablation.launch.folders import new_folder

    assert [new_folder(tmp_path / "12-00-00").name for _ in range(3)] == ["12-00-00", "12-00-00-2", "12-00-00-3"]


def test_module_and_console_script_work_from_another_folder(tmp_path: Path) -> None:
    script = shutil.which("cnn-ablation", path=os.path.dirname(sys.executable))
    assert script, "the console script is installed beside Python"
    for call in ([script], command()):
        done = subprocess.run([*call, "--cfg", "job"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "activation: relu" in done.stdout


GREEDY_BASELINE = (
    "data.train_images=400", "data.test_images=200", "data.difficulty=0", "train.epochs=4", "optimizer.lr=0.01",
    "replicates=2",
)  # fmt: skip
GREEDY_KNOBS: dict[str, list[object]] = {
    "model.activation": ["tanh"], "train.batch_size": [50, 8], "model.batch_norm": [True]
}  # fmt: skip
GREEDY = (
    "-m", *TINY, *GREEDY_BASELINE, "hydra.sweeper.design=greedy", "model.activation=relu,tanh",
    "train.batch_size=16,50,8", "model.batch_norm=false,true",
)  # fmt: skip


@UNDRAWN
def test_greedy_keeps_what_validation_likes_best(cli: Cli, tmp_path: Path) -> None:
    """The path is recomputed here from the validation scores in runs.csv."""
    answer = cli(*GREEDY, "hydra.sweep.dir=study")
    assert answer.code == 0, answer.err
    runs = runs_in(tmp_path / "study")
    mean = runs.groupby("arm")["val_accuracy"].mean()
    kept, prefix = "baseline", ""
    for levels in (["model.activation=tanh"], ["train.batch_size=50", "train.batch_size=8"], ["model.batch_norm=true"]):
        candidates = [f"{prefix}{level}" for level in levels]
        best = max([kept, *candidates], key=lambda arm: mean[arm])
        kept, prefix = best, "" if best == "baseline" else f"{best},"
    plan = yaml.safe_load((tmp_path / "study" / "study.yaml").read_text())
    assert [step["knob"] for step in plan["path"]] == ["model.activation", "train.batch_size", "model.batch_norm"]
    assert plan["path"][-1]["kept"] == kept
    assert len(runs) == 2 * 5
    arms = pd.read_csv(tmp_path / "study" / "ablation.csv").set_index("arm")
    chosen = {"baseline", *(step["kept"] for step in plan["path"])}
    assert 1 < len(chosen) < len(arms), "some levels are kept and some dropped"
    assert set(arms.index[arms["test_accuracy_mean"].notna()]) == chosen
    assert set(runs["arm"][runs["test_accuracy"] != ""]) == chosen
    for step in plan["path"]:
        for name in step["candidates"]:
            said = re.search(r": (kept|dropped), ([+-]\d+\.\d\d) pp on validation", arms["notes"][name])
            assert said
            assert said[1] == ("kept" if name == step["kept"] else "dropped")
            difference = 100 * (mean[name] - mean[step["before"]])
            assert float(said[2]) == pytest.approx(difference, abs=0.0051)  # halves may be rounded up or down
    assert "test accuracy" not in answer.err


@UNDRAWN
def test_test_scores_play_no_part_in_a_greedy_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same study with every test score replaced by a random one, before anything can look at it."""
    from cnn_ablation.runs import run as runs_module

    ablated(tmp_path / "honest", GREEDY_KNOBS, *GREEDY_BASELINE, design="greedy")
    generator = random.Random(0)

    def scrambled(path: Path, run: Run) -> None:
        write_run(path, dataclasses.replace(run, test_accuracy=generator.random(), test_loss=9 * generator.random()))

    monkeypatch.setattr(runs_module, "write_run", scrambled)
    ablated(tmp_path / "scrambled", GREEDY_KNOBS, *GREEDY_BASELINE, "reuse=false", design="greedy")
    honest, scrambled_plan = (
        yaml.safe_load((tmp_path / name / "study.yaml").read_text()) for name in ("honest", "scrambled")
    )
    tests = [pd.read_csv(tmp_path / name / "ablation.csv")["test_accuracy_mean"] for name in ("honest", "scrambled")]
    assert not tests[0].dropna().equals(tests[1].dropna())
    assert honest["path"] == scrambled_plan["path"]
    assert honest["arms"] == scrambled_plan["arms"]


@UNDRAWN
def test_an_arm_that_fails_is_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS

    def broken(nn: object) -> object:
        raise RuntimeError("no such function")

    monkeypatch.setitem(ACTIVATIONS, "tanh", broken)
    with pytest.raises(StudyFailedError, match="2 of 10 runs failed"):
        ablated(tmp_path / "study", GREEDY_KNOBS, *GREEDY_BASELINE, design="greedy")
    plan = yaml.safe_load((tmp_path / "study" / "study.yaml").read_text())
    assert plan["path"][0]["kept"] == "baseline"
    assert len(plan["path"]) == 3
    assert plan["path"][-1]["kept"] != "baseline"


@UNDRAWN
def test_an_unfinished_step_of_a_greedy_study_shows_no_test_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS

    def broken(nn: object) -> object:
        raise RuntimeError("no such function")

    monkeypatch.setitem(ACTIVATIONS, "elu", broken)
    knobs = GREEDY_KNOBS | {"model.activation": ["tanh", "elu"]}
    with pytest.raises(StudyFailedError):
        ablated(tmp_path / "study", knobs, *GREEDY_BASELINE, "on_error=stop", design="greedy")
    assert "damaged" not in capsys.readouterr().err
    plan = yaml.safe_load((tmp_path / "study" / "study.yaml").read_text())
    assert [step["kept"] for step in plan["path"]] == [None]
    arms = pd.read_csv(tmp_path / "study" / "ablation.csv").set_index("arm")
    assert arms["test_accuracy_mean"].notna().to_dict() == {
        "baseline": True, "model.activation=tanh": False, "model.activation=elu": False,
    }  # fmt: skip


@UNDRAWN
def test_leave_one_out_compares_with_the_full_configuration(cli: Cli, tmp_path: Path) -> None:
    answer = cli(
        "-m", *TINY, "model.activation=relu,leaky", "model.batch_norm=false,true", "replicates=1",
        "hydra.sweeper.design=leave_one_out", "hydra.sweep.dir=study",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    arms = pd.read_csv(tmp_path / "study" / "ablation.csv", keep_default_na=False)
    assert list(arms["arm"]) == ["full", "full without model.activation", "full without model.batch_norm"]
    assert list(arms["knob"]) == ["", "model.activation", "model.batch_norm"]
    assert arms["verdict"][0] == "baseline"
    runs = runs_in(tmp_path / "study").groupby("arm")[["model.activation", "model.batch_norm"]].first()
    assert runs.to_dict("index") == {
        "full": {"model.activation": "leaky", "model.batch_norm": True},
        "full without model.activation": {"model.activation": "relu", "model.batch_norm": True},
        "full without model.batch_norm": {"model.activation": "leaky", "model.batch_norm": False},
    }
    assert "Differences from the full configuration" in (tmp_path / "study" / "ablation.md").read_text()


@UNDRAWN
def test_a_zipped_level_moves_several_keys_and_is_one_knob(cli: Cli, tmp_path: Path) -> None:
    answer = cli(
        "-m", *TINY, "zip.scaled={train.batch_size:8,optimizer.lr:5e-4},{train.batch_size:30,model.filters:[8]}",
        "replicates=1", "hydra.sweep.dir=study",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    runs = runs_in(tmp_path / "study")
    assert list(runs["arm"]) == [
        "baseline",
        "scaled={train.batch_size:8,optimizer.lr:0.0005}",
        "scaled={train.batch_size:30,model.filters:[8]}",
    ]
    assert list(runs["knob"]) == ["", "scaled", "scaled"]
    assert list(runs["train.batch_size"]) == [16, 8, 30]
    assert list(runs["optimizer.lr"]) == [1e-3, 5e-4, 1e-3]
    assert list(runs["model.filters"]) == ["[4]", "[4]", "[8]"]


@UNDRAWN
def test_a_study_that_stops_at_a_failure_goes_on_from_there(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS

    def broken(nn: object) -> object:
        raise RuntimeError("no such function")

    study = ["-m", *TINY, "model.activation=relu,elu,tanh", "replicates=2", "on_error=stop", "hydra.sweep.dir=study"]
    with monkeypatch.context() as patched:
        patched.setitem(ACTIVATIONS, "elu", broken)
        answer = cli(*study)
    assert answer.code == 1
    assert sorted(runs_in(tmp_path / "study")["status"]) == ["failed", "ok"]
    assert "no such function" in answer.err
    assert list(tmp_path.glob("study/1/*.traceback.txt"))
    assert "stopped after 2 of 6 runs; the same command goes on from there" in answer.err
    assert "4 of 6 planned runs have not finished" in (tmp_path / "study" / "ablation.md").read_text()
    assert cli(*study).code == 0
    assert (runs_in(tmp_path / "study")["status"] == "ok").sum() == 6


@UNDRAWN
def test_a_dry_run_tells_reuse_confounds_and_time(cli: Cli) -> None:
    study = ["-m", *TINY, "model.activation=relu,leaky", "train.batch_size=16,8"]
    before = cli(*study, "dry_run=true")
    assert "would reuse 0 of 9 runs from .ablation_runs" in before.out
    assert "estimated time: unknown" in before.out
    assert "  train.batch_size=8: 2x more updates" in before.out
    cli(*study, "replicates=1", "hydra.sweep.dir=study")
    after = cli(*study, "dry_run=true")
    assert "would reuse 3 of 9 runs" in after.out
    assert re.search(r"estimated time: about \d+ s for 6 runs, from past runs", after.out)
    for _, run in runs_in(Path("study")).iterrows():
        computed = f"computed on {run['device']} in {run['precision']} with {run['threads']} thread"
        assert computed in before.out
        assert computed in after.out
    assert "estimated time: none, nothing is left to train" in cli(*study, "replicates=1", "dry_run=true").out
    assert "would reuse 0 of 9 runs" in cli(*study, "optimizer.lr=2e-3", "dry_run=true").out
    assert "would reuse 0 of 9 runs" in cli(*study, "reuse=false", "dry_run=true").out


@UNDRAWN
def test_a_dry_run_counts_the_runs_that_would_be_taken(cli: Cli) -> None:
    """The store has this run in both precisions, of which `auto` is one."""
    one = [*TINY, "replicates=1"]
    for precision in ("float32", "bfloat16"):
        assert cli(*one, f"precision={precision}", f"hydra.run.dir={precision}").code == 0
    assert "would reuse 1 of 1 run from" in cli(*one, "dry_run=true").out
    assert "would reuse 0 of 1 run from" in cli(*one, "threads=2", "dry_run=true").out
    both = cli("-m", *one, "optimizer=sgd,adam", "dry_run=true").out
    assert "would reuse 1 of 2 runs from" in both
    assert re.search(r"about \d+ s for 1 run, from past runs", both)


@UNDRAWN
def test_a_double_softmax_is_diagnosed(tmp_path: Path) -> None:
    ablated(tmp_path / "study", {"model.output": ["softmax"]}, "replicates=2")
    arms = pd.read_csv(tmp_path / "study" / "ablation.csv").set_index("arm")
    assert "double softmax" in arms["notes"]["model.output=softmax"]
    assert "double softmax" not in str(arms["notes"]["baseline"])


@UNDRAWN
def test_statistics_are_selectable_and_named_in_the_caption(tmp_path: Path) -> None:
    ablated(tmp_path / "study", {"model.activation": ["leaky"]}, "stats.test=sign_flip", "stats.simultaneous=true")
    text = (tmp_path / "study" / "ablation.md").read_text()
    assert "an exact paired sign-flip test" in text
    assert "simultaneous intervals" in text
    assert "no verdict possible with 3 seeds: sign_flip needs 6 here" in text
    from cnn_ablation.report.__main__ import main as report

    assert report([str(tmp_path / "study"), "--test", "t", "--out", str(tmp_path / "again")]) == 0
    again = (tmp_path / "again" / "ablation.md").read_text()
    assert "a paired t test" in again
    assert "simultaneous intervals" in again


@UNDRAWN
def test_a_study_in_python_does_what_the_command_line_does(cli: Cli, tmp_path: Path) -> None:
    cli("-m", *TINY, "model.activation=relu,leaky", "train.batch_size=16,8", "replicates=1", "hydra.sweep.dir=typed")
    baseline = cnn_ablation.compose([*TINY, "replicates=1"])
    knobs = {"model.activation": ["relu", "leaky"], "train.batch_size": [8]}
    arms = cnn_ablation.ablate(baseline, knobs, tmp_path / "python")
    assert list(arms["arm"]) == ["baseline", "model.activation=leaky", "train.batch_size=8"]
    first, second = runs_in(tmp_path / "typed"), runs_in(tmp_path / "python")
    assert second["reused"].all()
    pd.testing.assert_frame_equal(first.drop(columns="reused"), second.drop(columns="reused"))


@pytest.mark.parametrize(
    ("knobs", "design", "message"),
    [
        ({"model.activatoin": ["leaky"]}, "grid", "did you mean: model.activation"),
        ({"train.batch_size": ["8"]}, "grid", "allowed: int"),
        ({"model.activation": ["leeky"]}, "grid", "allowed: relu, leaky"),
        ({"seed": [1, 2]}, "grid", "it is no knob"),
        ({"train.epochs": [1]}, "gird", "did you mean: hydra.sweeper.design=grid"),
    ],
)
def test_mistakes_in_a_python_study_are_named(
    tiny_config: Config, tmp_path: Path, knobs: dict[str, list[object]], design: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        cnn_ablation.ablate(tiny_config, knobs, tmp_path / "study", design=design)
    assert not (tmp_path / "study").exists()


@UNDRAWN
def test_a_knob_that_is_a_column_of_its_own_is_one_column(tmp_path: Path) -> None:
    ablated(tmp_path / "s", {"precision": ["bfloat16"]}, "precision=float32", "replicates=1")
    runs = pd.read_csv(tmp_path / "s" / "runs.csv")
    assert list(runs.columns).count("precision") == 1
    assert list(pd.read_parquet(tmp_path / "s" / "runs.parquet").columns) == list(runs.columns)
