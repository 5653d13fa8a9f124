"""Names of optimisers -> torch optimisers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn, optim

from cnn_ablation.config import OptimizerConfig

_OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], Any], optim.Optimizer]] = {
    "sgd": lambda params, c: optim.SGD(params, lr=c.lr, momentum=c.momentum, weight_decay=c.weight_decay),
    "adam": lambda params, c: optim.Adam(params, lr=c.lr, betas=(c.beta1, c.beta2), weight_decay=c.weight_decay),
    "adagrad": lambda params, c: optim.Adagrad(params, lr=c.lr, weight_decay=c.weight_decay),
    "rmsprop": lambda params, c: optim.RMSprop(
        params, lr=c.lr, alpha=c.alpha, momentum=c.momentum, weight_decay=c.weight_decay
    ),
}


def make_optimizer(config: OptimizerConfig, params: Iterable[nn.Parameter]) -> optim.Optimizer:
    """The configured optimiser over `params`."""
    return _OPTIMIZERS[config.name](params, config)
