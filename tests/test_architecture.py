"""The import rule of ARCHITECTURE.md, read from the code, and the weight of an import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cnn_ablation

PACKAGE = Path(cnn_ablation.__file__).parent
PAGE = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
# The page lists the rooms from the lowest to the highest: each may import those above it in the list.
ROOMS = re.findall(r"^    ([a-z_]+)(?:\.py|/) ", PAGE, flags=re.MULTILINE)
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, except for type checking alone."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str | None:
    """`cnn_ablation.tasks.image_classification.data.images` -> `data`; None for what is not a room of the package."""
    parts = module.split(".")
    return parts[1] if parts[0] == "cnn_ablation" and len(parts) > 1 and parts[1] in ROOMS else None


def test_the_page_names_every_room() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} - {"__init__", "conf"}
    assert set(ROOMS) == rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    imported = {room(module) for module in imports(path)} - {None, own}
    assert {name for name in imported if ROOMS.index(str(name)) > ROOMS.index(own)} == set()


def test_hydra_stays_at_the_entrance() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if any(module.split(".")[0] in ("hydra", "omegaconf") for module in imports(path))
    }
    front = {"arms", "composition", "hydra_errors", "job_callbacks", "job_folders", "loader", "request", "sweeper"}
    assert users == {"__main__.py", *(f"app/{name}.py" for name in (*front, "yaml_text"))}


GENERAL = ROOMS[: ROOMS.index("tasks")]


@pytest.mark.parametrize("path", [path for path in MODULES if path.relative_to(PACKAGE).parts[0] in GENERAL], ids=str)
def test_the_general_storey_knows_nothing_of_what_is_trained(path: Path) -> None:
    """Not even where a function imports it."""
    taboo = {"torch", "torchvision", "PIL", "hydra", "omegaconf", "cnn_ablation.tasks"}
    imported = {module for module in imports(path) if not module.startswith("cnn_ablation.") or "tasks" in module}
    assert {module for module in imported if any(f"{module}.".startswith(f"{name}.") for name in taboo)} == set()


def test_the_schema_needs_only_the_standard_library() -> None:
    files = [*(PACKAGE / "config").glob("*.py"), *(PACKAGE / "tasks").glob("*/config.py")]
    outside = {module.split(".")[0] for path in files for module in imports(path)} - set(sys.stdlib_module_names)
    assert outside == {"cnn_ablation"}


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import cnn_ablation", {"torch", "torchvision", "pandas", "numpy", "hydra", "omegaconf", "matplotlib"}),
        (
            "from cnn_ablation import config\nfrom cnn_ablation.study import designs",
            {"torch", "pandas", "numpy", "hydra"},
        ),
        (
            "from cnn_ablation.launch import execution\nfrom cnn_ablation.study import checks, plans",
            {"torch", "pandas", "scipy", "hydra", "matplotlib"},
        ),
        (
            "from cnn_ablation import report\nfrom cnn_ablation.analysis import tables",
            {"torch", "torchvision", "hydra", "sklearn"},
        ),
        ("from cnn_ablation.runs import run", {"hydra", "omegaconf", "pandas", "statsmodels", "torchvision"}),
    ],
)
def test_imports_stay_light(code: str, forbidden: set[str]) -> None:
    check = f"{code}; import sys; print(*sorted({forbidden!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_unknown_names_of_the_package_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ablation'"):
        cnn_ablation.ablation  # noqa: B018
    assert all(callable(getattr(cnn_ablation, name)) for name in cnn_ablation.__all__)
