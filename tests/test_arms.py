"""Arms made of plain values are what Hydra composes of them, refusals too; and Hydra is asked once per option."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, parts_forgotten
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime
from hydra.types import RunMode

from cnn_ablation.app import arms, composition
from cnn_ablation.app.keys import CONF_DIR
from cnn_ablation.app.loader import Kept, SharingLoader
from cnn_ablation.app.request import parse, parse_params, read_request
from cnn_ablation.common.errors import UserError
from cnn_ablation.config import StudyConfig, all_settings
from cnn_ablation.study.designs import DESIGNS, Arm

OWN_FUNCTION = """
from dataclasses import dataclass
from pathlib import Path
import enum

class Shade(enum.Enum):
    DARK = 1
    LIGHT = 2

def train(width: int = 3, rate: float = 0.1, name: str = "a", sizes: tuple = (1, 2), shade: Shade = Shade.DARK,
          where: Path = Path("."), options=None, anything=None, *, seed: int) -> dict[str, float]:
    return {"val_loss": rate * width + seed}
"""
FUNCTION = ["task=function", "task.target=own_function.train"]


@pytest.fixture
def composer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., arms.Composer]]:
    """`(overrides, kept)` -> the composer of a study of this command line.

    Without `kept` Hydra itself composes, with a folder of a person's own files; with it the command's loader, which
    shares what is composed of the package's files.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_function", raising=False)
    (tmp_path / "own_function.py").write_text(OWN_FUNCTION)

    def make(lines: Sequence[str], kept: Kept | None = None) -> arms.Composer:
        Plugins.instance()  # finds what reads folders and packages
        search = ConfigSearchPathImpl()
        own = [("own", str(tmp_path / "own"))] if kept is None else []
        for provider, path in [("hydra", "pkg://hydra.conf"), ("main", CONF_DIR), *own]:
            search.append(provider, path)
        search.append("schema", "structured://")
        loader = ConfigLoaderImpl(search) if kept is None else SharingLoader(search, kept)
        parser = OverridesParser.create(config_loader=loader)
        shared = [line for line in lines if line.startswith("study=")]
        master = loader.load_configuration("config", shared, RunMode.MULTIRUN)
        request = read_request(parse_params(master.hydra.sweeper.params, parser), parse(list(lines), parser))
        return arms.Composer(loader, master, request)

    (tmp_path / "own").mkdir(exist_ok=True)
    with composition._own_hydra(), parts_forgotten():
        version.setbase("1.3")
        JobRuntime.instance().set("name", "cnn_ablation")
        yield make


def arms_of(composer: arms.Composer, design: str = "one_at_a_time") -> list[Arm]:
    return DESIGNS[design](composer._request.knobs, lambda arm: None)


def answer(compose: Callable[[Arm], StudyConfig], arm: Arm) -> tuple[Any, ...]:
    """All that a person can tell an answer by: class and values in their order, with their types; or the message."""
    try:
        config = compose(arm)
    except UserError as error:
        return type(error), str(error)
    values = {key: (type(value), repr(value)) for key, value in all_settings(config).items()}
    return type(config), repr(config), list(values.items())


