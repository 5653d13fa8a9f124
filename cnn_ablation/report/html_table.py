"""The table of arms as a page of its own: no script, no request, readable on a phone, printed and in the dark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

import pandas as pd

from cnn_ablation.report.numbered_notes import NumberedNotes, apart
from cnn_ablation.report.text import TEXT_COLUMNS, name_pieces, readable_table, row_notes

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(title)s</title>
<style>
:root { color-scheme: light dark; --text: #1f2328; --dim: #59636e; --page: #fff; --line: #d1d9e0; --link: #0550ae;
  --better: #116329; --on-better: #dafbe1; --worse: #a40e26; --on-worse: #ffebe9;
  --equivalent: #0a4b78; --on-equivalent: #ddf4ff; --undecided: #4d4000; --on-undecided: #f6f0d8; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --dim: #9ea7b3; --page: #0d1117; --line: #3d444d;
  --link: #79c0ff; --better: #9be9a8; --on-better: #12301b; --worse: #ffb3ad; --on-worse: #43191c;
  --equivalent: #a5d6ff; --on-equivalent: #0f2d48; --undecided: #e8dba0; --on-undecided: #37300f; } }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 80rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 1rem; }
h2 { font-size: 1.05rem; margin: 1.5rem 0 .3rem; }
a { color: var(--link); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; min-width: 100%%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; vertical-align: baseline; }
td span { white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
.words { text-align: left; }
thead th { border-bottom: 2px solid var(--line); color: var(--dim); font-weight: 600; font-size: .9rem; }
tbody { border-bottom: 1px solid var(--line); }
tbody th { font-weight: 600; overflow-wrap: break-word; min-width: min(13rem, 30vw); max-width: 24rem; }
.notes td { padding-top: 0; font-size: .9rem; color: var(--dim); }
.notes div { position: sticky; left: 0; max-width: min(68rem, calc(100vw - 2rem)); }
.verdict { padding: .1rem .5rem; border-radius: .6rem; }
%(verdicts)s
p, ol { max-width: 68rem; }
@media print { body { padding: 0; max-width: none; font-size: .75rem; } .scroll { overflow: visible; } }
</style>
</head>
<body>
<main>
<h1 id="title">%(title)s</h1>
<div class="scroll" role="region" aria-labelledby="title" tabindex="0">
<table aria-labelledby="title">
<thead><tr>%(heading)s</tr></thead>
%(arms)s
</table>
</div>
%(notes)s<h2>How to read it</h2>
<p>%(caption)s</p>
</main>
</body>
</html>
"""
_PARTS = re.compile(r" (?=\[)|(?<=\]) ")
"""Between an estimate, its interval and its verdict a cell may go on in the next line."""
_COLOURED = ("better", "worse", "equivalent", "undecided")
_VERDICTS = "\n".join(
    f".{name} .verdict {{ color: var(--{name}); background: var(--on-{name}); }}" for name in _COLOURED
)


def html_page(arms: pd.DataFrame, caption: str) -> str:
    """The table with the notes of each arm below its row, and below the table those that several arms share."""
    table = readable_table(arms).drop(columns="notes")
    table = table.drop(columns=[name for name in ("more seeds",) if not table[name].any()])
    own, shared = apart(row_notes(arms))
    score = str(table.columns[2]).removesuffix(" %").removeprefix("mean ")
    rows = zip(arms["verdict"], table.itertuples(index=False), strict=True)
    return _PAGE % {
        "title": escape(f"Ablation: {score}"),
        "verdicts": _VERDICTS,
        "heading": "".join(f'<th scope="col"{_side(name)}>{escape(name)}</th>' for name in table.columns),
        "arms": "\n".join(
            _arm(verdict, dict(zip(table.columns, cells, strict=True)), own[row], shared.numbers[row])
            for row, (verdict, cells) in enumerate(rows)
        ),
        "notes": _shared_notes(shared),
        "caption": escape(caption),
    }


def _arm(verdict: str, cells: dict[str, str], own: Sequence[str], shared: Sequence[int]) -> str:
    """A body of its own for each arm, whose notes so stay with it."""
    shown = "".join(_cell(name, text) for name, text in cells.items())
    words = [escape(note) for note in own]
    if shared:
        links = ", ".join(f'<a href="#note-{number}">{number}</a>' for number in shared)
        words.append(f"{'note' if len(shared) == 1 else 'notes'} {links}")
    below = f'\n<tr class="notes"><td class="words" colspan="{len(cells)}"><div>{"; ".join(words)}</div></td></tr>'
    return f'<tbody class="{verdict}">\n<tr>{shown}</tr>{below if words else ""}\n</tbody>'


def _cell(column: str, text: str) -> str:
    if column == "arm":
        return f'<th scope="row" class="words">{"<wbr>".join(map(escape, name_pieces(text)))}</th>'
    if column == "verdict":
        return f'<td class="words"><span class="verdict">{escape(text)}</span></td>'
    parts = [f"<span>{escape(part)}</span>" for part in _PARTS.split(text) if part]
    return f"<td{_side(column)}>{' '.join(parts)}</td>"


def _side(column: str) -> str:
    return ' class="words"' if column in TEXT_COLUMNS else ""


def _shared_notes(notes: NumberedNotes) -> str:
    items = "\n".join(f'<li id="note-{number}">{escape(text)}</li>' for number, text in notes.items())
    return f"<h2>Notes</h2>\n<ol>\n{items}\n</ol>\n" if items else ""
