"""What `--help` prints: commands, groups and every key, made from the schema. No Hydra, so that it answers at once."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from cnn_ablation.app import keys
from cnn_ablation.app.arguments import FLAGS, Flag
from cnn_ablation.common.errors import as_typed
from cnn_ablation.config import Section, doc_of
from cnn_ablation.runs.task import TASKS
from cnn_ablation.study.designs import DESIGNS
from cnn_ablation.tasks.function.config import Function, FunctionConfig
from cnn_ablation.tasks.image_classification.config import GROUPS, Config

WIDTH = 100
_KEY_WIDTH = 38

_INTRODUCTION = """\
What does a knob do to a network's accuracy and training time? Trains a baseline and every level of
every knob with several seeds, and prints the ablation table.

  python -m cnn_ablation                                    one configuration, all its seeds
  python -m cnn_ablation -m model.activation=relu,leaky     one knob against the baseline
  python -m cnn_ablation -m study=knobs                     the eight knobs of one study
  python -m cnn_ablation -m 'zip.large={train.batch_size:256,optimizer.lr:4e-3}'
                                                            keys that move together, as one knob
  python -m cnn_ablation -m task=function task.target=my_train.train settings.lr=0.1,0.01
                                                            any training function of your own
  python -m cnn_ablation.report DIR                         rebuild the tables of a study
  python -m cnn_ablation.describe model=alexnet input=[3,227,227] classes=1000
                                                            a network's layers, no training
  python -m cnn_ablation.predict RUN IMAGE...               classes of your own pictures
  python -m cnn_ablation.store list                         the finished runs that studies reuse
  python -m cnn_ablation guide                              how to set up a study, and what misleads

