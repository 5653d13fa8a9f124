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
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data.augmentation import augments
from cnn_ablation.tasks.image_classification.data.images import ImageData
from cnn_ablation.tasks.image_classification.engine import together
from cnn_ablation.tasks.image_classification.engine.graphs import GraphedSteps
from cnn_ablation.tasks.image_classification.engine.memory import keep_freed_memory
from cnn_ablation.tasks.image_classification.engine.networks import rewritten
from cnn_ablation.tasks.image_classification.engine.steps import EagerSteps
from cnn_ablation.tasks.image_classification.training import Epoch, Technique, TrainingResult

__all__ = ["FAST", "technique_of", "train", "train_together", "trains_together"]

FAST = Technique(memory_format=torch.channels_last, fused_optimizer=True, rewrite=rewritten)


def technique_of(config: Config) -> Technique:
    """How the steps of a configuration are computed."""
    return training.REFERENCE if config.engine == "reference" else FAST


def train(
    config: Config,
    data: ImageData,
    *,
    seed: int,
    device: torch.device,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> TrainingResult:
    """Trains one configuration with one seed, as `training.train` does; `engine=reference` is that function."""
    technique = technique_of(config)
    if technique is FAST:
        keep_freed_memory()
        if device.type == "cpu" and compiled.missing():
            progress.warn_once(f"runs train more slowly: {compiled.missing()}")
    return training.train(
        config, data, seed=seed, device=device, checkpoints=checkpoints, on_epoch=on_epoch, technique=technique
    )


def trains_together(config: Config, device: torch.device) -> bool:
    """Whether the seeds of an arm are trained together; on a CPU that is slower than runs side by side.

    Augmented images are not: each seed changes its own.
    """
    return device.type == "cuda" and config.engine == "fast" and not augments(config.train)


def train_together(
    config: Config,
    data: ImageData,
    *,
    seeds: Sequence[int],
    device: torch.device,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> list[TrainingResult]:
    """Trains one configuration with several seeds at once, one result per seed; keeps no checkpoints.

    On a GPU by graphs with a branch per seed; elsewhere the same steps are taken one by one, which gains nothing.

    Raises:
        RuntimeError: a step cannot be captured (an optimiser that reads back from the device, out of memory).
    """
    make_steps: together.MakeSteps = GraphedSteps if device.type == "cuda" else EagerSteps
    return together.train_together(
        config, data, seeds=seeds, device=device, make_steps=make_steps, technique=FAST, on_epoch=on_epoch
    )
