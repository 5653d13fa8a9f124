"""`python -m cnn_ablation.predict RUN [IMAGE ...]`: what a trained network says of a person's own pictures.

RUN is the folder of a run, for example multirun/DATE/TIME/0. Without pictures it draws grids of the data set's own
validation images: some as they are, some that the network gets right, and some that it gets wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cnn_ablation import data
from cnn_ablation.config import Config, from_settings
from cnn_ablation.data.images import Pixels, channels_first, resize
from cnn_ablation.errors import DataError, RecordError, UserError
from cnn_ablation.plans import FILE_NAME
from cnn_ablation.records import Run, read_run, record_path, weights_path, write_atomically

GRID = (3, 4)
"""Rows and columns of pictures in a grid."""
_MAX_LISTED = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Classifies pictures, prints the most probable classes and draws each; returns the exit code."""
    options = _parse(arguments)
    try:
        written = predict(options.run, options.images, seed=options.seed, out=options.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"written: {', '.join(map(str, written))}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cnn_ablation.predict", description=__doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's folder, which holds run-seed*.json")
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="*", help="pictures of any size and mode")
    parser.add_argument("--seed", type=int, help="which of the folder's seeds (default: the first)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to draw (default: RUN)")
    return parser.parse_args(arguments)


def predict(run: Path, images: Sequence[Path], *, seed: int | None = None, out: Path | None = None) -> list[Path]:
    """Classifies pictures, or draws grids of validation images where none are given.

    Returns:
        The pictures drawn.

    Raises:
        UserError: the run, its weights or a picture cannot be read, or nothing can be written.
    """
    record = _record(run, seed)
    config = from_settings(record.settings)
    pictures = [_opened(path) for path in images]
    from cnn_ablation import trained  # torch is imported only once everything can be read

    network = trained.read(weights_path(run, record.seed), config)
    folder = out or run
    if not images:
        return _draw_grids(network, config, folder)
    channels, size, _ = network.input_shape
    pixels = np.concatenate([as_input(picture, channels, size) for picture in pictures])
    probabilities = network.probabilities(pixels)
    answers = list(map(Answer, [path.name for path in images], pictures, pixels, probabilities))
    for path, answer in zip(images, answers, strict=True):
        values = answer.probabilities
        best = np.argsort(-values, kind="stable")[:3]
        print(f"{path}: " + ", ".join(f"{network.class_names[place]} {100 * values[place]:.1f} %" for place in best))
    return [_draw_predictions(answers, network.class_names, folder)]


def as_input(picture: Any, channels: int, size: int) -> Pixels:
    """A picture as the network saw its own: uint8 (1, channels, size, size).

    Resized to a square by bicubic interpolation, as `data.image_size` does, so that other shapes are squeezed.

    Args:
        picture: a PIL image in RGB.
        channels: 1 or 3.
        size: in pixels.
    """
    pixels = np.asarray(picture.convert("RGB" if channels == 3 else "L"))
    return channels_first(resize(pixels.reshape(1, *pixels.shape[:2], channels), size))


def opaque(picture: Any) -> Any:
    """A PIL image of any mode in RGB: transparent parts become white, grey levels beyond 8 bits are scaled."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        levels = np.asarray(picture, dtype=np.float64)
        picture = Image.fromarray((levels / max(levels.max(), 1) * 255).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")


def _record(folder: Path, seed: int | None) -> Run:
    """The record of a run's folder.

    Raises:
        RecordError: there is none, or it has no trained network.
    """
    path = record_path(folder, seed) if seed is not None else min(folder.glob("run-seed*.json"), default=None)
    if path is None or not path.exists():
        if (folder / FILE_NAME).exists():
            jobs = sorted(
                (entry for entry in folder.iterdir() if entry.name.isdigit()), key=lambda entry: int(entry.name)
            )
            listed = ", ".join(map(str, jobs[:_MAX_LISTED])) + (", ..." if len(jobs) > _MAX_LISTED else "")
            raise RecordError(f"{folder} is a study; give the folder of one of its runs: {listed}")
        wanted = "run-seed*.json" if seed is None else f"run-seed{seed}.json"
        raise RecordError(f"{folder} holds no {wanted}; give the folder of a run, for example multirun/DATE/TIME/0")
    record = read_run(path)
    if record.status == "failed":
        raise RecordError(f"{path}: this run failed and has no network ({record.error})")
    if not weights_path(folder, record.seed).exists():
        raise RecordError(
            f"{folder} holds no weights of seed {record.seed}\n  remedy: train again with keep_weights=true reuse=false"
        )
    return record


def _opened(path: Path) -> Any:
    """A picture, decoded, in RGB.

    Raises:
        DataError: it is missing or no picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            picture.load()
            return opaque(ImageOps.exif_transpose(picture))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture ({error})") from error


