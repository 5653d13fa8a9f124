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
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.config import ArmConfig, with_settings
from cnn_ablation.launch.assignments import Assignment
from cnn_ablation.launch.crew import Crew
from cnn_ablation.launch.packing import Packing
from cnn_ablation.runs import run as runs
from cnn_ablation.runs.records import Run, read_run, record_path, record_paths
from cnn_ablation.tasks.function import task as function_task
from cnn_ablation.tasks.function.config import Function, FunctionConfig
from cnn_ablation.tasks.image_classification import computing, data, devices, engine, losses, training
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data.augmentation import epoch_draws
from cnn_ablation.tasks.image_classification.data.host import on_host
from cnn_ablation.tasks.image_classification.data.resident import resident
from cnn_ablation.tasks.image_classification.engine import gpu
from cnn_ablation.tasks.image_classification.engine.dropout import OwnDropout
from cnn_ablation.tasks.image_classification.scoring import evaluate
from cnn_ablation.tasks.image_classification.training import TrainingResult

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")
LAST = torch.device("cuda", max(0, torch.cuda.device_count() - 1))
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


def side_by_side(folder: Path, loss_of_the_last: str) -> list[Run]:
    """Records of four arms of two seeds that share the GPU, in the way that the environment says."""
    config = composed("model.dropout=0.3", "train.epochs=4", "replicates=2", "extensions=[reading_back]", "reuse=false")
    settings = [[("model.activation", name)] for name in ("relu", "leaky", "elu", "tanh")]
    settings[-1].append(("train.loss", loss_of_the_last))
    given = [
        Assignment(replace(with_settings(config, each), arm=ArmConfig(name=name)), folder / name, folder)
        for name, each in zip("0123", settings, strict=True)
    ]
    assert Crew("image_classification", Packing(processes=4, threads=1, by_memory=True)).train(given) == []
    return [read_run(path) for path in record_paths(folder)]


