from __future__ import annotations

import copy
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn, optim
from torch.nn import functional as F

import cnn_ablation
from cnn_ablation.common import machine
from cnn_ablation.tasks.image_classification import compiled, data, engine, training
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS
from cnn_ablation.tasks.image_classification.config import Config, ModelConfig, SGDConfig
from cnn_ablation.tasks.image_classification.data.resident import resident
from cnn_ablation.tasks.image_classification.engine import calls, convolution, linear, pooling
from cnn_ablation.tasks.image_classification.engine.dropout import Dropped
from cnn_ablation.tasks.image_classification.engine.graphs import copied, put_back
from cnn_ablation.tasks.image_classification.engine.networks import rewritten
from cnn_ablation.tasks.image_classification.engine.steps import EagerSteps, RoundedWeights
from cnn_ablation.tasks.image_classification.engine.together import train_together
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.build import build
from cnn_ablation.tasks.image_classification.optimizers import make_optimizer
from cnn_ablation.tasks.image_classification.scoring import evaluate
from cnn_ablation.tasks.image_classification.training import Technique, TrainingResult

CPU = torch.device("cpu")
RESIDUAL: dict[str, Any] = {"kernel_sizes": 3, "padding": "same", "residual": 2}
NETWORKS = [
    *(ModelConfig(activation=name) for name in ACTIVATIONS),
    ModelConfig(batch_norm=True),
    ModelConfig(filters=[5, 7], kernel_sizes=[2, 4], hidden=[]),
    ModelConfig(global_pool=True),
    ModelConfig(filters=[8, 8, 8], **RESIDUAL),
    ModelConfig(filters=[8, 8, 16, 16, 16], strides=[1, 1, 2, 1, 1], batch_norm=True, pool_after=False, **RESIDUAL),
    ModelConfig(filters=[8, 8, 8, 16], last_activation=True, pool_after=[True, False, True, True], **RESIDUAL),
]


@pytest.mark.parametrize(
    "model",
    NETWORKS,
    ids=lambda model: f"{model.activation}-{model.filters}-{model.batch_norm}-{model.global_pool}",
)
def test_a_rewritten_network_is_the_same_function_with_the_same_gradients(model: ModelConfig) -> None:
    network = build(network_layers(model, 10), (3, 32, 32), seed=0).double()
    twin = copy.deepcopy(network)
    inputs = torch.rand(8, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8)
    outputs, expected = rewritten(network)(inputs), twin(inputs)
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)
    for logits in (outputs, expected):
        F.cross_entropy(logits, labels).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, twin.get_parameter(name).grad, rtol=1e-9, atol=1e-12, msg=name)


def test_pooling_comes_first_only_where_the_function_never_decreases() -> None:
    def order(activation: nn.Module) -> list[str]:
        return [type(module).__name__ for module in rewritten(nn.Sequential(activation, nn.MaxPool2d(2)))]

    assert order(nn.ReLU()) == ["PooledActivation"]
    assert order(nn.Tanh()) == ["PooledActivation"]
    assert order(nn.PReLU()) == ["PReLU", "PooledActivation"]  # its slope may become negative
    assert order(nn.LeakyReLU(-0.1)) == ["LeakyReLU", "PooledActivation"]
    assert order(nn.GELU()) == ["GELU", "PooledActivation"]


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(3, 2), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, 2, padding=1), nn.MaxPool2d(2, ceil_mode=True)]
)
def test_pooling_of_another_form_stays_where_it_is(pool: nn.Module) -> None:
    assert [type(module) for module in rewritten(nn.Sequential(nn.ReLU(), pool))] == [nn.ReLU, nn.MaxPool2d]


