"""Several networks as one: weights stacked along a first axis of seeds, the forward pass mapped over it.

Runs on every device. Convolutions with weights per seed become grouped convolutions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from cnn_ablation.config import Config
from cnn_ablation.data.resident import ResidentSplit
from cnn_ablation.engine.dropout import MaskedDropout, draw_mask
from cnn_ablation.optimizers import make_optimizer
from cnn_ablation.streams import stream_seed
from cnn_ablation.training import TrainingState, autocast


class VectorisedSteps:
    """`together.Steps` by `torch.func.vmap`."""

    def __init__(
        self,
        config: Config,
        states: Sequence[TrainingState],
        images: ResidentSplit,
        seeds: Sequence[int],
        precision: str,
    ):
        self.states, self.images, self.precision = states, images, precision
        self.batch_size, self.loss_of = config.train.batch_size, states[0].loss
        device = images.labels.device
        params, self.buffers = stack_module_state([state.network for state in states])
        self.params = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
        self.optimizer = make_optimizer(config.optimizer, self.params.items(), device, fused=True)
        self.generators = [torch.Generator(device).manual_seed(stream_seed(seed, "dropout")) for seed in seeds]
        self.network = _with_masks(states[0].network)
        self.dropouts = self._dropouts()
        self._warm_up()

    def epoch(self, orders: Tensor) -> Tensor:
        """Steps over all batches, the last of which may be smaller."""
        sums = torch.zeros(len(orders), device=orders.device)
        bounds = [*range(0, orders.shape[1], self.batch_size), orders.shape[1]]
        for first, last in pairwise(bounds):
            indices = orders[:, first:last]
            losses = self._losses(indices, self._draw_masks(last - first))
            self.optimizer.zero_grad()
            losses.sum().backward()  # a seed's loss depends on its own weights alone
            self.optimizer.step()
            sums += losses.detach() * (last - first)
        return sums

    @torch.no_grad()
    def update_networks(self) -> None:
        """Copies each seed's slice into its own network."""
        stacked = {**self.params, **self.buffers}
        for index, state in enumerate(self.states):
            state.network.load_state_dict({name: value[index] for name, value in stacked.items()})

    def _losses(self, indices: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """Mean loss of each seed, (seeds,), for its own images, int64 (seeds, batch)."""
        inputs, labels = self.images.batch(indices.flatten())

        def forward(params: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
            logits: Tensor = functional_call(self.network, {**params, **buffers}, (images,))
            return logits

        with autocast(inputs.device, self.precision):
            images = inputs.unflatten(0, indices.shape)
            logits = vmap(forward)(self.params, {**self.buffers, **masks}, images)
            losses = self.loss_of(logits.flatten(0, 1), labels, reduction="none")
        return losses.view(indices.shape).mean(dim=1)

    def _draw_masks(self, batch_size: int) -> dict[str, Tensor]:
        """By name, float32 (seeds, batch, ...); each seed draws layer by layer, as its lone run does."""
        by_seed = [
            {
                name: draw_mask(self._batch_like(one, batch_size), p, generator)
                for name, (p, one) in self.dropouts.items()
            }
            for generator in self.generators
        ]
        return {f"{name}.mask": torch.stack([masks[name] for masks in by_seed]) for name in self.dropouts}

    def _batch_like(self, one: Tensor, batch_size: int) -> Tensor:
        """An empty batch of what a layer is given for one image, in the layout that it has in training."""
        is_plain = one.dim() != 4 or self.images.pixels.is_contiguous()
        layout = torch.contiguous_format if is_plain else torch.channels_last
        return torch.empty(batch_size, *one.shape[1:], device=one.device, memory_format=layout)

    def _dropouts(self) -> dict[str, tuple[float, Tensor]]:
        """Probability and input of every dropout layer by name, found by passing one image through the network."""
        found: dict[str, tuple[float, Tensor]] = {}
        hooks = [
            module.register_forward_pre_hook(
                lambda layer, given, name=name: found.update({name: (layer.probability, given[0])})
            )
            for name, module in self.network.named_modules()
            if isinstance(module, MaskedDropout)
        ]
        with torch.no_grad():
            self.network.eval()(next(self.images.in_order(1))[0])
        for hook in hooks:
            hook.remove()
        self.network.train()
        return found

    def _warm_up(self) -> None:
        """Forward and backward once, with masks of ones; the batch statistics that this moves are put back."""
        before = {name: value.clone() for name, value in self.buffers.items()}
        indices = torch.zeros(len(self.states), self.batch_size, dtype=torch.int64, device=self.images.labels.device)
        ones = {
            f"{name}.mask": torch.ones(*indices.shape, *one.shape[1:], device=indices.device)
            for name, (_, one) in self.dropouts.items()
        }
        self._losses(indices, ones).sum().backward()
        self.optimizer.zero_grad()
        for name, value in before.items():
            self.buffers[name].copy_(value)


def _with_masks(network: nn.Module) -> nn.Module:
    """A copy whose dropout layers take their masks from outside."""
    replaced = copy.deepcopy(network)
    for name, module in network.named_children():
        if isinstance(module, nn.Dropout):
            setattr(replaced, name, MaskedDropout(module.p).to(next(network.parameters()).device))
    return replaced
