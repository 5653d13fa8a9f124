"""PyTorch's default generators where several threads draw from them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from cnn_ablation.common import lanes
from cnn_ablation.config import with_settings
from cnn_ablation.tasks.image_classification import data, generators, training
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.diagnoses import gradient_norm
from cnn_ablation.tasks.image_classification.models import build_network

CPU = torch.device("cpu")
THREADS, DRAWS = 2, 2_000
T = TypeVar("T")


def in_threads(draw: Callable[[int], T], seeds: Sequence[int]) -> list[T]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(draw, seeds))


def expected_of(seed: int) -> Tensor:
    """What PyTorch draws after this seed, by a generator of its own."""
    own = torch.Generator().manual_seed(seed)
    return torch.stack([torch.rand(3, generator=own) for _ in range(DRAWS)])


def test_threads_draw_from_their_streams_as_if_alone() -> None:
    before = torch.get_rng_state()

    def drawn(seed: int) -> Tensor:
        with generators.seeded(seed):
            return torch.stack([torch.rand(3) for _ in range(DRAWS)])

    for seed, found in enumerate(in_threads(drawn, range(8))):
        assert torch.equal(found, expected_of(seed))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_callers_generator_is_as_it_was_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), generators.seeded(3), generators.kept():
        torch.rand(1 // 0)
    assert torch.equal(torch.get_rng_state(), before)
    with ThreadPoolExecutor(1) as pool, generators.kept():
        other = pool.submit(lambda: lanes.turn.acquire(blocking=False))
        assert not other.result(), "it is this thread's"


def test_a_run_lets_others_have_them_between_its_epochs(tiny_config: Config) -> None:
    def is_free(_: training.Epoch) -> None:
        found.append(other.submit(lambda: lanes.turn.acquire(blocking=False) and not lanes.turn.release()).result())

    found: list[bool] = []
    with ThreadPoolExecutor(1) as other:
        training.train(tiny_config, data.load(tiny_config.data), seed=0, device=CPU, on_epoch=is_free)
    assert found == [True] * tiny_config.train.epochs


FORKED = """
import os, threading
from cnn_ablation.common import lanes
held, done = threading.Event(), threading.Event()
def hold():
    with lanes.turn:
        held.set()
        done.wait(10)
holder = threading.Thread(target=hold)
holder.start()
held.wait(10)
child = os.fork()
if not child:
    os._exit(0 if lanes.turn.acquire(timeout=5) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_forked_process_waits_for_no_thread_of_its_parent() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_runs_of_the_reference_loop_in_threads_are_those_one_after_the_other(tiny_config: Config) -> None:
    """Initial weights, dropout and diagnoses, all of which draw from the default generator."""
    config = with_settings(tiny_config, [("model.dropout", 0.5)])
    images = data.load(config.data)

    def trained(seed: int) -> list[float]:
        found = training.train(config, images, seed=seed, device=CPU)
        initial = build_network(config.model, images.num_classes, images.input_shape, seed=seed)
        batch = torch.rand(4, *images.input_shape, generator=torch.Generator().manual_seed(0)), torch.arange(4)
        norm = gradient_norm(initial, batch, seed=seed, precision="float32")
        return [norm, found.test.loss, *(epoch.train_loss for epoch in found.curves)]

    seeds = range(THREADS)
    assert in_threads(trained, seeds) == [trained(seed) for seed in seeds]
