"""Generated images of ten shapes: any number, size and difficulty, the same for the same seed, no download."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cnn_ablation.tasks.image_classification.config import ShapesConfig
from cnn_ablation.tasks.image_classification.data.images import DataSpec, Source, Split, channels_first

Floats = npt.NDArray[np.float32]
_CHUNK = 2000  # images drawn at once: 2,000 maps of 32x32 float32 are 8 MB, which stays in the cache

_DEFAULT_SIZE = 32


def _radius(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.hypot(u, v), dtype=np.float32)


def _extent(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.maximum(np.abs(u), np.abs(v)), dtype=np.float32)


# Each takes coordinates with the shape's centre at 0 and its outer radius at 1, and is true inside the shape.
SHAPES: dict[str, Callable[[Floats, Floats], npt.NDArray[np.bool_]]] = {
    "disk": lambda u, v: _radius(u, v) < 0.9,
    "ring": lambda u, v: np.abs(_radius(u, v) - 0.75) < 0.22,
    "square": lambda u, v: _extent(u, v) < 0.8,
    "frame": lambda u, v: np.abs(_extent(u, v) - 0.65) < 0.2,
    "triangle": lambda u, v: (v > -0.6) & (np.abs(u) < (1.0 - v) * 0.6),
    "plus": lambda u, v: (np.minimum(np.abs(u), np.abs(v)) < 0.25) & (_extent(u, v) < 0.95),
    "bar": lambda u, v: (np.abs(v) < 0.3) & (np.abs(u) < 1.0),
    "crescent": lambda u, v: (_radius(u, v) < 0.95) & (_radius(u - np.float32(0.45), v) > 0.75),
    "dots": lambda u, v: _radius(np.abs(u) - np.float32(0.6), v) < 0.38,
    "star": lambda u, v: _radius(u, v) < 0.65 + 0.35 * np.cos(5 * np.arctan2(v, u)),
}


def stamp(_: ShapesConfig) -> str:
    """Always the same: the settings say all."""
    return ""


def describe(data: ShapesConfig) -> DataSpec:
    """Sizes as configured."""
    return DataSpec(3, data.image_size or _DEFAULT_SIZE, len(SHAPES), data.train_images, data.test_images)


def load(data: ShapesConfig) -> Source:
    """Draws the training and the test part from two streams of `generator_seed`."""
    train_stream, test_stream = np.random.default_rng(data.generator_seed).spawn(2)
    size = data.image_size or _DEFAULT_SIZE
    return Source(
        draw(data.train_images, size, data.difficulty, train_stream),
        draw(data.test_images, size, data.difficulty, test_stream),
        tuple(SHAPES),
    )


def draw(count: int, size: int, difficulty: float, generator: np.random.Generator) -> Split:
    """`count` images uint8 (N, 3, size, size) with classes as equal in number as `count` allows, in random order."""
    labels = generator.permutation(np.arange(count) % len(SHAPES)).astype(np.int64)
    chunks = [
        _draw_chunk(labels[start : start + _CHUNK], size, difficulty, generator) for start in range(0, count, _CHUNK)
    ]
    return Split(channels_first(np.concatenate(chunks)), labels)


def _draw_chunk(
    labels: npt.NDArray[np.int64], size: int, difficulty: float, generator: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """One coloured shape per image on a cluttered, noisy ground: (N, size, size, 3)."""
    count = len(labels)
    ground, ink = _colours(count, difficulty, generator)
    pixels = np.broadcast_to(ground[:, None, None, :], (count, size, size, 3)).copy()
    for _ in range(round(4 * difficulty)):
        _paint(pixels, _clutter(count, size, generator), generator.uniform(40, 215, (count, 3)).astype(np.float32))
    _paint(pixels, _shape_masks(labels, size, difficulty, generator), ink)
    pixels += generator.standard_normal(pixels.shape, dtype=np.float32) * (4 + 50 * difficulty)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _paint(pixels: Floats, where: npt.NDArray[np.bool_], colours: Floats) -> None:
    """Sets the pixels (N, size, size, 3) of every mask (N, size, size) to its image's colour (N, 3), in place."""
    pixels[where] = np.broadcast_to(colours[:, None, None, :], pixels.shape)[where]


def _colours(count: int, difficulty: float, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Ground and shape colours (N, 3), 130 grey levels apart when easy and 50 when hard, in a random direction."""
    ground = generator.uniform(70, 185, (count, 3))
    direction = generator.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    ink = np.clip(ground + direction * (130 - 80 * difficulty), 0, 255)
    return ground.astype(np.float32), ink.astype(np.float32)


def _grid(size: int) -> tuple[Floats, Floats]:
    """Pixel centres (1, size, size) over [-1, 1]."""
    line = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    return line[None, None, :], line[None, :, None]


def _shape_masks(
    labels: npt.NDArray[np.int64], size: int, difficulty: float, generator: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Where each image's shape lies (N, size, size): moved, turned and scaled the more, the harder."""
    count = len(labels)

    def uniform(low: float, high: float) -> Floats:
        return generator.uniform(low, high, (count, 1, 1)).astype(np.float32)

    radius = 0.7 * (1 - difficulty * uniform(0.0, 0.5))
    slack = (1 - radius) * difficulty
    x, y = _grid(size)
    x, y = (x - uniform(-1, 1) * slack) / radius, (y - uniform(-1, 1) * slack) / radius
    angle = uniform(-1, 1) * difficulty * np.float32(np.pi / 5)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    masks = np.empty((count, size, size), dtype=bool)
    for label, inside in enumerate(SHAPES.values()):
        members = labels == label
        masks[members] = inside(u[members], v[members])
    return masks


def _clutter(count: int, size: int, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A thin line across each image at a random place and slope (N, size, size)."""
    x, y = _grid(size)
    angle = generator.uniform(0, np.pi, (count, 1, 1)).astype(np.float32)
    offset = generator.uniform(-0.9, 0.9, (count, 1, 1)).astype(np.float32)
    distance: Floats = np.abs(x * np.cos(angle) + y * np.sin(angle) - offset)
    return distance < 0.06
