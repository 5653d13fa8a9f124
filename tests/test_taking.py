"""What the store has is taken by the study's own process: the files that jobs leave, without data, torch, workers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, UNDRAWN_COMMAND, Answer
from PIL import Image

import cnn_ablation
from cnn_ablation import ablate
from cnn_ablation.common.errors import RecordError
from cnn_ablation.config import StudyConfig, with_settings
from cnn_ablation.launch import children, execution, taking
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.crew import Crew
from cnn_ablation.launch.planning import Planning
from cnn_ablation.runs.records import Run, read_run, record_paths
from cnn_ablation.runs.run import known_runs, run
from cnn_ablation.runs.store import RunStore
from cnn_ablation.runs.store.memory import _MOST, DIGESTS, Memory
from cnn_ablation.study.designs import knob
from cnn_ablation.tasks.image_classification import compiled, computing, data
from cnn_ablation.tasks.image_classification.config import Config, ImageFolderConfig

pytestmark = pytest.mark.usefixtures("undrawn")
Cli = Callable[..., Answer]
OWN_DATA = ("data=arrays", "data.target=own_data.load")
MOMENT = re.compile(rb"^\[\d{4}-[^]]*\]", flags=re.MULTILINE)


@pytest.fixture
def no_taking(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets studies go the slow way from then on: every job looks into the store by itself."""

    def from_now_on() -> None:
        carry_out = execution.Study.carry_out
        monkeypatch.setattr(execution.Study, "carry_out", lambda study, launch, taking=None: carry_out(study, launch))

    return from_now_on


