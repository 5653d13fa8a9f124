"""Names of optimisers -> torch optimisers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, optim

from cnn_ablation.tasks.image_classification import parts
from cnn_ablation.tasks.image_classification.config import OptimizerConfig

Make = Callable[..., optim.Optimizer]


@cache
def undecorated(kind: type[optim.Optimizer]) -> Make:
    """One of PyTorch's optimisers without what it wraps around their methods for `torch.compile`.

    That computes nothing here, and imports `torch._dynamo` when a method is first called: a second of every start, and
    memory of every process. A step is taken without gradients, as its wrapper does it. Hooks on steps are kept.
    """
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**methods, "step": step})


_OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda params, c, **how: undecorated(optim.SGD)(
        params, lr=c.lr, momentum=c.momentum, nesterov=c.nesterov, weight_decay=c.weight_decay, **how
    ),
    "adam": lambda params, c, **how: undecorated(optim.Adam)(
        params, lr=c.lr, betas=(c.beta1, c.beta2), eps=c.eps, weight_decay=c.weight_decay, **how
    ),
    "adamw": lambda params, c, **how: undecorated(optim.AdamW)(
        params, lr=c.lr, betas=(c.beta1, c.beta2), eps=c.eps, weight_decay=c.weight_decay, **how
    ),
    "adagrad": lambda params, c, **how: undecorated(optim.Adagrad)(
        params, lr=c.lr, eps=c.eps, weight_decay=c.weight_decay, **how
    ),
    "rmsprop": lambda params, c, **how: undecorated(optim.RMSprop)(
        params, lr=c.lr, alpha=c.alpha, eps=c.eps, momentum=c.momentum, weight_decay=c.weight_decay, **how
    ),
}
_FUSED = {
    "cpu": ("sgd", "adam", "adamw", "adagrad"),
    "cuda": ("sgd", "adam", "adamw"),
}  # what PyTorch has one kernel for


def make_optimizer(
    config: OptimizerConfig, params: Iterable[tuple[str, Tensor]], device: torch.device, *, fused: bool = False
) -> optim.Optimizer:
    """The configured optimiser over named parameters on `device`.

    Args:
        config: with its penalties; the output layer is the one whose weights come last.
        params: as from `nn.Module.named_parameters`.
        device: where they are.
        fused: asks for the single kernel where there is one.
    """
    one_kernel = fused and config.name in _FUSED.get(device.type, ())
    if config.name in parts.OPTIMIZERS:
        made: optim.Optimizer = parts.OPTIMIZERS[config.name](_groups(config, dict(params)), config)
        return made
    return _OPTIMIZERS[config.name](_groups(config, dict(params)), config, **({"fused": True} if one_kernel else {}))


def _groups(config: OptimizerConfig, params: dict[str, Tensor]) -> list[Any]:
    """All parameters, or groups of them with a weight decay of their own."""
    biases, output = config.weight_decay_biases, config.weight_decay_output
    if biases is None and output is None:
        return list(params.values())
    last = [name for name in params if name.endswith(".weight")][-1]
    decays = dict.fromkeys(params, config.weight_decay)
    if biases is not None:
        decays |= {name: biases for name in params if name.endswith(".bias")}
    if output is not None:
        decays[last] = output
    return [
        {"params": [param for name, param in params.items() if decays[name] == decay], "weight_decay": decay}
        for decay in dict.fromkeys(decays.values())
    ]
