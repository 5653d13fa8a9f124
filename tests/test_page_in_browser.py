"""report.html in a real browser: a silent console, no request, nothing off the screen, usable by everybody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, answered

pytestmark = pytest.mark.browser

FUNCTION = """
def train(lr: float = 0.1, width: int = 8, *, seed: int) -> dict[str, float]:
    if lr > 1:
        raise ValueError(f"lr={lr} <b>is</b> too large")
    return {"mae": 1 / width + 10 * lr + 0.01 * seed}
"""
LONG = ",".join(f"{{train.batch_size:{size},optimizer.lr:1e-3,model.dropout:0.1,train.label_smoothing:0.0{size}}}"
                for size in range(10, 24))  # fmt: skip
STUDIES = {
    "two arms": ["model.activation=relu,leaky"],
    "knobs": ["model.activation=relu,leaky,elu", "model.dropout=0,0.3", "train.batch_size=16,32", "replicates=3"],
    "long names": [f"zip.everything_at_once={LONG}", "replicates=2"],
    "many": [
        f"model.dropout=0.0,{','.join(f'0.{n}' for n in range(1, 8))}",
        f"train.batch_size=16,{','.join(map(str, range(8, 15)))}",
        "replicates=2",
    ],
    "diverged": ["optimizer.lr=1e-3,1e30", "model.dropout=0,0.3", "optimizer=sgd"],
    "greedy": ["model.activation=relu,leaky", "model.dropout=0,0.3", "hydra.sweeper.design=greedy"],
    "alone": [],
    "function": ["settings.lr=0.1,0.01,5", "settings.width=8,16"],
}


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of each study; two are trained as a person would, the others in this process."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "my_train.py").write_text(FUNCTION)
    found = {}
    for name, words in STUDIES.items():
        task = ["task=function", "task.target=my_train.train"] if name == "function" else list(TINY)
        where = f"hydra.{'sweep' if words else 'run'}.dir={name.replace(' ', '_')}"
        line = [*(["-m"] if words else []), *task, *words, where]
        if name in ("two arms", "function"):
            command = [sys.executable, "-m", "cnn_ablation", *line]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            code, said = done.returncode, done.stderr
        else:
            answer = answered(folder, *line, "timing=isolated")
            code, said = answer.code, answer.err
        assert code == (1 if name == "function" else 0), said
        found[name] = folder / name.replace(" ", "_") / "report.html"
    return found


@dataclass
class Shown:
    """A page in a browser, with what it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


Show = Callable[..., Shown]


@pytest.fixture
def show(browser: Any, pages: dict[str, Path]) -> Iterator[Show]:
    contexts = []

    def shown(study: str, width: int = 1440, *, scheme: str = "light", scripted: bool = True) -> Shown:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripted
        )
        contexts.append(context)
        found = Shown(context.new_page())
        found.page.on("console", lambda message: found.said.append(message.text))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(pages[study].as_uri())
        return found

    yield shown
    for context in contexts:
        context.close()


@pytest.mark.parametrize("study", STUDIES)
def test_a_page_says_nothing_asks_nothing_and_stays_on_the_screen(
    study: str, show: Show, pages: dict[str, Path]
) -> None:
    for width in (390, 1440):
        shown = show(study, width)
        assert shown.said == []
        assert shown.asked == [pages[study].as_uri()]
        assert shown.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        wide = shown.page.evaluate(
            """Array.from(document.querySelectorAll("main *")).filter((each) => !each.closest(".scroll, pre, .hidden")
               && each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML.slice(0, 80))"""
        )
        assert wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("study", STUDIES)
def test_a_page_keeps_the_rules_of_accessibility(study: str, scheme: str, show: Show) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for width in (390, 1440):
        found = Axe().run(show(study, width, scheme=scheme).page)
        assert found.violations_count == 0, found.generate_report()


def arms(page: Any) -> list[str]:
    return list(page.evaluate(
        """Array.from(document.querySelectorAll("table.arms tbody.arm:not([hidden]) th > bdi"),
           (each) => each.textContent)"""
    ))  # fmt: skip


def test_the_table_is_sorted_with_the_keyboard(show: Show) -> None:
    page = show("knobs").page
    first = arms(page)
    assert first[0] == "Baseline"
    values = page.locator("table.arms tbody.arm td[data-label^='Test accuracy']")
    numbers = [float(value) for value in values.evaluate_all("all => all.map((each) => each.dataset.value)")]
    by_score = [name for _, name in sorted(zip(numbers, first, strict=True), key=lambda pair: pair[0])]
    header = page.locator("th[data-key=score]")
    page.locator("th[data-key=score] button").focus()
    for state, expected in (("ascending", by_score), ("descending", by_score[::-1]), ("none", first)):
        page.keyboard.press("Enter")
        assert header.get_attribute("aria-sort") == state
        scores = sorted(numbers, reverse=state == "descending")
        shown = [float(each) for each in values.evaluate_all("all => all.map((each) => each.dataset.value)")]
        assert shown == (numbers if state == "none" else scores)
        if len(set(numbers)) == len(numbers):
            assert arms(page) == expected


def test_rows_without_a_value_stay_last_however_they_are_sorted(show: Show) -> None:
    page = show("function").page
    for _ in range(2):
        page.click("th[data-key=difference] button")
        empty = page.locator("table.arms tbody.arm td[data-label^='Difference']").evaluate_all(
            "all => all.map((each) => each.dataset.value === '')"
        )
        assert sum(empty) == 2  # the baseline, and the arm whose runs all failed
        assert empty[-2:] == [True, True]


