"""What follows a run's seed: the sources of chance that `vary` names, and the seed that each one's streams draw from.

No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnn_ablation.common.words import listed
from cnn_ablation.config import default_of, fields_of
from cnn_ablation.runs.task import Chance
from cnn_ablation.tasks.image_classification.config import (
    CONV_NETWORKS,
    MLP_NETWORKS,
    SOURCES_OF_CHANCE,
    Config,
    DigitsConfig,
)
from cnn_ablation.tasks.image_classification.data.changes import augments

STILL = 0
"""The seed of what does not follow the run's: a constant, because a study's seeds are cut into jobs of their own."""


@dataclass(frozen=True)
class StreamSeeds:
    """The seed of every source's streams in one run."""

    init: int
    order: int
    """Of the order of images, and of their augmentation and mixtures."""
    dropout: int
    """And whatever else a network draws while it is trained."""
    split: int | None
    """None for the split that `data.split_seed` draws."""


def stream_seeds(vary: Sequence[str], seed: int) -> StreamSeeds:
    """What a run of `seed` draws from, where `vary` says what follows it."""
    init, order, dropout = (seed if name in vary else STILL for name in ("init", "order", "dropout"))
    return StreamSeeds(init, order, dropout, seed if "split" in vary else None)


def redraws_tests(config: Config) -> bool:
    """Whether each seed has test images of its own."""
    return "split" in config.vary and not config.data.has_test_set


def acting(config: Config, *, may_drop: bool) -> list[str]:
    """The sources that follow the seed and change something, in the order of `SOURCES_OF_CHANCE`.

    Args:
        config: of a run.
        may_drop: whether the network has dropout, or may have.
    """
    idle = {"order": not (config.train.shuffle or augments(config.train)), "dropout": not may_drop}
    return [name for name in in_order(config.vary) if not idle.get(name)]


def in_order(vary: Sequence[str]) -> list[str]:
    """The one form of what names the same sources."""
    return [name for name in SOURCES_OF_CHANCE if name in vary]


def chance(runs: Sequence[Mapping[str, Any]]) -> Chance:
    """What the seeds of runs differ in, in the words of a caption.

    Args:
        runs: their settings by dotted key, as records hold them; older ones lack some.
    """
    varied = {tuple(in_order(settings.get("vary", _DEFAULT))) for settings in runs}
    if len(varied) > 1:
        return Chance("differ in what vary names, arm by arm")
    own_tests = "split" in (vary := varied.pop()) and any(map(_makes_tests, runs))
    words = [word for name in vary for word in _words(name, runs, own_tests=own_tests)]
    if not words:
        return Chance("all draw the same")
    others = "" if "split" in vary else ", not in the split of data"
    return Chance(f"differ in {listed(words)}{others}", same_tests=not own_tests)


_DEFAULT = tuple(default_of(fields_of(Config)["vary"]))


def _words(name: str, runs: Sequence[Mapping[str, Any]], *, own_tests: bool) -> list[str]:
    """What a source is called; nothing where no run has it."""
    if name == "order":
        changed = any(settings.get(f"train.{key}") for settings in runs for key in _CHANGES)
        shuffled = any(settings.get("train.shuffle", True) for settings in runs)
        return ["order of images"] * shuffled + ["augmentation"] * changed
    if name == "dropout":
        return ["dropout"] * any(map(_may_drop, runs))
    parts = "training, validation and test images" if own_tests else "training and validation images"
    return {"init": ["initial weights"], "split": [f"the split into {parts}"]}[name]


_CHANGES = ("max_translation", "horizontal_flip", "color_jitter", "cutout", "mixup")


def _may_drop(settings: Mapping[str, Any]) -> bool:
    """Whether a network has dropout; a module, or a network from outside the package, may have."""
    probabilities = [settings.get(f"model.{key}", 0) for key in ("dropout", "conv_dropout")]
    return any(probabilities) or settings.get("model.name") not in (*CONV_NETWORKS, *MLP_NETWORKS)


def _makes_tests(settings: Mapping[str, Any]) -> bool:
    return settings.get("data.name") == DigitsConfig().name
