"""How fast a GPU trains the baseline, by technique, beside the floor of the hardware and the plain script.

    python benchmarks/gpu.py --out docs/gpu.md --peak-tflops 790 --terabytes-per-second 4.8

Peak figures are those of an H200 in bfloat16. Every technique trains the same network on generated images of CIFAR-10's
size; compiling, capturing and warming up lie outside the times. Studies and the plain script are whole commands.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from throughput import export

import cnn_ablation
from cnn_ablation.report.files import markdown
from cnn_ablation.runs import provenance
from cnn_ablation.tasks.image_classification import data, devices, engine, training
from cnn_ablation.tasks.image_classification.engine.graphs import GraphedSteps
from cnn_ablation.tasks.image_classification.engine.together import MakeSteps, train_together
from cnn_ablation.tasks.image_classification.identity import LIBRARIES
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.layers import trace

BYTES = 2  # bfloat16
DROPOUTS = (0.1, 0.2, 0.3, 0.4)  # the arms of the studies, beside the baseline
COMPILED = replace(engine.FAST, rewrite=torch.compile)
TOUCHES = 6  # an activation is written, read and read again for its gradient, which is written and read twice as well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peak-tflops", type=float, default=790)
    parser.add_argument("--terabytes-per-second", type=float, default=4.8)
    parser.add_argument("--without-plain-script", action="store_true")
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    device = devices.choose("cuda")
    config = cnn_ablation.compose(["data=shapes", "data.train_images=50000", "data.test_images=10000"])
    config.train.epochs = told.epochs
    images = data.load(config.data)
    seeds = range(told.seeds)
    together = partial(rate_together, config, images, device)
    measured: dict[str, Callable[[], float]] = {
        "reference loop, float32": lambda: rate_alone(config, images, device, training.REFERENCE, "float32"),
        "reference loop, bfloat16": lambda: rate_alone(config, images, device, training.REFERENCE, "bfloat16"),
        "channels_last, fused optimiser, bfloat16": lambda: rate_alone(config, images, device, engine.FAST, "bfloat16"),
        "the same, torch.compile": lambda: rate_alone(config, images, device, COMPILED, "bfloat16"),
        "graphs, 1 seed": lambda: together([0], GraphedSteps),
        f"graphs, {told.seeds} seeds on streams": lambda: together(seeds, GraphedSteps),
        f"graphs, {told.seeds} seeds on streams, torch.compile": lambda: together(
            seeds, GraphedSteps, technique=COMPILED
        ),
    }
    for timing in ("isolated", "packed"):
        name = f"study of {1 + len(DROPOUTS)} arms, {told.seeds} seeds, timing={timing}"
        measured[name] = lambda timing=timing: rate_of_study(config, len(images.train), told.seeds, timing)
    if not told.without_plain_script:
        measured["plain script, DataLoader with 8 workers"] = lambda: rate_of_plain_script(images, told.epochs)
    rows = [{"technique": name, "images/s": measure(rate)} for name, rate in measured.items()]
    page = as_markdown(pd.DataFrame(rows), floors(config, told.peak_tflops, told.terabytes_per_second), device)
    print(page)
    if told.out:
        told.out.write_text(page)


def measure(rate: Callable[[], float]) -> str:
    """Images per second, or why there are none."""
    try:
        return f"{rate():,.0f}"
    except Exception as error:  # one technique that fails must not cost the others their figures
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def rate_alone(
    config: Any, images: data.ImageData, device: torch.device, technique: training.Technique, precision: str
) -> float:
    config.precision = precision
    result = training.train(config, images, seed=0, device=device, technique=technique)
    return result.images_seen / result.train_seconds


def rate_together(
    config: Any,
    images: data.ImageData,
    device: torch.device,
    seeds: Any,
    make: MakeSteps,
    *,
    technique: training.Technique = engine.FAST,
) -> float:
    config.precision = "bfloat16"
    results = train_together(config, images, seeds=seeds, device=device, make_steps=make, technique=technique)
    return sum(result.images_seen for result in results) / results[0].train_seconds


def rate_of_study(config: Any, train_images: int, seeds: int, timing: str) -> float:
    """Whole command: a sweep of dropout with generated images."""
    sizes = [f"data.{name}={getattr(config.data, name)}" for name in ("train_images", "test_images")]
    knob = f"model.dropout={','.join(map(str, DROPOUTS))}"
    told = [knob, "data=shapes", *sizes, f"train.epochs={config.train.epochs}", f"replicates={seeds}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cnn_ablation", "-m", *told, f"timing={timing}", "reuse=false"]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
        seconds = time.perf_counter() - started
    return config.train.epochs * train_images * seeds * (1 + len(DROPOUTS)) / seconds


def rate_of_plain_script(images: data.ImageData, epochs: int) -> float:
    """Whole command, one seed."""
    script = Path(__file__).parent / "peers" / "plain.py"
    with tempfile.TemporaryDirectory() as folder:
        path = export(images, Path(folder))
        command = [str(script), str(path), "--epochs", str(epochs), "--workers", "8", "--device", "cuda"]
        started = time.perf_counter()
        done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    json.loads(done.stdout.splitlines()[-1])
    return epochs * len(images.train) / seconds


def floors(config: Any, peak_tflops: float, terabytes_per_second: float) -> dict[str, float]:
    """Images per second that arithmetic and memory traffic allow, both from the list of layers."""
    spec = data.describe(config.data)
    steps = trace(network_layers(config.model, spec.num_classes), spec.input_shape)
    operations = 3 * 2 * sum(step.multiply_adds for step in steps)  # forward, and twice that backward
    values = sum(int(torch.Size(step.output_shape).numel()) for step in steps)
    return {
        "arithmetic": peak_tflops * 1e12 / operations,
        "memory traffic": terabytes_per_second * 1e12 / (values * BYTES * TOUCHES),
    }


def as_markdown(rates: pd.DataFrame, limits: dict[str, float], device: torch.device) -> str:
    environment = provenance.environment(LIBRARIES)
    bounds = ", ".join(f"{name} {limit:,.0f}" for name, limit in limits.items())
    return (
        f"# Training the baseline on a GPU\n\n{markdown(rates)}\n\nLimits, images/s: {bounds}. Batch 64. "
        f"{devices.hardware_name(device)}; torch {environment['versions']['torch']}, commit "
        f"{str(environment['git_commit'])[:10]}.\n"
    )


if __name__ == "__main__":
    main()