@pytest.fixture
def not_trained(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on nothing is loaded, and no job is started."""

    def from_now_on() -> None:
        def refused(*_: Any, **__: Any) -> Any:
            raise AssertionError("nothing has to be loaded or trained")

        data.forget()
        monkeypatch.setattr(data, "split", refused)
        monkeypatch.setattr(Crew, "train", refused)
        monkeypatch.setattr(execution, "run", refused)
        monkeypatch.setattr(children, "start_loading", refused)

    return from_now_on


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the jobs below a study's folder, without the moments in logs and the folder's own name."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0].isdigit()]
    return {
        path.relative_to(folder).as_posix(): MOMENT.sub(b"[then]", path.read_bytes()).replace(folder.name.encode(), b"")
        for path in found
    }


@pytest.mark.parametrize(
    "study",
    [
        (*TINY, "model.activation=relu,leaky", "replicates=2"),
        (*TINY, "model.activation=relu,leaky", "optimizer.lr=0.01,0.02", "hydra.sweeper.design=greedy", "replicates=1"),
        (*TINY, "model.dropout=0,0.5", "vary=[split,init]", "replicates=1"),
        (*TINY, "zip.large={train.batch_size:8,optimizer.lr:4e-3}", "engine=reference", "replicates=1"),
        (*TINY, "model.activation=relu,leaky", "replicates=auto", "min_replicates=2", "max_replicates=3"),
        (*OWN_DATA, *TINY[-5:], "model.dropout=0,0.5", "replicates=1"),
        (*OWN_DATA, "model=module", "model.target=own_nets.ResNet", "train.epochs=1,2", *TINY[-1:], "replicates=1"),
    ],
    ids=["one at a time", "greedy", "split", "zipped, by the reference loop", "auto", "arrays", "module"],
)
def test_a_study_of_the_command_line_leaves_the_same_files(
    study: tuple[str, ...], cli: Cli, no_taking: Callable[[], None], tmp_path: Path
) -> None:
    words = ("-m", *study)
    trained = cli(*words, "hydra.sweep.dir=trained")
    assert trained.code == 0, trained.err
    taken = cli(*words, "hydra.sweep.dir=taken")
    no_taking()
    assert cli(*words, "hydra.sweep.dir=asked").code == 0
    assert taken.code == 0, taken.err
    found = contents(tmp_path / "taken")
    assert found == contents(tmp_path / "asked")
    assert {"0/run-seed0.json", "0/weights-seed0.pt", "0/cnn_ablation.log", "0/.hydra/config.yaml"} <= found.keys()
    assert all(each.reused for each in records(tmp_path / "taken"))
    assert "HYDRA" not in taken.out


def records(folder: Path) -> list[Run]:
    return [read_run(path) for path in record_paths(folder)]


def test_a_packed_study_loads_and_starts_nothing(
    tiny_config: Config, not_trained: Callable[[], None], tmp_path: Path
) -> None:
    config = replace(tiny_config, replicates=2, threads=1)
    ablate(replace(config, timing="isolated"), {"model.activation": ["leaky"]}, tmp_path / "first")
    not_trained()
    ablate(config, {"model.activation": ["leaky"]}, tmp_path / "second")
    first, second = records(tmp_path / "first"), records(tmp_path / "second")
    assert [each.fingerprint for each in second] == [each.fingerprint for each in first]
    assert [each.reused for each in second] == [True] * 4
    stored = RunStore(Path(config.store)).weights_path(first[0].fingerprint)
    assert os.path.samefile(tmp_path / "second" / "0" / "weights-seed0.pt", stored)


WITHOUT_TORCH = """
import sys
from cnn_ablation.__main__ import main
try:
    main()
except SystemExit as ended:
    from multiprocessing import forkserver
    heavy = {"torch", "sklearn", "torchvision"} & {*sys.modules}
    print(ended.code, forkserver._forkserver._forkserver_pid, *sorted(heavy))
"""


def test_a_command_that_trains_nothing_imports_no_torch(cli: Cli, tmp_path: Path) -> None:
    words = ["-m", *TINY, "model.activation=relu,leaky", "replicates=1", "threads=1"]
    assert cli(*words).code == 0
    command = [sys.executable, "-c", WITHOUT_TORCH, *words, "timing=packed"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == "0 None"


def study(config: StudyConfig, folder: Path, **changes: Any) -> list[bool]:
    """Whether each run of a study with one knob was reused."""
    config = replace(config, timing="isolated", **changes)
    planning = Planning("one_at_a_time", [knob("train.epochs", [1])], lambda arm: with_settings(config, arm.settings))
    carried_out = execution.Study(folder, planning)
    carried_out.carry_out(execution.on_this_machine(carried_out), execution.taking_here(carried_out))
    return [each.reused for each in records(folder)]


def test_workers_are_prepared_for_as_soon_as_a_job_is_left(tiny_config: Config, tmp_path: Path) -> None:
    config = replace(tiny_config, replicates=1)
    run(config, tmp_path / "a")
    events = list[str]()

    def called_with(seed: int) -> Assignment:
        events.append(f"job {seed}")
        return Assignment(replace(config, seed=seed), tmp_path / f"{seed}", study=tmp_path)

    how = taking.Taking(called_with, lambda seed: events.append(f"folder {seed}"), has_log=False)
    left = taking.take([0, 1, 0, 2], how, None, lambda: events.append("prepared"))
    assert left == {1: False, 2: False}
    assert events == ["job 0", "folder 0", "job 1", "prepared", "job 0", "folder 0", "job 2"]


def test_a_gpu_is_asked_by_the_jobs(tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(tiny_config, replicates=1)
    run(config, tmp_path / "a")
    monkeypatch.setattr(computing, "device_type", lambda name: "cuda")
    monkeypatch.setattr(computing, "resolve", lambda *_, **__: pytest.fail("the GPU was asked"))
    assert known_runs(config) is None


def test_only_what_is_missing_is_trained(tiny_config: Config, tmp_path: Path) -> None:
    assert study(tiny_config, tmp_path / "a", replicates=1) == [False, False]
    assert study(tiny_config, tmp_path / "b", replicates=2) == [True, True, False, False]
    assert study(tiny_config, tmp_path / "c", replicates=2, reuse=False) == [False] * 4


def test_what_shared_the_machine_is_not_taken_for_a_lone_time(tiny_config: Config, tmp_path: Path) -> None:
    packed = replace(tiny_config, replicates=1)
    run(packed, tmp_path / "a", concurrent_jobs=lambda how: 2)
    assert [each.concurrent_runs for each in known_runs(packed) or []] == [2]
    assert known_runs(replace(packed, timing="isolated")) == []


def test_a_damaged_record_is_named_once_and_trained_again(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study(tiny_config, tmp_path / "a", replicates=1)
    [first, _] = records(tmp_path / "a")
    RunStore(Path(tiny_config.store)).run_path(first.fingerprint).write_bytes(b"{")
    capsys.readouterr()
    assert study(tiny_config, tmp_path / "b", replicates=1) == [False, True]
    assert capsys.readouterr().err.count("training this run again") == 1


def test_a_record_that_cannot_be_written_ends_the_study(tiny_config: Config, tmp_path: Path) -> None:
    study(tiny_config, tmp_path / "a", replicates=1)
    (tmp_path / "b" / "1" / "run-seed0.json").mkdir(parents=True)
    with pytest.raises(RecordError, match=r"cannot write .*b/1/run-seed0\.json"):
        study(tiny_config, tmp_path / "b", replicates=1)
    assert read_run(tmp_path / "b" / "0" / "run-seed0.json").reused


def test_an_identity_that_is_known_is_the_one_of_the_run(tiny_config: Config, tmp_path: Path) -> None:
    for threads in (None, 2):
        config = replace(tiny_config, replicates=1, seed=threads or 0)
        [trained] = run(config, tmp_path / "a", threads=threads)
        assert known_runs(config, threads=threads) == [replace(trained, reused=True)]


def test_a_run_says_itself_what_it_is_while_its_kernels_are_not_compiled(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny_config, replicates=1)
    run(config, tmp_path / "a")
    assert len(known_runs(config) or []) == 1
    monkeypatch.setattr(compiled, "is_decided", lambda: False)
    assert known_runs(config) is None


def test_nothing_is_decided_about_kernels_while_they_could_be_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled._loaded.cache_clear()
    monkeypatch.setattr(compiled, "_path", lambda: tmp_path / "kernels.so")
    monkeypatch.setattr(compiled.shutil, "which", lambda name: "/usr/bin/cc")
    assert not compiled.is_decided()
    (tmp_path / "kernels.so").touch()
    assert compiled.is_decided()
    (tmp_path / "kernels.so").unlink()
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    assert compiled.is_decided()


FUNCTION = "def train(lr: float = 0.1, *, seed: int) -> dict[str, float]:\n    return {'score': lr + seed}\n"


def test_a_function_is_called_only_where_its_code_has_changed(cli: Cli, tmp_path: Path) -> None:
    source, words = tmp_path / "taken_train.py", ["-m", "task=function", "task.target=taken_train.train"]
    source.write_text(FUNCTION)
    words += ["settings.lr=0.1,0.2", "replicates=1"]
    command = [sys.executable, UNDRAWN_COMMAND, *words, "timing=isolated"]
    found = []
    for folder in ("a", "b", "c"):
        source.write_text(FUNCTION if folder != "c" else FUNCTION.replace("lr + seed", "lr -  seed"))
        subprocess.run([*command, f"hydra.sweep.dir={folder}"], capture_output=True, cwd=tmp_path, check=True)
        found.append([each.reused for each in records(tmp_path / folder)])
    assert found == [[False] * 2, [True] * 2, [False] * 2]


@pytest.fixture
def pictures(tmp_path: Path) -> ImageFolderConfig:
    noise = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return ImageFolderConfig(root=str(tmp_path / "pictures"), cache=str(tmp_path / "cache"), val_fraction=0.34)


def test_a_digest_is_known_while_the_files_are_as_they_were(pictures: ImageFolderConfig, tmp_path: Path) -> None:
    store, one = tmp_path / "store", Path(pictures.root) / "train" / "cat" / "0.png"
    store.mkdir()
    assert data.known_digest(pictures, store) is None
    data.learn_digest(pictures, store)
    digest = data.load(pictures).digest
    data.forget()
    assert data.known_digest(pictures, store) == digest
    assert data.known_digest(replace(pictures, scale="unit"), store) is None
    one.write_bytes((Path(pictures.root) / "train" / "cat" / "1.png").read_bytes())
    assert data.known_digest(pictures, store) is None
    data.learn_digest(pictures, store)
    assert data.load(pictures).digest != digest
    data.forget()
    assert data.known_digest(pictures, store) not in (None, digest)


def test_a_digest_is_not_remembered_of_files_that_were_written_meanwhile(
    pictures: ImageFolderConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    stamps = iter("ab")
    monkeypatch.setattr(data.image_folder, "stamp", lambda _: next(stamps, "b"))
    data.learn_digest(pictures, tmp_path / "store")
    data.forget()
    assert data.known_digest(pictures, tmp_path / "store") is None


def test_what_a_function_gives_is_asked_of_it_in_every_process(tmp_path: Path) -> None:
    config = cnn_ablation.compose(["data=arrays", "data.target=own_data.load"])
    (tmp_path / "store").mkdir()
    data.learn_digest(config.data, tmp_path / "store")
    assert data.known_digest(config.data, tmp_path / "store") == data.load(config.data).digest
    data.forget()
    assert data.known_digest(config.data, tmp_path / "store") is None


def test_data_that_have_to_be_loaded_need_no_workers_where_all_runs_are_there(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert study(tiny_config, tmp_path / "a") == [False] * 4
    data.forget()
    monkeypatch.setattr(Memory, "find", lambda *_: None)  # as of a source that has no stamp
    monkeypatch.setattr(execution, "run", lambda *_, **__: pytest.fail("nothing has to be trained"))
    assert study(tiny_config, tmp_path / "b") == [True] * 4


def test_a_memory_knows_what_was_kept_and_nothing_else(tmp_path: Path) -> None:
    memory = Memory(tmp_path, DIGESTS)
    assert memory.find("key") is None
    memory.keep("key", b"content")
    assert (memory.find("key"), memory.find("other")) == (b"content", None)
    path = tmp_path / DIGESTS / "key"
    path.write_bytes(path.read_bytes()[:-1])
    assert memory.find("key") is None


def test_a_memory_makes_no_store_and_forgets_what_was_not_asked_for_longest(tmp_path: Path) -> None:
    Memory(tmp_path / "none", DIGESTS).keep("key", b"")
    assert not (tmp_path / "none").exists()
    memory = Memory(tmp_path, DIGESTS)
    for number in range(_MOST + 1):
        memory.keep(f"{number}", b"")
        os.utime(tmp_path / DIGESTS / f"{number}", (number, number)) if number < _MOST else None
        memory.find("0")
    assert memory.find("1") is None
    assert memory.find("0") == b""