def maps(images: int, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Few different values, so that windows hold ties, zeros of both signs and values that round."""
    generator = torch.Generator().manual_seed(channels)
    values = torch.randn(images, channels, height, width, generator=generator)
    values[torch.rand(values.shape, generator=generator) < 0.3] = 0.0
    values[torch.rand(values.shape, generator=generator) < 0.3] *= -0.0
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


needs_compiler = pytest.mark.skipif(compiled.library() is None, reason="no C compiler")


@needs_compiler
@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.LeakyReLU(0.01), nn.LeakyReLU(0.3)], ids=str)
@pytest.mark.parametrize("shape", [(3, 1, 2, 2), (2, 8, 5, 4), (5, 24, 28, 28), (2, 33, 6, 7), (1, 64, 3, 3)], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_compiled_pooling_gives_the_bits_of_pytorch(
    activation: nn.Module | None, shape: tuple[int, int, int, int], threads: int, dtype: torch.dtype
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        inputs = maps(*shape, dtype).requires_grad_()
        plain, compiled = nn.MaxPool2d(2), pooling.PooledActivation(nn.MaxPool2d(2), activation)
        expected = activation(plain(inputs)) if activation else plain(inputs)
        outputs = compiled(inputs)
        assert outputs.grad_fn.name() == "_MaxPoolBackward"
        assert torch.equal(outputs, expected)
        gradient = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        wanted, found = (torch.autograd.grad(result, inputs, gradient)[0] for result in (expected, outputs))
        assert torch.equal(found, wanted)
    finally:
        torch.set_num_threads(before)


@needs_compiler
@pytest.mark.parametrize("places", [[0], [3], [1, 2]])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_compiled_pooling_passes_nan_on(places: list[int], dtype: torch.dtype) -> None:
    window = torch.tensor([1.0, -1.0, 2.0, -torch.inf])
    window[places] = torch.nan
    inputs = window.view(1, 1, 2, 2).to(dtype).contiguous(memory_format=torch.channels_last)
    assert pooling.PooledActivation(nn.MaxPool2d(2), nn.ReLU())(inputs).isnan().all()


@pytest.mark.parametrize(
    "inputs",
    [torch.rand(2, 4, 6, 6).double(), torch.rand(2, 4, 6, 6).bfloat16(), torch.rand(4, 6, 6).bfloat16()],
    ids=["float64", "contiguous", "one image"],
)
def test_maps_of_another_form_take_pytorchs_own_pooling(inputs: Tensor) -> None:
    expected = F.max_pool2d(inputs, 2).relu()
    assert torch.equal(pooling.PooledActivation(nn.MaxPool2d(2), nn.ReLU())(inputs), expected)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[8, 16], ids="{} lanes".format)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Kernels of this width, whatever the mask; each is compiled once per machine."""
    if request.param == 16 and not {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= set(machine._flags()):
        pytest.skip("no AVX-512")
    if request.param != compiled.lanes():
        monkeypatch.setattr(compiled, "lanes", lambda: request.param)
        monkeypatch.setattr(convolution, "lanes", lambda: request.param)
        functions = compiled_for(request.param)
        for module in (convolution, calls, pooling):
            monkeypatch.setattr(module, "library", lambda: functions)
    return int(request.param)


@cache
def compiled_for(lanes: int) -> Any:
    """The library of this many lanes; called where `compiled.lanes` gives that."""
    path, loaded = compiled._path.__wrapped__, compiled._loaded.__wrapped__
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compiled, "_path", path)
        functions, why_not = loaded()
    assert functions is not None, why_not
    return functions


@pytest.fixture
def on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "_PROCESSORS", (torch.backends.cpu.get_cpu_capability(),))


def close(found: Tensor, expected: Tensor) -> None:
    """Up to 2e-5 of the largest number: Winograd's sums are larger than their results."""
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def a_convolution(sizes: tuple[int, ...], *, bias: bool) -> tuple[nn.Conv2d, nn.Conv2d, Tensor, torch.Generator]:
    """A layer, the same in float64, inputs for it, and the generator that drew them."""
    images, channels, height, width, filters, kernel, padding = sizes
    generator = torch.Generator().manual_seed(0)
    plain = nn.Conv2d(channels, filters, kernel, padding=padding, bias=bias)
    inputs = torch.randn(images, channels, height, width, generator=generator)
    return plain, copy.deepcopy(plain).double(), inputs.contiguous(memory_format=torch.channels_last), generator


