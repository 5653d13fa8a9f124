"""Which outputs of notebooks tell the same as the stored ones. `notebooks/execute.py` runs them; nothing here does."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pandas as pd
import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
REMEDY = "What changed is meant? `python notebooks/execute.py --store` stores the fresh outputs.\n"

RUNS = """\
[1/2] baseline seed 0: 98.02 % validation accuracy, 0.8 s of training
[2/2] model.activation=leaky seed 0: 97.22 % validation accuracy, 0.9 s of training
"""
LOSSES = """\
[1/2] baseline seed 0: val_loss 0.4006, 0.1 s of training
[2/2] settings.trees=80 seed 0: val_loss 0.3829, 0.4 s of training
"""
PREDICTED = "241 of 252 validation images are predicted right\n"
PLAN = "one_at_a_time: 2 arms x 1 seeds (0) = 2 runs\n  baseline (model.activation=relu)\n  model.activation=leaky\n"
TABLE = """\
 ──────────────────────────────────────────────────────────────────────────────
 arm                               n test accuracy %  difference pp     p verdict   train s
 ──────────────────────────────────────────────────────────────────────────────
 baseline                          3           96.23                      baseline     0.80
 ──────────────────────────────────────────────────────────────────────────────
 model.activation=tanh             3           96.54          +0.31 1.000 undecided    0.92
 32 % saturated Tanh units in Activation3    [96.01, 97.07] [-1.43, +2.05]       +21 seeds   ×1.15
 ──────────────────────────────────────────────────────────────────────────────
"""
WIDE = """\
┏━━━━━━━━━━━━━━━━━━━━━━━┳━━━┳━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━┓
┃\x1b[1m arm             \x1b[0m┃ n ┃ test accuracy % ┃ difference pp ┃ p (Holm) ┃ verdict  ┃ train s ┃ time ratio ┃
┡━━━━━━━━━━━━━━━━━━━━━━━╇━━━╇━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━┩
│ baseline              │ 3 │           95.11 │               │          │ baseline │    1.80 │            │
│ model.activation=tanh │ 3 │           97.01 │         +1.90 │    0.020 │ better   │    1.92 │       1.07 │
└───────────────────────┴───┴─────────────────┴───────────────┴──────────┴──────────┴─────────┴────────────┘
"""
CAPTION = (
    "Top-1 test accuracy, mean and 95 % t interval over seeds (n = 3). Holm's correction over 3 comparisons at 0.05. "
    "More seeds is how many decide an arm in half and in 80 % of what these seeds leave possible. Times are those of "
    "training steps alone, measured with 2 runs side by side. Trained on Intel(R) Xeon(R) Processor with 1 thread, "
    "torch 2.15.0, cnn_ablation 0.1.0.\n"
)
WRITTEN = "written to multirun/2026-11-21/10-53-37: runs.csv .parquet, differences.png .svg\n"
DRY_RUN = "would reuse 28 of 56 runs from .ablation_runs\nestimated time: about 15 s for 28 runs, from past runs\n"
FRAME = {
    "arm": ["baseline", "model.activation=leaky"],
    "seed": [0, 0],
    "val_accuracy": [0.98, 0.976],
    "delta_pp": [float("nan"), -0.12],
    "p_holm": [float("nan"), 0.4],
    "train_seconds": [0.8, 0.9],
    "verdict": ["baseline", "undecided"],
    "notes": ["", "-84 % parameters; 15 % dead ReLU units in Activation3"],
}


@pytest.fixture(scope="module")
def scripts() -> dict[str, ModuleType]:
    """The two files beside the notebooks, as a script there imports them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(NOTEBOOKS))
        import execute
        import outputs

        loaded = {"execute": execute, "outputs": outputs}
    for name in loaded:
        del sys.modules[name]
    return loaded


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def text_display(text: str) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {"text/plain": text, "text/html": f"<pre>{text}</pre>"}}


def picture(size: str = "800x500 with 2 Axes") -> dict[str, Any]:
    return {"output_type": "display_data", "data": {"image/png": "iVBO", "text/plain": f"<Figure size {size}>"}}


def error(value: str) -> dict[str, Any]:
    return {"output_type": "error", "ename": "ConfigError", "evalue": value, "traceback": []}


