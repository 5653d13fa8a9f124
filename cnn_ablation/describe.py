"""`python -m cnn_ablation.describe [KEY=VALUE ...] [input=[C,H,W]] [classes=N]`: a network's layers and parameters.

Trains nothing. `input` and `classes` are those of the data set unless given.
"""

from __future__ import annotations

from cnn_ablation.common import commands

if __name__ == "__main__":
    commands.leave_when_interrupted()

import math
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnn_ablation.common.errors import ConfigError, Problem

if TYPE_CHECKING:
    from rich.table import Table

    from cnn_ablation.tasks.image_classification.config import AnyNetworkConfig
    from cnn_ablation.tasks.image_classification.models.layers import Shape
    from cnn_ablation.tasks.image_classification.models.spec import NetworkSpec

_WIDTH_WITHOUT_TERMINAL = 100
_OWN = ("input", "classes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the layer table of a configuration; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return commands.guarded(lambda: _answer(words))


def _answer(words: Sequence[str]) -> int:
    if {"-h", "--help"} & set(words):
        print(__doc__)
    else:
        _describe(words)
    return 0


def _describe(words: Sequence[str]) -> None:
    from cnn_ablation.app import arguments
    from cnn_ablation.app.composition import compose
    from cnn_ablation.tasks.image_classification import data

    asked = arguments.read(words)
    for name, value in asked.flags.items():
        allowed = "KEY=VALUE, input=[C,H,W] and classes=N; describe has no flag but --help"
        raise ConfigError([Problem(name, value, allowed, remedy="leave it out")])
    own = {key: value for word in asked.overrides for key, _, value in [word.partition("=")] if key in _OWN}
    shape = _shape(own["input"]) if "input" in own else None
    classes = _classes(own["classes"]) if "classes" in own else None
    config = compose([word for word in asked.overrides if word.partition("=")[0] not in own])
    if shape is None or classes is None:
        spec = data.describe(config.data)
        shape, classes = shape or spec.input_shape, classes or spec.num_classes
    show(config.model, shape, classes)


def _shape(text: str) -> Shape:
    found = re.fullmatch(r"\[?([0-9]{1,6}), *([0-9]{1,6}), *([0-9]{1,6})\]?", text.strip())
    sizes = tuple(map(int, found.groups())) if found else ()
    if not sizes or min(sizes) < 1:
        allowed = "channels, height and width, each at least 1 and below a million"
        raise ConfigError([Problem("input", text, allowed, remedy="input=[3,32,32]")])
    return sizes


def _classes(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) < 2:
        allowed = "a whole number, at least 2 and below a million"
        raise ConfigError([Problem("classes", text, allowed, remedy="classes=10")])
    return int(text)


def show(model: AnyNetworkConfig, input_shape: Shape, num_classes: int) -> None:
    """Prints a network's layers: output shape, parameters, and how many of them are trained.

    Parameters are counted as Keras does, with the mean and variance that batch norm keeps but does not train.

    Raises:
        ConfigError: a setting is out of bounds, or the network does not fit the input.
    """
    from rich.console import Console

    from cnn_ablation.common.progress import screen_environment
    from cnn_ablation.tasks.image_classification import checks, models

    problems = checks.network_problems(model, input_shape, num_classes)
    if problems:
        raise ConfigError(problems)
    spec = models.describe(model, num_classes, input_shape)
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    console = Console(width=width, highlight=False, markup=False, _environ=screen_environment())
    name = getattr(model, "target", model.name)
    console.print(_table(spec, f"{name}, input {_times(input_shape)}"))
    work = f"{spec.multiply_adds:,.0f}" if math.isfinite(spec.multiply_adds) else "an unknown number of"
    total, trained = spec.num_trainable + spec.num_kept, spec.num_trainable
    console.print(f"{total:,} parameters, {trained:,} of them trainable; {work} multiply-adds an image")


def _table(spec: NetworkSpec, title: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in ("layer", "what it is"):
        table.add_column(name)
    for name in ("output shape", "parameters", "trainable"):
        table.add_column(name, justify="right")
    for row in spec.rows:
        counts = row.num_trainable + row.num_kept, row.num_trainable
        shape = "not called" if row.output_shape is None else _times(row.output_shape)
        table.add_row(row.name, row.summary, shape, *(f"{count:,}" for count in counts))
    return table


def _times(shape: Shape) -> str:
    return " x ".join(map(str, shape))


if __name__ == "__main__":
    commands.run_as_process(main)
