"""A configuration and a seed -> a trained network and its record."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import torch

from cnn_ablation.analysis import metrics
from cnn_ablation.common import progress
from cnn_ablation.common.errors import DataError, one_line
from cnn_ablation.common.words import counted
from cnn_ablation.config import all_settings
from cnn_ablation.runs import provenance
from cnn_ablation.runs.records import Run, labels
from cnn_ablation.runs.task import Place, Trained
from cnn_ablation.tasks.image_classification import data, devices, diagnoses, engine, models
from cnn_ablation.tasks.image_classification import weights as trained
from cnn_ablation.tasks.image_classification.checkpoints import Checkpoints
from cnn_ablation.tasks.image_classification.computing import Computing
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data import placement
from cnn_ablation.tasks.image_classification.data.images import ImageData
from cnn_ablation.tasks.image_classification.data.resident import forget, kept
from cnn_ablation.tasks.image_classification.identity import LIBRARIES
from cnn_ablation.tasks.image_classification.lengths import num_epochs
from cnn_ablation.tasks.image_classification.losses import LOSSES
from cnn_ablation.tasks.image_classification.seeds import stream_seeds
from cnn_ablation.tasks.image_classification.training import (
    SCORED_TRAIN_IMAGES,
    Epoch,
    TrainingResult,
    autocast,
    evaluation_batch,
)

_MOST_CLASSES_CONFUSED = 100  # a matrix of more would outgrow the rest of a record
_FEW_IMAGES = 16  # tell outputs that are probabilities from those that are not


def train_together(
    config: Config, seeds: Sequence[int], how: Computing, place: Place, on_epoch: Callable[[int], None]
) -> list[Trained]:
    """Runs of several seeds, trained in one go.

    Raises:
        RuntimeError: they cannot be.
        DataError: their images do not fit on the device.
    """
    device, images = torch.device(how.device), data.load(config.data)
    if _stay_in_host_memory(config, images, device):
        raise DataError(f"the images of {config.arm.name} stay in host memory")
    checkpoints = Checkpoints(place.checkpoint, config.checkpoint_seconds, place.fingerprint)
    devices.reset_peak_memory(device)
    label = f"epochs of {config.arm.name}, {counted(len(seeds), 'seed')} together"
    with progress.bar(label, num_epochs(config.train, len(images.train))) as advance:
        shown = 0

        def after_epoch(epoch: int) -> None:
            nonlocal shown
            advance(epoch - shown)  # the first one after a checkpoint brings those before it along
            shown = epoch
            on_epoch(epoch)

        results = engine.train_together(
            config, images, seeds=seeds, device=device, checkpoints=checkpoints, on_epoch=after_epoch
        )
    seconds = checkpoints.elapsed_seconds
    return [
        Trained(_record(config, images, result, seed, device, total_seconds=seconds), _weights(config, images, result))
        for seed, result in zip(seeds, results, strict=True)
    ]


def train(config: Config, seed: int, how: Computing, place: Place) -> Trained:
    """One run."""
    device, images = torch.device(how.device), data.load(config.data, seed=stream_seeds(config.vary, seed).split)
    checkpoints = Checkpoints(place.checkpoint, config.checkpoint_seconds, place.fingerprint)
    devices.reset_peak_memory(device)
    in_host_memory = _stay_in_host_memory(config, images, device)
    epochs = num_epochs(config.train, len(images.train))
    with progress.bar(f"epochs of {config.arm.name}, seed {seed}", epochs) as advance:

        def after_epoch(epoch: Epoch) -> None:
            advance(1)
            if place.tell:
                place.tell(dataclasses.asdict(epoch))

        result = engine.train(
            config,
            images,
            seed=seed,
            device=device,
            checkpoints=checkpoints,
            on_epoch=after_epoch,
            in_host_memory=in_host_memory,
        )
    seconds = checkpoints.elapsed_seconds
    record = _record(config, images, result, seed, device, total_seconds=seconds, in_host_memory=in_host_memory)
    return Trained(record, _weights(config, images, result))


def _stay_in_host_memory(config: Config, images: ImageData, device: torch.device) -> bool:
    """Whether a GPU has no room for the images beside a run; says so.

    By arithmetic, from what it has left beside other processes and their copies of the images.
    """
    if devices.free_memory(device) is None:
        return False
    is_there = kept(images, device, engine.technique_of(config, images).memory_format) is not None
    if not is_there:
        forget()  # another data set, which makes room
    needed = placement.bytes_of_images(images)
    beside = placement.bytes_of_a_run(
        models.describe(config.model, images.num_classes, images.input_shape),
        images,
        batch_size=config.train.batch_size,
        scored_at_once=evaluation_batch(config, images, device),
        sample=SCORED_TRAIN_IMAGES,
    )
    if placement.fits(needed, beside, (devices.free_memory(device) or 0) + (needed if is_there else 0)):
        return False
    forget()
    progress.warn_once(f"images of {needed / 10**9:.3g} GB do not fit on the GPU beside a run of "
                       f"{beside / 10**9:.3g} GB: they stay in host memory, and seeds train one by one")  # fmt: skip
    return True


def _weights(config: Config, images: ImageData, result: TrainingResult) -> bytes | None:
    return trained.as_bytes(result.network, images) if config.keep_weights else None


def _record(
    config: Config,
    images: ImageData,
    result: TrainingResult,
    seed: int,
    device: torch.device,
    *,
    total_seconds: float,
    in_host_memory: bool = False,
) -> Run:
    peak_memory_mib = devices.peak_memory_mib(device)
    diagnose = partial(_diagnosis, config, images, result, seed, device, in_host_memory=in_host_memory)
    return Run(
        **labels(config),
        seed=seed,
        **_measurements(result),
        **_attempt("diagnosis", config, seed, diagnose),
        **_attempt("figures per class", config, seed, lambda: _figures_per_class(images, result)),
        total_seconds=total_seconds,
        peak_memory_mib=peak_memory_mib,
        device=device.type,
        hardware=devices.hardware_name(device),
        threads=torch.get_num_threads() if device.type == "cpu" else 0,
        images_in_host_memory=in_host_memory,
        settings=all_settings(config),
        provenance={
            **provenance.environment(LIBRARIES),
            "hardware": devices.hardware_name(device),
            "torch_threads": torch.get_num_threads(),
            "process": os.getpid(),
        },
    )


def _figures_per_class(images: ImageData, result: TrainingResult) -> dict[str, Any]:
    """Of validation and test images; nothing for a network whose outputs are not finite."""
    parts = {"val": (result.val, images.val.labels), "test": (result.test, images.test.labels)}
    per_class, confusion = {}, {}
    for part, (evaluation, truth) in parts.items():
        if evaluation.probabilities is None or not evaluation.probabilities.isfinite().all():
            continue
        probabilities = evaluation.probabilities.numpy()
        per_class[part] = metrics.per_class(probabilities, truth, images.class_names).reset_index().to_dict("records")
        if images.num_classes <= _MOST_CLASSES_CONFUSED:
            confusion[part] = metrics.confusion(probabilities, truth).tolist()
    return {"class_names": list(images.class_names), "per_class": per_class, "confusion": confusion}


def _attempt(what: str, config: Config, seed: int, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A trained network is never lost to what cannot be said of it (out of memory, an unusual network)."""
    try:
        return measure()
    except Exception as error:
        progress.warn(f"no {what} of {config.arm.name}, seed {seed}: {one_line(error)}")
        return {}


