"""How a study was done, in words: its design, seeds and steps, the settings of its baseline, and what ran it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cnn_ablation.common.errors import ConfigError
from cnn_ablation.common.words import counted, listed
from cnn_ablation.config import field_of, role_of
from cnn_ablation.report.findings import Findings
from cnn_ablation.report.origin import hardware
from cnn_ablation.report.page import numbers
from cnn_ablation.report.page.names import Names
from cnn_ablation.runs.records import Run
from cnn_ablation.runs.task import task_of_settings
from cnn_ablation.study.designs import label_of
from cnn_ablation.study.plans import Plan

_DESIGNS = {
    "one_at_a_time": "One at a time: each level of each knob alone, against the baseline.",
    "greedy": "Greedy: knob after knob, each on top of what was kept of the ones before.",
    "leave_one_out": "Leave one out: the full configuration, and the same with one knob back at the baseline.",
    "grid": "Grid: every combination of all levels.",
}
_MOST_SEEDS_LISTED = 12
_MOST_ENVIRONMENTS = 5

Fact = tuple[str, str]
"""A term and what it is."""


def facts(found: Findings, plan: Plan) -> Iterator[Fact]:
    """Design, arms and seeds."""
    yield "Design", _DESIGNS.get(plan.design, plan.design) if plan.knobs else "A single configuration."
    yield "Arms", str(len(plan.arms))
    yield "Seeds", _seeds(plan)
    finished = counted(len(found.runs), "run")
    yield "Runs", finished if len(found.runs) == plan.num_runs else f"{finished} of {plan.num_runs} planned"
    if found.paper:
        yield "Paper", found.paper.paper.source


def _seeds(plan: Plan) -> str:
    seeds = plan.seeds
    listed_seeds = ", ".join(map(str, seeds)) if len(seeds) <= _MOST_SEEDS_LISTED else f"{seeds[0]} to {seeds[-1]}"
    if plan.auto:
        return f"{listed_seeds}; {plan.auto.words()}"
    return f"{len(seeds)} of every arm ({listed_seeds})"


def knobs(plan: Plan, names: Names) -> list[tuple[str, str, str]]:
    """Of every knob its words, its key and its levels."""
    return [(names.knob(knob), knob, ", ".join(levels)) for knob, levels in plan.knobs.items()]


def steps(plan: Plan, arms: pd.DataFrame, names: Names) -> Iterator[str]:
    """Of a greedy study: what was tried on top of what, and what was kept."""
    remarks = dict(zip(arms["arm"], arms["notes"].astype(str), strict=True))
    for number, step in enumerate(plan.path, start=1):
        tried = listed([_with_difference(name, number, remarks, names) for name in step.candidates]) or "nothing new"
        before = names.arm(step.before)
        kept = {None: "not decided yet", step.before: f"{before} stays"}.get(step.kept) or (
            f"{names.arm(str(step.kept))} is kept"
        )
        yield f"{names.knob(step.knob)}, on top of {before}: tried {tried}; {kept}."


def _with_difference(arm: str, number: int, remarks: Mapping[str, str], names: Names) -> str:
    """`Batch norm (+0.42 pp on validation)`, from the note that the table has of it."""
    found = re.search(rf"step {number}: (?:kept|dropped), ([^;]*)", remarks.get(arm, ""))
    return f"{names.arm(arm)} ({numbers.with_minus(found[1])})" if found else names.arm(arm)


def settings(plan: Plan) -> list[Fact]:
    """Of the baseline, all that can change a result; where files are, and how a study is carried out, cannot."""
    return [(key, label_of(value)) for key, value in plan.baseline.items() if _can_matter(plan.baseline, key)]


def _can_matter(baseline: Mapping[str, Any], key: str) -> bool:
    try:
        item = field_of(task_of_settings(baseline).CONFIG, key, baseline)
    except ConfigError:
        return True
    return item is None or role_of(item).identifies


@dataclass(frozen=True)
class Environment:
    """What some runs were made with."""

    runs: str
    """How many; empty where all were made with the same."""
    facts: list[Fact]


def environments(runs: Sequence[Run]) -> list[Environment]:
    """The most frequent first."""
    found = Counter(tuple(_environment(run.provenance)) for run in runs if run.provenance)
    if len(found) == 1:
        return [Environment("", list(next(iter(found))))]
    return [Environment(counted(count, "run"), list(each)) for each, count in found.most_common(_MOST_ENVIRONMENTS)]


def _environment(provenance: Mapping[str, Any]) -> Iterator[Fact]:
    """What a record knows; neither the name of the machine nor a place on its disk."""
    if "hardware" in provenance:
        yield "Hardware", hardware(provenance)
    if cores := provenance.get("cpu_count"):
        yield "Cores of the machine", str(cores)
    if platform := provenance.get("platform"):
        yield "System", str(platform)
    versions = provenance.get("versions", {})
    if versions:
        yield "Versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    if commit := provenance.get("git_commit"):
        yield "Commit", f"{commit}{' with changes' if provenance.get('git_dirty') else ''}"
