"""The user's own source files that a piece of code lies in or uses: what tells one version of it from another.

Told from the files, as a syntax tree: comments and the layout of lines count for nothing, everything else counts,
documentation strings too. Nothing is imported here.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path

from cnn_ablation.common.looks import seen

PACKAGE = Path(__file__).resolve().parent.parent
_OF_PYTHON = ("stdlib", "platstdlib")
_OF_PACKAGES = ("purelib", "platlib")
_SUFFIXES = tuple(importlib.machinery.all_suffixes())


def files(module: str) -> dict[str, Path]:
    """Module name -> file, of a module and of all own modules that it imports, and those import.

    Own is what is neither of Python, nor of this package, nor installed among libraries. What is imported by a name
    that is put together while the program runs is not seen.

    Args:
        module: by its name; nothing where it has no file of Python's, as in a notebook.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = file(name)
        if name in found or path is None or not _is_own(path):
            continue
        found[name] = path
        waiting += _imported(path, name)
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return dict(sorted(found.items()))


def version(module: str) -> str:
    """A hash of the files of a module and of the own modules that it uses; "" where there are none.

    Of a module that is installed among libraries it is the version of its package.
    """
    found: str = seen(("version", module), lambda: _version(module))  # asked for by every arm and seed of a plan
    return found


def _version(module: str) -> str:
    digest, own = hashlib.sha256(), files(module)
    if not own:
        return _installed(module)
    for name, path in own.items():
        digest.update(f"{name}\0{_tree(path)}\0".encode())
    return digest.hexdigest()[:16]


def libraries(module: str) -> dict[str, str]:
    """The installed packages that a module, and the own modules that it uses, import: their versions by name."""
    found: dict[str, str] = seen(("libraries", module), lambda: _libraries(module))
    return found


def _libraries(module: str) -> dict[str, str]:
    known = _packages()
    imported = {name.partition(".")[0] for own, path in files(module).items() for name in _imported(path, own)}
    used = [known[first][0] for first in imported if first in known]
    return {package.name: package.version for package in sorted(used, key=lambda package: package.name)}


def _installed(module: str) -> str:
    path, (libraries, _) = file(module), _folders()
    if path is None or not any(path.is_relative_to(folder) for folder in libraries):
        return ""
    packages = _packages().get(module.partition(".")[0], [])
    return " ".join(sorted({f"{package.name} {package.version}" for package in packages}))


def _packages() -> Mapping[str, list[metadata.Distribution]]:
    """Module -> the packages that install it, in the order of the search path.

    What `metadata.packages_distributions` gives, in a tenth of its 150 to 300 ms, and only of folders that have
    changed: the first of the search path often is where a script writes its results.
    """
    found: Mapping[str, list[metadata.Distribution]] = seen("installed packages", _packages_of_path)
    return found


def _packages_of_path() -> Mapping[str, list[metadata.Distribution]]:
    found = defaultdict[str, list[metadata.Distribution]](list)
    for folder, written in dict(_stamps(map(os.path.abspath, sys.path))).items():
        for module, packages in _packages_in(folder, written).items():
            found[module] += packages
    return found


@lru_cache(maxsize=64)
def _packages_in(folder: str, _: int) -> Mapping[str, list[metadata.Distribution]]:
    found = defaultdict[str, list[metadata.Distribution]](list)
    for package in metadata.distributions(path=[folder]):
        for module in _modules(package):
            found[module].append(package)
    return found


def _modules(package: metadata.Distribution) -> set[str]:
    """The modules that a package installs, by their first names."""
    if declared := package.read_text("top_level.txt"):
        return set(declared.split())
    record = (package.read_text("RECORD") or "").splitlines()
    paths = (row[0] for row in csv.reader(record) if row)
    return set(filter(str.isidentifier, map(_module, paths)))


def _module(path: str) -> str:
    """The first name that a file of a package is imported by; "" for one beside modules that is none."""
    folder, is_in_folder, _ = path.partition("/")
    return folder if is_in_folder else folder.partition(".")[0] if folder.endswith(_SUFFIXES) else ""


def _stamps(folders: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Of folders that are there: what is installed or removed changes them."""
    for folder in folders:
        with suppress(OSError):
            yield folder, os.stat(folder).st_mtime_ns


def _tree(path: Path) -> str:
    return _dumped(path.read_bytes())


def _imported(path: Path, name: str) -> tuple[str, ...]:
    """Names of modules that a file's import statements may mean, wherever they stand in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return _imports(path.read_bytes(), package)


# By content: a worker asks for the same files with every run.
@lru_cache(maxsize=256)
def _dumped(content: bytes) -> str:
    return ast.dump(_parsed(content))


@lru_cache(maxsize=256)
def _imports(content: bytes, package: str) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(_parsed(content)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(found)


@lru_cache(maxsize=256)
def _parsed(content: bytes) -> ast.Module:
    return ast.parse(content)


def file(name: str) -> Path | None:
    """The source file of a module that is or could be imported, without importing it."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded:
        return Path(loaded).resolve() if loaded.endswith(".py") else None
    first, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):  # `__main__` of a notebook has none
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin).resolve() if spec.origin and spec.origin.endswith(".py") else None
    places = (Path(folder).joinpath(*rest) for folder in spec.submodule_search_locations or ())
    candidates = (path for place in places for path in (place.with_suffix(".py"), place / "__init__.py"))
    return next((path.resolve() for path in candidates if path.is_file()), None)


def _is_own(path: Path) -> bool:
    libraries, python = _folders()
    return not any(path.is_relative_to(folder) for folder in (PACKAGE, *libraries, *python))


@cache
def _folders() -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Where libraries are installed, and where Python's own modules lie."""
    paths = sysconfig.get_paths()
    libraries = {paths[name] for name in _OF_PACKAGES} | {*site.getsitepackages(), site.getusersitepackages()}
    python = {paths[name] for name in _OF_PYTHON}
    return tuple(Path(folder).resolve() for folder in libraries), tuple(Path(folder).resolve() for folder in python)
