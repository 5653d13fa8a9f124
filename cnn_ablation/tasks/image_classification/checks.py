"""Values of a configuration that depend on each other and on the data. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator

from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.config import all_settings, bounds_of, keys_of, value_problems
from cnn_ablation.runs.records import FIGURES
from cnn_ablation.study.metric import settings_problems, unknown_metric
from cnn_ablation.tasks.image_classification import data, models
from cnn_ablation.tasks.image_classification.config import GROUPS, AnyNetworkConfig, Config, ModuleConfig, SGDConfig
from cnn_ablation.tasks.image_classification.data.images import DataSpec
from cnn_ablation.tasks.image_classification.lengths import num_updates
from cnn_ablation.tasks.image_classification.models import NETWORKS, network_layers
from cnn_ablation.tasks.image_classification.models.layers import LayerError, Shape, trace
from cnn_ablation.tasks.image_classification.parts import OPTIONS, SCHEDULES
from cnn_ablation.tasks.image_classification.schedules import warmup_steps

_USUAL_PIXELS = {"max_translation": "a few pixels; 4 is usual", "cutout": "a smaller square; 8 to 16 is usual"}
_MOST_PARAMETERS = 2 * 10**9  # 8 GB of float32, and as much for each moment that an optimiser keeps


def problems(config: Config) -> list[Problem]:
    """What in a configuration contradicts itself or its data; each value alone fits the schema.

    Raises:
        ConfigError: nobody reads data of this name.
        DataError: the folder of an image-folder data set has not the right form.
    """
    spec = _described(config)
    return [
        *_stats_problems(config),
        *_train_problems(config, spec),
        *_recipe_problems(config, spec),
        *network_problems(config.model, spec.input_shape, spec.num_classes),
    ]


def _described(config: Config) -> DataSpec:
    """The sizes of a configuration's data.

    Raises:
        ConfigError: nobody reads data of this name.
    """
    try:
        return data.describe(config.data)
    except KeyError as error:
        if error.args != (config.data.name,):
            raise
        allowed = ", ".join(str(bounds_of(keys_of(option())["name"])) for option in GROUPS["data"].values())
        raise ConfigError(
            [Problem("data.name", config.data.name, allowed, remedy="one of their dataclasses")]
        ) from error


def _stats_problems(config: Config) -> Iterator[Problem]:
    """A metric that no run of image classification has, or a margin in another unit than the metric's."""
    if config.stats.metric not in FIGURES:
        yield unknown_metric(config.stats.metric, FIGURES, "stats.")
    yield from settings_problems(config.stats, "stats.")


def _train_problems(config: Config, spec: DataSpec) -> list[Problem]:
    for name, usual in _USUAL_PIXELS.items():
        given = getattr(config.train, name)
        if given >= spec.image_size:
            allowed = f"fewer pixels than the {spec.image_size} of an image"
            return [Problem(f"train.{name}", given, allowed, remedy=f"{usual} for 32x32 images")]
    images = spec.train_images(config.data)
    if config.data.val_images is not None and images < 1:
        allowed = f"fewer than the {spec.source_train_images} training images of data={config.data.name}"
        return [Problem("data.val_images", config.data.val_images, allowed, remedy="a smaller validation part")]
    if problem := _split_problem(config, spec, images):
        return [problem]
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


def _split_problem(config: Config, spec: DataSpec, images: int) -> Problem | None:
    """A part of the split that is too small to hold every class."""
    val_images = spec.source_train_images - images
    if min(images, val_images) >= spec.num_classes:
        return None
    key = "data.val_fraction" if config.data.val_images is None else "data.val_images"
    allowed = f"one image or more of each of {spec.num_classes} classes to validate and to train on"
    here = f"here {val_images} and {images} images"
    return Problem(key, all_settings(config)[key], f"{allowed}; {here}", remedy=f"another {key}, or more images")


