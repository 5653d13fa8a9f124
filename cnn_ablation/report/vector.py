"""A picture as SVG inside a page: text stays text, colours are the page's, single points say what they are.

Matplotlib is imported for drawing alone.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence

from cnn_ablation.report.drawing import Drawing, arranged, remembered, rendered
from cnn_ablation.report.figures.colours import INK, as_css
from cnn_ablation.report.figures.titles import marked
from cnn_ablation.runs.store.memory import Memory

_FORMAT = "inline"


def inline(drawing: Drawing, name: str, memory: Memory | None = None) -> str:
    """The `<svg>` element of a drawing, which scales to the width it is given and is never wider than it was drawn.

    Colours are CSS custom properties of the page, with what the files show as fallback: `--ink` (text, axes, the
    baseline), `--muted` (remarks), `--paper` (edges of markers), `--grid`, `--band` (the margin), `--cell` (of
    confusion matrices), `--better --worse --equivalent --undecided`, and `--line-1` to `--line-7` (learning curves).
    The font is `--picture-font`. The background is transparent.

    Args:
        drawing: what is drawn; `drawing.title` is what a screen reader says.
        name: unique within the page; ids inside the picture begin with it.
        memory: of pictures; None draws.
    """
    return remembered(drawing, name, memory, (_FORMAT,), _drawn)[f"{name}.{_FORMAT}"].decode()


def _drawn(drawing: Drawing, name: str) -> dict[str, bytes]:
    import matplotlib as mpl
    from matplotlib.axes import Axes

    with mpl.rc_context({"svg.fonttype": "none"}):
        figure = arranged(drawing)
        for patch in (figure.patch, *(ax.patch for ax in figure.findobj(Axes))):
            patch.set_visible(False)
        titles = marked(figure)
        text = rendered(figure, "svg").decode()
    text = _with_titles(text[text.index("<svg ") :], titles)
    text = _HEAD.sub(lambda _: _head(drawing, name), _METADATA.sub("", text), count=1)
    return {f"{name}.{_FORMAT}": _of_the_page(text, name).encode()}


_METADATA = re.compile(r" *<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</style>\s*</defs>\s*", flags=re.DOTALL)
_HEAD = re.compile(r"^<svg [^>]*>")
_TAG = re.compile(r"<[^>]*>")
_COLOUR = re.compile(r"(?<=: )#[0-9a-f]{6}(?=[;\"])")
_FONT = re.compile(r"font-family: ((?:&\w+;|[^;\"])*)")


def _head(drawing: Drawing, name: str) -> str:
    """The first tag: how text and lines look where nothing else is said, and what the picture is called."""
    width, height = (72 * inches for inches in drawing.inches)
    label = html.escape(drawing.title or name.replace("_", " "))
    style = f"max-width: {drawing.inches[0]:g}in; fill: {as_css(INK)}; stroke-linejoin: round; stroke-linecap: butt"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{label}" viewBox="0 0 {width:g} {height:g}" style="{style}">'
    )


def _with_titles(text: str, titles: dict[str, tuple[str, ...]]) -> str:
    """Every mark of a titled group with its title."""
    for name, texts in titles.items():
        start = text.index(f'<g id="{name}"')
        end = _end_of_group(text, start)
        text = text[:start] + _titled_group(text[start:end], texts) + text[end:]
    return text


def _titled_group(group: str, texts: Sequence[str]) -> str:
    """Markers are uses of one path, patches are paths; definitions are neither."""
    parts = re.split(r"(<defs>.*?</defs>)", group, flags=re.DOTALL)
    kind = "use" if any("<use " in part for part in parts if not part.startswith("<defs>")) else "path"
    replace, left = _titling(kind, iter(texts))
    group = "".join(part if part.startswith("<defs>") else replace(part) for part in parts)
    assert next(left, None) is None, f"more titles than marks: {texts}"
    return group


def _titling(kind: str, texts: Iterator[str]) -> tuple[Callable[[str], str], Iterator[str]]:
    mark = re.compile(rf"<{kind} ([^>]*?)/>")

    def replace(part: str) -> str:
        return mark.sub(lambda found: f"<{kind} {found[1]}><title>{html.escape(next(texts))}</title></{kind}>", part)

    return replace, texts


def _end_of_group(text: str, start: int) -> int:
    depth = 0
    for tag in re.compile(r"<g[ >]|</g>").finditer(text, start):
        depth += 1 if tag[0] != "</g>" else -1
        if depth == 0:
            return tag.end()
    raise AssertionError("a group without an end")


def _of_the_page(text: str, name: str) -> str:
    """Every tag with the page's colours and font, and with ids that are unique there; what none refers to has none."""
    wanted = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    prefix = re.sub(r"[^\w.-]", "_", name)

    def changed(found: re.Match[str]) -> str:
        tag = re.sub(r' id="([^"]*)"', lambda own: f' id="{prefix}-{own[1]}"' if own[1] in wanted else "", found[0])
        tag = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", tag)
        tag = _COLOUR.sub(lambda colour: as_css(colour[0]), tag)
        return _FONT.sub(lambda font: f"font-family: var(--picture-font, {font[1]})", tag)

    return _TAG.sub(changed, text)
