"""Kernels of a GPU that do several of PyTorch's in one go, written in Triton.

A step of a small network is many short kernels, and how many a GPU can start decides how fast it is. The values are
those of PyTorch's own operations, but for the sum of a bias' gradient, whose order differs.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from cnn_ablation.tasks.image_classification.data.resident import ResidentSplit

_TILE = 1024  # values of a program
_LANES, _MOST_ROWS = 16, 1024  # channels of a program that adds up, and where PyTorch's sum is faster than it
_PROGRAMS = 256  # about two for each multiprocessor of a large GPU, where there is enough to add up
_MOST_VALUES = 2**31 - 1  # places are 32-bit numbers


class Pooled(torch.autograd.Function):
    """`activation(max_pool(maps + bias))` by windows of 2x2, with what a negative value is multiplied with."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, bias: Tensor | None, slope: float) -> Tensor:
        """Maps (batch, channels, height, width) in channels_last, bias (channels,) -> half as high and wide."""
        images, channels, height, width = maps.shape
        shape = (images, channels, height // 2, width // 2)
        outputs = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
        places = torch.empty_like(outputs, dtype=torch.int8)
        _pool[_grid(outputs)](
            maps,
            maps if bias is None else bias,
            outputs,
            places,
            *_sizes(maps),
            slope,
            HAS_BIAS=bias is not None,
            IS_RELU=slope == 0,
            **_tile(channels),
        )
        ctx.save_for_backward(outputs, places)
        ctx.shape, ctx.slope, ctx.has_bias = maps.shape, slope, bias is not None
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        outputs, places = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        maps = torch.empty(ctx.shape, dtype=outputs.dtype, device=outputs.device, memory_format=torch.channels_last)
        if ctx.shape[2] % 2 or ctx.shape[3] % 2:
            maps.zero_()  # an odd last row or column is in no window
        grid = _grid(outputs)
        sums = torch.empty((grid[0] if ctx.has_bias else 0, ctx.shape[1]), device=outputs.device)
        _pool_backward[grid](
            gradient,
            outputs,
            places,
            maps,
            sums,
            *_sizes(maps),
            ctx.slope,
            HAS_BIAS=ctx.has_bias,
            IS_RELU=ctx.slope == 0,
            **_tile(ctx.shape[1]),
        )
        return maps, _added_up(sums, outputs.dtype) if ctx.has_bias else None, None


def _added_up(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """Of float32 (rows, channels), by channel."""
    rows, channels = sums.shape
    if rows > _MOST_ROWS:
        return sums.sum(0).to(dtype)
    totals = torch.empty(channels, dtype=dtype, device=sums.device)
    parts = triton.next_power_of_2(triton.cdiv(rows, _TILE // _LANES))
    grid = (triton.cdiv(channels, _LANES),)
    _add_up[grid](sums, totals, rows, channels, PARTS=parts, ROWS=_TILE // _LANES, LANES=_LANES)
    return totals


class Biased(torch.autograd.Function):
    """`maps + bias`, whose gradient PyTorch adds up in several times the time that reading the maps takes."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, bias: Tensor) -> Tensor:
        """Maps (batch, channels, height, width) in channels_last, bias (channels,)."""
        return maps + bias.view(1, -1, 1, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        channels = gradient.shape[1]
        pixels, tile = gradient.numel() // channels, _tile(channels)
        parts = min(16, triton.next_power_of_2(triton.cdiv(pixels, tile["ROWS"] * _PROGRAMS)))
        grid = triton.cdiv(pixels, parts * tile["ROWS"]), triton.cdiv(channels, tile["LANES"])
        sums = torch.empty((grid[0], channels), device=gradient.device)
        _sum_by_channel[grid](gradient, sums, pixels, channels, PARTS=parts, **tile)
        return gradient, _added_up(sums, gradient.dtype)


def can_compute(maps: Tensor) -> bool:
    """Whether `Biased` takes these maps."""
    return (
        maps.dim() == 4
        and maps.dtype in (torch.float32, torch.bfloat16)
        and 0 < maps.numel() <= _MOST_VALUES
        and maps.is_contiguous(memory_format=torch.channels_last)
    )


def can_pool(maps: Tensor) -> bool:
    """Whether `Pooled` takes these maps."""
    return can_compute(maps) and min(maps.shape[2:]) >= 2


def _grid(outputs: Tensor) -> tuple[int, int]:
    images, channels, height, width = outputs.shape
    tile = _tile(channels)
    return triton.cdiv(images * height * width, tile["ROWS"]), triton.cdiv(channels, tile["LANES"])


def _tile(channels: int) -> dict[str, int]:
    lanes = min(128, triton.next_power_of_2(channels))
    return {"ROWS": _TILE // lanes, "LANES": lanes}


def _sizes(maps: Tensor) -> tuple[int, ...]:
    images, channels, height, width = maps.shape
    return images * (height // 2) * (width // 2), channels, height, width


@triton.jit
def _rounded(value, pointer):
    return value.to(pointer.dtype.element_ty).to(tl.float32)


@triton.jit
def _pool(
    maps, bias, outputs, places, pixels, channels, height, width, slope,
    HAS_BIAS: tl.constexpr, IS_RELU: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    channel = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    inside = (pixel < pixels) & (channel < channels)
    out_width, out_height = width // 2, height // 2
    row, column = pixel // out_width % out_height, pixel % out_width
    image = pixel // (out_width * out_height)
    start = ((image * height + 2 * row) * width + 2 * column) * channels + channel
    added = tl.zeros((1, LANES), tl.float32)
    if HAS_BIAS:
        added = tl.load(bias + channel, mask=channel < channels, other=0.0).to(tl.float32)
    largest = _rounded(tl.load(maps + start, mask=inside, other=0.0).to(tl.float32) + added, maps)
    place = tl.zeros((ROWS, LANES), tl.int8)
    for window in tl.static_range(1, 4):
        offset = ((window // 2) * width + window % 2) * channels
        value = _rounded(tl.load(maps + start + offset, mask=inside, other=0.0).to(tl.float32) + added, maps)
        is_larger = (value > largest) | (value != value)
        largest = tl.where(is_larger, value, largest)
        place = tl.where(is_larger, window, place).to(tl.int8)
    if IS_RELU:
        activated = tl.where(largest <= 0, 0.0, largest)
    else:
        activated = tl.where(largest > 0, largest, largest * slope)
    tl.store(outputs + pixel * channels + channel, activated.to(outputs.dtype.element_ty), mask=inside)
    tl.store(places + pixel * channels + channel, place, mask=inside)


@triton.jit
def _pool_backward(
    gradient, outputs, places, maps, sums, pixels, channels, height, width, slope,
    HAS_BIAS: tl.constexpr, IS_RELU: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    channel = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    inside = (pixel < pixels) & (channel < channels)
    out_width, out_height = width // 2, height // 2
    row, column = pixel // out_width % out_height, pixel % out_width
    image = pixel // (out_width * out_height)
    start = ((image * height + 2 * row) * width + 2 * column) * channels + channel
    place = tl.load(places + pixel * channels + channel, mask=inside, other=0)
    output = tl.load(outputs + pixel * channels + channel, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(gradient + pixel * channels + channel, mask=inside, other=0.0).to(tl.float32)
    if IS_RELU:
        value = tl.where(output <= 0, 0.0, value)
    else:
        value = tl.where(output > 0, value, value * slope)
    value = _rounded(value, maps)
    for window in tl.static_range(4):
        offset = ((window // 2) * width + window % 2) * channels
        chosen = tl.where(place == window, value, 0.0)
        tl.store(maps + start + offset, chosen.to(maps.dtype.element_ty), mask=inside)
    if HAS_BIAS:
        total = tl.sum(tl.where(inside, value, 0.0), axis=0)[None, :]
        tl.store(sums + tl.program_id(0) * channels + channel, total, mask=channel < channels)


@triton.jit
def _sum_by_channel(maps, sums, pixels, channels, PARTS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):
    channel = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    total = tl.zeros((ROWS, LANES), tl.float32)
    for part in tl.static_range(PARTS):
        pixel = (tl.program_id(0) * PARTS + part) * ROWS + tl.arange(0, ROWS)[:, None]
        inside = (pixel < pixels) & (channel < channels)
        total += tl.load(maps + pixel * channels + channel, mask=inside, other=0.0).to(tl.float32)
    added = tl.sum(total, axis=0)[None, :]
    tl.store(sums + tl.program_id(0) * channels + channel, added, mask=channel < channels)


@triton.jit
def _add_up(sums, totals, rows, channels, PARTS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):
    channel = tl.program_id(0) * LANES + tl.arange(0, LANES)[None, :]
    total = tl.zeros((ROWS, LANES), tl.float32)
    for part in tl.static_range(PARTS):
        row = part * ROWS + tl.arange(0, ROWS)[:, None]
        total += tl.load(sums + row * channels + channel, mask=(row < rows) & (channel < channels), other=0.0)
    added = tl.sum(total, axis=0)[None, :].to(totals.dtype.element_ty)
    tl.store(totals + channel, added, mask=channel < channels)


def batch(
    images: ResidentSplit, order: Tensor, position: Tensor, size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The images at `order[position : position + size]`, normalised in float32 and then rounded, and their labels."""
    shape = (size, *images.pixels.shape[1:])
    values = images.pixels[0].numel()
    layout = torch.contiguous_format if images.pixels.is_contiguous() else torch.channels_last
    inputs = torch.empty(shape, dtype=dtype, device=order.device, memory_format=layout)
    labels = torch.empty(size, dtype=torch.int64, device=order.device)
    _batch[(size, triton.cdiv(values, _TILE))](
        images.pixels, images.labels, images.factor, images.shift, order, position, inputs, labels, values,
        TILE=_TILE, enable_fp_fusion=False,
    )  # fmt: skip
    return inputs, labels


@triton.jit
def _batch(pixels, all_labels, factor, shift, order, position, inputs, labels, values, TILE: tl.constexpr):
    image = tl.program_id(0)
    place = tl.load(order + tl.load(position) + image)
    offset = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = offset < values
    value = tl.load(pixels + place * values + offset, mask=inside, other=0).to(tl.float32)
    value = value * tl.load(factor + offset, mask=inside) + tl.load(shift + offset, mask=inside)
    tl.store(inputs + image.to(tl.int64) * values + offset, value.to(inputs.dtype.element_ty), mask=inside)
    if tl.program_id(1) == 0:
        tl.store(labels + image, tl.load(all_labels + place))
