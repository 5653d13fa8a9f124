"""Images per second of a training step, per network and precision, beside what the processor's arithmetic allows.

    python benchmarks/steps.py --out docs/steps.md
    python benchmarks/steps.py --networks 24-48-96 LeNet-5

One thread: forward, backward and Adam on one resident batch, by the time that the processor computes; ways take turns.
The limit is that of the direct algorithm: the multiplications of the definition at the rate of the fastest matrix
product found here, in float32 and in bfloat16. Winograd's needs fewer, so that shares above 100 % are possible.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

import cnn_ablation
from cnn_ablation.analysis.stats import log_ratio_interval
from cnn_ablation.common import machine
from cnn_ablation.report.markdown import markdown
from cnn_ablation.runs import provenance
from cnn_ablation.tasks.image_classification import devices, engine
from cnn_ablation.tasks.image_classification.config import NetworkConfig
from cnn_ablation.tasks.image_classification.engine import convolution, linear
from cnn_ablation.tasks.image_classification.engine.memory import keep_freed_memory
from cnn_ablation.tasks.image_classification.identity import LIBRARIES
from cnn_ablation.tasks.image_classification.models import build_network, network_layers
from cnn_ablation.tasks.image_classification.models.layers import trace
from cnn_ablation.tasks.image_classification.training import autocast
from cnn_ablation.tasks.image_classification.updates import Updates

BATCH, TURNS, TURN_SECONDS, WARM_UP = 64, 9, 0.15, 3
SHAPE, CLASSES = (3, 32, 32), 10
SORENSEN_5 = ["model.filters=[32,32,64,64,64]", "model.padding=same", "model.pool_after=[true,true,true,true,true]"]
NETWORKS = {
    "24-48-96": [],
    "64-128-256": ["model.filters=[64,128,256]"],
    "64-128-256, two hidden layers": ["model.filters=[64,128,256]", "model.hidden=[512,512]"],
    "4-8-16": ["model.filters=[4,8,16]"],
    "kernels 7-5-3": ["model.kernel_sizes=[7,5,3]"],
    "dropout": ["model.dropout=0.3"],
    "dropout of maps": ["model.conv_dropout=0.3"],
    "batch norm": ["model.batch_norm=true"],
    "leaky ReLU": ["model.activation=leaky"],
    "residual, 32-64": [
        "model.filters=[32,64]", "model.kernel_sizes=[3,3]", "model.padding=same", "model.residual=1",
    ],
    "LeNet-5": ["model=lenet5"],
    "AlexNet's form, 64-192-384-256-256": [
        "model.filters=[64,192,384,256,256]", "model.kernel_sizes=[3]", "model.padding=same",
        "model.pool_after=[true,true,false,false,true]", "model.hidden=[1024,1024]", "model.dropout=0.5",
    ],
    "sorensen": ["model=sorensen"],
    "sorensen, five blocks": ["model=sorensen", *SORENSEN_5],
    "jappinen_cnn": ["model=jappinen_cnn"],
    "jappinen_mlp": ["model=jappinen_mlp"],
    "svalheim_cnn": ["model=svalheim_cnn"],
    "svalheim_cnn, 32 filters": ["model=svalheim_cnn", "model.filters=[32]"],
    "svalheim_mlp": ["model=svalheim_mlp"],
}  # fmt: skip
OURS, THEIRS, HALF = "float32, ours", "float32, PyTorch", "bfloat16"
WAYS = (OURS, THEIRS, HALF)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    limits = {precision: product_rate(precision) for precision in ("float32", "bfloat16")}
    rows = []
    for name in told.networks:
        rows.append(row(name, NETWORKS[name], limits, told.turns))
        print(rows[-1], flush=True)
    page = as_markdown(pd.DataFrame(rows), limits, told.turns)
    print(page)
    if told.out:
        told.out.write_text(page)


def product_rate(precision: str, size: int = 768, seconds: float = 1.0) -> float:
    """FLOP/s of one thread, by the fastest product of square matrices: MKL's or oneDNN's."""
    left, right = (torch.rand(size, size, dtype=getattr(torch, precision)) for _ in range(2))
    products: list[Callable[[], torch.Tensor]] = [lambda: left @ right]
    if torch.backends.mkldnn.is_available():
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], ""))
    shortest = min(repeat(product, seconds / len(products)) for product in products)
    return 2 * size**3 / shortest


def repeat(call: Callable[[], object], seconds: float) -> float:
    """The shortest time of one call."""
    call()
    shortest, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.process_time()
        call()
        shortest = min(shortest, time.process_time() - started)
    return float(shortest)


def step_flops(model: NetworkConfig) -> int:
    """Of an image, forward and backward, by the definition; the first layer's inputs need no gradient."""
    costs = [layer.multiply_adds for layer in trace(network_layers(model, CLASSES), SHAPE) if layer.multiply_adds]
    return 2 * (3 * sum(costs) - costs[0])


