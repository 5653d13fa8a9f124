from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.files import write_atomically
from cnn_ablation.runs.provenance import environment, extension_version, fingerprint
from cnn_ablation.runs.provenance import identity as identity_of
from cnn_ablation.runs.records import RUN_COLUMNS, Run, read_run, record_paths, stamp, write_failed, write_run
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS

RUN = Run(
    arm="model.activation=leaky",
    knob="model.activation",
    level="leaky",
    seed=3,
    status="diverged",
    test_accuracy=0.5,
    train_loss=math.inf,
    curves=[{"epoch": 1, "train_loss": math.nan}],
    settings={"model.filters": [1, 2]},
)


def test_the_columns_of_runs_csv_are_those_of_the_contract() -> None:
    assert RUN_COLUMNS == (
        "arm", "knob", "level", "seed", "status", "train_accuracy", "val_accuracy", "test_accuracy",
        "train_loss", "val_loss", "test_loss", "train_seconds", "cpu_seconds", "total_seconds", "images_per_second",
        "epochs", "updates", "num_params", "peak_memory_mib", "device", "precision", "hardware", "threads",
        "images_in_host_memory", "concurrent_runs", "neighbours", "train_started", "train_ended", "reused",
        "fingerprint", "error",
    )  # fmt: skip


def test_a_run_survives_the_disk_and_the_file_is_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "3" / "run-seed3.json"
    write_run(path, RUN)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = read_run(path)
    assert (back.arm, back.seed, back.status, back.test_accuracy) == (RUN.arm, 3, "diverged", 0.5)
    assert math.isnan(back.train_loss)
    assert math.isnan(back.curves[0]["train_loss"])
    assert back.settings == RUN.settings


def test_a_record_from_before_a_measurement_was_made_has_none(tmp_path: Path) -> None:
    path = tmp_path / "run-seed3.json"
    write_run(path, RUN)
    content = json.loads(path.read_text())
    for name in ("cpu_seconds", "hardware", "threads", "neighbours", "train_started", "train_ended"):
        del content["run"][name]
    path.write_text(json.dumps(content))
    back = read_run(path)
    assert (back.hardware, back.threads) == ("", 0)
    times = (back.cpu_seconds, back.neighbours, back.train_started, back.train_ended)
    assert all(map(math.isnan, times))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"format": 1}', '{"format": 99, "run": {}}', '{"format": 1, "run": {"arm": "a"}}', "\0\0"],
)
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run-seed0.json"
    path.write_text(content)
    with pytest.raises(RecordError, match=r"run-seed0\.json is damaged or unreadable"):
        read_run(path)


@pytest.mark.parametrize("length", [1, 100, 300, -3])
@pytest.mark.parametrize("details", [True, False])
def test_a_truncated_record_is_named(tmp_path: Path, length: int, details: bool) -> None:
    path = tmp_path / "run-seed0.json"
    write_run(path, RUN)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RecordError, match="damaged"):
        read_run(path, details=details)


def test_names_that_are_not_unicode_survive(tmp_path: Path) -> None:
    path, names = tmp_path / "run-seed0.json", [os.fsdecode(b"caf\xe9"), "caf\u00e9"]
    write_run(path, dataclasses.replace(RUN, class_names=names))
    assert read_run(path).class_names == names


def test_a_run_without_its_details_is_the_same_up_to_them(tmp_path: Path) -> None:
    path = tmp_path / "run-seed3.json"
    tricky = dataclasses.replace(RUN, error='",\n"class_names": [', class_names=["a"], provenance={"host": "h"})
    write_run(path, tricky)
    short, whole = (read_run(path, details=details) for details in (False, True))
    assert whole.class_names == ["a"]
    empty = {"class_names": [], "per_class": {}, "confusion": {}, "curves": [], "provenance": {}}
    assert repr(short) == repr(dataclasses.replace(whole, **empty))


def test_a_record_that_is_laid_out_otherwise_is_read_with_its_details(tmp_path: Path) -> None:
    path = tmp_path / "run-seed3.json"
    write_run(path, RUN)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    assert repr(read_run(path, details=False)) == repr(read_run(path))


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with pytest.raises(RecordError, match="cannot write"):
        write_atomically(blocker / "run.json", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("errno_of_link", [None, errno.EPERM], ids=["links", "a file system without links"])
def test_a_record_that_is_there_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errno_of_link: int | None
) -> None:
    if errno_of_link:

        def no_links(*_: object) -> None:
            raise OSError(errno_of_link, "not here")

        monkeypatch.setattr(os, "link", no_links)
    path, failed = tmp_path / "0" / "run-seed3.json", dataclasses.replace(RUN, status="failed")
    assert write_run(path, RUN, replace=False)
    assert not write_run(path, failed, replace=False)
    assert read_run(path).status == "diverged"
    assert write_run(path, failed)
    assert read_run(path).status == "failed"
    assert [name.name for name in path.parent.iterdir()] == [path.name]


