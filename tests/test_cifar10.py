"""The real images, where they are: CNN_ABLATION_CIFAR10 names a folder with train/<class>/* and test/<class>/*."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.config import (
    AdamConfig,
    Config,
    ImageFolderConfig,
    ModelConfig,
    TrainConfig,
)
from cnn_ablation.tasks.image_classification.training import train

FOLDER = os.environ.get("CNN_ABLATION_CIFAR10", "")


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="CNN_ABLATION_CIFAR10 is not set")
def test_the_baseline_reaches_60_percent_in_five_epochs(tmp_path: Path) -> None:
    """eq2425, section 4: the configuration "should perform around 60%"."""
    config = Config(
        data=ImageFolderConfig(root=FOLDER, cache=str(tmp_path)),
        model=ModelConfig(),
        optimizer=AdamConfig(),
        train=TrainConfig(epochs=5),
    )
    images = data.load(config.data)
    assert (len(images.train), len(images.val), len(images.test)) == (40_000, 10_000, 10_000)
    result = train(config, images, seed=0, device=torch.device("cpu"))
    assert result.test.accuracy > 0.6
    assert result.num_params == 256_058
