"""Arms as threads of one process: on the CPU, by the steps that a GPU's graphs are compared with."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import TINY, Answer

from cnn_ablation.common import extensions, lanes, machine
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.config import ArmConfig, with_settings
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.crew import Crew
from cnn_ablation.launch.log_files import logging_to
from cnn_ablation.launch.packing import Packing
from cnn_ablation.runs.records import Run, read_run, record_paths
from cnn_ablation.runs.run import run
from cnn_ablation.tasks.function import task as function_task
from cnn_ablation.tasks.function.config import FunctionConfig
from cnn_ablation.tasks.image_classification import computing, engine
from cnn_ablation.tasks.image_classification import task as images_task
from cnn_ablation.tasks.image_classification.config import Config

ACTIVATIONS = ("relu", "leaky", "elu", "tanh")
SIDE_BY_SIDE = Packing(processes=4, threads=1)
OF_THE_PROCESS = ("train_seconds", "cpu_seconds", "total_seconds", "images_per_second", "peak_memory_mib", "neighbours")
OF_THE_WAY = ("provenance", "concurrent_runs", "train_started", "train_ended", "settings", "curves", "fingerprint")


@pytest.fixture
def by_threads(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """As on a GPU where it is asked for."""
    monkeypatch.setenv(computing.ARMS, computing.THREADS)
    monkeypatch.setattr(engine, "trains_together", lambda config, device: True)
    config = with_settings(tiny_config, [("model.dropout", 0.3), ("precision", "float32")])
    return replace(config, threads=1, checkpoint_seconds=1e-9, extensions=["threads_on_cpu"])


def arms(config: Config, folder: Path, names: Sequence[str]) -> list[Assignment]:
    """An assignment for each, with two seeds and activations in turn."""
    return [
        Assignment(
            replace(
                with_settings(config, [("model.activation", ACTIVATIONS[number]), ("train.epochs", 3)]),
                arm=ArmConfig(name=name),
            ),
            folder / str(number),
            folder,
        )
        for number, name in enumerate(names)
    ]


def left_in(folder: Path) -> list[Run]:
    return [read_run(path) for path in record_paths(folder)]


def bits(found: Run) -> dict[str, Any]:
    """What of a record must be the same however its arm was trained."""
    kept = {name: value for name, value in vars(found).items() if name not in (*OF_THE_PROCESS, *OF_THE_WAY)}
    curves = [{name: value for name, value in point.items() if name != "train_seconds"} for point in found.curves]
    return {**kept, "curves": curves}


def one_after_the_other(config: Config, folder: Path, assignments: Sequence[Assignment]) -> list[dict[str, Any]]:
    for each in assignments:
        run(replace(each.config, extensions=[], store=str(folder / "store")), folder / each.folder.name, threads=1)
    return [bits(found) for found in left_in(folder)]


def processes_of(runs: Sequence[Run]) -> dict[str, int]:
    return {found.arm: found.provenance["process"] for found in runs}


def test_arms_side_by_side_in_a_process_are_those_one_after_the_other(by_threads: Config, tmp_path: Path) -> None:
    given = arms(by_threads, tmp_path / "threads", ["meets a", "meets b", "meets c", "meets and stays"])
    assert Crew("image_classification", SIDE_BY_SIDE).train(iter(given)) == []
    found = left_in(tmp_path / "threads")
    assert len(set(processes_of(found).values())) == 1, "they met there"
    assert os.getpid() not in processes_of(found).values()
    assert [bits(each) for each in found] == one_after_the_other(by_threads, tmp_path / "alone", given)
    assert {each.concurrent_runs for each in found} == {8}
    assert all(math.isnan(each.cpu_seconds) and math.isnan(each.peak_memory_mib) for each in found)
    for each in given:
        log = (each.folder / "cnn_ablation.log").read_text()
        assert log.count(": ok") == log.count(f"{each.config.arm.name} seed") == 2


def test_others_join_once_the_first_has_shown_what_it_takes(by_threads: Config, tmp_path: Path) -> None:
    how = replace(SIDE_BY_SIDE, by_memory=True)
    assert Crew("image_classification", how).train(iter(arms(by_threads, tmp_path, ACTIVATIONS))) == []
    found = left_in(tmp_path)
    assert len(found) == 8
    assert len(set(processes_of(found).values())) == 1
    assert {each.concurrent_runs for each in found} == {8}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("fails", "CUDA out of memory; training meets fails in a process of its own"),
        ("kills", "its process ended (signal SIGKILL); training meets kills in a process of its own"),
    ],
)
def test_what_one_arm_does_to_its_process_costs_no_other(
    by_threads: Config, tmp_path: Path, fault: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["meets a", "meets b", "meets c", f"meets {fault}"]
    given = arms(by_threads, tmp_path / "threads", names)
    assert Crew("image_classification", SIDE_BY_SIDE).train(iter(given)) == []
    assert said in capsys.readouterr().err
    found = left_in(tmp_path / "threads")
    assert [each.status for each in found] == ["ok"] * 8
    assert [bits(each) for each in found] == one_after_the_other(by_threads, tmp_path / "alone", given)
    went_on = [each.arm for each in found if math.isnan(each.neighbours)]
    processes = processes_of(found)
    if fault == "fails":
        assert processes["meets a"] == processes["meets b"] == processes["meets c"] != processes["meets fails"]
        assert went_on == ["meets fails"] * 2, "from its checkpoint"
    else:
        assert len(went_on) == 8, "from their checkpoints"
        assert len(set(processes.values())) == 4, "each in a process of its own"


def test_an_error_on_the_way_to_training_costs_no_arm(
    by_threads: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a job has no other arms beside it, its error is the answer."""
    given = arms(by_threads, tmp_path, ["a", "b"])
    given[1] = replace(given[1], config=replace(given[1].config, extensions=["there_is_none"]))
    [raised] = Crew("image_classification", SIDE_BY_SIDE).train(iter(given))
    assert "there_is_none" in raised
    assert "training b in a process of its own" in capsys.readouterr().err
    assert {each.arm for each in left_in(tmp_path)} == {"a"}


