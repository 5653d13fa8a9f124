"""What Hydra composes, from what was composed before: the same configuration, the same words for what is wrong."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import cnn_ablation
from cnn_ablation.app import composition
from cnn_ablation.app.loader import SharingLoader, composing_once


@pytest.fixture(scope="module")
def loader() -> Iterator[SharingLoader]:
    """That of a Hydra of its own, which keeps what these tests compose."""
    with composition._own_hydra():
        composition.register_schemas(ConfigStore.instance())
        with composing_once(), initialize_config_dir(composition.CONF_DIR, version_base="1.3", job_name="tested"):
            found = GlobalHydra.instance().config_loader()
            assert isinstance(found, SharingLoader)
            yield found


def told(composed: DictConfig) -> Any:
    """All that can be told of a composition: values in their order, types, and what may be changed."""
    return OmegaConf.to_yaml(composed), sorted(map(str, flags_and_types(composed, "")))


def flags_and_types(node: Any, key: str) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, DictConfig) and not (node._is_missing() or node._is_none()):
        yield key, OmegaConf.get_type(node), node._metadata.ref_type, node._metadata.flags
        for name in node:
            yield from flags_and_types(node._get_node(name), f"{key}.{name}")
    else:
        yield key, type(node), getattr(node._metadata, "ref_type", None)


RUN, MULTIRUN = RunMode.RUN, RunMode.MULTIRUN


@pytest.mark.parametrize(
    ("lines", "mode"),
    [
        pytest.param([], RUN, id="nothing"),
        pytest.param(["model.activation=leaky", "train.epochs=3", "model.filters=[8,16]"], RUN, id="values"),
        pytest.param(["train.epochs=3", "optimizer=sgd", "optimizer.lr=0.5"], RUN, id="values-and-an-option"),
        pytest.param(["train.epochs=3", "optimizer.lr=0.5", "optimizer=sgd"], RUN, id="an-option-at-the-end"),
        pytest.param(["optimizer=sgd", "hydra.sweep.dir=x"], RUN, id="the-option-again"),
        pytest.param(["model.activation=relu,leaky", "optimizer=adam,sgd", "train.epochs=2"], MULTIRUN, id="knobs"),
        pytest.param(["study=knobs", "replicates=2", "hydra.mode=MULTIRUN"], MULTIRUN, id="a-study-file"),
        pytest.param(["seed=3", "arm.name='a b'", "hydra.sweep.dir='/x'", "hydra.sweep.subdir=7"], RUN, id="a-job"),
        pytest.param(["hydra.job.name=another", "hydra.job.chdir=true", "hydra.run.dir=x"], RUN, id="hydras-own"),
        pytest.param(
            ["train.epochs=2", "seed=1", "hydra.job.config.override_dirname.exclude_keys=[seed]"], RUN, id="dirnames"
        ),
        pytest.param(["hydra.job.env_copy=[HOME]", "+hydra.job.env_set.A=b"], RUN, id="environment"),
        pytest.param(
            ["+train.extra=1", "++train.epochs=4", "~hydra.job_logging.handlers.file"], RUN, id="added-and-taken-away"
        ),
        pytest.param(["~hydra/hydra_help", "train.epochs=2"], RUN, id="an-option-taken-away"),
        pytest.param(["optimizer={lr:0.3}", "optimizer.lr=0.2"], RUN, id="a-dictionary"),
        pytest.param(["optimizer.lr=0.2", "optimizer={lr:0.3}"], RUN, id="a-dictionary-at-the-end"),
        pytest.param(["train.batch_size=${seed}", "seed=7"], RUN, id="interpolated"),
    ],
)
def test_a_composition_is_hydras(lines: list[str], mode: RunMode, loader: SharingLoader) -> None:
    """Whatever was composed before it."""
    loader.load_configuration("config", ["train.epochs=9"], MULTIRUN)
    slow = ConfigLoaderImpl(loader.config_search_path)
    ours, theirs = (told(each.load_configuration("config", lines, mode)) for each in (loader, slow))
    assert ours == theirs


@pytest.mark.parametrize(
    ("lines", "mode"),
    [
        pytest.param(["train.epoch=3"], RUN, id="unknown-key"),
        pytest.param(["train.epochs=abc"], RUN, id="wrong-type"),
        pytest.param(["optimiser=sgd"], RUN, id="unknown-group"),
        pytest.param(["optimizer=sdg"], RUN, id="unknown-option"),
        pytest.param(["optimizer=sdg"], MULTIRUN, id="unknown-option-of-a-study"),
        pytest.param(["train.epochs=3", "+train.epochs=3"], RUN, id="there-already"),
        pytest.param(["~train.nothing"], RUN, id="nothing-to-take-away"),
        pytest.param(["train.epochs=1,2"], RUN, id="a-study-without-m"),
        pytest.param(["hydra.job.name=a,b"], MULTIRUN, id="hydra-swept"),
        pytest.param(["train.epochs=[1"], RUN, id="not-to-be-read"),
        pytest.param(["train@here=3"], RUN, id="a-package"),
        pytest.param(["hydra.job.env_copy=[NO_SUCH_VARIABLE]"], RUN, id="no-such-variable"),
    ],
)
def test_what_is_wrong_is_said_in_hydras_words(lines: list[str], mode: RunMode, loader: SharingLoader) -> None:
    said = []
    for each in (loader, ConfigLoaderImpl(loader.config_search_path)):
        with pytest.raises(Exception, match=r".") as caught:
            each.load_configuration("config", lines, mode)
        said.append((type(caught.value), str(caught.value), str(caught.value.__cause__)))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("hydra.job.env_copy=[]", id="nothing-to-copy"),
        pytest.param("+hydra.job.env_set.COPIED=b", id="added-before-it-is-copied"),
        pytest.param("+hydra.job.env_set.OTHER=b", id="order-of-the-environment"),
        pytest.param("hydra.job={name:y,env_copy:[]}", id="a-dictionary"),
        pytest.param("hydra={job:{env_copy:[]}}", id="a-dictionary-of-all"),
        pytest.param("hydra.job.name=???", id="the-applications-name"),
        pytest.param("hydra.job.config_name=another", id="the-files-name"),
        pytest.param("hydra.runtime.version='9'", id="version"),
        pytest.param("hydra.runtime.config_sources=[]", id="sources"),
        pytest.param("++hydra.runtime.choices.optimizer=another", id="a-choice"),
        pytest.param("+hydra.runtime.choices.more=another", id="another-choice"),
        pytest.param("hydra.overrides.task=[a]", id="overrides"),
    ],
)
def test_what_hydra_writes_last_is_written_last(
    line: str, loader: SharingLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where values stand in its way, and where a file of the user's own asks for it."""
    monkeypatch.setenv("COPIED", "from outside")
    (tmp_path / "own.yaml").write_text("defaults: [config, _self_]\nhydra: {job: {env_copy: [COPIED]}}\n")
    path = copy.deepcopy(loader.config_search_path)
    path.prepend("command-line", f"file://{tmp_path}")
    ours, theirs = SharingLoader(path), ConfigLoaderImpl(path)
    ours.load_configuration("own", [], RUN)
    lines = ["train.epochs=3", line]
    assert told(ours.load_configuration("own", lines, RUN)) == told(theirs.load_configuration("own", lines, RUN))


