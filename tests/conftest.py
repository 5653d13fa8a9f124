"""Shared pieces: a configuration that trains in milliseconds, and the real command line called in this process."""

from __future__ import annotations

import gc
import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; torch threads would fight for the cores

from cnn_ablation.common import machine

if not machine.may_have_gpu():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read as Triton is imported: its kernels then run on the CPU

from cnn_ablation.tasks.image_classification.config import AdamConfig, Config, ModelConfig, ShapesConfig, TrainConfig

# One small convolution on 8x8 generated images: the whole path in about 20 ms per run.
TINY = (
    "data=shapes",
    "data.image_size=8",
    "data.train_images=60",
    "data.test_images=40",
    "model.filters=[4]",
    "model.kernel_sizes=[3]",
    "model.hidden=[8]",
    "train.epochs=2",
    "train.batch_size=16",
)

UNDRAWN_COMMAND = str(Path(__file__).parent / "undrawn.py")  # `python -m cnn_ablation` without pictures


_IN_MEMORY = "/dev/shm"
_ENOUGH_BYTES = 4 << 30  # ten times what a whole suite leaves
_ROOT = "PYTEST_DEBUG_TEMPROOT"  # pytest's own: where it makes its folders
_OURS = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Has tests write into memory where the system has a folder there: every record waits for the disk otherwise.

    Some 20,000 files are written to the disk at 2 ms each, and removed at 1.5 ms each after the next suite. Those of
    the cluster stay on it: their hosts share no memory.
    """
    if config.option.markexpr != "cluster" and _ROOT not in os.environ and _holds_temporary_files(_IN_MEMORY):
        config.stash[_OURS] = os.environ[_ROOT] = tempfile.mkdtemp(prefix="pytest-", dir=_IN_MEMORY)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Gives the memory back; what failed is left to be looked at."""
    gc.unfreeze()
    if _OURS in session.config.stash and exitstatus == pytest.ExitCode.OK:
        shutil.rmtree(session.config.stash[_OURS], ignore_errors=True)


def _holds_temporary_files(folder: str) -> bool:
    if not os.access(folder, os.W_OK):
        return False
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize >= _ENOUGH_BYTES and not found.f_flag & os.ST_NOEXEC


_COLLECT_AFTER = 1500  # tests


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seeds PyTorch, and keeps what is there out of the search for garbage, but for a whole search now and then.

    A search among all that torch, pandas and matplotlib hold takes 0.3 s, and tests make garbage for many of them.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(0)  # what a test draws hangs on no test before it
    count = item.config.stash.get(_TESTS, 0)
    item.config.stash[_TESTS] = count + 1
    if count % _COLLECT_AFTER == 0:
        gc.unfreeze()
        gc.collect()
    gc.freeze()


_TESTS = pytest.StashKey[int]()


def pytest_report_header() -> str:
    """What these tests are computed with here: not every processor takes the same ways."""
    from cnn_ablation.tasks.image_classification import compiled

    kernels = "compiled kernels" if compiled.library() else f"PyTorch's own kernels ({compiled.missing()})"
    return f"computed with {machine.instructions()}, {machine.cpu_precision()} for precision=auto, {kernels}"


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def tiny_config(tmp_path: Path) -> Config:
    return Config(
        data=ShapesConfig(image_size=8, train_images=60, test_images=40),
        model=ModelConfig(filters=[4], kernel_sizes=[3], hidden=[8]),
        optimizer=AdamConfig(),
        train=TrainConfig(epochs=2, batch_size=16),
        replicates=2,
        device="cpu",
        store=str(tmp_path / "store"),
    )


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """`python -m cnn_ablation ARGUMENTS` in a temporary folder, in this process (imports are paid once).

    Runs are trained in this process too, unless `timing=` is given.
    """
    from cnn_ablation.__main__ import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Answer:
        flags = any(argument.startswith(("-h", "--", "timing=")) for argument in arguments)
        monkeypatch.setattr(sys, "argv", ["cnn_ablation", *arguments, *([] if flags else ["timing=isolated"])])
        capsys.readouterr()
        with _sharing_compositions(arguments), pytest.raises(SystemExit) as ended:
            main()
        _close_logs()
        printed = capsys.readouterr()
        return Answer(int(ended.value.code or 0), printed.out, printed.err)

    return call


