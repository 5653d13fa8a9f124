from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, Answer

import cnn_ablation
from cnn_ablation.common import machine
from cnn_ablation.config import with_settings
from cnn_ablation.launch import sharing, team
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.children import exit_reason
from cnn_ablation.launch.crew import Crew
from cnn_ablation.launch.packing import ONE_AT_A_TIME, Packing, packing
from cnn_ablation.launch.planning import Planning
from cnn_ablation.runs.records import read_run, record_paths
from cnn_ablation.runs.run import run
from cnn_ablation.runs.task import Footprint
from cnn_ablation.study.designs import Arm, knob
from cnn_ablation.tasks.image_classification import data, devices
from cnn_ablation.tasks.image_classification import task as images_task
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data.resident import resident

TWO = Packing(processes=2, threads=1)


GIB = 2**30


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with so many cores, and memory for so many processes, of which so many are free."""

    def make(cores: int, in_memory: int, free: int | None = None) -> None:
        monkeypatch.setattr(images_task, "footprint", lambda config: Footprint(shared=0, own=GIB))
        monkeypatch.setattr(machine, "cores", lambda: cores)
        monkeypatch.setattr(machine, "memory", lambda: in_memory * GIB)
        monkeypatch.setattr(machine, "available_memory", lambda: (free or in_memory) * GIB)

    return make


@pytest.mark.parametrize(
    ("device", "cores_memory_runs", "expected"),
    [
        ("cpu", (2, 9, 6), Packing(2, 1)),
        ("cpu", (16, 99, 6), Packing(6, 1)),
        ("cpu", (64, 10, 50), Packing(10, 6)),
        ("cpu", (1, 9, 6), ONE_AT_A_TIME),
        ("cpu", (8, 1, 6), ONE_AT_A_TIME),
        ("cpu", (8, 9, 1), ONE_AT_A_TIME),
        ("cuda", (16, 99, 50), Packing(10, 1, by_memory=True)),
        ("cuda", (4, 99, 50), Packing(4, 1, by_memory=True)),
        ("cuda", (16, 99, 5), ONE_AT_A_TIME),
        ("mps", (16, 99, 50), ONE_AT_A_TIME),
    ],
)
def test_processes_and_threads_follow_from_cores_memory_and_jobs(
    tiny_config: Config,
    on_machine: Callable[..., None],
    device: str,
    cores_memory_runs: tuple[int, int, int],
    expected: Packing,
) -> None:
    """A job is a run on a CPU, and an arm with its five seeds on a GPU."""
    cores, in_memory, num_runs = cores_memory_runs
    on_machine(cores, in_memory)
    config = replace(tiny_config, device=device, replicates=5)
    assert packing(config, num_runs) == expected
    assert packing(replace(config, timing="isolated"), num_runs) == ONE_AT_A_TIME


@pytest.mark.parametrize("num_runs", [2, 3, 7, 16, 500])
@pytest.mark.parametrize("free", [1, 3, 64])
def test_threads_do_not_hang_on_how_many_runs_there_are_or_what_is_free(
    tiny_config: Config, on_machine: Callable[..., None], num_runs: int, free: int
) -> None:
    """An extended study trains as before: threads change results."""
    on_machine(16, 64, free)
    assert packing(tiny_config, num_runs) == Packing(min(16, num_runs, free), 1)
    assert packing(replace(tiny_config, threads=4), num_runs) == Packing(min(4, num_runs, free), 4)


def test_a_large_run_is_given_the_memory_it_needs(tiny_config: Config) -> None:
    small = images_task.footprint(tiny_config).own
    many_images = with_settings(tiny_config, [("data.train_images", 200_000), ("data.test_images", 50_000)])
    assert images_task.footprint(many_images).shared == 250_000 * 3 * 8 * 8
    assert images_task.footprint(many_images).own == small, "processes share them"
    assert images_task.footprint(replace(many_images, engine="reference")).own == small + 250_000 * 3 * 8 * 8
    wide = with_settings(tiny_config, [("model.filters", [512]), ("train.batch_size", 40)])
    assert images_task.footprint(wide).own - small > 4 * 512 * 6 * 6 * 80  # float32 maps of 512 filters, 6x6


def test_a_greedy_study_decides_once_how_its_runs_share_the_machine(
    tiny_config: Config, tmp_path: Path, on_machine: Callable[..., None]
) -> None:
    """Its first step has two runs, all of its steps five."""
    on_machine(16, 5)
    knobs = [knob("model.activation", ["tanh"]), knob("train.epochs", [1, 3, 4])]
    study = Planning("greedy", knobs, partial(_with, replace(tiny_config, replicates=1)))
    assert study.plan().num_runs == 2
    assert study.packing == Packing(5, 3)


def test_others_join_once_the_first_process_has_shown_what_it_takes(tiny_config: Config, tmp_path: Path) -> None:
    how = Packing(processes=2, threads=1, by_memory=True)
    given = iter(tasks(replace(tiny_config, reuse=False), tmp_path, 4))
    assert Crew("image_classification", how).train(given) == []
    found = [read_run(path) for path in record_paths(tmp_path)]
    assert [run.concurrent_runs for run in found] == [2, 2, 2, 2]
    by_process = Counter(run.provenance["process"] for run in found)
    assert len(by_process) == 2


def tasks(config: Config, folder: Path, count: int) -> list[Assignment]:
    return [Assignment(replace(config, seed=seed, replicates=1), folder / str(seed), folder) for seed in range(count)]


def test_runs_side_by_side_are_those_trained_one_after_the_other(tiny_config: Config, tmp_path: Path) -> None:
    config = replace(tiny_config, reuse=False)
    assert Crew("image_classification", TWO).train(iter(tasks(config, tmp_path / "packed", 3))) == []
    for task in tasks(config, tmp_path / "lone", 3):
        run(task.config, task.folder)
    packed, lone = ([read_run(path) for path in record_paths(tmp_path / name)] for name in ("packed", "lone"))
    assert [found.test_loss for found in packed] == [found.test_loss for found in lone]
    assert [found.concurrent_runs for found in packed] == [2, 2, 2]
    assert [found.concurrent_runs for found in lone] == [1, 1, 1]
    assert {found.provenance["torch_threads"] for found in packed} == {1}
    assert os.getpid() not in {found.provenance["process"] for found in packed}


def test_a_worker_that_dies_costs_one_run(tiny_config: Config, tmp_path: Path) -> None:
    endless = replace(tiny_config, seed=9, replicates=1, train=replace(tiny_config.train, epochs=10**6))

    def tasks_and_a_kill() -> Iterator[Assignment]:
        yield Assignment(endless, tmp_path / "9", tmp_path)
        yield from tasks(tiny_config, tmp_path, 3)
        deadline = time.monotonic() + 60
        while len(record_paths(tmp_path)) < 3 - TWO.processes and time.monotonic() < deadline:
            yield from ()
            time.sleep(0.01)
        first = min(multiprocessing.active_children(), key=lambda child: child._identity)  # numbers begin anew
        assert first.pid
        os.kill(first.pid, signal.SIGKILL)
        yield from tasks(tiny_config, tmp_path, 5)[3:]

    assert Crew("image_classification", TWO).train(tasks_and_a_kill()) == ["its process ended (signal SIGKILL)"]
    assert [path.parent.name for path in record_paths(tmp_path)] == ["0", "1", "2", "3", "4"]


def test_a_worker_that_dies_before_it_begins_costs_one_run(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is to be handed finds nobody at the other end; the study goes on."""
    send, killed = sharing.Shared.send, list[int]()

    def kill_the_first(shared: sharing.Shared, connection: Connection, process_id: int) -> None:
        if not killed:
            killed.append(process_id)
            os.kill(process_id, signal.SIGKILL)
            assert connection.poll(timeout=30), "its end is closed"
        send(shared, connection, process_id)

    monkeypatch.setattr(sharing.Shared, "send", kill_the_first)
    ended: list[Assignment] = []
    found = Crew("image_classification", Packing(1, 1)).train(tasks(tiny_config, tmp_path, 2), ended.append)
    assert found == ["its process ended (signal SIGKILL)"]
    assert [assignment.config.seed for assignment in ended] == [0, 1]
    assert [path.parent.name for path in record_paths(tmp_path)] == ["1"]


