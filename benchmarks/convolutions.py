"""Compiled layers of float32 maps beside PyTorch's own, one by one, on one thread: convolution, ReLU, 2x2 max pooling.

    python benchmarks/convolutions.py --out docs/convolutions.md

Both take turns on the same numbers; the first layer's inputs need no gradient, as in training. Errors are the largest
difference from float64 in outputs and gradients, each as a share of the largest number there; windows whose largest
value hangs on rounding are given no gradient.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cnn_ablation.analysis.stats import log_ratio_interval
from cnn_ablation.report.markdown import markdown
from cnn_ablation.runs import provenance
from cnn_ablation.tasks.image_classification import devices
from cnn_ablation.tasks.image_classification.engine import convolution
from cnn_ablation.tasks.image_classification.engine.memory import keep_freed_memory
from cnn_ablation.tasks.image_classification.engine.networks import rewritten
from cnn_ablation.tasks.image_classification.identity import LIBRARIES

BATCH, REPEATS, WARM_UP = 64, 30, 3


class Size(NamedTuple):
    """Of one layer on square maps."""

    channels: int
    width: int
    filters: int
    kernel: int

    def __str__(self) -> str:
        return f"{self.channels} x {self.width}x{self.width} -> {self.filters}, {self.kernel}x{self.kernel}"

    @property
    def flops(self) -> int:
        """Of the definition: two per multiplication."""
        return 2 * BATCH * (self.width - self.kernel + 1) ** 2 * self.filters * self.channels * self.kernel**2


def layers(first: int, second: int, third: int) -> list[Size]:
    """The convolutions of the baseline with so many filters."""
    return [Size(3, 32, first, 5), Size(first, 14, second, 3), Size(second, 6, third, 3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    convolution._PROCESSORS = (torch.backends.cpu.get_cpu_capability(),)  # measured wherever this is run
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = [row for size in layers(24, 48, 96) + layers(64, 128, 256) for row in compared(size)]
    page = as_markdown(pd.DataFrame(rows))
    print(page)
    if told.out:
        told.out.write_text(page)


def compared(size: Size) -> Iterator[dict[str, str]]:
    """A row for the forward pass and one for the backward pass."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(size.channels, size.filters, size.kernel).to(memory_format=torch.channels_last)
    theirs = nn.Sequential(layer, nn.ReLU(), nn.MaxPool2d(2))
    contenders = {"PyTorch": theirs, "ours": rewritten(nn.Sequential(copy.deepcopy(layer), *theirs[1:]))}
    inputs = torch.randn(BATCH, size.channels, size.width, size.width, generator=generator)
    inputs = inputs.contiguous(memory_format=torch.channels_last).requires_grad_(size.channels > 3)
    gradient = torch.randn(theirs(inputs).shape, generator=generator) * is_decided(layer(inputs))
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    exact = computed(copy.deepcopy(theirs).double(), inputs.double().detach().requires_grad_(), gradient.double())
    errors = {name: error(computed(module, inputs, gradient), exact) for name, module in contenders.items()}
    times = {name: np.empty((REPEATS, 2)) for name in contenders}
    for repeat in range(-WARM_UP, REPEATS):
        for name, module in contenders.items():
            taken = timed(module, inputs, gradient)
            if repeat >= 0:
                times[name][repeat] = taken
    backward_flops = size.flops * (2 if inputs.requires_grad else 1)
    for index, (part, flops) in enumerate((("forward", size.flops), ("backward", backward_flops))):
        theirs_s, ours_s = times["PyTorch"][:, index], times["ours"][:, index]
        ratio = log_ratio_interval(theirs_s, ours_s, 0.05)
        yield {
            "layer": str(size),
            "pass": part,
            "PyTorch, ms": spread(theirs_s),
            "ours, ms": spread(ours_s),
            "faster by": f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
            "ours, GFLOP/s": f"{flops / np.median(ours_s) / 1e9:.0f}",
            "error, PyTorch": f"{errors['PyTorch'][index]:.0e}",
            "error, ours": f"{errors['ours'][index]:.0e}",
        }


def is_decided(maps: Tensor) -> Tensor:
    """Of each window, whether rounding changes neither which value is the largest nor its sign."""
    largest, second = maps.detach().unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).topk(2).values.unbind(-1)
    return (largest - second > 1e-4) & (largest.abs() > 1e-4)


def timed(module: nn.Module, inputs: Tensor, gradient: Tensor) -> tuple[float, float]:
    """Seconds of the forward and of the backward pass."""
    started = time.perf_counter()
    outputs = module(inputs)
    middle = time.perf_counter()
    outputs.backward(gradient)
    return middle - started, time.perf_counter() - middle


def computed(module: nn.Module, inputs: Tensor, gradient: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What the forward pass gives and what the backward pass gives; leaves no gradients behind."""
    outputs = module(inputs)
    wanted = [*module.parameters(), *([inputs] if inputs.requires_grad else [])]
    return [outputs.detach()], list(torch.autograd.grad(outputs, wanted, gradient))


def error(found: tuple[list[Tensor], list[Tensor]], exact: tuple[list[Tensor], list[Tensor]]) -> list[float]:
    """Of each pass; inputs whose gradient was not asked for are left out."""
    return [
        max(
            float((one.double() - other).abs().max() / other.abs().max())
            for one, other in zip(ours, wanted, strict=False)
        )
        for ours, wanted in zip(found, exact, strict=True)
    ]


def spread(seconds: np.ndarray) -> str:
    """Median, smallest and largest in milliseconds."""
    low, middle, high = 1e3 * np.quantile(seconds, [0, 0.5, 1])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def as_markdown(rows: pd.DataFrame) -> str:
    environment = provenance.environment(LIBRARIES)
    versions = environment["versions"]
    return (
        "# Convolution, ReLU and 2x2 max pooling, layer by layer\n\n"
        "From `python benchmarks/convolutions.py`, which says how: "
        f"{devices.hardware_name(devices.choose('cpu'))} ({torch.backends.cpu.get_cpu_capability()}, "
        f"{os.cpu_count()} cores, one used); Python {versions['python']}, torch {versions['torch']}, commit "
        f"{str(environment['git_commit'])[:10]}. Batch {BATCH}, {REPEATS} repeats in turns: median [smallest, "
        "largest]; ratio of paired times with a 95 % t interval on the log scale. GFLOP/s count the multiplications of "
        "the definition, twice as many backward where inputs need a gradient; ours does a quarter of most.\n\n"
        f"{markdown(rows)}\n"
    )


if __name__ == "__main__":
    main()
