"""`compose` leaves the Hydra of its caller as it was: a notebook may use both."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir, version
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton

import cnn_ablation
from cnn_ablation.common.errors import UserError


def stored(repo: dict[str, Any], prefix: str = "") -> dict[str, int]:
    """Path in the store -> identity of the node there."""
    return {
        path: identity
        for name, node in repo.items()
        for path, identity in (
            stored(node, f"{prefix}{name}/").items() if isinstance(node, dict) else [(f"{prefix}{name}", id(node))]
        )
    }


@pytest.fixture
def callers_hydra(tmp_path: Path) -> Iterator[Path]:
    """A Hydra that somebody else has initialised, with a node called `schema` of their own."""
    before = dict(Singleton._instances)
    Singleton._instances.clear()
    ConfigStore.instance().repo = {"hydra": before[ConfigStore].repo["hydra"]}  # stored while Hydra was imported
    (tmp_path / "config.yaml").write_text("defaults:\n  - schema\n  - _self_\nlr: 3\n")
    try:
        with initialize_config_dir(str(tmp_path), version_base="1.2"):
            ConfigStore.instance().store(name="schema", node={"lr": 1})
            yield tmp_path
    finally:
        Singleton._instances.clear()
        Singleton._instances.update(before)


@pytest.mark.parametrize("overrides", [["train.epochs=3"], ["train.epoch=3"], ["=3"], ["model.filters=[1"]])
def test_the_callers_hydra_is_found_as_it_was(callers_hydra: Path, overrides: list[str]) -> None:
    hydra, instance, store = GlobalHydra.instance().hydra, GlobalHydra.instance(), ConfigStore.instance()
    singletons, nodes, base = dict(Singleton._instances), stored(store.repo), version.getbase()
    try:
        assert cnn_ablation.compose(overrides).train.epochs == 3
    except UserError:
        assert overrides != ["train.epochs=3"]
    assert GlobalHydra.instance() is instance
    assert GlobalHydra.instance().hydra is hydra
    assert ConfigStore.instance() is store
    assert stored(ConfigStore.instance().repo) == nodes
    assert singletons == Singleton._instances
    assert version.getbase() == base
    assert "__deepcopy__" not in dir(ConfigStore)
    duplicate = copy.deepcopy(ConfigStore.instance())
    assert duplicate is not store
    assert stored(duplicate.repo).keys() == nodes.keys()
    assert hydra_compose("config") == {"lr": 3}


def test_nothing_is_stored_in_a_fresh_process_either() -> None:
    code = (
        "import hydra\n"
        "from hydra.core.config_store import ConfigStore\n"
        "from hydra.core.singleton import Singleton\n"
        "store = ConfigStore.instance()\n"
        "before, names = dict(Singleton._instances), {name: list(node) if isinstance(node, dict) else 0"
        " for name, node in store.repo.items()}\n"
        "import cnn_ablation\n"
        "for epochs in (3, 4): print(cnn_ablation.compose([f'train.epochs={epochs}']).train.epochs)\n"
        "after = {name: list(node) if isinstance(node, dict) else 0 for name, node in store.repo.items()}\n"
        "print(after == names, dict(Singleton._instances) == before)\n"
        "with hydra.initialize_config_dir('/', version_base='1.3'): print(hydra.compose(overrides=['+a=1']).a)\n"
        "print(cnn_ablation.compose(['train.epochs=5']).train.epochs)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["3", "4", "True", "True", "1", "5"], done.stderr


def test_a_callers_option_of_our_groups_can_be_chosen(callers_hydra: Path) -> None:
    from cnn_ablation.tasks.image_classification.config import SGDConfig

    ConfigStore.instance().store(group="optimizer", name="fast_sgd", node=SGDConfig(lr=1.0))
    assert cnn_ablation.compose(["optimizer=fast_sgd"]).optimizer == SGDConfig(lr=1.0)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("train.epochs=1", ["overrides='train.epochs=1'", "a list of strings", "compose(['train.epochs=1'])"]),
        (3, ["overrides=3", "a list of strings"]),
        ({"train.epochs": 1}, ["a list of strings"]),
        ([3], ["overrides=3", "KEY=VALUE", 'compose(["train.epochs=4"])']),
        (["-m"], ["overrides=-m", "flags belong to the command line", "cnn_ablation.ablate"]),
        (["--cfg=job"], ["overrides=--cfg=job", "flags belong to the command line"]),
        (
            ["model.activation=relu,leaky"],
            ["model.activation=relu,leaky", "one value", 'cnn_ablation.ablate(baseline, {"model.activation": [LEVEL'],
        ),
        (["model=glob(*)"], ["model=glob(*)", "cnn_ablation.ablate"]),
        (["model=3"], ["model=3", "alexnet", "three_conv"]),
        (["train.epochs"], ["train.epochs", "cannot be read as KEY=VALUE"]),
    ],
    ids=lambda value: str(value) if not isinstance(value, list) or len(value) == 1 else "",
)
def test_what_compose_cannot_take_is_named(overrides: Any, expected: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        cnn_ablation.compose(overrides)
    assert [part for part in expected if part not in str(refused.value)] == [], refused.value
    assert len(str(refused.value).splitlines()) <= 10
