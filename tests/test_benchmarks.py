from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bare_kernels
import gpu
import memory
import numpy as np
import overhead
import pandas as pd
import plain
import pytest
import scale
import steps
import throughput
import times
import torch

import cnn_ablation
from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.config import Config, ModelConfig, ShapesConfig
from cnn_ablation.tasks.image_classification.data.resident import resident
from cnn_ablation.tasks.image_classification.engine.steps import EagerSteps
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.build import build


def test_the_plain_script_trains_our_network() -> None:
    ours = build(network_layers(ModelConfig(), 10), (3, 32, 32), seed=0)
    theirs = plain.network([24, 48, 96])
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    inputs = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(theirs(inputs), ours(inputs))


def test_the_plain_script_sees_our_images(tmp_path: Path) -> None:
    images = data.load(ShapesConfig(train_images=60, test_images=40))
    path = throughput.export(images, tmp_path)
    theirs, labels = next(iter(plain.loaders(path, workers=0)["val"]))
    ours, expected = next(resident(images, torch.device("cpu")).val.in_order(500))
    torch.testing.assert_close(theirs, ours)
    assert torch.equal(labels, expected)


def test_the_bare_kernels_give_a_rate_for_all_processes() -> None:
    setting = bare_kernels.Setting("float32", "contiguous", processes=2, threads=1)
    assert bare_kernels.images_per_second([4, 4, 4], setting, seconds=0.05) > 0


def test_ratios_are_made_within_a_turn() -> None:
    work = throughput.Work([1, 2, 3], epochs=1, seeds=2, train_images=100, overrides=[])
    times = {
        throughput.OURS: throughput.Times([400.0, 800.0], [0.5, 0.6]),
        "peer": throughput.Times([100.0, 200.0], [0.5, 0.6]),
    }
    page = throughput.as_markdown(times, work)
    assert "4.00" in page
    assert work.images == 200


def test_the_cost_of_a_table_is_that_of_all_its_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cost = overhead.table_cost(3, 2)
    assert (cost["arms"], cost["seeds"], cost["runs"]) == (3, 2, 6)


def test_a_spread_is_median_smallest_and_largest() -> None:
    assert overhead.spread(np.array([3.0, 1.0, 2.0])) == "2.000 [1.000, 3.000]"


def test_studies_are_timed_as_whole_commands() -> None:
    config = cnn_ablation.compose(["data=shapes", "data.train_images=100", "data.test_images=50", "train.epochs=1"])
    assert gpu.rate_of_study(config, train_images=90, seeds=1, timing="timing=isolated", environment={}) > 0


def test_steps_are_timed_epoch_by_epoch() -> None:
    config = cnn_ablation.compose(["data=shapes", "data.train_images=100", "data.test_images=10", "precision=float32"])
    found = gpu.rates_together(config, torch.device("cpu"), 2, [0, 1], EagerSteps)
    assert len(found) == 2
    assert min(found) > 0


@pytest.mark.parametrize(
    ("expected", "rates"),
    [
        ("2 [1, 3]", lambda: [1.0, 2.0, 3.0]),
        ("1,234", lambda: [1234.4]),
        ("ZeroDivisionError: division by zero", lambda: [1 / 0]),
    ],
    ids=["several", "one", "a failure"],
)
def test_a_rate_is_a_mean_with_its_range(expected: str, rates: Callable[[], list[float]]) -> None:
    assert gpu.measure(rates) == expected


def test_floors_fall_as_the_network_grows(tiny_config: Config) -> None:
    small, large = (
        gpu.floors(
            Config(tiny_config.data, ModelConfig(filters=filters, kernel_sizes=[3]), tiny_config.optimizer), 1, 1
        )
        for filters in ([4], [8])
    )
    assert all(large[name] < small[name] for name in small)


