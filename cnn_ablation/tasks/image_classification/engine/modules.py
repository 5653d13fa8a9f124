"""Modules of the user's own, computed as fast as they allow.

What is quicker for our own networks may not fit another one: a `forward` that calls `view` cannot take images in
channels-last order, one that looks at its layers finds others in their place. So each way is tried on a few images, and
the first that gives the same outputs and gradients as the plain one is taken.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from cnn_ablation.tasks.image_classification import generators
from cnn_ablation.tasks.image_classification.engine.convolution import Convolution, is_computable
from cnn_ablation.tasks.image_classification.engine.networks import rewritten
from cnn_ablation.tasks.image_classification.training import Technique

_IMAGES = 4
_TOLERANCE = 1e-3  # of the norm; other kernels differ by 1e-6


def rewritten_module(network: nn.Module) -> nn.Module:
    """A network that shares parameters, buffers and leaves with `network`, with quicker layers in their places.

    Sequences of layers are reordered as `networks.rewritten` does, convolutions run compiled code where they can.
    """
    if is_computable(network):
        return Convolution(network)
    if not any(True for _ in network.children()):
        return network
    if type(network) is nn.Sequential:
        parts = (part if _is_leaf(part) else rewritten_module(part) for part in network)
        return rewritten(nn.Sequential(*parts))
    twin = copy.copy(network)
    twin._modules = {name: None if part is None else rewritten_module(part) for name, part in network._modules.items()}
    return twin


def _is_leaf(module: nn.Module) -> bool:
    return not any(True for _ in module.children())


def fitting(network: nn.Module, input_shape: tuple[int, ...], fast: Technique) -> Technique:
    """The fastest technique that computes the function of a network.

    Args:
        network: on the CPU; left as it is.
        input_shape: (channels, height, width).
        fast: that of networks of layers.
    """
    images = torch.rand(_IMAGES, *input_shape, generator=torch.Generator().manual_seed(0)) - 0.5
    plainly = replace(fast, memory_format=torch.contiguous_format, rewrite=lambda network: network)
    expected = _computed(network, images, plainly)
    for technique in (replace(fast, rewrite=rewritten_module), replace(plainly, memory_format=fast.memory_format)):
        if expected and _agree(_computed(network, images, technique), expected):
            return technique
    return plainly


def _computed(network: nn.Module, images: Tensor, technique: Technique) -> Sequence[Tensor]:
    """Outputs in evaluation mode, and the gradients of a weighted sum of them; nothing where that fails."""
    try:
        twin = copy.deepcopy(network).eval().to(memory_format=technique.memory_format)
        with generators.kept(), torch.enable_grad():
            outputs = technique.rewrite(twin)(images.contiguous(memory_format=technique.memory_format))
            weights = torch.linspace(-1, 1, outputs.numel()).view_as(outputs)
            parameters = [parameter for parameter in twin.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad((outputs * weights).sum(), parameters, allow_unused=True)
    except Exception:  # of a module of any kind
        return []
    return [outputs.detach(), *(torch.zeros(()) if gradient is None else gradient for gradient in gradients)]


def _agree(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return len(found) == len(expected) and all(map(_is_near, found, expected))


def _is_near(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    size = torch.linalg.vector_norm(expected.double())
    return bool(torch.linalg.vector_norm(found.double() - expected.double()) <= _TOLERANCE * size + 1e-6)
