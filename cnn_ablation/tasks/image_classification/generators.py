"""PyTorch's default generators, which layers draw from: one thread at a time has them, and leaves them as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from cnn_ablation.common import lanes

_CPU = torch.device("cpu")
_Generator = tuple[Callable[[], Tensor], Callable[[Tensor], None], Callable[[int], object]]


def _generators(device: torch.device) -> dict[str, _Generator]:
    """(get, set, seed) of those that layers on a device draw from, by the kind of device; always the CPU's."""
    known: dict[str, _Generator] = {
        "cpu": (torch.get_rng_state, torch.set_rng_state, torch.default_generator.manual_seed),
        "cuda": (
            partial(torch.cuda.get_rng_state, device),
            lambda state: torch.cuda.set_rng_state(state, device),
            partial(_seed_cuda, device),
        ),
        "mps": (torch.mps.get_rng_state, torch.mps.set_rng_state, torch.mps.manual_seed),
    }
    return {kind: known[kind] for kind in dict.fromkeys(("cpu", device.type))}


def _seed_cuda(device: torch.device, seed: int) -> None:
    with torch.cuda.device(device):
        torch.cuda.manual_seed(seed)


def states(device: torch.device) -> dict[str, Tensor]:
    """Where they are, by the kind of device."""
    return {kind: get_state() for kind, (get_state, _, _) in _generators(device).items()}


def _set_states(wanted: dict[str, Tensor], device: torch.device) -> None:
    for kind, (_, set_state, _) in _generators(device).items():
        set_state(wanted[kind])


@contextmanager
def kept(device: torch.device = _CPU) -> Iterator[None]:
    """Within it this thread has them; afterwards they are as the caller left them."""
    with lanes.turn:
        before = states(device)
        try:
            yield
        finally:
            _set_states(before, device)


@contextmanager
def seeded(seed: int, device: torch.device = _CPU) -> Iterator[None]:
    """`kept`, and at the start of a stream within it."""
    with kept(device):
        for _, _, set_seed in _generators(device).values():
            set_seed(seed)
        yield


@contextmanager
def at(place: dict[str, Tensor], device: torch.device) -> Iterator[None]:
    """`kept`, and within it where `states` once found them; afterwards `place` is where they have come to."""
    with kept(device):
        _set_states(place, device)
        yield
        place.update(states(device))
