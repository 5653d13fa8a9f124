"""What a job is given, and plans for machines that are not this one: cores, memory, GPUs, threads, devices."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cnn_ablation.common import machine
from cnn_ablation.common.allocation import of_slurm, visible_gpus
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.common.machine import Allocation, seen_as
from cnn_ablation.config import StudyConfig, with_settings
from cnn_ablation.launch import children
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.crew import Crew
from cnn_ablation.launch.packing import ONE_AT_A_TIME, Packing, packing, packing_of_job
from cnn_ablation.launch.planning import Planning
from cnn_ablation.launch.team import Team, Worker
from cnn_ablation.runs.records import read_run, record_paths
from cnn_ablation.runs.run import run
from cnn_ablation.runs.task import Footprint
from cnn_ablation.study.designs import Knob, knob
from cnn_ablation.tasks.function import task as function_task
from cnn_ablation.tasks.function.config import Function, FunctionConfig
from cnn_ablation.tasks.image_classification import computing
from cnn_ablation.tasks.image_classification import task as images_task
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data import image_folder

GIB = 2**30


@pytest.fixture(autouse=True)
def _outside_of_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with so many cores, GiB of memory, and a GPU or not."""

    def make(cores: int, memory: int, *, gpu: bool = False) -> None:
        monkeypatch.setattr(machine, "_cores_here", lambda: cores)
        monkeypatch.setattr(machine, "_memory_here", lambda: memory * GIB)
        monkeypatch.setattr(machine, "_meminfo", lambda name: memory * GIB)
        monkeypatch.setattr(machine, "_container_limits", lambda: iter(()))
        monkeypatch.setattr(machine, "_has_driver", lambda: gpu)

    return make


@pytest.mark.parametrize(
    ("expected", "environment"),
    [
        ((None, None), {"SLURM_CPUS_PER_TASK": "4", "SLURM_MEM_PER_NODE": "1000"}),
        ((4, 1000 * 2**20), {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "SLURM_MEM_PER_NODE": "1000"}),
        ((4, None), {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "8"}),
        ((8, 8 * 512 * 2**20), {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "8", "SLURM_MEM_PER_CPU": "512"}),
        ((8, None), {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "8", "SLURM_MEM_PER_NODE": "0"}),
        ((None, None), {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "many"}),
    ],
    ids=["in no job", "of a task", "of a task on a node", "by core", "all memory", "no number"],
)
def test_slurm_says_what_it_gave(expected: tuple[int | None, int | None], environment: dict[str, str]) -> None:
    assert of_slurm(environment) == Allocation(*expected)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (None, None),
        ((), ""),
        ((), "-1"),
        (("0",), "0"),
        (("2", "3"), "2, 3"),
        (("1",), "1,-1,0"),
        (("GPU-8932f937", "MIG-4c"), "GPU-8932f937,MIG-4c"),
    ],
    ids=str,
)
def test_gpus_are_visible_by_their_names(expected: tuple[str, ...] | None, text: str | None) -> None:
    assert visible_gpus({} if text is None else {"CUDA_VISIBLE_DEVICES": text}) == expected


ASKED = {
    "less than there is": (Allocation(4, 8 * GIB), (4, 8 * GIB)),
    "more than there is": (Allocation(64, 999 * GIB), (16, 32 * GIB)),
    "nothing": (Allocation(), (16, 32 * GIB)),
    "cores alone": (Allocation(cpus=4), (4, 32 * GIB)),
    "memory alone": (Allocation(memory=GIB), (16, GIB)),
}


@pytest.mark.parametrize(("asked", "expected"), ASKED.values(), ids=ASKED.keys())
def test_a_job_has_at_most_what_there_is_and_what_it_asked_for(
    node: Callable[..., None], asked: Allocation, expected: tuple[int, int]
) -> None:
    node(16, 32)
    with seen_as(asked):
        assert (machine.cores(), machine.memory()) == expected
        assert machine.available_memory() == expected[1]
        with seen_as(Allocation(2, GIB)):
            assert (machine.cores(), machine.memory()) == (2, GIB)
        assert (machine.cores(), machine.memory()) == expected
    assert (machine.cores(), machine.memory()) == (16, 32 * GIB)


