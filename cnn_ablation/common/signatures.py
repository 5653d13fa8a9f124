"""What a function or class of the user's own can be called with, compared with what she gives it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cnn_ablation.common.errors import Problem
from cnn_ablation.common.words import nearest

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def parameters(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """By name; none where Python cannot tell."""
    try:
        return dict(inspect.signature(make).parameters)
    except (TypeError, ValueError):
        return {}


def problems(
    key: str, target: str, make: Callable[..., Any], given: Mapping[str, Any], *, ours: Sequence[str] = ()
) -> Iterator[Problem]:
    """Arguments that there are not, and those that are missing.

    Args:
        key: under which they are set, `model.kwargs`.
        target: the name of what is called, for messages.
        make: what is called.
        given: by name.
        ours: parameters that are given by the package.
    """
    taken = parameters(make)
    named = [name for name, parameter in taken.items() if parameter.kind in _BY_NAME and name not in ours]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values())
    for name, value in given.items():
        if name in ours:
            yield Problem(f"{key}.{name}", value, "no value: it is that of the data", remedy="leave it out")
        elif name not in named and not takes_any:
            yield _unknown(key, target, name, value, named)
    for name in named:
        if taken[name].default is inspect.Parameter.empty and name not in given:
            allowed = f"a value: {target} has no default for it"
            yield Problem(f"{key}.{name}", "", allowed, remedy=f"{key}.{name}=VALUE")


def _unknown(key: str, target: str, name: str, value: Any, named: list[str]) -> Problem:
    close = nearest(name, named)
    return Problem(
        f"{key}.{name}",
        value,
        f"parameters of {target}: {', '.join(named) or 'none'}",
        nearest=f"{key}.{close}={value}" if close else None,
        remedy=None if close else "leave it out",
    )
