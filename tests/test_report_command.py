"""`python -m cnn_ablation.report` on wrong input (one message, exit code 2, nothing half written) and any console."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cnn_ablation.analysis.tables import ablation_table
from cnn_ablation.config import StatsConfig
from cnn_ablation.report.__main__ import main as report
from cnn_ablation.report.caption import caption
from cnn_ablation.report.files import write_tables
from cnn_ablation.report.pictures import write_pictures
from cnn_ablation.report.runs_file import read_runs_file
from cnn_ablation.report.terminal import print_table
from cnn_ablation.report.text import readable_table
from cnn_ablation.runs.records import Run, record_path, write_run
from cnn_ablation.runs.task import Chance
from cnn_ablation.study.designs import Arm
from cnn_ablation.study.plans import Plan, write_plan

SCORES = {"baseline": [0.90, 0.91, 0.89], "k=None": [0.93, 0.92, 0.95]}


def runs(**columns: object) -> pd.DataFrame:
    rows = [
        {"arm": arm, "knob": arm.partition("=")[0] if "=" in arm else "", "level": arm.partition("=")[2], "seed": seed,
         "status": "ok", "val_accuracy": score - 0.01, "test_accuracy": score, "train_seconds": 10.0 + seed}
        for arm, scores in SCORES.items()
        for seed, score in enumerate(scores)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**columns)


def write_study(folder: Path, **baseline: object) -> None:
    names = list(SCORES)
    settings = {"train.epochs": 1, "train.scale": 1.0} | baseline
    write_plan(folder, Plan("one_at_a_time", {}, [], [Arm(name) for name in names], [0, 1, 2], settings))
    for number, arm in enumerate(names):
        for seed, score in enumerate(SCORES[arm]):
            run = Run(arm, "", "", seed, "ok", val_accuracy=score, test_accuracy=score, train_seconds=1.0)
            write_run(record_path(folder / str(number), seed), run)


def as_csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


def as_parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("x.csv", lambda: b"", "x.csv cannot be read as a table of runs (No columns to parse from file)"),
    "binary": ("x.csv", lambda: bytes(range(256)) * 8, "x.csv cannot be read as a table of runs ("),
    "a picture": ("x.csv", lambda: b"\x89PNG\r\n\x1a\n\x00\x00", "x.csv cannot be read as a table of runs ("),
    "no zip": ("x.csv.zip", lambda: b"no zip", "x.csv.zip cannot be read as a table of runs (File is not a zip file)"),
    "no gzip": ("x.csv.gz", lambda: b"no gzip", "x.csv.gz cannot be read as a table of runs (Not a gzipped file"),
    "short gzip": ("x.csv.gz", lambda: b"\x1f\x8b\x08\x00\x00", "x.csv.gz cannot be read as a table of runs ("),
    "header alone": ("x.csv", lambda: as_csv(runs()[:0]), "the table of runs has no rows"),
    "other columns": ("x.csv", lambda: b"a,b\n1,2\n", "the table of runs lacks the columns arm, knob"),
    "semicolons": ("x.csv", lambda: as_csv(runs()).replace(b",", b";"), "the table of runs lacks the columns arm"),
    "longer lines": ("x.csv", lambda: as_csv(runs()).replace(b",ok,", b",ok,0.5,"), "(Length of header or names does"),
    "percent": (
        "x.csv",
        lambda: as_csv(runs(test_accuracy=100 * runs()["test_accuracy"])),
        "arm 'baseline', seed 0: test_accuracy is 90; a fraction in 0..1 is wanted (and 5 more runs)\n"
        "  remedy: accuracies are fractions; divide percentages by 100",
    ),
    "one of 1.7": ("x.csv", lambda: as_csv(runs()).replace(b",0.93,", b",1.7,"), "seed 0: test_accuracy is 1.7;"),
    "text among numbers": (
        "x.csv",
        lambda: as_csv(runs()).replace(b",0.93,", b",high,"),
        "'k=None', seed 0: test_accuracy is 'high'; a number",
    ),
    "text in seconds": (
        "x.csv",
        lambda: as_csv(runs()).replace(b",12.0", b",12 s"),
        "'baseline', seed 2: train_seconds is '12 s'",
    ),
    "a status of its own": ("x.csv", lambda: as_csv(runs(status="OK")), "seed 0: status is 'OK'; one of ok, diverged"),
    "no baseline": ("x.csv", lambda: as_csv(runs()[3:]), "no finished run of the arm 'baseline'"),
    "no Parquet": ("x.parquet", lambda: b"no parquet", "x.parquet cannot be read as a table of runs ("),
    "half a Parquet": ("x.parquet", lambda: as_parquet(runs())[:900], "x.parquet cannot be read as a table of runs ("),
    "damaged Parquet": (
        "x.parquet",
        lambda: as_parquet(runs())[:60] + b"\xff" * 60 + as_parquet(runs())[120:],
        "x.parquet cannot be read as a table of runs (",
    ),
    "percent in Parquet": ("x.parquet", lambda: as_parquet(runs(val_accuracy=90)), "val_accuracy is 90"),
    "complex column": ("x.parquet", lambda: as_parquet(runs(train_seconds=[b"1"] * 6)), "train_seconds is b'1'"),
}


@pytest.mark.parametrize(("name", "content", "message"), FILES.values(), ids=FILES)
def test_a_file_that_holds_no_table_of_runs_leaves_nothing(
    name: str, content: Callable[[], bytes], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content())
    assert report(["--runs", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) <= 10
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


def file_as_out(folder: Path) -> list[str]:
    (folder / "taken").write_text("mine")
    return ["--runs", "runs.csv", "--out", "taken"]


def below_a_file(folder: Path) -> list[str]:
    (folder / "taken").write_text("mine")
    return ["--runs", "runs.csv", "--out", "taken/below"]


def folder_as_table(folder: Path) -> list[str]:
    (folder / "out" / "differences.svg").mkdir(parents=True)
    return ["--runs", "runs.csv", "--out", "out"]


def empty_folder(folder: Path) -> list[str]:
    (folder / "empty").mkdir()
    return ["empty"]


def scale_as_text(folder: Path) -> list[str]:
    text = (folder / "study" / "study.yaml").read_text()
    (folder / "study" / "study.yaml").write_text(text.replace("train.scale: 1.0", "train.scale: half"))
    return ["study", "--out", "out"]


def unknown_paper(folder: Path) -> list[str]:
    text = (folder / "study" / "study.yaml").read_text()
    (folder / "study" / "study.yaml").write_text(text.replace("train.scale: 1.0", "paper: ../eq2425"))
    return ["study", "--out", "out"]


PLACES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "a text file": (
        lambda folder: ["runs.csv"],
        "runs.csv is a file; a study's folder is wanted\n  remedy: the folder",
    ),
    "a folder without a study": (
        empty_folder,
        "empty is no study: there is no study.yaml in it, nor in a folder below",
    ),
    "a job's folder": (lambda folder: ["study/0"], "study/0 is no study: there is no study.yaml in it\n  remedy: "),
    "a folder as a table": (lambda folder: ["--runs", "study", "--out", "out"], "study cannot be read as a table"),
    "a file as out": (file_as_out, "cannot write to taken: "),
    "out of a study is a file": (lambda folder: ["study", *file_as_out(folder)[2:]], "cannot write to taken: "),
    "out below a file": (below_a_file, "taken is a file\n  remedy: the name of a folder"),
    "a folder with a table's name": (folder_as_table, "cannot write out/differences.svg: Is a directory"),
    "an out that no system has": (
        lambda folder: ["study", "--out", "a\0b"],
        "cannot write to 'a\\x00b': no folder has",
    ),
    "a scale of words": (scale_as_text, "study.yaml is damaged or unreadable (baseline: train.scale: 'half')"),
    "a paper that is not there": (unknown_paper, "paper=../eq2425\n  allowed: eq2425, "),
}


@pytest.mark.parametrize(("arguments", "message"), PLACES.values(), ids=PLACES)
def test_a_wrong_place_is_named_and_nothing_is_written(
    arguments: Callable[[Path], list[str]],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "study")
    (tmp_path / "runs.csv").write_bytes(as_csv(runs()))
    typed = arguments(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert report(typed) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) <= 10
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--alpha", "5"], "--alpha 5.0: allowed is above 0 and below 0.5"),
        (["--alpha", "nan"], "--alpha nan: allowed is a finite number, above 0 and below 0.5"),
        (["--margin-pp", "-1"], "--margin-pp -1.0: allowed is above 0"),
    ],
    ids=["alpha", "nan", "margin"],
)
def test_the_options_have_the_bounds_of_the_keys(
    option: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        report(["study", *option])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_console_that_lacks_characters_shows_the_table_all_the_same(tmp_path: Path) -> None:
    """The locale C, in which Python would also read and write ASCII."""
    write_study(tmp_path / "study")
    command = [sys.executable, "-m", "cnn_ablation.report", "study", "--out", "größe"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHONIO", "PYTHONUTF8"))}
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, cwd=tmp_path, env=kept | plain, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    printed = done.stdout.decode("ascii")
    assert "inside ?0.5 percentage points" in " ".join(printed.split())
    assert "written to gr" in printed
    assert "±0.5" in next(tmp_path.glob("gr*/ablation.md")).read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_table_is_printed_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the end of a study in Python, where no command line has prepared standard output."""
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    frame = runs(arm=["baseline"] * 3 + ["grösse=π"] * 3)
    arms = ablation_table(frame)
    print_table(arms, caption(frame, arms, StatsConfig()))
    screen.flush()
    printed = screen.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert ("gr?sse=?" if encoding == "ascii" else "grösse=?") in printed


