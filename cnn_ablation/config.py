"""What a user can set: one dataclass per config group, every field with its only default and its bounds.

The YAML files under conf/ choose among these classes and override single values; they repeat no default.
Standard library only (and the table of activation names), so that checks run before anything heavy is imported.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cnn_ablation.activations import ACTIVATIONS
from cnn_ablation.errors import ConfigError, Problem

CONV_NETWORKS = ("three_conv", "sorensen", "svalheim_cnn", "jappinen_cnn", "lenet5", "alexnet")


@dataclass(frozen=True)
class Bounds:
    """The values a field may take; list fields are checked element by element."""

    choices: Callable[[], tuple[Any, ...]] | None = None
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    min_length: int = 0
    per_layer: type | None = None
    """The type of one value, where a field takes one value for all layers or a list with one for each."""

    def allows(self, value: object) -> bool:
        """Whether a value (or, of a list, every element) lies within; None is the schema's business."""
        if self.per_layer and not isinstance(value, list) and type(value) is not self.per_layer:
            return False
        if value is None:
            return True
        if isinstance(value, list):
            return len(value) >= self.min_length and all(self.allows(element) for element in value)
        if self.choices is not None:
            return value in self.choices()
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return not isinstance(value, int | float) or self._contains(value)

    def _contains(self, number: float) -> bool:
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        if self.per_layer:
            kind = "true, false" if self.per_layer is bool else str(replace(self, per_layer=None))
            return f"{kind}; one value for all layers, or a list with one for each"
        if self.choices is not None:
            return ", ".join(str(choice) for choice in self.choices())
        limits = [("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below)]
        text = " and ".join(f"{word} {limit:.10g}" for word, limit in limits if limit is not None)
        return f"{self.min_length} or more values, each {text}" if self.min_length else text


LARGEST_SEED = 2**32 - 1  # as NumPy takes them


def setting(default: Any, *, affects_result: bool = True, choices: Any = None, **bounds: Any) -> Any:
    """A dataclass field with its default, its bounds, and whether it can change what a run computes."""
    allowed = choices if choices is None or callable(choices) else lambda: tuple(choices)
    metadata = {"bounds": Bounds(choices=allowed, **bounds), "affects_result": affects_result}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def paper_names() -> tuple[str, ...]:
    """The papers whose figures can be printed beside a study's."""
    return tuple(sorted(path.stem for path in (Path(__file__).parent / "papers").glob("*.yaml")))


def group_name(name: str) -> Any:
    """The `name` of a config group's option: fixed by the group file, never set alone."""
    return setting(name, choices=(name,))


@dataclass
class DataConfig:
    """What every data source shares. `image_size` None keeps the source's own size.

    `val_images` sets the validation images by their number instead of their share.
    """

    name: str
    val_fraction: float = setting(0.2, above=0, below=1)
    val_images: int | None = setting(None, at_least=1)
    image_size: int | None = setting(None, at_least=1)
    scale: str = setting("half", choices=("half", "unit", "standard"))
    split_seed: int = setting(0, at_least=0, at_most=LARGEST_SEED)


@dataclass
class DigitsConfig(DataConfig):
    """scikit-learn's bundled 8x8 digits, upscaled; they come without a test set, so `test_fraction` makes one."""

    name: str = group_name("digits")
    image_size: int | None = setting(32, at_least=8)
    test_fraction: float = setting(0.3, above=0, below=1)


@dataclass
class ShapesConfig(DataConfig):
    """Generated images. `difficulty` 0 is clean and centred, 1 is hard; CIFAR-10's size is 50000 + 10000."""

    name: str = group_name("shapes")
    image_size: int | None = setting(32, at_least=8)
    train_images: int = setting(5000, at_least=20)
    test_images: int = setting(2000, at_least=10)
    difficulty: float = setting(0.5, at_least=0, at_most=1)
    generator_seed: int = setting(0, at_least=0, at_most=LARGEST_SEED)


@dataclass
class TorchvisionConfig(DataConfig):
    """A data set that torchvision reads from `root`, downloaded there on first use."""

    name: str = setting("cifar10", choices=("cifar10", "mnist", "fashion_mnist", "svhn"))
    root: str = setting("data", affects_result=False)


@dataclass
class ImageFolderConfig(DataConfig):
    """`root` holding train/<class>/* and test/<class>/*; decoded once into `cache`."""

    name: str = group_name("image_folder")
    root: str = setting("images", affects_result=False)
    cache: str = setting("~/.cache/cnn_ablation", affects_result=False)
    channels: int = setting(3, choices=(1, 3))


@dataclass
class NetworkConfig:
    """What every network shares: its fully connected part, activations, initial weights and output.

    `leaky_slope` is what `activation=leaky` multiplies negative inputs with; eq2425 (section 5.3) divides by 100.
    `init`: `pytorch` (its own uniform weights and biases), `he_normal` (svalheim, equations 37 to 39) or `glorot`
    (uniform, as in Keras); the last two start with biases of 0.
    """

    name: str
    hidden: list[int] = setting([512], at_least=1)
    activation: str = setting("relu", choices=lambda: tuple(ACTIVATIONS))
    leaky_slope: float = setting(0.01, at_least=0)
    dropout: float = setting(0.0, at_least=0, below=1)
    batch_norm: bool = setting(False)
    batch_norm_place: str = setting("before", choices=("before", "after"))
    init: str = setting("pytorch", choices=("pytorch", "he_normal", "glorot"))
    output: str = setting("logits", choices=("logits", "softmax"))
    output_bias: bool = setting(True)


@dataclass
class ModelConfig(NetworkConfig):
    """A convolutional network; the defaults are eq2425's (section 4 of the paper).

    Convolutions, `pool_after` (which of them are followed by pooling) and the fully connected layers of `hidden`.
    `dropout` acts after every hidden layer, `conv_dropout` after every pooling. `last_activation` false leaves the last
    convolution without one, as the paper lists it.
    """

    name: str = setting("three_conv", choices=CONV_NETWORKS)
    filters: list[int] = setting([24, 48, 96], at_least=1, min_length=1)
    kernel_sizes: list[int] = setting([5, 3, 3], at_least=1, min_length=1)
    strides: Any = setting(1, at_least=1, per_layer=int)
    padding: Any = setting("valid", choices=("valid", "same"), per_layer=str)
    groups: Any = setting(1, at_least=1, per_layer=int)
    last_activation: bool = setting(False)
    pool: str = setting("max", choices=("max", "average"))
    pool_size: int = setting(2, at_least=1)
    pool_stride: int = setting(2, at_least=1)
    pool_after: Any = setting(True, per_layer=bool)
    conv_dropout: float = setting(0.0, at_least=0, below=1)


@dataclass
class MLPConfig(NetworkConfig):
    """A fully connected network on the pixels of an image."""

    name: str = setting("svalheim_mlp", choices=("svalheim_mlp", "jappinen_mlp"))


@dataclass
class OptimizerConfig:
    """What every optimiser shares.

    `weight_decay` w adds w / 2 times the sum of squares to the loss (an L2 penalty). Biases and the last layer's
    weights may have penalties of their own (sorensen, equation 2.10); null is that of all others.
    """

    name: str
    lr: float = setting(1e-3, above=0)
    weight_decay: float = setting(0.0, at_least=0)
    weight_decay_biases: float | None = setting(None, at_least=0)
    weight_decay_output: float | None = setting(None, at_least=0)


@dataclass
class SGDConfig(OptimizerConfig):
    name: str = group_name("sgd")
    momentum: float = setting(0.0, at_least=0, below=1)


@dataclass
class AdamConfig(OptimizerConfig):
    name: str = group_name("adam")
    beta1: float = setting(0.9, at_least=0, below=1)
    beta2: float = setting(0.999, at_least=0, below=1)
    eps: float = setting(1e-8, above=0)


@dataclass
class AdaGradConfig(OptimizerConfig):
    name: str = group_name("adagrad")
    eps: float = setting(1e-10, above=0)


@dataclass
class RMSPropConfig(OptimizerConfig):
    name: str = group_name("rmsprop")
    alpha: float = setting(0.99, at_least=0, below=1)
    momentum: float = setting(0.0, at_least=0, below=1)
    eps: float = setting(1e-8, above=0)


@dataclass
class TrainConfig:
    """`shuffle` false repeats one fixed, class-mixed order in every epoch.

    `updates` ends training after that many optimiser steps, whatever `epochs` says; `scale` shortens either, for a
    small version of a long study. `stop_on` ends it once that quantity has not improved for `patience` epochs, with the
    weights of the last epoch.
    `max_translation` and `horizontal_flip` move and mirror training images at random (gonzalez, on AlexNet).
    """

    epochs: int = setting(6, at_least=1)
    updates: int | None = setting(None, at_least=1)
    scale: float = setting(1.0, above=0, at_most=1)
    batch_size: int = setting(64, at_least=1)
    shuffle: bool = setting(True)
    loss: str = setting("cross_entropy", choices=("cross_entropy", "mean_squared_error", "kullback_leibler"))
    stop_on: str | None = setting(None, choices=("train_loss", "val_loss", "val_accuracy"))
    patience: int = setting(3, at_least=1)
    max_translation: int = setting(0, at_least=0)
    horizontal_flip: bool = setting(False)


@dataclass
class StatsConfig:
    """`alpha`: family-wise error of the study's verdicts. `margin_pp`: differences below it do not matter.

    `simultaneous` intervals hold for all arms of a study at once, not each for itself.
    """

    alpha: float = setting(0.05, above=0, below=0.5, affects_result=False)
    margin_pp: float = setting(0.5, above=0, affects_result=False)
    test: str = setting("t", choices=("t", "sign_flip"), affects_result=False)
    interval: str = setting("t", choices=("t", "bca"), affects_result=False)
    simultaneous: bool = setting(False, affects_result=False)


@dataclass
class ArmConfig:
    """Which arm of a study this run belongs to; set by the sweeper."""

    name: str = setting("baseline", affects_result=False)
    knob: str = setting("", affects_result=False)
    level: str = setting("", affects_result=False)


@dataclass
class Config:
    """One configuration: everything that `python -m cnn_ablation` can be told."""

    data: DataConfig
    model: NetworkConfig
    optimizer: OptimizerConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    stats: StatsConfig = field(default_factory=StatsConfig)
    arm: ArmConfig = field(default_factory=ArmConfig)
    # Enters each run's identity on its own.
    seed: int = setting(0, at_least=0, at_most=LARGEST_SEED, affects_result=False)
    replicates: int = setting(3, at_least=1, affects_result=False)
    device: str = setting("auto", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = setting("auto", choices=("auto", "float32", "tf32", "bfloat16"))
    threads: int | None = setting(None, at_least=1)  # of a run on a CPU; null lets the study and the machine decide
    engine: str = setting("fast", choices=("fast", "reference"))
    timing: str = setting("packed", choices=("packed", "isolated"), affects_result=False)
    reuse: bool = setting(True, affects_result=False)
    store: str = setting(".ablation_runs", affects_result=False)
    checkpoint_seconds: float = setting(60.0, above=0, affects_result=False)
    keep_weights: bool = setting(True, affects_result=False)
    paper: str | None = setting(None, choices=paper_names, affects_result=False)
    on_error: str = setting("continue", choices=("continue", "stop"), affects_result=False)
    dry_run: bool = setting(False, affects_result=False)

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.replicates)


GROUPS: dict[str, dict[str, type]] = {
    "data": {
        "digits": DigitsConfig,
        "shapes": ShapesConfig,
        "torchvision": TorchvisionConfig,
        "image_folder": ImageFolderConfig,
    },
    "model": {"convolutional": ModelConfig, "mlp": MLPConfig},
    "optimizer": {"sgd": SGDConfig, "adam": AdamConfig, "adagrad": AdaGradConfig, "rmsprop": RMSPropConfig},
}
"""The schemas of each config group."""


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """(dotted key, field, value) for every value of a configuration, depth first."""
    for item in dataclasses.fields(config):
        value, key = getattr(config, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{key}.")
        else:
            yield key, item, value


def bounds_problems(config: Any, prefix: str = "") -> list[Problem]:
    """Values outside their field's bounds; `prefix` stands before their keys."""
    problems = []
    for key, item, value in leaves(config, prefix):
        bounds: Bounds = item.metadata.get("bounds", Bounds())
        if bounds.allows(value):
            continue
        group = key.removesuffix(".name") if key.endswith(".name") else None
        problems.append(
            Problem(
                key,
                value,
                str(bounds),
                nearest=_nearest_choice(key, value, bounds),
                remedy=f"the group sets this name; write {group}={value}" if group else None,
            )
        )
    return problems


def _nearest_choice(key: str, value: object, bounds: Bounds) -> str | None:
    choices = [str(choice) for choice in bounds.choices()] if bounds.choices else []
    found = nearest(str(value), choices)
    return f"{key}={found}" if found else None


def nearest(word: str, candidates: list[str]) -> str | None:
    """The candidate spelled most like `word`, or None if none is close."""
    found = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    return found[0] if found else None


def with_settings(config: Config, settings: Iterable[tuple[str, Any]]) -> Config:
    """A copy with some values replaced, for studies written in Python.

    Args:
        config: left as it is.
        settings: dotted keys and their Python values; a whole group (`optimizer`) takes one of its dataclasses.

    Raises:
        ConfigError: there is no such key, or its value has another type.
    """
    changed = copy.deepcopy(config)
    for key, value in settings:
        parent, _, name = key.rpartition(".")
        try:
            owner = functools.reduce(getattr, filter(None, parent.split(".")), changed)
            present = getattr(owner, name)
        except AttributeError as error:
            found = nearest(key, list(all_settings(config)))
            raise ConfigError([Problem(key, value, "known keys", nearest=found)]) from error
        bounds: Bounds = owner.__dataclass_fields__[name].metadata.get("bounds", Bounds())
        if not bounds.per_layer and not _same_type(value, present):
            raise ConfigError([Problem(key, value, f"{type(present).__name__}, as in {key}={present}")])
        setattr(owner, name, value)
    return changed


def _same_type(value: object, present: object) -> bool:
    if dataclasses.is_dataclass(present):
        return dataclasses.is_dataclass(value)
    if isinstance(present, float) and not isinstance(value, bool):
        return isinstance(value, int | float)
    return present is None or type(value) is type(present)


def result_settings(config: Config) -> dict[str, Any]:
    """The values, by dotted key, that can change what one run of this configuration computes."""
    return {key: value for key, item, value in leaves(config) if item.metadata.get("affects_result", True)}


def from_settings(settings: dict[str, Any]) -> Config:
    """A configuration from its values by dotted key, as they stand in a run's record.

    Raises:
        ConfigError: a group has an option that this version does not know.
    """
    groups = {}
    for group, options in GROUPS.items():
        name = settings[f"{group}.name"]
        found = [option for option in options.values() if _default_bounds(option).allows(name)]
        if not found:
            raise ConfigError(
                [Problem(f"{group}.name", name, "what this version knows", remedy="the version it is of")]
            )
        groups[group] = _filled(found[0], settings, f"{group}.")
    parts = {"train": TrainConfig, "stats": StatsConfig, "arm": ArmConfig}
    groups |= {name: _filled(part, settings, f"{name}.") for name, part in parts.items()}
    values = {item.name: settings[item.name] for item in dataclasses.fields(Config) if item.name in settings}
    return Config(**groups, **values)


def _default_bounds(option: type) -> Bounds:
    """Of the option's name."""
    bounds: Bounds = next(item for item in dataclasses.fields(option) if item.name == "name").metadata["bounds"]
    return bounds


def _filled(part: type, settings: dict[str, Any], prefix: str) -> Any:
    names = [item.name for item in dataclasses.fields(part)]
    return part(**{name: settings[prefix + name] for name in names if prefix + name in settings})


def all_settings(config: Config) -> dict[str, Any]:
    """Every value, by dotted key."""
    return {key: value for key, _, value in leaves(config)}