def row(name: str, overrides: list[str], limits: dict[str, float], turns: int) -> dict[str, str]:
    model = cnn_ablation.compose(overrides).model
    flops = step_flops(model)
    rates = images_per_second(overrides, turns)
    ratio = log_ratio_interval(rates[OURS], rates[HALF], 0.05)
    found = {"network": name, "MFLOP an image": f"{flops / 1e6:.1f}"}
    for way in WAYS:
        limit = limits["bfloat16" if way == HALF else "float32"] / flops
        found[way] = spread(rates[way])
        found[f"of the limit, {way}"] = f"{100 * np.median(rates[way]) / limit:.0f} %"
    return {**found, "ours over bfloat16": f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"}


def images_per_second(overrides: list[str], turns: int) -> dict[str, np.ndarray]:
    """By way, one entry per turn."""
    steps = {way: step_of(overrides, way) for way in WAYS}
    counts = {}
    for way, step in steps.items():
        for _ in range(WARM_UP):
            step()
        counts[way] = max(1, round(TURN_SECONDS / repeat(step, TURN_SECONDS)))
    rates = {way: np.empty(turns) for way in WAYS}
    for turn in range(turns):
        for way in np.roll(WAYS, turn):
            started = time.process_time()
            for _ in range(counts[way]):
                steps[way]()
            rates[way][turn] = counts[way] * BATCH / (time.process_time() - started)
    return rates


def step_of(overrides: list[str], way: str) -> Callable[[], None]:
    """A step of training in this way; kernels of our own are on for it alone."""
    config = cnn_ablation.compose(overrides)
    network = build_network(config.model, CLASSES, SHAPE, seed=0).to(memory_format=torch.channels_last)
    updates = Updates(config, network, BATCH, torch.device("cpu"), fused=True)
    computed: nn.Module = engine.FAST.rewrite(network)
    computed.train()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCH, *SHAPE, generator=generator).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    processors = (torch.backends.cpu.get_cpu_capability(),) if way == OURS else ()

    def step() -> None:
        with kernels_on(processors):
            updates.zero_grad()
            with autocast(inputs.device, "bfloat16" if way == HALF else "float32"):
                loss = F.cross_entropy(computed(inputs), labels)
            loss.backward()
            updates.step()

    return step


@contextmanager
def kernels_on(processors: tuple[str, ...]) -> Iterator[None]:
    """Kernels of our own run on these processors alone."""
    before = convolution._PROCESSORS, linear._PROCESSORS
    convolution._PROCESSORS = linear._PROCESSORS = processors
    yield
    convolution._PROCESSORS, linear._PROCESSORS = before


def spread(rates: np.ndarray) -> str:
    """Median, smallest and largest."""
    low, middle, high = np.quantile(rates, [0, 0.5, 1])
    return f"{middle:,.0f} [{low:,.0f}, {high:,.0f}]"


def as_markdown(rows: pd.DataFrame, limits: dict[str, float], turns: int) -> str:
    environment = provenance.environment(LIBRARIES)
    versions = environment["versions"]
    return (
        "# A step of training, network by network\n\n"
        "From `python benchmarks/steps.py`, which says how: "
        f"{devices.hardware_name(devices.choose('cpu'))} ({machine.instructions()}, {os.cpu_count()} cores, one used); "
        f"Python {versions['python']}, torch {versions['torch']}, commit {str(environment['git_commit'])[:10]}. Images "
        f"per second, batch {BATCH}, {turns} turns: median [smallest, largest]; ratio of paired rates with a 95 % t "
        f"interval on the log scale. Limit: products of matrices at {limits['float32'] / 1e9:.0f} GFLOP/s (float32) "
        f"and {limits['bfloat16'] / 1e9:.0f} (bfloat16), for the multiplications of the definition. `precision=auto` "
        f"is {devices.resolve_precision('auto', torch.device('cpu'))} here.\n\n"
        f"{markdown(rows)}\n"
    )


if __name__ == "__main__":
    main()
