"""Handing large arrays to another process without sending them through a pipe. No torch."""

from __future__ import annotations

import mmap
import os
import pickle
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any, BinaryIO


class Shared:
    """A value for other processes: they all map the same arrays, which are in memory once.

    Where the system has no anonymous files (they are Linux's), each process is sent the arrays through its pipe.
    """

    def __init__(self, value: Any):
        self._file = _anonymous_file()
        buffers: list[pickle.PickleBuffer] = []
        keep_apart = buffers.append if self._file else None
        self._content = pickle.dumps(value, protocol=5, buffer_callback=keep_apart)
        self._sizes = [self._file.write(buffer.raw()) for buffer in buffers] if self._file else []
        if self._file:
            self._file.flush()

    def send(self, connection: Connection, process_id: int) -> None:
        """Hands the value to a process; `receive` there takes it."""
        connection.send((self._content, self._sizes))
        if self._file and self._sizes:
            reduction.send_handle(connection, self._file.fileno(), process_id)

    def close(self) -> None:
        """No further process can be handed the value; those that have it keep it."""
        if self._file:
            self._file.close()


def _anonymous_file() -> BinaryIO | None:
    try:
        return os.fdopen(os.memfd_create("cnn_ablation"), "wb")
    except (AttributeError, OSError):
        return None


def receive(connection: Connection) -> Any:
    """What `Shared.send` sent. Its arrays may be written to, without effect on other processes."""
    content, sizes = connection.recv()
    if not sizes:
        return pickle.loads(content)
    file = reduction.recv_handle(connection)
    try:
        memory = memoryview(mmap.mmap(file, sum(sizes), access=mmap.ACCESS_COPY) if sum(sizes) else b"")
    finally:
        os.close(file)
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    parts = [memory[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    return pickle.loads(content, buffers=parts)
