"""The engines that use submitit: their settings and messages, and real jobs on this machine."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import words
import yaml

from cnn_ablation.app.composition import CONF_DIR
from cnn_ablation.common import machine
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.common.machine import Allocation
from cnn_ablation.config import default_of
from cnn_ablation.launch.engines import ENGINES, Engine, JobState, engine, submitit_jobs
from cnn_ablation.launch.engines.submitit_local import SubmititLocal
from cnn_ablation.launch.engines.submitit_slurm import PROGRAMS, SubmititSlurm

HERE = Path(__file__).parent


@pytest.fixture
def with_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which Slurm's commands are found; none is called."""
    (tmp_path / "bin").mkdir()
    for name in PROGRAMS:
        (tmp_path / "bin" / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.mark.parametrize("name", ["submitit_local", "submitit_slurm"])
def test_the_file_names_every_key_with_its_default(name: str) -> None:
    kind = {"submitit_local": SubmititLocal, "submitit_slurm": SubmititSlurm}[name]
    told = yaml.safe_load((Path(CONF_DIR) / "hydra" / "launcher" / f"{name}.yaml").read_text())
    assert told.pop("_target_") == ENGINES[name]
    assert told == {item.name: default_of(item) for item in dataclasses.fields(kind)}


def message(name: str, settings: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        engine(ENGINES[name], settings)
    return str(raised.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"cpus": 0}, "hydra.launcher.cpus=0\n  allowed: at least 1"),
        ({"minutes": 0}, "hydra.launcher.minutes=0\n  allowed: at least 1"),
        ({"minutes": "long"}, "hydra.launcher.minutes='long'\n  allowed: int | None, at least 1"),
        ({"setup": "module load x"}, "hydra.launcher.setup='module load x'\n  allowed: list[str]"),
        ({"on_detach": "stop"}, "hydra.launcher.on_detach=stop\n  allowed: continue, cancel"),
        (
            {"extra": {"array": "0-3"}},
            "hydra.launcher.extra.array=0-3\n"
            "  allowed: options of sbatch apart from array, chdir, error, export, job-name, open-mode, "
            "output, parsable, wait, wrap, which are set here",
        ),
        (
            {"extra": {"cpus_per_task": 4}},
            "hydra.launcher.extra.cpus_per_task=4\n  allowed: options of sbatch that have no key of their own\n"
            "  remedy: hydra.launcher.cpus=4",
        ),
        (
            {"extra": {"mem": "4G"}},
            "hydra.launcher.extra.mem=4G\n  allowed: options of sbatch that have no key of their own\n"
            "  remedy: hydra.launcher.memory_gb=...",
        ),
        (
            {"extra": {"requeue": []}},
            "hydra.launcher.extra.requeue=[]\n  allowed: a text, a number, true or false\n"
            "  remedy: hydra.launcher.extra.requeue=true",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_what_slurm_cannot_be_told(settings: dict[str, object], expected: str, with_slurm: None) -> None:
    assert message("submitit_slurm", settings) == f"configuration error: {expected}"


def test_an_unknown_key_is_named_with_the_known_ones(with_slurm: None) -> None:
    text = message("submitit_slurm", {"partiton": "gpu"})
    assert text.startswith("configuration error: hydra.launcher.partiton=gpu\n  allowed: jobs, cpus, ")
    assert text.endswith("\n  did you mean: hydra.launcher.partition=gpu")


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert message("submitit_slurm", {}) == (
        "configuration error: hydra/launcher=submitit_slurm\n"
        "  allowed: machines with sbatch, srun, squeue, scancel; there is no sbatch in PATH\n"
        "  remedy: start where Slurm's commands are, on a login node; submitit_local uses this machine alone"
    )


@pytest.mark.parametrize("name", ["submitit_local", "submitit_slurm"])
@pytest.mark.parametrize(
    ("installed", "there"), [(None, "submitit is not installed"), ("1.4.6", "submitit 1.4.6 is installed")]
)
def test_submitit_that_is_missing_or_old(
    name: str, installed: str | None, there: str, with_slurm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(package: str) -> str:
        if installed is None:
            raise metadata.PackageNotFoundError(package)
        return installed

    monkeypatch.setattr(metadata, "version", version)
    assert message(name, {}) == (
        f"configuration error: hydra/launcher={name}\n"
        f"  allowed: launchers whose packages are there; this one needs submitit 1.5 or newer, {there}\n"
        '  remedy: pip install "cnn_ablation[slurm]", or pip install -e ".[slurm]" where its code lies'
    )


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ("invalid partition specified: nope", "partition=null"),
        ("Invalid account or account/partition combination specified", "account=null"),
        ("Invalid qos specification", "qos=null"),
        ("Memory specification can not be satisfied", "memory_gb=null"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "minutes=null"),
        ("CPU count per node can not be satisfied", "cpus=1"),
        (
            "AssocMaxSubmitJobLimit sbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
            "jobs=null",
        ),
        ("Invalid job array specification", "jobs=null"),
        ("sbatch: unrecognized option '--nope=1'", "extra.nope=1"),
        ("sbatch: unrecognized option '--other'", ""),
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", ""),
        ("Requested node configuration is not available", ""),
    ],
    ids=lambda value: value[:30],
)
def test_the_key_that_sbatch_complains_of(said: str, key: str, with_slurm: None) -> None:
    text = str(SubmititSlurm(extra={"nope": 1})._refusal(said))
    assert said in text
    assert "  remedy: " in text
    assert text.startswith(f"configuration error: hydra.launcher.{key}\n" if key else "Slurm took no job: ")


def test_what_slurm_refuses_is_submitted_once(tmp_path: Path, with_slurm: None) -> None:
    """Slurm shows a job that it has refused as one that failed."""
    scripts = {"sbatch": f"echo called >> {tmp_path}/calls; echo '{REFUSED}' >&2; exit 1", "squeue": "echo 12"}
    for name, script in scripts.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.partition=nope"):
        SubmititSlurm(partition="nope").submit(words.written(tmp_path, "sleep 0"), tmp_path / "engine")
    assert (tmp_path / "calls").read_text() == "called\n"


REFUSED = "sbatch: error: Batch job submission failed: Invalid partition name specified"


def test_what_slurm_is_asked_for_is_what_jobs_are_planned_with(with_slurm: None) -> None:
    assert engine(ENGINES["submitit_slurm"], {}).allocation == Allocation(cpus=1, memory=None, gpus=0)
    asked = engine(ENGINES["submitit_slurm"], {"cpus": 8, "memory_gb": 4, "gpus": 2})
    assert asked.allocation == Allocation(cpus=8, memory=4 * 10**9, gpus=2)
    assert isinstance(asked, SubmititSlurm)
    parameters = asked._parameters("a-name", 5)
    assert (parameters["cpus_per_task"], parameters["gpus_per_node"]) == (8, 2)
    assert int(parameters["mem"].removesuffix("M")) * 2**20 >= 4 * 10**9
    assert parameters["array_parallelism"] == 5


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "memory", lambda: 8_000)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-12ab")


