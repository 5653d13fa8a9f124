"""Tables of a study for people and programs: on the terminal, and as CSV, Parquet, Markdown, TeX and HTML."""

from __future__ import annotations

from cnn_ablation.report.caption import caption
from cnn_ablation.report.files import write_tables
from cnn_ablation.report.markdown import markdown
from cnn_ablation.report.terminal import print_table
from cnn_ablation.report.text import readable_table

__all__ = ["caption", "markdown", "print_table", "readable_table", "write_tables"]