# -- captions that claim no more than was done -----------------------------------------------------------------------


def caption_of(frame: pd.DataFrame, **how: object) -> str:
    settings = StatsConfig()
    return caption(frame, ablation_table(frame), settings, **how)  # type: ignore[arg-type]


@pytest.mark.usefixtures("undrawn")
def test_a_table_of_runs_alone_does_not_say_how_its_arms_were_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be that of a greedy study, whose arms were not fixed before the first run. Shown on a console of ASCII."""
    (tmp_path / "runs.csv").write_bytes(as_csv(runs()))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert report(["--runs", str(tmp_path / "runs.csv"), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert "All arms were fixed before the first run" not in text
    assert "not in the split of data" not in text
    assert (
        "Made from a table of runs alone, which does not say what its seeds vary or how its arms were chosen." in text
    )


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ("", "All arms were fixed before the first run"),
        (
            "val_accuracy",
            "the level with the best mean validation accuracy was kept and the next knob tried on top; test ",
        ),
    ],
)
def test_a_study_says_how_its_arms_were_chosen(chosen: str, words: str) -> None:
    text = caption_of(runs(), choice=chosen, chance=Chance("differ in their weights, not in the split of data"))
    assert words in text
    assert "not in the split of data" in text


def test_the_caption_counts_the_comparisons_that_p_values_are_corrected_for() -> None:
    """Five arms: one really another, one without shared seeds, one failed, one dropped, one the baseline's twin."""
    losses = {"test_loss": [0.3, 0.31, 0.33]}
    base, other = runs()[:3].assign(**losses), runs()[3:].assign(test_loss=[0.2, 0.21, 0.22])
    apart = other.assign(arm="k=2", seed=[7, 8, 9], test_loss=[0.11, 0.12, 0.13])
    failed = other.assign(arm="k=3", status="failed", test_accuracy=np.nan, test_loss=np.nan)
    dropped = other.assign(arm="k=4", test_accuracy=np.nan, test_loss=np.nan)
    frame = pd.concat([base, other, apart, failed, dropped, base.assign(arm="k=5")])
    arms = ablation_table(frame).set_index("arm")
    assert "Holm's correction over 3 comparisons at 0.05" in caption_of(frame)
    assert arms["p_holm"]["k=None"] == pytest.approx(3 * arms["p_value"]["k=None"])


