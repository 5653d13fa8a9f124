"""Knobs and arms in words: `model.batch_norm=true` is batch norm, `optimizer.lr=1e-4` a learning rate of 1e-4."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from cnn_ablation.study.designs import BASELINE, FULL
from cnn_ablation.study.metric import Metric

_SPELLED_OUT = {"lr": "learning rate"}
_BETWEEN_SETTINGS = r",(?=[\w.]+=)"
_BETWEEN_ZIPPED = r",(?=[\w.]+:)"
_ZIPPED = re.compile(r"\{(.+:.+)\}")


class Names:
    """Short words for the arms of a table; those that would not be unique keep their names.

    Args:
        arms: the table, or any frame with its columns `arm`, `knob` and `level`.
    """

    def __init__(self, arms: pd.DataFrame):
        rows = list(zip(arms["arm"], arms["knob"], arms["level"], strict=True))
        knobs = {part for _, knob, _ in rows for part in knobs_of(str(knob))}
        knobs |= {key for arm, _, _ in rows for key, _ in _settings(str(arm))}
        knobs |= {
            key for _, _, level in rows if (found := _ZIPPED.fullmatch(str(level))) for key, _ in _zipped(found[1])
        }
        self._ambiguous = {name for name, count in Counter(map(_last_part, sorted(knobs))).items() if count > 1}
        words = {str(arm): self._in_words(str(arm), str(knob), str(level)) for arm, knob, level in rows}
        counts = Counter(words.values())
        self._arms = {arm: name if counts[name] == 1 else arm for arm, name in words.items()}

    def arm(self, name: str) -> str:
        """`Batch norm`, `Learning rate 0.0001`, `Filters [4,8,16], batch norm`."""
        return self._arms.get(name, name)

    def knob(self, name: str) -> str:
        """`batch norm`; of several that move together all of them."""
        return " × ".join(self._key(key) for key in knobs_of(name)) or name

    def _key(self, key: str) -> str:
        last = _last_part(key)
        if last in self._ambiguous:
            return " ".join(key.replace("_", " ").split("."))
        return _SPELLED_OUT.get(last, last.replace("_", " ")) or key

    def _in_words(self, arm: str, knob: str, level: str) -> str:
        if arm == BASELINE:
            return "Baseline"
        if arm == FULL:
            return "Full configuration"
        if arm == f"{FULL} without {knob}":
            return f"Full without {self._key(knob)}"
        if arm == f"{knob}={level}":  # a level may hold whatever separates settings
            return capitalised(self._setting(knob, level))
        settings = _settings(arm)
        return capitalised(", ".join(self._setting(*setting) for setting in settings)) if settings else arm

    def _setting(self, key: str, level: str) -> str:
        words = self._key(key)
        if level == "true":
            return words
        if level == "false":
            return f"{words} off"
        if found := _ZIPPED.fullmatch(level):
            return f"{words} ({', '.join(self._setting(*each) for each in _zipped(found[1]))})"
        return f"{words} {level}"


def knobs_of(knob: str) -> list[str]:
    """The knobs that a grid names together."""
    return [part for part in knob.split(",") if part]


def _settings(arm: str) -> list[tuple[str, str]]:
    """`a=1,b=2` -> (a, 1), (b, 2); nothing for a name of another form."""
    parts = [part.partition("=") for part in re.split(_BETWEEN_SETTINGS, arm)]
    return [(key, level) for key, _, level in parts] if all(separator for _, separator, _ in parts) else []


def _zipped(settings: str) -> list[tuple[str, str]]:
    """`a.b:1,c:[2,3]` -> (a.b, 1), (c, [2,3])."""
    parts = [part.partition(":") for part in re.split(_BETWEEN_ZIPPED, settings)]
    return [(key, level) for key, _, level in parts]


def _last_part(key: str) -> str:
    return key.rpartition(".")[2] or key


def metric_title(metric: Metric) -> str:
    """`Test accuracy`; another column keeps its name."""
    return capitalised(metric.words) if metric.is_accuracy else metric.words


def capitalised(words: str) -> str:
    """With a capital letter at the start."""
    return words[:1].upper() + words[1:]


def knob_names(arms: pd.DataFrame) -> list[str]:
    """The single knobs of a table of arms, each once, in its order."""
    found: Iterable[str] = (part for knob in arms["knob"] for part in knobs_of(str(knob)))
    return list(dict.fromkeys(found))
