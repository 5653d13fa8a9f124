"""Every check of a configuration that can be made before anything is loaded or trained. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from cnn_ablation import data
from cnn_ablation.config import Config, NetworkConfig, bounds_problems, nearest
from cnn_ablation.data.images import DataSpec
from cnn_ablation.designs import DESIGNS, Knob, keys_moved_twice
from cnn_ablation.errors import ConfigError, Problem
from cnn_ablation.models import network_layers
from cnn_ablation.models.layers import LayerError, Shape, trace

# What a study sets for all its runs; varying it would compare nothing.
NOT_KNOBS = {
    "seed": "replicates=N trains every arm with N seeds",
    "replicates": "replicates=N once, for all arms",
    "arm": "the study names its arms itself",
    **dict.fromkeys(
        ("stats", "reuse", "store", "dry_run", "on_error", "checkpoint_seconds", "keep_weights", "paper"),
        "give it once, for all arms",
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
        problems = _train_problems(config, spec) + network_problems(config.model, spec.input_shape, spec.num_classes)
    if problems:
        raise ConfigError(problems, arm=arm)


def _train_problems(config: Config, spec: DataSpec) -> list[Problem]:
    shift = config.train.max_translation
    if shift >= spec.image_size:
        allowed = f"fewer pixels than the {spec.image_size} of an image"
        return [Problem("train.max_translation", shift, allowed, remedy="a few pixels; 4 is usual for 32x32 images")]
    images = spec.train_images(config.data)
    if config.data.val_images is not None and images < 1:
        allowed = f"fewer than the {spec.source_train_images} training images of data={config.data.name}"
        return [Problem("data.val_images", config.data.val_images, allowed, remedy="a smaller validation part")]
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


def network_problems(model: NetworkConfig, input_shape: Shape, num_classes: int) -> list[Problem]:
    """Settings of a network that are out of bounds, contradict each other or do not fit images of this shape."""
    problems = bounds_problems(model, "model.")
    if problems:
        return problems
    try:
        trace(network_layers(model, num_classes), input_shape)
    except ConfigError as error:
        return list(error.problems)
    except LayerError as error:
        key = "model.groups" if "groups" in str(error) else "model.kernel_sizes"
        return [
            Problem(
                key,
                getattr(model, key.removeprefix("model."), None),
                f"filters and pooling windows that fit their maps; here {error} (layer {error.index + 1})",
                remedy=f"smaller filters, fewer convolutions, or a data.image_size above {min(input_shape[1:])}"
                if key == "model.kernel_sizes"
                else "groups that divide the channels and filters of their convolution",
            )
        ]
    return []
