"""What tells one version of the user's own code from another: her files, as syntax, and nothing that is not hers."""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata
from pathlib import Path

import numpy
import pytest

from cnn_ablation.common import imports
from cnn_ablation.runs import sources
from cnn_ablation.runs.provenance import extension_version

FILES = {
    "src_main.py": "import json\nimport numpy\nfrom src_pkg import middle\n\ndef make():\n    return middle.value()\n",
    "src_pkg/__init__.py": "",
    "src_pkg/middle.py": "from .deep import VALUE\n\ndef value():\n    import src_late as s\n    return VALUE, s\n",
    "src_pkg/deep.py": "VALUE = 1\n",
    "src_pkg/unused.py": "VALUE = 5\n",
    "src_late.py": "late = 2  # imported in a function\n",
    "src_other.py": "late = 3\n",
}


@pytest.fixture(autouse=True)
def files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in [name for name in sys.modules if name.startswith("src_")]:
        monkeypatch.delitem(sys.modules, name)


def test_files_are_those_that_are_imported_and_ones_own() -> None:
    found = sources.files("src_main")
    assert list(found) == ["src_late", "src_main", "src_pkg", "src_pkg.deep", "src_pkg.middle"]


def test_nothing_is_imported_to_find_out() -> None:
    sources.version("src_main")
    assert not [name for name in sys.modules if name.startswith("src_")]


@pytest.mark.parametrize(
    ("changes", "file", "text"),
    [
        pytest.param(True, "src_main.py", FILES["src_main.py"].replace("value()", "value() + 1"), id="its-own-file"),
        pytest.param(True, "src_pkg/deep.py", "VALUE = 2\n", id="a-file-that-a-file-uses"),
        pytest.param(True, "src_late.py", "late = 4\n", id="imported-in-a-function"),
        pytest.param(True, "src_late.py", '"""Other words."""\nlate = 2\n', id="a-documentation-string"),
        pytest.param(False, "src_late.py", "# other words\n\nlate  =  2\n", id="a-comment-and-spaces"),
        pytest.param(False, "src_pkg/unused.py", "VALUE = 6\n", id="a-file-of-the-package-that-is-not-used"),
        pytest.param(False, "src_other.py", "late = 7\n", id="a-file-beside-it"),
    ],
)
def test_a_version_changes_with_the_code_that_is_used(changes: bool, file: str, text: str, tmp_path: Path) -> None:
    before = sources.version("src_main")
    (tmp_path / file).write_text(text)
    assert (sources.version("src_main") != before) is changes


def test_code_of_a_file_is_versioned_with_what_it_uses(tmp_path: Path) -> None:
    make = imports.named("model.target", "src_main.make")
    before = extension_version(make)
    (tmp_path / "src_pkg" / "deep.py").write_text("VALUE = 9\n")
    assert extension_version(make) != before


@pytest.mark.parametrize("module", ["__main__", "json", "cnn_ablation.config", "nonesuch_module"])
def test_what_is_not_ones_own_or_no_file_has_no_version(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if module == "__main__":  # as in a notebook
        monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert sources.version(module) == ""


def test_a_library_counts_with_its_version() -> None:
    assert sources.version("numpy.linalg") == f"numpy {numpy.__version__}"


def test_what_is_installed_is_what_python_says() -> None:
    """Its own way, for all that is installed here: slower, because it reads every package's files and description."""
    ours = {module: {package.name for package in packages} for module, packages in sources._packages().items()}
    known = {module: set(names) for module, names in metadata.packages_distributions().items()}
    assert {module: ours.get(module) for module in known if _has_code(module)} == {
        module: names for module, names in known.items() if _has_code(module)
    }
    only_ours = ours.keys() - known.keys()
    assert sys.version_info < (3, 12) or not only_ours  # from 3.12 on, folders without a .py count there too


def _has_code(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return bool(spec and spec.origin)


@pytest.mark.parametrize(
    ("file", "text", "modules"),
    [
        ("top_level.txt", "one\ntwo\n", {"one", "two"}),
        ("RECORD", "one/__init__.py,sha256=x,3\none/data.bin,,\nsingle.py,,\n", {"one", "single"}),
        ("RECORD", '"one/a, b.py",,\n_c.abi3.so,,\n', {"one", "_c"}),
        ("RECORD", "one/data.bin,,\nLICENSE,,\none.pth,,\none-1.2.dist-info/RECORD,,\n", {"one"}),
        ("RECORD", "../../../bin/tool.py,,\n../share/manual.txt,,\n", set()),
        ("RECORD", "", set()),
        ("METADATA", "Metadata-Version: 2.1\nName: one\n", set()),
    ],
    ids=[
        "declared",
        "by its files",
        "quoted, and compiled",
        "data and what is no module",
        "outside",
        "empty",
        "no list at all",
    ],
)
def test_a_package_installs_modules(file: str, text: str, modules: set[str], tmp_path: Path) -> None:
    installed = tmp_path / "one-1.2.dist-info"
    installed.mkdir()
    (installed / file).write_text(text)
    (package,) = metadata.distributions(path=[str(tmp_path)])
    assert sources._modules(package) == modules


def test_what_is_installed_is_looked_through_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker asks with every run of a function."""
    monkeypatch.syspath_prepend(str(tmp_path))
    looked = list[str]()
    look = sources.metadata.distributions
    monkeypatch.setattr(sources.metadata, "distributions", lambda path: looked.extend(path) or look(path=path))
    sources._packages_in.cache_clear()
    (tmp_path / "uses_it.py").write_text("import newly_installed\n")
    assert sources.libraries("uses_it") == sources.libraries("uses_it") == {}
    assert looked.count(str(tmp_path)) == 1
    installed = tmp_path / "newly_installed-1.2.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: newly-installed\nVersion: 1.2\n")
    (installed / "top_level.txt").write_text("newly_installed\n")
    before = len(looked)
    assert sources.libraries("uses_it") == {"newly-installed": "1.2"}
    assert looked[before:] == [str(tmp_path)]
