"""The only performance code: `train` does what `training.train` does, faster.

A technique says how steps are computed; the reference loop itself runs them, so that order of images, clock, curves,
checkpoints and scores cannot differ. On a GPU all seeds of an arm are trained together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from cnn_ablation.common import progress
from cnn_ablation.tasks.image_classification import compiled, training
from cnn_ablation.tasks.image_classification.checkpoints import Checkpoints
from cnn_ablation.tasks.image_classification.config import Config, ModuleConfig
from cnn_ablation.tasks.image_classification.data.changes import augments
from cnn_ablation.tasks.image_classification.data.images import ImageData
from cnn_ablation.tasks.image_classification.engine import modules, together
from cnn_ablation.tasks.image_classification.engine.graphs import GraphedSteps
from cnn_ablation.tasks.image_classification.engine.memory import keep_freed_memory
from cnn_ablation.tasks.image_classification.engine.networks import rewritten
from cnn_ablation.tasks.image_classification.engine.steps import EagerSteps
from cnn_ablation.tasks.image_classification.models import build_network
from cnn_ablation.tasks.image_classification.training import Epoch, Technique, TrainingResult

__all__ = ["FAST", "technique_of", "train", "train_together", "trains_together"]

FAST = Technique(memory_format=torch.channels_last, fused_optimizer=True, rewrite=rewritten)


def technique_of(config: Config, data: ImageData) -> Technique:
    """How the steps of a configuration are computed; a module of the user's own is asked what it can take."""
    if config.engine == "reference":
        return training.REFERENCE
    if not isinstance(config.model, ModuleConfig):
        return FAST
    network = build_network(config.model, data.num_classes, data.input_shape, seed=0)
    return modules.fitting(network, data.input_shape, FAST)


def train(
    config: Config,
    data: ImageData,
    *,
    seed: int,
    device: torch.device,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    in_host_memory: bool = False,
) -> TrainingResult:
    """Trains one configuration with one seed, as `training.train` does; `engine=reference` is that function."""
    technique = technique_of(config, data)
    if technique is not training.REFERENCE:
        keep_freed_memory()
        if device.type == "cpu" and compiled.missing():
            progress.warn_once(f"runs train more slowly: {compiled.missing()}")
    return training.train(
        config,
        data,
        seed=seed,
        device=device,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        technique=technique,
        in_host_memory=in_host_memory,
    )


def trains_together(config: Config, device: torch.device) -> bool:
    """Whether the seeds of an arm are trained together; on a CPU that is slower than runs side by side.

    Augmented images are not: each seed changes its own. Nor are seeds that have a split of their own, or modules of the
    user's own, which may draw, or wait for the device, where a graph cannot.
    """
    if isinstance(config.model, ModuleConfig) or "split" in config.vary:
        return False
    return device.type == "cuda" and config.engine == "fast" and not augments(config.train)


def train_together(
    config: Config,
    data: ImageData,
    *,
    seeds: Sequence[int],
    device: torch.device,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> list[TrainingResult]:
    """Trains one configuration with several seeds at once, one result per seed.

    On a GPU by graphs with a branch per seed; elsewhere the same steps are taken one by one, which gains nothing.

    Raises:
        RuntimeError: a step cannot be captured (an optimiser that reads back from the device, out of memory).
    """
    make_steps: together.MakeSteps = GraphedSteps if device.type == "cuda" else EagerSteps
    return together.train_together(
        config,
        data,
        seeds=seeds,
        device=device,
        make_steps=make_steps,
        technique=FAST,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
    )
