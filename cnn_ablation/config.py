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
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS

LOSS_NAMES = ["cross_entropy", "mean_squared_error", "kullback_leibler"]
"""What `train.loss` may be; extensions add to it."""
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
    is_folder: bool = False
    per_layer: type | None = None
    """The type of one value, where a field takes one value for all layers or a list with one for each."""

    def allows(self, value: object) -> bool:
        """Whether a value (or, of a list, every element) lies within; None is the schema's business."""
        if self.per_layer:
            values = value if isinstance(value, list) else [value]
            return len(values) >= self.min_length and all(self._is_of_a_layer(element) for element in values)
        if value is None:
            return True
        if isinstance(value, list):
            return len(value) >= self.min_length and all(self.allows(element) for element in value)
        if self.choices is not None:
            return value in self.choices()
        if isinstance(value, str):
            return not self.is_folder or bool(value.strip())
        return not isinstance(value, int | float) or (math.isfinite(value) and self._contains(value))

    def _is_of_a_layer(self, value: object) -> bool:
        return type(value) is self.per_layer and replace(self, per_layer=None).allows(value)

    def _contains(self, number: float) -> bool:
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        if self.per_layer:
            kind = "true, false" if self.per_layer is bool else str(replace(self, per_layer=None, min_length=0))
            kind = f"int, {kind}" if self.per_layer is int else kind
            return f"{kind}; one value for all layers, or a list with one for each"
        if self.choices is not None:
            return ", ".join(str(choice) for choice in self.choices())
        if self.is_folder:
            return "the name of a folder"
        limits = [("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below)]
        text = " and ".join(f"{word} {limit:.10g}" for word, limit in limits if limit is not None)
        return f"{self.min_length} or more values, each {text}" if self.min_length else text


@dataclass(frozen=True)
class Role:
    """What a key is to a study: identities of runs, checks of knobs and studies' folders go by this alone."""

    identifies: bool
    """Its value is part of what tells one run from another."""
    is_fixed: bool
    """A study's folder holds runs of one baseline value only."""
    not_a_knob: str = ""
    """Why no study may vary it, or what to do instead; empty for what may be a knob."""


_OTHER_PICTURES = "one study for each value; its levels would be tested on different pictures"

RESULT = Role(identifies=True, is_fixed=True)
"""Can change what a run computes."""
TEST_SET = Role(identifies=True, is_fixed=True, not_a_knob=_OTHER_PICTURES)
"""Can change which pictures are tested: scores of two values cannot be paired."""
FILES = Role(identifies=False, is_fixed=True, not_a_knob=_OTHER_PICTURES)
"""Names files whose content, not their place, identifies a run."""
SEEDS = Role(identifies=False, is_fixed=False, not_a_knob="replicates=N trains every arm with N seeds")
"""Which seeds a study has; a seed enters the identity of its run on its own."""
CONDUCT = Role(identifies=False, is_fixed=False, not_a_knob="give it once, for all arms; it changes no result")
"""How a study is carried out, kept and read; without effect on what a run computes."""
OWN_CODE = Role(identifies=False, is_fixed=False, not_a_knob="give them once, for all arms; their parts can be knobs")
"""Modules of the user's own, whose content, not their name, identifies a run."""
LABEL = Role(identifies=False, is_fixed=False, not_a_knob="the study names its arms itself")

LARGEST_SEED = 2**32 - 1  # as NumPy takes them
# Beyond these a number is a slip of the pen: it would be trained, drawn or planned for years.
_MOST_EPOCHS, _MOST_UPDATES, _MOST_SEEDS = 10**6, 10**9, 10**4
_MOST_PIXELS, _MOST_IMAGES, _MOST_UNITS = 4096, 10**7, 10**6


def setting(default: Any, *, role: Role = RESULT, choices: Any = None, **bounds: Any) -> Any:
    """A dataclass field with its default, its bounds, and its role in a study."""
    allowed = choices if choices is None or callable(choices) else lambda: tuple(choices)
    metadata = {"bounds": Bounds(choices=allowed, **bounds), "role": role}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class Section:
    """A part of a configuration: a dataclass that takes no attribute besides its fields.

    What NumPy computed is kept as Python's own numbers and lists, and whole numbers for a float as floats: equal
    settings are equal in records too.
    """

    if not TYPE_CHECKING:  # a checker of types would take any attribute then

        def __setattr__(self, name: str, value: Any) -> None:
            item = _fields(self).get(name)
            if item is None:
                raise ConfigError([unknown_key(self, name, value)])
            object.__setattr__(self, name, _of_field(value, item))


def _fields(section: Any) -> dict[str, dataclasses.Field[Any]]:
    fields: dict[str, dataclasses.Field[Any]] = section.__dataclass_fields__
    return fields


def as_python(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's own, in lists and dictionaries too; anything else as it is."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if type(value) is dict:
        return {key: as_python(each) for key, each in value.items()}
    return [as_python(each) for each in value] if type(value) is list else value


def _of_field(value: Any, item: dataclasses.Field[Any]) -> Any:
    """A value as it is kept: a whole number for a float is a float."""
    value = as_python(value)
    if type(value) is not int or "float" not in str(item.type):
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def paper_names() -> tuple[str, ...]:
    """The papers whose figures can be printed beside a study's."""
    return tuple(sorted(path.stem for path in (Path(__file__).parent / "report" / "papers").glob("*.yaml")))


def group_name(name: str, *, role: Role = RESULT) -> Any:
    """The `name` of a config group's option: fixed by the group file, never set alone."""
    return setting(name, choices=(name,), role=role)


def free_keys(role: Role = RESULT) -> Any:
    """A dataclass field whose keys are the user's own: `model.kwargs.width`; each of them can be a knob."""
    return field(default_factory=dict, metadata={"bounds": Bounds(), "role": role, "is_free": True})


@dataclass
class DataConfig(Section):
    """What every data source shares. `image_size` None keeps the source's own size.

    `val_images` sets the validation images by their number instead of their share. A knob must leave the test pictures
    what they are: training and validation part, size, grey levels and scale of the same pictures may vary, where the
    source does not draw other ones for it.
    """

    name: str = field(metadata={"role": TEST_SET})
    val_fraction: float = setting(0.2, above=0, below=1)
    val_images: int | None = setting(None, at_least=1)
    image_size: int | None = setting(None, at_least=1, at_most=_MOST_PIXELS)
    scale: str = setting("half", choices=("half", "unit", "standard"))
    split_seed: int = setting(0, at_least=0, at_most=LARGEST_SEED)


@dataclass
class DigitsConfig(DataConfig):
    """scikit-learn's bundled 8x8 digits, upscaled; they come without a test set, so `test_fraction` makes one."""

    name: str = group_name("digits", role=TEST_SET)
    image_size: int | None = setting(32, at_least=8, at_most=_MOST_PIXELS)
    split_seed: int = setting(0, at_least=0, at_most=LARGEST_SEED, role=TEST_SET)  # draws the test part too
    test_fraction: float = setting(0.3, above=0, below=1, role=TEST_SET)


@dataclass
class ShapesConfig(DataConfig):
    """Generated images. `difficulty` 0 is clean and centred, 1 is hard; CIFAR-10's size is 50000 + 10000.

    Test pictures are drawn for their size and difficulty; how many there are for training does not move them.
    """

    name: str = group_name("shapes", role=TEST_SET)
    image_size: int | None = setting(32, at_least=8, at_most=_MOST_PIXELS, role=TEST_SET)
    train_images: int = setting(5000, at_least=20, at_most=_MOST_IMAGES)
    test_images: int = setting(2000, at_least=10, at_most=_MOST_IMAGES, role=TEST_SET)
    difficulty: float = setting(0.5, at_least=0, at_most=1, role=TEST_SET)
    generator_seed: int = setting(0, at_least=0, at_most=LARGEST_SEED, role=TEST_SET)


@dataclass
class TorchvisionConfig(DataConfig):
    """A data set that torchvision reads from `root`, downloaded there on first use."""

    name: str = setting("cifar10", choices=("cifar10", "mnist", "fashion_mnist", "svhn"), role=TEST_SET)
    root: str = setting("data", role=CONDUCT, is_folder=True)  # wherever its files lie, they are the same


@dataclass
class ImageFolderConfig(DataConfig):
    """`root` holding train/<class>/* and test/<class>/*; decoded once into `cache`."""

    name: str = group_name("image_folder", role=TEST_SET)
    root: str = setting("images", role=FILES, is_folder=True)
    cache: str = setting("~/.cache/cnn_ablation", role=CONDUCT, is_folder=True)
    channels: int = setting(3, choices=(1, 3))


@dataclass
class ArraysConfig(DataConfig):
    """Images of your own: `target` names a function that, called with `kwargs`, gives `train` and `test`.

    Each is a pair of arrays, images and labels, or a map-style dataset.
    """

    name: str = group_name("arrays", role=TEST_SET)
    target: str = setting("", role=FILES)
    kwargs: dict[str, Any] = free_keys(role=FILES)


@dataclass
class AnyNetworkConfig(Section):
    """What networks of every make share.

    `output` says what a network gives: logits, or probabilities, of which cross-entropy takes a softmax once more.
    """

    name: str
    output: str = setting("logits", choices=("logits", "softmax"))


@dataclass
class NetworkConfig(AnyNetworkConfig):
    """What every network that is a list of layers shares: its fully connected part, activations and initial weights.

    `leaky_slope` is what `activation=leaky` multiplies negative inputs with; eq2425 (section 5.3) divides by 100.
    `init`: `pytorch` (its own uniform weights and biases), `he_normal` (svalheim, equations 37 to 39) or `glorot`
    (uniform, as in Keras); the last two start with biases of 0.
    """

    hidden: list[int] = setting([512], at_least=1, at_most=_MOST_UNITS)
    activation: str = setting("relu", choices=lambda: tuple(ACTIVATIONS))
    leaky_slope: float = setting(0.01, at_least=0)
    dropout: float = setting(0.0, at_least=0, below=1)
    batch_norm: bool = setting(False)
    batch_norm_place: str = setting("before", choices=("before", "after"))
    init: str = setting("pytorch", choices=("pytorch", "he_normal", "glorot"))
    output_bias: bool = setting(True)


@dataclass
class ModelConfig(NetworkConfig):
    """A convolutional network; the defaults are eq2425's (section 4 of the paper).

    Convolutions, `pool_after` (which of them are followed by pooling) and the fully connected layers of `hidden`.
    `dropout` acts after every hidden layer, `conv_dropout` after every pooling. `last_activation` false leaves the last
    convolution without one, as the paper lists it.
    """

    name: str = setting("three_conv", choices=CONV_NETWORKS)
    filters: list[int] = setting([24, 48, 96], at_least=1, at_most=_MOST_UNITS, min_length=1)
    kernel_sizes: Any = setting([5, 3, 3], at_least=1, min_length=1, per_layer=int)
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
class ModuleConfig(AnyNetworkConfig):
    """A network of your own: `target` names a class of `torch.nn.Module`, or a function that returns one.

    It is called with `kwargs`, and with those of `num_classes` and `input_shape` (channels, height, width) that it
    takes.
    """

    name: str = group_name("module")
    target: str = setting("")
    kwargs: dict[str, Any] = free_keys()


@dataclass
class OptimizerConfig(Section):
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
class TrainConfig(Section):
    """`shuffle` false repeats one fixed, class-mixed order in every epoch.

    `updates` ends training after that many optimiser steps, whatever `epochs` says; `scale` shortens either, for a
    small version of a long study. `stop_on` ends it once that quantity has not improved for `patience` epochs, with the
    weights of the last epoch.
    `max_translation` and `horizontal_flip` move and mirror training images at random (gonzalez, on AlexNet).
    """

    epochs: int = setting(6, at_least=1, at_most=_MOST_EPOCHS)
    updates: int | None = setting(None, at_least=1, at_most=_MOST_UPDATES)
    scale: float = setting(1.0, above=0, at_most=1)
    batch_size: int = setting(64, at_least=1)
    shuffle: bool = setting(True)
    loss: str = setting("cross_entropy", choices=lambda: tuple(LOSS_NAMES))
    stop_on: str | None = setting(None, choices=("train_loss", "val_loss", "val_accuracy"))
    patience: int = setting(3, at_least=1)
    max_translation: int = setting(0, at_least=0)
    horizontal_flip: bool = setting(False)


@dataclass
class StatsConfig(Section):
    """`alpha`: family-wise error of the study's verdicts. `margin_pp`: differences below it do not matter.

    `simultaneous` intervals hold for all arms of a study at once, not each for itself.
    """

    alpha: float = setting(0.05, above=0, below=0.5, role=CONDUCT)
    margin_pp: float = setting(0.5, above=0, role=CONDUCT)
    test: str = setting("t", choices=("t", "sign_flip"), role=CONDUCT)
    interval: str = setting("t", choices=("t", "bca"), role=CONDUCT)
    simultaneous: bool = setting(False, role=CONDUCT)


@dataclass
class ArmConfig(Section):
    """Which arm of a study this run belongs to; set by the sweeper."""

    name: str = setting("baseline", role=LABEL)
    knob: str = setting("", role=LABEL)
    level: str = setting("", role=LABEL)


@dataclass
class Config(Section):
    """One configuration: everything that `python -m cnn_ablation` can be told."""

    data: DataConfig
    model: AnyNetworkConfig
    optimizer: OptimizerConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    stats: StatsConfig = field(default_factory=StatsConfig)
    arm: ArmConfig = field(default_factory=ArmConfig)
    seed: int = setting(0, at_least=0, at_most=LARGEST_SEED, role=SEEDS)
    replicates: int = setting(3, at_least=1, at_most=_MOST_SEEDS, role=SEEDS)
    device: str = setting("auto", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = setting("auto", choices=("auto", "float32", "tf32", "bfloat16"))
    threads: int | None = setting(None, at_least=1)  # of a run on a CPU; null lets the study and the machine decide
    engine: str = setting("fast", choices=("fast", "reference"))
    timing: str = setting("packed", choices=("packed", "isolated"), role=CONDUCT)
    reuse: bool = setting(True, role=CONDUCT)
    store: str = setting(".ablation_runs", role=CONDUCT, is_folder=True)
    checkpoint_seconds: float = setting(60.0, above=0, role=CONDUCT)
    keep_weights: bool = setting(True, role=CONDUCT)
    paper: str | None = setting(None, choices=paper_names, role=CONDUCT)
    on_error: str = setting("continue", choices=("continue", "stop"), role=CONDUCT)
    dry_run: bool = setting(False, role=CONDUCT)
    extensions: list[str] = setting([], role=OWN_CODE)

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.replicates)


GROUPS: dict[str, dict[str, type]] = {
    "data": {
        "digits": DigitsConfig,
        "shapes": ShapesConfig,
        "torchvision": TorchvisionConfig,
        "image_folder": ImageFolderConfig,
        "arrays": ArraysConfig,
    },
    "model": {"convolutional": ModelConfig, "mlp": MLPConfig, "module": ModuleConfig},
    "optimizer": {"sgd": SGDConfig, "adam": AdamConfig, "adagrad": AdaGradConfig, "rmsprop": RMSPropConfig},
}
"""The schemas of each config group."""

_BASES = (DataConfig, AnyNetworkConfig, NetworkConfig, OptimizerConfig)  # what options share; none of them is an option


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """(dotted key, field, value) for every value of a configuration, depth first."""
    for item in dataclasses.fields(config):
        value, key = getattr(config, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{key}.")
        elif is_free(item):
            yield from ((name, item, each) for name, each in _flat(key, value))
        else:
            yield key, item, value


def is_free(item: dataclasses.Field[Any]) -> bool:
    """Whether the keys inside a field are the user's own."""
    return bool(item.metadata.get("is_free"))


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values in a dictionary by dotted key, those of dictionaries within it too."""
    if not isinstance(value, dict):
        yield key, value
        return
    for name, each in value.items():
        yield from [(f"{key}.{name}", each)] if each == {} else _flat(f"{key}.{name}", each)


def _nested(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What `_flat` took apart."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key.startswith(prefix):
            *parts, name = key.removeprefix(prefix).split(".")
            functools.reduce(lambda inner, part: inner.setdefault(part, {}), parts, found)[name] = value
    return found


def split_free(key: str) -> tuple[str, str]:
    """`model.kwargs.width` -> (`model.kwargs`, `width`): a key of the schema, and the user's own inside; else `""`."""
    owners = [("", Config), *((f"{part}.", option) for part, options in GROUPS.items() for option in options.values())]
    for prefix, owner in owners:
        for item in _fields(owner).values():
            if is_free(item) and key.startswith(f"{prefix}{item.name}."):
                return f"{prefix}{item.name}", key.removeprefix(f"{prefix}{item.name}.")
    return key, ""


def keys_of(config: Any) -> dict[str, dataclasses.Field[Any]]:
    """The field of every dotted key of a configuration."""
    return {key: item for key, item, _ in leaves(config)}


def role_of(item: dataclasses.Field[Any]) -> Role:
    """What a key is to a study; a field of somebody's own dataclass may change results unless it says otherwise."""
    role: Role = item.metadata.get("role", RESULT)
    return role


def one_form(item: dataclasses.Field[Any], value: Any) -> Any:
    """A value in the one of several forms that mean the same: `[3,3,3]` for three layers is `3`, and -0.0 is 0.0."""
    if isinstance(value, list) and value and bounds_of(item).per_layer and all(each == value[0] for each in value):
        return value[0]
    return value + 0.0 if isinstance(value, float) else value


def field_of(key: str, settings: Mapping[str, Any]) -> dataclasses.Field[Any] | None:
    """The schema's field of a dotted key.

    Args:
        key: as in `all_settings`.
        settings: with the name of its group's option, by which the field is told from its namesakes.
    """
    part, _, name = key.rpartition(".")
    options = [
        option
        for option in GROUPS.get(part, {}).values()
        if bounds_of(_fields(option)["name"]).allows(settings.get(f"{part}.name"))
    ]
    owner = options[0] if options else types_of(Config).get(part) if part else Config
    return _fields(owner).get(name) if _is_section(owner) else None


def default_of(item: dataclasses.Field[Any]) -> Any:
    """A field's only default."""
    return item.default_factory() if callable(item.default_factory) else item.default


def value_problems(config: Section, prefix: str = "") -> list[Problem]:
    """Values of another type than their field's, or outside its bounds; `prefix` stands before their keys."""
    problems = []
    for item in _fields(config).values():
        key, value = f"{prefix}{item.name}", getattr(config, item.name)
        wanted = types_of(type(config)).get(item.name, Any)
        if not fits(value, wanted):
            problems.append(_type_problem(key, value, wanted, item))
        elif isinstance(value, Section):
            problems += value_problems(value, f"{key}.")
        elif not bounds_of(item).allows(value):
            problems.append(_bounds_problem(key, value, bounds_of(item)))
    return problems


def bounds_of(item: dataclasses.Field[Any]) -> Bounds:
    """The values a field may take; any where none are given."""
    bounds: Bounds = item.metadata.get("bounds", Bounds())
    return bounds


def types_of(part: Any) -> dict[str, Any]:
    """The type of every field; none where a dataclass names types that only its function knows."""
    return _hints(part)


@functools.cache  # apart, because mypy takes no class of dataclasses for a key
def _hints(part: Any) -> dict[str, Any]:
    try:
        return get_type_hints(part)
    except NameError:
        return {}


def fits(value: object, wanted: Any) -> bool:
    """Whether a value is of a field's type: a bool is no number, a whole number is a float too."""
    if wanted is Any:
        return True
    if get_origin(wanted) in (types.UnionType, Union):
        return any(fits(value, option) for option in get_args(wanted))
    if get_origin(wanted) is list:
        return isinstance(value, list) and all(fits(element, get_args(wanted)[0]) for element in value)
    if wanted in (int, float):
        return isinstance(value, int if wanted is int else int | float) and not isinstance(value, bool)
    kind = get_origin(wanted) or wanted  # somebody's own dataclass may say `dict[str, int]`
    return not isinstance(kind, type) or (isinstance(value, kind) and type(value) not in _BASES)


def _type_problem(key: str, value: object, wanted: Any, item: dataclasses.Field[Any]) -> Problem:
    if isinstance(wanted, type) and issubclass(wanted, Section):
        allowed = ", ".join(option.__name__ for option in GROUPS[key].values()) if key in GROUPS else wanted.__name__
        example = f"{key}={allowed.partition(',')[0]}(...) of cnn_ablation.config"
        return Problem(key, shown(value), allowed, remedy=example)
    name = wanted.__name__ if isinstance(wanted, type) and get_origin(wanted) is None else str(wanted)
    bounds = str(bounds_of(item))
    return Problem(key, shown(value), f"{name}, {bounds}" if bounds else name)


def _bounds_problem(key: str, value: object, bounds: Bounds) -> Problem:
    group = key.removesuffix(".name") if key.endswith(".name") else None
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return Problem(
        key,
        value if isinstance(value, str | int | float) else shown(value),
        str(bounds) if is_finite else f"a finite number, {bounds}",
        nearest=_nearest_choice(key, value, bounds),
        remedy=f"the group sets this name; write {group}={value}" if group else None,
    )


_MOST_LETTERS_SHOWN = 80


def shown(value: object) -> str:
    """A Python value of the wrong type for a message: in one line, text in quotes."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MOST_LETTERS_SHOWN else f"{text[:_MOST_LETTERS_SHOWN]}..."


def _nearest_choice(key: str, value: object, bounds: Bounds) -> str | None:
    choices = [str(choice) for choice in bounds.choices()] if bounds.choices else []
    found = nearest(str(value), choices)
    return f"{key}={found}" if found else None


def nearest(word: str, candidates: list[str]) -> str | None:
    """The candidate spelled most like `word`, or None if none is close."""
    in_small = {candidate.lower(): candidate for candidate in reversed(candidates)}
    found = difflib.get_close_matches(word.lower(), in_small, n=1, cutoff=0.6)
    return in_small[found[0]] if found else None


def unknown_key(owner: Section, name: str, value: object) -> Problem:
    """A name that a section has no field of, with the field spelled most like it."""
    names = list(_fields(owner))
    part = next((key for key, kind in types_of(Config).items() if _is_section(kind) and isinstance(owner, kind)), "")
    elsewhere = [option for option, schema in GROUPS.get(part, {}).items() if name in types_of(schema)]
    close = None if elsewhere else nearest(name, names)
    key = f"{part}.{name}" if part else name
    return Problem(
        key,
        shown(value),
        f"keys of {part}: {', '.join(names)}" if part else "known keys",
        nearest=key.removesuffix(name) + close if close else None if part else _nearest_key(name),
        remedy=f"this key belongs to {part}={' or '.join(elsewhere)}" if elsewhere else None,
    )


def _nearest_key(name: str) -> str | None:
    """`epochs` without its section is `train.epochs`."""
    keys = [
        f"{part}.{item}"
        for part, kind in types_of(Config).items()
        if _is_section(kind)
        for schema in GROUPS.get(part, {part: kind}).values()
        for item in types_of(schema)
    ]
    return next((key for key in keys if key.endswith(f".{name}")), nearest(name, keys))


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


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
        outer, inside = split_free(key) if isinstance(key, str) else (key, "")
        owner, item = _owner(changed, outer, value)
        present = getattr(owner, item.name)
        whole = _nested({**dict(_flat("", present)), f".{inside}": as_python(value)}, ".") if inside else value
        setattr(owner, item.name, copy.deepcopy(whole))
        wanted = types_of(type(owner)).get(item.name, Any)
        if not fits(getattr(owner, item.name), wanted):
            problem = _type_problem(key, value, wanted, item)
            example = {} if _is_section(wanted) else {"remedy": f"a value as in {key}={present!r}"}
            raise ConfigError([replace(problem, **example)])
    return changed


def _owner(config: Config, key: object, value: object) -> tuple[Section, dataclasses.Field[Any]]:
    """The section that a dotted key lies in, and its field.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(key, str):
        raise ConfigError([Problem(shown(key), shown(value), "a config key as text", remedy='"train.epochs"')])
    *parts, name = key.split(".")
    owner: Any = config
    for index, part in enumerate([*parts, name]):
        fields = _fields(owner) if isinstance(owner, Section) else {}
        if part not in fields:
            problem = unknown_key(owner, part, value) if fields else Problem(key, shown(value), "known keys")
            rest = ".".join([*parts, name][index + 1 :])
            raise ConfigError([replace(problem, key=key, nearest=_joined(problem.nearest, rest))])
        if index < len(parts):
            owner = getattr(owner, part)
    return owner, fields[name]


def _joined(key: str | None, rest: str) -> str | None:
    return f"{key}.{rest}" if key and rest else key


def result_settings(config: Config) -> dict[str, Any]:
    """The values, by dotted key, that can change what one run of this configuration computes."""
    return {key: value for key, item, value in leaves(config) if role_of(item).identifies}


def from_settings(settings: dict[str, Any]) -> Config:
    """A configuration from its values by dotted key, as they stand in a run's record.

    Raises:
        ConfigError: a group has an option that this version does not know.
    """
    groups = {}
    for group, options in GROUPS.items():
        name = settings[f"{group}.name"]
        found = [option for option in options.values() if bounds_of(_fields(option)["name"]).allows(name)]
        if not found:
            raise ConfigError(
                [Problem(f"{group}.name", name, "what this version knows", remedy="the version it is of")]
            )
        groups[group] = _filled(found[0], settings, f"{group}.")
    parts = {"train": TrainConfig, "stats": StatsConfig, "arm": ArmConfig}
    groups |= {name: _filled(part, settings, f"{name}.") for name, part in parts.items()}
    values = {item.name: settings[item.name] for item in dataclasses.fields(Config) if item.name in settings}
    return Config(**groups, **values)


def _filled(part: type, settings: dict[str, Any], prefix: str) -> Any:
    items = dataclasses.fields(part)
    free = {item.name: _nested(settings, f"{prefix}{item.name}.") for item in items if is_free(item)}
    return part(**free, **{item.name: settings[prefix + item.name] for item in items if prefix + item.name in settings})


def all_settings(config: Config) -> dict[str, Any]:
    """Every value, by dotted key."""
    return {key: value for key, _, value in leaves(config)}