def test_a_job_has_at_most_what_slurm_gave_it(node: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    node(16, 32)
    for name, value in {"JOB_ID": "7", "CPUS_PER_TASK": "2", "MEM_PER_NODE": "1024"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2,3")
    assert machine.given() == Allocation(2, GIB, 3)
    assert machine.given() & Allocation(1, 2 * GIB) == Allocation(1, GIB, 3)
    with seen_as(Allocation(4, 8 * GIB, gpus=2)):
        assert (machine.cores(), machine.memory(), machine.available_memory()) == (2, GIB, GIB)
        assert machine.cores_now() == 2
        assert machine.named_gpus() == ("1", "2")


def test_a_plan_for_other_machines_knows_nothing_of_this_one(
    node: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    node(2, 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    monkeypatch.delenv(machine.PRECISION_VARIABLE, raising=False)
    with seen_as(Allocation(64, 256 * GIB, gpus=4), elsewhere=True):
        assert machine.cores() == machine.threads_alone() == 64
        assert machine.cores_now() == 2, "what this process itself may use"
        assert machine.memory() == machine.available_memory() == 256 * GIB
        assert machine.may_have_gpu()
        assert machine.named_gpus() == ("0", "1", "2", "3")
        assert machine.instructions() == machine.cpu_precision() == machine.UNKNOWN
        monkeypatch.setenv(machine.PRECISION_VARIABLE, "bfloat16")
        assert machine.cpu_precision() == "bfloat16"
    with seen_as(Allocation(), elsewhere=True):
        assert (machine.cores(), machine.memory(), machine.may_have_gpu()) == (1, None, False)
    assert machine.threads_alone() == 3


def test_pictures_are_decoded_with_the_cores_of_the_job(node: Callable[..., None]) -> None:
    node(16, 32)
    with seen_as(Allocation(cpus=3)), image_folder._threads() as pool:
        assert pool._max_workers == 3
    with seen_as(Allocation(cpus=64), elsewhere=True), image_folder._threads() as pool:
        assert pool._max_workers == 16


# -- the device -------------------------------------------------------------------------------------------------------


def function_config(folder: Path, **settings: object) -> FunctionConfig:
    """A study of a function in a file of the working directory."""
    found: FunctionConfig = function_task.complete(
        FunctionConfig(task=Function(target="train_here.train"), store=str(folder / "store"), **settings)
    )
    return found


@pytest.fixture
def config_of(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Config | FunctionConfig]:
    (tmp_path / "train_here.py").write_text("def train(*, seed):\n    return {'loss': float(seed)}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "train_here", raising=False)

    def make(task: str) -> Config | FunctionConfig:
        return replace(tiny_config if task == "images" else function_config(tmp_path), device="auto")

    return make


TASKS = {"images": images_task, "function": function_task}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("is_here", [False, True], ids=["no GPU here", "a GPU here"])
@pytest.mark.parametrize("case", [(None, "cpu"), (0, "cpu"), (1, "cuda"), (4, "cuda")], ids=str)
def test_the_device_of_a_job_elsewhere_is_what_it_asks_for(
    node: Callable[..., None],
    config_of: Callable[[str], Config | FunctionConfig],
    task: str,
    case: tuple[int | None, str],
    is_here: bool,
) -> None:
    gpus, expected = case
    node(2, 4, gpu=is_here)
    config = config_of(task)
    with seen_as(Allocation(cpus=4, gpus=gpus), elsewhere=True):
        assert TASKS[task].device(config) == expected  # type: ignore[attr-defined]
        how = TASKS[task].resolve(config, planned=True)  # type: ignore[attr-defined]
    assert (how.device, how.threads) == (expected, 4 if expected == "cpu" else 0)
    assert how.instructions == machine.UNKNOWN


def test_a_plan_says_what_only_the_node_knows(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(machine.PRECISION_VARIABLE, raising=False)
    unknown = machine.UNKNOWN
    with seen_as(Allocation(cpus=4, gpus=1), elsewhere=True):
        on_cpu = computing.resolve(tiny_config, threads=2, planned=True)
        on_gpu = computing.resolve(replace(tiny_config, device="auto"), planned=True)
        told = replace(tiny_config, precision="float32", engine="reference")
        assert computing.resolve(told, planned=True).precision == "float32"
        assert computing.resolve(told, planned=True).kernels == computing.NO_KERNELS
    assert on_cpu == computing.Computing("cpu", 2, unknown, unknown, unknown)
    assert on_gpu == computing.Computing("cuda", 0, unknown, unknown, unknown, gpu=unknown)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("elsewhere", [True, False], ids=["on other machines", "on this machine"])
def test_a_gpu_that_no_job_asks_for_is_refused_before_it_is_sent(
    node: Callable[..., None], config_of: Callable[[str], Config | FunctionConfig], task: str, elsewhere: bool
) -> None:
    node(2, 4, gpu=True)
    config = replace(config_of(task), device="cuda")
    with seen_as(Allocation(cpus=4, gpus=0), elsewhere=elsewhere), pytest.raises(ConfigError) as refused:
        TASKS[task].resolve(config, planned=True)  # type: ignore[attr-defined]
    assert str(refused.value).splitlines() == [
        "configuration error: device=cuda",
        "  allowed: auto, cpu (its jobs ask for no GPU)",
        "  remedy: hydra.launcher.gpus=1, or device=auto",
    ]
    with seen_as(Allocation(cpus=4, gpus=1), elsewhere=True):
        assert TASKS[task].resolve(config, planned=True).device == "cuda"  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", TASKS)
def test_a_job_that_asked_for_a_gpu_and_has_none_trains_nothing_on_the_cpu(
    node: Callable[..., None],
    config_of: Callable[[str], Config | FunctionConfig],
    monkeypatch: pytest.MonkeyPatch,
    task: str,
) -> None:
    node(2, 4)
    monkeypatch.setattr("platform.node", lambda: "n7")
    config = config_of(task)
    with seen_as(Allocation(cpus=4, gpus=1)), pytest.raises(ConfigError) as refused:
        TASKS[task].resolve(config)  # type: ignore[attr-defined]
    assert str(refused.value).splitlines() == [
        "configuration error: device=auto",
        "  allowed: cpu, or a GPU: the job asked for 1, and none can be used on n7",
        "  remedy: mend its driver, ask for nodes that have one, or hydra.launcher.gpus=0 with device=auto",
    ]


@pytest.mark.parametrize("task", TASKS)
def test_a_job_that_asked_for_no_gpu_takes_none_that_happens_to_be_there(
    node: Callable[..., None], config_of: Callable[[str], Config | FunctionConfig], task: str
) -> None:
    node(2, 4, gpu=True)
    with seen_as(Allocation(cpus=2, gpus=0)):
        assert TASKS[task].resolve(config_of(task), planned=True).device == "cpu"  # type: ignore[attr-defined]


def test_a_plan_for_other_machines_asks_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from cnn_ablation.common.machine import Allocation, seen_as\n"
        "from cnn_ablation.tasks.image_classification import computing, config as c\n"
        "with seen_as(Allocation(4, gpus=1), elsewhere=True):\n"
        "    for name in ('auto', 'cuda:0'):\n"
        "        config = c.Config(c.ShapesConfig(), c.ModelConfig(), c.AdamConfig(), device=name)\n"
        "        print(computing.resolve(config, planned=True).device)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cuda", "cuda:0", "False"]


# -- reuse ------------------------------------------------------------------------------------------------------------


def planned_lines(config: StudyConfig, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a dry run says behind the plan."""
    capsys.readouterr()
    Planning("one_at_a_time", [], lambda arm: config, here=False).show_forecast()
    said = capsys.readouterr().out.splitlines()
    return said[next(place for place, line in enumerate(said) if "reuse" in line) :]


def test_a_plan_counts_what_is_reused_if_the_processor_is_known_there(
    config_of: Callable[[str], Config | FunctionConfig],
    node: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Trained in a job on a processor with AVX2: a job on one with AVX-512 trains anew, however it was planned."""
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr("platform.node", lambda: "n7")
    node(2, 4)
    asked, config = Allocation(cpus=4, gpus=0), config_of("function")
    config = replace(config, replicates=2)

    def reused_on(flags: str, cpus: int, folder: str) -> list[bool]:
        monkeypatch.setattr(machine, "_flags", lambda: tuple(flags.split()))
        with seen_as(replace(asked, cpus=cpus)):
            threads = packing_of_job(config, 2, 1, [config]).threads or None
            return [found.reused for found in run(config, tmp_path / folder, threads=threads)]

    assert reused_on("avx2 fma", 4, "a") == [False, False]
    monkeypatch.setattr("platform.node", lambda: "login")
    monkeypatch.setattr(machine, "_flags", lambda: ("sse2",))
    condition = "if the data are as they were and the jobs' processors are those that trained them"
    with seen_as(asked, elsewhere=True):
        lines = planned_lines(replace(config, replicates=3), capsys)
    assert lines[0] == f"would reuse 2 of 3 runs from {config.store}, {condition}"
    assert lines[1] == "estimated time: about 0 s for 1 run by one job at a time, from past runs"
    with seen_as(asked, elsewhere=True):
        other = planned_lines(replace(config, threads=3), capsys)
    assert other[0] == f"would reuse 0 of 2 runs from {config.store}, if the data are as they were"
    assert planned_lines(config, capsys)[0] == "what would be reused is known only where the jobs will run"
    assert reused_on("avx2 fma", 4, "b") == [True, True]
    assert reused_on("avx2 fma avx512f avx512vl avx512bw avx512dq", 4, "c") == [False, False]


def test_arms_are_told_apart_by_what_auto_comes_to_in_their_jobs(tiny_config: Config) -> None:
    """The baseline's device is the CPU; which precision `auto` is only the node knows."""
    device, precision = knob("device", ["auto", "cuda"]), knob("precision", ["float32"])

    def planned(asked: Allocation, *knobs: Knob) -> Planning:
        with seen_as(asked, elsewhere=True):
            return Planning("one_at_a_time", knobs, lambda arm: with_settings(tiny_config, arm.settings), here=False)

    planning = planned(Allocation(cpus=4, gpus=1), device, precision)
    assert [arm.name for arm in planning.configs] == ["baseline", "device=auto", "precision=float32"]
    assert list(planning.merged) == ["device=cuda"]
    with pytest.raises(ConfigError, match="device=cpu and auto come to the same"):
        planned(Allocation(cpus=4, gpus=0), knob("device", ["auto"]))


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [None, 1, 3, 5, 64], ids=lambda memory: f"{memory} GiB")
@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 7, 16, 64])
def test_a_jobs_runs_have_the_threads_of_the_plan(
    tiny_config: Config, node: Callable[..., None], monkeypatch: pytest.MonkeyPatch, cpus: int, memory: int | None
) -> None:
    """Runs take 1 GiB each: floor(cores / min(cores, GiB)) threads, as on one such machine, whatever this one is."""
    monkeypatch.setattr(images_task, "footprint", lambda config: Footprint(shared=0, own=GIB))
    asked = Allocation(cpus, memory and memory * GIB, gpus=0)
    expected = cpus // min(cpus, memory or cpus)
    node(cpus, memory or 999)
    on_one = packing(tiny_config, 50)
    node(2, 1)
    with seen_as(asked, elsewhere=True):
        planned = packing(tiny_config, 50)
        alone = computing.resolve(tiny_config, threads=planned.threads or None, planned=True).threads
    assert planned == on_one
    assert alone == expected
    for (cores, gib), num_jobs in itertools.product([(cpus, memory or 999), (128, 512), (2, 1)], [1, 2, 50]):
        node(cores, gib)
        with seen_as(asked):
            in_job = packing_of_job(tiny_config, 50, num_jobs, [tiny_config])
            assert computing.resolve(tiny_config, threads=in_job.threads or None).threads == expected
        assert in_job.threads == planned.threads
        room = min(cpus, cores) // expected or 1
        assert in_job.processes == (1 if expected == cpus else min(room, num_jobs, gib, memory or gib))


@pytest.mark.parametrize(
    ("change", "num_runs"), [({"timing": "isolated"}, 50), ({"device": "mps"}, 50), ({}, 1)], ids=str
)
def test_a_job_trains_alone_what_a_machine_would(
    tiny_config: Config, node: Callable[..., None], change: dict[str, str], num_runs: int
) -> None:
    node(16, 64)
    config = replace(tiny_config, **change)  # type: ignore[arg-type]
    with seen_as(Allocation(4, gpus=0)):
        assert packing_of_job(config, num_runs, 1, [config]) is ONE_AT_A_TIME
        assert machine.threads_alone() == 4


# -- GPUs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        (Packing(8, 1, by_memory=True), ("3", 1, 10)),
        (Packing(8, 1, by_memory=True), (None, 1, 10)),
        (Packing(4, 1, by_memory=True, devices=("3", "5")), ("3,5", 2, 10)),
        (Packing(4, 1, by_memory=True, devices=("0", "1")), (None, 2, 10)),
        (Packing(4, 1, by_memory=True, devices=("3", "5")), ("3,5,6", 2, 10)),
        (Packing(2, 2, by_memory=True, devices=("3", "5")), ("3,5", 2, 3)),
        (Packing(1, 4, devices=("3", "5")), ("3,5", 2, 2)),
        (Packing(1, 8), ("3,5", 2, 1)),
    ],
)
def test_each_gpu_has_processes_of_its_own(
    tiny_config: Config,
    node: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    expected: Packing,
    case: tuple[str | None, int, int],
) -> None:
    """What is visible, how many GPUs were asked for, and for how many jobs."""
    visible, gpus, num_jobs = case
    node(8, 64, gpu=True)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    config = replace(tiny_config, device="auto")
    with seen_as(Allocation(8, gpus=gpus)):
        assert packing_of_job(config, 50, num_jobs, [config]) == expected


# No process trains more than one job before all have begun one: the first could otherwise be through with all of them.
RECORDING = """
import os, pathlib, time
def train(*, seed, processes=1):
    pathlib.Path(f"saw-{seed}").write_text(f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()}")
    until = time.monotonic() + 60
    while len(list(pathlib.Path().glob("saw-*"))) < processes and time.monotonic() < until:
        time.sleep(0.01)
    return {"loss": float(seed)}
"""


@pytest.mark.parametrize(
    ("expected", "how"),
    [
        ({"3": 1, "GPU-5": 1}, Packing(1, 1, devices=("3", "GPU-5"))),
        ({"3": 2, "GPU-5": 2}, Packing(2, 1, devices=("3", "GPU-5"))),
        ({"None": 2}, Packing(2, 1)),
        ({"7,8": 2}, Packing(2, 1)),
    ],
    ids=["a process each", "two each", "none named", "those of its job"],
)
def test_a_worker_sees_its_gpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, int], how: Packing
) -> None:
    """Processes by what they see; they are forked from one server, whatever it saw when it was started."""
    children.start_loading(function_task.PRELOADED)
    if "7,8" in expected:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,8")
    (tmp_path / "train_seen.py").write_text(RECORDING)
    monkeypatch.chdir(tmp_path)
    config = function_task.complete(
        FunctionConfig(
            task=Function(target="train_seen.train"),
            settings={"processes": sum(expected.values())},
            store=str(tmp_path / "store"),
            device="cpu",
        )
    )
    jobs = [Assignment(replace(config, seed=n, replicates=1), tmp_path / str(n), tmp_path) for n in range(8)]
    assert Crew("function", how).train(jobs) == []
    seen = {tuple((tmp_path / f"saw-{n}").read_text().split()) for n in range(8)}
    assert {name: sum(each == name for each, _ in seen) for name, _ in seen} == expected
    assert {read_run(path).concurrent_runs for path in record_paths(tmp_path)} == {how.processes}
    assert {read_run(path).status for path in record_paths(tmp_path)} == {"ok"}


