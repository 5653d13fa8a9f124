"""Jobs side by side on this machine: worker processes that are started when needed and stay while there is work."""

from __future__ import annotations

from collections.abc import Iterable

from cnn_ablation.common import progress
from cnn_ablation.launch import children
from cnn_ablation.launch.assignments import Assignment, OnEnd
from cnn_ablation.launch.packing import Packing
from cnn_ablation.launch.team import Team
from cnn_ablation.runs.task import task_named


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
        self._team: Team | None = None
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
            children.start_loading(task_named(self.task).PRELOADED)
            progress.say(str(self.how))
            self._team = Team(self.task, self.how)
        try:
            found = self._team.train(assignments, on_end)
        except BaseException:
            self.leave()  # also where they are busy
            raise
        if not self._stays:
            self.leave()
        return found
