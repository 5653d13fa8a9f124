"""How to cite the program that made a study: from CITATION.cff where it is, else from the package's own metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

_PACKAGE = Path(__file__).parents[2]
_NAME = "cnn_ablation"


@dataclass(frozen=True)
class Citation:
    """A source for a list of references."""

    text: str
    bibtex: str


def citation(versions: Mapping[str, str]) -> Citation:
    """Of the version that trained, as the records of a study name it; of this one where they do not."""
    known = _file() or _metadata()
    version = versions.get(_NAME) or str(known.get("version", ""))
    authors, title = _authors(known), str(known.get("title", _NAME))
    url, year = str(known.get("repository-code") or known.get("url") or ""), str(known.get("date-released", ""))[:4]
    numbered = f"version {version}" if version and version != "not installed" else ""
    parts = [", ".join(authors), f"{title}, {numbered}".strip(", "), year, url]
    fields = {"author": " and ".join(authors), "title": title, "version": version, "year": year, "url": url}
    lines = [f"  {name} = {{{_escaped(value)}}}," for name, value in fields.items() if value]
    return Citation(". ".join(filter(None, parts)) + ".", "\n".join([f"@software{{{_NAME},", *lines, "}"]))


@cache
def _file() -> dict[str, Any]:
    """CITATION.cff of a checkout, or of a package that has it inside; empty where there is none that can be read."""
    for path in (_PACKAGE.parent / "CITATION.cff", _PACKAGE / "CITATION.cff"):
        try:
            content = yaml.safe_load(path.read_bytes())
        except (OSError, yaml.YAMLError):
            continue
        if isinstance(content, dict) and "title" in content:
            return content
    return {}


@cache
def _metadata() -> dict[str, Any]:
    """What the installed package says of itself."""
    try:
        found = metadata.metadata(_NAME)
    except metadata.PackageNotFoundError:
        return {"title": _NAME}
    return {"title": f"{_NAME}: {found['Summary']}".strip(": ."), "version": found["Version"]}


def _authors(known: Mapping[str, Any]) -> list[str]:
    """Persons as `Given Family`, others by their name."""
    found = known.get("authors") or []
    names = [" ".join(filter(None, (each.get("given-names"), each.get("family-names")))) or str(each.get("name", ""))
             for each in found if isinstance(each, dict)]  # fmt: skip
    return [name for name in names if name]


def _escaped(value: str) -> str:
    return re.sub(r"([%&#_$])", r"\\\1", value)