def _recipe_problems(config: Config, spec: DataSpec) -> Iterator[Problem]:
    """What the optimiser and the schedule of its rate ask of each other and of the length of the training."""
    optimizer, train, images = config.optimizer, config.train, spec.train_images(config.data)
    if isinstance(optimizer, SGDConfig) and optimizer.nesterov and not optimizer.momentum:
        allowed = "false with optimizer.momentum=0: without momentum there is nothing to look ahead along"
        yield Problem("optimizer.nesterov", "true", allowed, remedy="optimizer.momentum=0.9")
    if images < 1 or train.schedule == "one_cycle":
        return
    if train.schedule in SCHEDULES and (wrong := _wrong_factor(train.schedule, num_updates(train, images))):
        allowed = f"a function to factors that are finite and not negative; {wrong}"
        yield Problem("train.schedule", train.schedule, allowed, remedy="its return value, from 0 to 1 as a rule")
    warm, updates = warmup_steps(train, images), num_updates(train, images)
    if warm > updates:
        allowed = f"a warm-up within the {updates} updates of the training; here it takes {warm}"
        yield Problem("train.warmup_epochs", train.warmup_epochs, allowed, remedy="a shorter one, or a longer training")


def _wrong_factor(name: str, num_steps: int) -> str:
    """What is wrong with a schedule of the user's own at the first, the middle or the last step; empty for nothing."""
    for step in (0, num_steps // 2, num_steps - 1):
        try:
            factor = float(SCHEDULES[name](step, num_steps))
        except Exception as error:  # it is hers
            return f"at step {step} of {num_steps} it raised {type(error).__name__}: {error}"
        if not (math.isfinite(factor) and factor >= 0):
            return f"at step {step} of {num_steps} it is {factor:g}"
    return ""


def network_problems(model: AnyNetworkConfig, input_shape: Shape, num_classes: int) -> list[Problem]:
    """Settings of a network that are out of bounds, contradict each other or do not fit images of this shape."""
    problems = value_problems(model, "model.") or _build_problems(model, input_shape, num_classes)
    if problems:
        return problems
    num_params = models.describe(model, num_classes, input_shape).num_params
    if num_params <= _MOST_PARAMETERS:
        return []
    allowed = f"widths that give at most {_MOST_PARAMETERS:,} parameters; here {num_params:,}"
    wide = [name for name in ("hidden", "filters", "kwargs") if getattr(model, name, None)]
    key = f"model.{next(iter(wide), 'name')}"
    return [Problem(key, getattr(model, key.removeprefix("model."), None), allowed, remedy="narrower layers")]


def _build_problems(model: AnyNetworkConfig, input_shape: Shape, num_classes: int) -> list[Problem]:
    if isinstance(model, ModuleConfig):
        from cnn_ablation.tasks.image_classification.models import module  # as does the network, it imports torch

        return module.problems(model, num_classes, input_shape)
    if model.name not in NETWORKS:
        table = "cnn_ablation.tasks.image_classification.models.NETWORKS"
        remedy = f'{table}["{model.name}"] = FUNCTION, from its settings to a list of layers'
        return [Problem("model.name", model.name, ", ".join(NETWORKS), remedy=remedy)]
    try:
        output = trace(network_layers(model, num_classes), input_shape)[-1].output_shape
    except Exception as error:
        return _layer_problems(model, error, input_shape)
    if output == (num_classes,):
        return []
    allowed = f"layers that end in {num_classes} numbers, one for each class; here {output}"
    return [Problem("model.name", model.name, allowed, remedy="Flatten() and Linear(num_classes) at the end")]


def _layer_problems(model: AnyNetworkConfig, error: Exception, input_shape: Shape) -> list[Problem]:
    """What is wrong with a network, from what was raised when its layers were made and followed."""
    if isinstance(error, ConfigError):
        return list(error.problems)
    if isinstance(error, LayerError):
        return [_misfit(model, error, input_shape)]
    if type(model) not in OPTIONS.get("model", {}).values():  # else by a function of the user's own
        raise error
    allowed = f"a list of layers; its function raised {type(error).__name__}: {error}"
    return [Problem("model.name", model.name, allowed, remedy="layers of cnn_ablation.layers, one or more")]


def _misfit(model: AnyNetworkConfig, error: LayerError, input_shape: Shape) -> Problem:
    """A layer that does not fit what reaches it, by the key that has to do with it."""
    key = "model.groups" if "groups" in str(error) else "model.kernel_sizes"
    key = key if hasattr(model, key.removeprefix("model.")) else "model.name"
    return Problem(
        key,
        getattr(model, key.removeprefix("model."), None),
        f"filters and pooling windows that fit their maps; here {error} (layer {error.index + 1})",
        remedy="groups that divide the channels and filters of their convolution"
        if key == "model.groups"
        else f"smaller filters, fewer convolutions, or a data.image_size above {min(input_shape[1:])}",
    )
