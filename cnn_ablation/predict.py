"""`python -m cnn_ablation.predict RUN [IMAGE ...]`: what a trained network says of a person's own pictures.

RUN is the folder of a run, for example multirun/DATE/TIME/0. Without pictures it draws grids of the data set's own
validation images: some as they are, some that the network gets right, and some that it gets wrong.
"""

from __future__ import annotations

from cnn_ablation.common import commands

if __name__ == "__main__":
    commands.leave_when_interrupted()

import argparse
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cnn_ablation.common import extensions
from cnn_ablation.common.errors import DataError, RecordError
from cnn_ablation.common.files import write_atomically
from cnn_ablation.common.looks import cannot_write
from cnn_ablation.common.progress import warn
from cnn_ablation.config import from_settings
from cnn_ablation.runs.records import Run, read_run, record_path, weights_path
from cnn_ablation.study.plans import FILE_NAME
from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data import pictures
from cnn_ablation.tasks.image_classification.data.images import Pixels, channels_first
from cnn_ablation.tasks.image_classification.seeds import stream_seeds

GRID = (3, 4)
"""Rows and columns of pictures in a grid."""
_MAX_LISTED = 5
_BATCH = 500  # images shown to the network at once
_MAX_NAMED = 3  # pictures that cannot be read
_MAX_DRAWN = 40  # rows of predictions.png; matplotlib draws no figure of more than 65,536 pixels
_TRAIN_AGAIN = "remedy: train again with keep_weights=true reuse=false"


def main(arguments: Sequence[str] | None = None) -> int:
    """Classifies pictures, prints the most probable classes and draws each; returns the exit code."""
    return commands.guarded(lambda: _answer(arguments))


def _answer(arguments: Sequence[str] | None) -> int:
    options = _parse(arguments)
    modules = options.module or []
    written = predict(options.run, options.images, seed=options.seed, out=options.out, modules=modules)
    print(f"written: {', '.join(map(str, written))}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cnn_ablation.predict", description=__doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's folder, which holds run-seed*.json")
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="*", help="pictures of any size and mode")
    parser.add_argument("--seed", type=int, help="which of the folder's seeds (default: the first)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to draw (default: RUN)")
    about = "your own code that the run was trained with: my_nets.ResNet8, my_parts; it is imported only if named"
    parser.add_argument("--module", metavar="NAME", action="append", help=about)
    return parser.parse_intermixed_args(arguments)  # options may stand between the run and the pictures


def predict(
    run: Path,
    images: Sequence[Path],
    *,
    seed: int | None = None,
    out: Path | None = None,
    modules: Sequence[str] = (),
) -> list[Path]:
    """Classifies pictures, or draws grids of validation images where none are given.

    Args:
        run: a job's folder.
        images: pictures.
        seed: which of the folder's seeds; the smallest by default.
        out: where to draw; into `run` by default.
        modules: code of the user's own that may be imported, because she names it; what the run's files name alone is
            not.

    Returns:
        The pictures drawn.

    Raises:
        UserError: the run, its weights or a picture cannot be read, or nothing can be written.
    """
    folder = out or run
    record = _record(run, seed)
    _import_extensions(record, modules)
    config = _config(record, run)
    _require_named(config, modules, needs_data=not images)
    _check_whole(weights_path(run, record.seed))
    _check_writable(folder)
    given = _opened(images)
    if not images:
        data.describe(config.data)
        data.check_available(config.data)
    from cnn_ablation.tasks.image_classification import (
        weights as trained,  # torch is imported only once everything can be read
    )

    network = trained.read(weights_path(run, record.seed), config)
    if record.class_names and network.class_names != tuple(record.class_names):
        raise RecordError(f"{weights_path(run, record.seed)} is of another run: its classes are not those of {run}")
    if not images:
        return _draw_grids(network, _images(record, network, config), run, folder)
    channels, size = _picture_size(network, run)
    seen = np.concatenate([as_input(picture, channels, size) for picture in given])
    answers = list(map(Answer, map(str, images), given, seen, _probabilities(network, seen, run)))
    for answer in answers:
        print(f"{answer.path}: {_most_probable(answer.probabilities, network.class_names)}")
    if len(answers) > _MAX_DRAWN:
        print(f"the first {_MAX_DRAWN} of {len(answers)} are drawn")
    return [_draw_predictions(answers[:_MAX_DRAWN], _drawable(network.class_names), folder)]


def _picture_size(network: Any, run: Path) -> tuple[int, int]:
    """Channels and size of the pictures that a network can be shown.

    Raises:
        RecordError: it was trained on what no picture can be made into.
    """
    channels, height, width = network.input_shape
    if network.pixels == "uint8" and channels in (1, 3) and height == width:
        return channels, height
    raise RecordError(
        f"the network of {run} takes images {network.input_shape} of {network.pixels}; pictures become square ones of "
        f"1 or 3 channels, of uint8\n  remedy: leave out the pictures: its own validation images are drawn"
    )


