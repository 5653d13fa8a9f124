"""The engine of Slurm against a real Slurm (`tests/cluster/slurm.py`): pytest -n 0 -m cluster tests/cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pandas as pd
import pytest
import slurm as real
import words
from conftest import TINY

from cnn_ablation.common import progress
from cnn_ablation.common.errors import UserError
from cnn_ablation.launch.engines import ENGINES, JobState, engine, submitit_jobs
from cnn_ablation.launch.engines.slurm import FORGOTTEN
from cnn_ablation.launch.engines.submitit_slurm import SubmititSlurm

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(bool(real.missing()) or os.geteuid() != 0, reason="needs Debian's Slurm and root"),
]

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in real.start(folder).items():
            patched.setenv(name, value)
        yield folder
        real.stop(folder)


@pytest.fixture
def slurm_with(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SubmititSlurm]:
    """An engine with settings, whose jobs do what their batch says."""
    monkeypatch.setattr(submitit_jobs, "FUNCTION", "words.carry_out")
    monkeypatch.setenv("PYTHONPATH", str(HERE))

    def made(**settings: object) -> SubmititSlurm:
        found = engine(ENGINES["submitit_slurm"], {"memory_gb": 0.3, **settings})
        assert isinstance(found, SubmititSlurm)
        return found

    return made


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(progress, "warn", said.append)
    return said


def until(
    engine: SubmititSlurm, ids: Sequence[str], wanted: Callable[[list[JobState]], bool], seconds: float = 40
) -> Mapping[str, JobState]:
    deadline = time.monotonic() + seconds
    while True:
        states = engine.states(ids)
        if len(states) == len(ids) and wanted(list(states.values())):
            return states
        assert time.monotonic() < deadline, states
        time.sleep(0.2)


def all_over(states: list[JobState]) -> bool:
    return all(state.is_over for state in states)


def all_running(states: list[JobState]) -> bool:
    return all(state.is_running for state in states)


def states_of(arrays: Sequence[str]) -> list[str]:
    """As Slurm names them, once none of the jobs is about to end."""
    command = ["squeue", "--noheader", "--states=all", "--array", "--format=%T", f"--jobs={','.join(arrays)}"]
    for _ in range(100):
        states = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        if "COMPLETING" not in states:
            return states
        time.sleep(0.1)
    return states


def test_a_job_prints_the_name_of_its_host(cluster: Path, tmp_path: Path) -> None:
    command = [
        "sbatch",
        "--wait",
        f"--output={tmp_path}/out",
        "--nodelist=n2",
        "--wrap=hostname; echo $SLURMD_NODENAME",
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "out").read_text().split() == [os.uname().nodename, "n2"]


def test_jobs_are_one_array_and_end_as_they_say(slurm_with: Callable[..., SubmititSlurm], tmp_path: Path) -> None:
    slurm = slurm_with(cpus=2)
    batches = words.written(tmp_path / "a folder", "sleep 0", "exit 3", "raise it", "eat 900")
    ids = slurm.submit(batches, tmp_path / "a folder" / "engine")
    arrays = {each.partition("_")[0] for each in ids}
    assert len(arrays) == 1
    assert [each.partition("_")[2] for each in ids] == ["0", "1", "2", "3"]
    states = until(slurm, ids, all_over)
    by_counting = "failed (signal SIGKILL)"  # where control groups are not to be had
    assert [state.reason for state in states.values()][:3] == ["", "failed (exit code 3)", "failed (exit code 1)"]
    assert states[ids[3]].reason in ("out of memory", by_counting)
    assert [line.split()[1] for batch in batches for line in words.log_of(batch)] == ["2"] * 4
    assert {line.split()[0] for batch in batches for line in words.log_of(batch)} <= {"n1", "n2"}


def test_one_job_waits_runs_and_is_over(slurm_with: Callable[..., SubmititSlurm], tmp_path: Path) -> None:
    slurm = slurm_with()
    ids = slurm.submit(words.written(tmp_path, "sleep 1"), tmp_path / "engine")
    assert len(ids) == 1
    assert ids[0].isdigit()
    assert slurm.states(ids) == {ids[0]: JobState(is_over=False)}
    until(slurm, ids, all_running)
    assert until(slurm, ids, all_over) == {ids[0]: JobState(is_over=True)}


def test_another_process_asks_for_the_same_jobs(slurm_with: Callable[..., SubmititSlurm], tmp_path: Path) -> None:
    ids = slurm_with().submit(words.written(tmp_path, "sleep 0", "exit 1"), tmp_path / "engine")
    states = until(slurm_with(), ids, all_over)
    assert [state.reason for state in states.values()] == ["", "failed (exit code 1)"]


def test_array_parallelism_holds_jobs_back_and_one_is_cancelled_before_its_first_line(
    slurm_with: Callable[..., SubmititSlurm], tmp_path: Path
) -> None:
    slurm = slurm_with(array_parallelism=1)
    batches = words.written(tmp_path, "sleep 30", "sleep 30", "sleep 0")
    ids = slurm.submit(batches, tmp_path / "engine")
    until(slurm, ids[:1], all_running)
    assert not any(state.is_running for state in slurm.states(ids[1:]).values())
    slurm.cancel(ids[:2])
    states = until(slurm, ids, all_over)
    assert [state.reason for state in states.values()] == ["cancelled", "cancelled before it began", ""]
    assert words.log_of(batches[1]) == []
    slurm.cancel(ids)  # they are over already
    assert slurm.states(ids) == states


def test_out_of_time(slurm_with: Callable[..., SubmititSlurm], tmp_path: Path) -> None:
    slurm = slurm_with(partition="short", minutes=1)
    ids = slurm.submit(words.written(tmp_path, "sleep 300"), tmp_path / "engine")
    assert until(slurm, ids, all_over, seconds=150) == {ids[0]: JobState(is_over=True, reason="out of time")}


def test_what_may_wait_for_ever_says_why(slurm_with: Callable[..., SubmititSlurm], tmp_path: Path) -> None:
    slurm = slurm_with(partition="short", minutes=10)
    ids = slurm.submit(words.written(tmp_path, "sleep 0"), tmp_path / "engine")
    states = until(slurm, ids, lambda found: "TimeLimit" in found[0].reason)
    reason = "its partition allows less time than it asks for (PartitionTimeLimit)"
    assert states == {ids[0]: JobState(is_over=False, reason=reason)}
    slurm.cancel(ids)


def test_a_job_that_is_requeued_twice_is_called_again(slurm_with: Callable[..., SubmititSlurm], tmp_path: Path) -> None:
    slurm = slurm_with()
    batches = words.written(tmp_path, "sleep 300", "sleep 0")
    ids = slurm.submit(batches, tmp_path / "engine")
    for number in (1, 2):
        until(slurm, ids[:1], lambda found, number=number: len(words.log_of(batches[0])) == number)  # type: ignore[misc]
        (left,) = (tmp_path / "engine").glob("*")
        (left / f"{ids[0]}_0_result.pkl.save_tmp").touch()  # of a job that was killed while it wrote its result
        if number == 2:
            batches[0].write_text("sleep 0")
        subprocess.run(["scontrol", "requeue", ids[0]], check=True)
    assert until(slurm, ids, all_over, seconds=60) == dict.fromkeys(ids, JobState(is_over=True))
    assert len(words.log_of(batches[0])) == 3


@pytest.mark.parametrize(("partition", "reason"), [("spot", "preempted"), ("scavenge", "")])
def test_a_job_that_makes_room_for_another(
    partition: str, reason: str, slurm_with: Callable[..., SubmititSlurm], tmp_path: Path
) -> None:
    """One partition ends it, the other one starts it again."""
    slurm, urgent = (
        slurm_with(cpus=2, extra={"nodelist": "n2"}, **settings) for settings in ({"partition": partition}, {})
    )
    batches = words.written(tmp_path, "sleep 300")
    ids = slurm.submit(batches, tmp_path / "engine")
    until(slurm, ids, lambda found: len(words.log_of(batches[0])) == 1)
    batches[0].write_text("sleep 0")
    others = urgent.submit(words.written(tmp_path / "urgent", "sleep 1"), tmp_path / "urgent")
    assert until(slurm, ids, all_over, seconds=60) == {ids[0]: JobState(is_over=True, reason=reason)}
    assert until(urgent, others, all_over) == {others[0]: JobState(is_over=True)}
    assert len(words.log_of(batches[0])) == (1 if reason else 2)


def test_a_node_whose_daemon_is_killed_and_started_again(
    cluster: Path, slurm_with: Callable[..., SubmititSlurm], tmp_path: Path
) -> None:
    slurm = slurm_with(extra={"nodelist": "n1"})
    ids = slurm.submit(words.written(tmp_path, "sleep 4"), tmp_path / "engine")
    until(slurm, ids, all_running)
    real.kill(cluster, "n1")
    real.start_node(cluster, "n1")
    assert until(slurm, ids, all_over) == {ids[0]: JobState(is_over=True)}


def test_a_node_that_is_gone(cluster: Path, slurm_with: Callable[..., SubmititSlurm], tmp_path: Path) -> None:
    slurm = slurm_with(extra={"nodelist": "n2", "no_requeue": True})
    ids = slurm.submit(words.written(tmp_path, "sleep 300"), tmp_path / "engine")
    until(slurm, ids, all_running)
    real.kill(cluster, "n2")
    assert until(slurm, ids, all_over, seconds=90) == {ids[0]: JobState(is_over=True, reason="its node failed")}
    real.start_node(cluster, "n2")


def test_a_controller_that_is_gone_for_a_while(
    cluster: Path, slurm_with: Callable[..., SubmititSlurm], tmp_path: Path, warnings: list[str]
) -> None:
    slurm = slurm_with()
    ids = slurm.submit(words.written(tmp_path, "sleep 8"), tmp_path / "engine")
    before = until(slurm, ids, all_running)
    real.kill(cluster, "slurmctld", signal.SIGTERM)  # killed at once, it would not know that it had started the job
    assert slurm.states(ids) == before
    assert slurm.states(ids) == before
    assert len(warnings) == 1
    assert warnings[0].startswith("Slurm does not answer (slurm_load_jobs error: Unable to contact slurm controller")
    with ThreadPoolExecutor() as pool:
        asked_by_another = pool.submit(slurm_with().states, ids)
        time.sleep(1)
        real.start_controller(cluster)
        assert asked_by_another.result(timeout=60).keys() == set(ids)
    assert until(slurm, ids, all_over) == {ids[0]: JobState(is_over=True)}


def test_a_job_that_slurm_has_forgotten(slurm_with: Callable[..., SubmititSlurm], tmp_path: Path) -> None:
    slurm = slurm_with()
    assert slurm.states(["66000000"]) == {"66000000": FORGOTTEN}
    ids = slurm.submit(words.written(tmp_path, "sleep 0"), tmp_path / "engine")
    assert until(slurm, [*ids, "66000001"], all_over) == {ids[0]: JobState(is_over=True), "66000001": FORGOTTEN}


def in_place_of_sbatch(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """A program earlier on PATH, in which `$real` is Slurm's own."""
    folder.mkdir()
    own = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "sbatch").write_text(f"#!/bin/sh\nreal={own}\n{script}\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


LATE = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


@pytest.mark.parametrize(
    "takes_it",
    ['$real "$@" >/dev/null', '(sleep 3; $real "$@") >/dev/null 2>&1 &'],
    ids=["at once", "after it has said so"],
)
def test_sbatch_reports_a_failure_although_it_has_submitted(
    takes_it: str,
    slurm_with: Callable[..., SubmititSlurm],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings: list[str],
) -> None:
    script = f'if [ -e {tmp_path}/failed ]; then exec $real "$@"; fi\ntouch {tmp_path}/failed\n{takes_it}\n'
    in_place_of_sbatch(monkeypatch, tmp_path / "bin", f"{script}echo '{LATE}' >&2\nexit 1")
    slurm = slurm_with()
    batches = words.written(tmp_path, "sleep 1", "sleep 1")
    ids = slurm.submit(batches, tmp_path / "engine")
    assert warnings == [f"sbatch failed ({LATE}) although Slurm had taken the jobs: submitted again"]
    assert until(slurm, ids, all_over) == dict.fromkeys(ids, JobState(is_over=True))
    assert [len(words.log_of(batch)) for batch in batches] == [1, 1]
    before = str(int(ids[0].partition("_")[0]) - 1)
    assert set(states_of([before])) == {"CANCELLED"}


def test_sbatch_fails_each_time(
    slurm_with: Callable[..., SubmititSlurm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    in_place_of_sbatch(
        monkeypatch, tmp_path / "bin", '$real "$@" | tee -a $(dirname $0)/ids; echo it broke >&2; exit 1'
    )
    with pytest.raises(
        UserError, match=r"^Slurm took no job: it broke\n  remedy: once that is mended, the same command"
    ):
        slurm_with().submit(words.written(tmp_path, "sleep 1", "sleep 1"), tmp_path / "engine")
    taken = [line.split()[-1] for line in (tmp_path / "bin" / "ids").read_text().splitlines()]
    assert len(taken) == 2
    assert set(states_of(taken)) == {"CANCELLED"}
    assert list((tmp_path / "engine").iterdir()) == []


def test_who_interrupts_a_submission_leaves_no_jobs(
    slurm_with: Callable[..., SubmititSlurm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_place_of_sbatch(monkeypatch, tmp_path / "bin", '$real "$@" >$(dirname $0)/id; exec sleep 60')

    def interrupted(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # of a pipe that is read no more
    before = signal.signal(signal.SIGALRM, interrupted)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            slurm_with().submit(words.written(tmp_path, "sleep 60"), tmp_path / "engine")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert states_of([(tmp_path / "bin" / "id").read_text().split()[-1]]) == ["CANCELLED"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"partition": "nope"},
            "partition=nope\n  allowed: what this Slurm takes (debug, scavenge, short, spot); sbatch said: "
            "sbatch: error: invalid partition specified: nope "
            "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
            "  remedy: sinfo lists the partitions",
        ),
        (
            {"memory_gb": 900.0},
            "memory_gb=900.0\n  allowed: what this Slurm takes; sbatch said: "
            "sbatch: error: Memory specification can not be satisfied "
            "sbatch: error: Batch job submission failed: Requested node configuration is not available\n"
            "  remedy: sinfo --Format=partition,memory shows what nodes have, in MB",
        ),
        (
            {"gpus": 1},
            "gpus=1\n  allowed: what this Slurm takes; sbatch said: "
            "sbatch: error: Invalid generic resource (gres) specification\n"
            "  remedy: sinfo --Format=partition,gres shows which partition has GPUs",
        ),
        (
            {"constraint": "nope"},
            "constraint=nope\n  allowed: what this Slurm takes; sbatch said: "
            "sbatch: error: Batch job submission failed: Invalid feature specification\n"
            "  remedy: sinfo --Format=partition,features lists them",
        ),
        (
            {"extra": {"nodelist": "n99"}},
            "extra.nodelist=n99\n  allowed: what this Slurm takes; sbatch said: "
            "sbatch: error: Batch job submission failed: Invalid node name specified\n"
            "  remedy: sinfo --Node lists the nodes",
        ),
        (
            {"extra": {"nope_at_all": "1"}},
            "extra.nope_at_all=1\n  allowed: what this Slurm takes; sbatch said: "
            "sbatch: unrecognized option '--nope-at-all=1' Try \"sbatch --help\" for more information\n"
            "  remedy: sbatch --help lists the options",
        ),
    ],
    ids=["partition", "memory_gb", "gpus", "constraint", "nodelist", "extra"],
)
def test_what_slurm_does_not_take(
    settings: dict[str, object],
    message: str,
    slurm_with: Callable[..., SubmititSlurm],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError) as raised:
        slurm_with(**settings).submit(words.written(tmp_path, "sleep 0", "sleep 0"), tmp_path / "engine")
    assert str(raised.value) == f"configuration error: hydra.launcher.{message}"
    assert list((tmp_path / "engine").iterdir()) == []
    assert capfd.readouterr() == ("", "")  # one message, no second one beside it


def test_more_jobs_than_an_array_may_have(
    cluster: Path, slurm_with: Callable[..., SubmititSlurm], tmp_path: Path
) -> None:
    in_an_array = [tmp_path / "0.batch"] * 10_002
    with pytest.raises(UserError, match=r"remedy: fewer jobs with more runs each: hydra.launcher.jobs=100$") as raised:
        slurm_with(jobs=10_002).submit(in_an_array, tmp_path / "engine")
    assert "hydra.launcher.jobs=10002\n" in str(raised.value)


def test_a_job_submits_as_a_login_node_does(
    slurm_with: Callable[..., SubmititSlurm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_CPU", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.setenv(name, "7")
    slurm = slurm_with(
        memory_gb=None, python=f"env | grep -c '^SLURM_MEM_PER_CPU=' > {tmp_path}/found; {sys.executable}"
    )
    ids = slurm.submit(words.written(tmp_path, "sleep 0"), tmp_path / "engine")
    assert until(slurm, ids, all_over) == {ids[0]: JobState(is_over=True)}
    assert (tmp_path / "found").read_text() == "0\n"
    assert os.environ["SLURM_MEM_PER_CPU"] == "7"


def test_setup_and_extra_reach_the_job(slurm_with: Callable[..., SubmititSlurm], tmp_path: Path) -> None:
    slurm = slurm_with(
        setup=[f"squeue --noheader --jobs=$SLURM_JOB_ID --format='%k %N' > {tmp_path}/said"],
        extra={"comment": "ours", "nodelist": "n2", "requeue": "", "exclusive": False},
    )
    ids = slurm.submit(words.written(tmp_path, "sleep 0"), tmp_path / "engine")
    assert until(slurm, ids, all_over) == {ids[0]: JobState(is_over=True)}
    assert (tmp_path / "said").read_text() == "ours n2\n"


def test_a_study_gives_the_same_bits_as_here(cluster: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cnn_ablation", "-m", *TINY, "model.activation=relu,leaky", "replicates=2"]
    scores = []
    for launcher in ("basic", "submitit_local", "submitit_slurm"):
        folder = tmp_path / launcher
        where = [f"hydra/launcher={launcher}", f"store={folder}/store", f"hydra.sweep.dir={folder}", "threads=1"]
        given = ["hydra.launcher.memory_gb=1.5", "hydra.launcher.jobs=2"] if launcher == "submitit_slurm" else []
        subprocess.run([*command, *where, *given], check=True, capture_output=True, cwd=tmp_path)
        again = [*command, *where[:2], *where[3:], *given, f"hydra.sweep.dir={folder}/again"]
        subprocess.run(again, check=True, capture_output=True, cwd=tmp_path)
        assert pd.read_csv(folder / "again" / "runs.csv")["reused"].all()
        assert not list((folder / "again").glob("jobs/*/*.batch")), "no job only looks into the store"
        runs = pd.read_csv(folder / "runs.csv").sort_values(["arm", "seed"])
        scores.append(runs[["arm", "seed", "test_accuracy", "val_accuracy"]].to_numpy().tolist())
    assert len(scores[0]) == 4
    assert scores[1:] == [scores[0]] * 2