@pytest.mark.skipif(machine.may_have_gpu(), reason="its workers would use it")
def test_workers_see_what_their_job_asked_for(
    config_of: Callable[[str], Config | FunctionConfig], tmp_path: Path
) -> None:
    """On their own they would take the CPU for `auto`."""
    job = Assignment(replace(config_of("function"), replicates=1), tmp_path / "0", tmp_path)
    with seen_as(Allocation(cpus=1, gpus=1)):
        [raised] = Crew("function", Packing(1, 1)).train([job])
    assert "device=auto" in raised
    assert "the job asked for 1, and none can be used on" in raised
    assert Crew("function", Packing(1, 1)).train([job]) == []


def test_each_gpu_is_filled_as_its_own_memory_allows() -> None:
    """One process begins on each; what it says of its GPU's memory counts there alone."""
    team = Team("function", Packing(4, 1, by_memory=True, devices=("0", "1")))
    assert [(group.device, group.limit) for group in team.groups] == [("0", 1), ("1", 1)]
    ours, theirs = multiprocessing.Pipe()
    with closing(ours), closing(theirs):
        team.workers.append(Worker(multiprocessing.Process(), ours, team.groups[1]))
        theirs.send(("fit", 3))
        team.listen(timeout=10)
    assert [group.limit for group in team.groups] == [1, 3]
    assert [(group.how.processes, group.how.by_memory) for group in team.groups] == [(4, True), (3, False)]


