"""Jobs side by side: worker processes that train them, one thread or a few each, and say how far they are.

On a CPU two one-thread processes train two runs in less time than one two-thread process trains one after the other:
the layers of a small network are too short to be shared. On a GPU a job is an arm with all its seeds, and arms share
the device while its memory allows; where a person asks for it, they share a process too. No torch here, no Hydra.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from cnn_ablation.common import lanes, machine, progress
from cnn_ablation.common.allocation import VISIBLE_GPUS
from cnn_ablation.common.device_names import kind_of, place_of
from cnn_ablation.common.errors import one_line
from cnn_ablation.config import StudyConfig
from cnn_ablation.launch import sharing
from cnn_ablation.runs.run import ConcurrentJobs, run
from cnn_ablation.runs.task import Footprint, How, Task, task_named, task_of

LOG_FILE = "cnn_ablation.log"  # as Hydra names it, after the job
_MOST_LANES = 16  # of a process: each has two ends of a pipe open, and more arms than this would not share a GPU
_SECONDS_TO_LEAVE = 10.0  # a process that has lost its GPU may hang at its end


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


@dataclass(frozen=True)
class Assignment:
    """One job: what `runs.run` is called with."""

    config: StudyConfig
    folder: Path
    study: Path


OnEnd = Callable[[Assignment], None]


@dataclass
class _Group:
    """Processes that share a device: the processor, or one GPU."""

    how: Packing
    limit: int
    device: str | None = None
    """The only GPU that they see; None where they see all that this process does."""
    by_threads: bool = True
    """Whether jobs that can share a process, a thread each. No longer once one of them could not, or it died."""

    @property
    def is_open(self) -> bool:
        """Whether new processes may join it."""
        return self.limit > 0


def _groups(how: Packing) -> list[_Group]:
    """Of a GPU whose memory decides, one process begins."""
    at_first = 1 if how.by_memory else how.processes
    return [_Group(how, at_first, device) for device in how.devices or (None,)]


@dataclass
class _Worker:
    """A process, or one of several threads of a process that train side by side."""

    process: BaseProcess
    connection: Connection
    group: _Group
    assignment: Assignment | None = None
    bars: list[progress.OpenBar] = field(default_factory=list)
    common: str | None = None
    """What the jobs of a process with several threads have in common (`Task.common_process`)."""


def start_loading(preloaded: str) -> None:
    """Lets a server process load what workers need while the caller does something else; workers are forked from it.

    Without effect where processes are not forked, or the server is there.

    Args:
        preloaded: the module that loads it (`runs.task.Task.PRELOADED`).
    """
    context = _context()
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver, resource_tracker

        context.set_forkserver_preload([preloaded])
        resource_tracker.ensure_running()  # else it is started in between, and lifts the block
        with without_main(), deaf_to_ctrl_c():
            forkserver.ensure_running()


class Crew:
    """Worker processes that train jobs; within a `with` they stay for the next ones, or else they leave after each.

    A worker that dies (killed, out of memory) costs the run it was training; another one takes its place. So does one
    whose GPU does nothing more for it. Where a GPU does nothing for a new one either, the others train its jobs. Jobs
    that shared a process are trained once more, each by a process of its own.

    Args:
        task: what is trained, one for all jobs (`runs.task.TASKS`).
        how: they share this machine.
    """

    def __init__(self, task: str, how: Packing):
        self.task, self.how = task, how
        self._team: _Team | None = None
        self._stays = False

    def __enter__(self) -> Crew:
        self._stays = True
        return self

    def __exit__(self, *_: object) -> None:
        self._stays = False
        self.leave()

    def leave(self) -> None:
        """Ends them; those that come next are handed what has been loaded by then."""
        team, self._team = self._team, None
        if team:
            team.end()

    def train(self, assignments: Iterable[Assignment], on_end: OnEnd | None = None) -> list[str]:
        """Trains jobs side by side, which are taken from the iterable while others train.

        Args:
            assignments: the jobs.
            on_end: called here for each that has come to its end, however that was.

        Returns:
            What they raised instead of leaving a record, one line each.
        """
        if self._team is None:
            start_loading(task_named(self.task).PRELOADED)
            progress.say(str(self.how))
            self._team = _Team(self.task, self.how)
        try:
            found = self._team.train(assignments, on_end)
        except BaseException:
            self.leave()  # also where they are busy
            raise
        if not self._stays:
            self.leave()
        return found


class _Team:
    """Worker processes and what they have raised so far."""

    def __init__(self, task: str, how: Packing):
        self.task, self.at_once, self.groups = task, how.workers, _groups(how)
        self.shared: sharing.Shared | None = None
        self.workers: list[_Worker] = []
        self.waiting = deque[Assignment]()
        self._common = dict[Path, str | None]()
        self.raised: list[str] = []
        self.on_end: OnEnd | None = None

    @property
    def is_busy(self) -> bool:
        return any(worker.assignment for worker in self.workers)

    def train(self, assignments: Iterable[Assignment], on_end: OnEnd | None) -> list[str]:
        """What jobs raised instead of leaving a record."""
        waiting, coming = self.waiting, iter(assignments)
        self.raised, self.on_end = [], on_end
        waiting.clear()
        while True:
            while waiting and self.takes(waiting[0]):
                waiting.popleft()
            if len(waiting) < self.at_once and (assignment := next(coming, None)):
                waiting.append(assignment)
                self.listen(timeout=0)
            elif waiting or self.is_busy:
                self.listen(timeout=None)
            else:
                return self.raised

    def takes(self, assignment: Assignment) -> bool:
        """Gives an assignment to an idle worker, or to a new one; False where all are busy."""
        while worker := self._idle_or_new(assignment):
            try:
                worker.connection.send(assignment)
            except OSError:  # it died while idle
                self.workers.remove(worker)
                continue
            worker.assignment = assignment
            return True
        return False

    def _idle_or_new(self, assignment: Assignment) -> _Worker | None:
        common = self._common_process(assignment)
        if idle := next((worker for worker in self.workers if self._can_take(worker, common)), None):
            return idle
        with_room = [group for group in self.groups if self._size(group) < group.limit] or self._made_room()
        if not with_room:
            return None
        group = min(with_room, key=self._size)
        return self._new(group, assignment, common if group.by_threads else None)

    def _common_process(self, assignment: Assignment) -> str | None:
        """Asked once for each job: the task may have to ask a GPU."""
        if assignment.folder not in self._common:
            self._common[assignment.folder] = task_named(self.task).common_process(assignment.config)
        return self._common[assignment.folder]

    def _can_take(self, worker: _Worker, common: str | None) -> bool:
        """Whether it is idle, trains such jobs, and there is room for one more beside those of its process."""
        group = worker.group
        if worker.assignment or worker.common != (common if group.by_threads else None):
            return False
        return not self._num_busy(worker.process) or self._size(group) < group.limit

    def _made_room(self) -> list[_Group]:
        """The group of an idle process, which is ended: it trains other jobs than the one that waits."""
        idle = [each for each in self.workers if each.group.is_open and not self._num_busy(each.process)]
        leaving = [worker for worker in idle if worker.process is idle[0].process]
        for worker in leaving:
            worker.connection.close()
        for worker in leaving:
            self._dismiss(worker)
        return [worker.group for worker in leaving[:1]]

    def _new(self, group: _Group, assignment: Assignment, common: str | None) -> _Worker:
        """A new process, with a thread for each job that it may come to train side by side."""
        pipes = [_context().Pipe() for _ in range(min(group.how.processes, _MOST_LANES) if common else 1)]
        visible = os.environ.get(VISIBLE_GPUS) if group.device is None else group.device
        world = _World(self.task, group.how, visible, machine.asked(), assignment if common else None)
        with without_main():
            process = _context().Process(target=_work, args=([theirs for _, theirs in pipes], world), daemon=True)
            process.start()
        for _, theirs in pipes:
            theirs.close()
        self.shared = self.shared or sharing.Shared(task_named(self.task).loaded())
        first, *others = (_Worker(process, ours, group, common=common) for ours, _ in pipes)
        self.shared.send(first.connection, process.pid or 0)
        self.workers += [first, *others]
        return first

    def _size(self, group: _Group) -> int:
        """Jobs that its processes train; an idle one counts too, for it holds memory."""
        processes = {worker.process for worker in self.workers if worker.group is group}
        return sum(max(1, self._num_busy(process)) for process in processes)

    def _num_busy(self, process: BaseProcess) -> int:
        return sum(worker.process is process and worker.assignment is not None for worker in self.workers)

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
                raised, trouble = content
                self.raised += raised
                ended, worker.assignment = worker.assignment, None
                if trouble:
                    self._dismiss(worker)
                self._has_ended(ended)
            elif kind == "apart":
                self._train_apart(worker, *content)
            elif kind == "not begun":
                self._close_group_of(worker, *content)
            elif kind == "fit" and worker.group.is_open:
                group = worker.group
                group.limit = content[0]
                group.how = replace(group.how, processes=group.limit, by_memory=False)
            elif kind != "fit":
                progress.show(worker.bars, kind, *content)

    def _close_group_of(self, worker: _Worker, trouble: str) -> None:
        """Hands the job that a new worker could not even begin to the other GPUs; with the last one it has ended."""
        group, job = worker.group, worker.assignment
        worker.assignment = None
        self._dismiss(worker)
        said = f"GPU {group.device} computes nothing ({trouble})"
        if not any(other.is_open for other in self.groups if other is not group):
            self.raised.append(said)
            self._has_ended(job)
            return
        if group.is_open:
            progress.warn(f"{said}: its arms are trained on the other GPUs")
        group.limit = 0
        if job:
            self.waiting.appendleft(job)

    def _dismiss(self, worker: _Worker) -> None:
        """Lets go of a worker that leaves."""
        worker.connection.close()
        worker.process.join(_SECONDS_TO_LEAVE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join(_SECONDS_TO_LEAVE)
        self.workers.remove(worker)
        progress.close(worker.bars)

    def _bury(self, worker: _Worker) -> None:
        self._dismiss(worker)
        reason = f"its process ended ({exit_reason(worker.process.exitcode)})"
        if worker.assignment and worker.common:
            self._train_apart(worker, reason)
        elif worker.assignment:
            self.raised.append(reason)
            self._has_ended(worker.assignment)

    def _train_apart(self, worker: _Worker, reason: str) -> None:
        """Lets a process of its own train once more what a thread could not, and those that come after it too."""
        worker.group.by_threads = False
        if worker.assignment:
            progress.warn(f"{reason}; training {worker.assignment.config.arm.name} in a process of its own")
            self.waiting.appendleft(worker.assignment)
            worker.assignment = None

    def _has_ended(self, assignment: Assignment | None) -> None:
        if self.on_end and assignment:
            self.on_end(assignment)

    def end(self) -> None:
        """Idle workers leave by themselves once their connection is closed, busy ones are ended."""
        for worker in self.workers:
            progress.close(worker.bars)
            worker.connection.close()
            if worker.assignment:
                worker.process.terminate()
        for worker in self.workers:
            worker.process.join()
        if self.shared:
            self.shared.close()


def exit_reason(exit_code: int | None) -> str:
    """How a process ended, in words: `signal SIGKILL`, `exit code 1`."""
    if exit_code is not None and exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _context() -> Any:
    """Forked from a server that has loaded everything, on Linux; elsewhere forking is not safe with torch."""
    return multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


@contextmanager
def without_main() -> Iterator[None]:
    """Keeps children from running the caller's script again, so that it needs no `if __name__ == "__main__"`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started here are not interrupted while they import; for us Ctrl-C is only put off."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _World(NamedTuple):
    """What a worker is told when it begins."""

    task: str
    how: Packing
    visible: str | None
    """The GPUs that it may see, as `CUDA_VISIBLE_DEVICES` names them; None for all."""
    asked: machine.Allocation | None
    """What its parent sees this machine as."""
    first: Assignment | None
    """One of the jobs that its threads train side by side; None where it trains one after the other."""