def answered(folder: Path, *arguments: str) -> Answer:
    """What `cli` does, in a folder that many tests share."""
    from cnn_ablation.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.chdir(folder)
        patched.delenv("COLUMNS", raising=False)  # xdist sets it in its processes, and tables are as wide as it says
        patched.setattr(sys, "argv", ["cnn_ablation", *arguments])
        with _sharing_compositions(arguments), pytest.raises(SystemExit) as ended:
            main()
        _close_logs()
    return Answer(int(ended.value.code or 0), out.getvalue(), err.getvalue())


_of_commands: list[Any] = []
"""What commands of this process have composed, once there is something."""


@contextmanager
def _sharing_compositions(words: Sequence[str]) -> Iterator[None]:
    """A command within it takes what earlier ones composed of the same options, as `cnn_ablation.compose` does.

    Composing takes half the time of a command that is refused. `tests/test_loader.py` holds that what is shared is what
    Hydra composes; nothing is where somebody's own files or nodes are among it.
    """
    from cnn_ablation.app import composition, loader

    composing_once = loader.composing_once

    @contextmanager
    def sharing() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patched:
            if not _of_commands:
                _of_commands.append(composition._Kept([], {}))
            patched.setattr(composition, "_last", _of_commands[0])
            kept = composition._kept(words)
        with composing_once(kept):
            yield

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loader, "composing_once", sharing)
        yield


def _close_logs() -> None:
    """Those that a command leaves open, for its process ends with it; one on a screen that is closed raises later."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if type(each) in (logging.FileHandler, logging.StreamHandler)]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, one for all: a process can drive no second one."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    assert program, "these tests need Chromium"
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=[*flags, "--disable-sync"])
        yield chromium
        chromium.close()


@contextmanager
def without_pictures() -> Iterator[None]:
    """Reports within it are tables alone: pictures and the page take longer than all the rest of a tiny study."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("picture_files", "confusion_files"):
            patched.setattr(f"cnn_ablation.report.study.{name}", lambda *_, **__: {})
        patched.setattr("cnn_ablation.report.page.files", lambda _: {})
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Reports of this process are tables alone."""
    with without_pictures():
        yield


@contextmanager
def parts_forgotten() -> Iterator[None]:
    """What extensions register within it is forgotten afterwards."""
    from cnn_ablation.app import composition, keys
    from cnn_ablation.tasks.image_classification import activations, config, models, parts

    of_parts = (parts.OPTIMIZERS, parts.LOSSES, parts.SCHEDULES, parts.SOURCES, parts.OPTIONS)
    tables: Any = (activations.ACTIVATIONS, models.NETWORKS, *of_parts, *config.GROUPS.values())
    lists = (config.LOSS_NAMES, config.SCHEDULE_NAMES)
    before, names = [dict(table) for table in tables], [list(each) for each in lists]
    known = {(group, name) for group, name, _ in composition._dataclasses()}
    try:
        yield
    finally:
        _forget_schemas({(group, name) for group, name, _ in composition._dataclasses()} - known)
        for table, content in zip(tables, before, strict=True):
            table.clear()
            table.update(content)
        for each, kept in zip(lists, names, strict=True):
            each[:] = kept
        keys.schema_keys.cache_clear()


def _forget_schemas(added: set[tuple[str, str]]) -> None:
    """In Hydra's store for commands, and in that for what is composed beside a caller's Hydra."""
    from hydra.core.config_store import ConfigStore

    from cnn_ablation.app import composition

    for store in {id(store): store for store in (ConfigStore.instance(), composition._found.get(ConfigStore))}.values():
        for group, name in added if store else ():
            nodes = store.repo
            for part in group.split("/"):
                nodes = nodes.get(part, {})
            nodes.pop(f"{name}.yaml", None)
