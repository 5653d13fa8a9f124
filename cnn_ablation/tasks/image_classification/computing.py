"""How a run is computed: device, precision, threads, instructions, kernels. Decided once, and part of a run's identity.

Told without torch where there is no GPU to ask for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cnn_ablation.common import machine
from cnn_ablation.common.device_names import kind_of, place_of
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.runs.task import How, check_gpu_is_there, no_such_device
from cnn_ablation.tasks.image_classification import compiled
from cnn_ablation.tasks.image_classification.config import Config

_STREAMS, _MANY_STREAMS = 8, 32  # that CUDA serves at the same time by itself, and the most it can be told to
_PIPES_OF_MPS = "/tmp/nvidia-mps"  # where its daemon puts them unless it is told otherwise

ARMS, PROCESSES, THREADS = "CNN_ABLATION_ARMS", "processes", "threads"  # how arms share a GPU: docs/gpu.md
NO_KERNELS, COMPILED = "PyTorch's", "compiled"


@dataclass(frozen=True)
class Computing(How):
    """How a network is trained. Threads are those of PyTorch and of the compiled kernels: they change sums, and so the
    last bits of a step and, after some epochs, tenths of a point. 0 on a GPU, where they change nothing.
    """

    precision: str
    """`float32`, `tf32` (CUDA only) or `bfloat16`."""
    instructions: str
    """Of the CPU, as `machine.instructions` names them."""
    kernels: str
    """Whether layers run code of our own: `compiled` (C on a CPU, Triton on NVIDIA's GPUs), or `PyTorch's`."""
    gpu: str | None = None
    """By its maker's name: those of another kind may compute other bits. None where none computes."""


def resolve(config: Config, *, threads: int | None = None, planned: bool = False) -> Computing:
    """What `auto` stands for on this machine; of another one `machine.UNKNOWN` where only that can tell.

    Args:
        config: `device`, `precision`, `engine` and `threads` are looked at.
        threads: as the study's packing decided; None for a run that has the machine to itself.
        planned: tells what is to be expected, without compiling anything for it.

    Raises:
        ConfigError: there is no such device here, or it lacks the precision.
    """
    serve_streams(config)
    device, name = device_type(config.device), _name(config.device)
    _require(device, config)
    if config.precision == "tf32" and device != "cuda":
        problem = Problem("precision", "tf32", f"auto, float32, bfloat16 (device={device})", remedy="precision=float32")
        raise ConfigError([problem])
    on_cpu = device == "cpu"
    return Computing(
        device=name,
        precision=_precision(config.precision, name, planned),
        threads=(config.threads or threads or machine.threads_alone()) if on_cpu else 0,
        instructions=machine.instructions(),
        kernels=_kernels(name, planned) if config.engine == "fast" else NO_KERNELS,
        gpu=_gpu(name) if device == "cuda" else None,
    )


def serve_streams(config: Config) -> None:
    """Lets a GPU serve as many streams of this process at a time as an arm has seeds; before CUDA is first asked.

    With CUDA's own number ten seeds wait for each other. Not without need: ten processes with four times as many took
    14 s to start instead of 4. Nor under NVIDIA's MPS, whose processes share what there is: the third one that asked
    for 32 got no GPU at all. What the environment says already is left.

    Raises:
        ConfigError: the environment asks for arms to share a GPU in a way that there is not.
    """
    if (arms_are_threads() or len(config.seeds) > _STREAMS) and not _has_mps():
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", str(_MANY_STREAMS))


def arms_are_threads() -> bool:
    """Whether arms that can are to share a process, a thread each; not where NVIDIA's MPS lets processes share a GPU.

    Raises:
        ConfigError: the environment asks for something else.
    """
    asked = os.environ.get(ARMS) or PROCESSES
    if asked not in (PROCESSES, THREADS):
        raise ConfigError(
            [Problem(f"the environment's {ARMS}", asked, f"{PROCESSES}, {THREADS}", remedy=f"unset {ARMS}")]
        )
    return asked == THREADS and not _has_mps()


def _has_mps() -> bool:
    return "CUDA_MPS_PIPE_DIRECTORY" in os.environ or Path(_PIPES_OF_MPS).exists()


def is_decided(config: Config) -> bool:
    """Whether `resolve` answers at once: for a CPU, and with nothing to compile; precision hangs on kernels too."""
    serve_streams(config)
    return device_type(config.device) == "cpu" and compiled.is_decided()


def device_type(name: str) -> str:
    """`cpu`, `cuda` or `mps`: what `auto` stands for here; a device that is named is taken at its word, by its kind.

    In a job, and where one is planned, `auto` is a GPU exactly if the job asked for one, lest the plan be of another.
    """
    if name != "auto":
        return kind_of(name)
    told = machine.asked()
    if machine.is_elsewhere() or (told and told.gpus is not None):
        return "cuda" if told and told.gpus else "cpu"
    if not machine.may_have_gpu():
        return "cpu"
    from cnn_ablation.tasks.image_classification import devices  # imports torch, which takes seconds

    return devices.choose("auto").type


def _name(told: str) -> str:
    """The device by its kind, or by its place among several, as PyTorch takes it."""
    return device_type(told) if place_of(told) is None else told


def _require(device: str, config: Config) -> None:
    """Refuses a device that is not there, without torch where there can be none but the CPU."""
    if device == "cpu" or (machine.is_elsewhere() and device == "mps"):
        return
    if not machine.may_have_gpu():
        raise no_such_device(config)
    check_gpu_is_there(config.device, machine.counted_gpus())
    if machine.is_elsewhere():
        return
    from cnn_ablation.tasks.image_classification import devices

    try:
        devices.choose(device)
    except ConfigError as error:
        raise (no_such_device(config) if machine.asked() else error) from None
    devices.choose(_name(config.device))


def _precision(name: str, device: str, planned: bool) -> str:
    if name != "auto":
        return name
    if device == "cpu":  # the same for both engines, so that they can be compared
        return machine.cpu_precision(has_kernels=_kernels(device, planned) != NO_KERNELS)
    if machine.is_elsewhere():
        return machine.UNKNOWN
    from cnn_ablation.tasks.image_classification import devices

    return devices.resolve_precision(name, devices.choose(device))


def _kernels(device: str, planned: bool) -> str:
    if device == "mps":
        return NO_KERNELS
    if machine.is_elsewhere():
        return machine.UNKNOWN
    return COMPILED if _has_kernels(device, planned) else NO_KERNELS


def _has_kernels(device: str, planned: bool) -> bool:
    if device == "cpu":
        return compiled.is_expected() if planned else compiled.library() is not None
    from cnn_ablation.tasks.image_classification import devices
    from cnn_ablation.tasks.image_classification.engine import gpu  # imports torch, as the device has done

    if planned:
        return gpu.is_expected()
    with devices.on(devices.choose(device)):
        return gpu.kernels() is not None


def _gpu(device: str) -> str:
    if machine.is_elsewhere():
        return machine.UNKNOWN
    from cnn_ablation.tasks.image_classification import devices

    return devices.hardware_name(devices.choose(device))
