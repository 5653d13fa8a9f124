"""Colours of pictures, each with the name by which a page changes it: there, dark mode draws them anew."""

from __future__ import annotations

INK, PAPER, MUTED, GRID, BAND = "#000000", "#ffffff", "#595959", "#e2e2e2", "#ececec"
CELL, ON_CELL = "#08519c", "#fefefe"
"""Of a confusion matrix: what its cells are shaded with, and numbers on the darkest, which stay as they are."""

# Okabe and Ito's colours, which colour-blind readers can tell apart, with a grey that deuteranopia does not mistake for
# their green; the marker says the same in black and white.
VERDICT_STYLE = {
    "baseline": (INK, "s"),
    "better": ("#009E73", "^"),
    "worse": ("#D55E00", "v"),
    "equivalent": ("#0072B2", "D"),
    "undecided": ("#666666", "o"),
}

LINES = ("#0173B2", "#E69F00", "#882255", "#8FB8DE", "#C44601", "#332288", "#CC6677")
"""Of learning curves, beside the baseline's black; `tests/test_colours.py` measures how far they are apart."""

VARIABLES = {
    INK: "ink",
    PAPER: "paper",
    MUTED: "muted",
    GRID: "grid",
    BAND: "band",
    CELL: "cell",
    **{colour: verdict for verdict, (colour, _) in VERDICT_STYLE.items() if colour != INK},
    **{colour: f"line-{number}" for number, colour in enumerate(LINES, start=1)},
}
"""Colour -> its CSS custom property, without the two dashes."""


def as_css(colour: str) -> str:
    """`#009e73` -> `var(--better, #009E73)`; a colour without a name as it is."""
    return _CSS.get(colour.lower(), colour)


_CSS = {colour.lower(): f"var(--{name}, {colour})" for colour, name in VARIABLES.items()}