class Answer(NamedTuple):
    """A picture as given and as the network saw it, and what it said."""

    name: str
    picture: Any
    seen: Pixels
    probabilities: npt.NDArray[np.float32]


def _draw_predictions(answers: Sequence[Answer], class_names: Sequence[str], folder: Path) -> Path:
    """One row a picture: as given, as the network saw it, and its probabilities."""
    from matplotlib.figure import Figure

    from cnn_ablation.report import figures

    figure = Figure(figsize=(9, 2.6 * len(answers)), layout="constrained")
    axes = figure.subplots(len(answers), 3, squeeze=False, width_ratios=[1, 1, 1.4])
    for row, answer in zip(axes, answers, strict=True):
        figures.plot_image(np.asarray(answer.picture), row[0], title=answer.name)
        size = "x".join(map(str, answer.seen.shape[1:]))
        figures.plot_image(answer.seen, row[1], title=f"as the network sees it, {size}")
        best = int(answer.probabilities.argmax())
        figures.plot_probabilities(answer.probabilities, class_names, row[2])
        row[2].set_title(f"{class_names[best]}: {100 * answer.probabilities[best]:.1f} %", fontsize="small")
    return _written(figure, folder / "predictions.png")


def _draw_grids(network: Any, config: Config, folder: Path) -> list[Path]:
    """Grids of validation images: the first ones, and the first that are predicted right and wrong."""
    part = data.load(config.data).val
    count = GRID[0] * GRID[1]
    probabilities = np.concatenate(
        [network.probabilities(part.images[start : start + 500]) for start in range(0, len(part), 500)]
    )
    predicted = probabilities.argmax(axis=1)
    is_right = predicted == part.labels
    print(f"{int(is_right.sum())} of {len(part)} validation images are predicted right")
    chosen = {
        "samples": np.arange(len(part))[:count],
        "right": np.flatnonzero(is_right)[:count],
        "wrong": np.flatnonzero(~is_right)[:count],
    }
    names, written = network.class_names, []
    for name, places in chosen.items():
        if len(places):
            figure = _grid(part.take(places), names, None if name == "samples" else probabilities[places])
            written.append(_written(figure, folder / f"{name}.png"))
    return written


def _grid(part: data.Split, class_names: Sequence[str], probabilities: npt.NDArray[np.float32] | None) -> Any:
    """Pictures with their class; with probabilities, the prediction (and true class) and a bar chart beside each."""
    from matplotlib.figure import Figure

    from cnn_ablation.report import figures

    rows, columns = GRID
    width = 1 if probabilities is None else 2
    figure = Figure(figsize=(2.6 * columns * width, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns * width, squeeze=False).reshape(rows * columns, width)
    for unused in axes[len(part) :].flat:
        unused.set_axis_off()
    for index, label in enumerate(part.labels):
        if probabilities is None:
            figures.plot_image(part.images[index], axes[index][0], title=class_names[label])
            continue
        values = probabilities[index]
        best = int(values.argmax())
        title = f"{class_names[best]}: {100 * values[best]:.0f} % ({class_names[label]})"
        colour = "#0072B2" if best == label else "#D55E00"
        figures.plot_image(part.images[index], axes[index][0], title=title, colour=colour)
        figures.plot_probabilities(values, class_names, axes[index][1], true_class=int(label))
    return figure


def _written(figure: Any, path: Path) -> Path:
    from cnn_ablation.report.pictures import rendered

    write_atomically(path, rendered(figure, "png"))
    return path


if __name__ == "__main__":
    sys.exit(main())
