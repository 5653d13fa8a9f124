"""What a configuration comes to: settings that do nothing, and settings that mean the same, told before training.

Two configurations that come to the same train the same network the same way, bit for bit. No torch.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cnn_ablation.config import leaves, one_form
from cnn_ablation.runs.task import Inert
from cnn_ablation.study.designs import label_of
from cnn_ablation.tasks.image_classification import data, seeds
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS
from cnn_ablation.tasks.image_classification.config import (
    GROUPS,
    Config,
    ModelConfig,
    ModuleConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
)
from cnn_ablation.tasks.image_classification.data.images import DataSpec, num_validation
from cnn_ablation.tasks.image_classification.lengths import num_epochs, num_updates
from cnn_ablation.tasks.image_classification.models import NETWORKS, arguments, network_layers
from cnn_ablation.tasks.image_classification.models.convolutional import may_be_skipped
from cnn_ablation.tasks.image_classification.models.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    MaxPool,
    Residual,
    TracedLayer,
    trace,
)
from cnn_ablation.tasks.image_classification.schedules import schedule_of, step_length

_PACKAGE = __name__.partition(".")[0]
_OF_SCHEDULES = tuple(f"train.{name}" for name in ("warmup_epochs", "step_epochs", "step_factor", "final_lr_factor"))


def effective(config: Config, resolved: Mapping[str, Any] | None = None) -> str:
    """What a run of a configuration is made of, as text: equal for configurations that train the same, bit for bit.

    Keys without effect are left out, and what means the same has one form: lengths are updates, as is a schedule,
    a validation part is its number of images, a network is its layers.

    Args:
        config: that has been checked.
        resolved: what `auto` stands for on this machine, by key (`device`, `precision`).
    """
    spec = data.describe(config.data)
    settings = _forms(config) | dict(resolved or {})
    settings["data.image_size"] = spec.image_size
    settings["data.val_fraction"] = settings["data.val_images"] = num_validation(spec.source_train_images, config.data)
    settings |= _length(config.train, spec.train_images(config.data))
    settings |= _recipe(config.train, spec.train_images(config.data))
    settings["vary"] = seeds.acting(config, may_drop=True)
    if config.train.batch_size == 1:
        settings["train.mixup"] = None
    if isinstance(config.model, ModuleConfig):
        settings = {key: value for key, value in settings.items() if not key.startswith("model.kwargs.")}
        settings["model.kwargs"] = arguments(config.model)
    if isinstance(config.model, NetworkConfig) and _is_ours(config.model):
        steps = trace(network_layers(config.model, spec.num_classes), spec.input_shape)
        inside = [key for key in settings if key.startswith("model.") and key != "model.init"]
        settings |= dict.fromkeys(inside, None) | {"layers": list(_acting(steps))}
        settings["vary"] = seeds.acting(config, may_drop=any(_may_draw(step.layer) for step in steps))
        if type(config.optimizer) in GROUPS["optimizer"].values():
            penalties = _penalties(config.optimizer, [step.layer for step in steps])
            settings |= penalties
            if config.optimizer.name == "adamw" and not any(penalties.values()):
                settings["optimizer.name"] = "adam"  # they differ in what a penalty does
    return json.dumps(settings, sort_keys=True, default=repr)


def _forms(config: Config) -> dict[str, Any]:
    return {key: one_form(item, value) for key, item, value in leaves(config)}


def _is_ours(model: NetworkConfig) -> bool:
    """Whether the package builds the network: what somebody's own function makes of its settings is not known."""
    return type(model) in GROUPS["model"].values() and _is_of_package(NETWORKS[model.name])


def _is_of_package(function: Callable[..., Any]) -> bool:
    return function.__module__.partition(".")[0] == _PACKAGE


def _acting(steps: list[TracedLayer]) -> Iterator[tuple[int, str]]:
    """The layers that change what passes through them, and in how many blocks they lie.

    Without settings that do not matter to them, and without names.
    """
    for step in steps:
        layer = _as_it_acts(step)
        if layer is not None:
            yield step.depth, repr(layer)


def _as_it_acts(step: TracedLayer) -> Layer | None:
    layer = step.layer
    if isinstance(layer, Activation):
        has_slope = _has_slope(layer.name)
        return None if layer.name == "none" else layer if has_slope else Activation(layer.name, 0.0)
    if isinstance(layer, MaxPool | AveragePool):
        stride = layer.stride if max(step.output_shape[1:]) > 1 else 0  # a single window never moves
        if layer.window > 1:
            return dataclasses.replace(layer, stride=stride)
        # one pixel is its own largest and its own mean
        return MaxPool(1, stride) if stride != 1 and step.output_shape != step.input_shape else None
    if isinstance(layer, Residual):
        return Residual((), layer.shortcut)  # the branch has been told
    return Flatten() if isinstance(layer, GlobalAveragePool) and _are_pixels(step) else layer


