"""`python -m cnn_ablation guide`: what it names exists, what it tells to type works, and it answers at once."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Answer

import cnn_ablation
from cnn_ablation import describe, guide, store
from cnn_ablation.app import keys
from cnn_ablation.app.arguments import FLAGS
from cnn_ablation.study.designs import DESIGNS

PAGE = guide.text()  # as collection finds it: other tests register parts of their own
PROSE = (Path(cnn_ablation.__file__).parent / "guide.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n\n(.*?)(?=\n## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))
COMMANDS = sorted(
    {re.split(r"\s{2,}", line.strip())[0] for line in PAGE.splitlines() if line.strip().startswith("python -m ")}
)
STUDIES = [
    line
    for line in COMMANDS
    if line.startswith("python -m cnn_ablation") and not line.startswith("python -m cnn_ablation.")
]
FILES = {
    "my_train.py": "def train(lr: float = 0.01, *, seed: int):\n    return {'test_loss': lr + seed}\n",
    "my_nets.py": """
        from torch import nn

        class ResNet8(nn.Module):
            def __init__(self, num_classes, input_shape, width=16):
                super().__init__()
                self.stem = nn.Conv2d(input_shape[0], width, 3)
                self.head = nn.Linear(width, num_classes)

            def forward(self, x):
                return self.head(self.stem(x).mean(dim=(2, 3)))
    """,
}


@pytest.fixture
def files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


def test_it_has_commands_to_test() -> None:
    assert len(STUDIES) >= 12
    assert "python -m cnn_ablation -m model.dropout=0,0.3 train.batch_size=64,256 dry_run=true" in STUDIES


@pytest.mark.usefixtures("files_here")
@pytest.mark.parametrize("command", STUDIES)
def test_every_study_makes_a_plan(cli: Callable[..., Answer], command: str) -> None:
    arguments = shlex.split(command)[3:]
    answer = cli(*arguments) if {"--cfg", "--help"} & set(arguments) else cli(*arguments, "dry_run=true")
    assert answer.code == 0, answer.err


def test_the_other_commands_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cnn_ablation.report import __main__ as report

    monkeypatch.chdir(tmp_path)
    others = [(line.split()[2].partition(".")[2], line.split()[3:]) for line in COMMANDS if line not in STUDIES]
    assert sorted(name for name, _ in others) == ["describe", "report", "report", "store"]
    (tmp_path / ".ablation_runs").mkdir()
    for name, words in others:
        if name == "report":
            assert report.main(words) == 2  # no such folder: it is the reader's
            assert words[0] in capsys.readouterr().err
        else:
            assert {"describe": describe, "store": store}[name].main(words) == 0


def keys_named() -> list[str]:
    """Keys with a section, and what stands before `=`, in the prose and its commands."""
    text = re.sub(r"\b\w+\.(?:csv|md|png|svg|yaml|json|html|tex|parquet)\b", "", PROSE)
    text = re.sub(r"cnn_ablation[.\w]*|my_\w+\.\w+|\$\w+", "", text)
    dotted = re.findall(r"\b((?:data|model|optimizer|train|stats|arm|task|hydra)(?:\.\w+)+)", text)
    return sorted({*dotted, *re.findall(r"(?<![\w./])([a-z]\w*)=", text)})


@pytest.mark.parametrize("key", keys_named())
def test_every_key_that_it_names_exists(key: str) -> None:
    of_hydra = {"hydra.sweeper.design", "hydra.sweep.dir"}
    own = key.startswith("model.kwargs.")
    assert own or key in {*keys.schema_keys(), *keys.GROUPS, "task", "task.target", "study", *of_hydra}


def test_keys_are_looked_for() -> None:
    assert {"stats.margin_pp", "train.batch_size", "replicates", "vary", "hydra.sweeper.design"} <= set(keys_named())


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"(?<!\S)--[a-z-]+", PROSE))))
def test_every_flag_exists(flag: str) -> None:
    of_report = {"--open"}
    assert flag in {each.name for each in FLAGS} | of_report


def test_verdicts_are_those_of_the_tables() -> None:
    from cnn_ablation.analysis.tables.times import _VERDICTS

    first_words = re.findall(r"^    (\w+)  ", SECTIONS["Verdicts"], flags=re.MULTILINE)
    assert first_words == ["baseline", *_VERDICTS]
    assert set(re.findall(r"\w+", SECTIONS["Verdicts"].splitlines()[-1])) >= set(_VERDICTS.values())


def test_columns_are_those_of_the_table() -> None:
    from cnn_ablation.analysis.tables.arms import ARM_COLUMNS

    listed = SECTIONS["Files of a study (hydra.sweep.dir, by default multirun/DATE/TIME)"].partition("Columns")[2]
    names = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", listed.partition("In Python")[0]))
    assert len(names) >= 10
    assert names <= set(ARM_COLUMNS)


def test_what_is_generated_is_the_codes() -> None:
    assert PAGE.startswith(f"# How to set up a study with cnn_ablation {cnn_ablation.__version__}\n")
    main, choices, everything = (
        re.sub(r"\s+", " ", SECTIONS[name]) for name in ("Keys that matter most", "What there is to choose", "All keys")
    )
    assert "stats.margin_pp=0.5 " in main
    assert f"({', '.join(DESIGNS)})" in main
    for words in ("model= alexnet, ", "task= function, image_classification", "hydra/launcher= joblib, ray"):
        assert words in choices
    for key in keys.schema_keys():
        assert f" {key.rpartition('.')[2]}" in everything


def test_every_main_key_exists() -> None:
    assert set(guide.MAIN_KEYS) - set(keys.schema_keys()) == {"hydra.sweeper.design"}


def test_it_fits_a_terminal() -> None:
    assert [line for line in PAGE.splitlines() if len(line) > 110] == []
    assert len(PAGE.splitlines()) <= 250


def entered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> Answer:
    from cnn_ablation.__main__ import main

    monkeypatch.setattr(sys, "argv", ["cnn_ablation", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return Answer(int(ended.value.code or 0), printed.out, printed.err)


def test_it_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answer = entered(monkeypatch, capsys, "guide")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[0] == PAGE.splitlines()[0]
    assert "## Pitfalls" in answer.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["guide", "train.epochs=3"],
            "configuration error: guide train.epochs=3\n  allowed: guide alone; it prints one page\n"
            "  remedy: python -m cnn_ablation guide\n",
        ),
        (
            ["-m", "guide"],
            "configuration error: guide\n  cannot be read as KEY=VALUE: there is no '=' in it\n"
            "  did you mean: python -m cnn_ablation guide, without other words\n",
        ),
    ],
    ids=["words behind it", "a flag before it"],
)
def test_other_words_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    answer = entered(monkeypatch, capsys, *words)
    assert (answer.code, answer.out, answer.err) == (2, "", message)


@pytest.mark.parametrize("module", ["cnn_ablation", "cnn_ablation.guide"])
def test_it_loads_nothing_heavy(tmp_path: Path, module: str) -> None:
    code = textwrap.dedent(
        f"""
        import runpy, sys
        sys.argv = ["x"] + (["guide"] if "{module}" == "cnn_ablation" else [])
        import os
        os._exit = sys.exit  # how a command ends its process
        try:
            runpy.run_module("{module}", run_name="__main__", alter_sys=False)
        except SystemExit as ended:
            assert not ended.code
        loaded = {{'hydra', 'omegaconf', 'torch', 'numpy', 'pandas', 'rich'}} & set(sys.modules)
        assert not loaded, loaded
        """
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# How to set up a study")
