"""The steps of one seed among several that are trained together, and the plain way of taking them one by one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data.resident import ResidentSplit
from cnn_ablation.tasks.image_classification.engine import gpu
from cnn_ablation.tasks.image_classification.engine.convolution import Convolution
from cnn_ablation.tasks.image_classification.engine.dropout import OwnDropout
from cnn_ablation.tasks.image_classification.engine.updates import ReplayableUpdates
from cnn_ablation.tasks.image_classification.lengths import updates_per_epoch
from cnn_ablation.tasks.image_classification.models.modules import ResidualBlock
from cnn_ablation.tasks.image_classification.training import TrainingState, autocast


class EagerSteps:
    """`together.Steps` one after the other, on any device: what graphs of the same steps are compared with."""

    def __init__(
        self,
        config: Config,
        states: Sequence[TrainingState],
        images: ResidentSplit,
        precision: str,
    ):
        self.batch_size = config.train.batch_size
        self.seeds = [Seed(state, images, precision) for state in states]

    def epoch(self, orders: Tensor) -> Tensor:
        """Steps over all batches of each seed, the last of which may be smaller."""
        whole, rest = divmod(orders.shape[1], self.batch_size)
        for seed, order in zip(self.seeds, orders, strict=True):
            seed.begin(order, whole + bool(rest))
            for size in [self.batch_size] * whole + [rest] * bool(rest):
                seed.step(size)
        return torch.cat([seed.sum for seed in self.seeds])

    def random_states(self) -> list[Tensor]:
        """Where each seed's dropout is in its stream."""
        return [seed.generator.get_state() for seed in self.seeds]


class Seed:
    """One network in training, at fixed addresses."""

    def __init__(self, state: TrainingState, images: ResidentSplit, precision: str):
        device = images.labels.device
        self.images, self.precision, self.loss_of = images, precision, state.trained_loss
        self.generator = torch.Generator(device)
        self.generator.set_state(state.random[device.type])
        self.network = _with_generator(state.computed, self.generator)
        most_steps = updates_per_epoch(state.train, len(images))
        self.updates = ReplayableUpdates(state.updates, most_steps, device)
        self.rounded = RoundedWeights(self.network) if precision == "bfloat16" else None
        self.input_dtype = torch.bfloat16 if self.rounded and _rounds_first(self.network) else torch.float32
        self.order = torch.zeros(len(images), dtype=torch.int64, device=device)
        self.places = torch.arange(len(images), device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        """Of the next batch's first image; graphs read and advance it on the device."""
        self.sum = torch.zeros(1, device=device)

    def begin(self, order: Tensor, num_steps: int) -> None:
        """An epoch in this order, int64 (images,), of so many steps."""
        self.order[: len(order)].copy_(order)
        self.updates.begin(num_steps)
        self.rewind()
        self.sum.zero_()

    def rewind(self) -> None:
        """Back to the first batch of the epoch."""
        self.position.zero_()
        self.updates.rewind()

    def step(self, size: int) -> None:
        """One optimiser step on the next `size` images."""
        self.network.train()
        inputs, labels = self._batch(size)
        self.updates.zero_grad()
        with autocast(inputs.device, self.precision):
            outputs = self.rounded(inputs) if self.rounded else self.network(inputs)
            loss = self.loss_of(outputs, labels)
        loss.backward()
        if self.rounded:
            self.rounded.hand_over_gradients()
        self.updates.step()
        self.weights_changed()
        self.sum += loss.detach() * size
        self.position += size

    def _batch(self, size: int) -> tuple[Tensor, Tensor]:
        fused = gpu.kernels() if self.order.is_cuda else None
        if fused:
            found: tuple[Tensor, Tensor] = fused.batch(self.images, self.order, self.position, size, self.input_dtype)
            return found
        return self.images.batch(self.order.index_select(0, self.places[:size] + self.position))

    def weights_changed(self) -> None:
        if self.rounded:
            self.rounded.take_over_weights()


class RoundedWeights:
    """A network computed with bfloat16 copies of its weights, made by one kernel for all of them.

    Autocast rounds weight by weight and converts gradient by gradient: two kernels for each, a fifth of a small
    network's. The values are the same.
    """

    def __init__(self, network: nn.Module):
        self.network = network
        names = [
            f"{name}.{part}"
            for name, module in network.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
            for part, _ in module.named_parameters(recurse=False)
        ]
        self.weights: list[Tensor] = [network.get_parameter(name) for name in names]
        self.gradients = [torch.zeros_like(weight) for weight in self.weights]
        self.copies = {
            name: weight.detach().bfloat16().requires_grad_() for name, weight in zip(names, self.weights, strict=True)
        }

    def __call__(self, inputs: Tensor) -> Tensor:
        for copy in self.copies.values():
            copy.grad = None
        outputs: Tensor = functional_call(self.network, self.copies, (inputs,))
        return outputs

    @torch.no_grad()
    def hand_over_gradients(self) -> None:
        """Into the network's own parameters, as float32."""
        torch._foreach_copy_(self.gradients, [_gradient(copy) for copy in self.copies.values()])
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient

    @torch.no_grad()
    def take_over_weights(self) -> None:
        torch._foreach_copy_(list(self.copies.values()), self.weights)


def _rounds_first(network: nn.Module) -> bool:
    """Whether the first thing that autocast does with images is to round them."""
    first = next(iter(network.children()), None)
    return isinstance(first, Convolution | nn.Conv2d)


def _gradient(weight: Tensor) -> Tensor:
    """Zeros for a weight that the loss does not depend on."""
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _with_generator(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """The same modules, but for dropout, which draws from `generator`."""
    if isinstance(network, nn.Dropout):
        return OwnDropout(network.p, generator)
    if type(network) is ResidualBlock:
        return ResidualBlock(_parts(network.branch, generator), _parts(network.shortcut, generator))
    return _parts(network, generator) if type(network) is nn.Sequential else network


def _parts(network: nn.Sequential, generator: torch.Generator) -> nn.Sequential:
    return nn.Sequential(*(_with_generator(module, generator) for module in network))
