"""The page *Your own training function*: its file, commands and tables are as they stand there."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import Answer

from cnn_ablation.common.errors import ConfigError
from cnn_ablation.config import Bounds, StatsConfig, fields_of
from cnn_ablation.tasks.function import signature
from cnn_ablation.tasks.function.call import RunContext

Cli = Callable[..., Answer]

PAGE = (Path(__file__).parent.parent / "docs" / "your_own_training_function.md").read_text()
FILES = dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, flags=re.DOTALL))
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()]

ANNOTATED = """
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

from cnn_ablation.config import Bounds


class Mode(Enum):
    slow = 1
    fast = 2


def train(
    whole: int = 1,
    real: float = 1.0,
    flag: bool = False,
    text: str = "a",
    sizes: list[int] = [1],
    depth: int | None = None,
    choice: Literal["a", "b"] = "a",
    mode: Mode = Mode.slow,
    place: Path = Path("here"),
    shape: tuple[int, ...] = (1, 2),
    share: Annotated[float, Bounds(at_least=0, at_most=1)] = 0.5,
    kept: object = Mode,
    *,
    seed: int,
) -> dict[str, float]:
    return {"score": 1.0}
"""


@pytest.fixture(autouse=True)
def files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's file in the working directory; modules and schemas are forgotten afterwards."""
    for name, text in (FILES | {"my_annotated.py": ANNOTATED}).items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("my_train", "my_annotated"):
        sys.modules.pop(name, None)
    signature._schema.cache_clear()
    signature.parameters.cache_clear()


def rows(header: str) -> list[str]:
    """The first cells of the table below a header."""
    table = PAGE.partition(header)[2].partition("\n\n")[0]
    return [line.strip("| ").partition(" | ")[0] for line in table.splitlines()[2:]]


def test_the_page_has_its_file() -> None:
    assert list(FILES) == ["my_train.py"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_study_plans(command: str, cli: Cli) -> None:
    answer = cli(*shlex.split(command)[3:], "dry_run=true")
    assert (answer.code, answer.err) == (0, "")
    assert "baseline (settings.lr=0.01" in answer.out


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_its_function_trains_and_the_first_figure_is_the_metric(cli: Cli, tmp_path: Path) -> None:
    study = ("-m", "task=function", "task.target=my_train.train", "settings.width=4,2")
    answer = cli(*study, "replicates=1", "hydra.sweep.dir=out")
    assert (answer.code, "test_loss (lower is better)" in answer.out) == (0, True)
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert list(runs.columns[4:7]) == ["status", "test_loss", "val_loss"]
    assert sorted(path.name for path in (tmp_path / "out" / "0").glob("output*")) == ["output-seed0.txt"]


def test_the_keys_of_stats_are_those_there_are() -> None:
    named = [name.strip("`") for name in rows("| key | meaning |")]
    assert named == ["stats.metric", "stats.direction", "stats.margin"]
    assert {name.removeprefix("stats.") for name in named} <= set(fields_of(StatsConfig))


def test_what_a_run_is_given_is_there(tmp_path: Path) -> None:
    named = re.findall(r"^\| `run\.(\w+)", PAGE, flags=re.MULTILINE)
    context = RunContext(tmp_path, "cpu", 1, tmp_path / "checkpoint.pt")
    assert named == ["folder", "device", "threads", "checkpoint", "report"]
    assert [name for name in named if not hasattr(context, name)] == []


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        pytest.param("", {"whole": 2, "real": 0.5, "flag": True, "text": "b", "sizes": [2], "depth": 3}, id="plain"),
        pytest.param("did you mean: settings.choice=b", {"choice": "bb"}, id="literal"),
        pytest.param("allowed: slow, fast", {"mode": "quick"}, id="enum"),
        pytest.param("", {"mode": "fast", "place": "there", "shape": [3]}, id="text and list"),
        pytest.param("allowed: at least 0 and at most 1", {"share": 2.0}, id="bounds"),
    ],
)
def test_every_annotation_takes_what_the_page_says(cli: Cli, expected: str, values: dict[str, object]) -> None:
    given = [f"settings.{name}={value}".replace(" ", "") for name, value in values.items()]
    answer = cli("task=function", "task.target=my_annotated.train", *given, "dry_run=true")
    assert (answer.code == 0, expected in answer.err) == (not expected, True)


def test_values_arrive_as_the_function_types_them() -> None:
    settings = signature.settings_of("my_annotated.train", {"mode": "fast", "place": "there", "shape": [3]})
    given = signature.arguments_of(settings)
    mode = sys.modules["my_annotated"].Mode
    assert (given["mode"], given["place"], given["shape"]) == (mode.fast, Path("there"), (3,))
    assert "kept" not in given  # no configuration can hold a class: it keeps its default


def test_bounds_come_from_where_the_page_says() -> None:
    assert "from cnn_ablation.config import Bounds" in PAGE
    assert Bounds(at_least=0, at_most=1).at_most == 1


def test_an_unknown_name_gets_the_nearest_spelling() -> None:
    with pytest.raises(ConfigError, match=r"did you mean: settings\.width=8"):
        signature.settings_of("my_train.train", {"widht": 8})
