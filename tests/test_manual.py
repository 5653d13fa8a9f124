"""`--help` and `--version`: whole, readable, made from the schema, and answered without Hydra."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import Answer

import cnn_ablation
from cnn_ablation.app import manual
from cnn_ablation.app.arguments import FLAGS
from cnn_ablation.common.errors import as_typed
from cnn_ablation.config import ArmConfig, Bounds, StatsConfig, doc_of
from cnn_ablation.tasks.image_classification.config import GROUPS, Config, TrainConfig

OWNERS = [
    *((group, option) for group, options in GROUPS.items() for option in options.values()),
    ("train", TrainConfig),
    ("stats", StatsConfig),
    ("arm", ArmConfig),
    ("", Config),
]
KEYS = [
    (owner, f"{prefix}.{item.name}".lstrip("."), item)
    for prefix, owner in OWNERS
    for item in dataclasses.fields(owner)
    if prefix or item.name not in ("task", "data", "model", "optimizer", "train", "stats", "arm")
]


def parts_of(page: str) -> list[str]:
    """The parts of the page between empty lines, each on one line."""
    return [re.sub(r"\s+", " ", part) for part in page.split("\n\n")]


PARTS = parts_of(manual.text())


@pytest.mark.parametrize(("owner", "key", "item"), KEYS, ids=[f"{owner.__name__}-{key}" for owner, key, _ in KEYS])
def test_every_key_stands_there_with_default_and_bounds(owner: type, key: str, item: dataclasses.Field[object]) -> None:
    default = item.default_factory() if callable(item.default_factory) else item.default
    bounds = str(item.metadata.get("bounds", Bounds()))
    entry = f" {key}={as_typed(default)} "
    group = key.partition(".")[0]
    option = owner().name if group in GROUPS else ""
    homes = [
        part
        for part in PARTS[next(number for number, part in enumerate(PARTS) if part.startswith("Keys:")) :]
        if not option or part.startswith(f"{group}=ANY") or re.match(rf"{group}=\S*\b{option}\b", part)
    ]
    holding = [part for part in homes if entry in f"{part} "]
    assert len(holding) == 1, holding
    about = holding[0].partition(entry)[2]
    doc = "" if group in GROUPS and item.name == "name" else doc_of(item)
    assert about.startswith(doc)
    assert bounds in about[len(doc) : len(doc) + len(bounds) + 30]


def test_groups_and_what_a_study_knows_stand_there() -> None:
    page = manual.text()
    assert "digits (default)" in page
    assert "three_conv (default)" in page
    assert "adam (default)" in page
    for word in ("svalheim_svhn", "eq2425_controlled", "image_folder", "rmsprop", "jappinen_mlp"):
        assert re.search(rf"\b{word}\b", page)
    for name in (".describe", ".report DIR", ".predict RUN IMAGE", ".store list", " guide"):
        assert f"python -m cnn_ablation{name}" in page
    for key in ("hydra.sweeper.design=one_at_a_time", "hydra.sweep.dir=multirun/DATE/TIME", "zip.NAME"):
        assert key in page
    assert "greedy, leave_one_out, grid" in page


def test_no_line_is_wider_than_a_hundred() -> None:
    assert [line for line in manual.text().splitlines() if len(line) > 100] == []


def test_options_of_ones_own_stand_there(cli: Callable[..., Answer], tmp_path: Path) -> None:
    for name in ("model/my_net.yaml", "study/my_study.yaml"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True)
        (tmp_path / "mine" / name).touch()
    answer = cli("train.epochs=3", "--help", "--config-dir", "mine")
    assert answer.code == 0
    groups = next(part for part in parts_of(answer.out) if part.startswith("Groups"))
    assert "lenet5, module, my_net, sorensen" in groups
    assert "knobs, my_study" in groups


def test_flags_are_those_of_hydra() -> None:
    """Words are sorted before Hydra sees them, so that what follows a flag must be known."""
    from hydra._internal.utils import get_args_parser

    actions = [action for action in get_args_parser()._actions if action.option_strings]
    assert {(flag.name, *filter(None, [flag.short])) for flag in FLAGS} == {
        tuple(sorted(action.option_strings, key=len, reverse=True)) for action in actions
    }
    takes_value = {action.option_strings[0] for action in actions if action.nargs != 0}
    assert {flag.name for flag in FLAGS if flag.value} == takes_value
    assert {flag.name: flag.choices for flag in FLAGS if flag.choices} == {
        action.option_strings[0]: tuple(action.choices) for action in actions if action.choices
    }


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"], ["train.epochs=3", "--version"]], ids=" ".join)
def test_help_and_version_load_no_hydra(tmp_path: Path, words: list[str]) -> None:
    code = textwrap.dedent(
        """
        import sys
        from cnn_ablation.__main__ import main
        try:
            main()
        except SystemExit as ended:
            assert not ended.code
        loaded = {'hydra', 'omegaconf', 'torch', 'numpy', 'pandas', 'rich'} & set(sys.modules)
        assert not loaded, loaded
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_version_is_the_packages(cli: Callable[..., Answer]) -> None:
    answer = cli("--version")
    expected = (
        f"cnn_ablation {version('cnn_ablation')} (torch {version('torch')}, hydra-core {version('hydra-core')})\n"
    )
    assert (answer.code, answer.out, answer.err) == (0, expected, "")
    assert cnn_ablation.__version__ == version("cnn_ablation")


@pytest.mark.parametrize(
    "words",
    [
        ["train.epochs=1", "-m", "model.activation=relu,leaky"],
        ["train.epochs=1", "model.activation=relu,leaky", "--multirun"],
        ["model.activation=relu,leaky", "--multi", "train.epochs=1"],
        ["--", "train.epochs=1", "model.activation=relu,leaky", "hydra.mode=MULTIRUN"],
    ],
    ids=" ".join,
)
def test_flags_may_stand_anywhere(cli: Callable[..., Answer], words: list[str]) -> None:
    answer = cli("data=shapes", "dry_run=true", *words)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("one_at_a_time: 2 arms x 3 seeds")


def test_the_configuration_is_printed_wherever_the_flag_stands(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "mine" / "study").mkdir(parents=True)
    (tmp_path / "mine" / "study" / "short.yaml").write_text("# @package _global_\ntrain:\n  updates: 7\n")
    answer = cli("study=short", "--config-dir=mine", "train.epochs=4", "--cfg", "job")
    assert answer.code == 0, answer.err
    assert "updates: 7\n" in answer.out
    assert "epochs: 4\n" in answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "study=knobs", "model.filters=[24,48,96]"], "model.filters is no knob of this study any more"),
        (["hydra.sweep.dir=x"], "hydra.sweep.dir=x has no effect on a single configuration"),
        (["hydra.sweeper.design=grid"], "hydra.sweeper.design=grid has no effect on a single configuration"),
        (["hydra/launcher=joblib"], "hydra/launcher=joblib has no effect on a single configuration"),
        (["-m", "model.activation=relu,leaky", "hydra.run.dir=x"], "hydra.run.dir=x has no effect on a study"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_dropped_is_said_in_one_line(cli: Callable[..., Answer], words: list[str], said: str) -> None:
    answer = cli(*words, "dry_run=true")
    assert answer.code == 0
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_value_before_a_list_is_the_baselines(cli: Callable[..., Answer]) -> None:
    answer = cli("-m", "data=shapes", "model.activation=tanh", "model.activation=relu,leaky", "dry_run=true")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[1:4] == [
        "  baseline (model.activation=tanh)",
        "  model.activation=relu",
        "  model.activation=leaky",
    ]
