"""Single pictures and what a network says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BARS = 10


def plot_image(pixels: npt.NDArray[np.uint8], ax: Axes, *, title: str = "", colour: str = "black") -> Axes:
    """A picture, uint8 (channels, height, width) or (height, width, channels) with 1 or 3 channels."""
    image = pixels.transpose(1, 2, 0) if pixels.shape[0] in (1, 3) and pixels.shape[-1] not in (1, 3) else pixels
    ax.imshow(image.squeeze(), cmap="gray" if image.shape[-1] == 1 else None, vmin=0, vmax=255)
    ax.set_title(title, fontsize="small", color=colour)
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def plot_probabilities(
    probabilities: npt.ArrayLike, class_names: Sequence[str], ax: Axes, *, true_class: int | None = None
) -> Axes:
    """Bar chart of one picture's class probabilities in percent: blue the prediction, red a true class that it missed.

    Args:
        probabilities: float (K,).
        class_names: K names; beyond ten classes the ten most probable are drawn.
        ax: drawn on.
        true_class: where it is known.
    """
    percent = 100 * np.asarray(probabilities, dtype=np.float64)
    shown = np.sort(np.argsort(-percent, kind="stable")[:_MOST_BARS])
    best = int(percent.argmax())
    colours = ["#0072B2" if place == best else "#D55E00" if place == true_class else "0.75" for place in shown]
    ax.barh([str(class_names[place]) for place in shown], percent[shown], color=colours)
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("probability (%)", fontsize="small")
    ax.tick_params(labelsize="small")
    return ax