def frame(**columns: list[Any]) -> dict[str, Any]:
    shown = pd.DataFrame(FRAME | columns)
    with pd.option_context("display.max_colwidth", None, "display.max_columns", None):
        html, text = shown.to_html(notebook=True), shown.to_string()
    return {"output_type": "execute_result", "data": {"text/html": html, "text/plain": text}}


def renamed(old: str, new: str) -> dict[str, Any]:
    shown = pd.DataFrame(FRAME).rename(columns={old: new})
    return {"output_type": "execute_result", "data": {"text/html": shown.to_html(notebook=True)}}


THE_SAME = {
    "nothing at all": ([], []),
    "another time": ([stream(RUNS)], [stream(RUNS.replace("0.8 s", "12.5 s"))]),
    "another place in memory": (
        [stream("<pandas.io.formats.style.Styler at 0x7fe4f6c501d0>")],
        [stream("<pandas.io.formats.style.Styler at 0x7f154aeaa010>")],
    ),
    "another order of lines": (
        [stream(RUNS)],
        [stream("".join(reversed(RUNS.replace("1/2", "3/2").replace("2/2", "1/2").splitlines(True))))],
    ),
    "a run that is a little better": ([stream(RUNS)], [stream(RUNS.replace("97.22", "99.22"))]),
    "another loss and time, in another order": (
        [stream(LOSSES)],
        [stream("".join(reversed(LOSSES.replace("0.4006, 0.1", "0.41, 12.5").splitlines(True))))],
    ),
    "other images predicted right": ([stream(PREDICTED)], [stream(PREDICTED.replace("241", "239"))]),
    "a metric in its own unit": (
        [frame(metric_mean=[0.4, 0.38], delta=[float("nan"), -0.02])],
        [frame(metric_mean=[0.41, 0.37], delta=[float("nan"), -0.04])],
    ),
    "pieces of a stream": ([stream(RUNS, "stderr")], [stream(line, "stderr") for line in RUNS.splitlines(True)]),
    "displays of text in another order": (
        [text_display(line) for line in RUNS.splitlines()],
        [text_display(line) for line in reversed(RUNS.splitlines())],
    ),
    "another number of runs side by side": (
        [stream("2 runs side by side, 1 thread each\n" + RUNS, "stderr")],
        [stream("16 runs side by side, 4 threads each\n" + RUNS, "stderr")],
    ),
    "one core": ([stream("2 runs side by side, 1 thread each\n" + RUNS)], [stream(RUNS)]),
    "no compiler": ([stream(RUNS)], [stream("warning: runs train more slowly: no C compiler\n" + RUNS)]),
    "another folder": ([stream(WRITTEN)], [stream(WRITTEN.replace("11-21/10-53-37", "12-01/00-00-01"))]),
    "another estimate": ([stream(DRY_RUN)], [stream(DRY_RUN.replace("15 s", "2.5 min"))]),
    "other hardware and versions": (
        [stream(CAPTION)],
        [stream(CAPTION.replace("Intel(R) Xeon(R) Processor with 1 thread", "AMD EPYC with 2 threads"))],
    ),
    "another version of torch": ([stream(CAPTION)], [stream(CAPTION.replace("2.15.0", "2.16.1+cpu"))]),
    "runs one at a time": ([stream(CAPTION)], [stream(CAPTION.replace("2 runs side by side", "one run at a time"))]),
    "nothing to decide": ([stream(CAPTION)], [stream(re.sub(r"More seeds .*?\. ", "", CAPTION))]),
    "a caption wrapped elsewhere": ([stream(CAPTION)], [stream(CAPTION.replace(". ", ".\n"))]),
    "other figures, verdict and notes in a printed table": (
        [stream(TABLE)],
        [
            stream(
                re.sub(r"\n 32 % saturated[^\n]*", "", TABLE)
                .replace("undecided", "better   ")
                .replace("96.54", "97.01")
            )
        ],
    ),
    "seeds that are needed": (
        [stream(TABLE)],
        [stream(TABLE.replace("+21 seeds", "+7-22 seeds"))],
    ),
    "seeds in a wide table": ([stream(TABLE)], [stream(TABLE.replace("+21 seeds", "7-22"))]),
    "seeds that cannot be said": ([stream(TABLE)], [stream(TABLE.replace("+21 seeds", "+? seeds"))]),
    "a printed table laid out anew": ([stream(TABLE)], [stream(WIDE)]),
    "colours": ([stream(PLAN)], [stream(f"\x1b[33m{PLAN}\x1b[0m")]),
    "an accuracy that moved by 0.04": ([frame()], [frame(val_accuracy=[0.94, 0.976])]),
    "a difference that moved by 2 points": ([frame()], [frame(delta_pp=[float("nan"), 1.9])]),
    "a p-value": ([frame()], [frame(p_holm=[float("nan"), 0.0123])]),
    "seconds in a frame": ([frame()], [frame(train_seconds=[3.25, 2.5])]),
    "a verdict near its limit": ([frame()], [frame(verdict=["baseline", "worse"])]),
    "a time verdict near its limit": (
        [frame(time_verdict=["", "equal"], time_ratio=[1.0, 1.01])],
        [frame(time_verdict=["", "undecided"], time_ratio=[1.0, 1.07])],
    ),
    "times that could not be compared": (
        [frame(time_verdict=["", "slower"], time_ratio=[1.0, 1.2])],
        [frame(time_verdict=["", ""], time_ratio=[1.0, float("nan")])],
    ),
    "a note near its limit": (
        [frame()],
        [frame(notes=["10 % dead ReLU units in Activation3 (in other runs elsewhere)", "-84 % parameters"])],
    ),
    "another picture of the same size": ([picture()], [picture() | {"metadata": {}}]),
}


