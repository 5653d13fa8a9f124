from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnn_ablation.runs import provenance
from cnn_ablation.runs.records import Run
from cnn_ablation.runs.store import RunStore
from cnn_ablation.runs.store.entries import entries, prune
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
    (store.folder / "training" / "host").mkdir(parents=True)
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
    assert b"another process is training this run" in waiter.stderr.readline()
    assert waiter.poll() is None
    holder.kill()
    assert waiter.wait(timeout=30) == 0
    holder.communicate()
    waiter.stderr.close()
