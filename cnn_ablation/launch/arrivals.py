"""Records of a study as they come: told by looks at its folder that cost little, however many are still to come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from pathlib import Path


class Arrivals:
    """The records that are there so far; each call is a look.

    Where a job has no folder it has no record: ten thousand names are listed in the time of a few hundred such looks.

    Args:
        study: the folder of the study.
        expected: records that are to come, each in the folder of its job below that.
        is_new: whether a record has been written since the study began.
    """

    def __init__(self, study: Path, expected: Iterable[Path], is_new: Callable[[Path], bool]):
        self._study, self._is_new = study, is_new
        self._open: dict[str, list[Path]] = {}
        self._found = list[Path]()
        for path in expected:
            self._open.setdefault(path.parent.name, []).append(path)

    def __call__(self) -> list[Path]:
        """All that have come, in the order in which looks found them."""
        with suppress(OSError):  # somebody moved it away: what has come stays told
            self._look(set(os.listdir(self._study)))
        return list(self._found)

    def _look(self, there: Set[str]) -> None:
        """At the jobs whose folders are there, by their names."""
        for job in [job for job in self._open if job in there]:
            left = [path for path in self._open[job] if not self._has_come(path)]
            if left:
                self._open[job] = left
            else:
                del self._open[job]

    def _has_come(self, path: Path) -> bool:
        has_come = self._is_new(path)
        if has_come:
            self._found.append(path)
        return has_come