def test_lanes_import_a_persons_modules_at_the_same_time() -> None:
    """Python's cache of where it has looked fails where two threads empty it."""

    def search(_: int) -> None:
        for _ in range(200):
            sys.path_importer_cache.update({f"/none/{number}.zip": None for number in range(20)})
            extensions.load(["threads_on_cpu"])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(search, range(4)))
    finally:
        sys.setswitchinterval(before)


def test_arms_that_differ_in_what_pytorch_switches_for_a_process_do_not_share_one(
    by_threads: Config, tmp_path: Path
) -> None:
    given = arms(by_threads, tmp_path, "abcd")
    given[-1] = replace(given[-1], config=replace(given[-1].config, precision="bfloat16"))
    assert Crew("image_classification", replace(SIDE_BY_SIDE, processes=2)).train(iter(given)) == []
    processes = processes_of(left_in(tmp_path))
    assert processes["a"] == processes["b"] == processes["c"] != processes["d"]


@pytest.mark.usefixtures("undrawn")
def test_a_whole_study_has_the_same_table(
    by_threads: Config, cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a study whose runs are trained one after the other."""
    monkeypatch.setattr(machine, "cores", lambda: 2)
    parts = ("model.activation=relu,leaky", "replicates=2", "precision=float32", "threads=1", "reuse=false")
    study = ("-m", *TINY, *parts, "extensions=[threads_on_cpu]")

    def table(name: str, timing: str) -> pd.DataFrame:
        answer = cli(*study, f"hydra.sweep.dir={name}", f"timing={timing}")
        assert answer.code == 0, answer.err
        return pd.read_csv(tmp_path / name / "ablation.csv")

    shared, alone = table("s", "packed"), table("alone", "isolated")
    [process] = set(processes_of(left_in(tmp_path / "s")).values())
    assert process != os.getpid()
    scores = ["arm", "test_accuracy_mean", "test_accuracy_std", "verdict"]
    assert shared[scores].equals(alone[scores])


def test_an_interrupt_ends_the_process_with_all_its_threads(by_threads: Config, tmp_path: Path) -> None:
    given = arms(by_threads, tmp_path, ACTIVATIONS)

    def given_and_an_interrupt() -> Iterator[Assignment]:
        yield from (replace(each, config=with_settings(each.config, [("train.epochs", 10**6)])) for each in given)
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("*/cnn_ablation.log")) and time.monotonic() < deadline:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Crew("image_classification", SIDE_BY_SIDE).train(given_and_an_interrupt())
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("asked", "pipes", "expected"),
    [
        ("", "none", None),
        ("processes", "none", None),
        ("threads", "none", "device=cpu precision=float32 threads=1"),
        ("threads", ".", None),
    ],
    ids=["not asked for", "processes", "threads", "NVIDIA's MPS runs"],
)
def test_threads_are_taken_only_where_they_are_asked_for(
    by_threads: Config, monkeypatch: pytest.MonkeyPatch, asked: str, pipes: str, expected: str | None
) -> None:
    monkeypatch.setenv(computing.ARMS, asked)
    monkeypatch.setattr(computing, "_PIPES_OF_MPS", pipes)
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    assert images_task.common_process(by_threads) == expected


def test_an_arm_whose_seeds_train_one_by_one_has_a_process_of_its_own(
    by_threads: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv(computing.ARMS, computing.THREADS)
    assert images_task.common_process(by_threads) is None, "as on a CPU"
    assert function_task.common_process(FunctionConfig()) is None


def test_another_way_of_sharing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(computing.ARMS, "fibres")
    with pytest.raises(ConfigError) as refused:
        computing.arms_are_threads()
    assert "CNN_ABLATION_ARMS=fibres" in str(refused.value)
    assert "processes, threads" in str(refused.value)


def test_lanes_speak_and_log_each_for_itself(tmp_path: Path) -> None:
    """Beside a thread that is none: nobody listens to it."""
    pipes = [multiprocessing.Pipe() for _ in range(3)]
    logger = logging.getLogger("of lanes")

    def train(connection: Any) -> None:
        number = connection.recv()
        with logging_to(tmp_path / f"{number}.log"):
            lanes.send((number,))
            logger.info("lane %d", number)
            lanes.send((lanes.in_one(), math.isnan(machine.cpu_seconds())))
            connection.recv()  # nobody leaves before all have logged

    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.INFO)
    try:
        answers = _answers(pipes, train)
    finally:
        logging.getLogger().setLevel(before)
    assert answers == [[(number,), (True, True)] for number in range(3)]
    for number in range(3):
        assert (tmp_path / f"{number}.log").read_text().split(" - ")[1:] == [f"lane {number}\n"]
    lanes.send(("unheard",))
    assert not lanes.in_one()
    assert math.isfinite(machine.cpu_seconds())


def _answers(pipes: Sequence[Any], train: Callable[[Any], None]) -> list[list[Any]]:
    """What lanes say on their ends of pipes, told their numbers."""
    for number, (ours, _) in enumerate(pipes):
        ours.send(number)
    serving = lanes.threading.Thread(target=lanes.serve, args=([theirs for _, theirs in pipes], train))
    serving.start()
    answers = [[ours.recv(), ours.recv()] for ours, _ in pipes]
    for ours, _ in pipes:
        ours.send(None)
    serving.join(10)
    for ours, theirs in pipes:
        with closing(ours), closing(theirs):
            pass
    return answers
