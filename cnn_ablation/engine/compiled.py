"""The C sources in kernels/, compiled once per processor; None where that cannot be done."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FOLDER = Path(__file__).with_name("kernels")
_SOURCES, _HEADERS = sorted(_FOLDER.glob("*.c")), sorted(_FOLDER.glob("*.h"))
_COMMAND = ("cc", "-std=c99", "-O3", "-march=native", "-ffp-contract=fast", "-fno-trapping-math", "-shared", "-fPIC")
"""Without traps, which nobody here sets, a choice between two floats is made in vectors; values are the same."""
_WIDE = "-mprefer-vector-width=512"  # x86 compilers prefer half the register otherwise
_TIMEOUT_SECONDS = 60


@cache
def library() -> Any:
    """The compiled functions, or None where there is no C compiler for this processor.

    Compiled once per processor and version of the sources; processes that do so at the same time leave the same file.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnn_ablation"
    wide = [_WIDE] if platform.machine() in ("x86_64", "AMD64") else []
    content = b"".join(path.read_bytes() for path in (*_SOURCES, *_HEADERS))
    key = hashlib.sha256(content + repr((*_COMMAND, *wide)).encode() + _processor()).hexdigest()[:16]
    path = folder / f"kernels-{key}.so"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                built = Path(scratch) / path.name
                command = [*_COMMAND, *wide, *map(str, _SOURCES), "-o", str(built)]
                subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_SECONDS)
                built.replace(path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> bytes:
    """What `-march=native` depends on; a home folder may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor().encode()
    return repr([line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]).encode()


def call(
    name: str, images: int, shared: Sequence[Tensor | float | None], *last: Any, own: Sequence[Tensor] = ()
) -> None:
    """Calls a compiled function on parts of a batch at the same time: `name(shared, own, first, last image, last)`.

    Args:
        name: of the function.
        images: of the batch.
        shared: tensors, handed over as the addresses of their values, and numbers; None is NULL.
        last: what the function takes in the end, as ctypes.
        own: tensors with a first axis of `parts_of(images)`, of which each part is given its own.
    """
    function, given = getattr(library(), name), [_as_argument(value) for value in shared]
    parts = parts_of(images)
    bounds = [ctypes.c_long(images * part // parts) for part in range(parts + 1)]

    def call_part(part: int) -> None:
        function(*given, *(_as_argument(tensor[part]) for tensor in own), bounds[part], bounds[part + 1], *last)

    if parts == 1:
        call_part(0)
    else:
        list(_threads(parts).map(call_part, range(parts)))


def parts_of(images: int) -> int:
    """Into how many parts a batch is cut: one per thread that PyTorch uses."""
    return max(1, min(torch.get_num_threads(), images))


def _as_argument(value: Tensor | float | None) -> ctypes.c_void_p | ctypes.c_float:
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_void_p(None if value is None else value.data_ptr())


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="kernels")
