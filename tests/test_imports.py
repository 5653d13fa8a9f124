"""Code that a person names: found in the working directory first, and every mistake is one message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnn_ablation.common import imports
from cnn_ablation.common.errors import ConfigError

FILES = {
    "imp_nets": "class ResNet8:\n    def forward(self): ...\n",
    "imp_raises": "x = 1\nfoo()\n",
    "imp_syntax": "x = (\n",
    "imp_exits": "import sys\nsys.exit(3)\n",
    "imp_needs": "import nonesuch_library\n",
}


@pytest.fixture(autouse=True)
def modules_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "imp_package").mkdir()
    (tmp_path / "imp_package" / "__init__.py").write_text("from imp_package.train import train\n")
    (tmp_path / "imp_package" / "train.py").write_text("def train(): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    for name in [name for name in sys.modules if name.startswith("imp_")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("qualified", "target"),
    [
        pytest.param("imp_nets.ResNet8", "imp_nets.ResNet8", id="in-the-working-directory"),
        pytest.param("posixpath.join", "os.path.join", id="attribute-of-an-attribute"),
        pytest.param("imp_package.train.train", "imp_package.train.train", id="function-named-as-its-module"),
        pytest.param("json.decoder.JSONDecoder", "json.decoder.JSONDecoder", id="module-in-a-package"),
    ],
)
def test_a_name_is_found_as_python_finds_it(qualified: str, target: str) -> None:
    found = imports.named("task.target", target)
    assert f"{found.__module__}.{found.__qualname__}" == qualified


@pytest.mark.parametrize(
    ("lines", "target"),
    [
        pytest.param(["allowed: my_file.name", "with dots"], "imp_nets", id="module-alone"),
        pytest.param(["did you mean: task.target=imp_nets.ResNet8"], "imp_nets.Resnet8", id="misspelt-name"),
        pytest.param(["no module imp_net", "did you mean: task.target=imp_nets.A"], "imp_net.A", id="misspelt-module"),
        pytest.param(["no module zzqq", "start where zzqq.py lies"], "zzqq.train", id="unknown-module"),
        pytest.param(["remedy: task.target=imp_nets.ResNet8"], "imp_nets.py:ResNet8", id="spelt-as-a-file"),
        pytest.param(["imp_nets.ResNet8 defines: forward"], "imp_nets.ResNet8.forwrd", id="name-in-a-class"),
        pytest.param(["define qqzz in", "imp_nets.py"], "imp_nets.qqzz", id="nothing-alike"),
        pytest.param(["NameError: name 'foo'", "(imp_raises.py, line 2)"], "imp_raises.x", id="raises"),
        pytest.param(["SyntaxError", "imp_syntax.py, line 1"], "imp_syntax.x", id="syntax"),
        pytest.param(["raised SystemExit: 3", 'if __name__ == "__main__"'], "imp_exits.x", id="a-script-that-exits"),
        pytest.param(["No module named 'nonesuch_library'", "imp_needs.py"], "imp_needs.x", id="needs-another"),
        pytest.param(["with dots"], "", id="empty"),
    ],
)
def test_what_cannot_be_imported_is_one_message(lines: list[str], target: str) -> None:
    with pytest.raises(ConfigError) as caught:
        imports.named("task.target", target)
    message = str(caught.value)
    assert message.startswith(f"configuration error: task.target={target}\n")
    assert [line for line in lines if line not in message] == []
    assert len(message.splitlines()) <= 10


def test_a_module_by_its_name(tmp_path: Path) -> None:
    assert imports.module("extensions", "imp_package.train").__file__ == str(tmp_path / "imp_package" / "train.py")


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="did you mean: extensions=imp_nets"):
        imports.module("extensions", "imp_nett")


def test_the_working_directory_is_searched_where_python_would_not() -> None:
    """As under a console script, whose folder and not the working directory leads `sys.path`."""
    code = "from cnn_ablation.common import imports; print(imports.named('task.target', 'imp_nets.ResNet8').__name__)"
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "ResNet8\n"
