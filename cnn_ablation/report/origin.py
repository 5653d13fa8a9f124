"""Where a study's runs come from: hardware and versions, how much of the plan there is, and at what scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_ablation.common.words import counted
from cnn_ablation.runs.records import Run
from cnn_ablation.study.plans import Plan


def made_with(plan: Plan, runs: Sequence[Run]) -> str:
    """What a caption says at its end."""
    unfinished = plan.num_runs - len(runs)
    missing = f"{unfinished} of {plan.num_runs} planned runs have not finished. " if unfinished else ""
    return f"{missing}{_scaled_down(plan.baseline)}{_trained_on(runs)}"


def _scaled_down(baseline: Mapping[str, Any]) -> str:
    """What a study with `train.scale` below 1 has to say of itself."""
    scale, epochs, updates = (baseline.get(f"train.{name}") for name in ("scale", "epochs", "updates"))
    if scale is None or scale == 1:
        return ""
    whole = f"{updates} updates" if updates else f"{epochs} epochs"
    return f"Scaled down to {scale:g} of the {whole} of the baseline, and other arms likewise. "


def _trained_on(runs: Sequence[Run]) -> str:
    """Hardware and versions; all of them, where runs of several machines or versions meet in a table."""
    made = Counter(_hardware_and_versions(run.provenance) for run in runs if run.provenance)
    several = len(made) > 1
    parts = [f"{words} ({counted(count, 'run')})" if several else words for words, count in made.most_common()]
    return f"Trained on {'; on '.join(parts)}." if parts else ""


def _hardware_and_versions(provenance: Mapping[str, Any]) -> str:
    """Those that a record knows; an older one may know fewer."""
    versions = provenance.get("versions", {})
    known = [f"{name} {versions[name]}" for name in ("torch", "cnn_ablation") if name in versions]
    return ", ".join([hardware(provenance), *known])


def hardware(provenance: Mapping[str, Any]) -> str:
    """The processor or GPU, and the threads of a run on it."""
    threads = provenance.get("torch_threads")
    of_threads = f" with {counted(threads, 'thread')}" if threads else ""
    return f"{provenance.get('hardware', 'unknown hardware')}{of_threads}"