def _are_pixels(step: TracedLayer) -> bool:
    """Whether the maps that reach a layer are single pixels."""
    return max(step.input_shape[1:]) == 1


def _has_slope(name: str) -> bool:
    """Whether an activation may have a leaky slope; one from outside the package may be anything."""
    return name == "leaky" or not _is_of_package(ACTIVATIONS[name])


def _length(train: TrainConfig, num_images: int) -> dict[str, Any]:
    """How long is trained at most, and what ends training before."""
    watches = train.stop_on is not None and not _never_stops(train, num_images)
    return {
        **dict.fromkeys(("train.epochs", "train.scale"), None),
        "train.updates": num_updates(train, num_images),
        "train.stop_on": train.stop_on if watches else None,
        "train.patience": train.patience if watches else None,
    }


def _recipe(train: TrainConfig, num_images: int) -> dict[str, Any]:
    """The rate's schedule, and the loss that is minimised."""
    return {
        **dict.fromkeys(_OF_SCHEDULES, None),
        "train.schedule": repr(schedule_of(train, num_images)),
        "train.label_smoothing": train.label_smoothing if train.loss == "cross_entropy" else None,
    }


def _never_stops(train: TrainConfig, num_images: int) -> bool:
    """The first epoch that can be `patience` epochs after the best one is the last one, or beyond."""
    return train.patience >= num_epochs(train, num_images) - 1


def _penalties(optimizer: OptimizerConfig, layers: list[Layer]) -> dict[str, Any]:
    """Weight decay of inner weights, biases and the output's weights, as far as there are any."""
    general = optimizer.weight_decay
    biases, output = (
        general if own is None else own for own in (optimizer.weight_decay_biases, optimizer.weight_decay_output)
    )
    return {
        "optimizer.weight_decay": general if _has_inner_weights(layers) else None,
        "optimizer.weight_decay_biases": biases if _has_biases(layers) else None,
        "optimizer.weight_decay_output": output,
    }


def _has_biases(layers: list[Layer]) -> bool:
    return any(isinstance(layer, Conv | BatchNorm) or (isinstance(layer, Linear) and layer.bias) for layer in layers)


def _has_inner_weights(layers: list[Layer]) -> bool:
    """Weights besides those of the last fully connected layer."""
    weighted = [layer for layer in layers if isinstance(layer, Conv | BatchNorm | Linear) or _may_have_weights(layer)]
    return len(weighted) > 1


def _may_draw(layer: Layer) -> bool:
    """Whether a layer draws at random while it is trained; an activation from outside the package may."""
    return isinstance(layer, Dropout) or (isinstance(layer, Activation) and not _is_of_package(ACTIVATIONS[layer.name]))


def _may_have_weights(layer: Layer) -> bool:
    return isinstance(layer, Activation) and (layer.name == "prelu" or not _is_of_package(ACTIVATIONS[layer.name]))


def inert(config: Config) -> dict[str, Inert]:
    """The keys that do nothing in a configuration, whatever their value, and why.

    Args:
        config: that has been checked.
    """
    spec = data.describe(config.data)
    found = dict(_inert_training(config, spec)) | dict(_inert_recipe(config.train, spec.train_images(config.data)))
    if isinstance(config.model, NetworkConfig) and _is_ours(config.model):
        steps = trace(network_layers(config.model, spec.num_classes), spec.input_shape)
        layers = [step.layer for step in steps]
        found |= dict(_inert_activations(config.model, layers)) | dict(_inert_blocks(config.model, layers))
        if isinstance(config.model, ModelConfig):
            found |= dict(_inert_pooling(config.model, steps)) | dict(_inert_skips(config.model, steps))
        found |= dict(_inert_penalties(config.optimizer, layers))
    return found


def _inert_training(config: Config, spec: DataSpec) -> Iterator[tuple[str, Inert]]:
    train = config.train
    if config.data.val_images is not None:
        yield "data.val_fraction", Inert(f"data.val_images={config.data.val_images}", "data.val_images=null")
    if train.updates is not None:
        yield "train.epochs", Inert(f"train.updates={train.updates}", "train.updates=null")
    if train.stop_on is None:
        yield "train.patience", Inert("train.stop_on=null", "train.stop_on=val_loss")
    if train.batch_size == 1:
        yield "train.mixup", Inert("train.batch_size=1", "train.batch_size=64")
    num_images = spec.train_images(config.data)
    if _never_stops(train, num_images):
        because = f"train.patience={train.patience} never runs out in {num_epochs(train, num_images)} epochs"
        yield "train.stop_on", Inert(because, "a smaller train.patience")


