"""`device=cuda:N`: one GPU of those that are visible, from the command line to the record. No GPU is needed here."""

from __future__ import annotations

import multiprocessing
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Answer

from cnn_ablation.common import machine
from cnn_ablation.common.device_names import kind_of, place_of
from cnn_ablation.common.errors import ConfigError, RecordError
from cnn_ablation.common.machine import Allocation, seen_as
from cnn_ablation.config import StudyConfig, value_problems, with_settings
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.crew import Crew
from cnn_ablation.launch.packing import ONE_AT_A_TIME, Packing, packing, packing_of_job
from cnn_ablation.launch.planning import Planning
from cnn_ablation.launch.team import Team, Worker
from cnn_ablation.launch.worker import as_seen, serve
from cnn_ablation.runs import provenance
from cnn_ablation.runs.run import run
from cnn_ablation.runs.task import check_gpu_is_there
from cnn_ablation.study.checks import check_gpu
from cnn_ablation.study.checks.knobs import read_knobs
from cnn_ablation.study.designs import knob
from cnn_ablation.study.plans import refuse_other_study, write_plan
from cnn_ablation.tasks.function import task as function_task
from cnn_ablation.tasks.function.config import Function, FunctionConfig
from cnn_ablation.tasks.image_classification import devices
from cnn_ablation.tasks.image_classification import task as images_task
from cnn_ablation.tasks.image_classification.computing import Computing
from cnn_ablation.tasks.image_classification.config import Config

Cli = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _all_gpus_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def with_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """A machine with a driver, so many cores, and as many GPUs as its folder of devices shows; none by default."""

    def make(count: int = 0, *, cores: int = 8) -> None:
        for place in range(count):
            (tmp_path / f"nvidia{place}").touch()
        monkeypatch.setattr(machine, "_DEVICES", tmp_path)
        monkeypatch.setattr(machine, "_has_driver", lambda: True)
        monkeypatch.setattr(machine, "_cores_here", lambda: cores)

    return make


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "place", "name"),
    [
        ("cuda", None, "cuda"),
        ("cuda", 0, "cuda:0"),
        ("cuda", 12, "cuda:12"),
        ("cpu", None, "cpu"),
        ("cuda:", None, "cuda:"),
        ("cuda:01", None, "cuda:01"),
        ("cuda:-1", None, "cuda:-1"),
        ("cuda:x", None, "cuda:x"),
        ("cuda:1 ", None, "cuda:1 "),
        ("cuda:\u0661", None, "cuda:\u0661"),
        ("cuda:1:2", None, "cuda:1:2"),
    ],
)
def test_a_name_is_a_kind_or_one_of_a_kind_by_its_place(kind: str, place: int | None, name: str) -> None:
    assert (kind_of(name), place_of(name)) == (kind, place)
    if place is not None:
        assert torch.device(name) == torch.device(kind, place), "as PyTorch reads it"


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "mps", "cuda:0", "cuda:7"])
def test_devices_that_a_configuration_takes(tiny_config: Config, name: str) -> None:
    assert value_problems(replace(tiny_config, device=name)) == []


ALLOWED = "  allowed: auto, cpu, cuda, mps, cuda:N"
FIRST = "  remedy: device=cuda:0 is the first of several"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("cuda:x", [ALLOWED, "  did you mean: device=cuda", FIRST]),
        ("cuda:-1", [ALLOWED, "  did you mean: device=cuda", FIRST]),
        ("cuda:01", [ALLOWED, "  did you mean: device=cuda", FIRST]),
        ("gpu:1", [ALLOWED, "  did you mean: device=cuda", FIRST]),
        ("gpu", [ALLOWED, "  did you mean: device=cuda"]),
        ("cup", [ALLOWED, "  did you mean: device=cpu"]),
        ("cpu:0", [ALLOWED, "  did you mean: device=cpu", FIRST]),
        ("rocm", [ALLOWED]),
    ],
)
def test_nonsense_is_refused_with_what_may_stand_there(cli: Cli, name: str, lines: list[str]) -> None:
    answer = cli(f"device={name}")
    assert (answer.code, answer.err.splitlines()) == (2, [f"configuration error: device={name}", *lines])


