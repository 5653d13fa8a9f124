"""Every check of a configuration that can be made before anything is loaded or trained. No torch."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from cnn_ablation.common import extensions
from cnn_ablation.common.errors import ConfigError, Problem, UserError
from cnn_ablation.config import (
    GROUPS,
    LARGEST_SEED,
    AnyNetworkConfig,
    Config,
    ModuleConfig,
    Role,
    all_settings,
    bounds_of,
    keys_of,
    nearest,
    role_of,
    shown,
    split_free,
    value_problems,
)
from cnn_ablation.study.checks.effects import effective, inert, same_because
from cnn_ablation.study.designs import DESIGNS, Arm, Knob, comparisons, keys_moved_twice, labels_used_twice
from cnn_ablation.tasks.image_classification import data, models
from cnn_ablation.tasks.image_classification.data.images import DataSpec
from cnn_ablation.tasks.image_classification.models import NETWORKS, network_layers
from cnn_ablation.tasks.image_classification.models.layers import LayerError, Shape, trace
from cnn_ablation.tasks.image_classification.parts import OPTIONS

__all__ = ["check", "check_effects", "check_study", "effective", "inert", "network_problems", "same_because"]

_MOST_PARAMETERS = 2 * 10**9  # 8 GB of float32, and as much for each moment that an optimiser keeps
_MOST_COMPARISONS = 300  # composed on the command line in about a second; a knob that is idle in all may yet wake up


def check_study(design: object, knobs: Sequence[Knob], baseline: Config) -> None:
    """Refuses a design that is not there or cannot tell what these knobs mean, and what is no knob.

    Args:
        design: a name in `designs.DESIGNS`.
        knobs: what varies.
        baseline: tells what a key of a config group is.

    Raises:
        ConfigError: with all problems found.
    """
    problems = [*_no_knobs(knobs, baseline), *_clashing_names(knobs), *_design_problems(design, knobs)]
    if problems:
        raise ConfigError(problems)


def _no_knobs(knobs: Sequence[Knob], baseline: Config) -> Iterator[Problem]:
    for knob in knobs:
        for moved in knob.keys:
            for role in _roles(moved.lstrip("+~"), baseline):
                if role.not_a_knob:
                    yield Problem(moved, _levels(knob), "one value: it is no knob", remedy=role.not_a_knob)


def _clashing_names(knobs: Sequence[Knob]) -> Iterator[Problem]:
    """Knobs and levels that tables could not tell apart."""
    for name, count in Counter(knob.name for knob in knobs).items():
        if count > 1:
            levels = "; ".join(_levels(knob) for knob in knobs if knob.name == name)
            yield Problem(name, levels, "one knob of this name", remedy="another name after zip.")
    for knob in knobs:
        for label in labels_used_twice(knob):
            remedy = "label:WORD, another word for each level"
            yield Problem(knob.name, label, "labels that tell levels apart", remedy=remedy)


def _design_problems(design: object, knobs: Sequence[Knob]) -> Iterator[Problem]:
    key, twice = "hydra.sweeper.design", keys_moved_twice(knobs)
    if not isinstance(design, str) or design not in DESIGNS:
        found = nearest(str(design), list(DESIGNS))
        yield Problem(key, design, ", ".join(DESIGNS), f"{key}={found}" if found else None)
    elif twice and design != "one_at_a_time":
        allowed = f"one_at_a_time, because two knobs move {twice[0]}"
        yield Problem(key, design, allowed, remedy=f"{key}=one_at_a_time, or one knob for {twice[0]}")


def _roles(key: str, baseline: Config) -> Iterator[Role]:
    """Of a key, or of what decides a whole group: in the baseline, or else in options that the baseline has not."""
    present = keys_of(baseline)
    key, _ = split_free(key)
    if key in present:
        yield role_of(present[key])
    elif f"{key}.name" in present and key in GROUPS:  # `optimizer=adam,sgd` moves all keys of the group
        yield role_of(present[f"{key}.name"])
    elif any(name.startswith(f"{key}.") for name in present):
        yield from {role_of(item) for name, item in present.items() if name.startswith(f"{key}.")}
    else:
        group, _, name = key.partition(".")
        options = GROUPS.get(group, {}).values()
        found = [role_of(item) for option in options for item in dataclasses.fields(option) if item.name == name]
        yield from [role for role in found if role.not_a_knob][:1]


def _levels(knob: Knob) -> str:
    return ",".join(level.label for level in knob.levels)


def check_effects(
    design: str,
    knobs: Sequence[Knob],
    configured: Callable[[Arm], Config],
    comes_to: Callable[[Config], str] = effective,
) -> None:
    """Refuses knobs none of whose levels does anything, in whatever arm of the study: they would compare nothing.

    Args:
        design: a name in `designs.DESIGNS`.
        knobs: what varies.
        configured: an arm -> its configuration, checked; raises a UserError where that must not be trained.
        comes_to: `effective`, or that with what `auto` stands for on a machine.

    Raises:
        ConfigError: with all such knobs, the reasons and what would give them something to do.
    """
    problems = [_idle_problem(design, knobs, knob, configured, comes_to) for knob in knobs]
    if any(problems):
        raise ConfigError([problem for problem in problems if problem])


def _idle_problem(
    design: str,
    knobs: Sequence[Knob],
    knob: Knob,
    configured: Callable[[Arm], Config],
    comes_to: Callable[[Config], str],
) -> Problem | None:
    """What is wrong with a knob without effect; None for one that does something, or may come to."""
    pairs = list(islice(comparisons(design, knobs, knob), _MOST_COMPARISONS + 1))
    idle: list[tuple[Config, Config]] = []
    for without, with_level in pairs[:_MOST_COMPARISONS]:
        try:
            first, second = configured(without), configured(with_level)
        except UserError:  # told when its turn comes
            continue
        if comes_to(first) != comes_to(second):
            return None
        idle.append((first, second))
    if not idle or len(pairs) > _MOST_COMPARISONS:
        return None
    reason = next((found for pair in idle if (found := same_because(*pair))), None)
    if reason is None:
        allowed = "a level besides the baseline's value; here is nothing to compare"
        return Problem(knob.name, _levels(knob), allowed, remedy="another level, or no such knob")
    remedies = dict.fromkeys(found.remedy for key, found in inert(idle[0][1]).items() if key in knob.keys)
    return Problem(
        knob.name,
        _levels(knob),
        f"a knob that changes something; {reason}",
        remedy="; ".join(remedies) or "other levels",
    )


def check(config: Config, *, arm: str | None = None) -> None:
    """Checks every value alone, then those that depend on each other and on the data.

    Args:
        config: any configuration of the right types.
        arm: named in the message, where the configuration is an arm of a study.

    Raises:
        ConfigError: with all problems found.
        DataError: the folder of an image-folder data set has not the right form.
    """
    if not isinstance(config, Config):
        raise ConfigError([not_a_config("config", config)], arm=arm)
    extensions.load(config.extensions)
    problems = value_problems(config)
    if not problems:
        spec = _described(config)
        problems = [
            *_seed_problems(config),
            *_train_problems(config, spec),
            *network_problems(config.model, spec.input_shape, spec.num_classes),
        ]
    if problems:
        raise ConfigError(problems, arm=arm)


def not_a_config(name: str, value: object) -> Problem:
    """What somebody gave in place of a configuration."""
    return Problem(name, shown(value), "a Config", remedy='cnn_ablation.compose(["train.epochs=4"])')


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


def _seed_problems(config: Config) -> list[Problem]:
    most = LARGEST_SEED + 1 - config.seed
    if config.replicates <= most:
        return []
    allowed = f"at most {most} with seed={config.seed}: the last seed counts too, and {LARGEST_SEED} is the largest"
    return [Problem("replicates", config.replicates, allowed, remedy="a smaller seed")]


def _train_problems(config: Config, spec: DataSpec) -> list[Problem]:
    shift = config.train.max_translation
    if shift >= spec.image_size:
        allowed = f"fewer pixels than the {spec.image_size} of an image"
        return [Problem("train.max_translation", shift, allowed, remedy="a few pixels; 4 is usual for 32x32 images")]
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
