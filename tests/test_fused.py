"""Kernels written for a GPU, run by Triton's interpreter on the CPU, beside PyTorch's own operations."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cnn_ablation.tasks.image_classification.data.resident import ResidentSplit
from cnn_ablation.tasks.image_classification.engine import gpu

fused = pytest.importorskip("cnn_ablation.tasks.image_classification.engine.fused", reason="there is no Triton")
LAST = torch.channels_last
interpreted = pytest.mark.skipif("TRITON_INTERPRET" not in os.environ, reason="there is a GPU to compile for")


def pooled_plainly(maps: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    pooled = F.max_pool2d(maps if bias is None else maps + bias.view(1, -1, 1, 1), 2)
    return F.relu(pooled) if slope == 0 else F.leaky_relu(pooled, slope)


def with_gradients(pool: Callable[..., Tensor], maps: Tensor, bias: Tensor | None, slope: float) -> list[Tensor]:
    """Outputs, and the gradients of a weighted sum of them."""
    given = [value.detach().clone().requires_grad_() for value in (maps, bias) if value is not None]
    outputs = pool(*given, *[None] * (2 - len(given)), slope)
    weights = torch.linspace(-1, 1, outputs.numel(), device=outputs.device).to(outputs.dtype).view_as(outputs)
    return [outputs.detach(), *torch.autograd.grad((outputs * weights).sum(), given)]


def maps_of(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=LAST)


@pytest.mark.parametrize("shape", [(5, 24, 8, 10), (2, 130, 7, 5), (3, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
@interpreted
def test_pooling_is_pytorchs(shape: tuple[int, ...], slope: float, has_bias: bool) -> None:
    """To the last bit, but for the gradient of the bias, which is a sum in another order."""
    maps, bias = maps_of(*shape), torch.linspace(-1, 1, shape[1]) if has_bias else None
    maps[0, 0, 0, 0] = maps[0, 0, 1, 1] = 9  # a tie: the first of both gets the gradient
    expected = with_gradients(pooled_plainly, maps, bias, slope)
    found = with_gradients(fused.Pooled.apply, maps, bias, slope)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    if has_bias:
        torch.testing.assert_close(found[2], expected[2])


@pytest.mark.parametrize("shape", [(5, 24, 8, 10), (70, 3, 40, 41), (1, 300, 1, 1)], ids=str)
@interpreted
def test_a_bias_and_its_gradient_are_pytorchs(shape: tuple[int, ...]) -> None:
    """Of few values, of so many that a program adds up several tiles, and of more channels than a tile has."""
    maps, bias = maps_of(*shape), torch.linspace(-1, 1, shape[1])
    expected = with_gradients(lambda maps, bias, _: maps + bias.view(1, -1, 1, 1), maps, bias, 1.0)
    found = with_gradients(lambda maps, bias, _: fused.Biased.apply(maps, bias), maps, bias, 1.0)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-7 * maps.numel())


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
@interpreted
def test_pooling_of_values_that_are_not_finite_is_pytorchs(slope: float, odd: float) -> None:
    maps = maps_of(1, 8, 4, 4)
    maps[0, 1, 1, 2] = maps[0, 2] = odd
    found, expected = fused.Pooled.apply(maps, None, slope), pooled_plainly(maps, None, slope)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@interpreted
def test_the_gradient_of_a_bias_is_added_up_from_however_many_rows() -> None:
    for rows, channels in [(1, 3), (300, 40), (5000, 2)]:
        sums = torch.randn(rows, channels)
        torch.testing.assert_close(fused._added_up(sums, torch.float32), sums.sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("expected", "maps"),
    [
        (True, maps_of(2, 4, 6, 6)),
        (True, maps_of(2, 4, 6, 6).bfloat16()),
        (False, maps_of(2, 4, 6, 6).double()),
        (False, maps_of(2, 4, 6, 6).contiguous()),
        (False, maps_of(2, 4, 6, 1)),
        (False, maps_of(0, 4, 6, 6)),
        (False, torch.zeros(2, 4)),
    ],
    ids=["float32", "bfloat16", "float64", "another layout", "too narrow", "no image", "no maps"],
)
def test_which_maps_are_pooled(expected: bool, maps: Tensor) -> None:
    assert fused.can_pool(maps) is expected


@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format], ids=str)
@pytest.mark.parametrize(("first", "size"), [(0, 20), (4, 7), (19, 1)])
@interpreted
def test_a_batch_is_that_of_the_data(layout: torch.memory_format, first: int, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (20, 3, 40, 11), dtype=torch.uint8, generator=generator)  # 1,320 values an image
    factor, shift = (
        torch.rand(1, 3, 1, 1, generator=generator).expand(1, 3, 40, 11).contiguous(memory_format=layout)
        for _ in range(2)
    )
    images = ResidentSplit(pixels.contiguous(memory_format=layout), torch.arange(20) % 7, factor, shift)
    order = torch.randperm(20, generator=generator)
    found = fused.batch(images, order, torch.tensor([first]), size, torch.float32)
    expected = images.batch(order[first : first + size])
    assert all(itertools.starmap(torch.equal, zip(found, expected, strict=True)))
    assert found[0].stride() == expected[0].stride()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_to_compile_for_there_are_no_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.kernels.cache_clear()
    assert gpu.kernels() is None
    assert "runs train more slowly: Triton cannot compile for this GPU" in capsys.readouterr().err
