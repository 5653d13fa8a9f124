"""What this machine is, told without torch: cores, memory, the processor's instructions, whether there may be a GPU.

A processor can be masked, as PyTorch and oneDNN let it be (`ATEN_CPU_CAPABILITY`, `ONEDNN_MAX_CPU_ISA`): what is masked
is not there. Within `seen_as` it is what a job is given (`common.allocation`).
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cnn_ablation.common import lanes
from cnn_ablation.common.allocation import (
    UNKNOWN,
    Allocation,
    asked,
    is_elsewhere,
    least,
    of_slurm,
    seen_as,
    visible_gpus,
)
from cnn_ablation.common.errors import ConfigError, Problem

__all__ = ["UNKNOWN", "Allocation", "asked", "given", "is_elsewhere", "seen_as", "visible_gpus"]

PRECISION_VARIABLE = "CNN_ABLATION_PRECISION"
"""Names what `precision=auto` stands for on a CPU of any kind: for tests, and for clusters whose nodes differ."""
PRECISIONS = ("float32", "bfloat16")

_CPUINFO, _MEMINFO, _CGROUPS = Path("/proc/cpuinfo"), Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_DEVICES = Path("/dev")
_CGROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Of version 2 and of version 1: limit, use, and what of the use is idle."""
_NO_LIMIT = 2**60  # version 1 of control groups writes a number near 2**63 where there is no limit

# Instructions as PyTorch names them, the best first, with the flags that Linux gives each.
_INSTRUCTIONS = {
    "AVX512": {"avx512f", "avx512vl", "avx512bw", "avx512dq", "fma"},
    "AVX2": {"avx2", "fma"},
}
_TILES, _WITH_BFLOAT16 = "amx_bf16", {"avx512_bf16", "amx_bf16"}
# What PyTorch and oneDNN can be held to that has none.
_MASKS_WITHOUT_BFLOAT16 = (
    "DEFAULT", "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI",
)  # fmt: skip


def given() -> Allocation:
    """What the job that we are in was given, by Slurm, its control groups and its mask of processors.

    Of GPUs those that CUDA may see; None where that is all there are.
    """
    return Allocation(_cores_here(), _memory_here(), _num_visible_gpus()) & of_slurm()


def planned() -> Allocation:
    """What the threads of a run follow from: on the front end the same as in the job, because threads change results.

    Within `seen_as` what was asked for, whatever a job is given in the end; otherwise what there is.
    """
    told = asked()
    return Allocation(cores(), memory(), gpus()) if told is None else Allocation(told.cpus or 1, told.memory, told.gpus)


def cores() -> int:
    """Physical cores that this process may use, also in a container or a job."""
    told = asked()
    return told.cpus or 1 if told and is_elsewhere() else cores_now()


def cores_now() -> int:
    """Those of this machine, also while a plan is made for another one."""
    told = None if is_elsewhere() else asked()
    return least(_cores_here(), of_slurm().cpus, told.cpus if told else None) or 1


def _cores_here() -> int:
    from joblib import cpu_count

    return int(cpu_count(only_physical_cores=True))


def gpus() -> int | None:
    """GPUs that this process may use; None where nobody limits it."""
    told = asked() or Allocation()
    return told.gpus or 0 if is_elsewhere() else least(_num_visible_gpus(), told.gpus)


