"""report.html as a file: whole, escaped, the same every time, small, and never at the cost of the tables."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import subprocess
import sys
import webbrowser
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from finished_studies import PROVENANCE, write_study
from jinja2 import Environment

from cnn_ablation.analysis.tables import ablation_table, arms_of_study, read_study
from cnn_ablation.common import commands
from cnn_ablation.config import StatsConfig
from cnn_ablation.report.__main__ import main as report
from cnn_ablation.report.caption import described
from cnn_ablation.report.findings import Findings
from cnn_ablation.report.page import document
from cnn_ablation.report.study import report_runs, report_study
from cnn_ablation.study.plans import PathStep

NAN = math.nan
SCORES = {
    "baseline": [0.90, 0.91, 0.89, 0.905],
    "model.batch_norm=true": [0.95, 0.955, 0.945, 0.956],
    "model.dropout=0.3": [0.91, NAN, 0.90, 0.93],
}
VOID = {"meta", "link", "input", "br", "hr", "img"}


class Parsed(HTMLParser):
    """A page as its tags, each with its attributes, the tags around it, and all text inside it."""

    def __init__(self, page: bytes):
        super().__init__(convert_charrefs=True)
        self.size = len(page)
        self.open: list[dict[str, Any]] = []
        self.tags: list[dict[str, Any]] = []
        self.feed(page.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {"tag": tag, "text": "", "inside": [each["tag"] for each in self.open], **dict(attrs)}
        self.tags.append(found)
        if tag not in VOID:
            self.open.append(found)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data: str) -> None:
        for each in self.open:
            each["text"] += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, Any]]:
        return [each for each in self.tags if each["tag"] == tag
                and all(each.get(name.rstrip("_")) == value for name, value in wanted.items())]  # fmt: skip

    def text(self, tag: str, **wanted: str) -> str:
        return " ".join(self.all(tag, **wanted)[0]["text"].split())


def page_of(folder: Path) -> Parsed:
    """The page of a study on disk, without its files of pictures."""
    study = read_study(folder)
    runs = study.run_table()
    arms = arms_of_study(study, runs, study.stats)
    words = described(runs, arms, study.stats, choice=study.choice if study.plan.path else "")
    return Parsed(document.document(Findings(runs, arms, words, study.stats, study, study.curves())))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "store").mkdir()
    write_study(folder / "study", SCORES, baseline={"store": str(folder / "store")})
    report_study(folder / "study")
    return folder / "study"


@pytest.fixture(scope="module")
def page(folder: Path) -> bytes:
    return (folder / "report.html").read_bytes()


@pytest.fixture(scope="module")
def parsed(page: bytes) -> Parsed:
    return Parsed(page)


def test_the_page_begins_with_the_question_and_its_answers(parsed: Parsed) -> None:
    assert parsed.text("h1") == parsed.text("title") == "What do batch norm and dropout do to test accuracy?"
    assert parsed.text("p", class_="above") == "Ablation studydigits26 November 2026"
    lede = parsed.text("p", class_="lede")
    assert lede.startswith(
        "The baseline has 90.13 % [88.77, 91.48] test accuracy, from 4 seeds. Of 2 other arms 1 is better"
    )
    first, second = parsed.all("ul", class_="answers")[0]["text"].split("Dropout 0.3:")
    assert re.sub(r"\s+", " ", first).strip().startswith("Batch norm: +5.0 points [")
    assert "points [4.4, 5.7], better" in first
    assert "cannot tell yet: +1.5 points [" in second
    basis = " ".join(each["text"] for each in parsed.all("dl", class_="facts")[:1])
    for words in ("test accuracy (top-1, higher is better)", "3 to 4 an arm", "30 examples",
                  "hold after Holm's correction over 2 comparisons at 0.05", "within ±0.5 points"):  # fmt: skip
        assert words in basis


def test_sections_stand_in_the_order_in_which_they_are_read(parsed: Parsed) -> None:
    assert [each["text"] for each in parsed.all("h2")] == [
        "Answer", "Table", "Pictures", "Learning curves", "Classes", "Side effects", "Plan and protocol",
        "Environment and citation",
    ]  # fmt: skip
    levels = [int(each["tag"][1]) for each in parsed.tags if re.fullmatch(r"h\d", each["tag"])]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_id_is_there_once_and_every_link_leads_somewhere(parsed: Parsed) -> None:
    ids = Counter(each["id"] for each in parsed.tags if each.get("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    links = {each["href"] for each in parsed.tags if each.get("href") and each["tag"] in ("a", "use")}
    assert {link[1:] for link in links} <= set(ids)
    named = {each.get("aria-labelledby") for each in parsed.tags} - {None}
    assert named <= set(ids)


def test_every_row_of_the_table_has_a_cell_for_every_heading(parsed: Parsed) -> None:
    headings = parsed.all("th", role="columnheader")
    assert all(each["aria-sort"] == "none" for each in headings if each.get("data-key"))
    assert len(parsed.all("button")) == len(headings) - 1  # the drawing is not sorted by
    rows = [each["text"] for each in parsed.all("tbody") if "arm" in each.get("class", "").split()]
    assert len(rows) == 3
    cells = len(parsed.all("td", role="cell")) + len(parsed.all("th", role="rowheader"))
    notes = len(parsed.all("tr", class_="notes"))
    assert cells == 3 * len(headings) + notes
    assert "1 of 4 runs failed" in parsed.all("tr", class_="notes")[-1]["text"]


def test_the_page_asks_nothing_of_anybody(page: bytes, parsed: Parsed) -> None:
    (policy,) = parsed.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"] == (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    )
    assert page.index(b"Content-Security-Policy") < page.index(b"<style>")
    assert not any(each.get("src") for each in parsed.tags)
    assert {each["href"] for each in parsed.tags if each["tag"] == "link"} == {"data:,"}
    assert not re.search(rb"url\((?!#)|@import", page)


def test_the_protocol_is_told(parsed: Parsed, folder: Path) -> None:
    text = parsed.text("main")
    for words in ("One at a time: each level of each knob alone", "4 of every arm (0, 1, 2, 3)", "12 runs",
                  "What was measured", "How arms are compared", "Holm's correction over 2 comparisons at 0.05",
                  "All arms were fixed before the first run", "1 of 12 runs failed and have no score.",
                  "ValueError: no such thing", "A processor with 1 thread", "abc123",
                  "python 3.11.9, cnn_ablation 0.1.0", "@software{cnn_ablation,"):  # fmt: skip
        assert words in text
    assert parsed.all("pre")[0]["text"] == "python -m cnn_ablation"
    assert "store" not in text.split("All settings of the baseline")[1].split("Environment")[0]
    caption = (folder / "ablation.md").read_text()
    for paragraph in parsed.all("p"):
        if paragraph["text"].startswith("Differences from the baseline are paired"):
            assert paragraph["text"] in caption


def test_the_same_study_gives_the_same_bytes_without_drawing_again(folder: Path, page: bytes) -> None:
    """Whatever the order in which this Python keeps what has none."""
    program = (
        "import sys\nfrom cnn_ablation.report.study import report_study\n"
        f"report_study({str(folder)!r})\nassert 'matplotlib' not in sys.modules, 'drawn again'\n"
    )
    (folder / "report.html").unlink()
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "7", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").read_bytes() == page


NASTY = {
    "a tag": "<script>alert(1)</script>",
    "an ampersand": "a&amp;b & c",
    "quotes": "\"'`",
    "no Unicode": "gr\udcf6sse",
    "a control character": "a\x00b\x1bc",
    "the end of data": "]]></script><!--",
    "a template": "{{ 7 * 7 }}{% raw %}",
    "from right to left": "\u202eabc\u05d0",
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_a_name_is_shown_as_it_is_and_never_read_as_markup(text: str) -> None:
    frame = pd.DataFrame([
        {"arm": arm, "knob": knob, "level": level, "seed": seed, "status": "ok" if seed else status, "error": error,
         "val_accuracy": 0.8, "test_accuracy": score if seed else NAN, "train_seconds": 1.0}
        for arm, knob, level, status, error, scores in (
            ("baseline", "", "", "ok", "", (0.9, 0.91, 0.93)),
            ("k=TEXT", "k", "TEXT", "failed", "ValueError: TEXT", (0.8, 0.85, 0.81)),
        )
        for seed, score in enumerate(scores)
    ])  # fmt: skip
    arms = ablation_table(frame)
    words = described(frame, arms, StatsConfig())
    for table in (frame, arms):  # only then: some versions of pandas keep no text that is no Unicode otherwise
        for column in {"arm", "level", "error"} & set(table.columns):
            texts = [old.replace("TEXT", text) for old in table[column]]
            table[column] = pd.Series(texts, dtype=object, index=table.index)
    parsed = Parsed(document.document(Findings(frame, arms, words, StatsConfig())))
    shown = re.sub(r"[\x00-\x08\x0b-\x1f]", "\ufffd", text.encode(errors="replace").decode())
    assert shown in parsed.all("ul", class_="answers")[0]["text"]
    assert f"ValueError: {shown}" in parsed.all("table", id="failures")[0]["text"]
    assert [each.get("type") for each in parsed.all("script")] == [None]
    assert not parsed.all("b")


def test_another_template_makes_another_page(
    folder: Path, page: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is what these templates made."""
    shutil.copytree(document._TEMPLATES, tmp_path / "templates")
    style = tmp_path / "templates" / "style.css"
    style.write_text(style.read_text() + ".mine { }")
    monkeypatch.setattr(document, "_TEMPLATES", tmp_path / "templates")
    caches = (document._version, document._template)
    for each in caches:
        each.cache_clear()
    try:
        report_study(folder, tmp_path)
    finally:
        for each in caches:
            each.cache_clear()
    assert (tmp_path / "report.html").read_bytes() == page.replace(b"\n\n</style>", b"\n.mine { }\n</style>")


