"""Jobs side by side: worker processes that train them, one thread or a few each, and say how far they are.

On a CPU two one-thread processes train two runs in less time than one two-thread process trains one after the other:
the layers of a small network are too short to be shared. On a GPU a job is an arm with all its seeds, and arms share
the device while its memory allows. No torch here, no Hydra.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cnn_ablation.common import machine, progress
from cnn_ablation.config import Config
from cnn_ablation.launch import sharing
from cnn_ablation.tasks.image_classification import computing, data, models

LOG_FILE = "cnn_ablation.log"  # as Hydra names it, after the job
_BYTES_OF_A_PROCESS = 600 * 2**20  # its own share of what is imported, and what the allocator keeps; without images
_IMAGES_EVALUATED = 250  # at once, and a training step keeps its maps for the gradient: twice
_SHARE_OF_TEST_IMAGES = 0.25  # of the training images; a guess, since only loading tells


@dataclass(frozen=True)
class Packing:
    """How the runs of a study share a machine."""

    processes: int
    """At most."""
    threads: int
    by_memory: bool = False
    """One process starts alone; others join once its first epoch, or its first run where seeds are trained one by one,
    has shown for how many more the device's memory has room."""

    def __str__(self) -> str:
        if self.by_memory:
            return f"up to {self.processes} arms side by side, as the GPU's memory allows"
        return f"{self.processes} runs side by side, {self.threads} thread{'s' if self.threads > 1 else ''} each"


ONE_AT_A_TIME = Packing(processes=1, threads=0)
"""In this process, with as many threads as PyTorch takes."""


