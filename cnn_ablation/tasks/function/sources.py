"""The source of a person's own modules, as part of a run's identity."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType


def version(name: str) -> str:
    """A hash of a module and of all modules of the person's own that it imports, one from another.

    Of what they say, not how: comments and layout do not count. Libraries count by their versions (`libraries`).
    """
    digest = hashlib.sha256()
    for path in _own_files(name):
        digest.update(path.name.encode() + b"\0" + ast.dump(_tree(path)).encode())
    return digest.hexdigest()[:16]


def libraries(name: str) -> dict[str, str]:
    """The installed packages that a person's modules import, with their versions."""
    known = metadata.packages_distributions()
    found = {package for path in _own_files(name) for package in _imported(_tree(path), name)}
    names = {known[package.partition(".")[0]][0] for package in found if package.partition(".")[0] in known}
    return {each: metadata.version(each) for each in sorted(names)}


def _own_files(name: str) -> list[Path]:
    """Source files of a module and of what it imports, as far as they are neither Python's nor installed."""
    found: dict[Path, None] = {}
    left = [name]
    while left:
        module = sys.modules.get(left.pop())
        path = _own_file(module) if module else None
        if path is None or path in found:
            continue
        found[path] = None
        left += _imported(_tree(path), str(module.__package__ if module else ""))
    return sorted(found)


def _own_file(module: ModuleType) -> Path | None:
    path = Path(file) if (file := getattr(module, "__file__", None)) else None
    if path is None or path.suffix != ".py" or not path.exists():
        return None
    path = path.resolve()
    return None if any(path.is_relative_to(place) for place in _installed()) else path


@cache
def _installed() -> list[Path]:
    """Where Python and its packages lie, and this package."""
    places = [sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [*(Path(place).resolve() for place in places), Path(__file__).resolve().parents[2]]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Names of modules that a file may import; of `from a import b` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            name = ".".join([*filter(None, base), *filter(None, [node.module])])
            yield name
            yield from (f"{name}.{alias.name}".strip(".") for alias in node.names)
