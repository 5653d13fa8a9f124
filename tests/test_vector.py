"""A picture inside a page: scales, takes the page's colours, says what its points are, and is no other picture's."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from drawn_studies import SHAPES, Shape, arms_of, curves_of, runs_of

from cnn_ablation.analysis.tables import ablation_table
from cnn_ablation.config import StatsConfig
from cnn_ablation.report.drawing import Drawing
from cnn_ablation.report.figures.colours import VARIABLES
from cnn_ablation.report.pictures import confusion_drawing, drawings
from cnn_ablation.report.vector import inline
from cnn_ablation.runs.store.memory import PICTURES, Memory

SVG = "{http://www.w3.org/2000/svg}"
ARM = 'model.name=<b id="x">&'
RUNS = pd.DataFrame(
    {
        "arm": ["baseline"] * 3 + [ARM] * 3,
        "knob": [""] * 3 + ["model.name"] * 3,
        "level": [""] * 3 + [ARM.partition("=")[2]] * 3,
        "seed": [0, 1, 2] * 2,
        "status": "ok",
        "val_accuracy": 0.5,
        "test_accuracy": [0.80, 0.81, 0.82, 0.84, 0.86, 0.85],
        "train_seconds": [1.0, 1.1, 1.2, 2.0, 2.1, 2.2],
    }
)
CURVES = pd.DataFrame({"arm": ["baseline", ARM] * 2, "seed": [0, 0, 1, 1], "epoch": 1, "val_accuracy": [0.5, 0.6] * 2})


def all_drawings() -> dict[str, Drawing]:
    confusion = confusion_drawing({"test": pd.DataFrame([[3.0, 1.0], [0.0, 4.0]]).to_numpy()}, ["a", "b"], arm=ARM)
    assert confusion is not None
    return {**drawings(RUNS, ablation_table(RUNS), CURVES, StatsConfig()), "confusion": confusion}


NAMES = sorted(all_drawings())


@cache
def page(name: str) -> str:
    return inline(all_drawings()[name], name)


@pytest.fixture(params=NAMES)
def named(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param, page(request.param)


def test_it_is_one_element_that_scales_and_has_a_name(named: tuple[str, str]) -> None:
    name, text = named
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.attrib.keys() == {"role", "aria-label", "viewBox", "style"}
    assert root.attrib["role"] == "img"
    assert len(root.attrib["aria-label"]) > len(name) + 10
    assert root.attrib["viewBox"].startswith("0 0 576 ")
    assert "max-width: 8in" in root.attrib["style"]


def test_text_is_text(named: tuple[str, str]) -> None:
    root = ElementTree.fromstring(named[1])
    words = " ".join(element.text or "" for element in root.iter(f"{SVG}text"))
    wanted = {"confusion": "test images", "differences": "margin ±0.5 pp"}.get(named[0], ARM)
    assert wanted in words


def test_colours_are_the_pages(named: tuple[str, str]) -> None:
    tags = "".join(re.findall(r"<[^>]*>", named[1]))
    fallbacks = dict(re.findall(r"var\(--([\w-]+), (#\w{6})\)", tags))
    assert {VARIABLES[colour] for colour in fallbacks.values()} == set(fallbacks)
    assert "ink" in fallbacks
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", re.sub(r"var\([^)]*\)", "", tags))) <= {"#fefefe"}


def test_nothing_in_it_reaches_the_page_around(named: tuple[str, str]) -> None:
    name, text = named
    assert "<style" not in text
    ids = re.findall(r'<[^>]* id="([^"]*)"', text)
    assert all(each.startswith(f"{name}-") for each in ids)
    assert len(ids) == len(set(ids))
    assert {each[1:] for each in re.findall(r'(?:href="|url\()(#[^")]+)', text)} == set(ids)


def test_two_pictures_of_one_drawing_share_no_id() -> None:
    drawing = all_drawings()["differences"]
    first, other = (set(re.findall(r'<[^>]* id="([^"]*)"', inline(drawing, name))) for name in ("one", "two"))
    assert first
    assert not first & other


def titles(text: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(text).iter(f"{SVG}title")]


def test_every_seed_and_every_mean_says_what_it_is() -> None:
    found = titles(page("differences"))
    seeds = [("0", "+4.00"), ("1", "+5.00"), ("2", "+3.00")]  # by hand: 84 - 80, 86 - 81, 85 - 82
    assert found[:3] == [f"{ARM}, seed {seed}: {value} pp" for seed, value in seeds]
    assert re.fullmatch(re.escape(ARM) + r": \+4\.00 pp \[\+1\.52, \+6\.48\], better", found[3])
    assert len(found) == 4


def test_seeds_against_time_say_their_time_too() -> None:
    found = titles(page("accuracy_against_time"))
    assert f"{ARM}, seed 1: 86.00 % in 2.1 s" in found
    assert len(found) == 8


def test_curves_say_their_epochs() -> None:
    assert titles(page("learning_curves")) == ["baseline, epoch 1: 50", f"{ARM}, epoch 1: 60"]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.kind in ("wild", "failed") and shape.arms < 40],
                         ids=lambda shape: shape.name)  # fmt: skip
def test_marks_that_are_cut_off_are_not_mistaken_for_others(shape: Shape) -> None:
    """What is titled has to be on the canvas, or titles and marks would go out of step, which `inline` refuses."""
    for name, drawing in drawings(runs_of(shape), arms_of(shape), curves_of(shape), shape.settings).items():
        assert ElementTree.fromstring(inline(drawing, name)).tag == f"{SVG}svg"


def test_cells_say_which_class_was_taken_for_which() -> None:
    found = titles(page("confusion"))
    assert found == [
        "a taken for a: 75.0 %, 3 images", "a taken for b: 25.0 %, 1 images", "b taken for b: 100.0 %, 4 images",
    ]  # fmt: skip


def test_it_is_the_same_every_time_and_remembered(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    memory, drawing = Memory(tmp_path / "store", PICTURES), all_drawings()["differences"]
    fresh = page("differences")
    assert inline(drawing, "differences", memory) == fresh
    known = Drawing(None, drawing.inches, drawing.shows, drawing.title)  # type: ignore[arg-type]
    assert inline(known, "differences", memory) == fresh


def test_one_that_is_remembered_imports_no_matplotlib(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    program = (
        "import sys; from pathlib import Path; from cnn_ablation.report.drawing import Drawing\n"
        "from cnn_ablation.report.vector import inline; from cnn_ablation.runs.store.memory import PICTURES, Memory\n"
        f"memory = Memory(Path({str(tmp_path / 'store')!r}), PICTURES)\n"
        "text = inline(Drawing(lambda figure: figure.add_subplot(), (4, 3), ()), 'x', memory)\n"
        "print('matplotlib' in sys.modules, len(text) > 500)"
    )
    answers = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
               for _ in range(2)]  # fmt: skip
    assert answers == ["True True\n", "False True\n"]