def _diagnosis(
    config: Config, images: ImageData, result: TrainingResult, seed: int, device: torch.device, *, in_host_memory: bool
) -> dict[str, Any]:
    """The part of a record that explains its scores; the initial network is built once more from its seed."""
    technique, seeds = engine.technique_of(config, images), stream_seeds(config.vary, seed)
    initial = models.build_network(config.model, images.num_classes, images.input_shape, seed=seeds.init).to(device)
    initial, final = initial.to(memory_format=technique.memory_format), result.network
    parts = placement.placed(images, device, technique.memory_format, in_host_memory=in_host_memory)
    some = next(parts.train.head(diagnoses.GRADIENT_IMAGES))
    by_cross_entropy = config.train.loss == "cross_entropy"
    with autocast(device, result.precision):
        some_val = parts.val.head(diagnoses.ACTIVATION_IMAGES)
        found = diagnoses.activation_layers(final, some_val, technique.rewrite)
        double_softmax = by_cross_entropy and diagnoses.gives_probabilities(
            technique.rewrite(final), some[0][:_FEW_IMAGES]
        )
    loss_of = LOSSES[config.train.loss]
    norms = [
        diagnoses.gradient_norm(
            technique.rewrite(network), some, seed=seeds.dropout, precision=result.precision, loss_of=loss_of
        )
        for network in (initial, final)
    ]
    network = models.describe(config.model, images.num_classes, images.input_shape)
    deadest, flattest = (max(found, key=attrgetter(share), default=None) for share in ("dead", "saturated"))
    return {
        "num_classes": images.num_classes,
        "multiply_adds": _whole(network.multiply_adds),
        "lowest_train_loss": _lowest_train_loss(result) if by_cross_entropy else math.nan,
        "initial_gradient_norm": norms[0],
        "final_gradient_norm": norms[1],
        **({"dead_units": deadest.dead, "dead_layer": deadest.label} if deadest else {}),
        **({"saturated_outputs": flattest.saturated, "saturated_layer": flattest.label} if flattest else {}),
        "double_softmax": double_softmax,
        "activation_layers": [dataclasses.asdict(layer) for layer in found],
    }


def _whole(count: float) -> int:
    """0 where it is not known."""
    return int(count) if math.isfinite(count) else 0


def _lowest_train_loss(result: TrainingResult) -> float:
    """Over epochs, and at the end: a first epoch's mean, with dropout, says little of what it has learnt."""
    losses = [result.train.loss, *(epoch.train_loss for epoch in result.curves)]
    return min(filter(math.isfinite, losses), default=math.nan)


def _measurements(result: TrainingResult) -> dict[str, Any]:
    """The part of a record that training measured."""
    scores = {
        f"{part}_{name}": getattr(getattr(result, part), name)
        for name in ("accuracy", "loss")
        for part in ("train", "val", "test")
    }
    return {
        **scores,
        "status": result.status,
        "train_seconds": result.train_seconds,
        "cpu_seconds": result.cpu_seconds,
        "images_per_second": result.images_seen / result.train_seconds,
        "epochs": len(result.curves),
        "updates": result.updates,
        "num_params": result.num_params,
        "precision": result.precision,
        "curves": [dataclasses.asdict(point) for point in result.curves],
    }
