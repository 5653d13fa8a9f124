"""What a job of an engine trains, in a few letters: equal for jobs that would compute the same in any study."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

from cnn_ablation.common.machine import Allocation
from cnn_ablation.config import all_settings
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.observers import settings_of_runs
from cnn_ablation.runs.task import task_of


class Contents:
    """Of assignments: settings and labels, and with what they are trained, code, libraries and what a job is given.

    Without their seeds, which the names of their records say, and without data, which nobody reads for it.

    Args:
        allocation: what each job is given.
    """

    def __init__(self, allocation: Allocation):
        self._allocation = allocation
        self._known = dict[str, str]()  # by arm

    def of(self, assignment: Assignment) -> str:
        """What an assignment trains."""
        config = assignment.config
        if config.arm.name not in self._known:
            task = task_of(config)
            identity = task.identity(config, task.resolve(config, planned=True), seed=0, planned=True)
            settings = settings_of_runs(all_settings(replace(config, seed=0, replicates=1)))
            what = [settings, identity, asdict(self._allocation)]
            text = json.dumps(what, sort_keys=True, default=str)
            self._known[config.arm.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._known[config.arm.name]
