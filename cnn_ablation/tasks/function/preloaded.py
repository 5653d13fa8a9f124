"""What worker processes of a function study have in memory when they are forked: not more than every run needs."""

from __future__ import annotations

import cnn_ablation.runs.run
import cnn_ablation.tasks.function.task  # noqa: F401