def _work(connections: Sequence[Connection], world: _World) -> None:
    """A worker's life: trains what it is given, until its connections are closed or its parent dies."""
    _see(world.visible)
    with machine.seen_as(world.asked) if world.asked else nullcontext():
        _live(connections, world)


def _see(visible: str | None) -> None:
    """CUDA reads the variable when it is first used, which the server that workers are forked from does not.

    That server may have been started when another job of this process saw other GPUs.
    """
    os.environ.pop(VISIBLE_GPUS, None)
    if visible is not None:
        os.environ[VISIBLE_GPUS] = visible


def _live(connections: Sequence[Connection], world: _World) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.raiseExceptions = False  # a log that a full disk cannot take is no reason for a traceback
    task, how = task_named(world.task), world.how
    task.limit_threads(how.threads)
    try:
        task.take_over(sharing.receive(connections[0]))
    except (EOFError, OSError):  # the parent was interrupted meanwhile
        return
    send = lanes.send if world.first else connections[0].send
    progress.send_to(send)

    @cache
    def concurrent_jobs(decided: How) -> int:
        if not how.by_memory:
            return how.processes
        fit = min(how.processes, 1 + task.room_for_more(decided))
        send(("fit", fit))
        return fit

    serve = partial(_serve, task=task, how=how, concurrent_jobs=concurrent_jobs)
    if world.first is None:
        serve(connections[0])
        return
    logging.getLogger().setLevel(logging.INFO)  # as each job sets it, and puts back what was there before
    with task.computing_as(task.resolve(_as_seen(world.first, how).config, threads=how.threads)):  # likewise
        lanes.serve(connections, serve)


