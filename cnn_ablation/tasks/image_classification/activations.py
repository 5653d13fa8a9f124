"""Names of activations and the layers they stand for.

The factories receive `torch.nn`, so that the names are known (to checks, help and completion) before torch is
imported. A new activation is one line here, or `ACTIVATIONS["mish"] = lambda nn: nn.Mish()` in a notebook.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda nn: nn.ReLU(),
    "leaky": lambda nn: nn.LeakyReLU(),  # its slope is `model.leaky_slope`
    "prelu": lambda nn: nn.PReLU(),
    "elu": lambda nn: nn.ELU(),
    "sigmoid": lambda nn: nn.Sigmoid(),
    "tanh": lambda nn: nn.Tanh(),
    "none": lambda nn: nn.Identity(),
}
