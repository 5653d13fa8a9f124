"""What a job is given of a machine, and planning for one that is not this one.

Whoever plans jobs for other machines, or is one of them, says so with `seen_as`; `machine` answers accordingly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields

from cnn_ablation.common.words import counted

UNKNOWN = ""
"""What stands for a property of a processor that only the machine of a job can tell."""


@dataclass(frozen=True)
class Allocation:
    """What a job asks for, or is given; None where nobody says."""

    cpus: int | None = None
    """Threads that may compute at once."""
    memory: int | None = None
    """In bytes."""
    gpus: int | None = None

    def __str__(self) -> str:
        cores = "cores as its engine gives them" if self.cpus is None else counted(self.cpus, "core")
        memory = "" if self.memory is None else f", {self.memory / 10**9:g} GB"
        gpus = f", {counted(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{cores}{memory}{gpus}"

    def __and__(self, other: Allocation) -> Allocation:
        """The less of each."""
        pairs = ((getattr(self, item.name), getattr(other, item.name)) for item in fields(self))
        return Allocation(*(least(*pair) for pair in pairs))


def least(*numbers: int | None) -> int | None:
    """Of those that are known."""
    return min((number for number in numbers if number is not None), default=None)


@dataclass(frozen=True)
class _View:
    allocation: Allocation
    elsewhere: bool


_view: ContextVar[_View | None] = ContextVar("what this machine is seen as", default=None)


@contextmanager
def seen_as(allocation: Allocation, *, elsewhere: bool = False) -> Iterator[None]:
    """Within it this machine is what an allocation says; of several, the innermost counts alone.

    On the machine of a job: it has at most what was asked for, and at most what it has been given (`machine.given`);
    None is what the machine says. The threads of a run follow from what was asked for alone, as the plan said.

    Elsewhere: a plan is made for machines that are not this one, so that the numbers hold as they are, however small
    this one is. Unknown are then: one core, memory without a limit, no GPU.

    Args:
        allocation: what a job asks for.
        elsewhere: the job will run on another machine.
    """
    token = _view.set(_View(allocation, elsewhere))
    try:
        yield
    finally:
        _view.reset(token)


def asked() -> Allocation | None:
    """What the surrounding `seen_as` says; None outside."""
    view = _view.get()
    return view.allocation if view else None


def is_elsewhere() -> bool:
    """Whether a plan is made for machines that are not this one."""
    view = _view.get()
    return view is not None and view.elsewhere


def of_slurm(environment: Mapping[str, str] = os.environ) -> Allocation:
    """What Slurm says that it has given to the job that we are in; nothing outside of one.

    Source: sbatch(1), "OUTPUT ENVIRONMENT VARIABLES". Memory is in MiB; 0 is all that a node has.
    """
    if "SLURM_JOB_ID" not in environment:
        return Allocation()
    on_node = _number(environment, "SLURM_CPUS_ON_NODE")
    per_cpu = _number(environment, "SLURM_MEM_PER_CPU")
    mebibytes = _number(environment, "SLURM_MEM_PER_NODE") or (per_cpu * on_node if per_cpu and on_node else None)
    cpus = _number(environment, "SLURM_CPUS_PER_TASK") or on_node
    return Allocation(cpus, mebibytes * 2**20 if mebibytes else None)


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """A positive number; anything else is no limit."""
    text = environment.get(name, "")
    return int(text) if text.isdecimal() and int(text) > 0 else None


VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...] | None:
    """The GPUs that CUDA lets this process see, by the names that it takes; None where all are visible.

    As CUDA reads it, names end at the first that is not valid: `-1` makes all invisible.
    """
    text = environment.get(VISIBLE_GPUS)
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    return tuple(names[: next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))])