def test_a_page_that_was_prepared_is_compiled(
    folder: Path, page: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While workers start; nothing is left to be compiled where it is shown."""
    compiled, compile_one = [], Environment.compile

    def noted(self: Environment, source: Any, name: str, *others: Any, **named: Any) -> Any:
        compiled.append(name)
        return compile_one(self, source, name, *others, **named)

    monkeypatch.setattr(Environment, "compile", noted)
    monkeypatch.setattr("cnn_ablation.report.findings.memory_of", lambda baseline: None)
    document._template.cache_clear()
    document.prepare()
    assert sorted(compiled) == ["macros.jinja", "report.html.jinja"]
    report_study(folder, tmp_path)
    assert (tmp_path / "report.html").read_bytes() == page
    assert len(compiled) == 2


def test_a_page_that_cannot_be_made_costs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An edited plan may hold anything; the page of an earlier table is not left beside newer ones."""
    write_study(tmp_path, SCORES, of_plan={"provenance": {**PROVENANCE, "versions": 5}})
    (tmp_path / "report.html").write_text("old")
    report_study(tmp_path)
    printed = capsys.readouterr()
    assert "report.html could not be made (" in printed.err
    assert "verdict" in printed.out
    assert (tmp_path / "ablation.csv").exists()
    assert (tmp_path / "differences.svg").exists()
    assert not (tmp_path / "report.html").exists()


def test_a_large_study_fits_into_a_letter(tmp_path: Path) -> None:
    """Sixteen arms with names of ninety characters, three seeds, forty epochs, ten classes."""
    levels = [f"{{train.batch_size:{size},optimizer.lr:{size / 64000},train.epochs:40,model.dropout:0.{size}}}"
              for size in range(100, 115)]  # fmt: skip
    scores = {"baseline": [0.9, 0.91, 0.89]} | {f"zip.large={level}": [0.9, 0.92, 0.88] for level in levels}
    assert min(map(len, list(scores)[1:])) > 80
    matrix = [[9 if row == column else 1 for column in range(10)] for row in range(10)]
    write_study(tmp_path, scores, epochs=40, classes=list("0123456789"), matrix=matrix)
    page = page_of(tmp_path)
    assert page.size < 1_000_000
    assert len(page.all("option")) == 16 + 2


def test_of_very_many_arms_what_names_each_is_left_out() -> None:
    frame = pd.DataFrame([
        {"arm": arm, "knob": "k" if arm != "baseline" else "", "level": arm, "seed": seed, "status": "ok",
         "val_accuracy": 0.8, "test_accuracy": 0.9 + seed / 100 + number / 1e4, "train_seconds": 1.0}
        for number, arm in enumerate(["baseline", *(f"k=v{number}" for number in range(120))])
        for seed in range(3)
    ])  # fmt: skip
    arms = ablation_table(frame)
    parsed = Parsed(document.document(Findings(frame, arms, described(frame, arms, StatsConfig()), StatsConfig())))
    assert "Pictures that name every arm are left out" in parsed.text("section", **{"aria-labelledby": "table"})
    assert not parsed.all("section", **{"aria-labelledby": "pictures"})
    assert len([each for each in parsed.all("tbody") if each.get("class", "").startswith("arm")]) == 121


def test_pictures_are_drawn_beside_an_arm_without_any_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path, {**SCORES, "model.dropout=0.9": [NAN] * 4})
    parsed = page_of(tmp_path)
    assert capsys.readouterr().err == ""
    titles = [each["aria-label"] for each in parsed.all("div", class_="plot wide")]
    assert titles == ["Differences", "Test accuracy against time"]
    assert "not compared: 4 of 4 runs failed" in parsed.all("ul", class_="answers")[0]["text"]


