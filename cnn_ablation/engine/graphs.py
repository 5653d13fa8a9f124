"""Whole training steps as CUDA graphs: all seeds of an arm side by side, each on a stream of its own.

A small network's kernels take less time than it takes to launch them one by one. A graph launches a step of every seed
at once: gathering the batch, forward, backward, optimiser, loss. Needs a CUDA device.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn, optim

from cnn_ablation.config import Config
from cnn_ablation.data.resident import ResidentSplit
from cnn_ablation.engine.dropout import OwnDropout
from cnn_ablation.streams import stream_seed
from cnn_ablation.training import TrainingState, autocast

_WARM_UP_STEPS = 3  # cuDNN picks its algorithms and the optimiser makes its state before anything is captured


class GraphedSteps:
    """`together.Steps` as one graph per batch size."""

    def __init__(
        self,
        config: Config,
        states: Sequence[TrainingState],
        images: ResidentSplit,
        seeds: Sequence[int],
        precision: str,
    ):
        device = images.labels.device
        self.images, self.precision, self.batch_size = images, precision, config.train.batch_size
        self.loss_of = states[0].loss
        self.generators = [torch.Generator(device).manual_seed(stream_seed(seed, "dropout")) for seed in seeds]
        self.optimizers = [_capturable(state.optimizer) for state in states]
        self.networks = [
            _with_generator(state.computed, generator) for state, generator in zip(states, self.generators, strict=True)
        ]
        self.orders = torch.zeros(len(states), len(images), dtype=torch.int64, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        """Of the next batch's first image; graphs read and advance it on the device."""
        self.sums = torch.zeros(len(states), device=device)
        self.streams = [torch.cuda.Stream(device) for _ in states]
        sizes = {min(self.batch_size, len(images)), len(images) % self.batch_size} - {0}
        with _put_back(states, self.generators):
            self._warm_up(sizes)
        self.graphs = {size: self._capture(size) for size in sizes}

    def epoch(self, orders: Tensor) -> Tensor:
        """Replays the graph of a full batch, then that of the smaller last one."""
        self.orders[:, : orders.shape[1]].copy_(orders)
        self.position.zero_()
        self.sums.zero_()
        whole, rest = divmod(orders.shape[1], self.batch_size)
        for _ in range(whole):
            self.graphs[self.batch_size].replay()
        if rest:
            self.graphs[rest].replay()
        return self.sums.clone()

    def update_networks(self) -> None:
        """Graphs change the networks' own weights; the next evaluation switches the mode and back."""

    def _warm_up(self, sizes: set[int]) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable")  # captured later
            for size in [size for size in sizes for _ in range(_WARM_UP_STEPS)]:
                self.position.zero_()
                for index in range(len(self.networks)):
                    self._step(index, size)
        torch.cuda.current_stream().wait_stream(side)

    def _capture(self, size: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            main = torch.cuda.current_stream()
            for index, stream in enumerate(self.streams):
                stream.wait_stream(main)
                with torch.cuda.stream(stream):
                    self._step(index, size)
            for stream in self.streams:
                main.wait_stream(stream)
            self.position += size
        return graph

    def _step(self, index: int, size: int) -> None:
        """One optimiser step of one seed on the next `size` images of its order."""
        network, optimizer = self.networks[index], self.optimizers[index]
        network.train()
        places = self.position + torch.arange(size, device=self.position.device)
        inputs, labels = self.images.batch(self.orders[index].index_select(0, places))
        optimizer.zero_grad()
        with autocast(inputs.device, self.precision):
            loss = self.loss_of(network(inputs), labels)
        loss.backward()
        optimizer.step()
        self.sums[index] += loss.detach() * size


def _capturable(optimizer: optim.Optimizer) -> optim.Optimizer:
    """Keeps the count of steps on the device, where the optimiser knows how."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    return optimizer


def _with_generator(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """The same modules, but for dropout, which draws from `generator`."""
    if type(network) is not nn.Sequential:
        return network
    return nn.Sequential(
        *(OwnDropout(module.p, generator) if isinstance(module, nn.Dropout) else module for module in network)
    )


@contextmanager
def _put_back(states: Sequence[TrainingState], generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Weights, batch statistics, optimisers and streams are afterwards as they were, at the same addresses."""
    weights = [{name: value.clone() for name, value in state.network.state_dict().items()} for state in states]
    streams = [generator.get_state() for generator in generators]
    yield
    torch.cuda.synchronize()
    for state, before in zip(states, weights, strict=True):
        state.network.load_state_dict(before)
        for values in state.optimizer.state.values():
            for value in values.values():
                if isinstance(value, Tensor):
                    value.zero_()  # as at the start: no moments, no steps
    for generator, before_drawing in zip(generators, streams, strict=True):
        generator.set_state(before_drawing)
