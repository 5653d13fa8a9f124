"""The README says what is so: its commands work, its table has the columns of the real one."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Answer

import cnn_ablation

ROOT = Path(cnn_ablation.__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
SWEEPS = [
    line.partition("#")[0].strip()
    for block in BLOCKS[2:]
    for line in block.splitlines()
    if re.match(r"python -m cnn_ablation +(-m|#)", line) and "DIR" not in line
]

PAGES = [ROOT / "docs" / f"{name}.md" for name in ("your_own_network", "your_own_training_function")]
FILES = {
    name: text
    for page in PAGES
    for name, text in re.findall(r"`(my_\w+\.py)`:\n\n```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
}
"""A person's own files, which the README names and pages show."""


@pytest.fixture
def files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


def test_two_commands_do_all_set_up() -> None:
    first, second = (block.strip() for block in BLOCKS[:2])
    assert first == "pip install -e . && python -m cnn_ablation -m model.activation=relu,leaky"
    assert second == 'pip install -e ".[test]" && python -m pytest'


@pytest.mark.usefixtures("files_here")
@pytest.mark.parametrize("command", SWEEPS)
def test_every_command_makes_a_plan(cli: Callable[..., Answer], command: str) -> None:
    if "mlflow" in command:  # an extra, which the tests do not ask for
        pytest.importorskip("mlflow")
    answer = cli(*shlex.split(command)[3:], "dry_run=true")
    assert answer.code == 0, answer.err
    assert "baseline" in answer.out


def test_the_table_has_columns_of_the_report() -> None:
    from cnn_ablation.report.text import readable_table

    header = next(line for line in README.splitlines() if line.startswith("| arm |"))
    runs = [
        {"arm": "baseline", "knob": "", "level": "", "seed": seed, "status": "ok"}
        | {"val_accuracy": 0.9, "test_accuracy": 0.9 + seed / 100, "train_seconds": 1.0}
        for seed in range(2)
    ]
    import pandas as pd

    columns = readable_table(cnn_ablation.ablation_table(pd.DataFrame(runs))).columns
    assert [name.strip() for name in header.strip("|").split("|")] == [
        name for name in columns if name in ("arm", "difference pp", "verdict", "time ratio")
    ]


def test_every_link_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
