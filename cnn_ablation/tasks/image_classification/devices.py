"""Where a run is computed: choosing the device, waiting for it, and asking what it is and how much memory it took."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from operator import attrgetter
from pathlib import Path

import torch

from cnn_ablation.common import lanes, machine
from cnn_ablation.common.allocation import least
from cnn_ablation.common.device_names import kind_of, place_of
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.runs.task import check_gpu_is_there
from cnn_ablation.tasks.image_classification import compiled

_CUDA_CONTEXT_BYTES = 600 * 2**20  # of a process, beside its tensors: kernels, libraries
_COMPUTE_MODES = ["nvidia-smi", "--query-gpu=uuid,compute_mode", "--format=csv,noheader"]
_SHARE_FOR_MORE = 0.5  # of the free memory; the rest is for arms that take more than the first one

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def choose(name: str) -> torch.device:
    """`auto` takes cuda, then mps, then the CPU; `cuda:1` is the second GPU of those that this process may use.

    Raises:
        ConfigError: a device is asked for by name that is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present[kind_of(name)]:
        there = ", ".join(device for device, is_there in present.items() if is_there)
        raise ConfigError([Problem("device", name, f"auto, {there} (on this machine)", remedy="device=auto")])
    if place_of(name) is not None:
        check_gpu_is_there(name, least(torch.cuda.device_count(), machine.gpus()))
    return torch.device(name)


def on(device: torch.device) -> AbstractContextManager[None]:
    """Within it a GPU that is named by its place is the current one: streams, generators, graphs and kernels of ours
    lie on that. Others leave it as it is.
    """
    has_place = device.type == "cuda" and device.index is not None
    return torch.cuda.device(device) if has_place else nullcontext()


def resolve_precision(name: str, device: torch.device) -> str:
    """What `auto` stands for: bfloat16 where it is the faster one, float32 elsewhere."""
    if name != "auto":
        return name
    if device.type == "cpu":
        return machine.cpu_precision(has_kernels=compiled.library() is not None)
    return "bfloat16" if _has_bfloat16(device) else "float32"


@cache
def _has_bfloat16(device: torch.device) -> bool:
    with on(device):
        return device.type == "cuda" and bool(torch.cuda.is_bf16_supported(including_emulation=False))


@contextmanager
def settings(*, threads: int, precision: str) -> Iterator[None]:
    """What PyTorch computes with: threads of a CPU (0 leaves them), and on a GPU TF32 for `precision=tf32` alone.

    Everything is put back afterwards. PyTorch's own default computes float32 convolutions in TF32: 10 bits of 23.
    """
    switches = [attrgetter(name)(torch.backends) for name in ("cudnn.conv", "cudnn.rnn", "cuda.matmul")]
    threads_before, kept = torch.get_num_threads(), [switch.fp32_precision for switch in switches]
    if threads:
        torch.set_num_threads(threads)
    for switch in switches:
        switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        for switch, before in zip(switches, kept, strict=True):
            switch.fp32_precision = before


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that this thread gave it; a clock read before that would be wrong.

    On CUDA for this thread's current stream: a wait for all of them would end what another thread captures.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def hardware_name(device: torch.device) -> str:
    """The processor or GPU by its maker's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return machine.cpu_name()


def free_memory(device: torch.device) -> int | None:
    """Bytes of a GPU that this process could still take, what its allocator keeps in hand included; None where the
    memory is the computer's own.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def reset_peak_memory(device: torch.device) -> None:
    """Starts a new measurement of `peak_memory_mib`."""
    if lanes.in_one():
        return
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # not Linux, or a container that forbids it
            _CLEAR_REFS.write_text("5")  # 5 resets the process's high-water mark


def peak_memory_mib(device: torch.device) -> float:
    """The most memory in use since `reset_peak_memory`: the GPU's, or the whole process's on a CPU, in MiB.

    On a CPU without /proc the mark cannot be reset, and this is the peak since the process started; NaN where the
    system keeps none, and where several jobs share the process.
    """
    if lanes.in_one():
        return float("nan")
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def room_for_more(device: torch.device) -> int:
    """How many more processes that train what this one does the memory of a GPU has room for.

    None on a GPU that its administrator gives to one process at a time. On a CPU, where processes are counted before
    they start (`launch.packing`), there is always room.
    """
    if device.type != "cuda":
        return sys.maxsize
    if takes_one_process(_compute_modes(), str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))):
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    taken = torch.cuda.max_memory_reserved(device) + _CUDA_CONTEXT_BYTES
    return int(_SHARE_FOR_MORE * free / taken)


def _compute_modes() -> str:
    """What `nvidia-smi` says of all GPUs, a line each; nothing where it is not there."""
    try:
        return subprocess.run(_COMPUTE_MODES, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def takes_one_process(modes: str, uuid: str) -> bool:
    """Whether a GPU is in a compute mode other than NVIDIA's default; where nobody says, none is.

    Args:
        modes: lines of `GPU-<uuid>, <mode>`.
        uuid: of the GPU; where no line is its own (a part of one has a number of another kind), all count.
    """
    lines = [line.partition(",") for line in modes.splitlines()]
    own = [mode for name, _, mode in lines if uuid and name.strip().removeprefix("GPU-") == uuid.removeprefix("GPU-")]
    return any(mode.strip() != "Default" for mode in own or [mode for _, _, mode in lines])


def trouble(device: torch.device) -> str:
    """Why a device does nothing that it is asked; empty where it does.

    After some errors a GPU does nothing more for the process that met them. One whose memory is full does.
    """
    try:
        torch.ones(2, device=device).sum().item()
    except torch.OutOfMemoryError:
        return ""
    except Exception as error:  # of a driver; and there may be no such device any more
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""