CONVOLUTIONS = [  # images, channels, height, width, filters, kernel, padding
    (5, 8, 14, 14, 16, 3, 0),
    (3, 24, 6, 6, 40, 3, 0),
    (2, 16, 9, 13, 8, 3, 1),
    (4, 8, 2, 6, 24, 3, 2),
    (60, 8, 6, 6, 8, 3, 0),
    (70, 128, 6, 6, 256, 3, 0),
    (3, 3, 32, 32, 24, 5, 0),
    (2, 1, 12, 17, 8, 4, 1),
    (1, 5, 9, 19, 48, 7, 3),
    (2, 16, 9, 9, 8, 1, 0),
]


@needs_compiler
@pytest.mark.parametrize("sizes", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("threads", [1, 2], indirect=True, ids="{} threads".format)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_compiled_convolutions_are_those_of_pytorch(
    sizes: tuple[int, ...], bias: bool, threads: None, width: int, on_any_processor: None
) -> None:
    plain, exact, inputs, generator = a_convolution(sizes, bias=bias)
    inputs.requires_grad_()
    outputs = convolution.Convolution(plain)(inputs)
    assert outputs.grad_fn.name() == ("WinogradBackward" if plain.kernel_size == (3, 3) else "DirectBackward")
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(outputs.shape, generator=generator)
    outputs.backward(gradient)
    wanted_inputs = inputs.detach().double().requires_grad_()
    expected = exact(wanted_inputs)
    expected.backward(gradient.double())
    close(outputs.detach(), expected.detach())
    close(inputs.grad, wanted_inputs.grad)
    for found, wanted in zip(plain.parameters(), exact.parameters(), strict=True):
        close(found.grad, wanted.grad)


POOLING_CONVOLUTIONS = [
    (3, 3, 32, 32, 24, 5, 0),
    (2, 3, 18, 17, 8, 5, 2),
    (3, 3, 14, 14, 24, 5, 0),
    (2, 3, 11, 17, 40, 5, 0),
    (1, 3, 30, 61, 40, 7, 0),
    (2, 1, 13, 18, 8, 4, 1),
    (1, 3, 4, 11, 16, 3, 0),
    (5, 8, 14, 14, 16, 3, 0),
    (2, 16, 9, 13, 24, 3, 1),
    (60, 8, 6, 6, 8, 3, 0),
]


def is_decided(maps: Tensor) -> Tensor:
    """Of each 2x2 window, whether rounding changes neither which value is the largest nor its sign."""
    largest, second = maps.detach().unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).topk(2).values.unbind(-1)
    return (largest - second > 1e-4) & (largest.abs() > 1e-4)


@needs_compiler
@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.LeakyReLU(0.2)], ids=str)
@pytest.mark.parametrize("sizes", POOLING_CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("threads", [1, 2], indirect=True, ids="{} threads".format)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.usefixtures("threads", "width", "on_any_processor")
def test_a_convolution_that_pools_is_the_two_layers(
    activation: nn.Module | None, sizes: tuple[int, ...], bias: bool
) -> None:
    plain, exact, inputs, generator = a_convolution(sizes, bias=bias)
    by_winograd = plain.in_channels % 8 == 0
    inputs.requires_grad_(by_winograd)
    wanted_inputs = inputs.detach().double().requires_grad_()
    pooled = pooling.PooledActivation(nn.MaxPool2d(2), activation)
    outputs = convolution.Convolution(plain, pooled)(inputs)
    assert outputs.grad_fn.name() == ("WinogradBackward" if by_winograd else "FirstPooledBackward")
    maps = exact(wanted_inputs)
    expected = F.max_pool2d(maps, 2)
    expected = activation(expected) if activation else expected
    gradient = torch.randn(outputs.shape, generator=generator) * is_decided(maps)
    outputs.backward(gradient)
    expected.backward(gradient.double())
    close(outputs.detach(), expected.detach())
    if by_winograd:
        close(inputs.grad, wanted_inputs.grad)
    for found, wanted in zip(plain.parameters(), exact.parameters(), strict=True):
        close(found.grad, wanted.grad)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 3, padding=3),
        nn.Conv2d(8, 8, 3, padding=(1, 0)),
        nn.ConvTranspose2d(8, 8, 3),
    ],
    ids=str,
)
def test_convolutions_of_another_form_stay_as_they_are(layer: nn.Module) -> None:
    assert [type(module) for module in rewritten(nn.Sequential(layer))] == [type(layer)]