def _most_probable(probabilities: npt.NDArray[np.float32], class_names: Sequence[str]) -> str:
    best = np.argsort(-probabilities, kind="stable")[:3]
    return ", ".join(f"{class_names[place]} {100 * probabilities[place]:.1f} %" for place in best)


def as_input(picture: Any, channels: int, size: int) -> Pixels:
    """A picture as training would have read it: uint8 (1, channels, size, size).

    Args:
        picture: from `data.pictures.opened`.
        channels: 1 or 3.
        size: in pixels.
    """
    return channels_first(pictures.pixels(picture, channels, size)[None])


def _opened(paths: Sequence[Path]) -> list[Any]:
    """The pictures as PIL images.

    Raises:
        DataError: names those that are missing or no pictures.
    """
    found, damaged = [], []
    with pictures.without_remarks():
        for path in paths:
            try:
                found.append(pictures.opened(path))
            except DataError as error:
                damaged.append(str(error))
    if damaged:
        more = [f"... and {len(damaged) - _MAX_NAMED} more"] if len(damaged) > _MAX_NAMED else []
        raise DataError("\n".join(damaged[:_MAX_NAMED] + more))
    return found


def _config(record: Run, folder: Path) -> Config:
    """The configuration of a run.

    Raises:
        RecordError: its record does not hold one.
        ConfigError: it names what this version does not know.
    """
    try:
        return from_settings(Config, record.settings)
    except (KeyError, TypeError, AttributeError) as error:
        path = record_path(folder, record.seed)
        raise RecordError(f"{path} is damaged: its configuration is not whole ({error})") from error


def _import_extensions(record: Run, modules: Sequence[str]) -> None:
    """Imports those extensions of a run that are named.

    Raises:
        RecordError: one of them is not.
    """
    settings: Any = record.settings  # a damaged record may hold anything; that is told below
    names = (settings.get("extensions") or []) if isinstance(settings, dict) else []
    extensions.load([name for name in names if name in modules])
    missing = [name for name in names if name not in modules]
    if missing:
        raise RecordError(_name_it("extensions", ",".join(map(str, missing)), missing))


def _require_named(config: Config, modules: Sequence[str], *, needs_data: bool) -> None:
    """Refuses to import what nobody but the run's record names.

    Raises:
        RecordError: says what to name.
    """
    targets = {"model.target": getattr(config.model, "target", "")}
    if needs_data:
        targets["data.target"] = getattr(config.data, "target", "")
    for key, target in targets.items():
        if target and target not in modules:
            raise RecordError(_name_it(key, target, [target]))


def _name_it(key: str, value: str, names: Sequence[str]) -> str:
    flags = " ".join(f"--module {name}" for name in names)
    return (
        f"this run was trained with somebody's own code, {key}={value}, which is imported only if you name it\n"
        f"  remedy: {flags}, if you trust it, where Python finds it (the working directory, or installed)"
    )


def _check_whole(weights: Path) -> None:
    """Compares the checksums that a file of weights holds of its parts, which PyTorch does not.

    Raises:
        RecordError: the file is cut short, was written to, or is none of weights.
    """
    try:
        with zipfile.ZipFile(weights) as archive:
            is_whole = archive.testzip() is None
    except Exception:  # on files that are none, zipfile and the decompressors below it raise what they like
        is_whole = False
    if not is_whole:
        raise RecordError(
            f"{weights} is missing, damaged or of another network (it is no whole file of weights)\n  {_TRAIN_AGAIN}"
        )


def _check_writable(folder: Path) -> None:
    problem = cannot_write(folder)
    if problem:
        raise RecordError(f"cannot write to {folder} ({problem})\n  remedy: name another folder with --out DIR")


def _probabilities(network: Any, images: Pixels, run: Path) -> npt.NDArray[np.float32]:
    """Class probabilities (N, classes) of images uint8 (N, channels, size, size).

    Raises:
        RecordError: the network gives none, as its training diverged.
    """
    parts = [network.probabilities(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
    found: npt.NDArray[np.float32] = np.concatenate(parts)
    if not np.isfinite(found).all():
        raise RecordError(f"the network of {run} gives no numbers, because its training diverged; name another run")
    return found


def _drawable(names: Sequence[str]) -> list[str]:
    """Names that matplotlib takes as they are: a dollar sign starts no formula, and no character is half of one."""
    return [name.encode(errors="replace").decode().replace("$", r"\$") for name in names]


def _record(folder: Path, seed: int | None) -> Run:
    """The record of a run's folder.

    Raises:
        RecordError: there is none, or it has no trained network.
    """
    seeds = _seeds(folder)
    if not seeds or seed not in (None, *seeds):
        raise RecordError(_no_record(folder, seed, seeds))
    path = record_path(folder, seeds[0] if seed is None else seed)
    record = read_run(path)
    if record.status == "failed":
        raise RecordError(f"{path}: this run failed and has no network ({record.error})")
    if not weights_path(folder, record.seed).exists():
        raise RecordError(f"{folder} holds no weights of seed {record.seed}\n  {_TRAIN_AGAIN}")
    return record


def _seeds(folder: Path) -> list[int]:
    """Of the records in a folder, ascending."""
    names = (re.fullmatch(r"run-seed(\d+)\.json", path.name) for path in folder.glob("run-seed*.json"))
    return sorted(int(name[1]) for name in names if name)


def _no_record(folder: Path, seed: int | None, seeds: Sequence[int]) -> str:
    """Why a folder has no record of a seed, and which folder or seed may be meant."""
    example = "give the folder of a run, for example multirun/DATE/TIME/0"
    if seeds:
        return f"{folder} holds no run-seed{seed}.json\n  allowed: --seed {_listed(seeds)}"
    if not folder.is_dir():
        return f"{folder} is {'a file' if folder.exists() else 'not there'}; {example}"
    if (folder / FILE_NAME).exists():
        jobs = sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
        return f"{folder} is a study; give the folder of one of its runs: {_listed(jobs)}"
    return f"{folder} holds no run-seed{'*' if seed is None else seed}.json; {example}"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values[:_MAX_LISTED])) + (", ..." if len(values) > _MAX_LISTED else "")


