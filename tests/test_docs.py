"""The documentation holds together: links and anchors lead somewhere, pages are short, keys are the schema's."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import operator
import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Answer

import cnn_ablation
from cnn_ablation.app import keys, keys_page, manual
from cnn_ablation.common.errors import as_typed
from cnn_ablation.config import ArmConfig, StatsConfig, default_of, doc_of, role_of
from cnn_ablation.tasks.function.config import Function, FunctionConfig
from cnn_ablation.tasks.image_classification.config import GROUPS, Config, TrainConfig

ROOT = Path(cnn_ablation.__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
ROOT_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md")]
SITE: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
BESIDE_DOCS = next(
    ast.literal_eval(node.value)
    for node in ast.parse((DOCS / "hooks.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "PAGES"
)
"""Pages of the root that the site has too."""
# As collection finds them: other tests register parts of their own.
KEYS = list(keys.schema_keys())
KEYS_PAGE = keys_page.text()
HELP = re.sub(r"\s+", " ", manual.text())


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# Links


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """Headings as GitHub names them: letters, digits, `_` and `-`; a repeated one has its number behind it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#{1,6} (.+)$", text, flags=re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


def broken_links(page: Path) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("# `runs.csv`", "runscsv"),
        ("## Store, checkpoints, failures", "store-checkpoints-failures"),
        ("## A study's folder", "a-studys-folder"),
        ("## Where to [add](x.md) what", "where-to-add-what"),
        ("## What `replicates=auto` saves", "what-replicatesauto-saves"),
    ],
)
def test_anchors_are_named_as_github_does(tmp_path: Path, heading: str, anchor: str) -> None:
    (tmp_path / "page.md").write_text(f"{heading}\n\n{heading}\n")
    assert anchors(tmp_path / "page.md") == {anchor, f"{anchor}-1"}


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Here\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#here) [b](gone.md) [c](other.md#gone) `[d](code)` [e](https://x.org) [f](#gone)\n")
    assert list(broken_links(page)) == ["gone.md", "other.md#gone", "#gone"]


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES, DOCS / "llms.txt"], ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


# Pages


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_is_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_has_one_title(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1


def pages_of(entry: Any) -> Iterator[str]:
    """The files in a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for inside in entry.values() if isinstance(entry, dict) else entry:
            yield from pages_of(inside)


def test_the_navigation_names_every_page_once() -> None:
    assert sorted(pages_of(SITE["nav"])) == sorted([*(page.name for page in PAGES), *BESIDE_DOCS])


def test_the_index_for_language_models_names_every_page_once() -> None:
    text = (DOCS / "llms.txt").read_text(encoding="utf-8")
    linked = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", text, flags=re.MULTILINE)
    assert sorted(linked) == [page.name for page in PAGES]


def test_the_index_for_language_models_has_the_form_of_llmstxt() -> None:
    """One title, a quoted summary, then sections of links (llmstxt.org)."""
    text = (DOCS / "llms.txt").read_text(encoding="utf-8")
    title, summary = text.split("\n\n")[:2]
    assert title == "# cnn_ablation"
    assert summary.startswith("> ")
    sections = re.split(r"^## .+\n\n", text, flags=re.MULTILINE)[1:]
    assert sections
    assert all(line.startswith("- [") for section in sections for line in section.strip().splitlines())


# Sentences

LONGEST = 40  # words
ABBREVIATIONS = r"(?<!et al\.)(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)"


def blocks(text: str) -> Iterator[str]:
    """Paragraphs, headings, items of lists and cells of tables, without code and what the report has written."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", text):
        if re.match(r"\s{4}", paragraph.lstrip("\n")) or is_of_a_report(paragraph):
            continue
        block = ""
        for line in paragraph.splitlines():
            if line.startswith("|"):
                yield from line.strip("|").split("|")
            elif re.match(r"\s*(?:[-*] |\d+\. |#)", line):
                yield block
                block = line
            else:
                block += f" {line}"
        yield block


