"""The worker processes of a crew, as their parent sees them: who trains what, who leaves, and who comes instead.

A worker is a process, or one of several threads of one; `launch.worker` is its own side. Groups of them share a device.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from cnn_ablation.common import machine, progress
from cnn_ablation.common.allocation import VISIBLE_GPUS
from cnn_ablation.launch import sharing
from cnn_ablation.launch.assignments import Assignment, OnEnd
from cnn_ablation.launch.children import context, exit_reason, without_main
from cnn_ablation.launch.packing import Packing
from cnn_ablation.launch.worker import World, work
from cnn_ablation.runs.task import task_named

_MOST_LANES = 16  # of a process: each has two ends of a pipe open, and more arms than this would not share a GPU
_SECONDS_TO_LEAVE = 10.0  # a process that has lost its GPU may hang at its end


@dataclass
class Group:
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


def _groups(how: Packing) -> list[Group]:
    """Of a GPU whose memory decides, one process begins."""
    at_first = 1 if how.by_memory else how.processes
    return [Group(how, at_first, device) for device in how.devices or (None,)]


@dataclass
class Worker:
    """A process, or one of several threads of a process that train side by side."""

    process: BaseProcess
    connection: Connection
    group: Group
    assignment: Assignment | None = None
    bars: list[progress.OpenBar] = field(default_factory=list)
    common: str | None = None
    """What the jobs of a process with several threads have in common (`Task.common_process`)."""


class Team:
    """Worker processes and what they have raised so far."""

    def __init__(self, task: str, how: Packing):
        self.task, self.at_once, self.groups = task, how.workers, _groups(how)
        self.shared: sharing.Shared | None = None
        self.workers: list[Worker] = []
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
        common = self._common_process(assignment)
        while worker := self._idle(common):
            try:
                worker.connection.send(assignment)
            except OSError:  # it died while idle
                self._dismiss(worker)
                continue
            worker.assignment = assignment
            return True
        with_room = [group for group in self.groups if self._size(group) < group.limit] or self._made_room()
        if not with_room:
            return False
        group = min(with_room, key=self._size)
        self._hire(group, assignment, common if group.by_threads else None)
        return True

    def _idle(self, common: str | None) -> Worker | None:
        """A worker that can take such a job, of the group that has least to do."""
        idle = [worker for worker in self.workers if self._can_take(worker, common)]
        return min(idle, key=lambda worker: self._num_busy(worker.group), default=None)

    def _common_process(self, assignment: Assignment) -> str | None:
        """Asked once for each job: the task may have to ask a GPU."""
        if assignment.folder not in self._common:
            self._common[assignment.folder] = task_named(self.task).common_process(assignment.config)
        return self._common[assignment.folder]

    def _can_take(self, worker: Worker, common: str | None) -> bool:
        """Whether it is idle, trains such jobs, and there is room for one more beside those of its process."""
        group = worker.group
        if worker.assignment or worker.common != (common if group.by_threads else None):
            return False
        return not self._num_busy(worker.process) or self._size(group) < group.limit

    def _made_room(self) -> list[Group]:
        """The group of an idle process, which is ended: it trains other jobs than the one that waits."""
        idle = [each for each in self.workers if each.group.is_open and not self._num_busy(each.process)]
        leaving = [worker for worker in idle if worker.process is idle[0].process]
        for worker in leaving:
            worker.connection.close()
        for worker in leaving:
            self._dismiss(worker)
        return [worker.group for worker in leaving[:1]]

    def _hire(self, group: Group, assignment: Assignment, common: str | None) -> None:
        """Starts a process, with a thread for each job that it may come to train side by side, and gives it a job."""
        pipes = [context().Pipe() for _ in range(min(group.how.processes, _MOST_LANES) if common else 1)]
        visible = os.environ.get(VISIBLE_GPUS) if group.device is None else group.device
        world = World(self.task, group.how, visible, machine.asked(), assignment if common else None)
        with without_main():
            process = context().Process(target=work, args=([theirs for _, theirs in pipes], world), daemon=True)
            process.start()
        for _, theirs in pipes:
            theirs.close()
        self.shared = self.shared or sharing.Shared(task_named(self.task).loaded())
        first, *others = (Worker(process, ours, group, common=common) for ours, _ in pipes)
        first.assignment = assignment
        self.workers += [first, *others]
        with suppress(OSError):  # it has died already: `listen` buries it, and the job with it
            self.shared.send(first.connection, process.pid or 0)
            first.connection.send(assignment)

    def _size(self, group: Group) -> int:
        """Jobs that its processes train; an idle one counts too, for it holds memory."""
        processes = {worker.process for worker in self.workers if worker.group is group}
        return sum(max(1, self._num_busy(process)) for process in processes)

    def _num_busy(self, of: BaseProcess | Group) -> int:
        theirs = [worker for worker in self.workers if of is worker.process or of is worker.group]
        return sum(worker.assignment is not None for worker in theirs)

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

    def _close_group_of(self, worker: Worker, trouble: str) -> None:
        """Hands the job that a new worker could not even begin to others; where there is no other it has ended.

        Those that its GPU serves already go on: it may have no room for one more. If it is lost, they will say so.
        """
        group, job = worker.group, worker.assignment
        worker.assignment = None
        self._dismiss(worker)
        said = f"GPU {group.device} computes nothing ({trouble})"
        if (size := self._size(group)) and group.is_open:
            group.limit = min(group.limit, size)
            self.waiting.extendleft([job] if job else [])
            return
        if not any(other.is_open for other in self.groups if other is not group):
            self.raised.append(said)
            self._has_ended(job)
            return
        if group.is_open:
            progress.warn(f"{said}: its arms are trained on the other GPUs")
        group.limit = 0
        if job:
            self.waiting.appendleft(job)

    def _dismiss(self, worker: Worker) -> None:
        """Lets go of a worker that leaves."""
        worker.connection.close()
        _see_off(worker.process)
        self.workers.remove(worker)
        progress.close(worker.bars)

    def _bury(self, worker: Worker) -> None:
        self._dismiss(worker)
        reason = f"its process ended ({exit_reason(worker.process.exitcode)})"
        if worker.assignment and worker.common:
            self._train_apart(worker, reason)
        elif worker.assignment:
            self.raised.append(reason)
            self._has_ended(worker.assignment)

    def _train_apart(self, worker: Worker, reason: str) -> None:
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
            _see_off(worker.process)
        if self.shared:
            self.shared.close()


def _see_off(process: BaseProcess) -> None:
    """Waits for a process that leaves, but not for ever."""
    process.join(_SECONDS_TO_LEAVE)
    if process.is_alive():
        process.kill()
        process.join(_SECONDS_TO_LEAVE)
