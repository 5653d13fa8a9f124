"""A network of the user's own: any `nn.Module`, built from what its constructor takes, and measured by hooks."""

from __future__ import annotations

import inspect
import json
import math
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from cnn_ablation.common import imports, signatures
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.common.streams import stream_seed
from cnn_ablation.runs import sources
from cnn_ablation.tasks.image_classification import generators
from cnn_ablation.tasks.image_classification.config import ModuleConfig
from cnn_ablation.tasks.image_classification.models.layers import Shape
from cnn_ablation.tasks.image_classification.models.spec import NetworkSpec, Row
from cnn_ablation.tasks.image_classification.models.work import Work

FROM_DATA = ("num_classes", "input_shape")
"""What a constructor is given of the data, if it has parameters of these names."""
_EXAMPLE = "model.target=my_nets.ResNet8, for the class ResNet8 in my_nets.py"
_LARGE = 5 * 10**7  # parameters; beyond it a network is looked at without memory, which takes three seconds to load
_SEEN = 2  # images shown to a network that is looked at
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def build(model: ModuleConfig, num_classes: int, input_shape: Shape, *, seed: int) -> nn.Module:
    """The network with its initial weights, on the CPU.

    Its constructor draws from torch's global generator (and NumPy's and Python's), which is seeded for it by the run's
    `weights` stream; afterwards the caller's random states are as they were.

    Raises:
        ConfigError: the target cannot be imported or does not take these arguments.
    """
    make, arguments = _call(model, num_classes, input_shape)
    with _seeded(stream_seed(seed, "weights")):
        network = make(**arguments)
        if not isinstance(network, nn.Module):
            raise ConfigError([_no_module(model, network)])
        if any(isinstance(parameter, UninitializedParameter) for parameter in network.parameters()):
            with torch.no_grad():  # lazy layers take their sizes from the first images, and then draw
                network.eval()(torch.zeros(_SEEN, *input_shape))
            network.train()
    return network


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with generators.seeded(seed):
        of_python, of_numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


def problems(model: ModuleConfig, num_classes: int, input_shape: Shape) -> list[Problem]:
    """Why a network cannot be trained: it cannot be imported or built, or gives outputs of another shape."""
    try:
        spec(model, num_classes, input_shape)
    except ConfigError as error:
        return list(error.problems)
    return []


def spec(model: ModuleConfig, num_classes: int, input_shape: Shape) -> NetworkSpec:
    """What a network is. It is built and shown two images, a large one without memory where that can be done.

    Raises:
        ConfigError: it cannot be built, or gives outputs of another shape than (batch, classes).
    """
    make, arguments = _call(model, num_classes, input_shape)
    return _spec(make, _Call(model.target, num_classes, input_shape, arguments))


@dataclass(frozen=True)
class _Call:
    target: str
    num_classes: int
    input_shape: Shape
    arguments: dict[str, Any] = field(compare=False)
    text: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", json.dumps(self.arguments, sort_keys=True, default=repr))

    def __str__(self) -> str:
        return f"{self.target}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


@lru_cache(maxsize=128)
def _spec(make: Callable[..., Any], call: _Call) -> NetworkSpec:
    """By its target, so that a class that was defined anew is looked at anew."""
    try:
        with _seeded(0), torch.device("meta"):
            network = make(**call.arguments)
            is_large = sum(parameter.numel() for parameter in network.parameters()) > _LARGE
    except Exception:  # a network may need values where `meta` has only shapes; what is wrong is told below
        is_large = False
    if is_large:
        with suppress(Exception):
            return _measured(make, call, "meta")
    return _measured(make, call, "cpu")


def _measured(make: Callable[..., Any], call: _Call, device: str) -> NetworkSpec:
    with _seeded(0), torch.device(device):
        try:
            network = make(**call.arguments)
        except Exception as error:
            allowed = f"arguments that it can be built with; {call} raised {_told(error)}"
            raise ConfigError([Problem("model.target", call.target, allowed, remedy="other model.kwargs")]) from error
        if not isinstance(network, nn.Module):
            raise ConfigError([_no_module(ModuleConfig(target=call.target), network)])
        images = torch.zeros(_SEEN, *call.input_shape)
        network.eval()
        with _Watch(network) as watch, torch.no_grad(), Work() as work:
            try:
                outputs = network(images)
            except Exception as error:
                shape = ", ".join(map(str, call.input_shape))
                allowed = f"a network for images (batch, {shape}); its forward raised {_told(error)}"
                raise ConfigError([Problem("model.target", call.target, allowed, remedy=_remedy(call))]) from error
    if not isinstance(outputs, Tensor) or outputs.shape != (_SEEN, call.num_classes):
        raise ConfigError([_wrong_outputs(call, outputs)])
    return watch.spec(work.multiply_adds / _SEEN)


