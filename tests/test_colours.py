"""Colours of pictures are apart for readers of all kinds, on paper and in print."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from cnn_ablation.report.figures.colours import INK, LINES, PAPER, VARIABLES, VERDICT_STYLE

# Machado, Oliveira and Fernandes (2009), "A physiologically-based model for simulation of color vision deficiency",
# severity 1.0, applied to linear sRGB.
VISION = {
    "trichromat": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""IEC 61966-2-1, linear sRGB to XYZ at D65."""


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (1976) of linear sRGB at D65."""
    ratio = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(axis=1)
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def distance(first: str, other: str, vision: str) -> float:
    """Euclidean, in CIELAB; 2.3 is just noticeable."""
    one, two = (lab(VISION[vision] @ linear(colour)) for colour in (first, other))
    return float(np.linalg.norm(one - two))


def test_the_distance_is_that_of_cielab() -> None:
    """Black and white are 100 apart; sRGB's red is at L 53.24, a 80.09, b 67.20 (Lindbloom)."""
    assert distance("#000000", "#ffffff", "trichromat") == pytest.approx(100, abs=0.01)
    assert lab(linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.05)


def test_red_and_green_of_before_would_not_pass() -> None:
    """Matplotlib's own green and red, that learning curves had."""
    assert distance("#2ca02c", "#d62728", "deuteranopia") < 35
    assert distance("#2ca02c", "#d62728", "trichromat") > 100


@pytest.mark.parametrize("vision", ["trichromat", "protanopia", "deuteranopia"])
def test_lines_can_be_told_apart(vision: str) -> None:
    nearest = min(combinations((INK, *LINES), 2), key=lambda pair: distance(*pair, vision))
    assert distance(*nearest, vision) >= 20, nearest


def test_lines_can_be_seen_on_paper() -> None:
    def luminance(colour: str) -> float:
        return float(XYZ[1] @ linear(colour))

    contrasts = {line: 1.05 / (luminance(line) + 0.05) for line in LINES}
    assert min(contrasts.values()) >= 2, contrasts


@pytest.mark.parametrize("vision", ["trichromat", "protanopia", "deuteranopia"])
def test_verdicts_can_be_told_apart(vision: str) -> None:
    """By their markers too, where colours are nearest."""
    colours = [colour for colour, _ in VERDICT_STYLE.values()]
    assert min(distance(*pair, vision) for pair in combinations(colours, 2)) >= 15
    assert len({marker for _, marker in VERDICT_STYLE.values()}) == len(VERDICT_STYLE)


def test_every_colour_has_a_name_of_its_own() -> None:
    assert {INK, PAPER, *LINES, *(colour for colour, _ in VERDICT_STYLE.values())} <= set(VARIABLES)
    assert len(set(VARIABLES.values())) == len({colour.lower() for colour in VARIABLES})
