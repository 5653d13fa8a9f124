"""The page *Your own network*: its files and commands work as they stand there."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Answer, parts_forgotten

from cnn_ablation import describe

PAGE = (Path(__file__).parent.parent / "docs" / "your_own_network.md").read_text()
FILES = dict(re.findall(r"`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL))
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()]


@pytest.fixture(autouse=True)
def files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's files, in the working directory; what they register is forgotten afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in ("numbers", "other"):
        Path(folder).mkdir()
        for part in ("train", "test"):
            images = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
            np.savez(Path(folder) / f"{part}.npz", images=images, labels=np.arange(300) % 5)
    with parts_forgotten():
        yield
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


def test_the_page_has_its_files() -> None:
    assert list(FILES) == ["mine/model/two_conv.yaml", "my_nets.py", "my_data.py", "my_parts.py"]


@pytest.mark.parametrize("command", [line for line in COMMANDS if "cnn_ablation -m" in line])
def test_every_study_plans(command: str, cli: Callable[..., Answer]) -> None:
    answer = cli(*shlex.split(command.partition("cnn_ablation ")[2]), "dry_run=true")
    assert (answer.code, answer.err) == (0, "")
    assert "would reuse 0 of" in answer.out


def test_the_network_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    command = next(line for line in COMMANDS if ".describe" in line)
    assert describe.main(shlex.split(command)[3:]) == 0
    assert "blocks.0.body.0" in capsys.readouterr().out
