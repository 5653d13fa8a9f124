"""Code that a person names: her own modules, and what they define. Imported because she asks for it, never otherwise.

What a file of a study, a record or a table names is not to come here: reading what somebody sent runs nothing of it.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from cnn_ablation.common import lanes
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.common.words import nearest

_EXAMPLE = "my_file.name: a Python module (my_file.py in the working directory, or installed) and what it defines"


def named(key: str, target: str) -> Any:
    """What `module.name`, or `package.module.name`, stands for; the module is imported.

    Args:
        key: the config key that names it, for messages.
        target: with the working directory searched first, as Python does for a script in it.

    Raises:
        ConfigError: there is no such module or no such name in it, or the module cannot be imported.
    """
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError([Problem(key, target, _EXAMPLE, remedy=_spelt_as_python(key, target))])
    for cut in range(len(parts) - 1, 0, -1):
        found = _imported(key, target, ".".join(parts[:cut]))
        if found is not None:
            return _attribute(key, target, found, parts[cut:])
    raise ConfigError([_no_module(key, target)])


def module(key: str, name: str) -> ModuleType:
    """A module by its name, imported.

    Raises:
        ConfigError: there is none, or it cannot be imported.
    """
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        allowed = "modules: my_parts for my_parts.py in the working directory, or what is installed"
        raise ConfigError([Problem(key, name, allowed, remedy=_spelt_as_python(key, name))])
    found = _imported(key, name, name)
    if found is None:
        raise ConfigError([_no_module(key, name)])
    return found


def _imported(key: str, target: str, name: str) -> ModuleType | None:
    """A module; None where there is none of that name.

    Raises:
        ConfigError: it is there, and fails when it is imported.
    """
    _search_working_directory(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise ConfigError([_fails(key, target, name, error)]) from error
    except ConfigError:  # of a decorator of ours: a message already
        raise
    except (Exception, SystemExit) as error:  # a person's file may do anything when it is imported
        raise ConfigError([_fails(key, target, name, error)]) from error


def _search_working_directory(module: str) -> None:
    """Puts the working directory first where it is not looked into, as under a console script or in a worker.

    Args:
        module: that is to be imported; Python looks for no file of one that is loaded.
    """
    here = os.getcwd()
    with lanes.turn:  # Python's own caches fail where two threads empty them
        if here not in sys.path and "" not in sys.path:
            sys.path.insert(0, here)
        if module not in sys.modules:
            importlib.invalidate_caches()  # its file may have been written a moment ago


def _attribute(key: str, target: str, found: Any, names: list[str]) -> Any:
    where = found.__name__
    for number, name in enumerate(names):
        if not hasattr(found, name):
            raise ConfigError([_no_attribute(key, target, found, f"{where}.{'.'.join(names[:number])}".rstrip("."))])
        found = getattr(found, name)
    return found


def _no_attribute(key: str, target: str, owner: Any, where: str) -> Problem:
    missing = target.removeprefix(f"{where}.").partition(".")[0]
    defined = sorted(name for name in vars(owner) if not name.startswith("_")) if hasattr(owner, "__dict__") else []
    own = [name for name in defined if getattr(getattr(owner, name), "__module__", None) == where]
    close = nearest(missing, own) or nearest(missing, defined)
    names = ", ".join((own or defined)[:8]) or "nothing"
    return Problem(
        key,
        target,
        f"what {where} defines: {names}{', ...' if len(own or defined) > 8 else ''}",
        nearest=f"{key}={where}.{close}" if close else None,
        remedy=None if close else f"define {missing} in {getattr(owner, '__file__', None) or where}",
    )


def _no_module(key: str, target: str) -> Problem:
    first, _, rest = target.partition(".")
    close = nearest(first, [name for name in _modules_here() if name != first])
    return Problem(
        key,
        target,
        f"modules in the working directory, {os.getcwd()}, or installed ones; there is no module {first}"
        if first not in _modules_here()
        else f"modules that are there; {first} is, but not what is asked for in it",
        nearest=f"{key}={'.'.join(filter(None, (close, rest)))}" if close else None,
        remedy=None if close else f"start where {first}.py lies, or install it",
    )


def _modules_here() -> list[str]:
    files = (path.stem for path in Path.cwd().glob("*.py"))
    packages = (path.parent.name for path in Path.cwd().glob("*/__init__.py"))
    return sorted({*files, *packages})


def _fails(key: str, target: str, name: str, error: BaseException) -> Problem:
    """What a module raised while it was imported, with the place in it."""
    text = " ".join(str(error).split())[:200]
    return Problem(
        key,
        target,
        f"a module that can be imported; {name} raised {type(error).__name__}: {text}{_place(error)}",
        remedy='work that is for `python FILE` alone goes below: if __name__ == "__main__":'
        if isinstance(error, SystemExit)
        else f'python -c "import {name}" shows the whole error',
    )


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return ""  # its text says where
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _spelt_as_python(key: str, target: object) -> str:
    """A remedy for what is spelt as a file: `my_nets.py`, `nets/mine.py:Net`."""
    text = str(target).replace(".py", "").replace("/", ".").replace(":", ".").strip(".")
    is_name = all(part.isidentifier() for part in text.split("."))
    return f"{key}={text}" if is_name and text != str(target) else "names as Python spells them, with dots"