def named_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, by the names that CUDA takes; empty where nobody limits them.

    A job that asked for several and sees all is taken to have the first.
    """
    count, visible = gpus(), None if is_elsewhere() else visible_gpus()
    return tuple(map(str, range(count or 0))) if visible is None else visible[:count]


def named_gpu(place: int) -> tuple[str, ...]:
    """The one at a place among them, counted from 0, by the name that CUDA takes; none where there are fewer."""
    return named_gpus()[place : place + 1] if gpus() is not None else (str(place),)


def counted_gpus() -> int | None:
    """GPUs that this process may use; where nobody limits them those that Linux shows, None where it shows none."""
    count = gpus()
    return len(list(_DEVICES.glob("nvidia[0-9]*"))) or None if count is None else count


def _num_visible_gpus() -> int | None:
    visible = visible_gpus()
    return None if visible is None else len(visible)


def threads_alone() -> int:
    """Threads of a run that has the machine to itself: what OMP_NUM_THREADS says, else one for each core.

    In a job, and where one is planned, one for each core that it asks for.
    """
    if asked():
        return planned().cpus or 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) > 0 else cores()


def cpu_seconds() -> float:
    """What all threads of this process have computed so far, in seconds of one core; NaN where jobs share it."""
    return math.nan if lanes.in_one() else time.process_time()


def child_cpu_seconds() -> float:
    """What processes that this one has started, and that have ended, computed; 0 on Windows, which does not say."""
    times = os.times()
    return times.children_user + times.children_system


def instructions() -> str:
    """What PyTorch computes with on this processor, by its own names: `AVX512`, `AVX2`, `DEFAULT`, or the machine's.

    `UNKNOWN` of another machine.
    """
    if is_elsewhere():
        return UNKNOWN
    masked = os.environ.get("ATEN_CPU_CAPABILITY", "").lower()
    if masked in ("avx512", "avx512_256", "avx2", "default"):
        return masked.upper()
    flags = set(_flags())
    if not flags:
        return platform.machine() or "DEFAULT"
    return next((name for name, wanted in _INSTRUCTIONS.items() if wanted <= flags), "DEFAULT")


def cpu_precision(*, has_kernels: bool = True) -> str:
    """What `precision=auto` stands for on this CPU: bfloat16 where it multiplies tiles of it (AMX), else float32.

    On a processor with bfloat16 in vectors only (AVX-512), compiled kernels of float32 are faster and exact; without
    them bfloat16 is. Follows from the processor, its masks and a compiler, never from a clock.

    Args:
        has_kernels: whether there are compiled kernels.

    Returns:
        `UNKNOWN` of another machine, unless the environment says it for all of them.

    Raises:
        ConfigError: the environment says something else.
    """
    told = os.environ.get(PRECISION_VARIABLE, "")
    if told and told not in PRECISIONS:
        key, allowed = f"the environment's {PRECISION_VARIABLE}", ", ".join(PRECISIONS)
        raise ConfigError([Problem(key, told, allowed, remedy=f"unset {PRECISION_VARIABLE}")])
    if told:
        return told
    if is_elsewhere():
        return UNKNOWN
    onednn = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "ALL")).upper()
    onednn = onednn.replace("DEFAULT", "ALL")
    if {onednn, instructions()} & set(_MASKS_WITHOUT_BFLOAT16) or _WITH_BFLOAT16.isdisjoint(_flags()):
        return "float32"
    has_tiles = _TILES in _flags() and (onednn == "ALL" or "AMX" in onednn)
    return "bfloat16" if has_tiles or not has_kernels else "float32"


@cache
def _flags() -> tuple[str, ...]:
    """What the processor can do, as Linux names it; empty elsewhere."""
    return next((tuple(line.split(":", 1)[1].split()) for line in _lines(_CPUINFO) if line.startswith("flags")), ())


@cache
def cpu_name() -> str:
    """The processor by its maker's name."""
    named = (line.split(":", 1)[1].strip() for line in _lines(_CPUINFO) if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def may_have_gpu() -> bool:
    """Whether there is a driver for one (NVIDIA's library, AMD's device); only then does torch have to be asked.

    Not where none is visible, nor in a job that asked for none. Of another machine it is what was asked for.
    """
    count = gpus()
    return count > 0 if is_elsewhere() and count is not None else count != 0 and _has_driver()


@cache
def _has_driver() -> bool:
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def memory() -> int | None:
    """Bytes of memory that this machine, or the container or job that we are in, has; None where nobody says."""
    told = asked() or Allocation()
    return told.memory if is_elsewhere() else least(_memory_here(), of_slurm().memory, told.memory)


def _memory_here() -> int | None:
    return least(_meminfo("MemTotal"), *(limit for limit, _ in _container_limits()))


def available_memory() -> int | None:
    """Bytes of it that are free now; None where nobody says."""
    if is_elsewhere():
        return memory()
    left = (max(0, limit - used) for limit, used in _container_limits())
    return least(_meminfo("MemAvailable"), *left, memory())


def _meminfo(name: str) -> int | None:
    return _entry(_MEMINFO, f"{name}:", 1024)


def _container_limits() -> Iterator[tuple[int, int]]:
    """(limit, used) in bytes of the control groups that we are in, of both versions, up to the outermost.

    Files that the system keeps in memory only because nobody needed it do not count as used.
    """
    for line in _lines(_OWN_CGROUP):
        _, controllers, path = line.strip().split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = _CGROUPS / controllers
        limit_file, used_file, idle = _CGROUP_FILES[controllers]
        inside = root / path.lstrip("/")
        for folder in (inside, *inside.parents):  # in a container the path may not be there, and the root is ours
            limit, used = _number(folder / limit_file), _number(folder / used_file)
            if limit is not None and limit < _NO_LIMIT:
                yield limit, (used or 0) - (_entry(folder / "memory.stat", f"{idle} ", 1) or 0)
            if folder == root:
                break


def _entry(path: Path, name: str, unit: int) -> int | None:
    """The number behind a name, in a file of lines that start with names."""
    return next((int(line.split()[1]) * unit for line in _lines(path) if line.startswith(name)), None)


def _number(path: Path) -> int | None:
    """The number in a file; None where it is missing or holds a word (`max`)."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
