"""Pictures are drawn only where the store does not remember them, and are the same bytes either way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cnn_ablation import ablate
from cnn_ablation.analysis.tables import ablation_table
from cnn_ablation.config import StatsConfig
from cnn_ablation.report import drawing, pictures
from cnn_ablation.report.drawing import Drawing, picture
from cnn_ablation.report.study import report_study
from cnn_ablation.report.variance import variance_files
from cnn_ablation.runs.records import read_run, record_paths, write_run
from cnn_ablation.runs.run import run
from cnn_ablation.runs.store.memory import PICTURES, Memory
from cnn_ablation.study.metric import Metric

RUNS = pd.DataFrame(
    {
        "arm": ["baseline"] * 3 + ["train.batch_size=16"] * 3,
        "knob": [""] * 3 + ["train.batch_size"] * 3,
        "level": [""] * 3 + ["16"] * 3,
        "seed": [0, 1, 2] * 2,
        "status": "ok",
        "val_accuracy": [0.8, 0.81, 0.82, 0.83, 0.84, 0.86],
        "test_accuracy": [0.8, 0.81, 0.82, 0.83, 0.84, 0.86],
        "train_seconds": [1.0, 1.1, 1.2, 2.0, 2.1, 2.2],
        "train.batch_size": [8] * 3 + [16] * 3,
    }
)
CURVES = pd.DataFrame({"arm": "baseline", "seed": 0, "epoch": [1, 2], "val_accuracy": [0.5, 0.6]})
CONFUSED = {"test": np.array([[3.0, 1.0], [0.0, 4.0]])}


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    (tmp_path / "store").mkdir()
    return Memory(tmp_path / "store", PICTURES)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that were really drawn."""
    names = list[str]()
    draw = drawing._drawn

    def noted(what: Drawing, name: str) -> dict[str, bytes]:
        names.append(name)
        return draw(what, name)

    monkeypatch.setattr(drawing, "_drawn", noted)
    return names


def all_files(memory: Memory | None, runs: pd.DataFrame = RUNS) -> dict[str, bytes]:
    variance = pd.DataFrame({"source": ["init"], "n": [3], "share": [1.0], "share_ci_low": [0.5]})
    variance = variance.assign(share_ci_high=1.0, note="", **dict.fromkeys(["std_pp", "std_ci_low_pp"], 1.0))
    variance = variance.assign(std_ci_high_pp=2.0)
    arms = ablation_table(runs)
    return (
        pictures.picture_files(runs, arms, CURVES, StatsConfig(), memory)
        | pictures.confusion_files(CONFUSED, ["cat", "dog"], memory)
        | variance_files(variance, Metric("test_accuracy"), memory)
    )


def test_a_picture_that_is_remembered_has_the_bytes_of_one_that_is_drawn(memory: Memory, drawn: list[str]) -> None:
    fresh = all_files(None)
    assert all_files(memory) == fresh
    drawn.clear()
    assert all_files(memory) == fresh
    assert drawn == []


def laid_out_for_each_file(what: Drawing) -> dict[str, bytes]:
    """The slow twin: a whole drawing to lay it out, and a placeholder for which every file is drawn twice."""
    figure = Figure(figsize=what.inches, layout="constrained")
    what.draw(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return {suffix: drawing.rendered(figure, suffix) for suffix in drawing.FORMATS}


def test_a_picture_is_laid_out_once_and_drawn_once_for_each_file(monkeypatch: pytest.MonkeyPatch) -> None:
    found = pictures.drawings(RUNS, ablation_table(RUNS), CURVES, StatsConfig())
    found = {name: found[name] for name in ("accuracy_against_time", "learning_curves")}
    slowly = {name: laid_out_for_each_file(what) for name, what in found.items()}
    drawn, draw = list[Figure](), Figure.draw

    def noted(self: Figure, renderer: object) -> None:
        drawn.append(self)
        draw(self, renderer)

    monkeypatch.setattr(Figure, "draw", noted)
    for name, what in found.items():
        files = picture(what, name, None)
        assert {suffix: files[f"{name}.{suffix}"] for suffix in drawing.FORMATS} == slowly[name]
    assert len(drawn) == len(found) * len(drawing.FORMATS)


SHOWN: dict[str, Callable[[], tuple[Any, ...]]] = {
    "a last bit": lambda: (RUNS.assign(train_seconds=np.nextafter(RUNS["train_seconds"], 9)),),
    "a name": lambda: (RUNS.replace("baseline", "base line"),),
    "a kind": lambda: (RUNS.astype({"seed": float}),),
    "an attribute": lambda: (_with_attribute(RUNS, np.arange(2000)),),
    "a late entry of an attribute": lambda: (_with_attribute(RUNS, np.r_[np.arange(1999), 0]),),
    "an array": lambda: (np.ones((2, 2)),),
    "another array": lambda: (np.array([[1.0, 1.0], [1.0, 0.9]]),),
    "an option": lambda: (RUNS, {"column": "val_loss"}),
    "a series": lambda: (RUNS["seed"],),
    "another series": lambda: (RUNS["seed"] + 1,),
}


@pytest.mark.filterwarnings("error")
def test_a_letter_that_the_font_lacks_is_drawn_as_a_box_without_a_word() -> None:
    shown = Drawing(lambda figure: figure.suptitle("\N{CAT}"), (2, 1), ())
    assert set(picture(shown, "cat", None)) == {"cat.png", "cat.svg"}


def _with_attribute(frame: pd.DataFrame, value: Any) -> pd.DataFrame:
    found = frame.copy()
    found.attrs["looks"] = {"seeds": value}
    return found


def test_whatever_a_picture_shows_tells_it_from_others(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Drawing]] = [
        ("plain", Drawing(lambda figure: None, (8, 4), (RUNS,))),
        ("plain", Drawing(lambda figure: None, (8, 5), (RUNS,))),
        *(("plain", Drawing(lambda figure: None, (8, 4), make())) for make in SHOWN.values()),
        ("named", Drawing(lambda figure: None, (8, 4), (RUNS,))),
    ]
    for number, (name, each) in enumerate([*told, *told]):
        content = {f"{name}.png": b"%d" % (number % len(told)), f"{name}.svg": b""}
        monkeypatch.setattr(drawing, "_drawn", lambda what, name, content=content: content)
        assert picture(each, name, memory) == content


