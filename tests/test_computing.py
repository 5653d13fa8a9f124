"""How a run is computed on this machine: what `auto` stands for, and that all of it belongs to a run's identity."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import TINY

from cnn_ablation.common import machine
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.runs import provenance
from cnn_ablation.runs.run import run
from cnn_ablation.runs.store.entries import entries
from cnn_ablation.runs.task import check
from cnn_ablation.tasks.image_classification import compiled, computing, devices
from cnn_ablation.tasks.image_classification import task as images_task
from cnn_ablation.tasks.image_classification.computing import Computing
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.identity import CODE

WIDE = "fma avx512f avx512vl avx512bw avx512dq"
HERE = Computing("cpu", "float32", 2, "AVX2", "compiled")


def test_the_instructions_are_those_that_pytorch_computes_with() -> None:
    assert machine.instructions() == torch.backends.cpu.get_cpu_capability()


@pytest.mark.parametrize(
    ("flags", "masks", "instructions", "precision"),
    [
        ("avx2 fma", {}, "AVX2", "float32"),
        (f"avx2 {WIDE}", {}, "AVX512", "float32"),
        (f"avx2 {WIDE} avx512_bf16", {}, "AVX512", "float32"),
        (f"avx2 {WIDE} avx512_bf16 amx_bf16", {}, "AVX512", "bfloat16"),
        (f"{WIDE} amx_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "AVX512", "float32"),
        (f"{WIDE} amx_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_FP16"}, "AVX512", "float32"),
        (f"{WIDE} amx_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX10_1_512_AMX"}, "AVX512", "bfloat16"),
        (f"{WIDE} avx512_bf16", {"CNN_ABLATION_PRECISION": "bfloat16"}, "AVX512", "bfloat16"),
        (f"avx2 {WIDE} amx_bf16", {}, "AVX512", "bfloat16"),
        (f"avx2 {WIDE} amx_bf16", {"ATEN_CPU_CAPABILITY": "avx2"}, "AVX2", "float32"),
        (f"avx2 {WIDE} amx_bf16", {"ATEN_CPU_CAPABILITY": "avx512"}, "AVX512", "bfloat16"),
        ("avx2 fma avx512_bf16", {"ATEN_CPU_CAPABILITY": "default"}, "DEFAULT", "float32"),
        (f"{WIDE} amx_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "AVX512", "float32"),
        (f"{WIDE} amx_bf16", {"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, "AVX512", "bfloat16"),
        (f"{WIDE} amx_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, "AVX512", "bfloat16"),
        ("sse2", {}, "DEFAULT", "float32"),
        ("avx2 fma", {"CNN_ABLATION_PRECISION": "bfloat16"}, "AVX2", "bfloat16"),
        (f"{WIDE} amx_bf16", {"CNN_ABLATION_PRECISION": "float32"}, "AVX512", "float32"),
    ],
)  # fmt: skip
def test_a_masked_processor_is_what_its_mask_says(
    monkeypatch: pytest.MonkeyPatch, flags: str, masks: dict[str, str], instructions: str, precision: str
) -> None:
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", machine.PRECISION_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in masks.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machine, "_flags", lambda: tuple(flags.split()))
    assert (machine.instructions(), machine.cpu_precision()) == (instructions, precision)


def test_another_precision_in_the_environment_is_refused_while_planned(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cluster whose nodes differ some would compute otherwise than was meant."""
    monkeypatch.setenv("CNN_ABLATION_PRECISION", "bf16")
    with pytest.raises(ConfigError) as refused:
        images_task.resolve(replace(tiny_config, device="cpu"), planned=True)
    assert str(refused.value).splitlines() == [
        "configuration error: the environment's CNN_ABLATION_PRECISION=bf16",
        "  allowed: float32, bfloat16",
        "  remedy: unset CNN_ABLATION_PRECISION",
    ]
    assert images_task.resolve(replace(tiny_config, device="cpu", precision="float32")).precision == "float32"