@pytest.mark.parametrize(("stored", "fresh"), THE_SAME.values(), ids=THE_SAME.keys())
def test_what_a_processor_decides_is_no_difference(
    scripts: dict[str, ModuleType], stored: list[Any], fresh: list[Any]
) -> None:
    assert [str(found) for found in scripts["outputs"].differences(stored, fresh)] == []
    assert [str(found) for found in scripts["outputs"].differences(fresh, stored)] == []


# stored, fresh, and the differences: where, what was stored, what is now
DIFFERENT: dict[str, tuple[list[Any], list[Any], list[tuple[str, str, str]]]] = {
    "a changed column name": (
        [frame()],
        [renamed("delta_pp", "difference")],
        [("columns", ", ".join(["", *FRAME]), ", ".join(["", *FRAME]).replace("delta_pp", "difference"))],
    ),
    "a row more": (
        [frame()],
        [frame(**{name: [*values, values[1]] for name, values in FRAME.items()})],
        [("rows", "2", "3")],
    ),
    "an accuracy that moved by 0.2": (
        [frame()],
        [frame(val_accuracy=[0.98, 0.776])],
        [("column val_accuracy, row 1", "0.976", "0.776")],
    ),
    "an accuracy that vanished": (
        [frame()],
        [frame(val_accuracy=[0.98, float("nan")])],
        [("column val_accuracy, row 1", "0.976", "NaN")],
    ),
    "a difference that moved by 20 points": (
        [frame()],
        [frame(delta_pp=[float("nan"), -20.5])],
        [("column delta_pp, row 1", "-0.12", "-20.5")],
    ),
    "an arm": (
        [frame()],
        [frame(arm=["baseline", "model.activation=elu"])],
        [("column arm, row 1", "model.activation=leaky", "model.activation=elu")],
    ),
    "a seed": ([frame()], [frame(seed=[0, 5])], [("column seed, row 1", "0", "5")]),
    "an unknown time verdict": (
        [frame(time_verdict=["", "slower"])],
        [frame(time_verdict=["", "late"])],
        [("column time_verdict, row 1", "slower", "late")],
    ),
    "an unknown verdict": (
        [frame()],
        [frame(verdict=["baseline", "unclear"])],
        [("column verdict, row 1", "undecided", "unclear")],
    ),
    "a baseline that is none": (
        [frame()],
        [frame(verdict=["better", "undecided"])],
        [("column verdict, row 0", "baseline", "better")],
    ),
    "a note that code decides": (
        [frame()],
        [frame(notes=["", "15 % dead ReLU units in Activation3"])],
        [
            (
                "column notes, row 1",
                "-84 % parameters; 15 % dead ReLU units in Activation3",
                "15 % dead ReLU units in Activation3",
            )
        ],
    ),
    "a frame that vanished": ([frame()], [], [("kinds of outputs", "frame", "nothing")]),
    "a changed caption word": (
        [stream(CAPTION)],
        [stream(CAPTION.replace("Holm's", "Bonferroni's"))],
        [("printed words", "Holm's", "Bonferroni's")],
    ),
    "another number of comparisons": (
        [stream(CAPTION)],
        [stream(CAPTION.replace("3 comparisons", "2 comparisons"))],
        [("printed words", "3", "2")],
    ),
    "a caption without hardware": (
        [stream(CAPTION)],
        [stream(re.sub("Trained on .*0.1.0.", "", CAPTION))],
        [("printed words", "Trained on HARDWARE", "nothing")],
    ),
    "a stale message": (
        [stream("configuration error: input_dropout=1.5\n  allowed: at least 0 and below 1\n")],
        [stream("configuration error: input_dropout=1.5\n  allowed: numbers of at least 0 and below 1\n")],
        [("printed words", "nothing", "numbers of")],
    ),
    "a stale line of a plan": (
        [stream(PLAN)],
        [stream(PLAN.replace("1 seeds", "1 seed"))],
        [("printed words", "seeds", "seed")],
    ),
    "another kind of file": (
        [stream(WRITTEN)],
        [stream(WRITTEN + "and per_class.csv\n")],
        [("printed words", "nothing", "and per_class.csv")],
    ),
    "another reuse": ([stream(DRY_RUN)], [stream(DRY_RUN.replace("28 of", "0 of"))], [("printed words", "28", "0")]),
    "a warning": (
        [stream(RUNS, "stderr")],
        [stream(RUNS + "warning: no weights of baseline, seed 0\n", "stderr")],
        [("printed words", "nothing", "warning no weights of baseline seed 0")],
    ),
    "a column of a printed table": (
        [stream(TABLE)],
        [stream(TABLE.replace("accuracy %", "score %"))],
        [("words of the printed table", "nothing", "score")],
    ),
    "an arm of a printed table": (
        [stream(TABLE)],
        [stream(TABLE.replace("=tanh", "=elu "))],
        [("words of the printed table", "model.activation=tanh", "model.activation=elu")],
    ),
    "a table that vanished": (
        [stream(RUNS + WIDE)],
        [stream(RUNS)],
        [("words of the printed table", "arm n verdict train s baseline model.activation=tanh", "nothing")],
    ),
    "a run that learns nothing": (
        [stream(RUNS)],
        [stream(RUNS.replace("98.02", "9.92"))],
        [("validation accuracy of baseline seed 0", "98.02 %", "9.92 %")],
    ),
    "a run that is missing": (
        [stream(RUNS)],
        [stream(RUNS.splitlines()[0])],
        [("runs in the lines of progress", "model.activation=leaky seed 0", "nothing")],
    ),
    "another metric": (
        [stream(LOSSES)],
        [stream(LOSSES.replace("val_loss", "val_error"))],
        [("printed words", "2 x val_loss", "2 x val_error")],
    ),
    "other images to predict": (
        [stream(PREDICTED)],
        [stream(PREDICTED.replace("252", "300"))],
        [("printed words", "252", "300")],
    ),
    "a difference that vanished": (
        [frame(delta=[float("nan"), -0.02])],
        [frame(delta=[float("nan"), ""])],
        [("column delta, row 1", "-0.02", "")],
    ),
    "a failed run": (
        [stream(RUNS)],
        [stream(RUNS.replace("98.02 % validation accuracy, 0.8 s of training", "failed"))],
        [
            ("runs in the lines of progress", "baseline seed 0", "nothing"),
            ("printed words", "nothing", "1/2 baseline seed 0 failed"),
        ],
    ),
    "a vanished picture": (
        [picture(), picture()],
        [picture()],
        [
            ("kinds of outputs", "picture", "nothing"),
            ("printed words", "<Figure size 800x500 with 2 Axes>", "nothing"),
        ],
    ),
    "a picture of another size": (
        [picture()],
        [picture("800x350 with 1 Axes")],
        [("printed words", "800x500 2", "800x350 1")],
    ),
    "another error": (
        [error("lr=-1, allowed: above 0")],
        [error("lr=-1, allowed: at least 0")],
        [("printed words", "above", "at least")],
    ),
    "printed elsewhere": (
        [stream(PLAN)],
        [stream(PLAN, "stderr")],
        [("kinds of outputs", "stdout", "stderr")],
    ),
}