def test_without_an_interval_or_a_test_the_caption_claims_none() -> None:
    frame = runs()[lambda table: table["seed"] == 0]
    text = caption_of(frame)
    assert "one seed for each arm: there is no interval." in text
    assert "t interval over seeds" not in text
    assert "With these seeds no test is possible" in text
    assert "Equivalent means" not in text
    assert "More seeds" not in text
    assert "Any false" not in text


@pytest.mark.parametrize(
    ("planned", "neighbours", "words"),
    [
        (1, 0.0, "measured with one run at a time."),
        (2, 0.9, "measured with 2 runs side by side."),
        (2, 0.2, "measured with 2 runs side by side."),  # the last run of all has less company
        (1, 0.9, "measured with one run at a time as far as each job knew, but with 1.9 in the mean on their machine."),
        (2, 3.0, "with 2 runs side by side as far as each job knew, but with 4.0 in the mean on their machine."),
        (1, np.nan, "measured with one run at a time."),
    ],
)
def test_the_caption_says_what_really_ran_beside_runs(planned: int, neighbours: float, words: str) -> None:
    """Jobs of an engine that share a machine do not know of each other; the store does."""
    assert words in caption_of(runs(status="ok", train_seconds=1.0, concurrent_runs=planned, neighbours=neighbours))


