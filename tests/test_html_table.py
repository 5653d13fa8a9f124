"""The page with the plain table, and the table in notebooks."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from arm_tables import STUDIES, described, knobs, runs_of

import cnn_ablation
from cnn_ablation.report.html_table import html_page
from cnn_ablation.report.text import readable_table

VOID = {"meta", "link", "br", "wbr"}


class Page(HTMLParser):
    """Rows of the table by their cells, with every tag closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [str(given["id"])] if "id" in given else []
        self.links += [str(given["href"])] if "href" in given else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_every_cell_of_the_table_is_on_the_page(study: object) -> None:
    arms, caption = study()  # type: ignore[operator]
    page = html_page(arms, caption)
    parsed = Page(page)
    assert parsed.open == []
    table = readable_table(arms).drop(columns="notes")
    table = table.drop(columns=[name for name in ("more seeds",) if not table[name].any()])
    figures = [row for row in parsed.rows[1:] if len(row) > 1]
    assert parsed.rows[0] == list(table.columns)
    assert figures == table.to_numpy().tolist()
    assert caption in unescape(page)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert {link.removeprefix("#") for link in parsed.links} <= set(parsed.ids)


def test_notes_stand_under_their_rows_and_shared_ones_once_below() -> None:
    arms, caption = knobs()
    page = html_page(arms, caption)
    rows = Page(page).rows
    place = next(n for n, row in enumerate(rows) if row[0] == "model.filters=[4,8,16]")
    assert rows[place + 1] == ["-84 % parameters; note 1"]
    assert page.count("the runs were not side by side with equally many others") == 1
    assert '<li id="note-1">time ratio from 5 of 8 to 6 of 8 seeds' in page


def test_the_page_is_for_every_screen_and_loads_nothing() -> None:
    page = html_page(*knobs())
    assert page.startswith('<!doctype html>\n<html lang="en">')
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert '<h1 id="title">Ablation: test accuracy</h1>' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert not re.search(r"https?:|<script|url\(|@import", page)


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, as WCAG 2 defines it."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def full(colour: str) -> str:
    return colour if len(colour) == 7 else "#" + "".join(2 * letter for letter in colour[1:])


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_letters_can_be_read_on_their_ground(scheme: int) -> None:
    """4.5 is what WCAG asks for at level AA."""
    blocks = re.findall(r":root \{(.*?)\}", html_page(*knobs()), flags=re.DOTALL)
    colours = {name: full(value) for name, value in re.findall(r"--([\w-]+): (#\w+)", blocks[scheme])}
    pairs = [(name, f"on-{name}") for name in ("better", "worse", "equivalent", "undecided")]
    pairs += [(name, "page") for name in ("text", "dim", "link")]
    assert [pair for pair in pairs if contrast(colours[pair[0]], colours[pair[1]]) < 4.5] == []


def test_black_on_white_has_the_contrast_that_wcag_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


# -- in a notebook -----------------------------------------------------------------------------------------------------


def cells(html: str) -> list[list[str]]:
    return [row for row in Page(html).rows if row]


def test_a_notebook_shows_the_table_with_its_notes_by_number() -> None:
    arms, _ = knobs()
    styler = cnn_ablation.styled_table(arms)
    html = styler._repr_html_()
    rows = cells(html)
    assert rows[0] == [
        "arm",
        "n",
        "test accuracy %",
        "difference pp",
        "p (Holm)",
        "verdict",
        "train s",
        "time ratio",
        "notes",
    ]
    assert rows[2][0] == "model.filters=[4,8,16]"
    assert rows[2][-1] == "1, 2"
    assert "1. -84 % parameters<br>2. time ratio from 5 of 8 to 6 of 8 seeds" in html
    worse = re.search(r"#\w+row1_col5[^{]*\{([^}]*)\}", html)
    assert worse
    assert "background-color: #ffebe9" in worse[1]


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_notebook_shows_every_table(study: object) -> None:
    arms, _ = study()  # type: ignore[operator]
    rows = cells(cnn_ablation.styled_table(arms)._repr_html_())
    assert [row[0] for row in rows[1:]] == arms["arm"].tolist()


def test_names_are_text_and_a_table_without_notes_has_no_caption() -> None:
    arms, _ = described(runs_of({"k=<b>": 0.03}))
    html = cnn_ablation.styled_table(arms.assign(notes=""))._repr_html_()
    assert "k=&lt;b&gt;" in html
    assert "<caption>" not in html


def test_a_part_of_the_table_can_be_shown() -> None:
    arms, _ = knobs()
    part = arms[arms["verdict"] != "undecided"]
    assert len(cells(cnn_ablation.styled_table(part)._repr_html_())) == 1 + len(part)
