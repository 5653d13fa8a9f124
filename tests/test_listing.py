"""`python -m cnn_ablation.report multirun`: the studies below a folder."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from conftest import without_pictures
from finished_studies import PROVENANCE, write_study

from cnn_ablation.report.__main__ import main as report
from cnn_ablation.report.listing import studies_below
from cnn_ablation.report.study import report_study
from cnn_ablation.runs.records import record_path

NAN = math.nan


def at(moment: str, **others: object) -> dict[str, object]:
    return {"provenance": {**PROVENANCE, "time": moment}, **others}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four studies at several depths, one of them never reported, one damaged, one unfinished."""
    root = tmp_path_factory.mktemp("multirun")
    scores = {"baseline": [0.9, 0.91, 0.905], "k=1": [0.95, 0.96, 0.956], "k=2": [0.9, 0.93, NAN]}
    write_study(root / "2026-11-20" / "10-00-00", scores, of_plan=at("2026-11-20T10:00:00+0000"))
    with without_pictures():
        report_study(root / "2026-11-20" / "10-00-00")
    write_study(root / "later", {"baseline": [0.9]}, of_plan=at("2026-11-21T10:00:00+0000"))
    many = {f"k{number}=1": [0.9, 0.91] for number in range(6)}
    write_study(root / "a" / "b" / "c", {"baseline": [0.9, 0.91], **many}, of_plan=at("2026-11-19T10:00:00+0000"))
    record_path(root / "a" / "b" / "c" / "0", 1).unlink()
    (root / "damaged").mkdir()
    (root / "damaged" / "study.yaml").write_text("design: [")
    write_study(root / ".ablation_runs" / "hidden", {"baseline": [0.9]})
    (root / "empty").mkdir()
    return root


def test_studies_are_listed_newest_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = studies_below(folder)
    assert [(each.folder.relative_to(folder).as_posix(), each.moment) for each in found] == [
        ("later", "2026-11-21 10:00"), ("2026-11-20/10-00-00", "2026-11-20 10:00"), ("a/b/c", "2026-11-19 10:00"),
        ("damaged", ""),
    ]  # fmt: skip
    assert [each.title for each in found] == [
        "single configuration", "k", "k0, k1, k2, k3 and 2 more", "study.yaml is damaged",
    ]  # fmt: skip
    assert [(each.arms, each.runs, each.failed) for each in found] == [
        ("1", "1/1", ""), ("3", "9/9", "1"), ("7", "13/14", ""), ("", "", ""),
    ]  # fmt: skip
    assert [each.verdicts for each in found] == ["no table yet", "1 better, 1 undecided", "no table yet", ""]


@pytest.mark.usefixtures("undrawn")
def test_arms_that_are_not_compared_are_not_undecided(tmp_path: Path) -> None:
    """Runs that are the baseline's, and an arm whose every run failed."""
    scores = [0.9, 0.91, 0.905]
    write_study(tmp_path / "one", {"baseline": scores, "k=1": scores, "k=2": [NAN] * 3, "k=3": [0.9, 0.93, 0.89]})
    report_study(tmp_path / "one")
    assert [each.verdicts for each in studies_below(tmp_path)] == ["1 undecided, 2 not compared"]


def test_the_list_is_printed_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # which some that run tests side by side set
    before = sorted(folder.rglob("*"))
    assert report([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["date", "study", "arms", "runs", "failed", "verdicts", "folder"]
    (line,) = [line for line in lines if "2026-11-20 10:00" in line]
    assert "9/9" in line
    assert "1 better" in line
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty"], "is no study: there is no study.yaml in it, nor in a folder below it\n  remedy: the folder of a"),
        (["", "--open"], "is no study: it holds 4 of them, and --open is of one\n  remedy: the folder of one of them"),
        (["", "--margin-pp", "1", "--out", "x"], "it holds 4 of them, and --out, --margin-pp is of one"),
        (["later/0"], "later holds one; give that folder"),
        (["nowhere"], "nowhere is no study: it is not there"),
    ],
    ids=["an empty folder", "open", "settings", "a job's folder", "no folder"],
)
def test_what_no_list_can_do_is_refused(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report([str(folder / arguments[0]), *arguments[1:]]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) <= 10
    assert printed.out == ""
