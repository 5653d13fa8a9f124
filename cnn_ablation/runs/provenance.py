"""Where a result comes from: the identity of a run, and the software and hardware that made it. No torch."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from cnn_ablation.runs import sources

PACKAGE = Path(__file__).parent.parent


def identity(
    settings: dict[str, Any], *, seed: int, data_digest: str, made_with: dict[str, Any], extensions: Sequence[Any] = ()
) -> dict[str, Any]:
    """All that decides what a run computes: equal exactly for runs that must give the same result.

    Args:
        settings: by dotted key, `config.result_settings` and how the run is computed on this machine (`runs.task.How`).
        seed: the run's seed.
        data_digest: of the data's content; empty where that is not known yet, or the task has none.
        made_with: `code_identity` of the task.
        extensions: what the run uses that may come from outside the package: functions, classes, whole modules.
    """
    return {
        "settings": settings,
        "seed": seed,
        "data": data_digest,
        **made_with,
        "extensions": [version for extension in extensions if (version := extension_version(extension))],
    }


def code_identity(code: tuple[str, ...], libraries: tuple[str, ...]) -> dict[str, Any]:
    """The part of every run's identity that the installation decides.

    Args:
        code: files and folders of the package that can change what a run computes.
        libraries: those whose versions can.
    """
    return {"code": code_version(code), "libraries": versions(libraries)}


def fingerprint(identity: dict[str, Any]) -> str:
    """An identity as 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def extension_version(extension: Any) -> str:
    """A hash of code, of its file and of the user's own files that it uses; "" for our own.

    Code from this package is covered by `training_code_version`. Of what is defined in a notebook, which is no file,
    it is the code and what that uses from there.
    """
    if isinstance(extension, ModuleType):
        return sources.version(extension.__name__)
    if extension.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return ""
    digest = hashlib.sha256(sources.version(extension.__module__).encode())
    for line in _code_lines(extension, extension.__module__, set()):
        digest.update(line.encode())
    return digest.hexdigest()[:16]


def _code_lines(item: Any, module: str, seen: set[int]) -> Iterator[str]:
    """Instructions, names and constants, of nested functions and of what is used from the same module too."""
    if getattr(item, "__module__", None) != module or id(item) in seen:
        return
    seen.add(id(item))
    if isinstance(item, type):
        for name, member in sorted(vars(item).items()):
            yield name
            yield from _code_lines(member, module, seen) if callable(member) else ()
        return
    code = getattr(item, "__code__", None)
    yield from _instructions(code) if code else ()
    for name in code.co_names if code else ():
        yield from _code_lines(getattr(item, "__globals__", {}).get(name), module, seen)


def _instructions(code: CodeType) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames}"
    for constant in code.co_consts:
        yield from _instructions(constant) if isinstance(constant, CodeType) else [repr(constant)]


@cache
def code_version(code: tuple[str, ...]) -> str:
    """A hash of source files, given as files and folders of the package."""
    digest = hashlib.sha256()
    for entry in code:
        path = PACKAGE / entry
        for source in (
            [path] if path.is_file() else sorted(found for kind in ("*.py", "*.[ch]") for found in path.rglob(kind))
        ):
            digest.update(source.relative_to(PACKAGE).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


@cache
def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions, by package; read from disk once. A checkout that is not installed has none."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def environment(libraries: tuple[str, ...] = ()) -> dict[str, Any]:
    """Software, machine and moment, for the records; `libraries` are named besides our own and Hydra."""
    return {
        "versions": {
            "python": platform.python_version(),
            **versions(("cnn_ablation", "hydra-core", *libraries)),
        },
        **_git_state(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


@cache
def _git_state() -> dict[str, Any]:
    """Commit and dirty flag of the checkout the package runs from; None for an installed package."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return {"git_commit": None, "git_dirty": None}

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]  # looks, and writes nothing
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
