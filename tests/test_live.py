"""The table on a terminal while a study trains: what it shows, what it costs, and that it leaves nothing behind."""

from __future__ import annotations

import codecs
import fcntl
import io
import math
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from conftest import UNDRAWN_COMMAND
from rich.console import Console

from cnn_ablation.common import progress
from cnn_ablation.config import StatsConfig
from cnn_ablation.launch import live
from cnn_ablation.launch.live import Board
from cnn_ablation.runs.records import Run, record_path, write_run

HIDE, SHOW, CLEARED = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"


def plain(shown: str) -> str:
    """What a terminal was sent, without colours and movements."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)


class Study:
    """Planned runs and their records, which are written as they finish."""

    def __init__(self, folder: Path, seeds: Mapping[str, int]) -> None:
        names = [(arm, seed) for seed in range(max(seeds.values())) for arm in seeds if seed < seeds[arm]]
        self.planned = {record_path(folder / str(n), seed): (arm, seed) for n, (arm, seed) in enumerate(names)}
        self.path_of = {name: path for path, name in self.planned.items()}

    def finish(self, arm: str, seed: int, **values: object) -> Path:
        path = self.path_of[arm, seed]
        run = Run(arm, "", "", seed, "ok", val_accuracy=0.9, test_accuracy=0.1, total_seconds=10.0)
        write_run(path, replace(run, **values))  # type: ignore[arg-type]
        return path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed, which a test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def drawn(board: Board, width: int = 80, height: int = 24, encoding: str = "utf-8") -> list[str]:
    """The table as lines without colours."""
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=screen, width=width, height=height, force_terminal=True, color_system=None)
    console.print(board)
    screen.flush()
    return screen.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined,no-any-return]


def test_arms_by_seeds_as_they_finish(tmp_path: Path, clock: list[float]) -> None:
    study = Study(tmp_path, {"baseline": 3, "model.activation=leaky": 3, "k=[bold]": 2})
    board = Board(StatsConfig())
    board.expect(study.planned)
    assert [line.rstrip() for line in drawn(board)] == [
        "0 of 8 runs",
        "arm                     seeds  done",
        "baseline                ···     0/3",
        "model.activation=leaky  ···     0/3",
        "k=[bold]                ··      0/2",
    ]
    clock[0] += 20
    paths = [
        study.finish("baseline", 0),
        study.finish("baseline", 2, val_accuracy=0.8, reused=True),
        study.finish("model.activation=leaky", 0, status="failed", val_accuracy=math.nan, error="boom"),
        study.finish("k=[bold]", 1, status="diverged", val_accuracy=0.12345),
    ]
    assert board.add(paths) == [paths[2]]
    assert board.add(paths) == []
    assert [line.rstrip() for line in drawn(board)] == [
        "4 of 8 runs, 1 failed, 1 diverged, 1 reused, about 35 s left",
        "arm                     seeds  done  validation accuracy %",
        "baseline                ●·●     2/3                  85.00",
        "model.activation=leaky  x··     1/3",
        "k=[bold]                ·~      1/2                  12.35",
    ]


def test_no_test_score_is_shown(tmp_path: Path) -> None:
    study = Study(tmp_path, {"baseline": 1})
    board = Board(StatsConfig())
    board.expect(study.planned)
    board.add([study.finish("baseline", 0, test_accuracy=0.77)])
    text = "\n".join(drawn(board))
    assert "validation accuracy %" in text
    assert "77" not in text


def test_a_metric_of_ones_own_keeps_its_name(tmp_path: Path) -> None:
    study = Study(tmp_path, {"baseline": 2})
    board = Board(StatsConfig(metric="test_mae"))
    board.expect(study.planned)
    board.add([study.finish("baseline", seed, metrics={"test_mae": 9.0, "val_mae": 0.12 + seed}) for seed in range(2)])
    assert [line.split() for line in drawn(board)[1:]] == [
        ["arm", "seeds", "done", "val_mae"],
        ["baseline", "●●", "2/2", "0.62"],
    ]


def test_a_damaged_record_counts_as_failed(tmp_path: Path) -> None:
    study = Study(tmp_path, {"baseline": 2})
    board = Board(StatsConfig())
    board.expect(study.planned)
    path = study.finish("baseline", 0)
    path.write_text("{")
    assert board.add([path]) == [path]
    assert drawn(board)[0].rstrip() == "1 of 2 runs, 1 failed"


def test_a_screen_without_unicode_gets_plain_marks(tmp_path: Path) -> None:
    study = Study(tmp_path, {"baseline": 3})
    board = Board(StatsConfig())
    board.expect(study.planned)
    board.add([study.finish("baseline", 0), study.finish("baseline", 1, status="failed")])
    assert drawn(board, encoding="ascii")[2].split() == ["baseline", "#x.", "2/3", "90.00"]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_long_names_lose_their_middle_and_lines_fit(width: int, tmp_path: Path) -> None:
    names = [f"zip.large={{train.batch_size:{n},{'x' * 60}}}{n}" for n in (111, 222)]
    study = Study(tmp_path, dict.fromkeys(names, 5))
    board = Board(StatsConfig())
    board.expect(study.planned)
    board.add([study.finish(names[0], 0)])
    lines = drawn(board, width)
    assert all(len(line.rstrip()) <= width for line in lines)
    first, second = lines[-2:]
    assert "111" in first
    assert "222" in second
    assert first.rstrip().endswith("90.00")
    assert ("..." in first) == (width < 120)


def test_of_many_arms_those_that_finished_last_and_those_that_come_next_are_shown(tmp_path: Path) -> None:
    arms = [f"k={n}" for n in range(100)]
    study = Study(tmp_path, dict.fromkeys(arms, 2))
    board = Board(StatsConfig())
    board.expect(study.planned)
    board.add([study.finish(f"k={n}", 0) for n in range(50)])
    lines = [line.rstrip() for line in drawn(board, height=15)]
    assert [line.split()[0] for line in lines[2:-1]] == [f"k={n}" for n in range(45, 55)]
    assert lines[-1] == "and 90 more arms"
    assert len(lines) <= 15


def test_a_line_is_left_for_each_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path, {f"k={n}": 1 for n in range(30)})
    board = Board(StatsConfig())
    board.expect(study.planned)
    before = len(drawn(board, height=20))
    monkeypatch.setattr(progress, "num_bars", lambda: 4)
    assert len(drawn(board, height=20)) == before - 4


def test_many_seeds_are_counted(tmp_path: Path) -> None:
    study = Study(tmp_path, {"baseline": 50})
    board = Board(StatsConfig())
    board.expect(study.planned)
    board.add([study.finish("baseline", 49)])
    assert drawn(board)[2].split() == ["baseline", "..." + 29 * "·" + "●", "1/50", "90.00"]


def test_rounds_add_to_what_is_there(tmp_path: Path) -> None:
    first, second = Study(tmp_path / "a", {"baseline": 2}), Study(tmp_path / "b", {"k=v": 1})
    board = Board(StatsConfig())
    board.expect(first.planned)
    board.add([first.finish("baseline", 0)])
    board.expect(second.planned)
    assert drawn(board)[0].startswith("1 of 3 runs")
    assert [line.split()[0] for line in drawn(board)[2:]] == ["baseline", "k=v"]


# -- the time left -----------------------------------------------------------------------------------------------------


def test_before_the_first_run_nobody_knows_how_long_it_takes(tmp_path: Path, clock: list[float]) -> None:
    study = Study(tmp_path, {"baseline": 2})
    board = Board(StatsConfig())
    board.expect(study.planned)
    assert math.isnan(board.seconds_left())
    assert "left" not in board.title()


def test_the_time_left_is_what_runs_of_each_arm_took(tmp_path: Path, clock: list[float]) -> None:
    """Two side by side: 3 x 10/2 s of the baseline, 3 x 40/2 s of the wide arm, 4 x 25/2 s of one not yet seen.

    The next two, of the arm not yet seen and of the baseline, are in training and half through.
    """
    study = Study(tmp_path, {"baseline": 4, "wide": 4, "unseen": 4})
    board = Board(StatsConfig())
    board.expect(study.planned)
    clock[0] += 40
    board.add(
        [study.finish("baseline", 0, concurrent_runs=2), study.finish("wide", 0, total_seconds=40.0, concurrent_runs=2)]
    )
    left = 3 * 5 + 3 * 20 + 4 * 12.5 - (12.5 + 5) / 2
    assert board.seconds_left() == pytest.approx(left)
    clock[0] += 25
    assert board.seconds_left() == pytest.approx(left - 25)
    clock[0] += 500
    assert board.seconds_left() == 0
    assert board.title().endswith("a moment left")


@pytest.mark.parametrize(
    ("seconds", "left"),
    [(8, 7.5), (160, 150)],
    ids=["ten machines: of the other eight one is half through", "each waits as long as it trains"],
)
def test_many_runs_tell_how_fast_they_really_go(
    tmp_path: Path, clock: list[float], seconds: float, left: float
) -> None:
    """Eight of sixteen runs of 10 s have finished within so many seconds."""
    study = Study(tmp_path, {"baseline": 16})
    board = Board(StatsConfig())
    board.expect(study.planned)
    clock[0] += seconds
    board.add([study.finish("baseline", seed) for seed in range(8)])
    assert board.seconds_left() == pytest.approx(left)


@pytest.mark.parametrize("values", [{"reused": True}, {"status": "failed"}, {"total_seconds": math.nan}])
def test_runs_that_took_no_time_tell_none(values: dict[str, object], tmp_path: Path, clock: list[float]) -> None:
    study = Study(tmp_path, {"baseline": 2})
    board = Board(StatsConfig())
    board.expect(study.planned)
    board.add([study.finish("baseline", 0, **values)])
    assert math.isnan(board.seconds_left())


def test_when_all_is_done_nothing_is_left(tmp_path: Path, clock: list[float]) -> None:
    study = Study(tmp_path, {"baseline": 1})
    board = Board(StatsConfig())
    board.expect(study.planned)
    board.add([study.finish("baseline", 0)])
    assert board.title() == "1 of 1 run"


# -- on a screen -------------------------------------------------------------------------------------------------------


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What goes to a terminal of 80 columns and 24 lines."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, height=24, highlight=False, soft_wrap=True,
                      _environ={"TERM": "xterm"})  # fmt: skip
    monkeypatch.setattr(progress, "console", console)
    return stream


def watched(study: Study, board: Board, finished: Callable[[], list[Path]]) -> object:
    return live.watch(board, study.planned, finished, lambda path: f"line of {study.planned[path]}")


def test_it_vanishes_and_lines_stay(tmp_path: Path, screen: io.StringIO) -> None:
    study = Study(tmp_path, {"baseline": 2})
    records = [study.finish("baseline", 0), study.finish("baseline", 1, status="failed")]
    with watched(study, Board(StatsConfig()), lambda: records):  # type: ignore[attr-defined]
        progress.warn("something odd")
        with progress.bar("epochs of baseline", 3) as advance:
            advance(1)
    shown = screen.getvalue()
    assert "warning: something odd" in shown
    assert "line of ('baseline', 1)" in shown
    assert "line of ('baseline', 0)" not in shown
    assert shown.count(HIDE) == shown.count(SHOW) == 1
    assert shown.rstrip().endswith("\x1b[2K")  # the last thing is that its lines are cleared
    assert not progress._live


def test_failed_runs_have_a_line_each_up_to_ten(tmp_path: Path, screen: io.StringIO) -> None:
    study = Study(tmp_path, {"baseline": 30})
    records = [study.finish("baseline", seed, status="failed") for seed in range(30)]
    with watched(study, Board(StatsConfig()), lambda: records):  # type: ignore[attr-defined]
        pass
    assert screen.getvalue().count("line of") == 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_the_cursor(error: type[BaseException], tmp_path: Path, screen: io.StringIO) -> None:
    study = Study(tmp_path, {"baseline": 2})
    with pytest.raises(error), watched(study, Board(StatsConfig()), list):  # type: ignore[attr-defined]
        raise error
    assert screen.getvalue().rindex(SHOW) > screen.getvalue().rindex(HIDE)
    assert not progress._live


def test_an_interruption_while_it_is_drawn_first_leaves_the_cursor(tmp_path: Path, screen: io.StringIO) -> None:
    class Interrupted(Board):
        times = 0

        def title(self) -> str:
            self.times += 1
            if self.times == 1:
                raise KeyboardInterrupt
            return super().title()

    study = Study(tmp_path, {"baseline": 2})
    with pytest.raises(KeyboardInterrupt), watched(study, Interrupted(StatsConfig()), list):  # type: ignore[attr-defined]
        pass
    assert screen.getvalue().rindex(SHOW) > screen.getvalue().rindex(HIDE)


@pytest.mark.parametrize("terminal", [{"TERM": "dumb"}, None], ids=["dumb", "no terminal"])
def test_elsewhere_there_are_the_lines_of_before(
    terminal: dict[str, str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal is not None, soft_wrap=True, _environ=terminal or {})
    monkeypatch.setattr(progress, "console", console)
    study = Study(tmp_path, {"baseline": 2})
    records = [study.finish("baseline", seed) for seed in range(2)]
    with watched(study, Board(StatsConfig()), lambda: records):  # type: ignore[attr-defined]
        pass
    lines = [line for line in stream.getvalue().splitlines() if line]
    assert lines == ["[1/2] line of ('baseline', 0)", "[2/2] line of ('baseline', 1)"]


def test_lines_of_many_threads_and_the_table_do_not_wait_for_each_other(tmp_path: Path, screen: io.StringIO) -> None:
    study = Study(tmp_path, {f"k={n}": 1 for n in range(50)})
    board, records = Board(StatsConfig()), [study.finish(f"k={n}", 0) for n in range(50)]
    done = list[Path]()
    with watched(study, board, lambda: list(done)):  # type: ignore[attr-defined]
        talkers = [threading.Thread(target=lambda: [progress.say("x") for _ in range(10)]) for _ in range(3)]
        for talker in talkers:
            talker.start()
        for record in records:
            done.append(record)
            board.add(done)
        for talker in talkers:
            talker.join(timeout=30)
            assert not talker.is_alive()
    assert len(re.findall(r"(?:^|\r)x\s*$", plain(screen.getvalue()), flags=re.MULTILINE)) == 30


def test_drawing_takes_a_hundredth_of_the_time(
    tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PAUSE", 0.001)
    study, looks = Study(tmp_path, {"baseline": 1}), list[float]()

    def slow() -> list[Path]:
        looks.append(time.perf_counter())
        time.sleep(0.005)
        return []

    began = time.perf_counter()
    with watched(study, Board(StatsConfig()), slow):  # type: ignore[attr-defined]
        time.sleep(0.4)
    seconds = time.perf_counter() - began
    assert len(looks) <= 2 + seconds / (101 * 0.005)  # one, none for a hundred times as long, and the last


# -- a real study on a real terminal -----------------------------------------------------------------------------------

TRAINING = """
import time
def train(x: int = 1, *, seed: int) -> dict[str, float]:
    time.sleep({seconds})
    if x == 3:
        raise ValueError("three is too many")
    return {{"score": x + seed / 10}}
