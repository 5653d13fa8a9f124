"""The network of the program that eq2425's authors published, for `model=module` (see papers.md).

python -m cnn_ablation model=module model.target=papers_nets.eq2425 model.output=softmax optimizer=sgd
"""

from __future__ import annotations

from torch import nn


def eq2425(num_classes: int) -> nn.Module:
    """Column 5.C for images of 3x32x32: 967,306 parameters for 10 classes, probabilities out.

    Otherwise than `model=three_conv` with batch norm it has none after the third convolution, and drops out before the
    first hidden layer's activation only.
    """
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 5), nn.LeakyReLU(), nn.BatchNorm2d(64), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 128, 3), nn.LeakyReLU(), nn.BatchNorm2d(128), nn.MaxPool2d(2)),
        *(nn.Conv2d(128, 256, 3), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(256 * 2 * 2, 512), nn.Dropout(0.3), nn.LeakyReLU(), nn.BatchNorm1d(512)),
        *(nn.Linear(512, 128), nn.LeakyReLU(), nn.BatchNorm1d(128)),
        *(nn.Linear(128, num_classes), nn.Softmax(dim=1)),
    )
