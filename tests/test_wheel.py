"""The package as others get it: a built wheel, installed apart from the checkout, used from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import TINY

import cnn_ablation

ROOT = Path(cnn_ablation.__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel; dependencies come from this environment."""
    built, site = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_the_wheel_holds_the_configuration_and_the_type_marker(installed: Path) -> None:
    expected = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    packed = installed / "cnn_ablation" / "conf"
    assert {path.relative_to(packed) for path in packed.rglob("*.yaml")} == expected
    assert (installed / "cnn_ablation" / "py.typed").exists()
    templates = Path("cnn_ablation") / "report" / "page" / "templates"
    assert {path.name for path in (ROOT / templates).iterdir()} == {
        path.name for path in (installed / templates).iterdir()
    }
    assert (
        "cnn-ablation = cnn_ablation.__main__:command"
        in next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    )


def test_the_wheel_trains_and_reports(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(installed) in python("-c", "import cnn_ablation; print(cnn_ablation.__file__)")
    out = python(
        "-m", "cnn_ablation", "-m", *TINY, "model.activation=relu,leaky", "replicates=1", "hydra.sweep.dir=study"
    )
    assert "model.activation=leaky" in out
    assert "verdict" in python("-m", "cnn_ablation.report", "study")
    assert python("-m", "cnn_ablation", "guide").startswith("# How to set up a study")
    page = (tmp_path / "study" / "report.html").read_text()
    assert "<h1>What does activation do to test accuracy?</h1>" in page
    assert "python -m cnn_ablation -m data=shapes" in page
