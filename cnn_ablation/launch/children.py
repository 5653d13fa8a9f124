"""Starting processes beside this one: how they come to be, what they do not inherit, and how one has ended."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def context() -> Any:
    """How they come to be: forked from a server that has loaded everything, on Linux; elsewhere new, for forking is not
    safe with torch.
    """
    return multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def start_loading(preloaded: str) -> None:
    """Lets a server process load what workers need while the caller does something else; workers are forked from it.

    Without effect where processes are not forked, or the server is there.

    Args:
        preloaded: the module that loads it (`runs.task.Task.PRELOADED`).
    """
    kind = context()
    if kind.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        kind.set_forkserver_preload([preloaded])
        with without_main(), deaf_to_ctrl_c():
            forkserver.ensure_running()


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
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # else it may be started in between, and lifts the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_reason(exit_code: int | None) -> str:
    """How a process ended, in words: `signal SIGKILL`, `exit code 1`."""
    if exit_code is not None and exit_code < 0:
        names = {each.value: each.name for each in signal.Signals}
        return f"signal {names.get(-exit_code, -exit_code)}"  # those for real time have no names
    return f"exit code {exit_code}"
