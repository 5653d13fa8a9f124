"""Where a result comes from: the identity of a run, and the software and hardware that made it. No torch."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent

# Code that can change what a run computes. Everything else (plans, tables, reports) may change without retraining.
_TRAINING_CODE = ("activations.py", "data", "metrics.py", "models", "optimizers.py", "streams.py", "training.py")
_NUMERICAL_LIBRARIES = ("numpy", "pillow", "scikit-learn", "torch", "torchvision")


def fingerprint(settings: dict[str, Any], *, seed: int, data_digest: str, device: str, precision: str) -> str:
    """The identity of a run: equal exactly for runs that must give the same result.

    Args:
        settings: `config.result_settings`, by dotted key.
        seed: the run's seed.
        data_digest: `ImageData.digest`.
        device: "cpu", "cuda" or "mps", resolved from `auto`.
        precision: resolved from `auto`.

    Returns:
        32 hexadecimal digits.
    """
    identity = {
        "settings": {**settings, "device": device, "precision": precision},
        "seed": seed,
        "data": data_digest,
        "code": training_code_version(),
        "libraries": versions(_NUMERICAL_LIBRARIES),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


@cache
def training_code_version() -> str:
    """A hash of the source files that can change what a run computes."""
    digest = hashlib.sha256()
    for entry in _TRAINING_CODE:
        path = PACKAGE / entry
        for source in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(source.relative_to(PACKAGE).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions, by package."""
    return {package: metadata.version(package) for package in packages}


def environment() -> dict[str, Any]:
    """Software, machine and moment, for the records."""
    return {
        "versions": {
            "python": platform.python_version(),
            **versions(("cnn_ablation", "hydra-core", *_NUMERICAL_LIBRARIES)),
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
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
