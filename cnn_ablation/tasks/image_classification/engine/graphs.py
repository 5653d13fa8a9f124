"""Whole training steps as CUDA graphs: all seeds of an arm side by side, each on a stream of its own.

A small network's kernels take less time than it takes to launch them one by one. A graph launches several steps of
every seed at once: gathering the batch, forward, backward, optimiser, loss. Needs a CUDA device.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, optim

from cnn_ablation.common import lanes
from cnn_ablation.tasks.image_classification import devices
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data.resident import ResidentSplit
from cnn_ablation.tasks.image_classification.engine import streams
from cnn_ablation.tasks.image_classification.engine.steps import Seed
from cnn_ablation.tasks.image_classification.lengths import epoch_images, num_epochs
from cnn_ablation.tasks.image_classification.training import TrainingState

_WARM_UP_STEPS = 3  # cuDNN picks its algorithms and the optimiser makes its state before anything is captured
_STEPS_OF_A_GRAPH = 10  # seeds wait for each other at its end only


class GraphedSteps:
    """`together.Steps` as graphs of `_STEPS_OF_A_GRAPH` full batches, of one, and of the smaller last one."""

    def __init__(
        self,
        config: Config,
        states: Sequence[TrainingState],
        images: ResidentSplit,
        precision: str,
    ):
        self.batch_size = config.train.batch_size
        self.seeds = [Seed(state, images, precision) for state in states]
        _, self.side, *self.streams = streams.of_this_thread(images.labels.device, 2 + len(states))
        for seed in self.seeds:
            _make_capturable(seed.updates.optimizer)
        self.pool = torch.cuda.graph_pool_handle()
        sizes = self._sizes(config, len(images))
        with lanes.turn:  # a process captures one graph at a time, and has one list of filters of warnings
            with _put_back(states, [seed.generator for seed in self.seeds]):
                self._warm_up({batch for batch, _ in sizes})
            for seed in self.seeds:
                seed.weights_changed()
            self.graphs = {of: self._capture(*of) for of in sorted(sizes)}

    def epoch(self, orders: Tensor) -> Tensor:
        """Replays the graphs of full batches, then that of the smaller last one."""
        for seed, order in zip(self.seeds, orders, strict=True):
            seed.begin(order, math.ceil(len(order) / self.batch_size))
        for of, times in _replays(orders.shape[1], self.batch_size):
            for _ in range(times):
                self.graphs[of].replay()
        return torch.cat([seed.sum for seed in self.seeds])

    def random_states(self) -> list[Tensor]:
        """Where each seed's dropout is in its stream."""
        return [seed.generator.get_state() for seed in self.seeds]

    @staticmethod
    def _sizes(config: Config, num_images: int) -> set[tuple[int, int]]:
        """Of all graphs that the epochs need: (images of a batch, steps)."""
        epochs = range(num_epochs(config.train, num_images))
        lengths = {epoch_images(config.train, epoch, num_images) for epoch in epochs}
        return {of for images in lengths for of, times in _replays(images, config.train.batch_size) if times}

    def _warm_up(self, sizes: set[int]) -> None:
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable")  # captured later
            for size in [size for size in sizes for _ in range(_WARM_UP_STEPS)]:
                for seed in self.seeds:
                    seed.rewind()
                    seed.step(size)
        torch.cuda.current_stream().wait_stream(self.side)

    def _capture(self, size: int, steps: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for seed in self.seeds:
            graph.register_generator_state(seed.generator)
        mode = "thread_local"  # what other threads do meanwhile is no part of it, and no error
        into = torch.cuda.graph(graph, pool=self.pool, stream=self.side, capture_error_mode=mode)
        with _recovering(self.pool), into:
            main = torch.cuda.current_stream()
            for seed, stream in zip(self.seeds, self.streams, strict=True):
                stream.wait_stream(main)
                with torch.cuda.stream(stream):
                    for _ in range(steps):
                        seed.step(size)
            for stream in self.streams:
                main.wait_stream(stream)
        return graph


@contextmanager
def _recovering(pool: tuple[int, int]) -> Iterator[None]:
    """After a capture that failed, the process is as it was before it, and the error is what went wrong inside.

    PyTorch (2.11) leaves its current stream, its default generator and the memory pool in the capture. What cuBLAS
    keeps for the seeds' streams lies in the pool; it stays where graphs of other arms in the process may use theirs.
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
        if not lanes.in_one():
            torch._C._cuda_clearCublasWorkspaces()
        cause: BaseException = error
        while cause.__context__ is not None:  # leaving the capture raises once more
            cause = cause.__context__
        raise cause from None


def _replays(num_images: int, batch_size: int) -> list[tuple[tuple[int, int], int]]:
    """How an epoch of so many images is put together: ((images of a batch, steps) of a graph, how often)."""
    whole, rest = divmod(num_images, batch_size)
    many, ones = divmod(whole, _STEPS_OF_A_GRAPH)
    return [((batch_size, _STEPS_OF_A_GRAPH), many), ((batch_size, 1), ones), ((rest, 1), bool(rest))]


def _make_capturable(optimizer: optim.Optimizer) -> None:
    """Keeps the count of steps on the device, where the optimiser knows how."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True


@contextmanager
def _put_back(states: Sequence[TrainingState], generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Weights, their averages, batch statistics, optimisers and streams are as they were, at the same addresses."""
    networks = [network for state in states for network in dict.fromkeys((state.network, state.scored))]
    weights = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    drawn = [generator.get_state() for generator in generators]
    optimizers = [copied(state.updates.optimizer) for state in states]
    yield
    devices.synchronise(states[0].device)
    for network, before in zip(networks, weights, strict=True):
        network.load_state_dict(before)
    for state, kept in zip(states, optimizers, strict=True):
        put_back(state.updates.optimizer, kept)
    for generator, before_drawing in zip(generators, drawn, strict=True):
        generator.set_state(before_drawing)


OptimizerState = dict[Tensor, dict[str, Tensor]]
"""The tensors that an optimiser keeps for each parameter."""


def copied(optimizer: optim.Optimizer) -> OptimizerState:
    """The optimiser's state by parameter, in tensors of its own, for `put_back`."""
    return {
        parameter: {name: value.clone() for name, value in values.items() if isinstance(value, Tensor)}
        for parameter, values in optimizer.state.items()
    }


def put_back(optimizer: optim.Optimizer, kept: OptimizerState) -> None:
    """The optimiser's state is what was `copied`, in the tensors that it has now; zeros for what was not there then."""
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                before = kept.get(parameter, {}).get(name)
                value.zero_() if before is None else value.copy_(before)
