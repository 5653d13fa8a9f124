from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cnn_ablation.common import files, progress
from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.processes import HOST_VARIABLE
from cnn_ablation.runs import provenance
from cnn_ablation.runs.records import Run
from cnn_ablation.runs.store import BusyError, RunStore
from cnn_ablation.runs.store.entries import entries, prune
from cnn_ablation.runs.store.memory import FOLDERS, Memory
from cnn_ablation.store import main
from cnn_ablation.tasks.image_classification.identity import CODE, LIBRARIES

NOW = {"identity": provenance.code_identity(CODE, LIBRARIES)}
BEFORE = {"identity": {**provenance.code_identity(CODE, LIBRARIES), "code": "another"}}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """One run of each kind, the damaged one ten days old."""
    store = RunStore(tmp_path / "store")
    store.keep("current", Run("baseline", "", "", 0, "ok", test_accuracy=0.9, provenance=NOW))
    store.keep("outdated", Run("baseline", "", "", 1, "ok", test_accuracy=0.8, provenance=BEFORE))
    for name in ("damaged", "unfinished"):
        (store.folder / name).mkdir()
    store.run_path("damaged").write_text("{")
    os.utime(store.run_path("damaged"), (time.time() - 10 * 86400,) * 2)
    store.checkpoint_path("unfinished").write_bytes(b"1234")
    return store