def test_the_caption_counts_a_run_once_and_reads_switches_as_written() -> None:
    frame = runs(reused=["True", "False", "False"] * 2, status="ok").replace({"True": True, "False": False})
    twice = pd.concat([frame[3:4].assign(status="failed", test_accuracy=np.nan), frame])
    text = caption_of(twice)
    assert "2 of 6 runs were reused" in text
    assert "failed" not in text


def test_a_table_with_an_arm_called_full_beside_the_baseline_compares_with_the_baseline() -> None:
    frame = runs(arm=["baseline"] * 3 + ["full"] * 3)
    assert "Differences from the baseline are paired" in caption_of(frame)


# -- tables of runs and pictures ------------------------------------------------------------------------------------


def test_a_level_called_none_comes_back_from_the_file(tmp_path: Path) -> None:
    frame = runs(status="ok", train_loss=np.nan, error="")
    frame.loc[3:, "level"] = ["None", "null", "NA"]
    (tmp_path / "runs.csv").write_bytes(as_csv(frame))
    found = read_runs_file(tmp_path / "runs.csv")
    assert found["level"].tolist() == ["", "", "", "None", "null", "NA"]
    assert found["train_loss"].isna().all()
    assert found["error"].tolist() == [""] * 6


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "csv.zip", "csv.xz", "parquet"])
def test_a_table_of_runs_comes_back_from_any_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"runs.{suffix}"
    runs().to_parquet(path) if suffix == "parquet" else runs().to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_runs_file(str(path)), runs())


@pytest.mark.parametrize(
    "columns",
    [
        {"train_seconds": np.nan},
        {"arm": ["baseline"] * 3 + [r"k=$\bad$"] * 3, "level": [""] * 3 + [r"$\bad$"] * 3},
        {"arm": ["baseline"] * 3 + ["../k=2"] * 3, "knob": [""] * 3 + ["../k"] * 3, "level": [""] * 3 + ["2"] * 3,
         "../k": [1.0] * 3 + [2.0] * 3},
        {"arm": ["baseline"] * 3 + ["k=2"] * 3, "level": [""] * 3 + ["2"] * 3, "k": [np.nan] * 3 + [2.0] * 3},
        {name: [0.7, 0.8, 0.9] * 2 for name in ("test_loss", "val_accuracy", "test_accuracy")},
    ],
    ids=["no times", "a formula", "a path", "a level of null", "identical runs"],
)  # fmt: skip
def test_pictures_of_unusual_tables(columns: dict[str, object], tmp_path: Path) -> None:
    """Matplotlib warns of what it cannot place, and warnings are errors here."""
    frame = runs(**columns)
    written = write_pictures(tmp_path / "out", frame, ablation_table(frame), pd.DataFrame(), StatsConfig())
    assert {path.parent for path in written} == {tmp_path / "out"}
    assert ("accuracy_against_time" in {path.stem for path in written}) == ("train_seconds" not in columns)


