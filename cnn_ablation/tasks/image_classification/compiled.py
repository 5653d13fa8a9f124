"""The C sources in engine/kernels/, compiled once per processor and loaded, where that can be done. No torch."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

from cnn_ablation.common import machine

_FOLDER = Path(__file__).parent / "engine" / "kernels"
_SOURCES, _HEADERS = sorted(_FOLDER.glob("*.c")), sorted(_FOLDER.glob("*.h"))
_COMPILER = "cc"
_FLAGS = ("-std=c99", "-O3", "-march=native", "-ffp-contract=fast", "-fno-trapping-math", "-fPIC")
"""Without traps, which nobody here sets, a choice between two floats is made in vectors; values are the same."""
_WIDE = "-mprefer-vector-width=512"  # x86 compilers prefer half the register otherwise
_OF_WIDTH = {16: ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"), 8: ("-mno-avx512f",)}
"""What an x86 compiler is told beside the processor: a mask of its instructions holds here too."""
_TIMEOUT_SECONDS = 300  # 5 s where nothing else computes
_CPUINFO = Path("/proc/cpuinfo")
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class _NotOursError(Exception):
    """A file that somebody else wrote, or could have written."""


def library() -> Any:
    """The compiled functions; None where they cannot be had, for the reason that `missing` gives.

    Compiled once per processor, compiler and version of the sources, of all machines that share the cache folder. A
    machine without a compiler takes what another one with the same processor has compiled. Nothing is loaded that
    another user owns or may write to: the file's name can be guessed.
    """
    return _loaded()[0]


def missing() -> str:
    """Why there are no compiled functions, and the remedy; empty where there are."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[Any, str]:
    try:
        path = _path()
    except RuntimeError as error:  # a user without a home
        return None, f"no folder to compile into ({error}); remedy: set XDG_CACHE_HOME"
    try:
        if not path.exists():
            _compile(path)
        _refuse_if_not_ours(path)
        return ctypes.CDLL(str(path)), ""
    except _NotOursError as error:
        return None, f"{error}: it is not loaded; remedy: remove {path.parent}, or set XDG_CACHE_HOME"
    except subprocess.TimeoutExpired:
        return (
            None,
            f"{_COMPILER} took more than {_TIMEOUT_SECONDS} s; remedy: start again when the machine is less busy",
        )
    except (OSError, subprocess.SubprocessError):
        return None, f"no C compiler for this processor ({_COMPILER}); remedy: install gcc or clang"


def is_expected() -> bool:
    """Whether `library` will most likely not be None; compiles and loads nothing."""
    try:
        return _path().exists() or shutil.which(_COMPILER) is not None
    except RuntimeError:
        return False


def is_decided() -> bool:
    """Whether `library` has nothing to compile: that is done, or cannot be."""
    try:
        return bool(_loaded.cache_info().currsize) or _path().exists() or shutil.which(_COMPILER) is None
    except RuntimeError:
        return True


def _compile(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, ThreadPoolExecutor(len(_SOURCES)) as pool:
        objects = list(pool.map(partial(_object, Path(scratch)), _SOURCES))
        built = Path(scratch) / path.name
        _call("-shared", *map(str, objects), "-o", str(built))
        built.chmod(0o700)  # whatever the umask says
        _publish(built, path)


def _object(folder: Path, source: Path) -> Path:
    """One source compiled, on a core of its own where there is one."""
    made = folder / f"{source.stem}.o"
    _call(*_flags(), "-c", str(source), "-o", str(made))
    return made


def _call(*words: str) -> bytes:
    """Calls the compiler -> what it prints."""
    return subprocess.run([_COMPILER, *words], check=True, capture_output=True, timeout=_TIMEOUT_SECONDS).stdout


def _publish(built: Path, path: Path) -> None:
    """Whole or not at all, and never in the place of what is there: on NFS that would be torn from under its users."""
    try:
        os.link(built, path)
    except FileExistsError:  # another process, or another machine, was faster
        pass
    except OSError:  # a file system without links
        built.replace(path)


def _refuse_if_not_ours(path: Path) -> None:
    if not hasattr(os, "geteuid"):
        return
    for entry in (path.parent, path):
        status = entry.stat()
        if status.st_uid not in (os.geteuid(), 0):
            raise _NotOursError(f"{entry} belongs to another user")
        if status.st_mode & _WRITABLE_BY_OTHERS:
            raise _NotOursError(f"{entry} can be written to by other users")


@cache
def _path() -> Path:
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    content = b"".join(path.read_bytes() for path in (*_SOURCES, *_HEADERS))
    key = _hashed(content + repr((_COMPILER, *_flags())).encode() + _processor())
    folder, version = cache_folder / "cnn_ablation" / "kernels", _compiler_version()
    of_others = [] if version else sorted(folder.glob(f"{key}-*.so"))
    return of_others[0] if of_others else folder / f"{key}-{_hashed(version)[:8]}.so"


def _hashed(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _compiler_version() -> bytes:
    """What the compiler says of itself; nothing where there is none."""
    try:
        return _call("--version")
    except (OSError, subprocess.SubprocessError):
        return b""


def lanes() -> int:
    """How many float32 numbers the functions compute with at a time: 16 with AVX-512, else 8."""
    return 16 if machine.instructions() == "AVX512" else 8


def _flags() -> tuple[str, ...]:
    flags = (*_FLAGS, f"-DLANES={lanes()}")
    return (*flags, _WIDE, *_OF_WIDTH[lanes()]) if platform.machine() in ("x86_64", "AMD64") else flags


def _processor() -> bytes:
    """What `-march=native` depends on; a home folder may be shared by different machines."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor().encode()
    told = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return repr(sorted(told)).encode()  # however many of them there are