@pytest.mark.parametrize("last", ["cross_entropy", "reading_back"], ids=["all captured", "one cannot be captured"])
def test_arms_as_threads_of_a_process_are_those_of_processes(
    last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_processes = side_by_side(tmp_path / "processes", last)
    capsys.readouterr()
    monkeypatch.setenv(computing.ARMS, computing.THREADS)
    by_threads = side_by_side(tmp_path / "threads", last)
    assert [(run.status, run.error) for run in by_threads] == [("ok", "")] * 8
    for one, other in zip(by_threads, by_processes, strict=True):
        assert [point["train_loss"] for point in one.curves] == pytest.approx(
            [point["train_loss"] for point in other.curves], rel=1e-4
        )
        assert one.test_loss == pytest.approx(other.test_loss, rel=1e-4)
    sharing = {run.provenance["process"] for run in by_threads[:6]}
    assert len(sharing) == 1
    is_apart = by_threads[-1].provenance["process"] not in sharing
    assert is_apart == (last == "reading_back")
    assert ("training 3 in a process of its own" in capsys.readouterr().err) == is_apart


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


def test_batches_from_host_memory_are_those_of_images_on_the_device() -> None:
    """Copied by a stream of their own, while the other one computes; each part of an epoch, augmented or not."""
    config = composed("data.train_images=3000", "train.max_translation=2", "train.cutout=3", "train.mixup=0.5")
    images = data.load(config.data)
    there, host = resident(images, GPU, torch.channels_last).train, on_host(images, GPU, torch.channels_last).train
    order = torch.randperm(len(there), generator=torch.Generator().manual_seed(1)).to(GPU)
    draws = next(epoch_draws(config.train, len(there), (8, 8), seed=3))
    assert draws is not None
    for drawn in (None, draws.to(GPU)):
        kept = []
        pairs = zip(host.training_batches(order, 16, drawn), there.training_batches(order, 16, drawn), strict=True)
        for (inputs, _), (expected, _) in pairs:
            torch.randn(500, 500, device=GPU).matmul(torch.randn(500, 500, device=GPU))  # it has something to do
            kept.append((inputs, expected))
        assert all(torch.equal(inputs, expected) for inputs, expected in kept)
        assert {inputs.stride() for inputs, _ in kept[:-1]} == {kept[0][1].stride()}


@pytest.mark.parametrize("overrides", [[], ["train.horizontal_flip=true"]], ids=str)
def test_images_that_do_not_fit_train_from_host_memory(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(composed("train.epochs=3", *overrides), replicates=2, store=str(tmp_path / "store"))
    expected = one_after_the_other(config, tmp_path)
    monkeypatch.setattr(devices, "free_memory", lambda device: 2**30)
    found = runs.run(config, tmp_path / "job")
    assert "stay in host memory" in capsys.readouterr().err
    assert [(run.status, run.error, run.images_in_host_memory) for run in found] == [("ok", "", True)] * 2
    for run, alone in zip(found, expected, strict=True):
        assert run.test_loss == pytest.approx(alone.test.loss, rel=1e-4)
        assert run.val_loss == pytest.approx(alone.val.loss, rel=1e-4)


def test_images_are_on_the_device_once_by_whatever_name() -> None:
    images = data.load(composed().data)
    with devices.on(LAST):
        assert resident(images, GPU) is resident(images, LAST)
        assert resident(images, GPU).train.pixels.device == LAST


def test_free_memory_counts_what_the_allocator_keeps() -> None:
    def free() -> int:
        return devices.free_memory(GPU) or 0

    before = free()
    taken = torch.zeros(2**28, dtype=torch.uint8, device=GPU)
    assert before - free() == pytest.approx(2**28, rel=0.1)
    del taken
    assert free() == pytest.approx(before, rel=0.01)


@pytest.mark.parametrize("overrides", [[], ["train.horizontal_flip=true"], ["engine=reference"]], ids=str)
def test_a_run_lies_on_the_gpu_that_is_named_and_on_no_other(overrides: list[str], tmp_path: Path) -> None:
    """The last of those that there are; seeds together by graphs, seeds alone, and the reference loop."""
    others = [torch.device("cuda", place) for place in range(torch.cuda.device_count()) if place != LAST.index]
    before = [torch.cuda.memory_allocated(other) for other in others]
    for other in others:
        torch.cuda.reset_peak_memory_stats(other)
    config = replace(composed(f"device={LAST}", "model.dropout=0.3", *overrides), replicates=2)
    current = torch.cuda.current_device()
    found = runs.run(replace(config, store=str(tmp_path / "store")), tmp_path / "job")
    assert [(run.status, run.error, run.device) for run in found] == [("ok", "", "cuda")] * 2
    assert found[0].hardware == torch.cuda.get_device_name(LAST)
    assert [torch.cuda.max_memory_allocated(other) for other in others] == before
    assert torch.cuda.current_device() == current


def test_a_gpu_by_its_place_takes_what_the_store_has_of_its_like(tmp_path: Path) -> None:
    config = replace(composed(), replicates=1, store=str(tmp_path / "store"))
    assert [run.reused for run in runs.run(config, tmp_path / "a")] == [False]
    assert [run.reused for run in runs.run(replace(config, device="cuda:0"), tmp_path / "b")] == [True]


def test_a_worker_of_one_gpu_trains_on_it_whatever_its_place(tmp_path: Path) -> None:
    config = replace(composed(f"device={LAST}"), replicates=1, store=str(tmp_path / "store"))
    jobs = [Assignment(replace(config, seed=seed), tmp_path / str(seed), tmp_path) for seed in range(3)]
    assert Crew("image_classification", Packing(1, 1, devices=(str(LAST.index),))).train(jobs) == []
    found = [read_run(path) for path in record_paths(tmp_path)]
    assert [(run.status, run.error, run.device) for run in found] == [("ok", "", "cuda")] * 3
    assert {run.hardware for run in found} == {torch.cuda.get_device_name(LAST)}


def test_a_gpu_that_is_not_there_is_refused_by_how_many_there_are() -> None:
    count = torch.cuda.device_count()
    assert devices.choose(f"cuda:{count - 1}") == LAST
    with pytest.raises(ConfigError, match=rf"device=cuda:{count}\n  allowed: .* \(this process sees {count} GPU"):
        devices.choose(f"cuda:{count}")


BREAKS_THE_GPU = """
import torch
def train(*, seed, breaks=0):
    values = torch.zeros(4, device="cuda")
    if seed == breaks:
        values[torch.tensor([99], device="cuda")].sum().item()
    return {"loss": float(values.sum())}
"""


def test_a_run_that_breaks_its_process_for_the_gpu_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index out of bounds: nothing that the process asks of the GPU afterwards is done."""
    (tmp_path / "breaks.py").write_text(BREAKS_THE_GPU)
    monkeypatch.chdir(tmp_path)
    config = function_task.complete(
        FunctionConfig(task=Function(target="breaks.train"), store=str(tmp_path / "store"), device="cuda")
    )
    jobs = [Assignment(replace(config, seed=n, replicates=1), tmp_path / str(n), tmp_path) for n in range(3)]
    assert Crew("function", Packing(1, 1)).train(jobs) == []
    assert [read_run(record_path(tmp_path / str(n), n)).status for n in range(3)] == ["failed", "ok", "ok"]


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
