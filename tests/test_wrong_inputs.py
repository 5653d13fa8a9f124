"""A hundred wrong inputs, one message each: what is wrong, what is allowed, what to do; and nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Answer

GLOBAL = "# @package _global_\n"
PARAMS = f"{GLOBAL}hydra:\n  sweeper:\n    params:\n"

FILES: dict[str, str | bytes] = {
    "logged/cnn_ablation.log/a_file": "",
    "mine/study/broken.yaml": "a: [1, 2\nb: }",
    "mine/study/tabs.yaml": f"{GLOBAL}train:\n\tepochs: 3\n",
    "mine/study/twice.yaml": f"{GLOBAL}seed: 1\nseed: 2\n",
    "mine/study/binary.yaml": b"\xff\xfe\x00train",
    "mine/study/unknown_key.yaml": f"{GLOBAL}train:\n  epoch: 3\n",
    "mine/study/unknown_section.yaml": f"{GLOBAL}trian:\n  epochs: 3\n",
    "mine/study/no_package.yaml": "train:\n  epochs: 3\n",
    "mine/study/wrong_type.yaml": f"{GLOBAL}train:\n  epochs: many\n",
    "mine/study/no_params.yaml": f"{GLOBAL}hydra:\n  mode: MULTIRUN\ntrain:\n  epochs: 3\n",
    "mine/study/params_text.yaml": f"{GLOBAL}hydra:\n  sweeper:\n    params: model.dropout=0,0.3\n",
    "mine/study/one_level.yaml": f"{PARAMS}      model.dropout: 0.3\n",
    "mine/study/no_text.yaml": f"{PARAMS}      model.filters: [4, 8]\n",
    "mine/study/nested.yaml": f"{PARAMS}      model:\n        dropout: 0,0.3\n",
    "mine/study/unclosed.yaml": f'{PARAMS}      model.filters: "[24,48"\n',
    "mine/study/bad_zip.yaml": f'{PARAMS}      zip.z: "{{train.epochs:}}"\n',
    "mine/study/bad_level.yaml": f"{PARAMS}      model.activation: relu,leeky\n",
    "mine/study/bad_knob.yaml": f"{PARAMS}      model.activatoin: relu,leaky\n",
    "mine/study/seeds.yaml": f"{PARAMS}      seed: 0,1\n",
    "mine/study/bad_option.yaml": f"{GLOBAL}defaults:\n  - override /model: nowhere\n",
    "mine/study/bad_group.yaml": f"{GLOBAL}defaults:\n  - override /modle: lenet5\n",
    "mine/study/no_override.yaml": f"{GLOBAL}defaults:\n  - /model: lenet5\n",
    "mine/study/no_list.yaml": f"{GLOBAL}defaults: model\n",
    "mine/study/design.yaml": f"{PARAMS}      model.dropout: 0.0,0.3\n    design: gird\n",
    "mine/study/mode.yaml": f"{GLOBAL}hydra:\n  mode: SWEEP\n",
    "mine/model/no_schema.yaml": "filters: [4]\n",
    "mine/model/bad_schema.yaml": "defaults:\n  - /schema/model@_here_: conv\n",
    "mine/model/named.yaml": "defaults:\n  - /schema/model@_here_: convolutional\n  - _self_\nname: mine\n",
    "mine/data/mistyped.yaml": "defaults:\n  - /schema/data@_here_: shapes\n  - _self_\ntrain_images: few\n",
    "a_file": "text",
    "project/notes/todo.txt": "text",
    "images/train/cat/broken.png": b"no picture",
}


@dataclass(frozen=True)
class Case:
    """A command line, and what its message must hold."""

    words: Sequence[str]
    expected: Sequence[str]
    command: str = "cnn_ablation"


def mine(words: str, *expected: str) -> Case:
    """A case of files in a --config-dir."""
    return Case(["--config-dir", "mine", "-m", *words.split()], expected)


def main(*words: str, expected: Sequence[str]) -> Case:
    return Case(words, expected)


def describe(*words: str, expected: Sequence[str]) -> Case:
    return Case(words, expected, "describe")


def store(*words: str, expected: Sequence[str]) -> Case:
    return Case(words, expected, "store")


RELU = "model.activation=relu"
KNOB = "model.activation=relu,leaky"

CASES: dict[str, Case] = {
    # -- knobs that would be dropped
    "two lists": main(
        "-m",
        "optimizer.lr=1e-3,2e-3",
        "optimizer.lr=3e-3,4e-3",
        expected=[
            "optimizer.lr=3e-3,4e-3",
            "optimizer.lr=1e-3,2e-3 stands",
            "remedy: optimizer.lr=1e-3,2e-3,3e-3,4e-3",
        ],
    ),
    "two lists, forced": main("-m", KNOB, "++model.activation=elu,tanh", expected=["one list of levels", KNOB]),
    "a list, then a value": main(
        "-m", KNOB, RELU, expected=[f"{KNOB} stands before it", f"remedy: {RELU} {KNOB}", "alone for no knob"]
    ),
    "a zip twice": main(
        "-m",
        "zip.z={train.epochs:3}",
        "zip.z={train.epochs:4}",
        expected=["zip.z={train.epochs:4}", "zip.z={train.epochs:3} stands before it", "another name"],
    ),
    "-m alone": main("-m", expected=["-m (a study) without a knob", "leave out -m", KNOB]),
    "-m with a value": main("-m", "train.epochs=3", expected=["without a knob", "leave out -m"]),
    "mode without a knob": main("hydra.mode=MULTIRUN", expected=["without a knob"]),
    "empty choice": main("-m", "model.activation=choice()", expected=["model.activation=choice()", "list is empty"]),
    "empty range": main("-m", "train.epochs=range(3,1)", expected=["train.epochs=range(3,1)", "range(1,4)"]),
    "range without end": main("-m", "train.epochs=range(1,3,0)", expected=["range(1,3,0)", "levels that end"]),
    "range too long": main("-m", "train.epochs=range(1,100000000)", expected=["at most 10000 levels"]),
    "open interval": main("-m", "optimizer.lr=interval(0,1)", expected=["interval(0,1)", "a list of levels"]),
    "glob over a key": main("-m", "model.activation=glob(*)", expected=["glob for a config group", "relu, leaky"]),
    "glob of nothing": main(
        "-m", "optimizer=glob(z*)", expected=["adagrad, adam, adamw, rmsprop, sgd", "adagrad,adam"]
    ),
    "only the baseline": main(
        "-m", "optimizer.lr=1e-3,0.001", expected=["optimizer.lr=0.001,0.001", "nothing to compare"]
    ),
    "one level, the baseline's": main(
        "-m", "model.activation=choice(relu)", expected=["model.activation=relu", "nothing to compare"]
    ),
    "a knob of another schedule": main(
        "-m",
        "train.step_factor=0.1,0.5",
        expected=["train.step_factor=0.1,0.5", "nothing here: train.schedule=constant", "remedy: train.schedule=step"],
    ),
    "smoothing of another loss": main(
        "-m",
        "train.loss=mean_squared_error",
        "train.label_smoothing=0,0.1",
        expected=["train.label_smoothing=0,0.1", "nothing here: train.loss=mean_squared_error", "train.loss=cross"],
    ),
    "nesterov without momentum": main(
        "-m",
        "optimizer=sgd",
        "optimizer.nesterov=false,true",
        expected=["optimizer.nesterov=true", "without momentum there is nothing", "remedy: optimizer.momentum=0.9"],
    ),
    "study as a knob": main("-m", "study=knobs,eq2425", expected=["study=knobs,eq2425", "it is no knob"]),
    "another sweeper": main("-m", "hydra/sweeper=basic", KNOB, expected=["hydra/sweeper=basic", "allowed: ablation"]),
    "no folder for a study": main(
        "-m", "hydra.sweep.dir=", KNOB, expected=["hydra.sweep.dir=\n", "allowed: the name of a folder", "leave it out"]
    ),
    "no folder for a run": main(
        "hydra.run.dir=''", expected=["hydra.run.dir=''\n", "hydra.run.dir=. for the working directory"]
    ),
    "a file for a run's folder": main(
        "hydra.run.dir=a_file",
        expected=["cannot write to a_file: File exists\n", "hydra.run.dir=DIR without -m"],
    ),
    "a folder for a run's log": main(
        "hydra.run.dir=logged",
        expected=["logged/cnn_ablation.log: Is a directory\n", "hydra.run.dir=DIR"],
    ),
    "a file for a study's folder": main(
        "-m", "hydra.sweep.dir=a_file", KNOB, expected=["/a_file: Not a directory\n  remedy: ", "hydra.sweep.dir=DIR"]
    ),
    "null for a folder": main(
        "-m", "hydra.sweep.dir=null", KNOB, expected=["hydra.sweep.dir=null\n", "remedy: leave it"]
    ),
    "params typed": main("-m", "hydra.sweeper.params.x=3", expected=["in the file of a study only", "KEY=A,B"]),
    # -- zips
    "zip of a number": main("-m", "zip.large=3", expected=["zip.large=3", "dictionaries", "'zip.large={train.batch"]),
    "zip of a number, no -m": main("zip.large=3", expected=["zip.large=3", "dictionaries", "'zip.large={train.batch"]),
    "zip without -m": main("zip.z={train.epochs:3}", expected=["zip.z={train.epochs:3}", "add --multirun (-m)"]),
    "zip unclosed": main("-m", "zip.z={a", expected=["zip.z={a\n", "zip.z={train.batch_size:256"]),
    "zip without value": main(
        "-m", "zip.z={train.epochs:}", expected=["zip.z={train.epochs:}\n", "close every bracket"]
    ),
    "zip empty": main("-m", "zip.z=", expected=["zip.z=\n", "dictionaries of config keys"]),
    "zip of no level": main("-m", "zip.z={}", expected=["zip.z={}\n", "dictionaries of config keys"]),
    "zip of a label": main("-m", "zip.z={label:a}", expected=["zip.z={label:a}", "dictionaries of config keys"]),
    "zip of equal labels": main(
        "-m", "zip.z={label:a,train.epochs:1},{label:a,train.epochs:2}", expected=["a stands there twice"]
    ),
    "zip without a name": main("-m", "zip.={train.epochs:3}", expected=["a name behind zip.", "'zip.large={"]),
    "zip taken apart by the shell": main(
        "-m", "zip.z=train.epochs:3", "zip.z=optimizer.lr:4", expected=["in quotes: a shell takes bare braces apart"]
    ),
    "zip of a misfit": main(
        "-m",
        "zip.z={model.kernel_sizes:[7,7,7]},{train.epochs:1}",
        expected=["(in arm zip.z={model.kernel_sizes:[7,7,7]})", "model.kernel_sizes=[7,7,7]\n", "7x7 filter"],
    ),
    # -- arms that are refused
    "misfit": main(
        "-m", "model.kernel_sizes=[3,3,3],[7,7,7]", expected=["(in arm model.kernel_sizes=[7,7,7])", "[7,7,7]\n"]
    ),
    "misfit in the full one": main(
        "-m",
        "model.kernel_sizes=[3,3,3],[7,7,7]",
        KNOB,
        "hydra.sweeper.design=leave_one_out",
        expected=["(in arm full: model.kernel_sizes=[7,7,7],model.activation=leaky)"],
    ),
    "level out of bounds": main("-m", "optimizer.lr=1e-3,-1e-3", expected=["(in arm optimizer.lr=-1e-3)", "above 0"]),
    "level of the wrong type": main(
        "-m", "train.epochs=1,1.5", expected=["(in arm train.epochs=1.5)", "int, at least 1"]
    ),
    "level that is no list": main(
        "-m", "model.hidden=24,48", expected=["model.hidden=24", "remedy: model.hidden=[24]"]
    ),
    "level of another group": main(
        "-m", "model=lenet5,lenet6", expected=["model=lenet6", "did you mean: model=lenet5"]
    ),
    # -- what is no knob
    "the name of an arm": main("arm.name=mine", expected=["arm.name=mine", "names its arms itself", "leave it out"]),
    "a whole arm": main("-m", KNOB, "arm={name:mine,level:x}", expected=["arm={name:mine,level:x}", "leave it out"]),
    "the name of an arm as a knob": main("-m", "arm.name=a,b", expected=["arm.name=a,b", "it is no knob"]),
    "alpha": main("stats.alpha=0.05,0.01", expected=["stats.alpha=0.05,0.01", "one value: it is no knob"]),
    "seed as a knob": main("seed=0,1", expected=["seed=0,1", "it is no knob", "replicates=N"]),
    "design as a knob": main("-m", "hydra.sweeper.design=grid,greedy", KNOB, expected=["grid,greedy", "it is no knob"]),
    "knob without -m": main(KNOB, expected=[KNOB, "add --multirun (-m)"]),
    "group without -m": main("model=alexnet,lenet5", expected=["model=alexnet,lenet5", "add --multirun (-m)"]),
    # -- keys in other words
    "seeds, a list": main("seeds=[1,5]", expected=["seeds=[1,5]", "remedy: seed=FIRST replicates=N"]),
    "seeds": main("seeds=5", expected=["seeds=5", "remedy: seed=FIRST replicates=N"]),
    "design": main("design=grid", expected=["design=grid", "did you mean: hydra.sweeper.design=grid"]),
    "design misspelt": main("design=gird", expected=["did you mean: hydra.sweeper.design=grid"]),
    "whole design misspelt": main("hydra.sweeper.design=gird", expected=["did you mean: hydra.sweeper.design=grid"]),
    "sweep.dir": main("sweep.dir=x", expected=["did you mean: hydra.sweep.dir=x"]),
    "launcher": main("launcher=joblib", expected=["did you mean: hydra/launcher=joblib"]),
    "launcher with a dot": main("hydra.launcher=joblib", expected=["did you mean: hydra/launcher=joblib"]),
    "launcher not installed": main(
        "hydra/launcher=rq", expected=["hydra/launcher=rq", "joblib, ray, submitit", "pip install hydra-rq-launcher"]
    ),
    "launcher by half its name": main("hydra/launcher=slurm", expected=["did you mean: hydra/launcher=submitit_slurm"]),
    "key of a launcher": main(
        *("-m", KNOB, "hydra/launcher=joblib", "hydra.launcher.cpu=2"),
        expected=["hydra.launcher.cpu=2", "keys of the launcher", "did you mean: hydra.launcher.cpus=2"],
    ),
    "key of another launcher": main(
        *("-m", KNOB, "hydra/launcher=joblib", "hydra.launcher.partition=long"),
        expected=["hydra.launcher.partition=long", "hydra/launcher=NAME chooses another launcher"],
    ),
    "key of no launcher": main("-m", KNOB, "hydra.launcher.cpus=2", expected=["cpus=2", "this launcher has none"]),
    "free name of a launcher": main(
        "-m",
        KNOB,
        "hydra/launcher=ray",
        "hydra.launcher.resources.small=1",
        expected=["resources.small=1", "remedy: +hydra.launcher.resources.small=1"],
    ),
    "free names of a launcher": main(
        "-m",
        KNOB,
        "hydra/launcher=ray",
        "hydra.launcher.resources={small:1}",
        expected=["resources={small:1}", "remedy: +hydra.launcher.resources.small=VALUE"],
    ),
    "value of a launcher": main(
        *("-m", KNOB, "hydra/launcher=joblib", "hydra.launcher.cpus=0"),
        expected=["hydra.launcher.cpus=0", "allowed: at least 1"],
    ),
    "last name only": main("lr=0.1", expected=["did you mean: optimizer.lr=0.1"]),
    "last name, wrong value": main("lr=high", expected=["lr=high", "perhaps optimizer.lr, which takes float, above 0"]),
    "misspelt last name": main("batchsize=3", expected=["did you mean: train.batch_size=3"]),
    "misspelt section": main("trian.epochs=3", expected=["did you mean: train.epochs=3"]),
    "misspelt key": main("optimizer.momentun=0.9", "optimizer=sgd", expected=["did you mean: optimizer.momentum=0.9"]),
    "misspelt option": main("optimizer=adm", expected=["did you mean: optimizer=adam"]),
    "misspelt study": main("study=knob", expected=["did you mean: study=knobs"]),
    "misspelt value": main("train.loss=cross_entrpy", expected=["did you mean: train.loss=cross_entropy"]),
    "key of another option": main(
        "data.root=x", expected=["data.root=x", "belongs to data=cifar10 and data=image_folder"]
    ),
    "key that was added": main("+train.lr=0.1", expected=["train.lr=0.1", "keys of train: epochs"]),
    # -- flags and words
    "unknown flag": main("-x", expected=["-x\n", "-m", "--help lists both", "leave it out"]),
    "setting as a flag": main("--dryrun", expected=["--dryrun", "did you mean: dry_run=true"]),
    "value as a flag": main("--epochs=3", expected=["--epochs=3", "did you mean: train.epochs=3"]),
    "misspelt flag": main("--mulitrun", KNOB, expected=["--mulitrun", "did you mean: --multirun"]),
    "flag with a value": main("--multirun=true", expected=["--multirun alone"]),
    "cfg of nothing": main("train.epochs=1", "--cfg", expected=["--cfg\n", "job, hydra, all", "remedy: --cfg job"]),
    "cfg of a word": main("--cfg", "jobs", expected=["--cfg jobs", "job, hydra, all"]),
    "cfg of a study": main("--cfg", "job", "-m", KNOB, expected=["--multirun --cfg", "leave out --multirun"]),
    "resolve alone": main("--resolve", expected=["--resolve", "--cfg job --resolve"]),
    "config dir missing": main("--config-dir", "nowhere", expected=["--config-dir nowhere", "is not there"]),
    "config dir a file": main(RELU, "--config-dir=a_file", expected=["--config-dir a_file", "this is a file"]),
    "config name missing": main("--config-name", "x", expected=["no configuration file 'x.yaml'", "--config-dir DIR"]),
    "list cut by the shell": main(
        "model.filters=[24,",
        "48]",
        expected=["model.filters=[24,\n", "the next word is 48]", "'model.filters=[24, 48]'"],
    ),
    "a space behind a comma": main(
        "-m", f"{RELU},", "leaky,", "tanh", "seed=1", expected=[f"did you mean: {RELU},leaky,tanh, without spaces\n"]
    ),
    "a space before a comma": main("-m", RELU, ",leaky", expected=[f"did you mean: {RELU},leaky, without spaces\n"]),
    "report as a word": main(
        "report", "my study", expected=["python -m cnn_ablation.report 'my study' ", "a command of its own"]
    ),
    "store as a word": main("store", "list", expected=["did you mean: python -m cnn_ablation.store list "]),
    "store as a key": main("store", expected=["did you mean: store=.ablation_runs\n"]),
    "help as a word": main("help", expected=["did you mean: --help\n"]),
    "spaces around =": main("train.epochs", "=", "3", expected=["did you mean: train.epochs=3, without spaces"]),
    "no =": main("model.activation", "tanh", expected=["no '='", "did you mean: model.activation=tanh"]),
    "colon for =": main("train.epochs:3", expected=["did you mean: train.epochs=3"]),
    "study without its key": main("knobs", expected=["did you mean: study=knobs"]),
    "no key": main("=3", expected=["=3\n", "a key before the '='"]),
    "empty word": main("", expected=["an empty word", "variable of the shell"]),
    "unclosed list": main("model.filters=[24,48", expected=["model.filters=[24,48\n", "close every bracket"]),
    "umlaut": main(
        "hydra.run.dir=größe", expected=["ö cannot stand there without quotes", "\"hydra.run.dir='größe'\""]
    ),
    "brackets in a path": main("store=my(runs)", expected=["store=my(runs)\n", "\"store='my(runs)'\""]),
    # -- values
    "fraction for a whole number": main("train.epochs=1.5", expected=["train.epochs=1.5", "int, at least 1", "is 6"]),
    "number for a word": main("model.activation=3", expected=["model.activation=3", "relu, leaky"]),
    "number for a switch": main("train.shuffle=2", expected=["train.shuffle=2", "train.shuffle=true or"]),
    "word for a switch": main(
        "train.shuffle=perhaps", expected=["train.shuffle=perhaps", "bool", "the default is true"]
    ),
    "percent": main("data.val_fraction=20%", expected=["data.val_fraction=20%", "above 0 and below 1"]),
    "value for a section": main("train=3", expected=["train=3", "keys of train: epochs", "train.epochs=VALUE"]),
    "number for a group": main("model=3", expected=["model=3", "alexnet", "three_conv"]),
    "list for a group": main("model=[alexnet,lenet5]", expected=["model=[alexnet,lenet5]", "one of alexnet"]),
    "null for a group": main("data=null", expected=["data=null", "cifar10", "svhn"]),
    "out of bounds": main("model.dropout=1.5", expected=["model.dropout=1.5", "at least 0 and below 1"]),
    "no replicates": main("replicates=0", expected=["replicates=0", "at least 1"]),
    "contradiction": main("model.filters=[8,8]", expected=["model.kernel_sizes=[5,3,3]\n", "2 kernel sizes"]),
    "batch larger than the data": main("train.batch_size=9999", expected=["train.batch_size=9999", "1005 training"]),
    # -- files of one's own
    "YAML unclosed": mine("study=broken", "broken.yaml", "line 1, column 4"),
    "YAML with tabs": mine("study=tabs", "tabs.yaml", "line 3, column 1"),
    "YAML key twice": mine("study=twice", "twice.yaml", "duplicate key seed"),
    "YAML no text": mine("study=binary", "binary.yaml is no text", "save it as UTF-8"),
    "file: key": mine("study=unknown_key", "in the file study/unknown_key.yaml", "did you mean: train.epochs"),
    "file: section": mine("study=unknown_section", "study/unknown_section.yaml", "did you mean: train"),
    "file: package": mine("study=no_package", "study/no_package.yaml", "'# @package _global_'"),
    "file: type": mine("study=wrong_type", "in the file study/wrong_type.yaml", "train.epochs=many", "int, at least 1"),
    "file: no params": mine("study=no_params", "study=no_params has no knob", "hydra.sweeper.params", KNOB),
    "file: params of text": mine("study=params_text", "study/params_text.yaml", "hydra.sweeper.params=model.dropout"),
    "file: one level": mine("study=one_level", "hydra.sweeper.params.model.dropout=0.3", "model.dropout: 0.0,0.3"),
    "file: levels no text": mine("study=no_text", "hydra.sweeper.params.model.filters=[4, 8]", "a list of levels"),
    "file: nested params": mine("study=nested", "hydra.sweeper.params.model=", "below the whole key"),
    "file: unclosed": mine("study=unclosed", "hydra.sweeper.params.model.filters=[24,48\n", "levels as text"),
    "file: bad zip": mine("study=bad_zip", "hydra.sweeper.params.zip.z={train.epochs:}\n", "zip.z: "),
    "file: level": mine("study=bad_level", "(in arm model.activation=leeky)", "did you mean: model.activation=leaky"),
    "file: knob": mine("study=bad_knob", "model.activatoin=relu", "did you mean: model.activation=relu"),
    "file: no knob": mine("study=seeds", "seed=0,1", "it is no knob"),
    "file: option": mine("study=bad_option", "model=nowhere", "alexnet, bad_schema"),
    "file: group": mine("study=bad_group", "study/bad_group", "modle"),
    "file: no override": mine("study=no_override", "override model: lenet5"),
    "file: defaults no list": mine("study=no_list", "study/no_list", "must be a list"),
    "file: design": mine("study=design", "hydra.sweeper.design=gird", "did you mean: hydra.sweeper.design=grid"),
    "file: mode": mine("study=mode", "in the file study/mode.yaml", "hydra.mode=SWEEP", "[RUN, MULTIRUN]"),
    "file: no schema": mine(f"model=no_schema {KNOB}", "in the file model/no_schema.yaml", "model.filters="),
    "file: bad schema": mine(f"model=bad_schema {KNOB}", "schema/model=conv", "convolutional, mlp"),
    "file: bad data": mine(f"data=mistyped {KNOB}", "in the file data/mistyped.yaml", "data.train_images=few"),
    "image folder missing": main(
        "data=image_folder", "data.root=nowhere", expected=["data.root=nowhere", "train/<class>/*"]
    ),
    "image folder without test": main("data=image_folder", "data.root=images", expected=["data.root=images", "test/"]),
    # -- describe
    "describe: input of nothing": describe("input=[3,0,0]", expected=["input=[3,0,0]", "each at least 1"]),
    "describe: input of letters": describe("input=abc", expected=["input=abc", "remedy: input=[3,32,32]"]),
    "describe: input too large": describe("input=[3,9999999,1]", expected=["input=[3,9999999,1]", "below a million"]),
    "describe: one class": describe("classes=1", expected=["classes=1\n", "at least 2"]),
    "describe: classes no number": describe("classes=1e9", expected=["classes=1e9", "a whole number"]),
    "describe: classes of a superscript": describe("classes=²", expected=["classes=²", "a whole number"]),
    "describe: a digit too many": describe(f"classes={'1' * 5000}", expected=["classes=111", "below a million"]),
    "describe: no folder": describe("data=image_folder", "data.root=x", expected=["data.root=x", "train/<class>/*"]),
    "describe: misfit": describe("model=lenet5", "input=[1,8,8]", expected=["model.kernel_sizes=[5]", "does not fit"]),
    "describe: a flag": describe("-m", KNOB, expected=["--multirun", "no flag but --help"]),
    "describe: a sweep": describe(KNOB, expected=[KNOB, "one value"]),
    "describe: a word": describe("alexnet", expected=["did you mean: model=alexnet"]),
    # -- store
    "store: missing": store("list", expected=["there is no store at .ablation_runs: it is not there", "--store DIR"]),
    "store: a file": store("list", "--store", "a_file", expected=["no store at a_file: it is a file", "--store DIR"]),
    "store: a project": store("prune", "--all", "--store", "project", expected=["project is no store", "notes/"]),
    "store: a name too long": store("list", "--store", "x" * 300, expected=["cannot read the store", "too long"]),
    "store: no age": store("prune", "--older-than", "nan", expected=["--older-than nan", "0 or more days"]),
    "store: an age of words": store("prune", "--older-than", "old", expected=["--older-than", "'old'"]),
    "store: nothing to prune": store("prune", expected=["say what: --outdated"]),
    "store: another command": store("lst", expected=["invalid choice: 'lst'"]),
    "key of another source": main("data.train_images=50", expected=["belongs to data=shapes"]),
    "infinite rate": main("optimizer.lr=inf", expected=["optimizer.lr=inf", "finite"]),
    "one size, no list": main("model.kernel_sizes=0", expected=["model.kernel_sizes=0", "at least 1"]),
    "store of no name": main("store=", expected=["store=", "the name of a folder"]),
    "seeds beyond their bound": main(
        "seed=4294967295", "replicates=2", expected=["replicates=2", "the last seed counts"]
    ),
    "data sets as a knob": main("-m", "data=digits,shapes", expected=["data=digits,shapes", "it is no knob"]),
    "device as a knob": main("-m", "device=cpu,cuda", expected=["device=cuda", "auto, cpu (on this machine)"]),
    "slope of no leaky": main("-m", "model.leaky_slope=0.01,0.1", expected=["model.leaky_slope", "leaky"]),
    "place of no batch norm": main("-m", "model.batch_norm_place=before,after", expected=["model.batch_norm_place"]),
    "patience for nothing": main("-m", "train.patience=2,3", expected=["train.patience", "train.stop_on"]),
    "alpha with -m": main("-m", "stats.alpha=0.05,0.01", expected=["stats.alpha=0.05,0.01", "it is no knob"]),
    "capital letter": main("model.activation=Relu", expected=["did you mean: model.activation=relu"]),
    "name of a file of one's own": mine(f"model=named {KNOB}", "model.name=mine", "three_conv"),
}


def write_files(folder: Path) -> None:
    """The files that cases name."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def call(cli: Callable[..., Answer], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Case], Answer]:
    """Runs a case in this process, in a folder with the files above."""
    from cnn_ablation import describe as describe_command
    from cnn_ablation import store as store_command

    write_files(tmp_path)

    def answer(case: Case) -> Answer:
        if case.command == "cnn_ablation":
            return cli(*case.words)
        command = {"describe": describe_command.main, "store": store_command.main}[case.command]
        capsys.readouterr()
        try:
            code = command(list(case.words))
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return answer


def test_there_are_a_hundred() -> None:
    assert len(CASES) >= 100


@pytest.mark.parametrize("name", CASES)
def test_one_message_says_what_is_wrong_and_what_to_do(
    call: Callable[[Case], Answer], tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    answer = call(case)
    assert [part for part in case.expected if part not in answer.err] == [], answer.err
    assert answer.code == 2
    assert answer.out == ""
    assert len(answer.err.strip().splitlines()) <= 10, answer.err
    assert "Traceback" not in answer.err
    assert (tmp_path / "project/notes/todo.txt").exists()
    assert not list(tmp_path.rglob("run-seed*.json"))