IMAGES: dict[str, list[str]] = {
    "floats": ["optimizer.lr=1e-3,0.001,1,.5,5_0,1.0E-2,-1,nan"],
    "what is no float": ["optimizer.lr=fast,true,null,[1],'0.1','x y'"],
    "integers": ["train.epochs=3,3.0,3.5,'7',1e1,true,0x10"],
    "an integer or a word": ["replicates=auto,3,'4',3.0,null,[1]"],
    "an integer or null": ["threads=1,null,None,2.5,two"],
    "truths": ["model.batch_norm=false,TRUE,yes,1,2,'true',null"],
    "lists": ["model.filters=[1,2],[],'[4,5]',4,null,[1.5],[a],[[1]]"],
    "one for all layers or a list": ["model.kernel_sizes=3,[5,3,3],null,three,2.0"],
    "words": ["model.activation=leaky,'relu',1,null,re\\,lu,'a b'"],
    "words or null": ["stats.direction=higher,null,lower,sideways"],
    "lists of words": ["vary=[init],[init,order],[],null,[1],all"],
    "options": ["optimizer=adam,sgd,rmsprop"],
    "options that are not there": ["optimizer=adam,sdg"],
    "models": ["model=three_conv,lenet5,sorensen,svalheim_mlp"],
    "options with values of their own keys": ["zip.o={optimizer:sgd,optimizer.momentum:0.9},{optimizer:adam}"],
    "a key of another option": ["zip.o={optimizer:adam,optimizer.momentum:0.9}"],
    "an option against values that hold for all": ["optimizer.lr=0.5", "optimizer=adam,sgd"],
    "an option that lacks a fixed key": ["optimizer=sgd", "optimizer.momentum=0.5", "optimizer=adam,sgd"],
    "a level in place of a fixed value": ["model.dropout=0.2", "model.dropout=0,0.3", "train.epochs=2"],
    "several keys of one section": ["zip.n={model.filters:[4],model.hidden:[8],train.epochs:3}"],
    "keys that are not there": ["model.droput=0,0.1"],
    "a section as a value": ["train=3,{epochs:3},null"],
    "a part of a list": ["model.filters.0=3,4"],
    "an added key": ["+optimizer.new=1,2"],
    "a key in two plus signs": ["++optimizer.lr=1e-3,1e-4", "++model.dropout=0.1"],
    "a key added where it is": ["+optimizer.lr=1e-3,1e-4"],
    "a dictionary of plain values": ["zip.d={train:{epochs:3,batch_size:8}},{train:{epochs:4}}"],
    "what stands for another value": ["seed=3", "train.epochs=${seed},4", "model.dropout='${optimizer.lr}',0.1"],
    "a fixed value that stands for another": ["train.epochs=${replicates}", "replicates=2", "model.dropout=0,0.1"],
    "a missing value": ["model.activation=???,relu", "optimizer.lr=???"],
    "a network of one's own": ["model=module", "model.target=own_nets.ResNet", "model.kwargs.width=8,1.5,a,[1],null"],
    "a network's own keys, nested": ["model=module", "model.target=own_nets.ResNet", "model.kwargs.a.b=1,2"],
    "a network's own keys, zipped": ["model=module", "model.target=a.B", "zip.k={model.kwargs.x:1,model.kwargs.y:a}"],
    "a network's own keys as a dictionary": ["model=module", "model.target=a.B", "zip.k={model.kwargs:{x:1}}"],
    "a network that is to be named": ["model=module", "model.target=a.B,c.D"],
    "a level of Hydra's": ["hydra.job.name=a,b"],
    "quotes and letters": ["store='a b','it\\'s',a/b,.,'ü {x}',\"d e\""],
    "extensions": ["extensions=[],[no_such_module]"],
}  # fmt: skip

FUNCTIONS: dict[str, list[str]] = {
    "integers": ["settings.width=3,4,4.0,4.5,'5',many,null,true"],
    "floats": ["settings.rate=1,1e-3,true,x"],
    "two numbers": ["settings.width=3,4,4.5", "settings.rate=1,1e-3,x"],
    "text": ["settings.name=a,'a b',3,1e3,null,true,[a]"],
    "tuples": ["settings.sizes=[1,2],[],3,null,[[1],[2]]"],
    "enumerations": ["settings.shade=DARK,LIGHT,GREY,1,null"],
    "paths": ["settings.where=a/b,.,null,3"],
    "dictionaries": ["settings.options={a:2},{b:1},{}"],
    "inside a dictionary": ["settings.options.a=2,3", "settings.options.c=1,2"],
    "anything": ["settings.anything=1,a,[1,{b:2}],null,1.0,true,'1','null'"],
    "one that is a list and then none": ["settings.anything=[1],2,[3,4],{a:1},5"],
    "a setting that is not there": ["settings.heigth=1,2"],
    "a fixed setting": ["settings.width=7", "settings.rate=0.1,0.2"],
    "a fixed setting that is a knob too": ["settings.rate=9", "settings.rate=0.1,0.2", "settings.width=4"],
    "a sum of settings": ["zip.both={settings.width:4,settings.rate:0.2},{settings.width:5,label:five}"],
    "two functions": ["task.target=own_function.train,own_function.other"],
    "an option of the other task": ["optimizer=adam,sgd"],
}