def test_arms_are_folded_by_knob(show: Show) -> None:
    page = show("many").page
    buttons = page.locator("tbody.group button")
    assert [text.split()[:3] for text in buttons.all_inner_texts()] == [
        ["Dropout", "7", "arms"],
        ["Batch", "size", "7"],
    ]
    assert len(arms(page)) == 15
    buttons.nth(0).focus()
    page.keyboard.press("Space")
    assert buttons.nth(0).get_attribute("aria-expanded") == "false"
    assert arms(page) == ["Baseline", *(f"Batch size {size}" for size in range(8, 15))]
    page.click("th[data-key=score] button")  # sorted, all are there, without headings
    assert len(arms(page)) == 15
    assert page.locator("tbody.group:not([hidden])").count() == 0
    for _ in range(2):
        page.click("th[data-key=score] button")
    assert len(arms(page)) == 8
    buttons.nth(0).press("Enter")
    assert len(arms(page)) == 15
    groups = page.locator("details.group")
    assert groups.count() == 2
    groups.nth(1).locator("summary").press("Enter")
    assert groups.nth(1).get_attribute("open") is not None


def test_learning_curves_are_chosen_from_many(show: Show) -> None:
    page = show("long names").page
    assert page.locator("tbody.group").count() == 0  # a single knob has nothing to fold
    details = page.locator("details.chooser")
    details.locator("summary").focus()
    page.keyboard.press("Enter")
    boxes = details.locator("input")
    assert boxes.count() == 15
    panels = "document.querySelectorAll('figure.panel:not([hidden])').length"
    before = page.evaluate(panels)
    assert before == 12
    boxes.nth(0).press("Space")
    assert page.evaluate(panels) == before - 1


def test_any_confusion_matrix_can_be_chosen(show: Show, pages: dict[str, Path]) -> None:
    import pandas as pd

    page = show("knobs").page
    frame = pd.read_csv(pages["knobs"].parent / "confusion.csv")
    for option, arm in ((0, "baseline"), (3, "model.dropout=0.3")):
        for part, words in (("test", "test examples"), ("val", "validation examples")):
            page.select_option("#class-arm", str(option))
            page.select_option("#class-part", part)
            assert words in page.locator("#class-shown").inner_text()
            percent = frame[(frame["arm"] == arm) & (frame["part"] == part)]["percent"]
            expected = [f"{value:.0f}" if value >= 0.5 else "" for value in percent]
            shown = page.locator("#confusion tbody td").all_inner_texts()
            assert sum(a != b for a, b in zip(shown, expected, strict=True)) <= 2  # halves are rounded either way
    assert page.locator("#class-shown").inner_text().startswith("Dropout 0.3, validation examples, mean over 3 seeds")


def test_a_mark_says_its_value_to_the_pointer(show: Show) -> None:
    page = show("knobs").page
    line = page.locator(".panel path.seed").first
    line.scroll_into_view_if_needed()
    line.dispatch_event("pointermove", {"bubbles": True, "clientX": 200, "clientY": 200})
    assert page.locator("#tip").inner_text().startswith("seed 0: ")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_a_picture_is_walked_through_with_arrow_keys(show: Show) -> None:
    page = show("knobs").page
    tip, plot = page.locator("#tip"), page.locator(".plot.wide").first
    plot.focus()
    said = []
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        said.append(tip.inner_text())
    assert all(said)
    assert len(set(said)) > 1
    page.keyboard.press("ArrowLeft")
    assert tip.inner_text() == said[1]
    assert plot.locator(".chosen").count() == 1
    page.keyboard.press("Tab")
    assert tip.is_hidden()
    assert page.locator(".chosen").count() == 0


def test_without_a_script_everything_is_there(show: Show) -> None:
    page = show("knobs", scripted=False).page
    assert page.locator(".panel").count() == page.locator("table.arms tbody.arm").count()
    assert page.locator("#class-arm").is_hidden()
    assert page.locator(".chooser").is_hidden()
    assert page.locator("svg.interval").first.is_visible()


def test_on_paper_everything_is_open_and_nothing_is_to_be_pressed(show: Show, tmp_path: Path) -> None:
    page = show("knobs").page
    page.emulate_media(media="print")
    for selector in ("nav", ".skip", "#class-arm", ".chooser"):
        assert page.locator(selector).is_hidden(), selector
    assert page.locator(".plot.wide").first.is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.settings[open]").count() == 0
    page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").stat().st_size > 10_000


def test_the_page_knows_its_command(show: Show) -> None:
    command = show("two arms").page.locator("#origin ~ pre").first.inner_text()
    words = [*TINY[:4], *(f"'{word}'" for word in TINY[4:7]), *TINY[7:]]
    assert command == " ".join(
        ["python -m cnn_ablation -m", *words, "model.activation=relu,leaky", "hydra.sweep.dir=two_arms"]
    )


@pytest.mark.parametrize(("width", "kind", "other"), [(390, "narrow", "wide"), (1440, "wide", "narrow")])
def test_a_telephone_has_pictures_of_its_own(width: int, kind: str, other: str, show: Show) -> None:
    page = show("knobs", width).page
    assert page.locator(f".plot.{kind}").first.is_visible()
    assert page.locator(f".plot.{other}").first.is_hidden()
