"""The process of one job, for engines that give a job no process of its own: `python -m ... BATCH`.

It ends with the process that started it, whose end of our standard input closes then, however that one ended.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

SECONDS_TO_LEAVE = 5.0
"""From being asked to end to being ended."""


def main() -> None:
    """Carries out the batch that is named on the command line."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from cnn_ablation.launch.batches import carry_out

    carry_out(Path(sys.argv[1]))


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock would be held while the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_LEAVE)
    os._exit(1)


if __name__ == "__main__":
    main()