def both_ways(composer: arms.Composer, design: str) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Arms forwards, and those that were no mistakes backwards: what one has set must not be seen by another.

    The last arm that is accepted and the last that is refused are what Hydra itself composes, which takes longest. That
    the command's loader composes what Hydra does is held by `tests/test_loader.py`.
    """
    composed = {arm: answer(composer.composed, arm) for arm in arms_of(composer, design)}
    accepted = [arm for arm, found in composed.items() if not issubclass(found[0], UserError)]
    for arm in (*composed, *reversed(accepted)):
        yield composed[arm], answer(composer.config, arm)
    by_hydra = arms.Composer(ConfigLoaderImpl(composer._loader.config_search_path), composer._master, composer._request)
    for arm in {arm in accepted: arm for arm in composed}.values():
        yield answer(by_hydra.composed, arm), composed[arm]


@pytest.fixture(scope="module")
def kept() -> Kept:
    """Compositions of all cases: they differ in values."""
    return {}


@pytest.mark.parametrize("case", IMAGES)
def test_values_of_image_classification_agree(case: str, composer: Callable[..., arms.Composer], kept: Kept) -> None:
    study = composer(IMAGES[case], kept)
    for composed, by_values in both_ways(study, "grid"):
        assert composed == by_values


@pytest.mark.parametrize("case", FUNCTIONS)
def test_settings_of_a_function_agree(case: str, composer: Callable[..., arms.Composer], kept: Kept) -> None:
    study = composer([*FUNCTION, *FUNCTIONS[case]], kept)
    for composed, by_values in both_ways(study, "grid"):
        assert composed == by_values


STUDIES = sorted(path.stem for path in Path(CONF_DIR).glob("study/*.yaml"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "knobs" else pytest.mark.slow) for name in STUDIES]
)
def test_every_study_agrees(name: str, composer: Callable[..., arms.Composer]) -> None:
    study = composer([f"study={name}"])
    for arm in arms_of(study, "one_at_a_time"):
        assert answer(study.composed, arm) == answer(study.config, arm)
        assert answer(study.config, arm)[0] is composition.Config


@pytest.mark.parametrize(
    ("compositions", "lines"),
    [
        (1, ["optimizer.lr=1e-3,1e-4,1e-5", "model.dropout=0,0.1,0.2"]),
        (3, ["optimizer=adam,sgd,rmsprop", "model.dropout=0,0.1,0.2"]),
        (1, ["model.batch_norm=true,false", "zip.z={train.epochs:3,model.filters:[8]},{train.epochs:4}"]),
        (1, [*FUNCTION, "settings.width=1", "settings.width=3,4,5", "settings.rate=2", "settings.rate=1,2"]),
    ],
    ids=["values", "options", "zipped", "levels in place of fixed values"],
)
def test_hydra_composes_once_per_choice_of_options(
    compositions: int, lines: list[str], composer: Callable[..., arms.Composer], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, asked = composer(lines), list[tuple[str, ...]]()
    load = study._loader.load_sweep_config

    def counted(master: Any, overrides: list[str]) -> Any:
        asked.append(tuple(overrides))
        return load(master, overrides)

    monkeypatch.setattr(study._loader, "load_sweep_config", counted)
    for arm in arms_of(study, "grid")[1:]:
        study.config(arm)
    assert len(asked) == compositions


def test_a_configuration_is_nobody_elses(composer: Callable[..., arms.Composer]) -> None:
    study = composer(["model.dropout=0,0.1"])
    baseline, first, second = arms_of(study)
    changed = study.config(first)
    changed.model.filters.append(7)
    assert study.config(first).model.filters == study.config(second).model.filters != changed.model.filters
    assert study.config(baseline).model.filters != changed.model.filters


def test_interpolations_of_a_persons_own_files_follow_an_arm(
    tmp_path: Path, composer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / "own" / "study").mkdir()
    (tmp_path / "own" / "study" / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      train.epochs: 3,4\n"
        "train:\n  patience: ${train.epochs}\nstore: ${oc.env:HOME}/runs\n"
    )
    study = composer(["study=mine"])
    assert [study.config(arm).train.patience for arm in arms_of(study)[1:]] == [3, 4]
    for composed, by_values in both_ways(study, "one_at_a_time"):
        assert composed == by_values


EXTENSION = """
from dataclasses import dataclass
import cnn_ablation

