"""What Ray runs for a batch: an actor that starts the job's process, answers while that runs, and leaves with it.

A Ray worker has a search path, an environment and threads of Ray's own, and a method that computes answers nobody: the
job has a process beside it. This module is sent to the nodes by value, and needs of them nothing but Python and Ray.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

JOB = "cnn_ablation.launch.engines.job_process"
SECONDS_TO_LEAVE = 5.0
"""From being asked to end to being ended."""


def ending(batch: Path) -> Path:
    """The file beside its batch that says how a job ended: its actor is gone by then, perhaps also who submitted it."""
    return batch.with_suffix(".ended")


class Job:
    """One job of a study.

    Args:
        batch: what `launch.batches.carry_out` is called with.
        log: the file for what the job prints.
        paths: folders that Python looks for modules in, besides those of the node's own installation.
        hides_gpus: the job asked for none.

    Raises:
        FileNotFoundError: the node does not see the shared folder.
    """

    def __init__(self, batch: str, log: str, paths: Sequence[str], *, hides_gpus: bool):
        import ray

        if not Path(batch).is_file():
            raise FileNotFoundError(f"the node {os.uname().nodename} does not see {batch}")
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment.pop("PYTHONBREAKPOINT", None)  # Ray's own
        if hides_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        self.batch, self.log = Path(batch), Path(log)
        self.was_cancelled = False
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", JOB, batch],
                stdin=subprocess.PIPE,  # its other end closes when we die
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.log.parent,
            )
        this: Any = ray.get_runtime_context().current_actor
        this.leave_at_end.remote()  # our own call: one of the submitting process would die with it

    def leave_at_end(self) -> None:
        """Waits for the process, says how it ended, and gives back what was allocated."""
        import ray.actor

        code = self.process.wait()
        with suppress(OSError):  # on a full disk nobody is told how it ended, but that it did
            self._say(code)
        ray.actor.exit_actor()

    def _say(self, code: int) -> None:
        said = "" if code == 0 else self._last_line()
        content = json.dumps({"exit_code": code, "said": said, "was_cancelled": self.was_cancelled})
        temporary = ending(self.batch).with_suffix(f".{os.getpid()}")
        try:
            temporary.write_text(content)
            temporary.replace(ending(self.batch))
        finally:
            temporary.unlink(missing_ok=True)

    def answer(self) -> None:
        """Shows who asks that this job runs."""

    def cancel(self) -> None:
        """Asks the process to end; `leave_at_end` does the rest."""
        self.was_cancelled = True
        self.process.terminate()
        end = threading.Timer(SECONDS_TO_LEAVE, self.process.kill)
        end.daemon = True  # it keeps nobody from leaving earlier
        end.start()

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