@pytest.mark.parametrize(
    ("count", "lines"),
    [
        (1, ["auto, cpu, cuda, cuda:0 (this process sees 1 GPU)", "device=cuda:0, or device=cuda"]),
        (2, ["auto, cpu, cuda, cuda:0, cuda:1 (this process sees 2 GPUs)", "device=cuda:0, or device=cuda"]),
        (3, ["auto, cpu, cuda, cuda:0 to cuda:2 (this process sees 3 GPUs)", "device=cuda:0, or device=cuda"]),
    ],
)
def test_a_gpu_beyond_those_that_are_there_is_refused(count: int, lines: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        check_gpu_is_there("cuda:3", count)
    allowed, remedy = lines
    assert str(refused.value).splitlines() == [
        "configuration error: device=cuda:3", f"  allowed: {allowed}", f"  remedy: {remedy}",
    ]  # fmt: skip
    for fine, there in (("cuda:3", 4), ("cuda:3", None), ("cuda", count), ("cpu", 0)):
        check_gpu_is_there(fine, there)


TASKS: dict[str, Any] = {"images": images_task, "function": function_task}


@pytest.fixture
def config_of(tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StudyConfig]:
    """A configuration of either task on a device; the function returns the device that it is told."""
    (tmp_path / "told.py").write_text(
        "import os\n"
        "PLACES = {'cpu': -1, 'cuda': 0, 'cuda:1': 1}\n"
        "def train(*, seed, run):\n"
        "    visible = os.environ.get('CUDA_VISIBLE_DEVICES', '-1')\n"
        "    return {'loss': float(seed), 'place': PLACES[run.device], 'visible': float(visible)}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "told", raising=False)

    def make(task: str, device: str, **settings: Any) -> StudyConfig:
        if task == "images":
            return replace(tiny_config, device=device, **settings)
        settings = {"task": Function(target="told.train"), "store": str(tmp_path / "store")} | settings
        return function_task.complete(FunctionConfig(device=device, **settings))

    return make


@pytest.mark.parametrize("task", TASKS)
def test_a_plan_counts_the_gpus_that_this_machine_shows(
    with_gpus: Callable[..., None], config_of: Callable[..., StudyConfig], monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Before torch is asked; those that `CUDA_VISIBLE_DEVICES` names come first."""
    with_gpus(2)
    with pytest.raises(ConfigError, match=r"cuda:0, cuda:1 \(this process sees 2 GPUs\)"):
        TASKS[task].resolve(config_of(task, "cuda:2"), planned=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(ConfigError, match=r"cuda:0 \(this process sees 1 GPU\)"):
        TASKS[task].resolve(config_of(task, "cuda:1"), planned=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("task", TASKS)
def test_where_there_is_no_gpu_none_can_be_chosen(config_of: Callable[..., StudyConfig], task: str) -> None:
    with pytest.raises(ConfigError) as refused:
        TASKS[task].resolve(config_of(task, "cuda:1"), planned=True)
    assert str(refused.value).splitlines() == [
        "configuration error: device=cuda:1", "  allowed: auto, cpu (on this machine)", "  remedy: device=auto",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="device=cuda:1"):
        devices.choose("cuda:1")


# -- elsewhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("elsewhere", [True, False], ids=["planned", "in the job"])
def test_in_a_job_a_place_counts_within_what_it_was_given(
    with_gpus: Callable[..., None], config_of: Callable[..., StudyConfig], task: str, elsewhere: bool
) -> None:
    with_gpus(8)
    with seen_as(Allocation(4, gpus=1), elsewhere=elsewhere), pytest.raises(ConfigError) as refused:
        TASKS[task].resolve(config_of(task, "cuda:1"), planned=True)
    assert str(refused.value).splitlines() == [
        "configuration error: device=cuda:1",
        "  allowed: auto, cpu, cuda, cuda:0 (each job has 1 GPU)",
        "  remedy: hydra.launcher.gpus=2, or device=cuda",
    ]


@pytest.mark.parametrize("task", TASKS)
def test_a_plan_for_jobs_with_several_gpus_takes_one_of_them(config_of: Callable[..., StudyConfig], task: str) -> None:
    with seen_as(Allocation(4, gpus=2), elsewhere=True):
        how = TASKS[task].resolve(config_of(task, "cuda:1"), planned=True)
        assert TASKS[task].device(config_of(task, "cuda:1")) == "cuda"
    assert (how.device, how.threads) == ("cuda:1", 0)


@pytest.mark.parametrize("task", TASKS)
def test_a_job_without_any_gpu_refuses_one_by_its_place_too(config_of: Callable[..., StudyConfig], task: str) -> None:
    with seen_as(Allocation(4, gpus=0), elsewhere=True), pytest.raises(ConfigError) as refused:
        TASKS[task].resolve(config_of(task, "cuda:0"), planned=True)
    assert str(refused.value).splitlines() == [
        "configuration error: device=cuda:0",
        "  allowed: auto, cpu (its jobs ask for no GPU)",
        "  remedy: hydra.launcher.gpus=1, or device=auto",
    ]


# -- identity ---------------------------------------------------------------------------------------------------------


def test_which_of_equal_gpus_computes_is_no_part_of_a_run(tiny_config: Config) -> None:
    """The kind of GPU is: its name stands for what it computes with."""

    def fingerprint(**changes: Any) -> str:
        config = replace(tiny_config, device=changes.get("device", "cuda"))
        how = replace(Computing("cuda", 0, "bfloat16", "AVX512", "compiled", gpu="NVIDIA H100 80GB HBM3"), **changes)
        return provenance.fingerprint(images_task.identity(config, how, seed=0))

    same = {fingerprint(device=name) for name in ("cuda", "cuda:0", "cuda:1")}
    assert len(same) == 1
    assert fingerprint(gpu="NVIDIA H200") not in same
    assert fingerprint(device="cpu", gpu=None) not in same


def test_functions_runs_are_the_same_on_either_gpu(config_of: Callable[..., StudyConfig]) -> None:
    identities = set()
    for name in ("cuda", "cuda:0", "cuda:1"):
        config = config_of("function", name)
        how = function_task.FunctionHow(name, 0, "AVX2")
        identities.add(provenance.fingerprint(function_task.identity(config, how, seed=3)))
    assert len(identities) == 1


def test_a_studys_folder_goes_on_with_another_gpu(tiny_config: Config, tmp_path: Path) -> None:
    def plan(device: str) -> Any:
        config = replace(tiny_config, device=device)
        levels = knob("model.activation", ["tanh"])
        return Planning("one_at_a_time", [levels], lambda arm: with_settings(config, arm.settings)).plan()

    write_plan(tmp_path, plan("cuda:0"))
    for name in ("cuda:1", "cuda"):
        refuse_other_study(tmp_path, plan(name))
    with pytest.raises(RecordError, match="device: cuda there, cpu here"):
        refuse_other_study(tmp_path, plan("cpu"))


def planned(baseline: StudyConfig, knobs: dict[str, Any]) -> Planning:
    """For jobs with two GPUs each."""
    with seen_as(Allocation(4, gpus=2), elsewhere=True):
        planning = Planning(
            "one_at_a_time", read_knobs(knobs), lambda arm: with_settings(baseline, arm.settings), here=False
        )
        planning.check_devices()
    return planning


def test_which_gpu_computes_is_no_level(tiny_config: Config) -> None:
    """Two of them are one arm, as `3` and `[3,3,3]` are."""
    on_either = planned(tiny_config, {"device": ["cuda:0", "cuda:1"]})
    assert [arm.name for arm in on_either.configs] == ["baseline", "device=cuda:0"]
    with pytest.raises(ConfigError, match="device=cuda:1\n  allowed: a level besides the baseline's value"):
        planned(replace(tiny_config, device="cuda:0"), {"device": ["cuda:1"]})


def test_all_arms_of_a_study_have_the_same_gpus(tiny_config: Config, with_gpus: Callable[..., None]) -> None:
    with_gpus()
    of = {name: replace(tiny_config, device=name) for name in ("cpu", "cuda", "cuda:0", "cuda:1")}
    with pytest.raises(ConfigError) as refused:
        check_gpu(of["cuda:1"], of["cuda:0"], arm="both=2")
    assert str(refused.value).splitlines() == [
        "configuration error (in arm both=2): device=cuda:1",
        "  allowed: cuda:0, as of the baseline: all arms have the same GPUs",
        "  remedy: a study for each GPU; or CUDA_VISIBLE_DEVICES=0,1 with device=cuda, which shares the arms out",
    ]
    with pytest.raises(ConfigError):
        check_gpu(of["cuda:1"], of["cuda"], arm=None)
    for fine, baseline in [("cuda:1", "cuda:1"), ("cuda:1", "cpu"), ("cpu", "cuda:1"), ("cuda", "cuda")]:
        check_gpu(of[fine], of[baseline], arm=None)


def test_a_study_on_two_gpus_by_their_places_is_refused_before_anything_trains(tiny_config: Config) -> None:
    moves_both = {"both": [{"device": "cuda:1", "model.dropout": 0.3}]}
    with pytest.raises(ConfigError, match=r"\(in arm both=.*\n.*all arms have the same GPUs"):
        planned(replace(tiny_config, device="cuda:0"), moves_both)
    assert len(planned(replace(tiny_config, device="cpu"), moves_both).configs) == 2


# -- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        (Packing(8, 1, by_memory=True, devices=("1",)), (None, None, "cuda:1", 10)),
        (Packing(8, 1, by_memory=True, devices=("5",)), ("3,5", None, "cuda:1", 10)),
        (Packing(8, 1, by_memory=True, devices=("3",)), ("3,5", None, "cuda:0", 10)),
        (Packing(3, 2, by_memory=True, devices=("GPU-8932",)), ("GPU-8932", None, "cuda:0", 3)),
        (Packing(8, 1, by_memory=True, devices=("5",)), ("3,5,6", 2, "cuda:1", 10)),
        (Packing(8, 1, by_memory=True, devices=("1",)), (None, 2, "cuda:1", 10)),
        (Packing(1, 8, devices=("5",)), ("3,5", None, "cuda:1", 1)),
        (Packing(4, 1, by_memory=True, devices=("3", "5")), ("3,5", None, "cuda", 10)),
    ],
)
def test_the_gpu_that_is_asked_for_has_processes_alone(
    config_of: Callable[..., StudyConfig],
    with_gpus: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    expected: Packing,
    case: tuple[str | None, int | None, str, int],
) -> None:
    """What is visible, how many GPUs a job asked for, which one, and how many arms there are."""
    visible, gpus, device, num_jobs = case
    with_gpus()
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    config = config_of("images", device, replicates=5)
    with seen_as(Allocation(8, gpus=gpus)):
        assert packing_of_job(config, 5 * num_jobs, num_jobs, [config]) == expected
        here = packing(config, 5 * num_jobs)
    assert here == (expected if expected.workers > 1 else ONE_AT_A_TIME)


@pytest.mark.parametrize(
    ("expected", "flips", "num_arms"),
    [
        (ONE_AT_A_TIME, False, 1),
        (Packing(1, 4, devices=("0", "1")), False, 2),
        (Packing(3, 1, by_memory=True, devices=("0", "1")), True, 1),
        (Packing(4, 1, by_memory=True, devices=("0", "1")), True, 2),
    ],
)
def test_seeds_that_train_one_by_one_are_shared_out_among_gpus(
    tiny_config: Config, with_gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
    *, expected: Packing, flips: bool, num_arms: int,
) -> None:  # fmt: skip
    """Five seeds of augmented images are five jobs, not one."""
    with_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    train = replace(tiny_config.train, horizontal_flip=flips)
    config = replace(tiny_config, device="cuda", replicates=5, train=train)
    assert packing(config, 5 * num_arms, [config] * num_arms) == expected


@pytest.mark.parametrize(
    ("expected", "how"),
    [
        ("up to 3 arms side by side on GPU 5, as the GPU's memory allows", Packing(3, 2, True, ("5",))),
        ("one arm at a time on GPU 5", Packing(1, 2, devices=("5",))),
    ],
    ids=str,
)
def test_a_study_says_which_gpu_it_has(expected: str, how: Packing) -> None:
    assert str(how) == expected


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "auto"])
def test_a_worker_that_sees_one_gpu_calls_it_the_first(tiny_config: Config, device: str, tmp_path: Path) -> None:
    """Also `auto`, for which the study took a GPU: a process whose GPU is lost must not train on the CPU."""
    job = Assignment(replace(tiny_config, device=device), tmp_path, tmp_path)
    assert as_seen(job, Packing(2, 1, devices=("5",))).config.device == "cuda"
    assert as_seen(job, Packing(2, 1)).config.device == device
    on_cpu = replace(job, config=replace(tiny_config, device="cpu"))
    assert as_seen(on_cpu, Packing(2, 1, devices=("5",))).config.device == "cpu"


@pytest.mark.skipif(machine.may_have_gpu(), reason="its names of GPUs are not there")
def test_functions_are_told_the_gpu_as_their_process_sees_it(
    config_of: Callable[..., StudyConfig], tmp_path: Path, with_gpus: Callable[..., None]
) -> None:
    """Of a function nobody knows whether it uses the GPU. Workers get told of one by their job, as there is none."""
    with_gpus()
    config = config_of("function", "cuda:1", replicates=1)
    alone = run(replace(config, seed=9), tmp_path / "alone")[0]
    assert (alone.metrics["place"], alone.device, alone.error) == (1, "cuda", "")
    jobs = [Assignment(replace(config, seed=n), tmp_path / str(n), tmp_path) for n in range(2)]
    with seen_as(Allocation(2, gpus=2)):
        raised = Crew("function", Packing(1, 1, devices=("7",))).train(jobs)
    assert all("device=cuda\n" in each and "the job asked for 2" in each for each in raised), raised


def test_a_gpu_is_current_only_where_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(device) or devices.nullcontext())
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        with devices.on(torch.device(name)):
            pass
    assert entered == [torch.device("cuda:1")]


def test_runs_are_computed_on_the_gpu_that_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own way to make one current is watched, as there may be none."""
    entered = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(str(device)) or devices.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("cuda:1", "cuda"):
        with images_task.computing_as(Computing(name, 0, "float32", "AVX2", "PyTorch's")):
            pass
        with function_task.computing_as(function_task.FunctionHow(name, 0, "AVX2")):
            pass
    assert entered == ["cuda:1", "cuda:1"]


# -- a GPU that is lost -----------------------------------------------------------------------------------------------


def test_a_device_computes_or_does_not() -> None:
    assert devices.trouble(torch.device("cpu")) == ""
    if not torch.cuda.is_available():
        assert re.fullmatch(r"\w+: .+", devices.trouble(torch.device("cuda:1"))), "one line"


@pytest.mark.parametrize(
    ("expected", "modes", "uuid"),
    [
        (False, "", "a"),
        (False, "GPU-a, Default\nGPU-b, Exclusive_Process\n", "a"),
        (True, "GPU-a, Default\nGPU-b, Exclusive_Process\n", "b"),
        (True, "GPU-a, Default\nGPU-b, Prohibited\n", "GPU-b"),
        (True, "GPU-a, Default\nGPU-b, Exclusive_Process\n", "MIG-c"),
        (True, "GPU-a, Default\nGPU-b, Exclusive_Process\n", ""),
        (False, "GPU-a, Default\nGPU-b, Default\n", ""),
    ],
)
def test_one_process_at_a_time_where_that_gpus_administrator_wants_it(expected: bool, modes: str, uuid: str) -> None:
    assert devices.takes_one_process(modes, uuid) is expected


class Lost:
    """A task whose GPU goes on for so many answers, as `Task.trouble` gives them."""

    def __init__(self, answers: list[str]):
        self.answers = answers

    def trouble(self, config: object) -> str:
        return self.answers.pop(0)


@pytest.fixture
def job(config_of: Callable[..., StudyConfig], tmp_path: Path) -> Assignment:
    return Assignment(config_of("function", "cpu", replicates=1), tmp_path / "0", tmp_path)


OF_TWO = Packing(1, 1, devices=("0", "1"))
LOST = "AcceleratorError: CUDA error"


@pytest.mark.parametrize(
    ("expected", "answers", "how", "num_jobs"),
    [
        ([("done", [], ""), ("done", [], "")], ["", "", ""], OF_TWO, 2),
        ([("done", [], ""), ("done", [], LOST)], ["", "", LOST], OF_TWO, 3),
        ([("not begun", LOST)], [LOST], OF_TWO, 2),
        ([("done", [], LOST)], [LOST], Packing(2, 1), 2),
        ([("done", [], LOST)], [LOST], Packing(2, 1, devices=("5",)), 2),
    ],
    ids=["well", "lost while it trains", "lost before", "one for all", "the only one"],
)
def test_a_worker_leaves_when_its_gpu_does_nothing_more_for_it(
    job: Assignment, expected: list[Any], answers: list[str], how: Packing, num_jobs: int
) -> None:
    ours, theirs = multiprocessing.Pipe()
    task: Any = Lost(list(answers))
    serving = threading.Thread(target=serve, args=(theirs, task, how, lambda decided: 1))
    serving.start()
    for _ in range(num_jobs):
        ours.send(job)
    found = [ours.recv() for _ in expected]
    ours.close()
    serving.join(timeout=10)
    assert not serving.is_alive()
    assert found == expected
    assert task.answers == []
    theirs.close()


class Ended(multiprocessing.Process):
    """A process that has left already."""

    def join(self, timeout: float | None = None) -> None:
        pass

    def is_alive(self) -> bool:
        return False


@pytest.fixture
def team() -> Team:
    return Team("function", OF_TWO)


def hired(team: Team, group: int, job: Assignment | None) -> tuple[Worker, Connection]:
    """A worker of one group, busy with a job, and the end of its connection to speak with."""
    ours, theirs = multiprocessing.Pipe()
    worker = Worker(Ended(), ours, team.groups[group], job)
    team.workers.append(worker)
    return worker, theirs


def test_jobs_of_a_lost_gpu_go_to_the_others(team: Team, job: Assignment, capsys: pytest.CaptureFixture[str]) -> None:
    ended: list[Assignment] = []
    team.on_end = ended.append
    _, lost = hired(team, 1, job)
    lost.send(("not begun", LOST))
    team.listen(timeout=10)
    assert list(team.waiting) == [job], "it comes first again"
    assert (team.workers, team.raised, ended) == ([], [], [])
    assert [group.is_open for group in team.groups] == [True, False]
    assert (
        "GPU 1 computes nothing (AcceleratorError: CUDA error): its arms are trained on the other GPUs"
        in capsys.readouterr().err
    )
    lost.close()


def test_a_job_that_no_gpu_can_begin_has_ended(team: Team, job: Assignment) -> None:
    """The last GPU stays open: that a run failed is a row, and the study comes to its end."""
    ended: list[Assignment] = []
    team.on_end = ended.append
    for group in (0, 1, 1):
        _, lost = hired(team, group, job)
        lost.send(("not begun", LOST))
        team.listen(timeout=10)
        lost.close()
    assert list(team.waiting) == [job]
    assert team.raised == ["GPU 1 computes nothing (AcceleratorError: CUDA error)"] * 2
    assert ended == [job] * 2
    assert [group.is_open for group in team.groups] == [False, True]


def test_a_worker_that_has_lost_its_gpu_is_replaced(team: Team, job: Assignment) -> None:
    ended: list[Assignment] = []
    team.on_end = ended.append
    _, lost = hired(team, 0, job)
    lost.send(("done", ["CUDA error"], LOST))
    team.listen(timeout=10)
    assert (team.workers, ended, team.raised) == ([], [job], ["CUDA error"])
    assert [group.is_open for group in team.groups] == [True, True], "whether the GPU is lost a new process tells"
    worker, well = hired(team, 0, job)
    well.send(("done", [], ""))
    team.listen(timeout=10)
    assert (team.workers, worker.assignment, ended) == ([worker], None, [job, job])
    lost.close()
    well.close()


def test_a_gpu_that_takes_no_further_process_keeps_those_it_has(
    team: Team, job: Assignment, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its memory may be full: it is not lost before one of them says so, or none is left."""
    ended: list[Assignment] = []
    team.on_end = ended.append
    group = team.groups[1]
    group.limit = 3
    working, well = hired(team, 1, job)
    _, refused = hired(team, 1, job)
    refused.send(("not begun", "AcceleratorError: out of memory"))
    team.listen(timeout=10)
    assert (group.limit, list(team.waiting), team.workers) == (1, [job], [working])
    assert (ended, team.raised, capsys.readouterr().err) == ([], [], "")
    well.send(("done", ["CUDA error"], LOST))
    team.listen(timeout=10)
    team.waiting.clear()
    _, last = hired(team, 1, job)
    last.send(("not begun", LOST))
    team.listen(timeout=10)
    assert [each.is_open for each in team.groups] == [True, False]
    assert list(team.waiting) == [job]
    for connection in (well, refused, last):
        connection.close()


@pytest.mark.parametrize(
    ("expected", "busy", "idle"),
    [(0, [], [0, 1]), (1, [0], [0, 1]), (0, [1], [0, 1]), (1, [0, 0, 1], [0, 1]), (0, [0], [0])],
    ids=["the first", "the second", "the first again", "fewer jobs", "no other"],
)
def test_a_job_goes_to_the_gpu_with_least_to_do(
    team: Team, job: Assignment, expected: int, busy: list[int], idle: list[int]
) -> None:
    """Processes stay for the next jobs: the last ones of a study are not to share a GPU while another has none."""
    theirs = [hired(team, group, job)[1] for group in busy]
    takers = {group: hired(team, group, None) for group in idle}
    assert team.takes(job)
    assert {group: worker.assignment for group, (worker, _) in takers.items() if worker.assignment} == {expected: job}
    assert takers[expected][1].recv() == job
    for connection in [*theirs, *(connection for _, connection in takers.values())]:
        connection.close()


def test_a_closed_group_is_not_opened_by_what_its_last_process_says_of_memory(team: Team, job: Assignment) -> None:
    worker, theirs = hired(team, 1, job)
    worker.group.limit = 0
    theirs.send(("fit", 3))
    team.listen(timeout=10)
    assert not worker.group.is_open
    theirs.close()


def test_functions_are_asked_through_pytorch_alone(config_of: Callable[..., StudyConfig]) -> None:
    for name in ("cpu", "cuda", "cuda:1"):
        assert function_task.trouble(config_of("function", name)) == ""
        assert function_task.room_for_more(function_task.FunctionHow(name, 0, "")) == 0


def test_images_on_a_processor_are_always_computed(tiny_config: Config) -> None:
    assert images_task.trouble(tiny_config) == ""
    if not torch.cuda.is_available():
        assert images_task.trouble(replace(tiny_config, device="cuda:1"))