@pytest.mark.parametrize(
    ("words", "low", "high", "verdict"),
    [
        ("7-22", 10.0, 25.0, "undecided"),
        ("22", 25.0, 25.0, "undecided"),
        ("cannot be said yet", 10.0, np.nan, "undecided"),
        (">997", 1000.0, 1000.0, "undecided"),
        ("", np.nan, np.nan, "undecided"),
        ("", 10.0, 25.0, "better"),
        ("1-4", 3.0, 7.0, "undecided"),
        ("", 2.0, 3.0, "undecided"),
    ],
    ids=["a range", "one number", "too wide", "beyond", "none", "decided", "more seeds than compared", "enough"],
)
def test_more_seeds_are_what_is_still_to_be_added(words: str, low: float, high: float, verdict: str) -> None:
    arms = ablation_table(runs()).assign(verdict=["baseline", verdict], seeds_needed_low=low, seeds_needed=high, n=3)
    assert readable_table(arms)["more seeds"].tolist() == ["", words]


def test_the_terminal_tells_more_seeds_in_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    for high, words in ((25.0, "more seeds: 7-22"), (np.nan, "more seeds: cannot be said yet")):
        print_table(ablation_table(runs()).assign(seeds_needed_low=10.0, seeds_needed=high), "")
        assert words in capsys.readouterr().out


@pytest.mark.parametrize("settings", [{}, {"metric": "val_loss"}, {"metric": "val_loss", "margin": 0.1}])
def test_the_caption_says_what_alpha_holds_for(settings: dict[str, Any]) -> None:
    frame = runs(val_loss=[0.5, 0.51, 0.49, 0.4, 0.52, 0.6])
    text = caption(frame, ablation_table(frame, **settings), StatsConfig(**settings))
    promise = "Any false better or worse in the table has a probability of at most 5 %"
    apart = ", and apart from them any false equivalent likewise" if settings != {"metric": "val_loss"} else ""
    assert f"{promise}{apart}." in text
    assert "More seeds is how many decide an arm in half and in 80 % of what these seeds leave possible" in text
    assert "It cannot be said yet beyond 1000 in all" in text


def test_a_column_of_several_types_keeps_its_gaps_in_parquet(tmp_path: Path) -> None:
    frame = runs().assign(key=pd.Series([1, "a", None, 1, "a", None], dtype=object))
    write_tables(tmp_path, frame, ablation_table(frame), "")
    found = pd.read_parquet(tmp_path / "runs.parquet")["key"]
    assert found.isna().tolist() == [False, False, True] * 2
    assert found.dropna().tolist() == ["1", "a"] * 2


@pytest.mark.parametrize(
    ("expected", "width"),
    [
        ("open 'a folder/of-a-study/report.html'", 20),
        ("""open 'it'"'"'s;a$b/report.html'""", 60),
        ("open plain/study-1/report.html", 120),
    ],
    ids=["a space", "signs of a shell", "plain"],
)
def test_the_last_line_names_the_page_as_a_shell_takes_it_and_no_name_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], expected: str, width: int
) -> None:
    folder = str(Path(shlex.split(expected)[1]).parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(width))
    write_study(Path(folder))
    assert report([folder]) == 0
    table, _, end = capsys.readouterr().out.partition("written to ")
    *files, last = end.splitlines()
    assert last == expected
    assert files[0].startswith(f"{folder}:")
    written = [name.strip() for name in "".join(files).partition(":")[2].split(",")]
    assert {"runs.csv .parquet", "ablation.csv .parquet .md .tex .html", "differences.png .svg"} <= set(written)
    assert [line for line in files if len(line) > width and "," in line.strip().rstrip(",")] == []
    assert "report.html" not in table
