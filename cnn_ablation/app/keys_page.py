"""The page of all keys, made from the schema: `python -m cnn_ablation.app.keys_page > docs/keys.md`.

A test holds the page in docs/ to what this prints. No Hydra.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from cnn_ablation.app import keys
from cnn_ablation.config import (
    CONDUCT,
    FILES,
    LABEL,
    OWN_CODE,
    RESULT,
    SEEDS,
    TEST_SET,
    WHAT_IS_TRAINED,
    Role,
    Section,
    StudyConfig,
    doc_of,
    role_of,
)
from cnn_ablation.study.designs import DESIGNS
from cnn_ablation.tasks.function.config import Function, FunctionConfig
from cnn_ablation.tasks.image_classification.config import GROUPS, Config

_INTRODUCTION = """\
# Every key

Made from the schema (`python -m cnn_ablation.app.keys_page > docs/keys.md`), and held equal to it by a test.
`python -m cnn_ablation --help` prints the same in a terminal, with the parts of your own that you name.

`KEY=VALUE` sets a key for all arms; with `-m`, `KEY=A,B` makes it a knob with two levels. `GROUP=OPTION`
(`model=alexnet`) chooses a file of `conf/`, which may set other values than the defaults here. They are all printed by
`python -m cnn_ablation --cfg job model=alexnet`. `???` has to be given, `null` is nothing.

## What a key is to a study

| role | what it means |
|---|---|"""

_ROLES: dict[Role, str] = {
    RESULT: "can change what a run computes: it may be a knob, and is part of a run's identity",
    TEST_SET: "can change which pictures are tested, whose scores cannot be paired: one study for each value",
    FILES: "names files; their content, not their place, identifies a run: one study for each value",
    WHAT_IS_TRAINED: "what is trained at all: one study for each value",
    SEEDS: "which seeds a study has; never a knob",
    CONDUCT: "how a study is carried out, kept and read; it changes no result, and is never a knob",
    OWN_CODE: "modules of yours, whose content identifies a run; their parts can be knobs",
    LABEL: "set by the study itself, and refused from the command line",
}

_DESIGNS = ", ".join(f"`{design}`" for design in DESIGNS)
_HYDRA = f"""\
## Of Hydra

| key | meaning |
|---|---|
| `hydra.sweeper.design` | {_DESIGNS}: how knobs become arms ([designs](designs.md)) |
| `hydra.sweep.dir` | the folder of a study |
| `hydra.run.dir` | the folder of a single configuration, without `-m` |
| `hydra/launcher` | where runs are trained: side by side here, or by an engine ([clusters](clusters.md)) |
| `zip.NAME` | a knob whose levels move several keys: `'zip.large={{train.batch_size:256,optimizer.lr:4e-3}}'` |
"""


def text() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield from (f"| {role.word} | {meaning} |" for role, meaning in _ROLES.items())
    yield "\n## The study as a whole\n"
    shared = {item.name for item in dataclasses.fields(StudyConfig)}
    yield from _table("", (item for item in _alone() if item.name in shared))
    yield "Of image classification alone:\n"
    yield from _table("", (item for item in _alone() if item.name not in shared))
    for name, part in keys.sections().items():
        if name != "task":
            yield f"## `{name}`\n"
            yield from _table(name, dataclasses.fields(part))
    for group in GROUPS:
        yield f"## `{group}`\n"
        yield from _group(group)
    yield "## `task=function`\n"
    yield from _table("", (item for item in dataclasses.fields(FunctionConfig) if item.name == "settings"))
    yield from _table("task", (item for item in dataclasses.fields(Function) if item.name == "target"))
    yield _HYDRA.rstrip("\n")


def _alone() -> Iterator[keys.Field]:
    """The keys that stand in no group and no section."""
    return (item for item in dataclasses.fields(Config) if item.name not in {*GROUPS, *keys.sections()})


def _group(group: str) -> Iterator[str]:
    """What all options share, then of each class below what it adds or sets otherwise."""
    schemas = GROUPS[group]
    for name, option in schemas.items():
        if keys.option_names(option) != [name]:
            yield f"{name}: {', '.join(f'`{each}`' for each in keys.option_names(option))}.\n"
    yield f"| key | meaning | `{group}=` | default | allowed | role |\n|---|---|---|---|---|---|"
    shown: set[type] = set()
    for option in schemas.values():
        lineage = [kind for kind in reversed(option.__mro__) if issubclass(kind, Section) and kind is not Section]
        for parent, kind in zip([None, *lineage], lineage, strict=False):
            if kind not in shown:
                names = [name for name, other in schemas.items() if issubclass(other, kind)]
                of = "any" if len(names) == len(schemas) else ", ".join(names)
                yield from (_row(f"{group}.{item.name}", item, of) for item in _added(parent, kind))
            shown.add(kind)
    yield ""


def _added(parent: type | None, kind: type) -> Iterator[keys.Field]:
    """Fields that the parent lacks, or has with another default, bounds, role or meaning."""
    there = {item.name: _told(item) for item in dataclasses.fields(parent)} if parent else {}
    for item in dataclasses.fields(kind):
        if there.get(item.name) != _told(item) and not (parent and item.name == "name"):
            yield item


def _told(item: keys.Field) -> tuple[str, ...]:
    return keys.default(item), keys.allowed(item), role_of(item).word, doc_of(item)


def _table(prefix: str, items: Iterable[keys.Field]) -> Iterator[str]:
    yield "| key | meaning | default | allowed | role |\n|---|---|---|---|---|"
    yield from (_row(f"{prefix}.{item.name}" if prefix else item.name, item) for item in items)
    yield ""


def _row(key: str, item: keys.Field, *of: str) -> str:
    default, allowed, role, doc = _told(item)
    return f"| {' | '.join((f'`{key}`', _cell(doc), *of, f'`{default}`' if default else '', _cell(allowed), role))} |"


def _cell(text: str) -> str:
    """Words that Markdown takes as they are."""
    return text.replace(" | None", " or null").replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    print(text(), end="")
