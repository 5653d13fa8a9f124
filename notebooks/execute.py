"""Runs every notebook from top to bottom in a folder of its own; `--store` writes the outputs back.

python notebooks/execute.py [--store]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
TIMEOUT_SECONDS = 900  # for one cell


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs; raises if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=TIMEOUT_SECONDS, resources={"metadata": {"path": folder}})
        return client.execute()


def without_times(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """When each cell ran is no result; leaving it out keeps differences readable."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def main() -> None:
    for path in sorted(HERE.glob("*.ipynb")):
        started = time.perf_counter()
        notebook = execute(path)
        if "--store" in sys.argv[1:]:
            nbformat.write(without_times(notebook), path)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
