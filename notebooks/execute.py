"""Runs every notebook from top to bottom in a folder of its own and compares its outputs with the stored ones.

python notebooks/execute.py [--store]

Exit code 1 where a cell fails or tells something else than its stored output (outputs.py says what counts).
`--store` writes the fresh outputs instead.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from outputs import messages

HERE = Path(__file__).parent
TIMEOUT_SECONDS = 900  # for one cell
REMEDY = "What changed is meant? `python notebooks/execute.py --store` stores the fresh outputs."


def execute(stored: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of the notebook with fresh outputs; raises CellExecutionError if a cell fails."""
    notebook = copy.deepcopy(stored)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        return NotebookClient(notebook, timeout=TIMEOUT_SECONDS, resources=resources).execute()


def in_one_piece(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Neighbouring pieces of one stream joined: where a stream was cut depends on when it was read."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == "stream" and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def storable(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what would differ at every run and is no result: pieces of streams, when each cell ran, which Python."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = in_one_piece(cell.outputs)
    notebook.metadata.language_info.pop("version", None)
    return notebook


def checked(path: Path, *, store: bool) -> list[str]:
    """What is wrong with the outputs of a notebook, one message for each cell; `store` replaces them instead."""
    stored = nbformat.read(path, as_version=4)
    try:
        fresh = execute(stored)
    except CellExecutionError as error:
        return [f"{path.name}: a cell fails\n{error}"]
    if store:
        nbformat.write(storable(fresh), path)
        return []
    return messages(path.name, stored.cells, fresh.cells)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="store_true", help="write the fresh outputs into the notebooks")
    store, found = parser.parse_args(arguments).store, []
    for path in sorted(HERE.glob("*.ipynb")):
        started = time.perf_counter()
        found += checked(path, store=store)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s", flush=True)
    if found:
        print(*found, REMEDY, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
