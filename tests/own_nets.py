"""Networks as a person writes them, for the tests that name them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two convolutions, and what came in beside them."""

    def __init__(self, inputs: int, outputs: int, stride: int, skip: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.short = nn.Conv2d(inputs, outputs, 1, stride) if skip else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.relu(y if self.short is None else y + self.short(x))


class ResNet(nn.Module):
    """A small residual network."""

    def __init__(self, num_classes: int, input_shape: tuple[int, int, int], width: int = 8, *, skip: bool = True):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(input_shape[0], width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.blocks = nn.Sequential(Block(width, width, 1, skip), Block(width, 2 * width, 2, skip))
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


class Viewing(nn.Module):
    """`view` refuses maps in channels-last order."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.out = nn.Linear(8 * 8 * 8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return self.out(x.view(len(x), -1))


class Looking(nn.Module):
    """Looks at its layers by their attributes, and by their place in a sequence that it does not call."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.out = nn.Linear(8 * self.layers[0].kernel_size[0], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.layers[0].weight, self.layers[0].bias, padding=1)
        x = self.layers[2](self.layers[1](x))
        return self.out(x.mean(dim=2)[:, :, :3].flatten(1))


class Dropping(nn.Module):
    """Draws while it trains."""

    def __init__(self, num_classes: int, input_shape: tuple[int, int, int], probability: float = 0.5):
        super().__init__()
        self.probability = probability
        self.out = nn.Linear(input_shape[0], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.dropout(x.mean(dim=(2, 3)), self.probability, self.training))


class Lazy(nn.Module):
    """Learns the sizes of its layers from the first images."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv = nn.LazyConv2d(4, 3)
        self.out = nn.LazyLinear(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.conv(x)).flatten(1))


class Values(nn.Module):
    """Needs the values of its weights while it is built: shapes alone will not do."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.out = nn.Linear(3, num_classes)
        self.scale = float(self.out.weight.std())

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.mean(dim=(2, 3))) / self.scale


class Attending(nn.Module):
    """Products of matrices that no layer holds: rows of the image attend to each other."""

    def __init__(self, num_classes: int, input_shape: tuple[int, int, int]):
        super().__init__()
        self.out = nn.Linear(input_shape[0] * input_shape[2], num_classes)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 1, 3).flatten(2)
        mixed = (rows @ rows.transpose(1, 2)).softmax(dim=-1) @ rows
        return self.out(self.gelu(mixed).mean(dim=1))


class Recurrent(nn.Module):
    """Rows one after the other."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.rows = nn.LSTM(24, num_classes, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1]


class Wide(nn.Module):
    """As wide as asked for."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.Linear(width, width), nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.mean(dim=(2, 3)))


class FixedOutputs(nn.Module):
    """Five outputs, whatever the data."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.mean(dim=(2, 3)))


class Pair(FixedOutputs):
    """Gives two things."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x, x


class Failing(nn.Module):
    """Cannot be built of what it takes, or fails on images."""

    def __init__(self, num_classes: int, width: int, *, later: bool = False):
        super().__init__()
        if not later:
            raise ValueError(f"width {width} is odd")
        self.out = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.flatten(1))


def make_linear(num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """A function in place of a class."""
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1] * input_shape[2], num_classes))


def no_module(num_classes: int) -> int:
    return num_classes


WORD = "not callable"
