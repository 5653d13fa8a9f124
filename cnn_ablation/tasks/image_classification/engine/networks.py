"""The same function of the same parameters, in an order that costs less."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cnn_ablation.tasks.image_classification.engine.convolution import Convolution, is_computable
from cnn_ablation.tasks.image_classification.engine.linear import Linear
from cnn_ablation.tasks.image_classification.engine.pooling import PooledActivation
from cnn_ablation.tasks.image_classification.models.modules import ResidualBlock

# Functions that never decrease: the largest value of a window stays the largest, so that pooling may come first.
_NEVER_DECREASING = (nn.ReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Identity)


def rewritten(network: nn.Module) -> nn.Module:
    """A network that shares the modules of `network` and activates after pooling instead of before.

    max(f(a), f(b)) = f(max(a, b)) for every f that never decreases: the same outputs, and the same gradients but where
    a function is flat to the last bit, so that windows hold ties. A quarter of the values are then left to activate.

    Args:
        network: an `nn.Sequential`; anything else comes back as it is. The parts of residual blocks are rewritten each
            for itself: nothing moves across a sum.
    """
    return _rewritten_sequence(network) if type(network) is nn.Sequential else network


def _rewritten_sequence(network: nn.Sequential) -> nn.Sequential:
    left, ordered = list(network), list[nn.Module]()
    while left:
        module = _rewritten_block(left.pop(0))
        following = left[0] if left else None
        if _never_decreases(module) and _is_pooling(following):
            ordered.append(PooledActivation(left.pop(0), module))
        elif _is_pooling(module):
            ordered.append(PooledActivation(module, None))
        else:
            ordered.append(module)
    return nn.Sequential(*_merged(ordered))


def _rewritten_block(module: nn.Module) -> nn.Module:
    if type(module) is not ResidualBlock:
        return module
    return ResidualBlock(_rewritten_sequence(module.branch), _rewritten_sequence(module.shortcut))


def _merged(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Convolutions take over the pooling that follows them."""
    merged = list[nn.Module]()
    for module in modules:
        before = merged[-1] if merged else None
        if isinstance(before, Convolution) and isinstance(module, PooledActivation):
            merged[-1] = Convolution(before.convolution, module)
        else:
            merged.append(_quicker(module))
    return merged


def _quicker(module: nn.Module) -> nn.Module:
    """The same layer, computed by code that is quicker where it can run."""
    if is_computable(module):
        return Convolution(module)
    return Linear(module) if type(module) is nn.Linear else module


def _never_decreases(module: nn.Module) -> bool:
    if type(module) is nn.LeakyReLU:
        return bool(module.negative_slope >= 0)
    return type(module) in _NEVER_DECREASING


def _is_pooling(module: nn.Module | None) -> bool:
    """Whether `module` is max pooling of 2x2 windows side by side."""
    return (
        type(module) is nn.MaxPool2d
        and module.kernel_size in (2, (2, 2))
        and module.stride in (2, (2, 2))
        and module.padding in (0, (0, 0))
        and module.dilation in (1, (1, 1))
        and not module.ceil_mode
        and not module.return_indices
    )