def packing(config: Config, num_runs: int, arms: Iterable[Config] = ()) -> Packing:
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
    device, cores = computing.device_type(config.device), machine.cores()
    if device == "cuda":
        processes = min(cores, num_runs // config.replicates)
        return Packing(processes, cores // processes, by_memory=True) if processes > 1 else ONE_AT_A_TIME
    images, one = image_bytes(config), process_bytes(config)
    threads = config.threads or max(1, cores // _that_fit(machine.memory(), images, one, cores))
    if threads >= cores:
        return ONE_AT_A_TIME
    largest = max([one, *map(process_bytes, arms)])
    fit = _that_fit(machine.available_memory(), images, largest, cores)
    return Packing(min(cores // threads, num_runs, fit), threads)


def _that_fit(memory: int | None, images: int, one: int, cores: int) -> int:
    """Processes that a memory holds, beside the images twice: ours, and those that all processes share."""
    return cores if memory is None else max(1, min(cores, (memory - 2 * images) // one))


def image_bytes(config: Config) -> int:
    """Of all images of a configuration's data."""
    spec = data.describe(config.data)
    images = int(spec.source_train_images * (1 + _SHARE_OF_TEST_IMAGES))
    return images * math.prod(spec.input_shape) * spec.bytes_per_value


def process_bytes(config: Config) -> int:
    """Memory of a process that trains a configuration, besides shared images: itself, and the maps of a step."""
    spec = data.describe(config.data)
    maps = 4 * models.describe(config.model, spec.num_classes, spec.input_shape).num_values
    own_images = image_bytes(config) if config.engine == "reference" else 0  # in another order of channels
    return _BYTES_OF_A_PROCESS + own_images + maps * max(2 * config.train.batch_size, _IMAGES_EVALUATED)


def may_be_packed(config: Config, num_runs: int) -> bool:
    """As far as can be said without torch."""
    return config.timing == "packed" and config.device != "mps" and num_runs > 1


@dataclass(frozen=True)
class Task:
    """One job: what `runs.run` is called with."""

    config: Config
    folder: Path
    study: Path


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: Task | None = None
    bars: list[progress.OpenBar] = field(default_factory=list)


def start_loading() -> None:
    """Lets a server process load what workers need while the caller does something else; workers are forked from it.

    Without effect where processes are not forked, or the server is there.
    """
    context = _context()
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver, resource_tracker

        context.set_forkserver_preload(["cnn_ablation.launch.preloaded"])
        resource_tracker.ensure_running()  # else it is started in between, and lifts the block
        with _without_main(), _deaf_to_ctrl_c():
            forkserver.ensure_running()


def train_side_by_side(tasks: Iterable[Task], how: Packing) -> list[str]:
    """Trains tasks in up to `how.processes` worker processes; tasks are taken from the iterable while others train.

    A worker that dies (killed, out of memory) costs the run it was training; another one takes its place.

    Returns:
        What tasks raised instead of leaving a record, one line each.
    """
    start_loading()
    progress.say(str(how))
    team, waiting, coming = _Team(how), deque[Task](), iter(tasks)
    try:
        while True:
            while waiting and team.takes(waiting[0]):
                waiting.popleft()
            if len(waiting) < how.processes and (task := next(coming, None)):
                waiting.append(task)
                team.listen(timeout=0)
            elif waiting or team.is_busy:
                team.listen(timeout=None)
            else:
                return team.raised
    finally:
        team.end()


class _Team:
    """Worker processes and what they have raised so far."""

    def __init__(self, how: Packing):
        self.how = how
        self.limit = 1 if how.by_memory else how.processes
        self.shared: sharing.Shared | None = None
        self.workers: list[_Worker] = []
        self.raised: list[str] = []

    @property
    def is_busy(self) -> bool:
        return any(worker.task for worker in self.workers)

    def takes(self, task: Task) -> bool:
        """Gives a task to an idle worker, or to a new one; False where all are busy."""
        while worker := self._idle_or_new():
            try:
                worker.connection.send(task)
            except OSError:  # it died while idle
                self.workers.remove(worker)
                continue
            worker.task = task
            return True
        return False

    def _idle_or_new(self) -> _Worker | None:
        idle = next((worker for worker in self.workers if worker.task is None), None)
        if idle or len(self.workers) == self.limit:
            return idle
        ours, theirs = _context().Pipe()
        with _without_main():
            process = _context().Process(target=_work, args=(theirs, self.how), daemon=True)
            process.start()
        theirs.close()
        self.shared = self.shared or sharing.Shared(data.loaded())
        self.shared.send(ours, process.pid or 0)
        self.workers.append(_Worker(process, ours))
        return self.workers[-1]

    def listen(self, *, timeout: float | None) -> None:
        """Takes what workers have sent; waits for the first of them up to `timeout` seconds."""
        ready = wait([worker.connection for worker in self.workers], timeout)
        for worker in [worker for worker in self.workers if worker.connection in ready]:
            try:
                kind, *content = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if kind == "done":
                self.raised += content[0]
                worker.task = None
            elif kind == "fit":
                self.limit = content[0]
                self.how = replace(self.how, processes=self.limit, by_memory=False)
            else:
                progress.show(worker.bars, kind, *content)

    def _bury(self, worker: _Worker) -> None:
        worker.process.join()
        self.workers.remove(worker)
        progress.close(worker.bars)
        if worker.task:
            self.raised.append(f"its process ended ({_reason(worker.process.exitcode)})")

    def end(self) -> None:
        """Idle workers leave by themselves once their connection is closed, busy ones are ended."""
        for worker in self.workers:
            progress.close(worker.bars)
            worker.connection.close()
            if worker.task:
                worker.process.terminate()
        for worker in self.workers:
            worker.process.join()
        if self.shared:
            self.shared.close()


def _reason(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _context() -> Any:
    """Forked from a server that has loaded everything, on Linux; elsewhere forking is not safe with torch."""
    return multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


@contextmanager
def _without_main() -> Iterator[None]:
    """Keeps children from running the caller's script again, so that it needs no `if __name__ == "__main__"`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started here are not interrupted while they import; for us Ctrl-C is only put off."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, how: Packing) -> None:
    """A worker's life: trains what it is given, until the connection is closed or its parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.raiseExceptions = False  # a log that a full disk cannot take is no reason for a traceback
    import torch

    from cnn_ablation.runs.run import run
    from cnn_ablation.tasks.image_classification import devices

    torch.set_num_threads(how.threads)  # also where a run does not say, because a GPU computes it
    try:
        data.take_over(sharing.receive(connection))
    except (EOFError, OSError):  # the parent was interrupted meanwhile
        return
    progress.send_to(connection.send)

    @cache
    def concurrent_jobs(device: torch.device) -> int:
        if not how.by_memory:
            return how.processes
        fit = min(how.processes, 1 + devices.room_for_more(device))
        connection.send(("fit", fit))
        return fit

    while True:
        try:
            task: Task = connection.recv()
        except (EOFError, OSError):
            return
        raised = []
        try:
            with _logging_to(task.folder / LOG_FILE):
                run(task.config, task.folder, study=task.study, concurrent_jobs=concurrent_jobs, threads=how.threads)
        except Exception as error:  # whatever it is, the parent reports it
            raised.append(f"{type(error).__name__}: {error}")
        connection.send(("done", raised))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """In the form that Hydra gives the logs of its own jobs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root, handler = logging.getLogger(), logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
