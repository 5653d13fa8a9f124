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
from cnn_ablation.config import StudyConfig
from cnn_ablation.launch import submissions
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.contents import Contents
from cnn_ablation.launch.taking import writers
from cnn_ablation.runs.provenance import fingerprint
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
        threads: of a run, as its packing decides; None for one that has its job to itself.
    """

    def __init__(self, studies: Iterable[Path], engine: str, contents: Contents, *, threads: int | None = None):
        self._studies, self._engine, self._contents, self._threads = list(studies), engine, contents, threads

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
            is_same = there.seed == seed and self._identifies(there, config)
            if is_same and (run := finished(config, store, there.fingerprint)):
                return run
        return None

    def _identifies(self, run: Run, config: StudyConfig) -> bool:
        """Whether it is of a configuration, its data and code as they are now; what only its machine knows is as it is.

        What a study wrote down when it submitted it may be older: the record may be of another study in its folder.
        """
        task, there = task_of(config), run.provenance.get("identity")
        if not (run.fingerprint and isinstance(there, dict) and fingerprint(there) == run.fingerprint):
            return False
        how = task.resolve(config, threads=self._threads, planned=True)
        now = task.identity(config, how, seed=run.seed)
        known = {name: there.get("settings", {}).get(name) for name in how.unknown()}
        return fingerprint({**now, "settings": now["settings"] | known}) == run.fingerprint

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