FAILED = dataclasses.replace(RUN, status="failed")


@pytest.mark.parametrize(
    ("expected", "before", "meanwhile"),
    [
        (FAILED, None, None),
        (FAILED, dataclasses.replace(RUN, seed=9), None),
        (RUN, None, RUN),
        (RUN, dataclasses.replace(RUN, seed=9), RUN),
        (RUN, FAILED, RUN),
    ],
    ids=["nothing there", "of an earlier attempt", "one that came", "one that came in its place", "after a failed one"],
)
def test_a_failed_run_replaces_nothing_but_what_was_there_before_it(
    tmp_path: Path, expected: Run, before: Run | None, meanwhile: Run | None
) -> None:
    path = tmp_path / "0" / "run-seed3.json"
    if before:
        write_run(path, before)
    known = stamp(path)
    if meanwhile:
        write_run(path, meanwhile)
    assert write_failed(path, FAILED, known) == (expected is FAILED)
    assert repr(read_run(path)) == repr(dataclasses.replace(expected, train_loss=math.nan))
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_link_whose_answer_was_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that made the link answers to the repeated request that the name is taken."""
    link = os.link

    def repeated(*arguments: Any) -> None:
        link(*arguments)
        link(*arguments)

    monkeypatch.setattr(os, "link", repeated)
    assert write_run(tmp_path / "run.json", RUN, replace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_folder_that_another_host_has_just_made_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, and cannot be seen: a server says so to who makes it."""
    make, refused = os.mkdir, list[str]()

    def unseen(path: str, *arguments: Any) -> None:
        if len(refused) < 2:
            refused.append(path)
            raise FileExistsError(errno.EEXIST, "exists", path)
        make(path, *arguments)

    monkeypatch.setattr(os, "mkdir", unseen)
    write_run(tmp_path / "0" / "run.json", RUN)
    assert (read_run(tmp_path / "0" / "run.json").seed, len(refused)) == (3, 2)


def test_a_killed_writer_leaves_no_half_file(tmp_path: Path) -> None:
    """A process that overwrites a record again and again is killed; the record is whole every time."""
    path = tmp_path / "0" / "run-seed0.json"
    code = (
        "import pathlib, sys\n"
        "from cnn_ablation.runs.records import Run, write_run\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "run = Run(arm='a' * 200_000, knob='', level='', seed=0, status='ok')\n"
        "print('ready', flush=True)\n"
        "while True: write_run(path, run)\n"
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            while not path.exists():
                pass
            writer.kill()
        assert len(read_run(path).arm) == 200_000


def test_records_are_listed_in_the_order_of_their_jobs(tmp_path: Path) -> None:
    for job in ("10", "2", "notes"):
        write_run(tmp_path / job / "run-seed0.json", RUN)
    (tmp_path / "11").touch()
    assert [path.parent.name for path in record_paths(tmp_path)] == ["2", "10"]
    assert record_paths(tmp_path / "missing") == []


def test_identity_changes_with_everything_that_changes_a_result() -> None:
    def identity(**changes: object) -> str:
        known = {"settings": {"optimizer.lr": 1e-3}, "seed": 0, "data_digest": "d", "made_with": {"code": "c"}}
        return fingerprint(identity_of(**{**known, **changes}))  # type: ignore[arg-type]

    changes = [{"settings": {"optimizer.lr": 1e-2}}, {"seed": 1}, {"data_digest": "e"}]
    changes += [{"made_with": {"code": "d"}}]
    identities = [identity(), *(identity(**change) for change in changes)]
    assert len(set(identities)) == len(identities)
    assert identity() == identity()


def double(x: int) -> int:
    return 2 * x


def test_code_from_outside_is_part_of_the_identity_with_what_it_uses() -> None:
    """The same text gives the same version; another constant, in the function or in one that it calls, another."""

    def version(text: str) -> str:
        names: dict[str, object] = {"__name__": "notebook"}
        exec(text, names)
        return extension_version(names["make"])

    first = version("def slope(): return 0.01\ndef make(nn): return nn.LeakyReLU(slope())")
    assert first == version("def slope(): return 0.01\ndef make(nn): return nn.LeakyReLU(slope())")
    changed = {
        version("def slope(): return 0.02\ndef make(nn): return nn.LeakyReLU(slope())"),
        version("def slope(): return 0.01\ndef make(nn): return nn.ELU(slope())"),
        version("class Own:\n  def forward(self, x): return x\ndef make(nn): return Own()"),
        version("class Own:\n  def forward(self, x): return -x\ndef make(nn): return Own()"),
        first,
    }
    assert len(changed) == 5
    assert extension_version(double) != ""
    assert extension_version(ACTIVATIONS["relu"]) == ""


def test_environment_names_versions_and_machine() -> None:
    found = environment(("torch",))
    assert found["versions"].keys() >= {"python", "torch", "cnn_ablation", "hydra-core"}
    assert found["cpu_count"] == os.cpu_count()
