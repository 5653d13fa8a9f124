"""The ceiling of eager PyTorch: forward and backward of the baseline on resident inputs; no data, no optimiser.

    python benchmarks/bare_kernels.py [--filters 24 48 96]

Prints images per second of the whole machine for every setting: float32 or bfloat16, contiguous or channels_last, one
process with all cores or one process per core.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

BATCH = 64
SECONDS = 2.0


class Setting(NamedTuple):
    """How the kernels are run."""

    dtype: str
    layout: str
    processes: int
    threads: int


def measure(filters: Sequence[int], setting: Setting, seconds: float, start: Any, rates: Any) -> None:
    """Puts images per second of one process into `rates`, after waiting for the others at `start`."""
    import torch
    from peers.plain import network
    from torch.nn import functional as F

    torch.set_num_threads(setting.threads)
    memory_format = torch.channels_last if setting.layout == "channels_last" else torch.contiguous_format
    model = network(filters).to(memory_format=memory_format)
    inputs = torch.rand(BATCH, 3, 32, 32).contiguous(memory_format=memory_format)
    labels = torch.randint(10, (BATCH,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.dtype == "bfloat16"):
            loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        model.zero_grad()

    for _ in range(5):
        step()
    start.wait()
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    rates.put(steps * BATCH / (time.perf_counter() - started))


def images_per_second(filters: Sequence[int], setting: Setting, seconds: float = SECONDS) -> float:
    """Of all processes together."""
    context = multiprocessing.get_context("spawn")
    start, rates = context.Barrier(setting.processes), context.Queue()
    told = (filters, setting, seconds, start, rates)
    running = [context.Process(target=measure, args=told) for _ in range(setting.processes)]
    for process in running:
        process.start()
    total = sum(rates.get() for _ in running)
    for process in running:
        process.join()
    return float(total)


def all_settings(filters: Sequence[int]) -> dict[Setting, float]:
    """Images per second by setting."""
    cores = os.cpu_count() or 1
    kinds = itertools.product(("float32", "bfloat16"), ("contiguous", "channels_last"), {(1, cores), (cores, 1)})
    settings = [Setting(dtype, layout, *split) for dtype, layout, split in kinds]
    return {setting: images_per_second(filters, setting) for setting in settings}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filters", type=int, nargs=3, default=[24, 48, 96])
    for setting, rate in all_settings(parser.parse_args().filters).items():
        print(f"{setting.dtype:9} {setting.layout:14} {setting.processes} x {setting.threads} threads: {rate:,.0f}")