def _inert_recipe(train: TrainConfig, num_images: int) -> Iterator[tuple[str, Inert]]:
    other = f"train.schedule={train.schedule}"
    if train.schedule == "one_cycle":
        yield "train.warmup_epochs", Inert(f"{other} rises by itself", "train.schedule=cosine")
    if train.schedule != "cosine":
        yield "train.final_lr_factor", Inert(other, "train.schedule=cosine")
    if train.schedule != "step":
        yield "train.step_epochs", Inert(other, "train.schedule=step")
        yield "train.step_factor", Inert(other, "train.schedule=step")
    if train.schedule == "step" and train.step_factor == 1:
        yield "train.step_epochs", Inert("train.step_factor=1", "train.step_factor=0.1")
    if train.schedule == "step" and step_length(train, num_images) >= num_updates(train, num_images):
        because = f"train.step_epochs={label_of(train.step_epochs)} lasts as long as the training"
        yield "train.step_factor", Inert(because, "a smaller train.step_epochs")
    if train.loss != "cross_entropy":
        yield "train.label_smoothing", Inert(f"train.loss={train.loss}", "train.loss=cross_entropy")


def _inert_activations(model: NetworkConfig, layers: list[Layer]) -> Iterator[tuple[str, Inert]]:
    has_any = any(isinstance(layer, Activation) for layer in layers)
    nowhere = Inert("no layer has an activation", "model.last_activation=true, or a hidden layer")
    if not has_any:
        yield "model.activation", nowhere
    if not has_any or not _has_slope(model.activation):
        because = f"model.activation={model.activation}"
        yield "model.leaky_slope", Inert(because, "model.activation=leaky") if has_any else nowhere
    if model.activation == "none":
        yield "model.last_activation", Inert("model.activation=none", "model.activation=relu")


def _inert_blocks(model: NetworkConfig, layers: list[Layer]) -> Iterator[tuple[str, Inert]]:
    """Of batch norm and dropout."""
    no_hidden = Inert("model.hidden=[]", "model.hidden=[512]")
    if not model.hidden:
        yield "model.dropout", no_hidden
    if not model.hidden and not isinstance(model, ModelConfig):
        yield "model.batch_norm", no_hidden
        yield "model.batch_norm_place", no_hidden
    elif not model.batch_norm:
        yield "model.batch_norm_place", Inert("model.batch_norm=false", "model.batch_norm=true")
    elif not _norm_meets_activation(layers) and not any(isinstance(layer, Residual) for layer in layers):
        because = "no batch norm stands beside an activation"
        yield "model.batch_norm_place", Inert(because, "model.activation=relu and model.last_activation=true")


def _norm_meets_activation(layers: list[Layer]) -> bool:
    pairs = ({type(first), type(second)} for first, second in itertools.pairwise(layers))
    acts = any(isinstance(layer, Activation) and layer.name != "none" for layer in layers)
    return acts and {Activation, BatchNorm} in pairs


def _inert_pooling(model: ModelConfig, steps: list[TracedLayer]) -> Iterator[tuple[str, Inert]]:
    pools = [step for step in steps if isinstance(step.layer, MaxPool | AveragePool)]
    if model.pool_size == model.pool_stride == 1 and not (model.conv_dropout or model.residual):
        yield "model.pool_after", Inert("model.pool_size=1 and model.pool_stride=1", "model.pool_size=2")
    if not pools:
        nowhere = Inert(f"model.pool_after={label_of(model.pool_after)}", "model.pool_after=true")
        yield from ((f"model.{key}", nowhere) for key in ("pool", "pool_size", "pool_stride", "conv_dropout"))
        return
    if all(max(step.input_shape[1:]) == model.pool_size for step in pools):
        yield "model.pool_stride", Inert("one window covers the whole map", "a smaller model.pool_size")
    if model.pool_size == 1:
        yield "model.pool", Inert("model.pool_size=1", "model.pool_size=2")


def _inert_skips(model: ModelConfig, steps: list[TracedLayer]) -> Iterator[tuple[str, Inert]]:
    """Of skip connections and global pooling."""
    if not any(may_be_skipped(model)):
        because = "no convolution after the first keeps the size of its maps"
        yield "model.residual", Inert(because, "model.padding=same, two or more model.filters")
    last = next(step for step in steps if isinstance(step.layer, Flatten | GlobalAveragePool))
    if _are_pixels(last):
        yield "model.global_pool", Inert("the last maps are single pixels", "fewer poolings, or larger images")


def _inert_penalties(optimizer: OptimizerConfig, layers: list[Layer]) -> Iterator[tuple[str, Inert]]:
    own = optimizer.weight_decay_biases, optimizer.weight_decay_output
    if not _has_biases(layers):
        yield "optimizer.weight_decay_biases", Inert("no layer has a bias", "model.output_bias=true")
    if not _has_inner_weights(layers) and own[1] is not None and (own[0] is not None or not _has_biases(layers)):
        because = "weights and biases of the only layer have penalties of their own"
        yield "optimizer.weight_decay", Inert(because, "optimizer.weight_decay_output=null")