def test_seeds_of_other_times_than_the_mean_are_on_the_axis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of many seeds they lie outside of the interval of the mean."""
    scores = [0.9 + 0.001 * seed for seed in range(25)]
    write_study(tmp_path, {"baseline": scores, "k=v": scores[::-1]})
    parsed = page_of(tmp_path)
    assert capsys.readouterr().err == ""
    assert "Test accuracy against time" in [each["aria-label"] for each in parsed.all("div", class_="plot wide")]


def test_a_papers_figures_stand_beside_ours(tmp_path: Path) -> None:
    """Those of single classes are left to the file."""
    write_study(
        tmp_path, {"baseline": [0.80, 0.81, 0.83], "blocks=5": [0.84, 0.85, 0.86]}, baseline={"paper": "sorensen"}
    )
    report_study(tmp_path)
    parsed = Parsed((tmp_path / "report.html").read_bytes())
    section = parsed.text("section", **{"aria-labelledby": "paper"})
    assert "Figures of sorensen (UBC, 2019)." in section
    assert "Otherwise than in the paper: data=digits here, cifar10 in the paper" in section
    frame = pd.read_csv(tmp_path / "paper.csv", dtype=str, keep_default_na=False)
    whole = frame[frame["class"] == ""]
    rows = [row for row in parsed.all("tr") if "tbody" in row["inside"]]
    assert len(whole) > 1
    assert len(parsed.all("table", id="paper-table")) == 1
    for where in whole["where"]:
        assert any(where in row["text"] for row in rows)


def test_a_single_configuration_has_a_result(tmp_path: Path) -> None:
    write_study(tmp_path, {"baseline": [0.9, 0.91, 0.92]})
    parsed = page_of(tmp_path)
    assert parsed.text("h1") == "Test accuracy of one configuration"
    assert parsed.text("h2") == "Result"
    assert parsed.text("p", class_="lede") == "The baseline has 91.00 % [88.52, 93.48] test accuracy, from 3 seeds."
    assert not parsed.all("button", **{"data-sort": "verdict"})


def test_the_level_of_intervals_stands_beside_the_answers(folder: Path, tmp_path: Path) -> None:
    report_study(folder, tmp_path, {"alpha": 0.2})
    basis = Parsed((tmp_path / "report.html").read_bytes()).text("dl", class_="facts")
    assert "Intervals80 %, for the mean over seeds" in re.sub(r"\s*\n\s*", "", basis)
    assert "at 0.2" in basis


def test_one_seed_promises_no_verdict(tmp_path: Path) -> None:
    """The table names what differences are from, since sorting moves the row."""
    write_study(tmp_path, {"baseline": [0.9], "k=v": [0.91]})
    parsed = page_of(tmp_path)
    basis = parsed.text("dl", class_="facts")
    assert "none: with these seeds no test is possible" in basis
    assert "Holm" not in basis
    assert "Equivalent" not in basis
    assert "Intervals" not in basis
    assert parsed.text("caption").startswith("Differences from the baseline, with intervals in brackets.")


def test_a_table_of_runs_alone_has_its_page(folder: Path, tmp_path: Path) -> None:
    report_runs(folder / "runs.csv", tmp_path / "out")
    parsed = Parsed((tmp_path / "out" / "report.html").read_bytes())
    assert "Made from a table of runs alone" in parsed.text("section", **{"aria-labelledby": "protocol"})
    assert "does not hold the command" in parsed.text("section", **{"aria-labelledby": "origin"})
    assert not parsed.all("section", **{"aria-labelledby": "curves"})


def test_a_greedy_study_tells_its_steps_and_hides_what_validation_dropped(tmp_path: Path) -> None:
    kept = "model.batch_norm=true"
    first = PathStep("model.batch_norm", "baseline", [kept], kept)
    path = [first, PathStep("model.dropout", kept, ["model.dropout=0.3"], kept)]
    scores = {arm: values[:1] + values[2:] for arm, values in SCORES.items()}
    write_study(tmp_path, scores, of_plan={"path": path})
    parsed = page_of(tmp_path)
    steps = parsed.all("ol")[0]["text"]
    assert "Batch norm, on top of Baseline: tried Batch norm (+5.20 pp on validation); Batch norm is kept." in steps
    assert "Dropout, on top of Batch norm: tried Dropout 0.3 (" in steps
    (answer,) = [each for each in parsed.all("li") if each["text"].startswith("Dropout 0.3:")]
    assert "not compared: step 2: dropped" in answer["text"]
    data = json.loads(parsed.all("script", id="class-data")[0]["text"])
    assert [row[:2] for row in data] == [[0, "test"], [0, "val"], [1, "test"], [1, "val"], [2, "val"]]


def test_figures_of_a_function_have_their_own_names(tmp_path: Path) -> None:
    figures = {(arm, seed): {"status": "ok", "metrics": {"mae": value + seed / 10}, "error": "", "curves": [],
                             "train_seconds": 1.0 + seed}
               for arm, value in (("baseline", 3.0), ("settings.lr=0.01", 2.0)) for seed in range(3)}  # fmt: skip
    nothing = {"baseline": [NAN] * 3, "settings.lr=0.01": [NAN] * 3}
    settings = {"task.name": "function", "task.target": "my_train.train"}
    stats = StatsConfig(metric="mae", direction="lower")
    write_study(tmp_path, nothing, baseline=settings, change=figures, of_plan={"stats": stats})
    parsed = page_of(tmp_path)
    assert parsed.text("h1") == "What does learning rate do to mae?"
    assert "my_train.train" in parsed.text("p", class_="above")
    assert "−1.0000 in mae" in parsed.text("ul", class_="answers") or "in mae" in parsed.text("ul", class_="answers")
    assert "Equivalent" not in parsed.all("dl")[0]["text"]
    assert not parsed.all("section", **{"aria-labelledby": "classes"})


# -- the command -------------------------------------------------------------------------------------------------------

TYPED = {
    "a module": (
        ["/usr/bin/python3.11", "-m", "cnn_ablation", "-m", "zip.a={b:1,c:2}"],
        "python -m cnn_ablation -m 'zip.a={b:1,c:2}'",
    ),
    "with options of Python": (["python", "-X", "dev", "-m", "cnn_ablation"], "python -m cnn_ablation"),
    "the script": (["/env/bin/python", "/env/bin/cnn-ablation", "-m", "a=1,2"], "cnn-ablation -m a=1,2"),
    "a person's program": (["python", "my study.py", "fast"], "python 'my study.py' fast"),
    "another module": (["python", "-m", "pytest", "x.py"], ""),
    "a notebook": (["python", "-m", "ipykernel_launcher", "-f", "kernel.json"], ""),
    "a notebook's file": (["python", "/lib/ipykernel_launcher.py", "-f", "kernel.json"], ""),
    "a line of code": (["python", "-c", "run('x.py')"], ""),
    "nothing": (["python"], ""),
    "no Unicode": (["python", "-m", "cnn_ablation", "a=\udcf6"], "python -m cnn_ablation 'a=?'"),
}


@pytest.mark.parametrize(("words", "command"), TYPED.values(), ids=TYPED)
def test_a_study_knows_the_command_that_made_it(
    words: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", words)
    assert commands.typed() == command


def browser_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A browser that writes down what it is to show."""
    script, shown = folder / "browser", folder / "shown"
    script.write_text(f'#!/bin/sh\nprintf %s "$1" > {shown}\n')
    script.chmod(0o755)
    monkeypatch.setattr(webbrowser, "_tryorder", None)
    monkeypatch.setattr(webbrowser, "_browsers", {})
    monkeypatch.setenv("BROWSER", f"{script} %s")
    return shown


def test_the_page_is_opened_in_the_browser(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = browser_of(tmp_path, monkeypatch)
    assert report([str(folder), "--out", str(tmp_path / "ö ut"), "--open"]) == 0
    assert shown.read_text() == (tmp_path / "ö ut" / "report.html").as_uri()


def test_without_a_browser_the_page_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    browser_of(tmp_path, monkeypatch)
    for name, value in (("BROWSER", ""), ("PATH", str(tmp_path)), ("DISPLAY", ""), ("WAYLAND_DISPLAY", "")):
        monkeypatch.setenv(name, value)
    assert report([str(folder), "--open"]) == 0
    assert capsys.readouterr().out.endswith(f"no browser could be started; the page is {folder / 'report.html'}\n")
