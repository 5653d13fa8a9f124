"""joblib: worker processes on this machine, which stay for the next job and end with us."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from cnn_ablation.common import machine
from cnn_ablation.common.errors import ConfigError, Problem, one_line
from cnn_ablation.common.machine import Allocation
from cnn_ablation.config.schema import CONDUCT, setting
from cnn_ablation.launch.children import deaf_to_ctrl_c
from cnn_ablation.launch.engines import CANCEL, Engine, JobState

_BATCHES_PER_PROCESS = 4
"""So that the last ones end at about the same time; a process that stays loads nothing anew."""
_PARENT_SECONDS = 0.5


@dataclass(kw_only=True)
class Joblib(Engine):
    """Processes of joblib's loky on this machine.

    `jobs`: so many at once; null is one for each core. `cpus`: threads of each; null is its share. `gpus`: 0 or 1,
    whether jobs train on the GPU, which all of them share.
    """

    gpus: int = setting(0, at_least=0, at_most=1, role=CONDUCT)
    on_detach: str = setting(CANCEL, choices=(CANCEL,), role=CONDUCT)
    poll_seconds: float = setting(0.2, above=0, role=CONDUCT)

    survives: ClassVar[bool] = False

    @property
    def is_here(self) -> bool:
        """As every engine."""
        return True

    @property
    def allocation(self) -> Allocation:
        """Of each process."""
        return self._share

    def num_jobs(self, num_runs: int, seconds: float) -> int:
        """A few for each process; one where it packs runs into processes of its own, which a batch starts anew."""
        each = 1 if self._share.cpus != 1 else _BATCHES_PER_PROCESS
        return min(num_runs, self._processes * each)

    def check(self) -> None:
        """As every engine, and that the machine has the cores."""
        super().check()
        cores, cpus = machine.cores(), self._share.cpus or 1
        if self.cpus and self._processes * cpus > cores:
            allowed = f"jobs times cpus at most {cores}, which this machine has: all processes train at once"
            remedy = f"hydra.launcher.jobs={max(1, cores // cpus)}" if cpus <= cores else "hydra.launcher.cpus=null"
            raise ConfigError([Problem("hydra.launcher.cpus", self.cpus, allowed, remedy=remedy)])

    def submit(self, batches: Sequence[Path], folder: Path) -> list[str]:
        """In the order given; what jobs print goes to a file for each in `folder`."""
        return [self._pool.add(batch, folder / f"{batch.stem}.log") for batch in batches]

    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        """As every engine; jobs of another process are over."""
        return {each: self._pool.state(each) for each in ids}

    def cancel(self, ids: Sequence[str]) -> None:
        """As every engine."""
        self._pool.cancel(ids)

    def close(self) -> None:
        """Ends all processes at once."""
        if "_pool" in vars(self):
            self._pool.close()
            del self._pool

    @cached_property
    def _processes(self) -> int:
        """At once; told once, because what a machine has is asked for again as if it were a job's."""
        return self.jobs or max(1, machine.cores() // (self.cpus or 1))

    @cached_property
    def _share(self) -> Allocation:
        """Of one process; told once, as above."""
        asked, memory = super().allocation, machine.memory()
        if asked.memory is None and memory is not None:
            asked = Allocation(asked.cpus, memory // self._processes, asked.gpus)
        return Allocation(asked.cpus or max(1, machine.cores() // self._processes), asked.memory, asked.gpus)

    @cached_property
    def _pool(self) -> Pool:
        return Pool(self._processes, self._share.cpus or 1)


class Pool:
    """Processes, each an executor of its own: one that dies costs its own batch, and none that others carry out.

    Args:
        size: processes at once, at most.
        threads: of each.
    """

    def __init__(self, size: int, threads: int):
        self.size, self.threads = size, threads
        self.lock = threading.RLock()  # executors tell of what has ended in threads of their own
        self.waiting = deque[tuple[str, Path, Path]]()
        self.idle: list[Any] = []
        self.busy: dict[str, Any] = {}
        """The executor of each batch that is carried out."""
        self.over: dict[str, str] = {}
        """Why each did not end well; empty where it did."""
        self.is_closed = False

    def add(self, batch: Path, log: Path) -> str:
        """A batch to carry out as soon as a process is free; returns its id."""
        with self.lock:
            self.over.pop(str(batch), None)
            self.waiting.append((str(batch), batch, log))
            self._start()
        return str(batch)

    def _start(self) -> None:
        while self.waiting and len(self.busy) < self.size and not self.is_closed:
            name, batch, log = self.waiting.popleft()
            self.busy[name], future = self._given(batch, log)
            future.add_done_callback(partial(self._ended, name))

    def _given(self, batch: Path, log: Path) -> tuple[Any, Future[None]]:
        """The executor that was given a batch, and what will come of it."""
        from joblib.externals.loky import BrokenProcessPool

        with deaf_to_ctrl_c():
            while self.idle:
                executor = self.idle.pop()
                with suppress(BrokenProcessPool):  # its process has died while it was idle
                    return executor, executor.submit(_carry_out, str(batch), str(log))
            executor = self._executor()
            return executor, executor.submit(_carry_out, str(batch), str(log))

    def _executor(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
        threads = dict.fromkeys(names, str(self.threads))
        return ProcessPoolExecutor(1, initializer=_begin, initargs=(os.getpid(),), env=threads)

    def _ended(self, name: str, future: Future[None]) -> None:
        with self.lock:
            executor = self.busy.pop(name, None)
            error = future.exception()
            if executor is None:  # cancelled
                return
            self.over[name] = _reason(error)
            if not _is_broken(error):
                self.idle.append(executor)
            self._start()

    def state(self, name: str) -> JobState:
        """Of a batch by its id; one that nobody here has added is over."""
        with self.lock:
            if name in self.busy:
                return JobState(is_over=False, is_running=True)
            if any(name == waiting for waiting, _, _ in self.waiting):
                return JobState(is_over=False)
            return JobState(is_over=True, reason=self.over.get(name, "its process has ended"))

    def cancel(self, names: Sequence[str]) -> None:
        """Ends processes that carry them out, and forgets those that wait."""
        wanted = set(names)
        with self.lock:
            left = wanted & {*self.busy, *(name for name, _, _ in self.waiting)}
            self.over |= dict.fromkeys(left, "cancelled")
            self.waiting = deque(each for each in self.waiting if each[0] not in left)
            executors = [self.busy.pop(name) for name in left & set(self.busy)]
        for executor in executors:
            executor.shutdown(wait=True, kill_workers=True)
        with self.lock:
            self._start()

    def close(self) -> None:
        """Ends all processes."""
        with self.lock:
            self.is_closed = True
            executors = [*self.busy.values(), *self.idle]
            self.busy, self.idle = {}, []
            self.waiting.clear()
        for executor in executors:
            executor.shutdown(wait=True, kill_workers=True)


def _is_broken(error: BaseException | None) -> bool:
    from joblib.externals.loky import BrokenProcessPool

    return isinstance(error, BrokenProcessPool)


def _reason(error: BaseException | None) -> str:
    """Why a batch did not end well, as its future says."""
    if error is None:
        return ""
    if not _is_broken(error):
        return one_line(error) if isinstance(error, Exception) else type(error).__name__
    code = re.search(r"exit codes of the workers are \{(\w+)\(-?(\d+)\)\}", str(error))
    if code is None:
        return "its process ended"
    name, number = code.groups()
    return f"its process ended ({f'exit code {number}' if name == 'EXIT' else f'signal {name}'})"


def _begin(parent: int) -> None:
    """A process is neither interrupted by Ctrl-C, which reaches all of a terminal, nor does it outlive its parent.

    What it starts itself, to train runs side by side, is started as anywhere: it would look for loky's own way in vain.
    """
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


def _carry_out(batch: str, log: str) -> None:
    from cnn_ablation.launch.batches import carry_out

    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    carry_out(Path(batch))
