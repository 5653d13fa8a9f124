"""Handing large arrays to another process without sending them through a pipe. No torch."""

from __future__ import annotations

import mmap
import os
import pickle
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any, BinaryIO


def send(connection: Connection, value: Any, process_id: int) -> None:
    """Sends a value whose arrays the other process maps into its memory; `receive` there takes it.

    Through the pipe where the system has no anonymous files (they are Linux's).
    """
    file = _anonymous_file()
    if file is None:
        connection.send((pickle.dumps(value), []))
        return
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    with file:
        sizes = [file.write(buffer.raw()) for buffer in buffers]
        file.flush()
        connection.send((content, sizes))
        if sizes:
            reduction.send_handle(connection, file.fileno(), process_id)


def _anonymous_file() -> BinaryIO | None:
    try:
        return os.fdopen(os.memfd_create("cnn_ablation"), "wb")
    except (AttributeError, OSError):
        return None


def receive(connection: Connection) -> Any:
    """What `send` sent. Its arrays may be written to, without effect on other processes."""
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
