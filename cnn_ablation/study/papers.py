"""The papers whose figures can be printed beside a study's."""

from __future__ import annotations

from pathlib import Path


def paper_names() -> tuple[str, ...]:
    """By the files that hold their figures."""
    return tuple(sorted(path.stem for path in (Path(__file__).parents[1] / "report" / "papers").glob("*.yaml")))