def test_a_choice_of_a_group_is_no_value(loader: SharingLoader) -> None:
    said = []
    for each in (loader, ConfigLoaderImpl(loader.config_search_path)):
        with pytest.raises(Exception, match=r"Could not override 'hydra\.runtime\.choices\.optimizer'") as caught:
            each.load_configuration("config", ["hydra.runtime.choices.optimizer=sgd"], RUN)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_only_options_are_composed_again(loader: SharingLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = SharingLoader(loader.config_search_path)
    composed, by_hydra = [], loader._by_hydra
    monkeypatch.setattr(loader, "_by_hydra", lambda *asked: composed.append(asked[1]) or by_hydra(*asked))
    for line in ("model.activation=relu,leaky", "hydra.mode=MULTIRUN", "seed=1", "seed=2", "optimizer=sgd"):
        loader.load_configuration("config", [line], MULTIRUN)
    loader.load_configuration("config", ["hydra.mode=MULTIRUN", "optimizer=sgd", "seed=3"], RUN)
    assert composed == [[], ["optimizer=sgd"]]


def test_what_one_does_with_a_composition_is_nobody_elses(loader: SharingLoader) -> None:
    first = loader.load_configuration("config", [], RUN)
    before = told(first)
    first.train.epochs = 77
    first.hydra.overrides.task.append("train.epochs=77")
    assert told(loader.load_configuration("config", [], RUN)) == before


def test_the_process_is_asked_for_each(loader: SharingLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["hydra.job.env_copy=[SOMETHING]"]
    for value in ("one", "two"):
        (tmp_path / value).mkdir()
        monkeypatch.chdir(tmp_path / value)
        monkeypatch.setenv("SOMETHING", value)
        found = loader.load_configuration("config", lines, RUN).hydra
        assert (found.job.env_set.SOMETHING, found.runtime.cwd) == (value, os.getcwd())


def test_groups_of_another_place_are_composed_by_hydra(loader: SharingLoader, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "short.yaml").write_text("# @package _global_\ntrain:\n  epochs: 5\n")
    lines = [f"hydra.searchpath=[file://{tmp_path}]", "+mine=short", "train.batch_size=9"]
    found = loader.load_configuration("config", lines, RUN)
    assert (found.train.epochs, found.train.batch_size) == (5, 9)


def test_it_can_be_sent_to_another_process(loader: SharingLoader) -> None:
    composed = loader.load_configuration("config", ["seed=3"], RUN)
    sent = copy.copy(loader)  # what it is sent as
    assert len(loader._kept) > len(sent._kept) == 0
    assert told(sent.load_configuration("config", ["seed=3"], RUN)) == told(composed)


def test_compositions_in_python_share_what_they_have_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    cnn_ablation.compose([])  # finds Hydra's plugins
    composed, by_hydra = [], SharingLoader._by_hydra

    def noted(self: SharingLoader, config_name: str | None, overrides: list[str], run_mode: RunMode) -> DictConfig:
        composed.append(overrides)
        return by_hydra(self, config_name, overrides, run_mode)

    monkeypatch.setattr(SharingLoader, "_by_hydra", noted)
    monkeypatch.setattr(composition, "_last", composition._Kept([], {}))
    found = [cnn_ablation.compose([f"seed={seed}", "optimizer=sgd"]) for seed in (3, 4)]
    assert [each.seed for each in found] == [3, 4]
    assert found[0] == replace(found[1], seed=3)
    assert found[0].optimizer is not found[1].optimizer
    assert composed == [["optimizer=sgd"]]


def test_files_that_a_plugin_brings_are_read_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Brings(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            search_path.append("a plugin", f"file://{tmp_path}")

    cnn_ablation.compose([])  # finds Hydra's plugins
    plugins = Singleton._instances.get(Plugins) or composition._found[Plugins]
    found = plugins.plugin_type_to_subclass_list
    monkeypatch.setitem(found, SearchPathPlugin, [*found[SearchPathPlugin], Brings])
    (tmp_path / "study").mkdir()
    for epochs in (5, 6):
        (tmp_path / "study" / "own.yaml").write_text(f"# @package _global_\ntrain: {{epochs: {epochs}}}\n")
        assert cnn_ablation.compose(["study=own"]).train.epochs == epochs


def test_another_node_in_the_store_is_composed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an extension brings it, or Hydra's caller."""
    with composition._own_hydra():
        store = ConfigStore.instance()
        first = composition._kept(["seed=1"])
        assert composition._kept(["seed=2"]) is first
        assert composition._kept(["hydra.searchpath=[file:///x]"]) is None
        store.store(group="optimizer", name="another", node={"lr": 1})
        second = composition._kept(["seed=1"])
        assert second is not first
        store.store(group="optimizer", name="another", node={"lr": 2})
        assert composition._kept(["seed=1"]) is not second
