"""Independent random streams from one seed: changing a knob must not move a stream that it does not use."""

from __future__ import annotations

import hashlib


def stream_seed(seed: int, stream: str) -> int:
    """A 63-bit seed for the named stream ("order", "dropout", "weights/Conv1") of a run's `seed`."""
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
