"""What a person sees while they wait: bars on a terminal, one line per event elsewhere. All of it on stderr."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")


def screen_environment() -> dict[str, str]:
    """What rich is to know of the environment: without sizes that are none; at a width of 0 it would show nothing."""
    sizes = ("COLUMNS", "LINES")
    return {name: value for name, value in os.environ.items() if name not in sizes or _is_size(value)}


def _is_size(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


# A terminal is what says so itself: rich alone would also believe FORCE_COLOR, which notebooks set.
console = Console(
    stderr=True,
    force_terminal=sys.stderr.isatty(),
    highlight=False,
    soft_wrap=True,
    _environ=screen_environment(),
)

_PAUSE = 0.5  # seconds between two looks at what is finished
_PAUSE_PER_LOOK = 100  # at most a hundredth of the time is spent on looking
_MOST_LINES = 200  # of items that are watched; more would be read by nobody

_warned: set[str] = set()
_live: list[Progress] = []  # the bars on screen; nested work adds a line to them instead of fighting for the terminal


OpenBar = tuple[ExitStack, Callable[[int], None]]
"""A bar that another process asked for, and the function that moves it on."""

_send: Callable[[tuple[Any, ...]], None] | None = None


def send_to(send: Callable[[tuple[Any, ...]], None]) -> None:
    """Lets another process show what this one has to say: messages for `show`."""
    global _send  # noqa: PLW0603  a process has one terminal
    _send = send


def show(bars: list[OpenBar], kind: str, *content: Any) -> None:
    """Shows a message of another process, whose open bars are in `bars`."""
    if kind == "line":
        console_line(*content)
    elif kind == "once":
        warn_once(*content)
    elif kind == "bar":
        stack = ExitStack()
        bars.append((stack, stack.enter_context(bar(*content))))
    elif kind == "advance" and bars:
        bars[-1][1](*content)
    elif kind == "close" and bars:
        bars.pop()[0].close()


def close(bars: list[OpenBar]) -> None:
    """Removes the bars that a process left open."""
    while bars:
        show(bars, "close")


def console_line(message: str, style: str | None = None) -> None:
    """One line, above the bars if there are any, in the process that owns the terminal."""
    if _send:
        _send(("line", message, style))
    else:
        (_live[-1].console if _live else console).print(message, style=style, markup=False)


@contextmanager
def own_lines_stay() -> Iterator[None]:
    """Within it our lines go where they went before, whatever `sys.stderr` becomes meanwhile."""
    before = console._file  # rich has no public way back to the standard error of the moment
    console.file = console.file
    try:
        yield
    finally:
        console._file = before


def warn(message: str) -> None:
    """One yellow line."""
    console_line(f"warning: {message}", "yellow")


def warn_once(message: str) -> None:
    """`warn`, but once only, however many runs and processes have reason to."""
    if _send:
        _send(("once", message))
    elif message not in _warned:
        _warned.add(message)
        warn(message)


def say(message: str) -> None:
    """One plain line."""
    console_line(message)


@contextmanager
def bars() -> Iterator[Progress]:
    """The bars on screen: those already there, or new ones that vanish at the end."""
    if _live:
        yield _live[-1]
        return
    progress = _new_bars()
    with progress, _suspendable(progress.stop, progress.start), _on_screen(progress):
        yield progress


def _new_bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def _on_screen(progress: Progress) -> Iterator[None]:
    _live.append(progress)
    try:
        yield
    finally:
        _live.remove(progress)


def can_draw() -> bool:
    """Whether a table can be kept on screen: on a terminal that moves its cursor, where nothing else is kept yet."""
    return console.is_interactive and not _live and not _send


@contextmanager
def drawn(table: ConsoleRenderable) -> Iterator[Callable[[], None]]:
    """Keeps a table on screen, with the bars below it, until the end; yields what draws it anew.

    Lines go above it. Nothing else draws it: what that costs is up to the caller.
    """
    below = _new_bars()
    shown: list[Live] = []

    def draw() -> None:  # by a new one each time: one that is started again would first clear lines of others
        shown[:] = [Live(Group(table, below), console=console, auto_refresh=False, transient=True)]
        shown[0].start(refresh=True)

    def refresh() -> None:
        shown[0].refresh()

    def remove() -> None:
        for live in shown:
            live.stop()

    try:
        draw()  # an interruption in here must give back the cursor too, which `with live` would not
        with _suspendable(remove, draw), _on_screen(below):
            yield refresh
    finally:
        remove()


@contextmanager
def _suspendable(remove: Callable[[], None], draw: Callable[[], None]) -> Iterator[None]:
    """Ctrl-Z gives the terminal back, with its cursor, before this process stops; `fg` draws anew, over nothing.

    Args:
        remove: takes what is kept on screen away.
        draw: brings it back.
    """
    stop = getattr(signal, "SIGTSTP", None)  # unknown on Windows
    is_main = threading.current_thread() is threading.main_thread()
    if stop is None or not is_main or signal.getsignal(stop) is not signal.SIG_DFL or not console.is_terminal:
        yield
        return
    owner = os.getpid()

    def suspend(*_: object) -> None:
        is_owner = os.getpid() == owner  # a forked process has no part in the screen
        if is_owner:
            remove()
        signal.signal(stop, signal.SIG_DFL)
        os.kill(os.getpid(), stop)  # stops here, until the shell lets it go on
        signal.signal(stop, suspend)
        if is_owner:
            draw()

    signal.signal(stop, suspend)
    try:
        yield
    finally:
        signal.signal(stop, signal.SIG_DFL)


def num_bars() -> int:
    """Lines that bars take on screen."""
    return sum(len(progress.tasks) for progress in _live)


@contextmanager
def bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """One bar of `total` steps; yields a function that moves it on."""
    if _send:
        send = _send
        send(("bar", label, total))
        try:
            yield lambda steps: send(("advance", steps))
        finally:
            send(("close",))
        return
    with bars() as progress:
        task: TaskID = progress.add_task(label, total=total)
        try:
            yield lambda steps: progress.advance(task, steps)
        finally:
            progress.remove_task(task)


def track(items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
    """Passes `items` on while a bar counts them; off a terminal, one line at the start and one at the end."""
    started = time.perf_counter()
    if not console.is_terminal:
        say(f"{label}: {total}")
    with bar(label, total) as advance:
        for item in items:
            yield item
            advance(1)
    if not console.is_terminal:
        say(f"{label}: done in {time.perf_counter() - started:.1f} s")


@contextmanager
def file_download(name: str, num_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar in bytes for one file; yields a function that takes the bytes just received."""
    if not console.is_terminal:
        say(f"downloading {name} ({num_bytes / 2**20:.0f} MiB)")
    columns = (TextColumn("downloading {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=num_bytes or None)
        yield lambda count: progress.advance(task, count)


@contextmanager
def watch(label: str, total: int, finished: Callable[[], list[T]], line: Callable[[T], str]) -> Iterator[None]:
    """Shows items as they appear, whoever makes them: a bar with the time left on a terminal, one line per item.

    Of many items only the last that a look finds has its line: the others are counted.

    Args:
        label: name of the bar.
        total: items expected.
        finished: all items so far; called twice a second from a thread of its own, less often where it takes long.
        line: an item in a few words.
    """
    seen: set[T] = set()
    with bar(label, total) as advance:

        def look() -> None:
            new = [item for item in finished() if item not in seen]
            for item in new:
                seen.add(item)
                if total <= _MOST_LINES or item is new[-1]:
                    say(f"[{len(seen)}/{total}] {line(item)}")
                advance(1)

        with looking(look):
            yield


@contextmanager
def looking(look: Callable[[], None], pause_per_look: float = _PAUSE_PER_LOOK) -> Iterator[None]:
    """Calls a function twice a second from a thread of its own, less often where it takes long, and once at the end.

    Args:
        look: what is called.
        pause_per_look: how many times as long as a call a pause is at least.
    """
    done = threading.Event()

    def keep_looking() -> None:
        pause = _PAUSE
        while not done.wait(pause):
            started = time.perf_counter()
            look()
            pause = max(_PAUSE, pause_per_look * (time.perf_counter() - started))

    watcher = threading.Thread(target=keep_looking, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        look()
