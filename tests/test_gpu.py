"""The ways that only a GPU takes, each beside the reference loop: `python -m pytest -m gpu`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from test_fused import pooled_plainly, with_gradients

import cnn_ablation
from cnn_ablation.runs import run as runs
from cnn_ablation.tasks.image_classification import data, devices, engine, losses, training
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data.resident import resident
from cnn_ablation.tasks.image_classification.engine import gpu
from cnn_ablation.tasks.image_classification.engine.dropout import OwnDropout
from cnn_ablation.tasks.image_classification.scoring import evaluate
from cnn_ablation.tasks.image_classification.training import TrainingResult

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")
SEEDS = [0, 1, 2]

KNOBS = [
    [],
    ["optimizer=sgd", "optimizer.lr=0.1"],
    ["optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.9", "optimizer.weight_decay=1e-3"],
    ["optimizer=adagrad"],
    ["optimizer=rmsprop", "optimizer.momentum=0.5"],
    ["model.batch_norm=true"],
    ["model.activation=prelu"],
    ["model.activation=leaky", "model.output=softmax"],
    ["train.shuffle=false", "train.batch_size=64"],
    ["train.batch_size=4", "train.updates=37"],
    ["train.stop_on=val_loss", "train.patience=1", "train.epochs=8", "optimizer=sgd", "optimizer.lr=0.5"],
    ["train.loss=mean_squared_error", "model.output=softmax"],
    ["vary=[order]"],
    ["vary=[]"],
    ["optimizer=adamw", "train.schedule=one_cycle", "train.ema_decay=0.9", "train.batch_size=4", "train.updates=37"],
    ["optimizer=adagrad", "train.schedule=step", "train.step_epochs=0.5", "train.label_smoothing=0.1"],
    [
        *("optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.9", "optimizer.nesterov=true"),
        *("train.schedule=cosine", "train.warmup_epochs=1", "train.clip_norm=0.5", "model.batch_norm=true"),
    ],
]


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """float32 as float32: what every run sets for itself."""
    with devices.settings(threads=0, precision="float32"):
        yield


def composed(*overrides: str) -> Config:
    return cnn_ablation.compose([*TINY, "data.train_images=100", "precision=float32", "device=cuda", *overrides])


def losses_of(result: TrainingResult) -> list[float]:
    return [value for epoch in result.curves for value in (epoch.train_loss, epoch.val_loss)]


@pytest.mark.parametrize("overrides", KNOBS, ids=lambda overrides: " ".join(overrides) or "baseline")
def test_captured_steps_are_those_of_the_reference_loop(overrides: list[str]) -> None:
    config = composed(*overrides)
    images = data.load(config.data)
    captured = engine.train_together(config, images, seeds=SEEDS, device=GPU)
    for seed, found in zip(SEEDS, captured, strict=True):
        alone = training.train(config, images, seed=seed, device=GPU)
        assert losses_of(found) == pytest.approx(losses_of(alone), rel=1e-3, abs=1e-4)
        assert (found.updates, found.images_seen, found.status) == (alone.updates, alone.images_seen, alone.status)
        again = evaluate(found.network, resident(images, GPU).test.in_order(1000), losses.LOSSES[config.train.loss])
        assert again.loss == pytest.approx(found.test.loss, rel=1e-4), "the network that was measured"


@pytest.mark.parametrize("overrides", [[], ["model.batch_norm=true", "optimizer=sgd"]], ids=str)
def test_one_seed_by_the_fast_technique_is_that_of_the_cpu(overrides: list[str]) -> None:
    config = composed(*overrides)
    images = data.load(config.data)
    on_gpu = engine.train(config, images, seed=3, device=GPU)
    on_cpu = training.train(replace(config, device="cpu"), images, seed=3, device=torch.device("cpu"))
    assert losses_of(on_gpu) == pytest.approx(losses_of(on_cpu), rel=1e-3, abs=1e-4)


def test_dropout_draws_by_the_seed_whoever_trains_beside_it() -> None:
    config = composed("model.dropout=0.3", "train.epochs=3")
    images = data.load(config.data)
    first, _, third = engine.train_together(config, images, seeds=SEEDS, device=GPU)
    alone = engine.train_together(config, images, seeds=[2], device=GPU)[0]
    assert losses_of(third) == pytest.approx(losses_of(alone), rel=1e-3)
    assert losses_of(third) != pytest.approx(losses_of(first), rel=1e-3)
    without = engine.train_together(composed("train.epochs=3"), images, seeds=[2], device=GPU)[0]
    assert losses_of(third) != pytest.approx(losses_of(without), rel=1e-3), "masks are drawn anew in each replay"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dropout_keeps_as_many_values_as_it_should(dtype: torch.dtype) -> None:
    layer = OwnDropout(0.3, torch.Generator(GPU).manual_seed(0)).to(GPU)
    outputs = layer(torch.ones(1000, 100, device=GPU, dtype=dtype))
    assert outputs.dtype == dtype
    assert sorted(set(outputs.flatten().tolist())) == [0, torch.tensor(1 / 0.7).to(dtype).item()]
    assert float((outputs > 0).double().mean()) == pytest.approx(0.7, abs=0.01)  # seven standard errors


def test_bfloat16_stays_near_float32() -> None:
    config = composed("train.epochs=3", "data.train_images=400")
    images = data.load(config.data)
    exactly = engine.train_together(config, images, seeds=SEEDS, device=GPU)
    rounded = engine.train_together(replace(config, precision="bfloat16"), images, seeds=SEEDS, device=GPU)
    for one, other in zip(exactly, rounded, strict=True):
        assert losses_of(other) == pytest.approx(losses_of(one), rel=0.05)
        assert losses_of(other) != losses_of(one)


def test_tf32_is_computed_only_where_it_is_asked_for() -> None:
    maps = torch.randn(64, 64, 16, 16, device=GPU)
    kernels = torch.randn(64, 64, 3, 3, device=GPU)
    exactly = torch.nn.functional.conv2d(maps.double(), kernels.double())

    def error(precision: str) -> float:
        with devices.settings(threads=0, precision=precision):
            found = torch.nn.functional.conv2d(maps, kernels).double()
        return float((found - exactly).norm() / exactly.norm())

    assert error("float32") < 1e-5
    assert error("tf32") > 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
def test_pooling_by_a_kernel_of_our_own_is_pytorchs(dtype: torch.dtype, slope: float, has_bias: bool) -> None:
    """To the last bit, but for the gradient of the bias, which is a sum in another order."""
    maps = torch.randn(64, 24, 9, 28, device=GPU).to(dtype).contiguous(memory_format=torch.channels_last)
    bias = torch.randn(24, device=GPU).to(dtype) if has_bias else None
    kernels = gpu.kernels()
    assert kernels, "Triton compiles here"
    found = with_gradients(kernels.Pooled.apply, maps, bias, slope)
    expected = with_gradients(pooled_plainly, maps, bias, slope)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    if has_bias:
        torch.testing.assert_close(found[2], expected[2], rtol=2e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kernels_of_our_own_train_as_pytorchs_do(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed("model.activation=leaky", "train.epochs=3", f"precision={precision}")
    images = data.load(config.data)
    ours = engine.train_together(config, images, seeds=SEEDS, device=GPU)
    monkeypatch.setattr(gpu, "kernels", lambda: None)
    theirs = engine.train_together(config, images, seeds=SEEDS, device=GPU)
    for one, other in zip(ours, theirs, strict=True):
        assert losses_of(one) == pytest.approx(losses_of(other), rel=1e-4 if precision == "float32" else 1e-2)


def one_after_the_other(config: Config, folder: Path) -> list[TrainingResult]:
    """By the steps that a failed capture falls back to, in runs that never were captured."""
    alone = []
    for seed in config.seeds:
        single = replace(config, seed=seed, replicates=1, store=str(folder / f"store-{seed}"))
        images = data.load(single.data)
        alone.append(engine.train(single, images, seed=seed, device=GPU))
    return alone


def test_seeds_train_one_by_one_after_a_step_that_cannot_be_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that reads back from the device, which a graph cannot hold."""

    def reading_back(outputs: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        loss = losses.cross_entropy(outputs, labels, reduction=reduction)
        return loss if float(loss.detach().sum()) < 1e9 else loss * 0

    monkeypatch.setitem(losses.LOSSES, "cross_entropy", reading_back)
    config = replace(composed("model.dropout=0.3"), replicates=3, store=str(tmp_path / "store"))
    found = runs.run(config, tmp_path / "job")
    assert "one seed after the other" in capsys.readouterr().err
    assert [(run.status, run.error) for run in found] == [("ok", "")] * 3
    for run, alone in zip(found, one_after_the_other(config, tmp_path), strict=True):
        assert run.test_loss == pytest.approx(alone.test.loss, rel=1e-4)
    monkeypatch.undo()
    after = runs.run(replace(config, store=str(tmp_path / "other")), tmp_path / "after")
    assert [(run.status, run.concurrent_runs) for run in after] == [("ok", 3)] * 3, "the next arm is captured again"


def test_seeds_train_one_by_one_where_all_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit of 4 GiB for this process, which PyTorch holds as it would the end of the memory."""
    config = composed(
        "data.image_size=32", "data.train_images=1200", "train.batch_size=512", "model.filters=[128,128]",
        "model.kernel_sizes=[3,3]", "train.epochs=1", "replicates=12", f"store={tmp_path / 'store'}",
    )  # fmt: skip
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(4 * 2**30 / total)
    try:
        found = runs.run(config, tmp_path / "job")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "OutOfMemoryError" in capsys.readouterr().err
    assert [(run.status, run.error) for run in found] == [("ok", "")] * 12
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < 2**30, "what the failed capture took is free again"


def test_a_run_alone_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    config = replace(
        composed("train.horizontal_flip=true", "model.dropout=0.2", "train.epochs=3", "engine=reference"),
        replicates=1,
        store=str(tmp_path / "store"),
        checkpoint_seconds=1e-9,
    )
    first = runs.run(config, tmp_path / "a")[0]
    assert first.error == ""
    again = runs.run(replace(config, store=str(tmp_path / "other"), checkpoint_seconds=1e9), tmp_path / "b")[0]
    assert first.test_loss == pytest.approx(again.test_loss, rel=1e-4)


class KilledError(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_seeds_trained_together_go_on_from_their_checkpoint(optimizer: str, tmp_path: Path) -> None:
    """Dropout's streams and the optimisers' state go on inside the graphs."""
    config = replace(
        composed("model.dropout=0.3", "train.epochs=5", "train.schedule=cosine", f"optimizer={optimizer}"),
        replicates=3,
        store=str(tmp_path / "store"),
        checkpoint_seconds=1e-9,
    )
    asked: list[object] = []

    def killed(how: object) -> int:
        asked.append(how)
        if len(asked) == 4:
            raise KilledError
        return 1

    with pytest.raises(KilledError):
        runs.run(config, tmp_path / "a", concurrent_jobs=killed)
    resumed = runs.run(config, tmp_path / "b")
    whole = runs.run(replace(config, store=str(tmp_path / "other")), tmp_path / "c")
    for one, other in zip(resumed, whole, strict=True):
        assert [point["train_loss"] for point in one.curves] == pytest.approx(
            [point["train_loss"] for point in other.curves], rel=1e-4
        )
        assert one.test_loss == pytest.approx(other.test_loss, rel=1e-4)