class Answer(NamedTuple):
    """A picture as given and as the network saw it, and what it said."""

    path: str
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
        (name,) = _drawable([Path(answer.path).name])
        figures.plot_image(np.asarray(answer.picture.convert("RGB")), row[0], title=name)
        size = "x".join(map(str, answer.seen.shape[1:]))
        figures.plot_image(answer.seen.transpose(1, 2, 0), row[1], title=f"as the network sees it, {size}")
        best = int(answer.probabilities.argmax())
        figures.plot_probabilities(answer.probabilities, class_names, row[2])
        row[2].set_title(f"{class_names[best]}: {100 * answer.probabilities[best]:.1f} %", fontsize="small")
    return _written(figure, folder / "predictions.png")


def _images(record: Run, network: Any, config: Config) -> data.Split:
    """The validation images of a run; a warning says where they are not those that it was trained beside.

    Raises:
        DataError: the data cannot be loaded, or are of other classes or another shape.
    """
    images = data.load(config.data)
    if (images.class_names, images.input_shape) != (network.class_names, network.input_shape):
        raise DataError(
            f"data={config.data.name} has other classes or another image size than when this network was trained\n"
            f"  remedy: restore the data, or name pictures: RUN IMAGE..."
        )
    trained_on = record.provenance.get("identity", {}).get("data")
    if trained_on not in (None, images.digest):
        warn(f"data={config.data.name} has changed since this network was trained; it may have seen these images")
    return data.load(config.data, seed=stream_seeds(config.vary, record.seed).split).val


def _draw_grids(network: Any, part: data.Split, run: Path, folder: Path) -> list[Path]:
    """Grids of validation images: the first ones, and the first that are predicted right and wrong."""
    count = GRID[0] * GRID[1]
    probabilities = _probabilities(network, part.images, run)
    predicted = probabilities.argmax(axis=1)
    is_right = predicted == part.labels
    print(f"{int(is_right.sum())} of {len(part)} validation images are predicted right")
    chosen = {
        "samples": np.arange(len(part))[:count],
        "right": np.flatnonzero(is_right)[:count],
        "wrong": np.flatnonzero(~is_right)[:count],
    }
    names, written = _drawable(network.class_names), []
    for name, places in chosen.items():
        if len(places):
            figure = _grid(part.take(places), names, None if name == "samples" else probabilities[places])
            written.append(_written(figure, folder / f"{name}.png"))
    return written


def _grid(part: data.Split, class_names: Sequence[str], probabilities: npt.NDArray[np.float32] | None) -> Any:
    """Pictures with their class; with probabilities, the prediction (and true class) and a bar chart beside each."""
    from matplotlib.figure import Figure

    from cnn_ablation.report import figures

    columns = GRID[1]
    rows = -(-len(part) // columns)  # as many as the images fill
    width = 1 if probabilities is None else 2
    figure = Figure(figsize=(2.6 * columns * width, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns * width, squeeze=False).reshape(rows * columns, width)
    for unused in axes[len(part) :].flat:
        unused.set_axis_off()
    for index, label in enumerate(part.labels):
        if probabilities is None:
            figures.plot_image(part.images[index].transpose(1, 2, 0), axes[index][0], title=class_names[label])
            continue
        values = probabilities[index]
        best = int(values.argmax())
        title = f"{class_names[best]}: {100 * values[best]:.0f} % ({class_names[label]})"
        colour = "#0072B2" if best == label else "#D55E00"
        figures.plot_image(part.images[index].transpose(1, 2, 0), axes[index][0], title=title, colour=colour)
        figures.plot_probabilities(values, class_names, axes[index][1], true_class=int(label))
    return figure


def _written(figure: Any, path: Path) -> Path:
    from cnn_ablation.report.drawing import rendered

    write_atomically(path, rendered(figure, "png"))
    return path


if __name__ == "__main__":
    commands.run_as_process(main)
