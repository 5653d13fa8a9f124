"""The table of arms in a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from cnn_ablation.report.numbered_notes import numbered
from cnn_ablation.report.text import TEXT_COLUMNS, readable_table, row_notes

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler
    from pandas.io.formats.style_render import CSSDict

_COLOURS = {
    "better": "color: #116329; background-color: #dafbe1",
    "worse": "color: #a40e26; background-color: #ffebe9",
    "equivalent": "color: #0a4b78; background-color: #ddf4ff",
    "undecided": "color: #4d4000; background-color: #f6f0d8",
    "baseline": "",
}
"""Each with a colour for the letters, which the page of a notebook would choose for its own background."""

_CAPTION: CSSDict = {
    "selector": "caption",
    "props": [("caption-side", "bottom"), ("text-align", "left"), ("padding-top", "0.5em")],
}


def styled_table(arms: pd.DataFrame) -> Styler:
    """The table of arms as the result of a notebook's cell: intervals, verdicts in colour, notes below it by number.

        cnn_ablation.styled_table(cnn_ablation.ablation_table(runs))

    Args:
        arms: from `ablation_table`.
    """
    notes = numbered(row_notes(arms))
    table = readable_table(arms).assign(notes=[notes.marks(row) for row in range(len(arms))])
    table = table.drop(columns=[name for name in ("more seeds", "notes") if not table[name].any()])
    styler = table.style.hide(axis="index").format(escape="html").format_index(escape="html", axis=1)
    styler = styler.map(lambda verdict: _COLOURS.get(verdict, ""), subset=["verdict"])
    for name in table.columns:
        side = {"text-align": "left"} if name in TEXT_COLUMNS else {"text-align": "right", "white-space": "nowrap"}
        styler = styler.set_properties(subset=[name], **side)
    caption = "<br>".join(f"{number}. {escape(text)}" for number, text in notes.items())
    if not caption:
        return styler
    return styler.set_caption(caption).set_table_styles([_CAPTION], overwrite=False)
