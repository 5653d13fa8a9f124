"""How long a user waits for a refusal: every case of tests/test_wrong_inputs.py as a process of its own.

    python benchmarks/refusals.py

Prints the median, the slowest, and every case whose answer is not one message with exit code 2.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from test_wrong_inputs import CASES, Case, write_files

MAX_LINES = 10
MODULES = {"cnn_ablation": "cnn_ablation", "describe": "cnn_ablation.describe", "store": "cnn_ablation.store"}


def refused(case: Case, folder: Path) -> tuple[float, bool]:
    """(seconds, whether the answer is one message with exit code 2)."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", MODULES[case.command], *case.words], cwd=folder, capture_output=True, check=False
    )
    seconds = time.perf_counter() - started
    lines = done.stderr.decode(errors="replace").splitlines()
    is_one = done.returncode == 2 and len(lines) <= MAX_LINES and not any("Traceback" in line for line in lines)
    return seconds, is_one


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        answers = {name: refused(case, folder) for name, case in CASES.items()}
    slowest = sorted(answers, key=lambda name: -answers[name][0])
    seconds = [taken for taken, _ in answers.values()]
    print(f"{len(answers)} wrong inputs: median {statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s")
    for name in slowest[:5]:
        print(f"  {answers[name][0]:.2f} s  {name}")
    for name, (_, is_one) in answers.items():
        if not is_one:
            print(f"  not one message: {name}")


if __name__ == "__main__":
    main()