"""


class Terminal:
    """A command on a pseudo-terminal, and all that it has shown."""

    def __init__(self, folder: Path, *arguments: str, seconds: float = 0.0) -> None:
        (folder / "my_training.py").write_text(TRAINING.format(seconds=seconds))
        self.screen, inside = pty.openpty()
        self.resize(80, 24)
        command = [sys.executable, UNDRAWN_COMMAND, *arguments]
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        environment = kept | {"TERM": "xterm", "PYTHONPATH": str(folder)}
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in a shell's background ignores it
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=inside, stdout=inside, stderr=inside, env=environment, start_new_session=True,
            preexec_fn=heed,  # noqa: PLW1509
        )  # fmt: skip
        os.close(inside)
        self.shown, self._decoder = "", codecs.getincrementaldecoder("utf-8")(errors="replace")

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, words: str, timeout: float = 60) -> str:
        """Reads until the words are there; empty words: to the end."""
        end = time.monotonic() + timeout
        while not words or words not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self.screen], [], [], 0.1)[0]:
                try:
                    self.shown += self._decoder.decode(os.read(self.screen, 65536))  # which may end within a character
                except OSError:  # the other end is closed
                    break
        return self.shown

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.screen)


STUDY = ("-m", "task=function", "task.target=my_training.train", "settings.x=2,3", "replicates=3")


@pytest.fixture
def terminals() -> Iterator[Callable[..., Terminal]]:
    opened = list[Terminal]()

    def start(*arguments: object, **options: float) -> Terminal:
        opened.append(Terminal(*arguments, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def test_a_study_on_a_terminal(tmp_path: Path, terminals: Callable[..., Terminal]) -> None:
    terminal = terminals(tmp_path, *STUDY, seconds=0.2)
    terminal.until("of 9 runs")
    terminal.resize(60, 20)
    shown = terminal.until("")
    assert terminal.process.wait(timeout=30) == 1  # runs have failed
    assert "seeds  done" in plain(shown)
    assert re.search(r"settings\.x=2  +●+·*  +\d/3  +2\.", plain(shown))
    assert "settings.x=3 seed 0: failed (ValueError: three is too many)" in shown
    assert shown.count(HIDE) == shown.count(SHOW) >= 1
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert "[1/9]" not in shown
    assert "settings.x=2" in shown.rpartition("written to")[0].rpartition(SHOW)[2]


def test_a_suspended_study_gives_the_terminal_back_and_draws_over_nothing(
    tmp_path: Path, terminals: Callable[..., Terminal]
) -> None:
    terminal = terminals(tmp_path, *STUDY, seconds=0.4)
    terminal.until("score")
    before = len(terminal.shown)
    os.kill(terminal.process.pid, signal.SIGTSTP)  # in a session of its own it goes on at once
    shown = terminal.until("")[before:]
    assert terminal.process.wait(timeout=60) == 1
    suspended = shown[shown.index(SHOW) :]
    assert suspended.count(HIDE) == 1
    drawn_anew = suspended[suspended.index(HIDE) :]
    assert CLEARED not in drawn_anew[: drawn_anew.index("of 9 runs")]
    assert drawn_anew.count(SHOW) == 1


def test_an_interrupted_study_leaves_the_terminal_as_it_was(tmp_path: Path, terminals: Callable[..., Terminal]) -> None:
    terminal = terminals(tmp_path, *STUDY, seconds=2)
    terminal.until("of 9 runs")
    os.killpg(terminal.process.pid, signal.SIGINT)
    shown = terminal.until("")
    assert terminal.process.wait(timeout=30) != 0
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert "the same command goes on from there" in shown
