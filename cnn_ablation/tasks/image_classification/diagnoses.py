"""Measurements that explain a score: dead and saturated activations, gradient norms, what reaches the loss.

Taken before and after training on copies or in evaluation mode, never inside a training step: a run with and without
them gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnn_ablation.common.streams import stream_seed
from cnn_ablation.tasks.image_classification import generators
from cnn_ablation.tasks.image_classification.losses import Loss, cross_entropy
from cnn_ablation.tasks.image_classification.models.modules import ResidualBlock
from cnn_ablation.tasks.image_classification.training import gradients

GRADIENT_IMAGES = 64
ACTIVATION_IMAGES = 128
FLAT_SLOPE = 0.05  # of the largest slope of the function

# Slope of a bounded activation from its output, over the largest slope
_RELATIVE_SLOPES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Sigmoid: lambda output: 4 * output * (1 - output),
    nn.Tanh: lambda output: 1 - output.square(),
}


@dataclass(frozen=True)
class ActivationLayer:
    """Shares (0..1) over a set of images. A unit is a channel of a map, or a feature."""

    layer: str
    kind: str
    units: int
    dead: float
    """Units whose output is 0 for every image, at every place."""
    saturated: float
    """Outputs of a sigmoid or tanh where its slope is below `FLAT_SLOPE` of its largest; 0 for other functions."""

    @property
    def label(self) -> str:
        return f"{self.kind} units in {self.layer}"


ACTIVATIONS = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.ReLU6, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Softplus, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.RReLU, nn.Softsign, nn.LogSigmoid,
)  # fmt: skip
"""Told by their types in a module of the user's own; `torch.nn.functional.relu` in a `forward` is seen by nobody."""


class _Watch:
    """Forward hook on an activation: what it gave so far."""

    def __init__(self, kind: type[nn.Module]):
        self.slope = _RELATIVE_SLOPES.get(kind)
        self.sums: Tensor | None = None
        """Of magnitudes, per unit: faster to find than the largest, and 0 as often."""
        self.num_flat = self.num_outputs = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        others = [0, 1] if output.dim() == 3 else [0, *range(2, output.dim())]  # (batch, tokens, features)
        sums = torch.linalg.vector_norm(output.detach(), 1, others)
        self.sums = sums if self.sums is None else self.sums + sums
        if self.slope:
            self.num_flat += int((self.slope(output.detach().float()) < FLAT_SLOPE).sum())
        self.num_outputs += output.numel()


class _Watches:
    """Forward hook on an activation that a network may call more than once: a watch for each place."""

    def __init__(self, name: str, module: nn.Module):
        self.name, self.module = name, module
        self.of_calls: list[_Watch] = []
        self.place = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self.place == len(self.of_calls):
            self.of_calls.append(_Watch(type(module)))
        self.of_calls[self.place](module, inputs, output)
        self.place += 1

    def summaries(self) -> list[ActivationLayer]:
        calls = self.of_calls or [_Watch(type(self.module))]
        names = [self.name, *(f"{self.name}, call {place}" for place in range(2, len(calls) + 1))]
        return [_summary(name, self.module, watch) for name, watch in zip(names, calls, strict=True)]


@torch.no_grad()
def activation_layers(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    rewrite: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> list[ActivationLayer]:
    """Dead units and saturated outputs of every layer that is an activation.

    In a network of layers that is one whose name begins with "Activation", in a module of the user's own one of a type
    in `ACTIVATIONS`.

    Args:
        network: from `models.build_network`; left in the mode it was in.
        batches: normalised images (batch, channels, height, width) and labels.
        rewrite: what a layer, handed over as a network of its own, is computed by: `Technique.rewrite`.
    """
    watches = [_Watches(name, module) for name, module in _activations(network)]
    hooks = [watch.module.register_forward_hook(watch) for watch in watches]
    computed = _layer_by_layer(network, rewrite) if type(network) is nn.Sequential else network
    was_training = network.training
    network.eval()
    try:
        for inputs, _ in batches:
            for watch in watches:
                watch.place = 0
            computed(inputs)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(was_training)
    return [found for watch in watches for found in watch.summaries()]


def _activations(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """By name; of a list of layers by the name of the layer, in blocks too."""
    modules = ((name.rpartition(".")[2], module) for name, module in network.named_modules())
    named = [(name, module) for name, module in modules if name.startswith("Activation")]
    return named or [(name, module) for name, module in network.named_modules() if type(module) in ACTIVATIONS]


def _layer_by_layer(network: nn.Sequential, rewrite: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    """The same network, no layer of which is computed in one with another: what each gives can be seen."""
    return nn.Sequential(*(
        ResidualBlock(*(_layer_by_layer(part, rewrite) for part in (layer.branch, layer.shortcut)))
        if isinstance(layer, ResidualBlock)
        else rewrite(nn.Sequential(layer))
        for layer in network
    ))  # fmt: skip


def _summary(name: str, module: nn.Module, watch: _Watch) -> ActivationLayer:
    sums = watch.sums if watch.sums is not None else torch.ones(1)
    return ActivationLayer(
        layer=name,
        kind=type(module).__name__,
        units=sums.numel(),
        dead=float((sums == 0).float().mean()),
        saturated=watch.num_flat / max(watch.num_outputs, 1),
    )


def gradient_norm(
    network: nn.Module,
    batch: tuple[Tensor, Tensor],
    *,
    seed: int,
    precision: str,
    loss_of: Loss = cross_entropy,
) -> float:
    """L2 norm, over all parameters, of the gradient of the mean loss of a batch in training mode.

    Dropout draws from a stream of its own; network and random state are left as they were.
    """
    inputs, _ = batch
    with generators.seeded(stream_seed(seed, "diagnosis"), inputs.device):
        found = gradients(network, batch, precision=precision, loss_of=loss_of)
    return float(torch.nn.utils.get_total_norm(found))


@torch.no_grad()
def gives_probabilities(network: nn.Module, inputs: Tensor) -> bool:
    """Whether the outputs of all images are probabilities: none negative, each image's sum 1."""
    was_training = network.training
    network.eval()
    outputs = network(inputs).float()
    network.train(was_training)
    sums = outputs.sum(dim=1)
    return bool((outputs >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-3))
