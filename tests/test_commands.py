"""Commands as processes: consoles that cannot print, output that nobody takes, Ctrl-C before anything is trained."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from conftest import TINY

from cnn_ablation.__main__ import answer
from cnn_ablation.common.commands import NOT_READ, guarded
from cnn_ablation.runs.store import RunStore
from cnn_ablation.tasks.image_classification.config import Config

# A console of 1990: nothing but ASCII can be printed, and names of files are bytes.
ASCII = {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
HEED = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs inherit that it is ignored


def run(
    folder: Path, *words: str, module: str = "cnn_ablation", stdout: int | None = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


@pytest.mark.usefixtures("undrawn")
def test_a_console_that_cannot_print_the_table_shows_what_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream of ASCII that is strict, as Python opens it there; the real one in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict") for _ in range(2))
    words = ["-m", *TINY, "model.activation=relu,leaky", "replicates=1", "timing=isolated", "hydra.sweep.dir='größe'"]
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", ["cnn_ablation", *words])
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        code = guarded(answer)
    err.flush()
    assert code == 0, err.buffer.getvalue()
    printed = out.buffer.getvalue().decode("ascii")
    assert "model.activation=leaky" in printed
    assert "written to gr??e: " in printed
    assert "| model.activation=leaky" in (tmp_path / "größe" / "ablation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("cnn_ablation", [os.fsdecode(b"data.root=\xff\xe9"), "data=image_folder"]),
        ("cnn_ablation", ["data.root='bücher'", "data=image_folder"]),
        ("cnn_ablation.describe", ["modell=größe"]),
        ("cnn_ablation.store", ["list", "--store", os.fsdecode(b"\xff\xe9")]),
    ],
    ids=["surrogate", "umlaut", "describe", "store"],
)
@pytest.mark.parametrize("environment", [ASCII, C_LOCALE], ids=["ascii", "C locale"])
def test_a_message_of_odd_characters_is_printed(
    tmp_path: Path, module: str, words: list[str], environment: dict[str, str]
) -> None:
    done = run(tmp_path, *words, module=module, **environment)
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    assert 2 <= len(done.stderr.splitlines()) <= 10


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("cnn_ablation", ["--help"]),
        ("cnn_ablation", ["--cfg", "job"]),
        ("cnn_ablation", [*TINY, "dry_run=true"]),
        ("cnn_ablation.describe", ["model=alexnet", "input=[3,227,227]", "classes=10"]),
        ("cnn_ablation.store", ["list", "--store", "store"]),
    ],
    ids=["help", "cfg", "dry run", "describe", "store"],
)
@pytest.mark.parametrize("reader", ["gone", "full", "closed"])
def test_output_that_nobody_takes_ends_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, words: list[str], reader: str
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # a buffer is tried again at the end
    (tmp_path / "store").mkdir()
    if reader == "full" and not Path("/dev/full").exists():
        pytest.skip("the system has no full device")
    if reader == "closed":
        script = 'exec "$0" -m "$@" >&-'
        done = subprocess.run(
            ["sh", "-c", script, sys.executable, module, *words], cwd=tmp_path, stderr=subprocess.PIPE, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return
    if reader == "full":
        with open("/dev/full", "wb") as full:
            done = run(tmp_path, *words, module=module, stdout=full.fileno())
        assert done.returncode == 2
        assert done.stderr.strip() == b"No space left on device"
        return
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = run(tmp_path, *words, module=module, stdout=write_end)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (NOT_READ, b"")


def interrupted(folder: Path, module: str, words: Sequence[str], seconds: float) -> tuple[int, str]:
    """(exit code, stderr) of a command that is sent Ctrl-C some time after its first line has run."""
    code = (
        "import runpy, sys\n"
        "import cnn_ablation.common.commands as commands\n"
        "first = commands._handle\n"
        "def handle(handler):\n"
        "    first(handler)\n"
        "    print('ready', flush=True)\n"
        "commands._handle = handle\n"
        f"sys.argv = ['cnn_ablation', *{list(words)!r}]\n"
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=HEED,  # noqa: PLW1509
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("seconds", [0, 0.02, 0.05, 0.1, 0.2, 0.3])
def test_ctrl_c_while_libraries_are_imported_says_nothing(tmp_path: Path, seconds: float) -> None:
    """Thousands of arms are composed, so that the command is busy for longer than any of these times."""
    words = ["-m", "train.epochs=range(1,5000)", "dry_run=true"]
    code, err = interrupted(tmp_path, "cnn_ablation.__main__", words, seconds)
    assert (code, err) == (130, "")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("cnn_ablation.describe", ["model=alexnet", "input=[3,227,227]", "classes=10"]),
        ("cnn_ablation.store", ["list", "--store", "store"]),
    ],
)
def test_ctrl_c_ends_the_small_commands_too(tmp_path: Path, module: str, words: list[str]) -> None:
    (tmp_path / "store").mkdir()
    assert interrupted(tmp_path, module, words, 0) == (130, "")


HEARD_AT_IMPORTS = """
import json, os, runpy, signal, sys

