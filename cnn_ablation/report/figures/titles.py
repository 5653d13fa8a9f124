"""What single points of a picture are, shown on a page when one points at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_TITLES = "_cnn_ablation_titles"


def titled(artist: Artist, texts: Sequence[str]) -> None:
    """Says what each marker of a line, or each patch of a collection, is.

    Args:
        artist: a line of n markers that all lie on the canvas, or a collection of n patches.
        texts: n texts.
    """
    setattr(artist, _TITLES, tuple(texts))


def marked(figure: Figure) -> dict[str, tuple[str, ...]]:
    """Gives every such artist of a figure an id for its group in SVG; the texts by id."""
    artists = figure.findobj(lambda artist: bool(getattr(artist, _TITLES, ())), include_self=False)  # empty: no mark
    found = {f"titled-{number}": artist for number, artist in enumerate(dict.fromkeys(artists))}
    for name, artist in found.items():
        artist.set_gid(name)
    return {name: getattr(artist, _TITLES) for name, artist in found.items()}
