"""Names of optimisers -> torch optimisers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn, optim

from cnn_ablation.config import OptimizerConfig

_OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda params, c, **how: optim.SGD(params, lr=c.lr, momentum=c.momentum, weight_decay=c.weight_decay, **how),
    "adam": lambda params, c, **how: optim.Adam(
        params, lr=c.lr, betas=(c.beta1, c.beta2), weight_decay=c.weight_decay, **how
    ),
    "adagrad": lambda params, c, **how: optim.Adagrad(params, lr=c.lr, weight_decay=c.weight_decay, **how),
    "rmsprop": lambda params, c, **how: optim.RMSprop(
        params, lr=c.lr, alpha=c.alpha, momentum=c.momentum, weight_decay=c.weight_decay, **how
    ),
}
_FUSED = {"cpu": ("sgd", "adam", "adagrad"), "cuda": ("sgd", "adam")}  # what PyTorch has one kernel for


def make_optimizer(
    config: OptimizerConfig, params: Iterable[nn.Parameter], device: torch.device, *, fused: bool = False
) -> optim.Optimizer:
    """The configured optimiser over `params` on `device`; `fused` asks for the single kernel where there is one."""
    one_kernel = fused and config.name in _FUSED.get(device.type, ())
    return _OPTIMIZERS[config.name](params, config, **({"fused": True} if one_kernel else {}))