def is_of_a_report(paragraph: str) -> bool:
    """A table of arms with its notes, quoted as a study left it."""
    return bool(re.match(r"\| *arm .*\| *notes *\|\n", paragraph))


def sentences(text: str) -> Iterator[str]:
    """What ends in a full stop, a question mark or an exclamation mark before a space, or with its block."""
    for block in blocks(text):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", block)
        shown = re.sub(r"`[^`]*`", "code", shown).replace("**", "")
        yield from re.split(rf"{ABBREVIATIONS}(?<=[.!?])[)\"']*\s+", shown)


def words(sentence: str) -> int:
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def long_sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in sentences(text) if words(sentence) > LONGEST]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("One two. Three four five! `a b.c d` ends it.", [2, 3, 3]),
        ("He et al. (2016) found 1.5 points, e.g. here.", [9]),
        ("- one\n- two three\n\n| a b | c |\n|---|---|\n\n    code of many words\n\n# Title here", [1, 2, 2, 1, 2]),
        ("[a link](x.md) of\ntwo lines. Then **bold**", [5, 2]),
        ("Mean and more.\n\n| arm | notes |\n|---|---|\n| a | b |", [3]),
        ("```\ncode. code\n```\n\nbfloat16 is fast. bfloat16 wins.", [3, 2]),
    ],
)
def test_sentences_are_counted(text: str, counts: list[int]) -> None:
    assert [words(sentence) for sentence in sentences(text) if words(sentence)] == counts


def test_a_long_sentence_is_found() -> None:
    exactly = " ".join(["word"] * LONGEST)
    assert long_sentences(f"{exactly}. {exactly} more.") == [f"{exactly} more."]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=named)
def test_no_sentence_is_long(page: Path) -> None:
    assert long_sentences(page.read_text(encoding="utf-8")) == []


# Commands and names

TUTORIAL = (DOCS / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [
    re.sub(r"\\\n\s*", "", block).strip()
    for block in re.findall(r"```bash\n(python -m cnn_ablation .*?)```", TUTORIAL, flags=re.DOTALL)
]
SNIPPETS = {
    f"{named(page)}-{number}": block
    for page in [*PAGES, ROOT / "README.md"]
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    )
    if "cnn_ablation" in block
}


def test_the_tutorial_plans_what_it_shows(cli: Callable[..., Answer]) -> None:
    plan, train, more = COMMANDS
    answer = cli(*shlex.split(plan)[3:])
    assert answer.code == 0, answer.err
    (shown,) = re.findall(r"```text\n(.*?)```", TUTORIAL, flags=re.DOTALL)
    how = re.compile(r"computed on \w+ in \w+( with \d+ threads?)?\n")  # as the machine decides
    assert how.sub("computed\n", answer.out) == how.sub("computed\n", shown)
    assert train == plan.removesuffix(" dry_run=true")
    answer = cli(*shlex.split(more)[3:], "dry_run=true")
    assert answer.code == 0, answer.err
    assert "as many as a verdict takes, at most 30" in answer.out


@pytest.mark.parametrize("snippet", SNIPPETS.values(), ids=list(SNIPPETS))
def test_names_in_python_exist(snippet: str) -> None:
    """`cnn_ablation.plot.differences` and its like, and what is imported from the package."""
    tree = ast.parse(snippet)
    dotted = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for name in (name for name in dotted if name.startswith("cnn_ablation.")):
        assert operator.attrgetter(name.removeprefix("cnn_ablation."))(cnn_ablation) is not None
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("cnn_ablation"):
            assert all(getattr(importlib.import_module(str(node.module)), each.name) for each in node.names)


# Keys

