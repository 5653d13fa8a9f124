"""Runs that jobs of an engine have trained before: taken from the store, where a job would do nothing but find them.

On which machine a job will run nobody knows beforehand, and so not what it will compute with. What jobs like it have
left is what it may leave: same engine, same settings, code, libraries and request, as their study wrote down when it
submitted them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from cnn_ablation.common.errors import RecordError
from cnn_ablation.launch import submissions
from cnn_ablation.launch.contents import Contents
from cnn_ablation.launch.taking import writers
from cnn_ablation.launch.workers import Assignment
from cnn_ablation.runs.records import Run, read_run, record_path
from cnn_ablation.runs.run import finished, leave
from cnn_ablation.runs.store import RunStore
from cnn_ablation.runs.task import task_of


class TrainedBefore:
    """What is on record in the folders of studies.

    Args:
        studies: their folders; those that are gone have none.
        engine: the name of its class.
        contents: of assignments for it.
    """

    def __init__(self, studies: Iterable[Path], engine: str, contents: Contents):
        self._studies, self._engine, self._contents = list(studies), engine, contents

    def take(self, assignments: Iterable[Assignment]) -> list[Assignment]:
        """Leaves the records of those assignments all of whose runs the store still has; returns these.

        Args:
            assignments: labelled; their data are loaded, or are so now: other data are another run.

        Raises:
            RecordError: a record cannot be written.
        """
        taken = []
        with writers() as write:
            for each in assignments:
                if runs := self._runs(each):
                    taken.append(each)
                    write(leave, runs, each.folder, Path(each.config.store))
        return taken

    def _runs(self, assignment: Assignment) -> list[Run]:
        """All runs of an assignment, as ones of its arm; none where one is missing."""
        if not (assignment.config.reuse and self._records):
            return []
        content = self._contents.of(assignment)
        found = [self._run(assignment, content, seed) for seed in assignment.config.seeds]
        return [run for run in found if run] if all(found) else []

    def _run(self, assignment: Assignment, content: str, seed: int) -> Run | None:
        config, store = assignment.config, RunStore(Path(assignment.config.store))
        for path in self._records.get((content, record_path(assignment.folder, seed).name), ()):
            try:
                there = read_run(path)
            except RecordError:
                continue
            is_same = there.fingerprint and (there.arm, there.seed) == (config.arm.name, seed)
            if is_same and _is_of_these_data(there, assignment) and (run := finished(config, store, there.fingerprint)):
                return run
        return None

    @cached_property
    def _records(self) -> dict[tuple[str, str], Sequence[Path]]:
        """Where the records of a content with a seed should be, by the names of their files."""
        found = defaultdict[tuple[str, str], list[Path]](list)
        for study in self._studies:
            for submission in submissions.read(study, settled=True):
                if submission.engine == self._engine:
                    for place, content in submission.all_runs():
                        found[content, Path(place).name].append(study / place)
        return dict(found)


def _is_of_these_data(run: Run, assignment: Assignment) -> bool:
    """Whether it was trained on the data as they are now."""
    config, task = assignment.config, task_of(assignment.config)
    now = task.identity(config, task.resolve(config, planned=True), seed=run.seed)
    return bool(run.provenance.get("identity", {}).get("data") == now["data"])