@pytest.mark.parametrize(
    ("settings", "expected", "seen"),
    [
        ({}, Allocation(4, None, None), ["4,5,GPU-12ab"]),
        ({"jobs": None}, Allocation(4, None, None), ["4,5,GPU-12ab"]),
        ({"jobs": 2}, Allocation(2, 4_000, 1), ["4", "5"]),
        ({"jobs": 2, "gpus": 0}, Allocation(2, 4_000, 0), ["", ""]),
        ({"jobs": 3}, Allocation(1, 2_666, 1), ["4", "5", "GPU-12ab"]),
        ({"jobs": 4, "cpus": 1, "memory_gb": 1e-6}, Allocation(1, 1_000, 0), [""] * 4),
        ({"gpus": 2}, Allocation(4, None, 2), ["4,5"]),
    ],
    ids=str,
)
def test_jobs_share_this_machine(
    settings: dict[str, Any], expected: Allocation, seen: list[str], four_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = engine(ENGINES["submitit_local"], settings)
    assert isinstance(local, SubmititLocal)
    assert local.allocation == expected
    assert local.num_jobs(100, float("nan")) == len(seen)
    assert local._variables(len(seen)) == [{"CUDA_VISIBLE_DEVICES": each} for each in seen]
    monkeypatch.setattr(machine, "cores", lambda: 1)  # as within a job
    assert local.allocation == expected


@pytest.mark.parametrize(
    ("settings", "key", "remedy"),
    [
        ({"jobs": 5}, "cpus", "jobs=4"),
        ({"jobs": 2, "cpus": 3}, "cpus", "jobs=1"),
        ({"cpus": 5}, "cpus", "cpus=null"),
        ({"jobs": 2, "gpus": 2}, "gpus", "jobs=1"),
        ({"gpus": 4}, "gpus", "gpus=null"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_more_than_this_machine_has(settings: dict[str, Any], key: str, remedy: str, four_cores: None) -> None:
    most = {"cpus": "4, which this machine has: all jobs train at once", "gpus": "3, which this machine has"}[key]
    given = f"{key}={settings[key]}" if key in settings else f"jobs={settings['jobs']}"
    allowed = f"jobs times {key} at most {most}"
    said = f"configuration error: hydra.launcher.{given}\n  allowed: {allowed}\n  remedy: hydra.launcher.{remedy}"
    assert message("submitit_local", settings) == said


def test_where_nobody_divides_gpus_a_job_sees_what_we_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that asks submitit for none would see none."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert SubmititLocal()._variables(1) == [{"CUDA_VISIBLE_DEVICES": None}]


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> SubmititLocal:
    monkeypatch.setattr(submitit_jobs, "FUNCTION", "words.carry_out")
    monkeypatch.setenv("PYTHONPATH", str(HERE / "cluster"))
    return SubmititLocal()


def until_over(engine: Engine, ids: Sequence[str]) -> list[JobState]:
    return until(engine, ids, lambda states: all(state.is_over for state in states))


def until(engine: Engine, ids: Sequence[str], wanted: Callable[[list[JobState]], bool]) -> list[JobState]:
    deadline = time.monotonic() + 120
    while True:
        states = list(engine.states(ids).values())
        if wanted(states):
            return states
        assert time.monotonic() < deadline, states
        time.sleep(0.02)


def test_jobs_end_as_they_say_and_hear_no_ctrl_c(local: SubmititLocal, tmp_path: Path) -> None:
    batches = words.written(tmp_path, "sleep 0", "raise it broke", "sleep 60", "sleep 60")
    ids = local.submit(batches, tmp_path / "engine")
    assert [state.is_running for state in local.states(ids[2:]).values()] == [True, True]
    until(local, ids, lambda _: all(map(words.log_of, batches)))
    os.kill(int(ids[2].partition("-")[0]), signal.SIGINT)
    os.kill(int(ids[2].partition("-")[0]), signal.SIGHUP)
    local.cancel([ids[3]])
    assert not local.states([ids[2]])[ids[2]].is_over
    os.kill(int(words.log_of(batches[2])[0].split()[-1]), signal.SIGKILL)
    assert [state.reason for state in until_over(local, ids)] == [
        "",
        "ValueError: it broke",
        "its process was killed",
        "cancelled",
    ]
    local.cancel(ids)  # they are over


SUBMITTED = """
import sys
from pathlib import Path
from cnn_ablation.launch.engines import submitit_jobs
from cnn_ablation.launch.engines.submitit_local import SubmititLocal
submitit_jobs.FUNCTION = "words.carry_out"
print(*SubmititLocal().submit([Path(sys.argv[1])], Path(sys.argv[1]).parent / "engine"))
"""


def test_a_job_goes_on_when_its_submitter_is_gone_and_another_process_finds_it(
    local: SubmititLocal, tmp_path: Path
) -> None:
    """Nor does it keep the pipe open that took the output of the submitter."""
    (batch,) = words.written(tmp_path, "sleep 60")
    command = [sys.executable, "-c", SUBMITTED, str(batch)]
    began = time.monotonic()
    ids = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert time.monotonic() - began < 55
    assert local.states(ids) == {ids[0]: JobState(is_over=False, is_running=True)}
    local.cancel(ids)
    assert until_over(local, ids) == [JobState(is_over=True, reason="cancelled")]


def test_a_number_that_came_again_is_another_process(local: SubmititLocal) -> None:
    assert local.states([f"{os.getpid()}-1"]) == {f"{os.getpid()}-1": JobState(is_over=True)}


def test_a_job_that_was_killed_while_it_wrote_its_result_can_be_called_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "7", "SUBMITIT_FOLDER": str(tmp_path)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(HERE / "cluster"))
    left = [tmp_path / "7_0_result.pkl", tmp_path / "7_0_result.pkl.save_tmp"]
    for path in left:
        path.touch()
    (batch,) = words.written(tmp_path, "sleep 0")
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        submitit_jobs.carry_out(str(batch), "words.carry_out", {"CUDA_VISIBLE_DEVICES": None, "PYTHONPATH": "x"})
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [path for path in left if path.exists()] == []
    assert len(words.log_of(batch)) == 1
    assert os.environ["PYTHONPATH"] == "x"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (
            "hydra.launcher.cpu=2",
            "hydra.launcher.cpu=2\n"
            "  allowed: keys of the launcher that is chosen: "
            "jobs, cpus, gpus, memory_gb, poll_seconds, on_detach, allow_other_versions\n"
            "  did you mean: hydra.launcher.cpus=2\n",
        ),
        (
            "+hydra.launcher.survives=true",
            "hydra.launcher.survives=true\n"
            "  allowed: jobs, cpus, gpus, memory_gb, on_detach, allow_other_versions, poll_seconds\n",
        ),
        ("hydra.launcher.jobs=no", "hydra.launcher.jobs='no'\n  allowed: int | None, at least 1\n"),
    ],
    ids=["misspelt", "of the class", "of another type"],
)
def test_a_wrong_setting_on_the_command_line_is_one_message(typed: str, expected: str, cli: Callable[..., Any]) -> None:
    answer = cli("-m", "model.activation=relu,leaky", "hydra/launcher=submitit_local", typed, "dry_run=true")
    assert (answer.code, answer.out, answer.err) == (2, "", f"configuration error: {expected}")
