"""The page of a study: one file that needs nothing else, to be sent to a colleague."""

from __future__ import annotations

from cnn_ablation.report.page.document import NAME, files, prepare

__all__ = ["NAME", "files", "prepare"]