def test_entries_say_what_can_be_reused(store: RunStore) -> None:
    for other in ("training/host", "submitted", "looks"):
        (store.folder / other).mkdir(parents=True)
    found = {entry.fingerprint: entry for entry in entries(store.folder)}
    assert {name: entry.state for name, entry in found.items()} == {
        "current": "finished", "outdated": "finished", "damaged": "damaged", "unfinished": "unfinished",
    }  # fmt: skip
    assert found["current"].current
    assert not found["outdated"].current
    assert found["unfinished"].num_bytes == 4
    assert found["damaged"].age_days == pytest.approx(10, abs=0.01)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--outdated"], {"current", "damaged", "unfinished"}),
        (["--damaged"], {"current", "outdated", "unfinished"}),
        (["--unfinished", "--damaged"], {"current", "outdated"}),
        (["--older-than", "9"], {"current", "outdated", "unfinished"}),
        (["--all"], set()),
        (["--all", "--dry-run"], {"current", "outdated", "damaged", "unfinished"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_prune_removes_what_is_asked_for(store: RunStore, options: list[str], kept: set[str]) -> None:
    assert main(["prune", "--store", str(store.folder), *options]) == 0
    assert {path.name for path in store.folder.iterdir()} == kept


def test_list_names_every_run(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--store", str(store.folder)]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[:2] for line in printed.splitlines() if line.startswith((" damaged", " current"))] == [
        ["damaged", "damaged"],
        ["current", "finished"],
    ]
    assert "90.00" in printed
    assert "4 runs" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune"], "say what: --outdated"),
        (["prune", "--older-than", "-1"], "allowed is 0 or more days"),
        ([], "required: command"),
    ],
)
def test_arguments_are_checked(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_store_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--store", str(tmp_path / "nowhere")]) == 2
    assert f"there is no store at {tmp_path / 'nowhere'}" in capsys.readouterr().err


def test_a_finished_run_needs_no_checkpoint(store: RunStore) -> None:
    store.keep("unfinished", Run("baseline", "", "", 0, "ok"))
    assert not store.checkpoint_path("unfinished").exists()
    assert store.find("unfinished") is not None


def test_a_damaged_run_is_named_and_counts_as_none(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert store.find("damaged") is None
    assert f"{store.run_path('damaged')} is damaged or unreadable" in capsys.readouterr().err
    assert store.find("nothing") is None


def test_a_run_in_training_is_waited_for_and_never_pruned(store: RunStore) -> None:
    """Another process holds the lock until its standard input closes; when it is killed, the lock is free."""
    code = (
        "import sys; from pathlib import Path; from cnn_ablation.runs.store import RunStore\n"
        "with RunStore(Path(sys.argv[1])).locked('current'):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(store.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    assert {entry.fingerprint for entry in prune(store.folder, entries(store.folder))} == {
        "outdated", "damaged", "unfinished",
    }  # fmt: skip
    waiter = subprocess.Popen([sys.executable, "-c", code, str(store.folder)], stdin=subprocess.DEVNULL, stderr=-1)
    assert waiter.stderr
    line = waiter.stderr.readline().decode()
    assert re.match(
        rf"another process is training this run \(process {holder.pid} on \S+, since [^)]+\); waiting", line
    )
    assert waiter.poll() is None
    holder.kill()
    assert waiter.wait(timeout=30) == 0
    holder.communicate()
    waiter.stderr.close()


RUN = Run("baseline", "", "", 0, "ok", test_accuracy=0.9)  # with NaN in it, which equals nothing from Python 3.13 on


def test_the_first_finished_record_stays(tmp_path: Path) -> None:
    store, later = RunStore(tmp_path), replace(RUN, test_accuracy=0.1)
    assert store.keep("run", RUN, b"weights")
    assert not store.keep("run", later, b"later weights")
    assert store.weights_path("run").read_bytes() == b"weights"
    assert repr(store.find("run")) == repr(RUN)
    assert store.keep("run", later, replace=True)
    assert repr(store.find("run")) == repr(later)


def test_only_who_has_a_run_still_may_replace_its_record(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with store.locked("run") as hold:
        assert not hold.may_replace  # there was none
        store.keep("run", RUN)
        assert not hold.may_replace
    with store.locked("run") as hold:
        assert hold.may_replace
        (tmp_path / "run" / f".lease.{hold.lease.generation + 1}").touch()  # another host's, which took us for dead
        assert not hold.may_replace


def test_a_failed_run_is_never_kept(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a failed run is no result"):
        RunStore(tmp_path).keep("run", replace(RUN, status="failed"), replace=True)


def test_who_does_not_wait_is_told(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with store.locked("run"), pytest.raises(BusyError), store.locked("run", wait=False):
        pass
    with store.locked("run", wait=False):
        pass


def test_a_record_of_another_host_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunStore(tmp_path)
    with monkeypatch.context() as there:
        there.setenv(HOST_VARIABLE, "there")
        with store.locked("run"):
            store.keep("run", RUN)
    unseen = store.run_path("run").rename(tmp_path / "unseen")
    say = progress.say

    def seen_from_then_on(line: str) -> None:
        say(line)
        unseen.rename(store.run_path("run"))

    monkeypatch.setattr(progress, "say", seen_from_then_on)
    with store.locked("run") as hold:
        assert hold.had_record
        assert repr(store.find("run")) == repr(RUN)
    said = " ".join(capsys.readouterr().err.split())
    assert said == f"{store.run_path('run')} was written on another host; waiting up to 60 s to see it"


@pytest.mark.parametrize("host", ["", "there"], ids=["failed there", "removed by hand"])
def test_what_is_not_there_is_not_waited_for_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """A run that failed on another host left nothing; a record that was removed is waited for as long as is said."""
    store = RunStore(tmp_path)
    with monkeypatch.context() as there:
        there.setenv(HOST_VARIABLE, host or "there")
        with store.locked("run"):
            if host:
                store.keep("run", RUN)
    store.run_path("run").unlink(missing_ok=True)
    monkeypatch.setattr(files, "VISIBLE_SECONDS", 0.2 if host else 60.0)
    began = time.monotonic()
    with store.locked("run") as hold:
        assert not hold.had_record
    assert 0.2 * bool(host) <= time.monotonic() - began < 30


def test_prune_clears_what_failed_runs_and_earlier_versions_left(store: RunStore) -> None:
    (store.folder / "locks").mkdir()
    (store.folder / "locks" / "current.lock").touch()
    (store.folder / ".removed-1").mkdir()
    with store.locked("failed"):
        pass
    with store.locked("training"):
        assert {entry.fingerprint for entry in entries(store.folder)} == {
            "current", "outdated", "damaged", "unfinished",
        }  # fmt: skip
        assert prune(store.folder, []) == []
        assert {path.name for path in store.folder.iterdir()} == {
            "current", "outdated", "damaged", "unfinished", "training",
        }  # fmt: skip


def test_prune_leaves_a_record_that_cannot_be_seen_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path)
    with monkeypatch.context() as there:
        there.setenv(HOST_VARIABLE, "there")
        with store.locked("run"):
            store.keep("run", RUN)
    unseen = store.run_path("run").rename(tmp_path / "unseen")
    assert prune(tmp_path, []) == []
    unseen.rename(store.run_path("run"))
    with store.locked("run") as hold:
        assert hold.had_record


def test_what_prune_removed_is_trained_under_a_new_lease(store: RunStore) -> None:
    with store.locked("current"):
        pass
    assert [entry.fingerprint for entry in prune(store.folder, entries(store.folder)[-1:])] != []
    with store.locked("current") as hold:
        assert hold.lease.is_ours()


def test_a_store_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = RunStore(tmp_path / "file")
    with pytest.raises(RecordError, match=f"cannot write to the store {tmp_path / 'file'}: .*\n  remedy: store=DIR"):
        store.check()
    with pytest.raises(RecordError, match="cannot write to the store"), store.locked("run"):
        pass


def test_what_is_worked_out_again_is_no_run_and_goes_with_what_is_pruned(store: RunStore) -> None:
    names = {entry.fingerprint for entry in entries(store.folder)}
    for kind in FOLDERS:
        Memory(store.folder, kind).keep("key", b"content")
    assert {entry.fingerprint for entry in entries(store.folder)} == names
    prune(store.folder, [])
    assert [Memory(store.folder, kind).find("key") for kind in FOLDERS] == [None, None]
    assert {entry.fingerprint for entry in entries(store.folder)} == names
