"""How fast a GPU trains two networks, by seeds side by side and by precision, beside the floor of the hardware.

    python benchmarks/gpu.py --out gpu.md --peak-tflops 790 --terabytes-per-second 4.8

Peak figures are those of an H200 in bfloat16. Generated images of CIFAR-10's size; compiling, capturing and warming up
lie outside the times. Studies and the plain script are whole commands.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
from throughput import export

import cnn_ablation
from cnn_ablation.report.markdown import markdown
from cnn_ablation.runs import provenance
from cnn_ablation.tasks.image_classification import computing, data, devices, engine, training
from cnn_ablation.tasks.image_classification.data.resident import resident
from cnn_ablation.tasks.image_classification.engine import gpu as own_kernels
from cnn_ablation.tasks.image_classification.engine.graphs import GraphedSteps
from cnn_ablation.tasks.image_classification.engine.together import MakeSteps
from cnn_ablation.tasks.image_classification.identity import LIBRARIES
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.layers import trace

BYTES = 2  # bfloat16
DROPOUTS = (0.1, 0.2, 0.3, 0.4)  # the arms of the studies, beside the baseline
NETWORKS = {
    "24-48-96": [],
    "64-128-256": [
        *("model.filters=[64,128,256]", "model.hidden=[512,128]", "model.activation=leaky"),
        *("model.dropout=0.3", "model.batch_norm=true"),
    ],
}
TOUCHES = 6  # an activation is written, read and read again for its gradient, which is written and read twice as well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5, help="timed, after one that is not")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 5, 10, 20])
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "tf32", "float32"])
    parser.add_argument("--train-images", type=int, default=8000, help="of which a fifth validates")
    parser.add_argument("--peak-tflops", type=float, default=790)
    parser.add_argument("--terabytes-per-second", type=float, default=4.8)
    parser.add_argument("--without-commands", action="store_true", help="neither studies nor the plain script")
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    plain = cnn_ablation.compose(["data=shapes", f"data.train_images={told.train_images}", "data.test_images=1000"])
    computing.serve_streams(replace(plain, replicates=max(told.seeds)))
    device = devices.choose("cuda")
    page = as_markdown(pd.DataFrame(rates_of_steps(told, device)), limits_of(told), device)
    if not told.without_commands:
        page += "\n" + markdown(pd.DataFrame(rates_of_commands(plain, told.epochs))) + "\n"
    print(page)
    if told.out:
        told.out.write_text(page)


def rates_of_steps(told: argparse.Namespace, device: torch.device) -> list[dict[str, str]]:
    """A row for each network, precision, and kernels of our own or PyTorch's; a column for each number of seeds."""
    rows = []
    for (name, overrides), precision, ours in [
        (network, precision, ours)
        for network in NETWORKS.items()
        for precision in told.precisions
        for ours in (True, False)
    ]:
        sizes = [f"data.train_images={told.train_images}", "data.test_images=1000", "train.epochs=1000"]
        config = cnn_ablation.compose(["data=shapes", *sizes, f"precision={precision}", *overrides])
        rate = partial(rates_together, config, device, told.epochs)
        row = {"network": name, "precision": precision, "kernels": "ours" if ours else "PyTorch's"}
        with mock.patch.object(own_kernels, "kernels", own_kernels.kernels if ours else lambda: None):
            for seeds in told.seeds:
                row[f"{seeds} seeds"] = measure(partial(rate, range(seeds), GraphedSteps))
                gc.collect()
        rows.append(row)
    return rows


def rates_of_commands(config: Any, epochs: int) -> list[dict[str, str]]:
    images = data.load(config.data)
    config.train.epochs = epochs
    as_threads = {computing.ARMS: computing.THREADS}
    ways = {"timing=isolated": {}, "timing=packed": {}, "timing=packed, arms as threads": as_threads}
    measured: dict[str, Callable[[], float]] = {
        f"study of {1 + len(DROPOUTS)} arms, 5 seeds, {way}": partial(
            rate_of_study, config, len(images.train), 5, way.split(",")[0], environment
        )
        for way, environment in ways.items()
    }
    measured["plain script, DataLoader with 8 workers"] = partial(rate_of_plain_script, images, epochs)
    return [{"command": name, "images/s": measure(lambda rate=rate: [rate()])} for name, rate in measured.items()]


def limits_of(told: argparse.Namespace) -> dict[str, dict[str, float]]:
    return {
        name: floors(cnn_ablation.compose(["data=shapes", *overrides]), told.peak_tflops, told.terabytes_per_second)
        for name, overrides in NETWORKS.items()
    }


def measure(rates: Callable[[], Sequence[float]]) -> str:
    """Images per second, mean and range, or why there are none."""
    try:
        found = rates()
    except Exception as error:  # one way that fails must not cost the others their figures
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    mean = f"{sum(found) / len(found):,.0f}"
    return mean if len(found) == 1 else f"{mean} [{min(found):,.0f}, {max(found):,.0f}]"


def rates_together(config: Any, device: torch.device, epochs: int, seeds: Any, make: MakeSteps) -> list[float]:
    """Images per second of all seeds in training steps, of each epoch after the first."""
    images = data.load(config.data)
    part = resident(images, device, engine.FAST.memory_format).train
    with devices.settings(threads=0, precision=config.precision):
        states = [
            training.TrainingState(config, images, seed=seed, device=device, technique=engine.FAST) for seed in seeds
        ]
        steps = make(config, states, part, config.precision)
        orders = torch.stack([torch.randperm(len(part)) for _ in states]).to(device)
        found = []
        for _ in range(epochs + 1):
            clock = training.StepClock(device)
            with clock.running():
                steps.epoch(orders)
            found.append(len(states) * len(part) / clock.seconds)
    return found[1:]


def rate_of_study(config: Any, train_images: int, seeds: int, timing: str, environment: Mapping[str, str]) -> float:
    """Whole command: a sweep of dropout with generated images, where the environment says this too."""
    sizes = [f"data.{name}={getattr(config.data, name)}" for name in ("train_images", "test_images")]
    knob = f"model.dropout={','.join(map(str, DROPOUTS))}"
    told = [knob, "data=shapes", *sizes, f"train.epochs={config.train.epochs}", f"replicates={seeds}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cnn_ablation", "-m", *told, timing, "reuse=false"]
        started = time.perf_counter()
        env = {**os.environ, **environment}
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=env)
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


def as_markdown(rates: pd.DataFrame, limits: dict[str, dict[str, float]], device: torch.device) -> str:
    environment = provenance.environment(LIBRARIES)
    bounds = "; ".join(
        f"{network}: " + ", ".join(f"{name} {limit:,.0f}" for name, limit in of.items())
        for network, of in limits.items()
    )
    return (
        f"# Training on a GPU\n\nImages/s in training steps, mean and range.\n\n{markdown(rates)}\n\nLimits, images/s: "
        f"{bounds}. Batch 64. {devices.hardware_name(device)}; torch {environment['versions']['torch']}, commit "
        f"{str(environment['git_commit'])[:10]}.\n"
    )


if __name__ == "__main__":
    main()
