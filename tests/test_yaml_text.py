"""Our YAML is OmegaConf's, letter for letter."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from cnn_ablation.app.yaml_text import SharedParts, as_yaml

LONG = "words that are folded where a line is full, " * 6
SCALARS: list[Any] = [
    None, True, False, 0, 1, -3, 10**20, 0.1, 1e-7, 1e20, -0.0, 3.0, "", " ", "a", "yes", "no", "on", "y", "null", "~",
    "true", "1", "1.0", "1e3", "1e-3", "0x10", "1_000", ".5", "a b", "a: b", "a #b", "#a", "- a", "-a", "a/b", "/a",
    "=", "007", "00.10", "1.", "0", "0.0", "12.50", "1.2.3", 12.5, 1234567.25, 1e16, 123456789.0,
    "a=b", "a='b'", "'a'=b", "a=[1,2]", "a={b:1}", "[a]", "{a}", "@a=b", "+a=1", "++a.b=1", "+1=2", "~a/b", "a=b\n",
    "a\nb", "\tx=1", "x=\u00fc", "\u00fc", "a=b:", "a=b: c", "http://x/y", "2024-01-01", "1/2", "12:30:45", "a=*b",
    "*a=b", "&a=b", "!a=b", "%a=b", "?a=b", "a=b?", "a=b!", "a=\"b\"", "a=\\b", "a,b=c", "a=b,", "<<", "a=b c", LONG,
    LONG.replace(" ", "="), "x=" + LONG, "???", "a=~", "e/1", "_/a", "a=`b`", "a|b=c", "a>b=c",
]  # fmt: skip


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_value_wherever_it_stands(value: Any, depth: int) -> None:
    content: Any = {"key": value, "a long name of a key": value, "list": [value, value], "nested": [[value], [[value]]]}
    content |= {
        "of dictionaries": [{"a": value, "b": {"c": value}}, {}, []],
        "empty": {},
        "none": [],
        "1": 2,
        "yes": value,
    }
    for _ in range(depth):
        content = {"above": content, "beside": value}
    assert as_yaml(content) == OmegaConf.to_yaml(content)


@pytest.mark.parametrize("content", [[], {}, ["a", 1, None, {"a": 1}], {"a": {}}, [[]]], ids=str)
def test_whole_files(content: Any) -> None:
    assert as_yaml(content) == OmegaConf.to_yaml(content)


def test_shared_parts_are_written_like_others_wherever_they_stand() -> None:
    part: dict[str, Any] = {"a": 1, "b": {"c": ["two words", -0.0, {"d": None}], "e": {}}, "f": []}
    contents = [{"x": part, "y": seed, "z": {"part": part, "of it": part["b"], "list": [part]}} for seed in (0, 1)]
    shared = SharedParts(part)
    for content in contents:
        assert as_yaml(content, shared) == OmegaConf.to_yaml(content)


def test_an_equal_part_that_is_not_the_same_is_written_anew() -> None:
    part = {"a": 0.5}
    shared = SharedParts({"part": part})
    assert as_yaml({"x": part}, shared) == as_yaml({"x": {"a": 0.5}}, shared) == "x:\n  a: 0.5\n"
    assert as_yaml({"x": {"a": -0.0}}, shared) == "x:\n  a: -0.0\n"


def test_shared_parts_are_formatted_once() -> None:
    class Counted(dict[str, Any]):
        num_reads = 0

        def items(self) -> Any:
            Counted.num_reads += 1
            return super().items()

    part = Counted(a=1)
    shared = SharedParts(part)
    texts = {as_yaml({"x": part, "y": seed}, shared) for seed in range(5)}
    assert (len(texts), Counted.num_reads) == (5, 1)
