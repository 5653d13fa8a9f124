"""ablation.html in a real browser: nothing off the screen, no request, and axe-core's rules of accessibility."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from arm_tables import STUDIES

from cnn_ablation.report.html_table import html_page

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "light"), (1280, "dark")])
@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_the_page_can_be_read_by_everybody(study: Any, width: int, scheme: str, browser: Any, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    path = tmp_path / "ablation.html"
    path.write_text(html_page(*study()), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, said, asked = context.new_page(), list[str](), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    notes = page.evaluate(
        "Array.from(document.querySelectorAll('.notes div'), (each) => each.getBoundingClientRect().right)"
    )
    assert [right for right in notes if right > width] == []
    assert (said, asked) == ([], [path.as_uri()])
    violations = Axe().run(page).response["violations"]
    assert [violation["id"] for violation in violations] == []
    context.close()


def test_all_columns_stand_on_a_screen_of_1280_pixels(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "ablation.html"
    arms, caption = STUDIES["knobs"]()
    arms = arms.assign(time_verdict="undecided")  # the longest word in the widest table
    arms.loc[1:, ["verdict", "seeds_needed_low", "seeds_needed"]] = ["undecided", 50, 117]
    path.write_text(html_page(arms, caption), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri())
    assert page.locator("thead th").all_inner_texts()[-1] == "time ratio"
    assert page.evaluate("(region => region.scrollWidth <= region.clientWidth)(document.querySelector('.scroll'))")
    page.close()
