"""The log that a job leaves in its folder."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnn_ablation.common import lanes

LOG_FILE = "cnn_ablation.log"  # as Hydra names it, after the job


@contextmanager
def logging_to(path: Path, name: str | None = None) -> Iterator[None]:
    """In the form that Hydra gives the logs of its own jobs.

    Args:
        path: of the file.
        name: of the one logger whose lines go there, and nowhere else; None for all, but in a lane for its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    logger, handler = logging.getLogger(name), logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    if lanes.in_one():
        this_thread = threading.get_ident()
        handler.addFilter(lambda record: record.thread == this_thread)
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = name is None
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]
