"""The files of a report are of one time: on a full disk, and where one of them cannot be replaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from finished_studies import write_study

import cnn_ablation
from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.files import write_together
from cnn_ablation.launch import execution
from cnn_ablation.report.__main__ import main as report
from cnn_ablation.report.findings import Findings
from cnn_ablation.study.plans import Plan, write_plan
from cnn_ablation.tasks.image_classification.config import Config

resource = pytest.importorskip("resource")


@contextmanager
def full_beyond(size: int) -> Iterator[None]:
    """A limit on file sizes stands in for the full disk: writing fails in the same places, as an OSError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_files_that_belong_together_are_all_new(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    write_together({tmp_path / "a": b"new", tmp_path / "below" / "b": b"new too"})
    assert content(tmp_path) == {"a": b"new"}
    assert content(tmp_path / "below") == {"b": b"new too"}


@pytest.mark.parametrize("there", [True, False], ids=["others before", "none before"])
def test_on_a_full_disk_none_is_new(tmp_path: Path, there: bool) -> None:
    before = {"a": b"old", "c": b"older"} if there else {}
    for name, text in before.items():
        (tmp_path / name).write_bytes(text)
    with full_beyond(100), pytest.raises(RecordError) as refused:
        write_together({tmp_path / "a": b"new", tmp_path / "b": b"x" * 101, tmp_path / "c": b"new"})
    said = f"cannot write {tmp_path / 'b'}: File too large"
    assert str(refused.value) == (f"{said}\n  as they were before: a, c" if there else said)
    assert content(tmp_path) == before


def test_one_that_cannot_be_replaced_is_named_with_those_behind_it(tmp_path: Path) -> None:
    for name in ("a", "c"):
        (tmp_path / name).write_bytes(b"old")
    (tmp_path / "b").mkdir()
    with pytest.raises(RecordError) as refused:
        write_together({tmp_path / name: b"new" for name in "abcd"})
    assert str(refused.value) == f"cannot write {tmp_path / 'b'}: Is a directory\n  as they were before: b, c"
    assert content(tmp_path) == {"a": b"new", "c": b"old"}


def page_of(found: Findings) -> dict[str, bytes]:
    """A page that takes no two seconds to draw."""
    return {"report.html": found.arms.to_csv().encode() + b" " * 50_000}


def test_a_report_on_a_full_disk_leaves_the_earlier_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page does not fit; the tables would. The new table is on the screen."""
    monkeypatch.chdir(tmp_path)
    for name in ("picture_files", "confusion_files"):
        monkeypatch.setattr(f"cnn_ablation.report.study.{name}", lambda *_, **__: {})
    monkeypatch.setattr("cnn_ablation.report.page.files", page_of)
    scores = {"baseline": [0.90, 0.91, 0.89], "k=2": [0.93, 0.92, 0.95]}
    write_study(tmp_path / "study", scores)
    with full_beyond(50_000):
        assert report(["study"]) == 2
    assert "cannot write study/report.html: File too large" in capsys.readouterr().err
    assert set(content(tmp_path / "study")) == {"study.yaml"}
    assert report(["study"]) == 0
    before = content(tmp_path / "study")
    assert {"report.html", "ablation.csv"} <= set(before)
    assert len(before["report.html"]) > 50_000 > max(len(before[name]) for name in ("runs.parquet", "ablation.parquet"))
    capsys.readouterr()
    write_study(tmp_path / "study", {**scores, "k=2": [0.53, 0.52, 0.55]})
    with full_beyond(50_000):
        assert report(["study"]) == 2
    printed = capsys.readouterr()
    message, older = printed.err.splitlines()
    assert message == "cannot write study/report.html: File too large"
    assert set(older.removeprefix("  as they were before: ").split(", ")) == set(before) - {"study.yaml"}
    assert "-36.67" in printed.out
    assert {name: text for name, text in content(tmp_path / "study").items() if name != "study.yaml"} == {
        name: text for name, text in before.items() if name != "study.yaml"
    }


@pytest.mark.usefixtures("undrawn")
def test_a_disk_that_is_full_at_the_end_of_a_study_leaves_the_table_on_the_screen(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its last file but the report's own is the plan, once more."""
    left = [write_plan]

    def until_full(folder: Path, plan: Plan) -> None:
        if not left:
            raise RecordError("cannot write study.yaml: No space left on device")
        left.pop()(folder, plan)

    monkeypatch.setattr(execution, "write_plan", until_full)
    with pytest.raises(RecordError, match="No space left on device"):
        cnn_ablation.ablate(replace(tiny_config, timing="isolated"), {"model.dropout": [0.5]}, tmp_path / "study")
    printed = capsys.readouterr()
    assert "model.dropout=0.5" in printed.out.partition("difference")[2]
    assert "stopped after 4 of 4 runs; the same command goes on from there" in " ".join(printed.err.split())
