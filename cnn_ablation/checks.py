"""Every check of a configuration that can be made before anything is loaded or trained. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from cnn_ablation import data
from cnn_ablation.config import Config, ModelConfig, bounds_problems, nearest
from cnn_ablation.data.images import DataSpec
from cnn_ablation.designs import DESIGNS, Knob, keys_moved_twice
from cnn_ablation.errors import ConfigError, Problem
from cnn_ablation.models import network_layers
from cnn_ablation.models.layers import LayerError, trace

# What a study sets for all its runs; varying it would compare nothing.
NOT_KNOBS = {
    "seed": "replicates=N trains every arm with N seeds",
    "replicates": "replicates=N once, for all arms",
    "arm": "the study names its arms itself",
    **dict.fromkeys(
        ("stats", "reuse", "store", "dry_run", "on_error", "checkpoint_seconds"), "give it once, for all arms"
    ),
}


def check_study(design: str, knobs: Sequence[Knob]) -> None:
    """Refuses a design that is not there or cannot tell what these knobs mean, and what is no knob.

    Raises:
        ConfigError: with all problems found.
    """
    key = "hydra.sweeper.design"
    problems = [
        Problem(name, _levels(knob), "one value: it is no knob", remedy=NOT_KNOBS[name])
        for knob in knobs
        for moved in knob.keys
        if (name := moved.lstrip("+~").partition(".")[0]) in NOT_KNOBS
    ]
    twice = keys_moved_twice(knobs)
    if design not in DESIGNS:
        found = nearest(design, list(DESIGNS))
        problems.append(Problem(key, design, ", ".join(DESIGNS), f"{key}={found}" if found else None))
    elif twice and design != "one_at_a_time":
        allowed = f"one_at_a_time, because two knobs move {twice[0]}"
        problems.append(Problem(key, design, allowed, remedy=f"{key}=one_at_a_time, or one knob for {twice[0]}"))
    if problems:
        raise ConfigError(problems)


def _levels(knob: Knob) -> str:
    return ",".join(level.label for level in knob.levels)


def check(config: Config, *, arm: str | None = None) -> None:
    """Checks every value alone, then those that depend on each other and on the data.

    Args:
        config: any configuration of the right types.
        arm: named in the message, where the configuration is an arm of a study.

    Raises:
        ConfigError: with all problems found.
        DataError: the folder of an image-folder data set has not the right form.
    """
    problems = bounds_problems(config)
    if not problems:
        spec = data.describe(config.data)
        problems = _batch_problems(config, spec) + _network_problems(config.model, spec)
    if problems:
        raise ConfigError(problems, arm=arm)


def _batch_problems(config: Config, spec: DataSpec) -> list[Problem]:
    images = spec.train_images(config.data.val_fraction)
    if config.train.batch_size <= images:
        return []
    return [
        Problem(
            "train.batch_size",
            config.train.batch_size,
            f"at most the {images} training images of data={config.data.name}",
            remedy="a smaller batch, or a smaller data.val_fraction",
        )
    ]


def _network_problems(model: ModelConfig, spec: DataSpec) -> list[Problem]:
    if len(model.filters) != len(model.kernel_sizes):
        count = len(model.filters)
        return [
            Problem("model.kernel_sizes", model.kernel_sizes, f"{count} sizes, one for each entry of model.filters")
        ]
    try:
        trace(network_layers(model, spec.num_classes), spec.input_shape)
    except LayerError as error:
        return [
            Problem(
                "model.kernel_sizes",
                model.kernel_sizes,
                f"filters and pooling windows that fit their maps; here {error} (layer {error.index + 1})",
                remedy=f"smaller filters, fewer convolutions, or a data.image_size above {spec.image_size}",
            )
        ]
    return []