OWNERS: list[tuple[str, type]] = [
    *((group, option) for group, options in GROUPS.items() for option in options.values()),
    ("train", TrainConfig),
    ("stats", StatsConfig),
    ("arm", ArmConfig),
    ("", Config),
    ("task", Function),
    ("", FunctionConfig),
]
FIELDS = {
    f"{owner.__name__}.{item.name}": item
    for _, owner in OWNERS
    for item in dataclasses.fields(owner)
    if item.name not in ("task", "stats", "arm", "train", *GROUPS)
}


def test_the_page_of_keys_is_the_schemas() -> None:
    """`python -m cnn_ablation.app.keys_page > docs/keys.md` writes it."""
    assert (DOCS / "keys.md").read_text(encoding="utf-8") == KEYS_PAGE


def fields_named(key: str) -> list[dataclasses.Field[Any]]:
    """The key's field in every option that has it."""
    section, _, name = key.rpartition(".")
    return [
        item for prefix, owner in OWNERS for item in dataclasses.fields(owner) if (prefix, item.name) == (section, name)
    ]


@pytest.mark.parametrize("key", [key for key in KEYS if not key.endswith(".name")])
def test_every_key_stands_on_the_page_and_in_help(key: str) -> None:
    rows = [line.strip("| ").split(" | ") for line in KEYS_PAGE.splitlines() if line.startswith(f"| `{key}` |")]
    items = fields_named(key)
    for item in items:
        default = f"`{as_typed(default_of(item))}`" if default_of(item) != "" else ""
        meaning = doc_of(item).replace("*", "\\*")
        assert [row for row in rows if default in row[2:4] and row[1] == meaning], item.name
        assert f" {key}={as_typed(default_of(item))} " in HELP
    assert any(doc_of(item) in HELP for item in items)


@pytest.mark.parametrize("item", FIELDS.values(), ids=list(FIELDS))
def test_every_key_says_in_one_line_what_it_does(item: dataclasses.Field[object]) -> None:
    doc = doc_of(item)
    assert 5 <= len(doc) <= 110
    assert "\n" not in doc
    assert not doc.endswith(".")


@pytest.mark.parametrize("item", FIELDS.values(), ids=list(FIELDS))
def test_every_role_is_explained_on_the_page(item: dataclasses.Field[object]) -> None:
    role = role_of(item)
    assert role.word
    assert len(re.findall(rf"^\| {role.word} \| .+ \|$", KEYS_PAGE, flags=re.MULTILINE)) == 1
    assert (role.word == "knob") == (role.not_a_knob == "")


def test_a_key_that_was_meant_is_explained() -> None:
    remedy = keys.suggestion("lr", "high").remedy
    assert remedy == "perhaps optimizer.lr, which takes float, above 0: learning rate"


# Citation and CI


def test_the_citation_is_that_of_this_version() -> None:
    """Keys and required ones as in the schema of the Citation File Format 1.2.0."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    known = {"abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers",
             "keywords", "license", "license-url", "message", "preferred-citation", "references", "repository",
             "repository-artifact", "repository-code", "title", "type", "url", "version"}  # fmt: skip
    assert set(citation) <= known
    assert {"authors", "cff-version", "message", "title"} <= set(citation)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert (str(citation["version"]), citation["license"]) == (project["version"], project["license"])
    assert citation["authors"] == [{"name": "The cnn_ablation maintainers"}]


def test_the_workflow_runs_all_checks_on_the_oldest_and_the_newest_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = [name.rpartition(" ")[2] for name in project["classifiers"] if name.startswith("Programming Language")]
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == [min(versions, key=minor), max(versions, key=minor)]
    assert project["requires-python"] == f">={min(versions, key=minor)}"
    steps = job["steps"]
    assert [step["uses"].partition("@")[0] for step in steps if "uses" in step] == [
        "actions/checkout",
        "actions/setup-python",
    ]
    assert steps[-1]["run"] == "bash .ci/run"
    assert (ROOT / ".ci" / "run").is_file()


def minor(version: str) -> int:
    return int(version.partition(".")[2])
