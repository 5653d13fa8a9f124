"""Jobs side by side: worker processes that train them, one thread or a few each, and say how far they are.

On a CPU two one-thread processes train two runs in less time than one two-thread process trains one after the other:
the layers of a small network are too short to be shared. On a GPU a job is an arm with all its seeds, and arms share
the device while its memory allows. No torch here, no Hydra.
"""

from __future__ import annotations

import ctypes
import logging
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

from cnn_ablation import data, progress, sharing
from cnn_ablation.config import Config

LOG_FILE = "cnn_ablation.log"  # as Hydra names it, after the job
_GIB_PER_PROCESS = 1.5  # torch, scikit-learn, a copy of CIFAR-10 in two forms, and the maps of a step


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


def packing(config: Config, num_runs: int) -> Packing:
    """As many processes as there are cores, jobs and memory for.

    A function of the command and the machine alone, not of what is left to train: on a CPU the number of threads
    decides the last bits of a result, and the same command gives the same bits.

    Args:
        config: `timing=isolated`, or Apple's GPU, trains one job at a time.
        num_runs: of the study.
    """
    if not may_be_packed(config, num_runs):
        return ONE_AT_A_TIME
    from joblib import cpu_count

    cores = cpu_count(only_physical_cores=True)  # of those that the process may use, also in a container
    device = device_type(config)
    jobs = {"cpu": num_runs, "cuda": num_runs // config.replicates}
    processes = min(cores, jobs.get(device, 1), _processes_in_memory())
    if processes <= 1:
        return ONE_AT_A_TIME
    return Packing(processes, cores // processes, by_memory=device == "cuda")


def may_be_packed(config: Config, num_runs: int) -> bool:
    """As far as can be said without torch."""
    return config.timing == "packed" and config.device != "mps" and num_runs > 1


def device_type(config: Config) -> str:
    """`cpu`, `cuda` or `mps`; what `auto` stands for here."""
    if config.device != "auto":
        return config.device
    if not _may_have_gpu():
        return "cpu"
    from cnn_ablation import devices  # imports torch, which takes seconds

    return devices.choose("auto").type


def _may_have_gpu() -> bool:
    """Whether there is a driver for one (NVIDIA's library, AMD's device); only then does torch have to be asked."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _processes_in_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return sys.maxsize
    available = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), 0)
    return max(1, int(available / 2**20 / _GIB_PER_PROCESS)) if available else sys.maxsize


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

    Without effect where processes are not forked.
    """
    context = _context()
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        context.set_forkserver_preload(["cnn_ablation.preloaded"])
        with _without_main():
            forkserver.ensure_running()


def train_side_by_side(tasks: Iterable[Task], how: Packing) -> list[str]:
    """Trains tasks in up to `how.processes` worker processes; tasks are taken from the iterable while others train.

    A worker that dies (killed, out of memory) costs the run it was training; another one takes its place.

    Returns:
        What tasks raised instead of leaving a record, one line each.
    """
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
        sharing.send(ours, data.loaded(), process.pid or 0)
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


def _work(connection: Connection, how: Packing) -> None:
    """A worker's life: trains what it is given, until the connection is closed or its parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.raiseExceptions = False  # a log that a full disk cannot take is no reason for a traceback
    import torch

    from cnn_ablation import devices
    from cnn_ablation.runs import run

    torch.set_num_threads(how.threads)
    data.take_over(sharing.receive(connection))
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
                run(task.config, task.folder, study=task.study, concurrent_jobs=concurrent_jobs)
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