def timed(ratio: float, noise: float, num_seeds: int) -> pd.DataFrame:
    """A table of runs whose arm takes `ratio` times as long as the baseline, with some noise."""
    random = np.random.default_rng(0)
    frames = [
        pd.DataFrame({"arm": arm, "knob": "", "level": "", "seed": range(num_seeds), "status": "ok",
                      "val_accuracy": random.random(num_seeds), "test_accuracy": random.random(num_seeds),
                      "train_seconds": factor * np.exp(noise * random.standard_normal(num_seeds))})
        for arm, factor in (("baseline", 1.0), ("k=v", ratio))
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def test_false_verdicts_on_times_are_counted_by_family() -> None:
    families = [timed(1.0, 0.02, 5), timed(1.3, 0.02, 5), timed(0.7, 0.02, 5)]
    row = times.row_of_equal_arms(families, "packed", "t")
    assert row["families with a false verdict"].startswith("2 of 3 (67 % [9, 99])")
    assert row["intervals without 1"].startswith("2 of 3")
    assert row["not compared"].startswith("0 of 3")


def test_a_true_ratio_is_found_sooner_where_it_is_larger() -> None:
    small, large = [timed(1.01, 0.05, 8)], [timed(1.5, 0.05, 8)]
    assert times.row_of_true_ratios(large, 8)["slower (t)"].startswith("1 of 1")
    assert times.row_of_true_ratios(large, 8)["slower (by then, anytime)"].startswith("1 of 1")
    assert times.row_of_true_ratios(small, 3)["slower (t)"].startswith("0 of 1")


@pytest.mark.slow
def test_the_stages_of_a_study_add_up_to_its_command() -> None:
    rows = list(scale.measured(arms=3, seeds=2, image_arms=0))
    named = {row["what"]: float(row["seconds"]) for row in rows}
    whole = named["whole study: a function, 3 arms x 2 seeds"]
    of_stages = [value for name, value in named.items() if name.startswith("  ")]
    assert len(of_stages) == 5
    assert all(value >= -0.05 for value in of_stages)
    assert sum(of_stages) == pytest.approx(whole, abs=0.3)
    assert "dry run: the smallest network, 3 arms x 1 seed" in named


def test_a_step_needs_three_products_a_layer_but_for_the_first_ones_inputs() -> None:
    """24-48-96: 28x28 outputs of 5x5 kernels over 3 colours, 12x12 and 4x4 of 3x3 ones, then 384 x 512 x 10."""
    first, others = 28**2 * 24 * 75, 12**2 * 48 * 9 * 24 + 4**2 * 96 * 9 * 48 + 384 * 512 + 512 * 10
    assert steps.step_flops(ModelConfig()) == 2 * (2 * first + 3 * others)


def test_ways_of_a_step_are_measured_in_turns_and_kernels_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "TURN_SECONDS", 0.01)
    before = steps.convolution._PROCESSORS
    rates = steps.images_per_second(["model.filters=[4,4,4]"], turns=2)
    assert {way: len(found) for way, found in rates.items()} == dict.fromkeys(steps.WAYS, 2)
    assert all((found > 0).all() for found in rates.values())
    assert before == steps.convolution._PROCESSORS


def test_memory_is_that_of_the_command_and_of_what_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it starts stays until it has been looked at."""
    ready, seen, take = tmp_path / "ready", tmp_path / "seen", memory.Peaks.take

    def taken(peaks: memory.Peaks, processes: Sequence[Any]) -> None:
        is_there = ready.exists() and any(role == memory.TRAINING for role, _ in processes)
        take(peaks, processes)
        if is_there:
            seen.touch()

    monkeypatch.setattr(memory.Peaks, "take", taken)
    grandchild = (
        "held = bytearray(80 * 2**20); import pathlib, time; until = time.monotonic() + 60\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        f"while not pathlib.Path({str(seen)!r}).exists() and time.monotonic() < until: time.sleep(0.01)"
    )
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    peaks = memory.peaks_of(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"]
    )
    [resident] = [rss for (role, _), rss in peaks.rss.items() if role == memory.TRAINING]
    [of_the_command] = [rss for (role, _), rss in peaks.rss.items() if role == memory.PARENT]
    assert 80 <= resident / 2**20 <= 120
    assert of_the_command / 2**20 <= 40
    assert peaks.sum_pss >= 80 * 2**20
