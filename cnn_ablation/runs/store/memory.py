"""What a store remembers besides runs: small results, by all that they follow from. Lost, they are worked out again."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.files import write_atomically

DIGESTS = "digests"
"""Of the content of data, by their settings and the stamps of their files."""
PICTURES = "pictures"
"""Files of pictures, by all that they show and what draws them."""
FOLDERS = (DIGESTS, PICTURES)
_MOST = 512  # entries of a kind; the one that was not asked for longest goes first
_CHECKED = hashlib.sha256().digest_size


class Memory:
    """Results of one kind, shared by any number of processes.

    Args:
        store: its folder; nothing is kept where there is none.
        kind: one of `FOLDERS`.
    """

    def __init__(self, store: Path, kind: str):
        self._store, self._folder = store, store / kind

    def find(self, key: str) -> bytes | None:
        """What was kept under a key; None where nothing was, or it is damaged."""
        path = self._folder / key
        try:
            content = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # another user's
            os.utime(path)
        told, content = content[:_CHECKED], content[_CHECKED:]
        return content if hashlib.sha256(content).digest() == told else None

    def keep(self, key: str, content: bytes) -> None:
        """Keeps a result; one that cannot be written costs time later, nothing else."""
        if not self._store.is_dir():
            return
        with suppress(RecordError, OSError):
            checked = hashlib.sha256(content).digest() + content  # so that a torn one is told
            write_atomically(self._folder / key, checked, to_disk=False)
            self._forget_the_oldest()

    def _forget_the_oldest(self) -> None:
        entries = [path for path in self._folder.iterdir() if path.name[0] != "."]
        if len(entries) > _MOST:
            for path in sorted(entries, key=lambda path: path.stat().st_mtime)[: len(entries) - _MOST]:
                path.unlink(missing_ok=True)


def key_of(*parts: Any) -> str:
    """A key of all that a result follows from: values that JSON can write, or whose `repr` says all."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()[:32]