@dataclass
class Wide:
    width: int = 4
    hidden: int = 0

    def __post_init__(self):
        self.hidden = self.hidden or 2 * self.width

@cnn_ablation.network("wide", Wide)
def wide(settings, num_classes):
    return []
"""


def test_a_dataclass_that_computes_values_computes_them_for_every_arm(tmp_path: Path, composer: Any) -> None:
    from hydra.core.config_store import ConfigStore

    from cnn_ablation.app import extensions

    (tmp_path / "own_parts.py").write_text(EXTENSION)
    lines = ["extensions=[own_parts]", "model=wide", "model.width=5,6"]
    extensions.load(lines[:1])
    composition.register_schemas(ConfigStore.instance())
    study = composer(lines)
    assert [study.config(arm).model.hidden for arm in arms_of(study)] == [8, 10, 12]
    sys.modules.pop("own_parts", None)


@pytest.mark.parametrize(
    "lines",
    [
        ["optimizer.lr=1e-3,fast"],
        ["model.dropout=0.1,1.5"],
        ["model.droput=0.1,0.2"],
        ["optimizer=sgd,adma"],
        ["zip.z={train.epochs:3,optimizer.momentum:1}"],
    ],
    ids=lambda lines: lines[0],
)
def test_the_command_says_the_same(
    lines: list[str], cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = cli("-m", *lines, "dry_run=true")
    monkeypatch.setattr(arms.Composer, "config", arms.Composer.composed)
    slow = cli("-m", *lines, "dry_run=true")
    assert (slow.code, slow.out, slow.err) == (fast.code, fast.out, fast.err)
    assert fast.code == 2


WAYS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "momentum": {"optimizer.momentum": 0.9},
    "logits": {"model.output": "logits"},
}


def test_columns_of_the_program_of_eq2425_are_those_of_its_table_but_for_what_the_paper_does_not_say(
    composer: Any,
) -> None:
    table = composer(["study=eq2425"])
    columns = {arm.name.removeprefix("column="): all_settings(table.config(arm)) for arm in arms_of(table)}
    columns["3.2"] = columns.pop("baseline")
    program = composer(["study=eq2425_program"])
    found = {arm.name.removeprefix("column="): all_settings(program.config(arm)) for arm in arms_of(program)}
    found["4.A.2.softmax"] = found.pop("baseline")
    names = [f"{column}.{way}" for column in ("3.2", "4.A.2", "4.C", "4.D", "4.E") for way in WAYS]
    assert sorted(found) == sorted([*names, "5.C.momentum"])
    for name, settings in found.items():
        column, _, way = name.rpartition(".")
        expected = columns[column] | WAYS[way] | {"paper": "eq2425_program"}
        if expected["model.batch_norm"]:
            expected["model.batch_norm_place"] = "after"
        assert settings == expected