class _Watch:
    """Hooks on every part of a network that has parameters of its own or no parts."""

    def __init__(self, network: nn.Module):
        self.network = network
        self.parts = {
            name or type(network).__name__: module
            for name, module in network.named_modules()
            if not any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False))
        }
        self.shapes: dict[str, list[Shape]] = {}

    def __enter__(self) -> _Watch:
        self.hooks = [
            module.register_forward_hook(lambda module, inputs, output, name=name: self._see(name, output))
            for name, module in self.parts.items()
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _see(self, name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            self.shapes.setdefault(name, []).append(tuple(output.shape[1:]))

    def spec(self, multiply_adds: float) -> NetworkSpec:
        """The network's figures, with its work per image."""
        called = [name for name in self.shapes if name in self.parts]
        ordered = [*called, *(name for name, module in self.parts.items() if name not in called and _num(module))]
        parameters = list(self.network.parameters())
        return NetworkSpec(
            rows=tuple(map(self._row, ordered)),
            num_params=sum(parameter.numel() for parameter in parameters),
            num_trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            num_kept=sum(map(_num_statistics, self.network.modules()))
            + sum(parameter.numel() for parameter in parameters if not parameter.requires_grad),
            multiply_adds=multiply_adds or math.nan,
            num_values=sum(math.prod(shape) for shapes in self.shapes.values() for shape in shapes),
        )

    def _row(self, name: str) -> Row:
        module, shapes = self.parts[name], self.shapes.get(name)
        own = list(module.parameters(recurse=False))
        return Row(
            name=name,
            summary=_summary(module),
            output_shape=shapes[-1] if shapes else None,
            num_trainable=sum(parameter.numel() for parameter in own if parameter.requires_grad),
            num_kept=_num_statistics(module)
            + sum(parameter.numel() for parameter in own if not parameter.requires_grad),
        )


def _summary(module: nn.Module) -> str:
    """In a few words, as `layers` has them; what is not known there as PyTorch prints it."""
    kind = type(module).__name__
    if isinstance(module, nn.Conv2d):
        kernel, stride = ("x".join(map(str, sizes)) for sizes in (module.kernel_size, module.stride))
        padding = module.padding if isinstance(module.padding, str) else "x".join(map(str, module.padding))
        groups = f", {module.groups} groups" if module.groups > 1 else ""
        return f"{kind}, {module.out_channels} of {kernel}, stride {stride}, padding {padding}{groups}"
    if isinstance(module, nn.Linear):
        return f"{kind}, {module.out_features} units" + ("" if module.bias is not None else ", no bias")
    if isinstance(module, _NORMS):
        return kind
    extra = module.extra_repr()
    return f"{kind}({extra})" if extra else kind


def _num(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


def _num_statistics(module: nn.Module) -> int:
    """Values of its buffers; a counter of batches, a whole number, is no statistic."""
    return sum(buffer.numel() for buffer in module.buffers(recurse=False) if buffer.is_floating_point())


def arguments(model: ModuleConfig) -> dict[str, Any]:
    """What its constructor is given of a person's own, with the defaults of what she leaves out."""
    taken = signatures.parameters(imports.named("model.target", model.target))
    defaults = {
        name: parameter.default
        for name, parameter in taken.items()
        if parameter.default is not inspect.Parameter.empty and name not in FROM_DATA
    }
    return {**defaults, **model.kwargs}


def _call(model: ModuleConfig, num_classes: int, input_shape: Shape) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What to call, and with what.

    Raises:
        ConfigError: the target cannot be imported, or its signature has not these arguments.
    """
    if not model.target:
        raise ConfigError([Problem("model.target", "''", "a torch.nn.Module of yours", remedy=_EXAMPLE)])
    make = imports.named("model.target", model.target)
    if not callable(make):
        raise ConfigError([_no_module(model, make)])
    taken = signatures.parameters(make)
    of_data = {"num_classes": num_classes, "input_shape": tuple(input_shape)}
    wrong = list(signatures.problems("model.kwargs", model.target, make, model.kwargs, ours=FROM_DATA))
    if wrong:
        raise ConfigError(wrong)
    return make, {**{name: value for name, value in of_data.items() if name in taken}, **model.kwargs}


def _no_module(model: ModuleConfig, found: object) -> Problem:
    allowed = f"a class of torch.nn.Module, or a function that returns one; here is {type(found).__name__}"
    return Problem("model.target", model.target, allowed, remedy=_EXAMPLE)


def _wrong_outputs(call: _Call, outputs: object) -> Problem:
    found = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
    allowed = f"outputs ({_SEEN}, {call.num_classes}) for {_SEEN} images: one number for each class; here {found}"
    return Problem("model.target", call.target, allowed, remedy=_remedy(call))


def _remedy(call: _Call) -> str:
    """The parameter that would tell a constructor of the data, if it lacks it."""
    missing = [name for name in FROM_DATA if name not in call.arguments]
    return f"a parameter {' or '.join(missing)}: it is given what the data have" if missing else "another network"


def _told(error: BaseException) -> str:
    """An error in one line, with the place in the user's file."""
    text = " ".join(str(error).split())[:160]
    frames, not_own = traceback.extract_tb(error.__traceback__), (Path(torch.__file__).parent, sources.PACKAGE)
    own = [frame for frame in frames if not any(map(Path(frame.filename).is_relative_to, not_own))]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text}{place}"
