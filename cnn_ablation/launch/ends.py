"""Which assignments have come to their end, told by the records that their runs leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cnn_ablation.launch.assignments import Assignment, OnEnd
from cnn_ablation.runs.records import record_path


def records_of(assignment: Assignment) -> list[Path]:
    """Where its runs leave their records, in the order of its seeds."""
    return [record_path(assignment.folder, seed) for seed in assignment.config.seeds]


class Ends:
    """Says of assignments when all their runs have their records."""

    def __init__(self, assignments: Sequence[Assignment], on_end: OnEnd, is_written: Callable[[Path], bool]):
        self._open, self._on_end, self._is_written = list(assignments), on_end, is_written

    def look(self, *, all_of_them: bool = False) -> None:
        """`all_of_them`: nobody waits for records any more."""
        before, self._open = self._open, []
        for each in before:
            if all_of_them or all(map(self._is_written, records_of(each))):
                self._on_end(each)
            else:
                self._open.append(each)
