"""The only performance code: `train` does what `training.train` does, faster.

A technique says how steps are computed; the reference loop itself runs them, so that order of images, clock, curves,
checkpoints and scores cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from cnn_ablation import training
from cnn_ablation.checkpoints import Checkpoints
from cnn_ablation.config import Config
from cnn_ablation.data.images import ImageData
from cnn_ablation.engine.memory import keep_freed_memory
from cnn_ablation.engine.networks import rewritten
from cnn_ablation.training import Epoch, Technique, TrainingResult

__all__ = ["FAST", "technique_of", "train"]

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
    return training.train(
        config, data, seed=seed, device=device, checkpoints=checkpoints, on_epoch=on_epoch, technique=technique
    )