module = sys.argv[1]
heard, seen = [], set()

def interrupt_a_copy(event, args):
    if event != "import":
        return
    package = args[0] if args[0].startswith("cnn_ablation") else args[0].partition(".")[0]
    if package in seen or package in sys.stdlib_module_names:
        return
    seen.add(package)
    copy = os.fork()
    if not copy:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            os._exit(0)
    _, status = os.waitpid(copy, 0)
    if os.waitstatus_to_exitcode(status) != 130:
        heard.append(args[0])

def show():
    os.write(1, json.dumps(heard).encode())

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = [module, "--help"]
sys.stdout = open(os.devnull, "w")
sys.addaudithook(interrupt_a_copy)
import atexit
atexit.register(show)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="copies of a process")
@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("cnn_ablation.__main__", set()),
        ("cnn_ablation.report.__main__", {"cnn_ablation.report"}),
        ("cnn_ablation.predict", set()),
        ("cnn_ablation.store", set()),
        ("cnn_ablation.describe", set()),
        ("cnn_ablation.guide", set()),
    ],
    ids=["study", "report", "predict", "store", "describe", "guide"],
)
def test_ctrl_c_at_any_import_of_a_command_says_nothing(module: str, package: set[str]) -> None:
    """A copy of the process is interrupted at each package's; only those that come before any handler may show it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEARD_AT_IMPORTS, module],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert set(json.loads(done.stdout)) == {
        "cnn_ablation",
        "cnn_ablation.common",
        "cnn_ablation.common.commands",
        *package,
    }


def test_an_interruption_that_a_library_swallows_is_one_all_the_same(tmp_path: Path) -> None:
    """As C extensions do that import another: they turn a KeyboardInterrupt into an ImportError."""
    code = (
        "import signal\n"
        "from cnn_ablation.common import commands\n"
        "def main():\n"
        "    commands.raise_when_interrupted()\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        raise ImportError('numpy.core failed to import') from None\n"
        "commands.run_as_process(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, preexec_fn=HEED)
    assert (done.returncode, done.stderr) == (130, b"")


def test_an_interruption_that_becomes_an_error_of_ours_is_one_all_the_same(tmp_path: Path) -> None:
    """As where data cannot be split because an import was interrupted: no message about the data."""
    code = (
        "import signal\n"
        "from cnn_ablation.common import commands\n"
        "from cnn_ablation.common.errors import DataError\n"
        "def main():\n"
        "    commands.raise_when_interrupted()\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt as error:\n"
        "        raise DataError('cannot be split') from error\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "commands.run_as_process(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(
    ("sent", "of_sigint"),
    [("SIGINT", "SIG_DFL"), ("SIGTERM", "SIG_DFL"), ("SIGTERM", "SIG_IGN")],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM in a shell's background"],
)
def test_an_interruption_in_a_destructor_is_not_lost(sent: str, of_sigint: str) -> None:
    code = (
        "import signal, time\n"
        f"signal.signal(signal.SIGINT, signal.{of_sigint})\n"
        "from cnn_ablation.common import commands\n"
        "class Dying:\n"
        "    def __del__(self):\n"
        f"        signal.raise_signal(signal.{sent})\n"
        "def main():\n"
        "    commands.raise_when_interrupted()\n"
        "    thing = Dying()\n"
        "    del thing\n"
        "    time.sleep(30)\n"
        "commands.run_as_process(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=28)
    assert (done.returncode, done.stderr) == (130, b"")


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    code = "from cnn_ablation.common import commands\ncommands.run_as_process(lambda: 1 // 0)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" in done.stderr


def test_a_folder_that_is_no_store_is_not_pruned(tmp_path: Path) -> None:
    """What lies in it is not ours; a store's own runs are."""
    from cnn_ablation.store import main as store

    (tmp_path / "home" / "photographs").mkdir(parents=True)
    (tmp_path / "home" / "photographs" / "run.jpg").touch()
    (tmp_path / "home" / "thesis" / "chapters").mkdir(parents=True)
    for selected in (["--all"], ["--damaged"], ["--older-than", "0"]):
        assert store(["prune", *selected, "--store", str(tmp_path / "home")]) == 2
    assert (tmp_path / "home" / "photographs" / "run.jpg").exists()
    own = RunStore(tmp_path / Config.store)
    own.checkpoint_path("a").parent.mkdir(parents=True)
    own.checkpoint_path("a").touch()
    assert store(["prune", "--unfinished", "--store", str(own.folder)]) == 0
    assert not own.checkpoint_path("a").exists()
