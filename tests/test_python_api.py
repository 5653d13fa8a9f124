"""Wrong uses of the Python API: one clear ConfigError each, before anything is loaded, trained or written."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn_ablation import ablate, compose
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.config import group_name, setting, with_settings
from cnn_ablation.study import checks
from cnn_ablation.study.checks.knobs import read_knobs
from cnn_ablation.tasks.image_classification.config import (
    AdamConfig,
    Config,
    MLPConfig,
    ModelConfig,
    OptimizerConfig,
    SGDConfig,
    ShapesConfig,
    TrainConfig,
)

Call = Callable[[Config, Path], object]


def study(knobs: Any, **given: Any) -> Call:
    return lambda config, folder: ablate(config, knobs, **{"folder": folder / "study", **given})


def assigned(key: str, value: object, where: str = "") -> Call:
    """A configuration changed by assignment, then checked as every path to a training does."""

    def call(config: Config, folder: Path) -> None:
        setattr(getattr(config, where) if where else config, key, value)
        checks.check(config)

    return call


def set_in(*settings: tuple[Any, Any]) -> Call:
    return lambda config, folder: with_settings(config, settings)


def in_place_of_the_folder(config: Config, folder: Path) -> None:
    (folder / "file").touch()
    ablate(config, {"train.epochs": [1]}, folder / "file")


def below_a_file(config: Config, folder: Path) -> None:
    (folder / "file").touch()
    ablate(config, {"train.epochs": [1]}, folder / "file" / "study")


def element(config: Config, folder: Path) -> None:
    config.model.filters[0] = "4"
    checks.check(config)


@dataclass
class Unregistered(ModelConfig):
    name: str = group_name("unregistered")
    width: int = setting(3, at_least=1)


@dataclass
class Unread(ShapesConfig):
    name: str = group_name("unread")


GROUPS = "SGDConfig, AdamConfig, AdamWConfig, AdaGradConfig, RMSPropConfig"
WRONG: dict[str, tuple[Call, list[str]]] = {
    # ablate: what is not a configuration, a dictionary of lists, a folder, a design
    "baseline is a number": (lambda config, folder: ablate(3, {"train.epochs": [1]}), ["baseline=3", "compose("]),
    "baseline is a list": (
        lambda config, folder: ablate(["train.epochs=1"], {"train.epochs": [1]}),
        ["baseline=['train.epochs=1']", "allowed: a Config"],
    ),
    "baseline is its class": (lambda config, folder: ablate(Config, {"train.epochs": [1]}), ["baseline=<class"]),
    "no knob": (study({}), ["knobs={}", "nothing to compare", "cnn_ablation.run(config, folder)"]),
    "knobs are a list": (study([]), ["knobs=[]", "a dictionary of lists of levels", '{"model.activation": ["leaky"]}']),
    "knobs are text": (study("model.activation=leaky"), ["knobs='model.activation=leaky'", "a dictionary"]),
    "knobs are None": (study(None), ["knobs=null", "a dictionary"]),
    "a level without its list": (
        study({"model.activation": "leaky"}),
        ["model.activation='leaky'", "levels come in a list", "model.activation: ['leaky']"],
    ),
    "a number without its list": (study({"optimizer.lr": 0.1}), ["optimizer.lr=0.1", "optimizer.lr: [0.1]"]),
    "None for levels": (study({"train.updates": None}), ["train.updates=null", "train.updates: [None]"]),
    "a dictionary for levels": (
        study({"large": {"train.batch_size": 8}}),
        ["levels come in a list", "large: [{'train.batch_size': 8}]"],
    ),
    "a generator of levels": (
        study({"train.epochs": (n for n in (1, 2))}),
        ["train.epochs=<generator", "levels come in a list"],
    ),
    "levels without end": (study({"train.epochs": itertools.count(1)}), ["levels come in a list"]),
    "a set of levels": (study({"train.epochs": {1, 3}}), ["train.epochs={1, 3}", "levels come in a list"]),
    "no levels": (study({"train.epochs": []}), ["train.epochs=[]", "one level or more"]),
    "no levels of NumPy's": (study({"train.epochs": np.array([])}), ["train.epochs=[]", "one level or more"]),
    "dictionaries and values mixed": (
        study({"large": [{"train.epochs": 1}, 3]}),
        ["large=3", "either values of one key, or dictionaries", "remedy: {"],
    ),
    "an empty dictionary": (study({"large": [{}]}), ["large={}", "one config key or more"]),
    "a label alone": (study({"large": [{"label": "x"}]}), ["large={'label': 'x'}", "one config key or more"]),
    "a key that is no text in a dictionary": (study({"large": [{3: 1}]}), ["large={3: 1}", "one config key or more"]),
    "a knob that is no text": (study({3: [1]}), ["3=[1]", "a config key as text"]),
    "a knob without a name": (study({"": [1]}), ["''=[1]", "a config key as text"]),
    "an unknown key": (study({"model.activatoin": ["leaky"]}), ["did you mean: model.activation"]),
    "a key without its section": (study({"epochs": [3]}), ["epochs=3", "did you mean: train.epochs"]),
    "a key of another option": (
        study({"optimizer.momentum": [0.9]}),
        ["optimizer.momentum=0.9", "belongs to optimizer=sgd or rmsprop"],
    ),
    "a method for a key": (study({"train.__init__": [3]}), ["train.__init__=3", "keys of train: epochs"]),
    "a property for a key": (study({"seeds": [3]}), ["seeds=3", "did you mean: seed"]),
    "a key below a value": (study({"train.epochs.real": [3]}), ["train.epochs.real=3", "known keys"]),
    "a level of another type": (
        study({"train.batch_size": ["8"]}),
        ["train.batch_size='8'", "allowed: int, at least 1", "train.batch_size=16"],
    ),
    "a fraction for a count": (study({"train.epochs": [1.5]}), ["train.epochs=1.5", "allowed: int"]),
    "a truth for a count": (study({"train.epochs": [True]}), ["train.epochs=true", "allowed: int"]),
    "a count for a truth": (study({"train.shuffle": [0]}), ["train.shuffle=0", "allowed: bool"]),
    "text where None or a count may stand": (study({"train.updates": ["x"]}), ["train.updates='x'", "int | None"]),
    "None where it may not stand": (study({"train.epochs": [None]}), ["train.epochs=null", "allowed: int"]),
    "an unhashable level": (study({"train.epochs": [{1}]}), ["train.epochs={1}", "allowed: int"]),
    "a function for a level": (study({"optimizer.lr": [abs]}), ["optimizer.lr=<built-in function abs>", "float"]),
    "a tuple for a list": (study({"model.filters": [(4, 8)]}), ["model.filters=(4, 8)", "list[int]"]),
    "an array of fractions": (study({"model.filters": [np.ones(2)]}), ["model.filters=[1.0, 1.0]", "list[int]"]),
    "a level out of bounds": (study({"model.dropout": [1.5]}), ["(in arm model.dropout=1.5)", "below 1"]),
    "a level that is no number": (study({"optimizer.lr": [float("nan")]}), ["a finite number, above 0"]),
    "an unknown activation": (study({"model.activation": ["leeky"]}), ["did you mean: model.activation=leaky"]),
    "an optimiser by name": (study({"optimizer": ["sgd"]}), ["optimizer='sgd'", GROUPS, "optimizer=SGDConfig(...)"]),
    "an optimiser's class": (study({"optimizer": [SGDConfig]}), ["optimizer=<class", GROUPS]),
    "a network for an optimiser": (study({"optimizer": [MLPConfig("svalheim_mlp")]}), ["optimizer=MLPConfig", GROUPS]),
    "two of a kind": (
        study({"optimizer": [SGDConfig(lr=0.1), SGDConfig(lr=0.2)]}),
        ["optimizer=sgd", "labels that tell levels apart"],
    ),
    "seeds as a knob": (study({"seed": [1, 2]}), ["seed=1,2", "it is no knob", "replicates=N"]),
    "labels as a knob": (study({"arm.name": ["x"]}), ["arm.name=x", "it is no knob", "names its arms itself"]),
    "statistics as a knob": (study({"stats.alpha": [0.1]}), ["stats.alpha=0.1", "it is no knob", "no result"]),
    "a knob for nothing": (
        study({"model.leaky_slope": [0.01, 0.1]}),
        ["model.leaky_slope=0.01,0.1", "does nothing here: model.activation=relu", "remedy: model.activation=leaky"],
    ),
    "the baseline as its only level": (study({"model.activation": ["relu"]}), ["nothing to compare"]),
    "other pictures": (study({"data.difficulty": [0.1]}), ["data.difficulty=0.1", "no knob", "different pictures"]),
    "an unknown design": (study({"train.epochs": [1]}, design="gird"), ["did you mean: hydra.sweeper.design=grid"]),
    "a design by number": (study({"train.epochs": [1]}, design=3), ["hydra.sweeper.design=3", "one_at_a_time, greedy"]),
    "a folder by number": (study({"train.epochs": [1]}, folder=3), ["folder=3", "a path, or None"]),
    "a folder without a name": (study({"train.epochs": [1]}, folder=""), ["folder=''", "a path, or None"]),
    "a file for a folder": (in_place_of_the_folder, ["file is a file", "another path"]),
    "a folder below a file": (below_a_file, ["file is a file", "another path"]),
    # with_settings
    "an option for a number": (set_in(("optimizer", 3)), ["optimizer=3", GROUPS]),
    "a section for a number": (set_in(("train", 3)), ["train=3", "allowed: TrainConfig"]),
    "what options share": (set_in(("optimizer", OptimizerConfig("adam"))), ["optimizer=OptimizerConfig", GROUPS]),
    "a key that is a number": (set_in((3, 1)), ["3=1", "a config key as text"]),
    "no key": (set_in(("", 1)), ["known keys"]),
    # configurations changed or made in Python
    "text for a count, assigned": (assigned("epochs", "ten", "train"), ["train.epochs='ten'", "int, at least 1"]),
    "a slip in a key, assigned": (assigned("epocs", 3, "train"), ["train.epocs=3", "did you mean: train.epochs"]),
    "a key of another option, assigned": (assigned("test_fraction", 0.5, "data"), ["belongs to data=digits"]),
    "a key without its section, assigned": (assigned("epochs", 3), ["epochs=3", "did you mean: train.epochs"]),
    "an element of another type": (element, ["model.filters=['4']", "list[int]"]),
    "a number for a section": (assigned("train", 3), ["train=3", "TrainConfig"]),
    "None for a section": (assigned("optimizer", None), ["optimizer=null", GROUPS]),
    "a section for another": (assigned("train", AdamConfig()), ["train=AdamConfig", "TrainConfig"]),
    "a rate that is infinite": (assigned("lr", float("inf"), "optimizer"), ["optimizer.lr=inf", "a finite number"]),
    "a rate beyond floats": (assigned("lr", 10**400, "optimizer"), ["optimizer.lr=inf", "a finite number"]),
    "filters within filters": (assigned("kernel_sizes", [[3]], "model"), ["model.kernel_sizes=[[3]]", "one value for"]),
    "a size that is text": (assigned("kernel_sizes", "3", "model"), ["model.kernel_sizes=3", "int, at least 1"]),
    "epochs without end": (assigned("epochs", 10**12, "train"), ["at least 1 and at most 1000000"]),
    "seeds without end": (assigned("replicates", 10**6), ["replicates=1000000", "at most 10000"]),
    "a seed too far": (assigned("seed", 2**32 - 1), ["replicates=2", "at most 1 with seed=4294967295", "smaller seed"]),
    "a network that nobody built": (assigned("model", Unregistered()), ["model.name=unregistered", "NETWORKS["]),
    "data that nobody reads": (assigned("data", Unread()), ["data.name=unread", "digits, shapes, cifar10, mnist"]),
    "a network beyond any memory": (
        assigned("hidden", [10**6, 10**6], "model"),
        ["model.hidden=[1000000,1000000]", "at most 2,000,000,000 parameters; here 1,0"],
    ),
    "a value of many lines": (assigned("strides", np.zeros, "model"), ["model.strides=<built-in function zeros>"]),
    "no configuration": (lambda config, folder: checks.check({"train": 3}), ["config={'train': 3}", "a Config"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_use_is_one_clear_message(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    call, expected = WRONG[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        call(tiny_config, tmp_path)
    message = str(refused.value)
    assert [part for part in expected if part not in message] == [], message
    assert len(message.splitlines()) <= 10
    assert {path.name for path in tmp_path.iterdir()} <= {"file"}


def test_there_are_enough_wrong_uses() -> None:
    assert len(WRONG) >= 40


@pytest.mark.parametrize(
    ("given", "labels", "values"),
    [
        ([np.int64(3), np.float64(0.5)], ["3", "0.5"], [3, 0.5]),
        (np.array([1, 2]), ["1", "2"], [1, 2]),
        ([np.array([4, 8])], ["[4,8]"], [[4, 8]]),
        ([[np.int64(4)]], ["[4]"], [[4]]),
        ([np.True_, False], ["true", "false"], [True, False]),
        ((1, 2), ["1", "2"], [1, 2]),
        (range(2), ["0", "1"], [0, 1]),
        ([None], ["null"], [None]),
    ],
    ids=["scalars", "array", "array as a level", "list of scalars", "truth", "tuple", "range", "None"],
)
def test_levels_become_pythons_own(given: Any, labels: list[str], values: list[Any]) -> None:
    (knob,) = read_knobs({"k": given})
    assert [level.label for level in knob.levels] == labels
    found = [level.settings[0][1] for level in knob.levels]
    assert list(map(repr, found)) == list(map(repr, values))


def test_numbers_of_numpy_are_kept_as_pythons_own() -> None:
    model = ModelConfig(filters=np.array([4, 8]), dropout=np.float32(0.5))
    assert (repr(model.filters), repr(model.dropout)) == ("[4, 8]", "0.5")


def test_a_whole_number_for_a_float_is_one_so_that_runs_have_one_identity() -> None:
    assert repr(ModelConfig(dropout=0).dropout) == "0.0"
    changed = with_settings(compose([]), [("optimizer.lr", 1), ("optimizer.weight_decay_biases", 0)])
    assert repr((changed.optimizer.lr, changed.optimizer.weight_decay_biases)) == "(1.0, 0.0)"


def test_a_value_may_be_none_where_the_schema_says_so() -> None:
    changed = with_settings(compose([]), [("data.image_size", None), ("train.updates", 5)])
    assert (changed.data.image_size, changed.train.updates) == (None, 5)
    assert with_settings(changed, [("train.updates", None)]).train.updates is None


def test_settings_leave_what_they_are_given() -> None:
    baseline, rate = compose([]), SGDConfig(lr=0.1)
    changed = with_settings(baseline, [("optimizer", rate), ("optimizer.momentum", 0.5)])
    assert (changed.optimizer.name, changed.optimizer.lr, changed.optimizer.momentum) == ("sgd", 0.1, 0.5)
    assert (baseline.optimizer.name, rate.momentum) == ("adam", 0.0)


def test_a_section_that_refuses_unknown_names_is_still_a_dataclass() -> None:
    baseline = compose(["model=svalheim_mlp", "optimizer=sgd"])
    for copied in (copy.copy(baseline), copy.deepcopy(baseline), pickle.loads(pickle.dumps(baseline))):
        assert copied == baseline
        assert repr(copied) == repr(baseline)
    assert replace(baseline, seed=7).seed == 7
    assert dataclasses.asdict(baseline)["optimizer"]["name"] == "sgd"
    assert Config(ShapesConfig(), ModelConfig(), AdamConfig(), TrainConfig(epochs=1)).train.epochs == 1


def test_somebodys_own_section_takes_its_own_keys() -> None:
    model = Unregistered()
    model.width = 5
    with pytest.raises(ConfigError, match=r"did you mean: model\.width"):
        model.widht = 5  # type: ignore[attr-defined]


def test_a_dry_run_in_python_trains_nothing(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ablate(replace(tiny_config, dry_run=True), {"model.activation": ["leaky"]}, tmp_path / "study")
    assert list(arms.columns[:2]) == ["arm", "knob"]
    assert len(arms) == 0
    assert "2 arms x 2 seeds" in capsys.readouterr().out
    assert not (tmp_path / "study").exists()
