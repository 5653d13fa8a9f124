"""Lanes: threads of one process that each train a job. What such a thread must know of the others; no torch here."""

from __future__ import annotations

import contextvars
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

turn = threading.RLock()
"""Held while something is read or changed that a process has once: the generators that layers draw from, filters of
warnings, what is being captured on a GPU. Only for as long as that takes: every other thread waits."""


def _renew() -> None:
    """In a process that was forked while another thread held it: that thread is not there to let go of it."""
    global turn  # noqa: PLW0603  a process has one
    turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)

_own = threading.local()


def in_one() -> bool:
    """Whether this thread is a lane: figures of the whole process are not its own, nor is what all lanes share."""
    return hasattr(_own, "connection")


@contextmanager
def lane(connection: Connection) -> Iterator[None]:
    """Makes this thread a lane, which says what it has to say through a connection of its own."""
    _own.connection = connection
    try:
        yield
    finally:
        del _own.connection


def send(message: tuple[Any, ...]) -> None:
    """Through the connection of this lane; nobody listens to a thread that is none, such as one of PyTorch's own."""
    if in_one():
        _own.connection.send(message)


def serve(connections: Sequence[Connection], train: Callable[[Connection], None]) -> None:
    """Starts a lane for each connection, and waits until all of them have ended.

    An error that leaves one ends the process: whoever is at its other end would wait for it for ever.
    """

    def live(connection: Connection) -> None:
        try:
            with lane(connection):
                train(connection)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(live, connection), name=f"lane {number}")
        for number, connection in enumerate(connections, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