KEY=VALUE sets a key for all arms. With -m, KEY=A,B is a knob with two levels; so are KEY=range(1,4)
and GROUP=glob(*). A value before a list is the baseline's: train.epochs=6 train.epochs=3,9.
KEY=VALUE and KEY=A,B after study=NAME change or drop a knob of that study. Quote lists and braces."""

_ABOUT_KEYS = """\
Keys: KEY=DEFAULT, what it does, and what it may be. The file of an option may set other values than
these; python -m cnn_ablation --cfg job model=alexnet prints them all for that network."""

_ABOUT_FLAGS = {
    "--help": "this page",
    "--version": "versions of this package, torch and Hydra",
    "--multirun": "a study: lists are knobs",
    "--cfg": "print the configuration instead of training",
    "--resolve": "with --cfg: interpolations filled in",
    "--config-dir": "a folder of your own with data/, model/, optimizer/ or study/ and YAML files in them",
    "--hydra-help": "more flags, which are Hydra's",
}

_ABOUT_HYDRA = {
    "hydra.sweeper.design": f"{', '.join(DESIGNS)}: how knobs become arms",
    "hydra.sweep.dir": "where a study goes",
    "hydra.run.dir": "where a single configuration goes (without -m)",
    "zip.NAME": "{KEY:VALUE,KEY:VALUE},{...}: a knob whose levels move several keys; label:WORD names a level",
}


def text(config_dir: str | None = None, target: str | None = None) -> str:
    """The whole page.

    Args:
        config_dir: a folder of the user's with more options of groups.
        target: a function of hers, whose settings stand there too.

    Raises:
        ConfigError: there is no such function.
    """
    defaults = _defaults_of_groups()
    parts = [
        ["Flags, anywhere among the words", *_flags()],
        ["Groups: GROUP=OPTION", *_groups(defaults, config_dir)],
        ["How a study goes", *_study_keys()],
        [_ABOUT_KEYS],
        *(part for group in GROUPS for part in _group_parts(group, defaults[group])),
        *(
            [f"{name}.KEY", *_about(part), *_rows(name, dataclasses.fields(part))]
            for name, part in keys.sections().items()
            if name != "task"
        ),
        ["task=function", *_about(FunctionConfig), *_function_rows(target)],
        ["The study as a whole", *_rows("", _alone())],
    ]
    return "\n\n".join(
        [_INTRODUCTION, *("\n".join(line for entry in part for line in _folded(entry)) for part in parts)]
    )


def _flags() -> Iterator[str]:
    flags: dict[str, Flag] = {flag.name: flag for flag in FLAGS}
    for name, about in _ABOUT_FLAGS.items():
        yield _row(f"{flags[name].short + ', ' if flags[name].short else ''}{flags[name]}", about)


def _config_file(name: str = "config") -> Any:
    return yaml.safe_load((Path(keys.CONF_DIR) / f"{name}.yaml").read_text(encoding="utf-8"))


def _defaults_of_groups() -> dict[str, str]:
    """Group -> the option that is taken where none is named."""
    files = [_config_file(), _config_file(f"task/{next(iter(TASKS))}")]
    entries = (entry for file in files for entry in file["defaults"] if isinstance(entry, dict))
    return {group.lstrip("/"): option for entry in entries for group, option in entry.items() if option}


def _groups(defaults: dict[str, str], config_dir: str | None) -> Iterator[str]:
    for group, options in keys.group_options(config_dir).items():
        names = [f"{name} (default)" if defaults.get(group) == name else name for name in options]
        yield _row(group, ", ".join(names))


def _function_rows(target: str | None) -> Iterator[str]:
    """How a function is named, and its settings where one is."""
    yield from _rows("task", (item for item in dataclasses.fields(Function) if item.name == "target"))
    if target is None:
        yield _row(
            "settings.NAME",
            next(doc_of(item) for item in dataclasses.fields(FunctionConfig) if item.name == "settings"),
        )
        return
    from cnn_ablation.tasks.function import signature

    for each in signature.parameters(target):
        words = str(each.bounds) or getattr(each.kind, "__name__", str(each.kind))
        yield _row(f"settings.{each.name}={as_typed(each.default)}", words)


def _study_keys() -> Iterator[str]:
    hydra = _config_file()["hydra"]
    values = {
        "hydra.sweeper.design": next(iter(DESIGNS)),
        "hydra.sweep.dir": _with_date(hydra["sweep"]["dir"]),
        "hydra.run.dir": _with_date(hydra["run"]["dir"]),
    }
    for key, about in _ABOUT_HYDRA.items():
        yield _row(f"{key}={values[key]}" if key in values else key, about)


def _alone() -> Iterator[keys.Field]:
    """The keys that stand in no group and no section."""
    return (item for item in dataclasses.fields(Config) if item.name not in {*GROUPS, *keys.sections()})


def _with_date(folder: str) -> str:
    return re.sub(r"\$\{now:%H[^}]*\}", "TIME", re.sub(r"\$\{now:%Y[^}]*\}", "DATE", folder))


def _group_parts(group: str, default_option: str) -> Iterator[list[str]]:
    """The keys that all options of a group share, those that options of one kind share, then those of each."""
    options = list(GROUPS[group].values())
    base = get_type_hints(Config)[group]
    shown: dict[type, list[keys.Field]] = {base: _shared([base, *options])}
    yield [f"{group}=ANY", *_about(base), *_rows(group, shown[base])]
    for option in options:
        kind = next(parent for parent in option.__mro__[1:] if issubclass(parent, Section))
        if kind not in shown and kind not in options:
            alike = [other for other in options if issubclass(other, kind)]
            shown[kind] = [item for item in _shared(alike) if item.name not in _names(shown[base])]
            names = "|".join(name for other in alike for name in keys.option_names(other))
            yield [f"{group}={names}", *_about(kind), *_rows(group, shown[kind])]
        known = _names(shown[base]) | _names(shown.get(kind, []))
        heading = f"{group}={'|'.join(keys.option_names(option))}" + (
            f" ({default_option} is the default)" if default_option in keys.option_names(option) else ""
        )
        own = [item for item in dataclasses.fields(option) if item.name not in known]
        yield [heading, *_about(option), *_rows(group, own)]


def _shared(options: Sequence[type]) -> list[keys.Field]:
    """Fields that are the same in all of several options."""
    first, *others = ({item.name: item for item in dataclasses.fields(option)} for option in options)
    return [item for item in first.values() if all(_same(item, other.get(item.name)) for other in others)]


def _names(items: Iterable[keys.Field]) -> set[str]:
    return {item.name for item in items}


def _same(first: keys.Field, second: keys.Field | None) -> bool:
    told = (keys.default, keys.allowed)
    return second is not None and all(tell(first) == tell(second) for tell in told)


def _about(owner: type) -> Iterator[str]:
    """What a dataclass says of itself; Python writes the signature where it says nothing."""
    words = re.sub(r"\s+", " ", inspect.cleandoc(owner.__doc__ or "")).replace("`", "")
    if words and not words.startswith(f"{owner.__name__}("):
        yield f"    {words}"


def _rows(prefix: str, items: Iterable[keys.Field]) -> Iterator[str]:
    for item in items:
        key = f"{prefix}.{item.name}" if prefix else item.name
        yield _row(f"{key}={keys.default(item)}", _meaning(prefix, item))


def _meaning(prefix: str, item: keys.Field) -> str:
    """What a key does, and what it may be."""
    allowed, doc = keys.allowed(item), doc_of(item)
    if prefix in GROUPS and item.name == "name":
        return f"{allowed}: set by {prefix}=OPTION"
    return f"{doc} ({allowed})" if doc and allowed else doc or allowed


def _row(key: str, about: str) -> str:
    return (
        f"  {key.ljust(_KEY_WIDTH)} {about}" if len(key) <= _KEY_WIDTH else f"  {key}\n{' ' * (_KEY_WIDTH + 3)}{about}"
    )


def _folded(entry: str) -> Iterator[str]:
    """Lines of at most `WIDTH` characters; what goes on is set in."""
    for line in entry.splitlines():
        indent = " " * (4 if line.startswith("    ") else _KEY_WIDTH + 3)
        yield from textwrap.wrap(
            line, WIDTH, subsequent_indent=indent, drop_whitespace=True, break_long_words=False, break_on_hyphens=False
        ) or [""]
