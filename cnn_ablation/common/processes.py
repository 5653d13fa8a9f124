"""Which process this is, on which machine, in which job of a cluster; and whether another process is still there."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
import uuid
from functools import cache
from pathlib import Path

HOST_VARIABLE = "CNN_ABLATION_HOST"
"""Names this host: for tests, and for machines started from one snapshot, which nothing else tells apart."""
_BOOT, _NAMESPACES, _PROC = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns"), Path("/proc")
_JOBS = (("SLURM_JOB_ID", "Slurm"), ("PBS_JOBID", "PBS"), ("LSB_JOBID", "LSF"), ("RAY_JOB_ID", "Ray"))
_START_FIELD = 19  # of /proc/PID/stat behind the name: when the process started, in ticks since boot
_QUERY_LIMITED_INFORMATION, _STILL_ACTIVE = 0x1000, 259


def host() -> str:
    """The name of this machine."""
    return os.environ.get(HOST_VARIABLE) or platform.node() or "host"


def place() -> str:
    """Where a number of a process means one process: this host since it was booted, and in it this container.

    Where the system does not say, its network address stands for it; without one no two processes share a place.
    """
    return hashlib.sha256(f"{host()} {_system()}".encode()).hexdigest()[:12]


def folder_name() -> str:
    """`host` and `place` as the name of a folder."""
    name = re.sub(r"[^\w.-]", "_", host())
    return f"{name}-{place()}"


@cache
def _system() -> str:
    try:
        spaces = [os.readlink(_NAMESPACES / kind) for kind in ("pid", "time") if (_NAMESPACES / kind).exists()]
        return " ".join([_BOOT.read_text().strip(), *spaces])
    except OSError:  # no Linux
        return f"{uuid.getnode():x}"


def job() -> str:
    """The job of a cluster's scheduler that this process belongs to, in words; empty without one."""
    for variable, engine in _JOBS:
        if number := os.environ.get(variable):
            array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
            of_array = f"{array}_{task}" if engine == "Slurm" and array and task else ""
            return f"{engine} job {of_array or number}"
    return ""


def started(process: int) -> str:
    """When a process started, in the system's own count; empty where the system does not say, or it is no more."""
    return (_stat(process) or ("", ""))[1]


def _stat(process: int) -> tuple[str, str] | None:
    """State and start of a process."""
    try:
        fields = (_PROC / str(process) / "stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), fields[_START_FIELD].decode()
    except (OSError, IndexError):
        return None


def is_alive(process: int, began: str) -> bool | None:
    """Whether a process of this place is still there.

    Args:
        process: its number.
        began: what `started` said of it.

    Returns:
        None if one of this number is there and nothing tells whether it is the same: on systems without /proc, or where
        other users' processes are hidden.
    """
    if not _is_there(process):
        return False
    found = _stat(process)
    if found is None or not began:
        return None
    state, start = found
    return start == began and state not in "ZXx"  # killed, and waited for by nobody


def _is_there(process: int) -> bool:
    if sys.platform == "win32":  # where os.kill(process, 0) ends a process
        return _is_active(process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_active(process: int) -> bool:
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(_QUERY_LIMITED_INFORMATION, False, process)
        if not handle:
            return bool(kernel.GetLastError() == 5)  # it is there, and somebody else's
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == _STILL_ACTIVE
    raise AssertionError("asked on Windows only")