@pytest.mark.parametrize(
    ("flags", "has_kernels", "precision"),
    [
        ("avx2 fma", False, "float32"),
        (f"avx2 {WIDE}", False, "float32"),
        (f"avx2 {WIDE} avx512_bf16", True, "float32"),
        (f"avx2 {WIDE} avx512_bf16", False, "bfloat16"),
        (f"avx2 {WIDE} avx512_bf16 amx_bf16", False, "bfloat16"),
    ],
)
def test_without_compiled_kernels_bfloat16_in_vectors_is_the_faster_one(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, flags: str, has_kernels: bool, precision: str
) -> None:
    """The plan and the run say the same, and so does the reference loop, which has no kernels of its own."""
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", machine.PRECISION_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "_flags", lambda: tuple(flags.split()))
    monkeypatch.setattr(compiled, "library", lambda: object() if has_kernels else None)
    monkeypatch.setattr(compiled, "is_expected", lambda: has_kernels)
    assert devices.resolve_precision("auto", torch.device("cpu")) == precision
    for planned, name in ((True, "fast"), (False, "fast"), (False, "reference")):
        assert computing.resolve(replace(tiny_config, engine=name), planned=planned).precision == precision


@pytest.mark.parametrize(
    ("instructions", "lanes", "told"),
    [("AVX512", 16, "-mavx512f"), ("AVX2", 8, "-mno-avx512f"), ("DEFAULT", 8, "-mno-avx512f")],
)
def test_kernels_are_as_wide_as_the_processor_and_its_mask(
    monkeypatch: pytest.MonkeyPatch, instructions: str, lanes: int, told: str
) -> None:
    monkeypatch.setattr(machine, "instructions", lambda: instructions)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert compiled.lanes() == lanes
    assert {f"-DLANES={lanes}", told} <= set(compiled._flags())
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert told not in compiled._flags()


@pytest.mark.parametrize(
    "change",
    [
        {"device": "cuda"},
        {"precision": "bfloat16"},
        {"precision": "tf32"},
        {"threads": 1},
        {"instructions": "AVX512"},
        {"kernels": "PyTorch's"},
    ],
    ids=str,
)
def test_how_a_run_is_computed_belongs_to_its_identity(change: dict[str, object]) -> None:
    def fingerprint(how: Computing) -> str:
        identity = provenance.identity(
            {"device": "auto", **dataclasses.asdict(how)}, seed=0, data_digest="d", made_with={}
        )
        return provenance.fingerprint(identity)

    assert fingerprint(replace(HERE, **change)) != fingerprint(HERE)  # type: ignore[arg-type]
    assert set(change) < {item.name for item in dataclasses.fields(Computing)}


def test_a_run_with_other_threads_is_not_taken_from_the_store(tiny_config: Config, tmp_path: Path) -> None:
    config = replace(tiny_config, replicates=1)
    reused = [run(config, tmp_path / str(place), threads=threads)[0].reused for place, threads in enumerate((1, 2, 1))]
    assert reused == [False, False, True]
    threads = sorted(entry.run.provenance["torch_threads"] for entry in entries(Path(config.store)) if entry.run)
    assert threads == [1, 2]
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"]), "the caller's threads are put back"


