"""A study on a terminal while it trains: arms by seeds as they finish, how many are to come, and the time left."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from cnn_ablation.common import progress
from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.words import counted
from cnn_ablation.config import StatsConfig
from cnn_ablation.launch.forecast import duration
from cnn_ablation.runs.records import Run, read_run
from cnn_ablation.study.choice import chosen_figure

_PAUSE_PER_LOOK = 100  # reading new records and drawing take at most a hundredth of the time
_MOST_LINES = 10  # of failed runs; more would push the table away, and the end of the study names them
_MOST_MARKS = 30  # seeds of an arm
_LINES_BESIDES = 5  # title, heading, the line of arms that are not shown, and what the shell keeps
_NARROW, _NARROWEST_NAME = 70, 8
_ENOUGH_RUNS = 4  # for each that runs side by side, until their rate can be trusted where it is below one

Planned = tuple[str, int]
"""An arm and a seed."""


@dataclass(frozen=True)
class _Finished:
    """What the table shows of a run."""

    status: str
    figure: float
    seconds: float
    """Of the machine that it may have shared."""
    concurrent_runs: int
    reused: bool

    @property
    def tells_time(self) -> bool:
        return self.status != "failed" and not self.reused and self.seconds > 0


class Board:
    """What is known of a study's runs, as a table that rich draws; planned runs may be added at any time.

    Args:
        settings: say which figure of a run is shown.
    """

    def __init__(self, settings: StatsConfig):
        self._settings = settings
        self._lock = threading.RLock()  # lines of other threads draw the table too
        self._planned: dict[Path, Planned] = {}
        self._finished: dict[Path, _Finished] = {}
        self._heading = ""
        self._factor, self._form = 1, "{:.4g}"
        self._started = self._last = time.monotonic()
        self._since_start = 0  # runs that had finished before

    def expect(self, planned: Mapping[Path, Planned]) -> None:
        """Adds runs that are to come, by the records that they will leave; the clock starts anew."""
        with self._lock:
            self._planned |= planned
            self._started = self._last = time.monotonic()
            self._since_start = len(self._finished)

    def add(self, records: Iterable[Path]) -> list[Path]:
        """Takes in what has finished; returns those records that are new and of failed runs, or cannot be read."""
        new = {path: _read(path) for path in records if path not in self._finished}
        with self._lock:
            for path, run in new.items():
                self._finished[path] = self._of(run) if run else _Finished("failed", math.nan, math.nan, 1, False)
            if new:
                self._last = time.monotonic()
        return [path for path in new if self._finished[path].status == "failed"]

    def _of(self, run: Run) -> _Finished:
        shown = chosen_figure(run, self._settings)
        if run.status != "failed":
            self._heading = f"{shown.words} %" if shown.is_accuracy else shown.column
            self._factor, self._form = shown.factor, "{:.2f}" if shown.is_accuracy else "{:.4g}"
        seconds = run.total_seconds / max(run.concurrent_runs, 1)
        return _Finished(run.status, run.figure(shown.column), seconds, run.concurrent_runs, run.reused)

    # -- the time left -------------------------------------------------------------------------------------------------

    def seconds_left(self) -> float:
        """From what finished runs of an arm took, or those of all arms where it has none; NaN before the first."""
        with self._lock:
            since = list(self._finished.values())[self._since_start :]
            done = [run for run in since if run.tells_time]
            at_once = max([1, *(run.concurrent_runs for run in done)])
            rate = math.fsum(run.seconds for run in done) / max(self._last - self._started, 1e-9)
            if len(done) < _ENOUGH_RUNS * at_once:
                rate = max(rate, 1.0)  # what is in training has done some of its work too
            return max(self._work_left(at_once) / rate - (time.monotonic() - self._last), 0.0)

    def _work_left(self, at_once: int) -> float:
        """Seconds of this machine; other machines may do more of it in a second.

        Args:
            at_once: so many runs are in training, and supposed to be half through.
        """
        to_come = [arm for path, (arm, _) in self._planned.items() if path not in self._finished]
        took: dict[str, list[float]] = {}
        for path, run in self._finished.items():
            if run.tells_time and path in self._planned:
                took.setdefault(self._planned[path][0], []).append(run.seconds)
        if not to_come or not took:
            return math.nan if to_come else 0.0
        means = {arm: statistics.fmean(seconds) for arm, seconds in took.items()}
        mean = statistics.fmean(means.values())
        work = [means.get(arm, mean) for arm in to_come]
        return math.fsum(work) - math.fsum(work[:at_once]) / 2

    # -- drawing -------------------------------------------------------------------------------------------------------

    def title(self) -> str:
        """`23 of 60 runs, 1 failed, 4 reused, about 12 min left`."""
        with self._lock:
            runs, left = list(self._finished.values()), self.seconds_left()
            parts = [f"{len(runs)} of {counted(len(self._planned), 'run')}"]
            counts = Counter(run.status for run in runs)
            counts["reused"] = sum(run.reused for run in runs)
            parts += [f"{counts[word]} {word}" for word in ("failed", "diverged", "reused") if counts[word]]
            if len(runs) < len(self._planned) and not math.isnan(left):
                parts.append(f"about {duration(left)} left" if left >= 1 else "a moment left")
            return ", ".join(parts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            arms = self._by_arm()
            room = max(options.size.height - _LINES_BESIDES - progress.num_bars(), 1)
            shown = arms if len(arms) <= room else {name: arms[name] for name in self._of_interest(list(arms), room)}
            yield Text(self.title(), style="bold")
            yield self._table(shown, options)
            if len(shown) < len(arms):
                yield Text(f"and {counted(len(arms) - len(shown), 'more arm')}", style="dim")

    def _by_arm(self) -> dict[str, list[_Finished | None]]:
        """Their runs in the order of the seeds; None for those to come."""
        seeds: dict[str, dict[int, _Finished | None]] = {}
        for path, (arm, seed) in self._planned.items():
            seeds.setdefault(arm, {})[seed] = self._finished.get(path)
        return {arm: [runs[seed] for seed in sorted(runs)] for arm, runs in seeds.items()}

    def _of_interest(self, arms: Sequence[str], room: int) -> list[str]:
        """Arms of the runs that finished last and of those that come next, as many as there is room for."""
        last = dict.fromkeys(self._planned[path][0] for path in reversed(self._finished) if path in self._planned)
        coming = dict.fromkeys(arm for path, (arm, _) in self._planned.items() if path not in self._finished)
        chosen = list(last)[: room - min(len(coming), room // 2)]
        chosen += [arm for arm in coming if arm not in chosen][: room - len(chosen)]
        chosen += [arm for arm in (*last, *arms) if arm not in chosen][: room - len(chosen)]
        return [arm for arm in arms if arm in set(chosen)]

    def _table(self, arms: Mapping[str, Sequence[_Finished | None]], options: ConsoleOptions) -> Table:
        rows = [(name, _marks(runs, options.ascii_only), *self._figures(runs)) for name, runs in arms.items()]
        room = options.max_width - self._room_of_figures(rows, is_narrow=options.max_width < _NARROW)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("arm", no_wrap=True)
        table.add_column("seeds", no_wrap=True)
        table.add_column("done", justify="right", no_wrap=True)
        table.add_column(self._heading, justify="right")
        for name, marks, count, figure in rows:
            table.add_row(Text(_shortened(name, max(room, _NARROWEST_NAME))), marks, count, figure)
        return table

    def _room_of_figures(self, rows: Sequence[tuple[str, Text, str, str]], *, is_narrow: bool) -> int:
        """Columns of the screen that all but the names take; in a narrow one the last heading is on several lines."""
        heading = max(map(len, self._heading.split(" "))) if is_narrow else len(self._heading)
        marks, counts, figures = (max(map(cell_len, map(str, cells))) for cells in list(zip(*rows, strict=True))[1:])
        return max(marks, len("seeds")) + max(counts, len("done")) + max(figures, heading) + 6

    def _figures(self, runs: Sequence[_Finished | None]) -> tuple[str, str]:
        """How many have finished, and the mean so far of the figure that a line of a run shows elsewhere."""
        done = [run for run in runs if run]
        scored = [run.figure for run in done if math.isfinite(run.figure)]
        mean = self._form.format(self._factor * statistics.fmean(scored)) if scored else ""
        return f"{len(done)}/{len(runs)}", mean


_MARKS = {"ok": ("●", "#", "green"), "diverged": ("~", "~", "yellow"), "failed": ("x", "x", "red")}
_TO_COME = ("·", ".", "dim")


def _marks(runs: Sequence[_Finished | None], ascii_only: bool) -> Text:
    """One for each seed; of many the last."""
    marks = Text("..." if len(runs) > _MOST_MARKS else "")
    for run in runs[-_MOST_MARKS:]:
        mark, plain, style = _MARKS[run.status] if run else _TO_COME
        marks.append(plain if ascii_only else mark, style)
    return marks


def _shortened(name: str, width: int) -> str:
    """A name with its middle left out: arms differ at their ends."""
    if cell_len(name) <= width:
        return name
    half = (width - 3) // 2
    return f"{set_cell_size(name, width - 3 - half)}...{name[len(name) - half :]}"


def _read(path: Path) -> Run | None:
    try:
        return read_run(path, details=False)
    except RecordError:
        return None


@contextmanager
def watch(
    board: Board, expected: Mapping[Path, Planned], finished: Callable[[], list[Path]], line: Callable[[Path], str]
) -> Iterator[None]:
    """Shows runs as they finish: in a table on a terminal, one line per run elsewhere.

    Args:
        board: of the whole study so far.
        expected: the runs that are waited for, by the records that they leave.
        finished: those that are there so far.
        line: a run in a few words.
    """
    if not progress.can_draw():
        with progress.watch("runs", len(expected), finished, line):
            yield
        return
    board.expect(expected)
    said = list[Path]()
    with progress.drawn(board) as draw:

        def look() -> None:
            for path in board.add(finished()):
                said.append(path)
                if len(said) <= _MOST_LINES:
                    progress.say(line(path))
            draw()

        with progress.looking(look, _PAUSE_PER_LOOK):
            yield
