"""Whole training steps as CUDA graphs: all seeds of an arm side by side, each on a stream of its own.

A small network's kernels take less time than it takes to launch them one by one. A graph launches several steps of
every seed at once: gathering the batch, forward, backward, optimiser, loss. Needs a CUDA device.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn, optim
from torch.func import functional_call

from cnn_ablation.config import Config
from cnn_ablation.data.resident import ResidentSplit
from cnn_ablation.engine.dropout import OwnDropout
from cnn_ablation.lengths import epoch_images, num_epochs
from cnn_ablation.streams import stream_seed
from cnn_ablation.training import TrainingState, autocast

_WARM_UP_STEPS = 3  # cuDNN picks its algorithms and the optimiser makes its state before anything is captured
_STEPS_OF_A_GRAPH = 10  # seeds wait for each other at its end only


class GraphedSteps:
    """`together.Steps` as graphs of `_STEPS_OF_A_GRAPH` full batches, of one, and of the smaller last one."""

    def __init__(
        self,
        config: Config,
        states: Sequence[TrainingState],
        images: ResidentSplit,
        seeds: Sequence[int],
        precision: str,
    ):
        self.batch_size = config.train.batch_size
        self.seeds = [_Seed(state, images, seed, precision) for state, seed in zip(states, seeds, strict=True)]
        with _put_back(states, [seed.generator for seed in self.seeds]):
            sizes = self._sizes(config, len(images))
            self._warm_up({batch for batch, _ in sizes})
        for seed in self.seeds:
            seed.weights_changed()
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs = {of: self._capture(*of) for of in sorted(sizes)}

    def epoch(self, orders: Tensor) -> Tensor:
        """Replays the graphs of full batches, then that of the smaller last one."""
        for seed, order in zip(self.seeds, orders, strict=True):
            seed.begin(order)
        for of, times in _replays(orders.shape[1], self.batch_size):
            for _ in range(times):
                self.graphs[of].replay()
        return torch.cat([seed.sum for seed in self.seeds])

    def update_networks(self) -> None:
        """Graphs change the networks' own weights; the next evaluation switches the mode and back."""

    @staticmethod
    def _sizes(config: Config, num_images: int) -> set[tuple[int, int]]:
        """Of all graphs that the epochs need: (images of a batch, steps)."""
        epochs = range(num_epochs(config.train, num_images))
        lengths = {epoch_images(config.train, epoch, num_images) for epoch in epochs}
        return {of for images in lengths for of, times in _replays(images, config.train.batch_size) if times}

    def _warm_up(self, sizes: set[int]) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable")  # captured later
            for size in [size for size in sizes for _ in range(_WARM_UP_STEPS)]:
                for seed in self.seeds:
                    seed.position.zero_()
                    seed.step(size)
        torch.cuda.current_stream().wait_stream(side)

    def _capture(self, size: int, steps: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for seed in self.seeds:
            graph.register_generator_state(seed.generator)
        with _recovering(self.pool), torch.cuda.graph(graph, pool=self.pool):
            main = torch.cuda.current_stream()
            for seed in self.seeds:
                seed.stream.wait_stream(main)
                with torch.cuda.stream(seed.stream):
                    for _ in range(steps):
                        seed.step(size)
            for seed in self.seeds:
                main.wait_stream(seed.stream)
        return graph


@contextmanager
def _recovering(pool: tuple[int, int]) -> Iterator[None]:
    """After a capture that failed, the process is as it was before it, and the error is what went wrong inside.

    PyTorch (2.11) leaves its current stream, its default generator and the memory pool in the capture.
    """
    stream = torch.cuda.current_stream()
    try:
        yield
    except Exception as error:
        torch.cuda.set_stream(stream)
        device = torch.cuda.current_device()
        fresh = torch.Generator("cuda").graphsafe_get_state()
        torch.cuda.default_generators[device].graphsafe_set_state(fresh)
        with suppress(RuntimeError):  # where the capture has ended in order
            torch._C._cuda_endAllocateToPool(device, pool)
            torch._C._cuda_releasePool(device, pool)
        cause: BaseException = error
        while cause.__context__ is not None:  # leaving the capture raises once more
            cause = cause.__context__
        raise cause from None


def _replays(num_images: int, batch_size: int) -> list[tuple[tuple[int, int], int]]:
    """How an epoch of so many images is put together: ((images of a batch, steps) of a graph, how often)."""
    whole, rest = divmod(num_images, batch_size)
    many, ones = divmod(whole, _STEPS_OF_A_GRAPH)
    return [((batch_size, _STEPS_OF_A_GRAPH), many), ((batch_size, 1), ones), ((rest, 1), bool(rest))]


class _Seed:
    """One network in training, at fixed addresses."""

    def __init__(self, state: TrainingState, images: ResidentSplit, seed: int, precision: str):
        device = images.labels.device
        self.images, self.precision, self.loss_of = images, precision, state.loss
        self.generator = torch.Generator(device).manual_seed(stream_seed(seed, "dropout"))
        self.network = _with_generator(state.computed, self.generator)
        self.optimizer = _capturable(state.optimizer)
        self.rounded = RoundedWeights(self.network) if precision == "bfloat16" else None
        self.order = torch.zeros(len(images), dtype=torch.int64, device=device)
        self.places = torch.arange(len(images), device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        """Of the next batch's first image; graphs read and advance it on the device."""
        self.sum = torch.zeros(1, device=device)
        self.stream = torch.cuda.Stream(device)

    def begin(self, order: Tensor) -> None:
        """An epoch in this order, int64 (images,)."""
        self.order[: len(order)].copy_(order)
        self.position.zero_()
        self.sum.zero_()

    def step(self, size: int) -> None:
        """One optimiser step on the next `size` images."""
        self.network.train()
        inputs, labels = self.images.batch(self.order.index_select(0, self.places[:size] + self.position))
        self.optimizer.zero_grad()
        with autocast(inputs.device, self.precision):
            outputs = self.rounded(inputs) if self.rounded else self.network(inputs)
            loss = self.loss_of(outputs, labels)
        loss.backward()
        if self.rounded:
            self.rounded.hand_over_gradients()
        self.optimizer.step()
        self.weights_changed()
        self.sum += loss.detach() * size
        self.position += size

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


def _gradient(weight: Tensor) -> Tensor:
    """Zeros for a weight that the loss does not depend on."""
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


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