@needs_compiler
@pytest.mark.parametrize("pooled", [False, True], ids=["alone", "pooled"])
@pytest.mark.parametrize("sizes", [(3, 3, 20, 20, 6, 5, 0), (2, 1, 17, 30, 3, 3, 1), (2, 7, 14, 14, 19, 5, 2),
                                   (2, 3, 16, 16, 35, 3, 1), (2, 8, 12, 12, 12, 3, 0)], ids=str)  # fmt: skip
def test_any_number_of_filters_is_computed_with_16_lanes(
    sizes: tuple[int, ...], pooled: bool, width: int, on_any_processor: None
) -> None:
    plain, exact, inputs, generator = a_convolution(sizes, bias=True)
    assert convolution.is_computable(plain) == (width == 16)
    if width == 8:
        return
    after = pooling.PooledActivation(nn.MaxPool2d(2), nn.ReLU()) if pooled else None
    outputs = convolution.Convolution(plain, after)(inputs)
    assert outputs.grad_fn.name() == ("FirstPooledBackward" if pooled else "DirectBackward")
    maps = exact(inputs.double())
    expected = F.relu(F.max_pool2d(maps, 2)) if pooled else maps
    gradient = torch.randn(outputs.shape, generator=generator)
    gradient = gradient * is_decided(maps) if pooled else gradient
    outputs.backward(gradient)
    expected.backward(gradient.double())
    close(outputs.detach(), expected.detach())
    for found, wanted in zip(plain.parameters(), exact.parameters(), strict=True):
        close(found.grad, wanted.grad)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("sizes", [(5, 12, 7), (64, 384, 512), (1, 30, 10), (3, 1, 1)], ids=str)