def test_what_is_remembered_does_not_wait_for_the_disk(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(_: int) -> None:
        raise OSError("this disk never answers")

    monkeypatch.setattr(os, "fsync", waits)
    memory.keep("key", b"content")
    assert memory.find("key") == b"content"
    (memory._folder / "key").write_bytes(
        (memory._folder / "key").read_bytes()[:-1]
    )  # torn, as a machine that stops may
    assert memory.find("key") is None


@pytest.mark.parametrize("of", ["code_version", "versions"])
def test_another_version_draws_again(
    of: str, memory: Memory, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures.confusion_files(CONFUSED, ["cat", "dog"], memory)
    drawing._version.cache_clear()
    monkeypatch.setattr(drawing.provenance, of, lambda _: "another")
    pictures.confusion_files(CONFUSED, ["cat", "dog"], memory)
    drawing._version.cache_clear()
    assert drawn == ["confusion", "confusion"]


def test_a_style_of_ones_own_is_drawn(
    memory: Memory, drawn: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = pictures.confusion_files(CONFUSED, ["cat", "dog"], memory)
    with mpl.rc_context({"font.size": 20}):
        assert pictures.confusion_files(CONFUSED, ["cat", "dog"], memory) != usual
    assert pictures.confusion_files(CONFUSED, ["cat", "dog"], memory) == usual
    assert drawn == ["confusion", "confusion"]
    monkeypatch.delitem(sys.modules, "matplotlib")
    monkeypatch.chdir(tmp_path)
    assert drawing._is_drawn_as_installed()
    (tmp_path / "matplotlibrc").write_text("font.size: 20\n")
    assert not drawing._is_drawn_as_installed()


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def study(tiny_config: Any, tmp_path: Path) -> Path:
    """A study's folder with a knob and two seeds."""
    ablate(replace(tiny_config, timing="isolated"), {"train.batch_size": [8]}, tmp_path / "study")
    return tmp_path / "study"


def test_a_report_is_rebuilt_from_what_is_remembered(study: Path, drawn: list[str]) -> None:
    before = written(study)
    (study / "differences.png").unlink()
    (study / "confusion.svg").write_text("damaged")
    report_study(study)
    assert written(study) == before
    assert drawn == []


def test_another_option_and_another_run_are_drawn(study: Path, drawn: list[str]) -> None:
    report_study(study, overrides={"margin_pp": 2.0})
    assert set(drawn) >= {"differences"}
    assert "learning_curves" not in drawn
    drawn.clear()
    path = record_paths(study)[0]
    write_run(path, replace(read_run(path), test_accuracy=0.123))
    report_study(study)
    assert set(drawn) >= {"differences", "accuracy_against_time"}


def test_a_report_of_known_pictures_imports_no_matplotlib(study: Path) -> None:
    program = f"import sys\nfrom cnn_ablation.report.study import report_study\nreport_study({str(study)!r})\n"
    program += "print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_run_alone_leaves_no_pictures_in_the_store(tiny_config: Any, tmp_path: Path) -> None:
    run(replace(tiny_config, replicates=1), tmp_path / "a")
    assert not (Path(tiny_config.store) / PICTURES).exists()
