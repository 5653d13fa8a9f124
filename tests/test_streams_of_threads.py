"""Which CUDA streams a thread gets; PyTorch's, of which there are 32 and then the same again, are played here."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, nullcontext

import pytest
import torch

from cnn_ablation.common import lanes
from cnn_ablation.tasks.image_classification.engine import streams

GPU = torch.device("cuda:0")


class Stream:
    """As PyTorch hands them out, in turn."""

    turn: Iterator[int]

    def __init__(self, device: torch.device):
        self.device, self.cuda_stream = device, next(self.turn) % streams.MOST


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(streams, "_owners", {})
    monkeypatch.setattr(streams, "_own", streams._Own())
    Stream.turn = itertools.count()


def of_threads(*counts: int) -> list[list[int] | str]:
    """What threads that live at the same time get, one after the other: streams, or why not."""

    def ask(count: int) -> list[int] | str:
        try:
            return [stream.cuda_stream for stream in streams.of_this_thread(GPU, count)]
        except RuntimeError as error:
            return str(error)

    with ExitStack() as alive:
        return [alive.enter_context(ThreadPoolExecutor(1)).submit(ask, count).result() for count in counts]


def test_no_two_threads_share_a_stream() -> None:
    assert of_threads(8, 7, 9, 8) == [[*range(8)], [*range(8, 15)], [*range(15, 24)], [*range(24, 32)]]


def test_a_thread_takes_its_own_twice_rather_than_those_of_others() -> None:
    assert of_threads(20, 14) == [[*range(20)], [*range(20, 32), 20, 21]]


def test_a_thread_for_which_none_is_left_is_told_so() -> None:
    assert of_threads(20, 12, 1)[-1] == "other arms in this process have all 32 CUDA streams"


def test_a_thread_keeps_its_streams_from_arm_to_arm_and_alone_has_as_many_as_it_likes() -> None:
    def arms(counts: list[int]) -> list[list[int]]:
        return [[stream.cuda_stream for stream in streams.of_this_thread(GPU, count)] for count in counts]

    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(arms, [3, 5, 2, 40]).result()
    assert found == [[0, 1, 2], [0, 1, 2, 3, 4], [0, 1], [*range(32), *range(8)]]


def test_a_lane_launches_into_the_first_of_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a thread that is none into PyTorch's current one."""
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)

    def current(device: torch.device) -> Stream | None:
        with streams.of_a_lane(device) as stream:
            return stream

    ours, theirs = multiprocessing.Pipe()
    with closing(ours), closing(theirs):
        assert current(GPU) is None
        with lanes.lane(theirs):
            assert current(GPU) is streams.of_this_thread(GPU, 3)[0]
            assert current(torch.device("cpu")) is None


@pytest.mark.parametrize(("own", "expected"), [(7, 3), (8, 3), (12, 1), (17, 0), (32, 0), (40, 0)])
def test_room_for_threads_with_as_many_streams(own: int, expected: int) -> None:
    def room() -> int:
        streams.of_this_thread(GPU, own)
        return streams.room(GPU)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(room).result() == expected
