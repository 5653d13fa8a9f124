"""YAML as OmegaConf writes it, of plain values, with what many files share written once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from omegaconf import OmegaConf

# Text that needs no quotes wherever it stands, and is never folded: no spaces, and a sign that no word or number has.
_BARE = re.compile(r"(?=.*[=/])[A-Za-z/+][\w./=,'+@^~\[\]{}-]*", re.ASCII)
_DIGITS = re.compile(r"\d+(\.\d+)?", re.ASCII)
_Scalar = str | int | float | bool | None


class SharedParts:
    """Parts of what is written again and again, whose text is made once.

    Args:
        whole: dictionaries, lists and scalars, which nobody changes any more. What is written may hold dictionaries and
            lists of it; they are told by being the same, not by being equal.
    """

    def __init__(self, *whole: Any):
        self._parts = {id(part): part for each in whole for part in _parts(each)}
        self._texts = dict[tuple[int, int], str]()

    def text(self, part: Any, depth: int) -> str | None:
        """The lines of a part at a depth; None for what is none."""
        if id(part) not in self._parts:
            return None
        found = self._texts.get((id(part), depth))
        if found is None:
            found = self._texts[id(part), depth] = "".join(_block(part, depth, NOTHING_SHARED))
        return found


def _parts(whole: Any) -> Iterator[Any]:
    """Dictionaries and lists with something in them, the outermost too."""
    if isinstance(whole, dict | list) and whole:
        yield whole
        for each in whole.values() if isinstance(whole, dict) else whole:
            yield from _parts(each)


NOTHING_SHARED = SharedParts()


def as_yaml(content: dict[str, Any] | list[Any], shared: SharedParts = NOTHING_SHARED) -> str:
    """What `OmegaConf.to_yaml` says of the same, in a tenth of the time once its words are known.

    Args:
        content: dictionaries, lists and scalars, with keys of text.
        shared: parts whose text may be known already.
    """
    if not content:
        return OmegaConf.to_yaml(content)
    return "".join(_block(content, 0, shared))


def _block(content: Any, depth: int, shared: SharedParts) -> Iterator[str]:
    if isinstance(content, list):
        for each in content:
            yield _item(each, depth)
        return
    for key, value in content.items():
        if isinstance(value, dict | list) and value:
            below = depth + (not isinstance(value, list))
            yield f"{_named(depth, key)}\n"
            text = shared.text(value, below)
            yield from _block(value, below, shared) if text is None else (text,)
        else:
            yield _entry(depth, key, value)


def _entry(depth: int, key: str, value: Any) -> str:
    """A line of a dictionary."""
    return _line(depth, key, value) if type(value) in _KEPT else _new_line(depth, key, value)


def _new_line(depth: int, key: str, value: Any) -> str:
    text = _plainly(value)
    return (
        _scalar(depth, key, value) if text is None else _scalar(depth, key, None).removesuffix("null\n") + f"{text}\n"
    )


def _item(value: Any, depth: int) -> str:
    """An item of a list; lines of what lies in it begin two letters further on."""
    return _line_of_list(value, depth) if type(value) in _KEPT else _new_item(value, depth)


def _new_item(value: Any, depth: int) -> str:
    indent, text = "  " * depth, _plainly(value)
    if text is not None:
        return f"{indent}- {text}\n"
    if isinstance(value, dict | list):
        return f"{indent}- " + "".join(_block(value, depth + 1, NOTHING_SHARED)).removeprefix(f"{indent}  ")
    return _scalar(depth, None, value)


# Not floats: -0.0 is another text than 0.0, and the same key.
_KEPT = (str, int, bool, type(None))
_line = lru_cache(maxsize=8192, typed=True)(_new_line)
_line_of_list = lru_cache(maxsize=8192, typed=True)(_new_item)


def _plainly(value: Any) -> str | None:
    """A value that is written alike wherever it stands; None for any other."""
    if isinstance(value, dict | list):
        return None if value else str(value)
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else f"'{value}'" if _DIGITS.fullmatch(value) else None
    return str(value) if type(value) in (int, float) and _DIGITS.fullmatch(str(value)) else None


def _named(depth: int, key: str) -> str:
    """What stands before a value."""
    return _scalar(depth, key, None).removesuffix(" null\n")


@lru_cache(maxsize=8192, typed=True)
def _scalar(depth: int, key: str | None, value: _Scalar) -> str:
    """An entry or an item where it stands, which decides where long text is folded."""
    content: Any = [value] if key is None else {key: value}
    above = depth + (key is None)  # a list begins as far to the left as the key that it stands under
    for _ in range(above):
        content = {"above": content}
    return OmegaConf.to_yaml(content).split("\n", above)[above]