@pytest.mark.parametrize(
    "name",
    [
        "tasks/image_classification/checkpoints.py",
        *(
            f"tasks/image_classification/{name}"
            for name in ("compiled.py", "lengths.py", "training.py", "engine/kernels/vectors.h", "data/images.py")
        ),
    ],
)
def test_code_that_can_change_a_result_belongs_to_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    copy = tmp_path / "cnn_ablation"
    shutil.copytree(provenance.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    version = partial(provenance.code_version.__wrapped__, CODE)
    before = version()
    (copy / "report" / "text.py").write_text("# only words")
    assert version() == before
    (copy / name).write_text((copy / name).read_text() + "\n")
    assert version() != before


def test_float32_is_float32_and_the_callers_switches_are_put_back() -> None:
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = conv.fp32_precision, matmul.fp32_precision
    with devices.settings(threads=1, precision="float32"):
        assert (conv.fp32_precision, matmul.fp32_precision) == ("ieee", "ieee")
    with devices.settings(threads=1, precision="tf32"):
        assert (conv.fp32_precision, matmul.fp32_precision) == ("tf32", "tf32")
    assert (conv.fp32_precision, matmul.fp32_precision) == before
    assert torch.backends.cudnn.allow_tf32 in (True, False), "PyTorch still finds its switches consistent"


def test_tf32_is_for_cuda(tiny_config: Config) -> None:
    with pytest.raises(ConfigError, match=r"precision=tf32\n  allowed: auto, float32, bfloat16"):
        computing.resolve(replace(tiny_config, precision="tf32"))


def test_a_configuration_that_no_study_has_checked_is_checked(tiny_config: Config, tmp_path: Path) -> None:
    tiny_config.model.dropout = 2.0
    with pytest.raises(ConfigError, match=r"model\.dropout=2\.0"):
        check(tiny_config)
    with pytest.raises(ConfigError, match=r"model\.dropout=2\.0"):
        run(tiny_config, tmp_path / "0")
    assert not list(tmp_path.iterdir())


# -- memory -----------------------------------------------------------------------------------------------------------


def group(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("seen_from", ["outside", "inside"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_is_the_machines_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, seen_from: str
) -> None:
    """Of 32 GiB the container may use 4; 1 is in use, of which a half is files that can be dropped.

    Inside a container the path of its group is often not there.
    """
    gib = 2**30
    root = tmp_path / "memory" if version == 1 else tmp_path
    here = root / "docker" / "abc" if seen_from == "outside" else root
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
             2: ("memory.max", "memory.current", "inactive_file")}[version]  # fmt: skip
    group(here, {names[0]: str(4 * gib), names[1]: str(gib), "memory.stat": f"rss 5\n{names[2]} {gib // 2}\n"})
    (tmp_path / "cgroup").write_text("4:memory:/docker/abc\n3:cpu:/\n" if version == 1 else "0::/docker/abc\n")
    (tmp_path / "meminfo").write_text("MemTotal:       33554432 kB\nMemAvailable:   31457280 kB\n")
    for name, path in (
        ("_CGROUPS", tmp_path),
        ("_OWN_CGROUP", tmp_path / "cgroup"),
        ("_MEMINFO", tmp_path / "meminfo"),
    ):
        monkeypatch.setattr(machine, name, path)
    assert machine.memory() == 4 * gib
    assert machine.available_memory() == 3.5 * gib
    (here / names[0]).write_text("max\n" if version == 2 else str(2**63 - 4096))
    assert machine.memory() == 32 * gib
    assert machine.available_memory() == 30 * gib


def test_where_nobody_says_memory_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "none")
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "none")
    assert machine.memory() is machine.available_memory() is None


# -- the compiled library ---------------------------------------------------------------------------------------------


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder with a copy of the library that this user has compiled."""
    if compiled.library() is None:
        pytest.skip("no C compiler")
    original = compiled._path()
    folder = tmp_path / "cnn_ablation" / "kernels"
    folder.mkdir(parents=True, mode=0o700)
    shutil.copy(original, folder / original.name)
    (folder / original.name).chmod(0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled._path.cache_clear()
    yield folder / original.name
    monkeypatch.undo()
    compiled._path.cache_clear()


def test_ones_own_library_is_loaded(own_cache: Path) -> None:
    assert compiled._path() == own_cache
    functions, why_not = compiled._loaded.__wrapped__()
    assert functions is not None
    assert why_not == ""


@pytest.mark.parametrize("which", ["file", "folder"])
@pytest.mark.parametrize("mode", [0o770, 0o707], ids=oct)
def test_a_library_that_others_may_write_to_is_refused(own_cache: Path, which: str, mode: int) -> None:
    entry = own_cache if which == "file" else own_cache.parent
    entry.chmod(mode)
    functions, why_not = compiled._loaded.__wrapped__()
    assert functions is None
    assert why_not.startswith(f"{entry} can be written to by other users: it is not loaded; remedy: remove ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_a_library_of_another_user_is_refused(own_cache: Path) -> None:
    os.chown(own_cache, 12345, -1)
    functions, why_not = compiled._loaded.__wrapped__()
    assert functions is None
    assert f"{own_cache} belongs to another user" in why_not


def test_a_compiled_library_is_ours_alone_whatever_the_umask_says(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "few.c").write_text("int answer(void) { return 42; }")  # all of them take seconds to compile
    assert compiled._path() == own_cache
    monkeypatch.setattr(compiled, "_SOURCES", [tmp_path / "few.c"])
    own_cache.unlink()
    own_cache.parent.rmdir()
    before = os.umask(0)
    try:
        functions, _ = compiled._loaded.__wrapped__()
    finally:
        os.umask(before)
    assert functions is not None
    assert [stat.S_IMODE(entry.stat().st_mode) for entry in (own_cache, own_cache.parent)] == [0o700, 0o700]


def cpu(name: str, flags: str, count: int = 2) -> str:
    """As Linux tells of so many of a processor."""
    return f"processor\t: 0\nmodel name\t: {name}\nflags\t\t: {flags}\n\n" * count


PROCESSOR, COMPILER = cpu("Xeon", "avx2 fma avx512f"), b"cc 12.2.0"


@pytest.mark.parametrize(
    ("is_shared", "processor", "compiler"),
    [
        (True, PROCESSOR, COMPILER),
        (True, cpu("Xeon", "avx2 fma avx512f", 64), COMPILER),
        (True, PROCESSOR, b""),
        (False, cpu("Xeon", "avx2 fma"), COMPILER),
        (False, cpu("EPYC", "avx2 fma avx512f"), COMPILER),
        (False, cpu("Xeon", "avx2 fma"), b""),
        (False, PROCESSOR, b"cc 13.1.0"),
    ],
    ids=["alike", "more of them", "without a compiler", "without AVX-512", "of another maker",
         "without AVX-512 and compiler", "another compiler"],
)  # fmt: skip
def test_a_home_folder_is_shared_by_machines_that_compute_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_shared: bool, processor: str, compiler: bytes
) -> None:
    """A library for AVX-512 is no file that a processor without it looks for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "_CPUINFO", tmp_path / "cpuinfo")

    def path_on(text: str, version: bytes) -> Path:
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(compiled, "_compiler_version", lambda: version)
        found: Path = compiled._path.__wrapped__()
        return found

    first = path_on(PROCESSOR, COMPILER)
    first.parent.mkdir(parents=True)
    first.write_text("a library")
    assert (path_on(processor, compiler) == first) == is_shared


