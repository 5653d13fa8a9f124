"""The C sources beside this file, compiled once per processor; None where that cannot be done."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("pooling.c", "convolution.c"))
_HEADERS = tuple(Path(__file__).with_name(name) for name in ("kernels.h", "pooling.h"))
_COMMAND = ("cc", "-std=c99", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")
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


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where a tensor's values begin; NULL for none."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def parts_of(images: int) -> int:
    """Into how many parts a batch is cut: one per thread that PyTorch uses."""
    return max(1, min(torch.get_num_threads(), images))


def over_images(images: int, function: Callable[[int, ctypes.c_long, ctypes.c_long], Any]) -> None:
    """Calls `function(part, first, last)` for `parts_of(images)` parts of a batch at the same time."""
    parts = parts_of(images)
    bounds = [ctypes.c_long(images * part // parts) for part in range(parts + 1)]
    calls = [(part, first, last) for part, (first, last) in enumerate(pairwise(bounds))]
    if parts == 1:
        function(*calls[0])
    else:
        list(_threads(parts).map(lambda call: function(*call), calls))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="kernels")
