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


class FusedAdam(optim.Adam):
    """PyTorch's single kernel for Adam and AdamW on a CPU, with its bits and its state, in two thirds of its time.

    PyTorch copies gradients of channels-last weights into another order before it reads them, and puts its lists
    together anew in every step. Here weights, gradients and averages of one layout are handed over as they lie.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """A step along the gradients that there are -> what `closure` gives."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        params = [param for param in group["params"] if param.grad is not None]
        states = [self._state_of(param) for param in params]
        each = [
            _as_they_lie(param, _laid_as(param, param.grad), state["exp_avg"], state["exp_avg_sq"])
            for param, state in zip(params, states, strict=True)
        ]
        if not each:
            return
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        kernel: Any = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        settings = {name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")}
        beta1, beta2 = group["betas"]
        kernel(*map(list, zip(*each, strict=True)), [], steps, beta1=beta1, beta2=beta2, **settings)

    def _state_of(self, param: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[param]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(param),
                "exp_avg_sq": torch.zeros_like(param),
            }
        for name in ("exp_avg", "exp_avg_sq"):  # of a checkpoint, perhaps in another order
            state[name] = _laid_as(param, state[name])
        return state


def _laid_as(param: Tensor, values: Tensor) -> Tensor:
    """`values` in the order in memory of `param`: the kernel pairs numbers as they lie there, whatever strides say."""
    return values if values.stride() == param.stride() else torch.empty_like(param).copy_(values)


def _as_they_lie(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one shape as views without gaps, where they share a layout that PyTorch would copy."""
    first = tensors[0]
    if first.dim() != 4 or first.is_contiguous() or any(other.stride() != first.stride() for other in tensors[1:]):
        return tensors
    return tuple(tensor.permute(0, 2, 3, 1) for tensor in tensors)


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
    how = {"fused": True} if one_kernel else {}
    optimizer = _OPTIMIZERS[config.name](_groups(config, dict(params)), config, **how)
    is_adam = isinstance(optimizer, optim.Adam)  # AdamW too
    return (
        undecorated(FusedAdam)(optimizer.param_groups) if one_kernel and is_adam and device.type == "cpu" else optimizer
    )


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
