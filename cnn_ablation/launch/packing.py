"""How the runs of a study share a machine: how many processes train them side by side, with how many threads each.

On a CPU two one-thread processes train two runs in less time than one two-thread process trains one after the other:
the layers of a small network are too short to be shared. On a GPU a job is an arm with all its seeds, and arms share
the device while its memory allows; where a person asks for it, they share a process too. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from cnn_ablation.common import machine
from cnn_ablation.common.device_names import place_of
from cnn_ablation.config import StudyConfig
from cnn_ablation.runs.task import Footprint, How, task_of


@dataclass(frozen=True)
class Packing:
    """How the runs of a study share a machine."""

    processes: int
    """At most."""
    threads: int
    by_memory: bool = False
    """One process starts alone; others join once its first epoch, or its first run where seeds are trained one by one,
    has shown for how many more the device's memory has room."""
    devices: tuple[str, ...] = ()
    """GPUs by the names that `CUDA_VISIBLE_DEVICES` takes, each with as many processes of its own; none where all
    processes see what this one sees."""

    @property
    def workers(self) -> int:
        """Processes in all, at most."""
        return self.processes * max(1, len(self.devices))

    def __str__(self) -> str:
        on_each = f" on each of {len(self.devices)} GPUs" if self.devices else ""
        if len(self.devices) == 1:
            on_each = f" on GPU {self.devices[0]}"
        if self.by_memory:
            return f"up to {self.processes} arms side by side{on_each}, as the GPU's memory allows"
        if self.devices:
            return f"one arm at a time{on_each}"
        return f"{self.processes} runs side by side, {self.threads} thread{'s' if self.threads > 1 else ''} each"


ONE_AT_A_TIME = Packing(processes=1, threads=0)
"""In this process, with as many threads as PyTorch takes."""


def packing(config: StudyConfig, num_runs: int, arms: Sequence[StudyConfig] = ()) -> Packing:
    """As many processes as there are cores, jobs and memory for.

    On a CPU the number of threads changes results, and runs with another number are not reused. It follows from the
    machine and the size of a run alone, not from how many runs there are or what is free: a study that is extended,
    repeated or interrupted trains as before. `threads=N` sets it.

    Args:
        config: the baseline. `timing=isolated`, or Apple's GPU, trains one job at a time.
        num_runs: of the study, at most.
        arms: whose memory is asked for before so many are started.
    """
    if not may_be_packed(config, num_runs):
        return ONE_AT_A_TIME
    if not all(task_of(config).is_known_elsewhere(arm) for arm in arms):
        return ONE_AT_A_TIME
    if task_of(config).device(config) == "cuda":
        how = _on_gpus(config.device, _num_jobs(config, num_runs, arms))
        return how if how.workers > 1 else ONE_AT_A_TIME
    return _on_cores(config, num_runs, arms)


def packing_of_job(config: StudyConfig, num_runs_of_study: int, num_jobs: int, arms: Sequence[StudyConfig]) -> Packing:
    """How an engine's job shares out what it was given among its own jobs; called within `machine.seen_as`.

    Threads are those of `packing`, which the front end decided for the same allocation: a batch of one run trains it as
    the whole study on one such machine would. Processes follow from what the job has really been given.

    Args:
        config: the baseline.
        num_runs_of_study: as `packing` was told on the front end.
        num_jobs: of this batch; a job is a run, or on a GPU an arm with all its seeds.
        arms: those in this batch.
    """
    if not may_be_packed(config, num_runs_of_study):
        return ONE_AT_A_TIME
    if task_of(config).device(config) == "cuda":
        return _on_gpus(config.device, num_jobs)
    return _on_cores(config, num_jobs, arms)


def _num_jobs(config: StudyConfig, num_runs: int, arms: Sequence[StudyConfig]) -> int:
    """Of a study on GPUs: an arm with all its seeds, where they train in one go; else each run."""
    if machine.is_elsewhere() or not arms:
        return num_runs // len(config.seeds)
    task, on_gpu = task_of(config), How("cuda", threads=0)
    return sum(1 if task.trains_together(arm, on_gpu) else len(config.seeds) for arm in arms)


def _on_gpus(device: str, num_jobs: int) -> Packing:
    """A group of processes for each GPU that is visible by its name; for all of them one group where none is named.

    The one whose place the device names is a group alone.
    """
    place = place_of(device)
    names = machine.named_gpus()[:num_jobs] if place is None else machine.named_gpu(place)
    devices = names if len(names) > 1 or place is not None else ()
    groups = max(1, len(devices))
    processes = max(1, min(machine.cores() // groups, -(-num_jobs // groups)))
    threads = max(1, machine.cores() // (processes * groups))
    return Packing(processes, threads, by_memory=processes > 1, devices=devices)


def _on_cores(config: StudyConfig, num_runs: int, arms: Sequence[StudyConfig]) -> Packing:
    task, planned = task_of(config), machine.planned()
    one, cores = task.footprint(config), planned.cpus or 1
    threads = config.threads or max(1, cores // _that_fit(planned.memory, one, cores))
    if threads >= cores:
        return ONE_AT_A_TIME
    largest = max([one, *map(task.footprint, arms)], key=attrgetter("own"))
    at_once = max(1, machine.cores() // threads)
    return Packing(min(at_once, num_runs, _that_fit(machine.available_memory(), largest, cores)), threads)


def _that_fit(memory: int | None, one: Footprint, cores: int) -> int:
    """Processes that a memory holds, beside what is shared twice: ours, and what all processes map."""
    return cores if memory is None else max(1, min(cores, (memory - 2 * one.shared) // one.own))


def may_be_packed(config: StudyConfig, num_runs: int) -> bool:
    """As far as can be said without torch."""
    return config.timing == "packed" and config.device != "mps" and num_runs > 1