@pytest.mark.parametrize("needs_gradient", [True, False], ids=["inner", "first"])
def test_fully_connected_layers_are_those_of_pytorch(
    sizes: tuple[int, int, int], bias: bool, needs_gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("no oneDNN")
    monkeypatch.setattr(linear, "_PROCESSORS", (torch.backends.cpu.get_cpu_capability(),))
    images, features, out = sizes
    generator = torch.Generator().manual_seed(0)
    plain = nn.Linear(features, out, bias=bias)
    exact = copy.deepcopy(plain).double()
    inputs = torch.randn(images, features, generator=generator).requires_grad_(needs_gradient)
    wanted_inputs = inputs.detach().double().requires_grad_()
    outputs, expected = linear.Linear(plain)(inputs), exact(wanted_inputs)
    assert outputs.grad_fn.name() == "_InnerProductBackward"
    gradient = torch.randn(images, out, generator=generator)
    outputs.backward(gradient)
    expected.backward(gradient.double())
    close(outputs.detach(), expected.detach())
    for found, wanted in zip(plain.parameters(), exact.parameters(), strict=True):
        assert found.grad.is_contiguous()
        close(found.grad, wanted.grad)
    if needs_gradient:
        close(inputs.grad, wanted_inputs.grad)


@pytest.mark.parametrize(
    ("inputs", "precision"),
    [(torch.rand(4, 8), "bfloat16"), (torch.rand(8), "float32"), (torch.rand(2, 3, 8), "float32"),
     (torch.rand(0, 8), "float32")],
    ids=["bfloat16", "one image", "tokens", "no image"],
)  # fmt: skip
def test_numbers_of_another_form_take_pytorchs_own_layer(
    inputs: Tensor, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_PROCESSORS", (torch.backends.cpu.get_cpu_capability(),))
    plain = nn.Linear(8, 4)
    with training.autocast(CPU, precision):
        outputs, expected = linear.Linear(plain)(inputs), plain(inputs)
    assert outputs.grad_fn.name() == expected.grad_fn.name()
    assert torch.equal(outputs, expected)


@pytest.mark.parametrize(
    ("inputs", "precision"),
    [
        (torch.rand(2, 8, 12, 12), "float32"),
        (torch.rand(2, 8, 12, 12).contiguous(memory_format=torch.channels_last), "bfloat16"),
        (torch.rand(8, 12, 12), "float32"),
        (torch.rand(0, 8, 12, 12).contiguous(memory_format=torch.channels_last), "float32"),
    ],
    ids=["contiguous", "bfloat16", "one image", "no image"],
)
def test_maps_of_another_form_take_pytorchs_own_convolution(
    inputs: Tensor, precision: str, on_any_processor: None
) -> None:
    plain = nn.Conv2d(8, 8, 3)
    with training.autocast(CPU, precision):
        outputs, expected = convolution.Convolution(plain)(inputs), plain(inputs)
    assert outputs.grad_fn.name() == expected.grad_fn.name()
    assert torch.equal(outputs, expected)


COMPILED = ModelConfig(filters=[8, 16], kernel_sizes=[5, 3], padding="same", hidden=[8])
"""Both of its convolutions are computed by compiled code."""


@needs_compiler
def test_compiled_convolutions_give_the_same_bits_each_time(tiny_config: Config, on_any_processor: None) -> None:
    first, second = (trained(tiny_config, model=COMPILED, precision="float32") for _ in range(2))
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


ADAMS = {
    "adam": ["optimizer=adam"],
    "adam with decay": ["optimizer=adam", "optimizer.weight_decay=0.1", "optimizer.weight_decay_biases=0"],
    "adamw": ["optimizer=adamw", "optimizer.weight_decay=0.1", "optimizer.weight_decay_output=0.3"],
}


def layers_with_gradients(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 8, 3), nn.Linear(8, 5))
    layers.to(memory_format=torch.channels_last)
    for parameter in layers.parameters():
        parameter.data.normal_(generator=generator)
        parameter.grad = torch.empty_like(parameter).normal_(generator=generator)
    return layers


@pytest.mark.parametrize("overrides", ADAMS.values(), ids=ADAMS)
def test_adams_kernel_without_copies_has_the_bits_and_the_state_of_pytorchs(overrides: list[str]) -> None:
    settings = cnn_ablation.compose(overrides).optimizer
    ours, theirs = layers_with_gradients(0), layers_with_gradients(0)
    found = make_optimizer(settings, ours.named_parameters(), CPU, fused=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    plain = list(theirs.parameters())
    groups = [{**group, "params": []} for group in found.param_groups]
    for group, of_ours in zip(groups, found.param_groups, strict=True):
        same = {id(parameter) for parameter in of_ours["params"]}
        group["params"] = [other for one, other in zip(ours.parameters(), plain, strict=True) if id(one) in same]
    expected = kind(groups, fused=True)
    for step in range(4):
        gradients = layers_with_gradients(step + 1)
        for layers, optimizer in ((ours, found), (theirs, expected)):
            for parameter, other in zip(layers.parameters(), gradients.parameters(), strict=True):
                parameter.grad = None if step == 2 and parameter.dim() == 1 else other.grad.clone()
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (step + 1)
            optimizer.step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_adams_kernel_copies_no_gradient() -> None:
    layers = layers_with_gradients(0)
    optimizer = make_optimizer(
        cnn_ablation.compose(["optimizer=adam"]).optimizer, layers.named_parameters(), CPU, fused=True
    )
    optimizer.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
        optimizer.step()
    called = {event.key for event in profile.key_averages()}
    assert "aten::_fused_adam_" in called
    assert "aten::clone" not in called


def trained(config: Config, **changes: Any) -> TrainingResult:
    config = replace(config, **changes)
    return engine.train(config, data.load(config.data), seed=0, device=CPU)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adagrad", "rmsprop"])
def test_the_engine_follows_the_reference_loop(tiny_config: Config, optimizer: str, on_any_processor: None) -> None:
    settings = cnn_ablation.compose([f"optimizer={optimizer}"]).optimizer
    # A bias before batch norm has no gradient but rounding errors, which adaptive optimisers blow up to whole steps.
    model = replace(COMPILED, batch_norm=optimizer == "sgd", dropout=0.2)
    fast, slow = (
        trained(tiny_config, model=model, optimizer=settings, precision="float32", engine=name)
        for name in ("fast", "reference")
    )
    for name, value in fast.network.state_dict().items():
        # RMSprop's first steps divide by little else than the gradient: rounding errors of small ones become steps.
        atol = 1e-4 if optimizer == "rmsprop" else 1e-5
        torch.testing.assert_close(value, slow.network.state_dict()[name], rtol=1e-3, atol=atol, msg=name)
    losses = [[point.train_loss for point in result.curves] for result in (fast, slow)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert fast.updates == slow.updates


def test_the_engine_in_bfloat16_follows_the_reference_loop_in_float32(tiny_config: Config) -> None:
    fast = trained(tiny_config, precision="bfloat16")
    slow = trained(tiny_config, precision="float32", engine="reference")
    losses = [[point.train_loss for point in result.curves] for result in (fast, slow)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


@needs_compiler
def test_without_a_compiler_the_result_has_the_same_bits(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_compiler = trained(tiny_config, precision="bfloat16")
    monkeypatch.setattr(compiled, "_COMPILER", "no-such-compiler")
    for cached in (compiled._path, compiled._loaded):
        cached.cache_clear()
    try:
        assert compiled.library() is None
        without = trained(tiny_config, precision="bfloat16")
        trained(tiny_config, precision="bfloat16")
        assert capsys.readouterr().err.count("no C compiler") == 1
    finally:
        monkeypatch.undo()
        for cached in (compiled._path, compiled._loaded):
            cached.cache_clear()
    assert without.curves[-1].val_loss == with_compiler.curves[-1].val_loss
    for name, value in without.network.state_dict().items():
        assert torch.equal(value, with_compiler.network.state_dict()[name]), name


def test_the_engine_is_the_reference_where_asked(tiny_config: Config) -> None:
    images = data.load(tiny_config.data)
    assert engine.technique_of(replace(tiny_config, engine="reference"), images) is training.REFERENCE
    assert engine.technique_of(tiny_config, images) is engine.FAST


SEEDS = (0, 1, 2)
NESTEROV = ("optimizer=sgd", "optimizer.lr=0.05", "optimizer.momentum=0.9", "optimizer.nesterov=true")
UNEVEN = ("train.batch_size=20", "train.updates=8")
"""Epochs of three batches, of which the last is smaller, and a last epoch of two."""
RECIPES = [
    [*NESTEROV, "train.schedule=cosine", "train.warmup_epochs=1", *UNEVEN],
    ["train.schedule=one_cycle", "optimizer.lr=0.01", *UNEVEN],
    ["optimizer=adagrad", "train.schedule=step", "train.step_epochs=0.5", "train.step_factor=0.5", *UNEVEN],
    ["optimizer=rmsprop", "optimizer.momentum=0.5", "train.schedule=cosine", "train.final_lr_factor=0.2"],
    ["optimizer=adamw", "optimizer.weight_decay=0.5", "train.warmup_epochs=1.4", "train.scale=0.75"],
    ["train.clip_norm=0.3", *NESTEROV],
    ["train.label_smoothing=0.2", *UNEVEN],
    ["train.ema_decay=0.8", *UNEVEN],
    ["train.ema_decay=0.6", "model.batch_norm=true", "optimizer=sgd", "train.schedule=cosine", "train.clip_norm=1"],
]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.dropout=0.3", "model.hidden=[8,9]"],
        ["model.batch_norm=true", "optimizer=sgd"],
        ["optimizer=rmsprop"],
        ["model.conv_dropout=0.3", "model.last_activation=true", "model.pool=average"],
        ["train.loss=kullback_leibler", "optimizer.weight_decay_biases=0.1", "model.init=he_normal"],
        *RECIPES,
    ],
    ids=str,
)
@pytest.mark.parametrize("technique", [training.REFERENCE, engine.FAST], ids=["reference", "fast"])
def test_seeds_trained_together_are_those_trained_alone(overrides: list[str], technique: Technique) -> None:
    config = cnn_ablation.compose([*TINY, *overrides, "precision=float32"])
    images = data.load(config.data)
    joined = train_together(config, images, seeds=SEEDS, device=CPU, make_steps=EagerSteps, technique=technique)
    for seed, result in zip(SEEDS, joined, strict=True):
        alone = training.train(config, images, seed=seed, device=CPU, technique=technique)
        assert (result.status, result.updates, len(result.curves)) == (alone.status, alone.updates, len(alone.curves))
        losses = [[point.train_loss for point in found.curves] for found in (result, alone)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert result.test.loss == pytest.approx(alone.test.loss, rel=1e-5)
        for name, value in result.network.state_dict().items():
            torch.testing.assert_close(value, alone.network.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_seed_that_diverges_leaves_the_others_alone(tiny_config: Config) -> None:
    config = replace(tiny_config, optimizer=SGDConfig(lr=0.05), precision="float32")
    images = data.load(config.data)

    class OneExplodes(EagerSteps):
        def epoch(self, orders: Tensor) -> Tensor:
            with torch.no_grad():
                list(self.seeds[1].network.parameters())[-2].fill_(torch.inf)
            return super().epoch(orders)

    _, exploded, other = train_together(
        config, images, seeds=SEEDS, device=CPU, make_steps=OneExplodes, technique=training.REFERENCE
    )
    assert exploded.status == "diverged"
    assert len(exploded.curves) == 1
    assert other.status == "ok"
    alone = training.train(config, images, seed=2, device=CPU)
    assert other.test.loss == pytest.approx(alone.test.loss, rel=1e-5)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_engine_follows_the_reference_loop_in_every_recipe(recipe: list[str], on_any_processor: None) -> None:
    config = cnn_ablation.compose([*TINY, *recipe, "precision=float32", "device=cpu"])
    fast, slow = (trained(config, engine=name) for name in ("fast", "reference"))
    assert losses_of(fast) == pytest.approx(losses_of(slow), rel=1e-4)
    for name, value in fast.network.state_dict().items():
        torch.testing.assert_close(value, slow.network.state_dict()[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_are_dropped_by_a_mask_of_bits(dtype: torch.dtype) -> None:
    """As a GPU does it; the CPU can too."""
    inputs = torch.linspace(-3, 3, 40).to(dtype).requires_grad_()
    kept = torch.arange(40) % 3 > 0
    outputs = Dropped.apply(inputs, kept, 1 / 0.7)
    expected = (inputs.detach().float() * kept / 0.7).to(dtype)
    torch.testing.assert_close(outputs.detach(), expected)
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    torch.testing.assert_close(gradient, (kept / 0.7).to(dtype))


def losses_of(result: TrainingResult) -> list[float]:
    return [result.test.loss, *(loss for point in result.curves for loss in (point.train_loss, point.val_loss))]


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_seed_that_stops_early_keeps_the_network_that_was_measured(
    tiny_config: Config, ema_decay: float | None
) -> None:
    """The others train on, and the steps of all change all weights."""
    train = replace(tiny_config.train, epochs=6, stop_on="val_loss", patience=1, ema_decay=ema_decay)
    config = replace(tiny_config, optimizer=SGDConfig(lr=0.5), train=train, precision="float32")
    images = data.load(config.data)
    joined = train_together(
        config, images, seeds=range(6), device=CPU, make_steps=EagerSteps, technique=training.REFERENCE
    )
    lengths = [len(result.curves) for result in joined]
    assert min(lengths) < max(lengths), "some seeds stop before others"
    part = resident(images, CPU).test
    for result in joined:
        again = evaluate(result.network, part.in_order(1000))
        assert (again.loss, again.accuracy) == (pytest.approx(result.test.loss, rel=1e-5), result.test.accuracy)


COUNT_PAGE_FAULTS = """
import ctypes, resource, torch
from cnn_ablation.tasks.image_classification.engine.memory import keep_freed_memory

mallopt = ctypes.CDLL(None).mallopt
mallopt(-1, 2**17)  # the thresholds that glibc starts with; left alone it moves them, not in every process alike
mallopt(-3, 2**17)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [torch.ones(2**21) for _ in range(8)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_stays_with_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT_PAGE_FAULTS], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 1000
    assert after < before / 10


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.batch_norm=true", "model.activation=prelu"],
        ["model.filters=[4,4,8]", "model.padding=same", "model.residual=2", "model.pool_after=false"],
    ],
    ids=str,
)
def test_weights_rounded_all_at_once_are_those_of_autocast(overrides: list[str]) -> None:
    config = cnn_ablation.compose([*TINY, *overrides])
    images = data.load(config.data)
    inputs, labels = next(resident(images, CPU, torch.channels_last).train.in_order(16))
    losses, gradients = [], []
    for technique in ("autocast", "rounded"):
        network = rewritten(build(network_layers(config.model, images.num_classes), images.input_shape, seed=0))
        computed = RoundedWeights(network) if technique == "rounded" else network
        with training.autocast(CPU, "bfloat16"):
            loss = F.cross_entropy(computed(inputs), labels)
        loss.backward()
        if isinstance(computed, RoundedWeights):
            computed.hand_over_gradients()
        losses.append(loss.detach())
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert torch.equal(*losses)
    for expected, found in zip(*gradients, strict=True):
        assert torch.equal(expected, found)


@pytest.mark.parametrize("make", [lambda of: optim.SGD(of, momentum=0.9), optim.Adam, optim.RMSprop, optim.Adagrad])
def test_an_optimiser_is_put_back_after_warming_up(make: Callable[[list[nn.Parameter]], optim.Optimizer]) -> None:
    """To what it had learnt; what came with the steps is zero, as it is before the first one."""
    old, new = (nn.Parameter(torch.tensor([value])) for value in (1.0, 2.0))
    optimizer = make([old, new])

    def step(*parameters: nn.Parameter) -> None:
        optimizer.zero_grad()
        sum(parameter.square().sum() for parameter in parameters).backward()
        optimizer.step()

    step(old)
    kept = copied(optimizer)
    learnt = {name: value.clone() for name, value in optimizer.state[old].items()}
    assert any(value.any() for value in learnt.values())
    step(old, new)
    tensors = dict(optimizer.state[old])
    put_back(optimizer, kept)
    assert optimizer.state[old] == learnt
    assert all(optimizer.state[old][name] is tensor for name, tensor in tensors.items()), "where graphs find them"
    assert not any(value.any() for value in optimizer.state[new].values())