def _serve(connection: Connection, task: Task, how: Packing, concurrent_jobs: ConcurrentJobs) -> None:
    """Trains what it is given until the connection is closed, or the GPU does nothing more for this process.

    In a lane an error sends its job to a process of its own, which asks the GPU.
    """
    is_asked = len(how.devices) > 1 and not lanes.in_one()  # first, where others can take its place
    while True:
        try:
            assignment = _as_seen(connection.recv(), how)
        except (EOFError, OSError):
            return
        if is_asked and (trouble := task.trouble(assignment.config)):
            connection.send(("not begun", trouble))
            return
        is_asked = False
        try:
            raised = _carry_out(assignment, how, concurrent_jobs)
        except Exception as error:
            connection.send(("apart", one_line(error)))
            continue
        trouble = "" if lanes.in_one() else task.trouble(assignment.config)
        connection.send(("done", raised, trouble))
        if trouble:
            return


def _as_seen(assignment: Assignment, how: Packing) -> Assignment:
    """A job as a process has it that sees one GPU: that is the first, and `auto`, for which the study took it."""
    config = assignment.config
    device = "cuda" if config.device == "auto" else kind_of(config.device)
    return replace(assignment, config=replace(config, device=device)) if how.devices else assignment


def _carry_out(assignment: Assignment, how: Packing, concurrent_jobs: ConcurrentJobs) -> list[str]:
    """Returns what was raised instead of leaving a record; in a lane, raises it."""
    config, folder, study = assignment.config, assignment.folder, assignment.study
    try:
        with logging_to(folder / LOG_FILE):
            run(config, folder, study=study, concurrent_jobs=concurrent_jobs, threads=how.threads)
    except (Exception, KeyboardInterrupt) as error:  # the parent reports it; Ctrl-C is not heard here
        if lanes.in_one():
            raise
        return [f"{type(error).__name__}: {error}"]
    return []


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def logging_to(path: Path, name: str | None = None) -> Iterator[None]:
    """In the form that Hydra gives the logs of its own jobs.

    Args:
        path: of the file.
        name: of the one logger whose lines go there, and nowhere else; None for all, but in a lane for its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    logger, handler = logging.getLogger(name), logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    if lanes.in_one():
        this_thread = threading.get_ident()
        handler.addFilter(lambda record: record.thread == this_thread)
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = name is None
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]