def test_a_library_follows_from_its_sources(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more.c").write_text("int more;")
    monkeypatch.setattr(compiled, "_SOURCES", [*compiled._SOURCES, tmp_path / "more.c"])
    assert compiled._path.__wrapped__() != own_cache


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_another_processors_library_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each compiles its own beside it; the first one is made a file that would not load."""
    for name, text in {"few.c": "int answer(void) { return 42; }", "cpuinfo": PROCESSOR}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "_SOURCES", [tmp_path / "few.c"])
    monkeypatch.setattr(compiled, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(compiled, "_path", compiled._path.__wrapped__)
    compile_and_load = compiled._loaded.__wrapped__
    assert compile_and_load()[0].answer() == 42
    [first] = (tmp_path / "cnn_ablation" / "kernels").glob("*.so")
    first.unlink()
    first.write_text("AVX-512")
    (tmp_path / "cpuinfo").write_text(cpu("Xeon", "avx2 fma"))
    assert compile_and_load()[0].answer() == 42
    assert first.read_text() == "AVX-512"


@pytest.mark.parametrize("links", [True, False], ids=["first wins", "no links"])
def test_machines_that_compile_at_once_leave_one_whole_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """What another one has loaded is not replaced, where the file system has links."""

    def no_links(*_: object) -> None:
        raise PermissionError

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    for text in ("first", "second"):
        (tmp_path / text).write_text(text)
        compiled._publish(tmp_path / text, tmp_path / "library.so")
    assert (tmp_path / "library.so").read_text() == ("first" if links else "second")


def test_several_sources_make_one_library_and_a_compiler_without_time_is_told_from_none(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half.c").write_text("int half(void) { return 21; }")
    (tmp_path / "whole.c").write_text("int half(void); int whole(void) { return 2 * half(); }")
    monkeypatch.setattr(compiled, "_SOURCES", [tmp_path / "half.c", tmp_path / "whole.c"])
    own_cache.unlink()
    with monkeypatch.context() as slow:
        slow.setattr(compiled, "_TIMEOUT_SECONDS", 1e-9)
        functions, why_not = compiled._loaded.__wrapped__()
        assert functions is None
        assert why_not == "cc took more than 1e-09 s; remedy: start again when the machine is less busy"
        assert not own_cache.exists()
    functions, why_not = compiled._loaded.__wrapped__()
    assert (functions.whole(), why_not) == (42, "")


def test_without_a_home_folder_pytorchs_own_layers_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compiled, "_path", homeless)
    functions, why_not = compiled._loaded.__wrapped__()
    assert functions is None
    assert why_not == "no folder to compile into (Could not determine home directory.); remedy: set XDG_CACHE_HOME"
    assert not compiled.is_expected()


# -- interrupts ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no server of workers")
def test_ctrl_c_while_workers_import_is_one_line_at_most(tmp_path: Path) -> None:
    """A terminal interrupts all processes of a command, and the server of workers imports for seconds."""
    study = [sys.executable, "-m", "cnn_ablation", "-m", *TINY, "model.activation=relu,leaky", "train.epochs=2000"]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs inherit that it is ignored
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(study, cwd=tmp_path, start_new_session=True, preexec_fn=heed, **pipes) as running:  # noqa: PLW1509
        deadline = time.monotonic() + 60
        while not _has_server(running.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        os.killpg(running.pid, signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3, err


def _has_server(parent: int) -> bool:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with suppress(OSError):  # it has ended meanwhile
            if b"forkserver" in Path(f"/proc/{child}/cmdline").read_bytes():
                return True
    return False


# -- refusals before anything heavy is imported -----------------------------------------------------------------------

REFUSED = {
    "store below a file": (["store=blocker/runs"], "cannot write to the store"),
    "folder below a file": (["hydra.sweep.dir=blocker/study"], "cannot write to"),
    "no such device among several": (["device=cpu,cuda"], "(in arm device=cuda): device=cuda"),
    "no such device in a dry run": (["device=cuda", "dry_run=true"], "device=cuda"),
    "tf32 on a CPU": (["precision=tf32"], "precision=tf32"),
}
CALL_ALL = """
import sys
from cnn_ablation.__main__ import main
for words in {commands!r}:
    sys.argv = ["cnn_ablation", *words]
    try:
        main()
    except SystemExit as ended:
        print(f"exit {{ended.code}}", file=sys.stderr)
    print("--", file=sys.stderr)
print("torch" in sys.modules)
"""


@pytest.mark.skipif(machine.may_have_gpu(), reason="torch has to be asked for the GPU")
def test_what_cannot_be_trained_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "blocker").touch()
    knob = ["-m", *TINY, "model.activation=relu,leaky"]
    code = CALL_ALL.format(commands=[[*knob, *words] for words, _ in REFUSED.values()])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    for (_, message), answer in zip(REFUSED.values(), done.stderr.split("--\n"), strict=False):
        assert message in answer
        assert "exit 2" in answer
        assert len(answer.splitlines()) <= 6, answer
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("expected", "seeds", "told", "daemon"),
    [
        (None, 8, {}, False),
        ("32", 9, {}, False),
        ("4", 9, {"CUDA_DEVICE_MAX_CONNECTIONS": "4"}, False),
        (None, 9, {"CUDA_MPS_PIPE_DIRECTORY": "pipes"}, False),
        (None, 9, {}, True),
        ("32", 2, {"CNN_ABLATION_ARMS": "threads"}, False),
        (None, 2, {"CNN_ABLATION_ARMS": "threads"}, True),
    ],
    ids=["as many as CUDA serves", "more", "told otherwise", "MPS elsewhere", "MPS", "arms as threads", "threads, MPS"],
)
@pytest.mark.parametrize("ask", [images_task.device, images_task.resolve], ids=["device", "resolve"])
def test_a_gpu_is_told_to_serve_the_seeds_of_an_arm_at_once(
    *,
    tiny_config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Config], object],
    expected: str | None,
    seeds: int,
    told: dict[str, str],
    daemon: bool,
) -> None:
    """By the environment, which CUDA reads once; not where processes share what there is."""
    monkeypatch.setattr(computing, "_PIPES_OF_MPS", str(tmp_path if daemon else tmp_path / "none"))
    for name in ("CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_MPS_PIPE_DIRECTORY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    ask(replace(tiny_config, replicates=seeds))
    assert os.environ.get("CUDA_DEVICE_MAX_CONNECTIONS") == expected


@pytest.mark.parametrize("seeds", [2, 9], ids=["few seeds", "more than CUDA serves"])
@pytest.mark.parametrize("ask", [images_task.device, images_task.resolve], ids=["device", "resolve"])
def test_another_way_for_arms_to_share_a_gpu_is_refused_while_planned(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Config], object], seeds: int
) -> None:
    """However many seeds there are: not once runs have begun."""
    monkeypatch.setenv("CNN_ABLATION_ARMS", "nonsense")
    with pytest.raises(ConfigError) as refused:
        ask(replace(tiny_config, replicates=seeds))
    assert str(refused.value).splitlines() == [
        "configuration error: the environment's CNN_ABLATION_ARMS=nonsense",
        "  allowed: processes, threads",
        "  remedy: unset CNN_ABLATION_ARMS",
    ]