@pytest.mark.parametrize(
    ("expected", "how"),
    [
        ("2 runs side by side, 1 thread each", Packing(2, 1)),
        ("up to 3 arms side by side, as the GPU's memory allows", Packing(3, 2, by_memory=True)),
        (
            "up to 3 arms side by side on each of 2 GPUs, as the GPU's memory allows",
            Packing(3, 2, by_memory=True, devices=("0", "1")),
        ),
        ("one arm at a time on each of 2 GPUs", Packing(1, 8, devices=("0", "1"))),
    ],
    ids=str,
)
def test_a_study_says_how_it_shares_what_it_has(expected: str, how: Packing) -> None:
    assert str(how) == expected


def test_several_gpus_that_are_named_are_used_without_any_job(
    tiny_config: Config, node: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten arms of five seeds; two arms need no memory to be asked for."""
    node(8, 64, gpu=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    config = replace(tiny_config, device="cuda", replicates=5)
    assert packing(config, 50) == Packing(4, 1, by_memory=True, devices=("0", "1"))
    assert packing(config, 10) == Packing(1, 4, devices=("0", "1"))
    assert packing(config, 5) == packing(replace(config, timing="isolated"), 50) == ONE_AT_A_TIME


@pytest.mark.gpu
def test_a_worker_uses_the_gpu_that_it_sees_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the server that it is forked from has imported torch."""
    children.start_loading(images_task.PRELOADED)
    (tmp_path / "train_there.py").write_text(
        "import os, torch\n"
        "def train(*, seed):\n"
        "    name = float(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "    return {'loss': float(seed), 'gpus': torch.cuda.device_count(), 'name': name}\n"
    )
    monkeypatch.chdir(tmp_path)
    config = function_task.complete(
        FunctionConfig(task=Function(target="train_there.train"), store=str(tmp_path / "store"), device="cpu")
    )
    jobs = [Assignment(replace(config, seed=n, replicates=1), tmp_path / str(n), tmp_path) for n in range(8)]
    assert Crew("function", Packing(1, 1, devices=("0", "-1"))).train(jobs) == []
    found = [read_run(path).metrics for path in record_paths(tmp_path)]
    assert {(each["name"], each["gpus"]) for each in found} == {(0, 1), (-1, 0)}