def test_a_worker_that_does_not_leave_is_not_waited_for(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that a lost GPU holds; here it is stopped."""
    monkeypatch.setattr(team, "_SECONDS_TO_LEAVE", 0.1)
    with Crew("image_classification", Packing(1, 1)) as crew:
        assert crew.train(tasks(tiny_config, tmp_path, 1)) == []
        [process] = multiprocessing.active_children()
        assert process.pid
        os.kill(process.pid, signal.SIGSTOP)
    process.join(timeout=30)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("expected", "code"),
    [("signal SIGKILL", -9), ("signal 37", -37), ("exit code 1", 1), ("exit code None", None)],
    ids=str,
)
def test_how_a_process_ended_is_said(expected: str, code: int | None) -> None:
    assert exit_reason(code) == expected


@pytest.mark.skipif(machine.may_have_gpu(), reason="it computes")
def test_a_study_whose_gpus_compute_nothing_comes_to_its_end(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two names of GPUs on a machine that has none, and real processes; `auto` does not come to the CPU there."""
    job = Assignment(replace(tiny_config, device="auto", replicates=1), tmp_path / "0", tmp_path)
    ended: list[Assignment] = []
    [raised] = Crew("image_classification", Packing(1, 1, devices=("0", "1"))).train([job], ended.append)
    assert re.fullmatch(r"GPU 1 computes nothing \(\w+: .+\)", raised)
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(r"GPU 0 computes nothing \(\w+: .+\): its arms are trained on the other GPUs", said)
    assert ended == [job]
    assert record_paths(tmp_path) == []


def test_a_crew_stays_for_the_next_jobs(tiny_config: Config, tmp_path: Path) -> None:
    """Also where one of them died meanwhile; outside the `with` nobody stays."""
    config = replace(tiny_config, reuse=False)

    def processes(crew: Crew, name: str) -> set[int]:
        assert crew.train(tasks(config, tmp_path / name, 4)) == []
        return {read_run(path).provenance["process"] for path in record_paths(tmp_path / name)}

    with Crew("image_classification", TWO) as crew:
        first = processes(crew, "first")
        assert processes(crew, "second") == first
        lost = first.pop()
        process = next(child for child in multiprocessing.active_children() if child.pid == lost)
        os.kill(lost, signal.SIGKILL)
        process.join()
        after = processes(crew, "third")
        assert first < after
        assert lost not in after
    assert multiprocessing.active_children() == []
    assert not processes(crew, "fourth") & after
    assert multiprocessing.active_children() == []


def test_workers_end_with_an_interrupted_parent(tiny_config: Config, tmp_path: Path) -> None:
    endless = replace(tiny_config, replicates=1, train=replace(tiny_config.train, epochs=10**6))

    def tasks_and_an_interrupt() -> Iterator[Assignment]:
        yield Assignment(endless, tmp_path / "0", tmp_path)
        yield Assignment(replace(endless, seed=1), tmp_path / "1", tmp_path)
        yield Assignment(replace(endless, seed=2), tmp_path / "2", tmp_path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Crew("image_classification", TWO).train(tasks_and_an_interrupt())
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("undrawn")
def test_a_packed_study_leaves_the_files_of_jobs(cli: Callable[..., Answer], tmp_path: Path) -> None:
    study = ("-m", *TINY, "model.activation=relu,leaky", "replicates=2", "hydra.sweep.dir=s", "timing=packed")
    answer = cli(*study)
    assert answer.code == 0, answer.err
    runs = [read_run(path) for path in record_paths(tmp_path / "s")]
    assert len(runs) == 4
    how = packing(cnn_ablation.compose(TINY), 4)
    assert {found.concurrent_runs for found in runs} == {how.processes}
    for number, found in enumerate(runs):
        folder = tmp_path / "s" / str(number)
        assert (folder / ".hydra" / "config.yaml").exists()
        assert f"{found.arm} seed {found.seed}: ok" in (folder / "cnn_ablation.log").read_text()
    again = cli(*study)
    assert again.code == 0, again.err
    assert all(read_run(path).reused for path in record_paths(tmp_path / "s"))


def test_a_lone_time_is_not_taken_from_a_packed_run(tiny_config: Config, tmp_path: Path) -> None:
    lone = replace(tiny_config, replicates=1, timing="isolated")
    [packed] = run(replace(lone, timing="packed"), tmp_path / "a", concurrent_jobs=lambda device: 2)
    [first] = run(lone, tmp_path / "b")
    [again] = run(lone, tmp_path / "c")
    [any_time] = run(replace(lone, timing="packed"), tmp_path / "d")
    assert (packed.reused, first.reused, again.reused, any_time.reused) == (False, False, True, True)
    assert first.test_loss == packed.test_loss


SCRIPT = """
import cnn_ablation
from cnn_ablation.report import page, study
study.picture_files = study.confusion_files = page.files = lambda *_, **__: {{}}  # nobody looks at them
print("loaded")
baseline = cnn_ablation.compose({overrides})
cnn_ablation.ablate(baseline, {{"model.activation": ["leaky"]}}, "s")
"""


def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(SCRIPT.format(overrides=[*TINY, "replicates=1"]))
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("loaded") == 1
    assert len(record_paths(tmp_path / "s")) == 2


def test_an_activation_of_ones_own_is_trained_where_it_is_known(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ACTIVATIONS, "mine", lambda nn: nn.Hardswish())
    study = Planning("one_at_a_time", [knob("model.activation", ["mine"])], partial(_with, tiny_config))
    assert study.packing is ONE_AT_A_TIME


def _with(config: Config, arm: Arm) -> Config:
    return with_settings(config, arm.settings)


@pytest.mark.parametrize("anonymous_files", [True, False])
def test_shared_arrays_are_the_receivers_own(anonymous_files: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not anonymous_files:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    value = {"large": np.arange(100_000), "name": "x", "empty": np.zeros((0, 3)), "strided": np.arange(10)[::2]}
    with closing(sharing.Shared(value)) as shared:
        received, other = (_handed_over(shared) for _ in range(2))
    received["large"] += 1
    assert (other["large"] == np.arange(100_000)).all()
    assert (received["large"] == np.arange(100_000) + 1).all()
    assert (value["large"] == np.arange(100_000)).all()
    assert received["strided"].tolist() == [0, 2, 4, 6, 8]
    assert (received["name"], received["empty"].shape) == ("x", (0, 3))


@pytest.mark.parametrize("value", [{}, {"empty": np.zeros(0)}], ids=["nothing", "an empty array"])
def test_nothing_can_be_shared(value: dict[str, Any]) -> None:
    with closing(sharing.Shared(value)) as shared:
        assert list(_handed_over(shared)) == list(value)


def _handed_over(shared: sharing.Shared) -> Any:
    """What a process gets, here in this one."""
    ours, theirs = multiprocessing.Pipe()
    sending = threading.Thread(target=shared.send, args=(ours, os.getpid()))
    sending.start()
    received = sharing.receive(theirs)
    sending.join()
    return received


def test_a_worker_copies_no_images_and_trains_the_same(tiny_config: Config) -> None:
    """What another process hands over lies in memory as the engine takes it."""
    ours = data.load(tiny_config.data)
    with closing(sharing.Shared(ours)) as shared:
        theirs = _handed_over(shared)
    assert theirs.digest == ours.digest
    parts = resident(theirs, torch.device("cpu"), torch.channels_last)
    assert parts.train.pixels.data_ptr() == theirs.train.images.__array_interface__["data"][0]
    assert torch.equal(parts.train.pixels, torch.from_numpy(ours.train.images))


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no anonymous files")
def test_arrays_are_in_memory_once_however_many_processes_map_them() -> None:
    """Of two mappings of one file, Linux names the same inode."""
    before = _inodes_mapped()
    with closing(sharing.Shared(np.arange(1_000_000))) as shared:
        kept = [_handed_over(shared) for _ in range(3)]
    mapped = _inodes_mapped() - before
    assert list(mapped.values()) == [len(kept)]


def _inodes_mapped() -> Counter[str]:
    """How often this process maps each anonymous file of ours."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return Counter(line.split()[4] for line in lines if "memfd:cnn_ablation" in line)


def test_without_a_driver_no_gpu_is_looked_for(tmp_path: Path) -> None:
    code = (
        "import sys; from cnn_ablation.tasks.image_classification import computing\n"
        "print(computing.device_type('auto'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    device, torch_loaded = done.stdout.split()
    assert device == devices.choose("auto").type
    assert torch_loaded == str(machine.may_have_gpu())
