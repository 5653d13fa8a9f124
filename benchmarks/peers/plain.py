"""The script most people would write: DataLoader, PIL transforms, a loop over epochs, a loop over seeds.

    python plain.py DATA.npz --filters 24 48 96 --epochs 2 --seeds 0 1 2 [--workers 2]

DATA.npz holds train_images, train_labels, val_images, ...: uint8 (N, height, width, channels) and int64 (N,).
Prints {"seed": ..., "test_accuracy": ...} per seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Images(Dataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR10: an array in memory, one PIL image per item, then transforms."""

    def __init__(self, path: Path, part: str):
        with np.load(path) as content:
            self.images, self.labels = content[f"{part}_images"], content[f"{part}_labels"]
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (1.0,) * 3)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def network(filters: Sequence[int], num_classes: int = 10) -> nn.Sequential:
    """The baseline of eq2425 for 3x32x32 images."""
    first, second, third = filters
    return nn.Sequential(
        nn.Conv2d(3, first, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(second, third, 3), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4 * third, 512), nn.ReLU(), nn.Linear(512, num_classes),
    )  # fmt: skip


def loaders(path: Path, workers: int, batch_size: int = 64) -> dict[str, DataLoader[tuple[Tensor, int]]]:
    """Training part shuffled, validation and test part in large batches."""
    common = {"num_workers": workers, "persistent_workers": workers > 0}
    return {
        "train": DataLoader(Images(path, "train"), batch_size=batch_size, shuffle=True, **common),
        "val": DataLoader(Images(path, "val"), batch_size=500, **common),
        "test": DataLoader(Images(path, "test"), batch_size=500, **common),
    }


@torch.no_grad()
def accuracy(model: nn.Module, batches: DataLoader[tuple[Tensor, int]], device: str) -> float:
    """Top-1, 0..1."""
    model.eval()
    correct = count = 0
    for inputs, labels in batches:
        correct += int((model(inputs.to(device)).argmax(1) == labels.to(device)).sum())
        count += len(labels)
    return correct / count


def train(told: argparse.Namespace, seed: int) -> float:
    """Trains with one seed, validates after every epoch, returns the test accuracy."""
    torch.manual_seed(seed)
    parts, device = loaders(told.data, told.workers), told.device
    model = network(told.filters).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(told.epochs):
        model.train()
        for inputs, labels in parts["train"]:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs.to(device)), labels.to(device)).backward()
            optimizer.step()
        accuracy(model, parts["val"], device)
    return accuracy(model, parts["test"], device)


def arguments() -> argparse.ArgumentParser:
    """What all peers are told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--filters", type=int, nargs=3, default=[24, 48, 96])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser


def report(seed: int, test_accuracy: float) -> None:
    """One line for whoever called."""
    print(json.dumps({"seed": seed, "test_accuracy": test_accuracy}), flush=True)


if __name__ == "__main__":
    told = arguments().parse_args()
    for seed in told.seeds:
        report(seed, train(told, seed))
