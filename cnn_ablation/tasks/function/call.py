"""A call of a person's training function, and its record."""

from __future__ import annotations

import math
import numbers
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

from cnn_ablation.common import machine, progress
from cnn_ablation.common.device_names import kind_of
from cnn_ablation.common.errors import RecordError, UserError
from cnn_ablation.config import all_settings, shown
from cnn_ablation.runs import provenance
from cnn_ablation.runs.epochs import Tell
from cnn_ablation.runs.records import TAKEN_NAMES, Run, labels
from cnn_ablation.runs.task import How, Place, Trained
from cnn_ablation.study.metric import ACCURACIES
from cnn_ablation.tasks.function.config import FunctionConfig
from cnn_ablation.tasks.function.signature import arguments_of, function_named


class BadResultError(UserError):
    """A function returned what is no result."""


@dataclass
class RunContext:
    """What a function is given as `run`, if it asks for it."""

    folder: Path
    """For whatever it wants to leave; it is there."""
    device: str
    """`cpu`, `cuda` or `mps`, as `device=` asked for; `cuda:1` is one GPU of several that this process sees."""
    threads: int
    """As many as this run may use on the CPU, where it shares the machine; 0 where nobody says."""
    checkpoint: Path
    """Where it may keep what it needs to go on after an interruption. Removed once the run is finished."""
    _curves: list[dict[str, float]] = field(default_factory=list, repr=False)
    _tell: Tell | None = field(default=None, repr=False)

    def report(self, epoch: int, **metrics: float) -> None:
        """Leaves a point of the learning curves.

        Args:
            epoch: counted from 1.
            metrics: by name.
        """
        self._curves.append({"epoch": int(epoch), **{name: _number(name, value) for name, value in metrics.items()}})
        if self._tell:
            self._tell(self._curves[-1])


def train(config: FunctionConfig, seed: int, how: How, place: Place) -> Trained:
    """Calls the function. What it prints goes to `output-seed<seed>.txt` in its job's folder.

    Raises:
        BadResultError: it returned no mapping of names to numbers.
        Exception: what the function raised.
    """
    function = function_named(config.settings.target)
    place.folder.mkdir(parents=True, exist_ok=True)
    place.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    context = RunContext(place.folder, how.device, how.threads, place.checkpoint, _tell=place.tell)
    ours = {"seed": seed, "run": context}
    asked = {name: ours[name] for name in ours if name in signature(function).parameters}
    started, cpu_started = time.perf_counter(), _cpu_seconds()
    with _output_to(place.folder / f"output-seed{seed}.txt"):
        try:
            result = function(**arguments_of(config.settings), **asked)
        except SystemExit as error:
            raise BadResultError(f"{config.settings.target} ended the process: sys.exit({error.code})") from error
    seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - cpu_started
    metrics = _metrics(config.settings.target, result)
    record = Run(
        **labels(config),
        seed=seed,
        status="ok" if all(map(math.isfinite, metrics.values())) else "diverged",
        train_seconds=seconds,
        cpu_seconds=cpu_seconds,
        total_seconds=seconds,
        epochs=len(context._curves),
        device=kind_of(how.device),
        hardware=machine.cpu_name(),
        threads=how.threads,
        metrics=metrics,
        settings=all_settings(config),
        curves=context._curves,
        provenance={
            **provenance.environment(),
            "hardware": machine.cpu_name(),
            "threads": how.threads,
            "process": os.getpid(),
        },
    )
    return Trained(record, None)


def _cpu_seconds() -> float:
    """Of this process, and of those that the function started and waited for."""
    return machine.cpu_seconds() + machine.child_cpu_seconds()


def _metrics(target: str, result: object) -> dict[str, float]:
    if not isinstance(result, Mapping) or not result:
        raise BadResultError(f"{target} returned {shown(result)}; a mapping of a metric's name to its number is wanted")
    wrong = [name for name in result if not isinstance(name, str) or not name.strip()]
    if wrong:
        raise BadResultError(f"{target} returned {shown(wrong[0])} as the name of a metric; text is wanted")
    taken = [name for name in result if name in TAKEN_NAMES]
    if taken:
        raise BadResultError(
            f"{target} returned a metric {taken[0]}, which is a column of every run; another name for it"
        )
    metrics = {name: _number(name, value) for name, value in result.items()}
    wrong = [name for name in ACCURACIES if not 0 <= metrics.get(name, 0) <= 1]
    if wrong:
        raise BadResultError(f"{target} returned {wrong[0]}={metrics[wrong[0]]:g}; accuracies are fractions, 0 to 1")
    return metrics


def _number(name: str, value: Any) -> float:
    """A number of Python's own, from NumPy's and from tensors of one element too."""
    size = getattr(value, "numel", getattr(value, "size", None))
    if hasattr(value, "item") and (size() if callable(size) else size) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise BadResultError(f"the metric {name} is {shown(value)}; a number is wanted")
    return float(value)


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """What is printed within it, by this process and by those that it starts, goes to a file.

    Raises:
        RecordError: the file cannot be written.
    """
    try:
        file = path.open("w", encoding="utf-8", errors="replace", buffering=1)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
    sys.stdout.flush()
    with file, progress.own_lines_stay(), _descriptor_to(file.fileno()), redirect_stdout(file), redirect_stderr(file):
        try:
            yield
        finally:
            sys.stdout.flush()


@contextmanager
def _descriptor_to(target: int) -> Iterator[None]:
    """Standard output as the system knows it, which processes that are started inherit."""
    kept = os.dup(1)
    os.dup2(target, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