@pytest.mark.parametrize(("stored", "fresh", "expected"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_code_decides_is_a_difference(
    scripts: dict[str, ModuleType], stored: list[Any], fresh: list[Any], expected: list[tuple[str, str, str]]
) -> None:
    found = scripts["outputs"].differences(stored, fresh)
    assert [(one.where, one.stored, one.now) for one in found] == expected


def notebook(*texts: str) -> nbformat.NotebookNode:
    """A cell of prose, and one of code for each text that it prints."""
    cells = [nbformat.v4.new_markdown_cell("# Title")]
    for text in texts:
        cells.append(nbformat.v4.new_code_cell("print()", outputs=[nbformat.v4.new_output("stream", text=text)]))
    return nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python", "version": "3.11.7"}})


Checked = tuple[int, str, tuple[str, ...]]
"""Exit code, what was told, and what the cells of the notebook hold afterwards."""
SAME, OTHER = ("old words", "more"), ("new words", "more")
FIRST_DIFFERS = "nb.ipynb, cell [1]:\n  printed words\n    stored: old\n    now:    new\n"


@pytest.mark.parametrize(
    ("expected", "arguments", "fresh"),
    [
        pytest.param((0, "", SAME), [], SAME, id="the same"),
        pytest.param((1, FIRST_DIFFERS + REMEDY, SAME), [], OTHER, id="another word"),
        pytest.param((0, "", OTHER), ["--store"], OTHER, id="stored"),
    ],
)
def test_another_output_ends_with_1_and_names_notebook_and_cell(
    in_folder: Callable[..., Checked], expected: Checked, arguments: list[str], fresh: tuple[str, ...]
) -> None:
    assert in_folder(SAME, fresh, arguments) == expected


def test_neighbouring_pieces_of_a_stream_are_stored_as_one(scripts: dict[str, ModuleType]) -> None:
    pieces = [stream("a"), stream("b\n"), stream("c", "stderr"), text_display("d"), stream("e"), stream("f")]
    joined = scripts["execute"].in_one_piece([nbformat.from_dict(piece) for piece in pieces])
    assert joined == [stream("ab\n"), stream("c", "stderr"), text_display("d"), stream("ef")]


@pytest.fixture
def in_folder(
    scripts: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Checked]:
    """Checks a folder of one notebook whose run gives `fresh`."""

    def check(
        stored: tuple[str, ...], fresh: tuple[str, ...], arguments: list[str]
    ) -> tuple[int, str, tuple[str, ...]]:
        path, execute = tmp_path / "nb.ipynb", scripts["execute"]
        nbformat.write(notebook(*stored), path)
        monkeypatch.setattr(execute, "HERE", tmp_path)
        monkeypatch.setattr(execute, "execute", lambda stored: notebook(*fresh))
        exit_code = execute.main(arguments)
        told = re.sub(r"^nb.ipynb: \d+ s\n", "", capsys.readouterr().out)
        cells = nbformat.read(path, as_version=4).cells
        return exit_code, told, tuple(cell.outputs[0].text for cell in cells if cell.cell_type == "code")

    return check


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_stored_notebook_was_run_once_from_top_to_bottom(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_stored_notebook_names_no_folder_of_a_machine(path: Path) -> None:
    texts = re.sub(r'"image/png": "[^"]*"', "", path.read_text())
    assert re.findall(r"(?<![\w.])/(?:home|root|tmp|opt|usr|var|mnt|work|Users)/[^\s\"']*", texts) == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_stored_notebook_has_no_broken_characters(path: Path) -> None:
    """A kernel reads what a child process prints in blocks, and breaks a character of several bytes at their ends."""
    assert "\N{REPLACEMENT CHARACTER}" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_stored_notebook_tells_the_same_as_itself_and_something_else_without_a_cell_s_outputs(
    scripts: dict[str, ModuleType], path: Path
) -> None:
    stored = nbformat.read(path, as_version=4).cells
    assert scripts["outputs"].messages(path.name, stored, copy.deepcopy(stored)) == []
    code = [cell for cell in stored if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        without = [c if c is not cell else nbformat.NotebookNode(cell, outputs=[]) for c in stored]
        found = scripts["outputs"].messages(path.name, stored, without)
        assert [message.split("\n")[0] for message in found] == [f"{path.name}, cell [{number}]:"] * bool(cell.outputs)


def test_every_phrase_that_may_differ_stands_in_a_stored_notebook(scripts: dict[str, ModuleType]) -> None:
    """A phrase that the package words anew is compared word by word: its rule has to follow."""
    cells = [cell for path in PATHS for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    texts = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs]
    text = " ".join(" ".join(texts).split())
    assert [phrase for phrase in scripts["outputs"].PHRASES if not re.search(phrase, text)] == []
