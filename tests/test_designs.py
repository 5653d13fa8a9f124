from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from cnn_ablation.study.designs import (
    DESIGNS,
    Arm,
    Knob,
    comparisons,
    greedy_steps,
    hidden_settings,
    keys_moved_twice,
    knob,
    labels_used_twice,
    ordered,
    seed_by_seed,
    zipped_knob,
)

ACTIVATION = knob("model.activation", ["relu", "leaky"])
BATCH_SIZE = knob("train.batch_size", ["64", "256"])
ZIPPED = zipped_knob("width", [{"model.filters": "[64,128,256]", "model.hidden": "[512,128]"}])
WIDE = "width={model.filters:[64,128,256],model.hidden:[512,128]}"


def unscored(arm: Arm) -> None:
    return None


@pytest.mark.parametrize(
    ("design", "knobs", "expected"),
    [
        ("one_at_a_time", [], ["baseline"]),
        ("one_at_a_time", [ACTIVATION], ["baseline", "model.activation=relu", "model.activation=leaky"]),
        (
            "one_at_a_time",
            [ACTIVATION, BATCH_SIZE],
            [
                "baseline",
                "model.activation=relu", "model.activation=leaky", "train.batch_size=64", "train.batch_size=256",
            ],
        ),
        ("grid", [], ["baseline"]),
        (
            "grid",
            [ACTIVATION, BATCH_SIZE],
            [
                "baseline",
                "model.activation=relu,train.batch_size=64",
                "model.activation=relu,train.batch_size=256",
                "model.activation=leaky,train.batch_size=64",
                "model.activation=leaky,train.batch_size=256",
            ],
        ),
        ("one_at_a_time", [ZIPPED], ["baseline", WIDE]),
        ("leave_one_out", [], ["baseline"]),
        (
            "leave_one_out",
            [ACTIVATION, BATCH_SIZE],
            ["full", "full without model.activation", "full without train.batch_size"],
        ),
        ("greedy", [], ["baseline"]),
        ("greedy", [ACTIVATION, BATCH_SIZE], ["baseline", "model.activation=relu", "model.activation=leaky"]),
    ],
)  # fmt: skip
def test_expansion(design: str, knobs: list[Knob], expected: list[str]) -> None:
    assert [arm.name for arm in DESIGNS[design](knobs, unscored)] == expected


def test_an_arm_carries_the_settings_of_its_levels() -> None:
    arm = DESIGNS["grid"]([ACTIVATION, ZIPPED], unscored)[2]
    assert (arm.name, arm.knob) == (f"model.activation=leaky,{WIDE}", "model.activation,width")
    assert arm.settings == (
        ("model.activation", "leaky"), ("model.filters", "[64,128,256]"), ("model.hidden", "[512,128]"),
    )  # fmt: skip


def test_leave_one_out_puts_one_knob_back_at_a_time() -> None:
    full, without_activation, without_width = DESIGNS["leave_one_out"]([ACTIVATION, ZIPPED], unscored)
    activation = (("model.activation", "leaky"),)
    width = (("model.filters", "[64,128,256]"), ("model.hidden", "[512,128]"))
    assert full.settings == activation + width
    assert (without_activation.settings, without_activation.knob) == (width, "model.activation")
    assert (without_width.settings, without_width.knob, without_width.level) == (activation, "width", "baseline")


SCORES = {
    "baseline": 0.90,
    "a=1": 0.92,
    "a=2": 0.91,
    "a=1,b=1": 0.92,  # no better than what is there: dropped
    "a=1,c=1": 0.80,
    "a=1,c=2": 0.95,
}
A, B, C = knob("a", [1, 2]), knob("b", [1]), knob("c", [1, 2])


def test_greedy_keeps_the_best_level_and_tries_the_next_knob_on_top() -> None:
    def score(arm: Arm) -> float:
        return SCORES[arm.name]

    steps = greedy_steps([A, B, C], score)
    assert [(step.before.name, step.kept.name if step.kept else None) for step in steps] == [
        ("baseline", "a=1"),
        ("a=1", "a=1"),
        ("a=1", "a=1,c=2"),
    ]
    assert [arm.name for arm in DESIGNS["greedy"]([A, B, C], score)] == list(SCORES)
    assert steps[-1].candidates[1].settings == (("a", 1), ("c", 2))


def test_greedy_waits_for_the_scores_of_a_step() -> None:
    known = {"baseline": 0.90, "a=1": 0.92}
    (step,) = greedy_steps([A, B, C], lambda arm: known.get(arm.name))
    assert step.kept is None
    known["a=2"] = float("-inf")  # a failed arm is never kept
    assert [step.kept for step in greedy_steps([A, B], lambda arm: known.get(arm.name))] == [
        Arm("a=1", "a", "1", (("a", 1),)),
        None,
    ]


def test_keys_that_two_knobs_move() -> None:
    scaled = zipped_knob("scaled", [{"train.batch_size": 256, "optimizer.lr": 4e-3}])
    assert keys_moved_twice([ACTIVATION, BATCH_SIZE]) == []
    assert keys_moved_twice([BATCH_SIZE, scaled]) == ["train.batch_size"]


def test_levels_are_written_as_typed() -> None:
    given = ["False", True, "'a b'", [24, 48], 0.001, [True, False], "[True,False]", None]
    labels = [level.label for level in knob("k", given).levels]
    assert labels == ["false", "true", "a b", "[24,48]", "0.001", "[true,false]", "[true,false]", "null"]


THREE = [Arm("baseline"), Arm("a"), Arm("b")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["baseline a b", "a b baseline", "b baseline a", "baseline a b"]),
        ({"rounds_before": 2}, ["b baseline a", "baseline a b", "a b baseline", "b baseline a"]),
        ({"back_and_forth": True}, ["baseline a b", "b a baseline", "baseline a b", "b a baseline"]),
        ({"back_and_forth": True, "rounds_before": 3}, ["b a baseline", "baseline a b", "b a baseline",
                                                        "baseline a b"]),
    ],
    ids=["in turn", "in turn, going on", "back and forth", "back and forth, going on"],
)  # fmt: skip
def test_the_order_of_a_seed(options: dict[str, Any], expected: list[str]) -> None:
    jobs = seed_by_seed(THREE, [7, 8, 9, 10], **options)
    assert [job.seeds for job in jobs] == [(seed,) for seed in (7, 8, 9, 10) for _ in THREE]
    assert [" ".join(job.arm.name for job in jobs[first : first + 3]) for first in range(0, 12, 3)] == expected


def test_each_arm_has_each_place_equally_often() -> None:
    jobs = seed_by_seed(THREE, range(6))
    places = Counter((job.arm.name, number % 3) for number, job in enumerate(jobs))
    assert places == {(arm.name, place): 2 for arm in THREE for place in range(3)}


def test_without_arms_there_is_no_job() -> None:
    assert seed_by_seed([], [0, 1]) == ordered([], [0, 1], lambda arm: True) == []


@pytest.mark.parametrize(
    ("in_one_go", "expected"),
    [
        ("", "baseline7 a7 b7 a8 b8 baseline8"),
        ("baseline a b", "baseline78 a78 b78"),
        ("baseline b", "baseline78 b78 a7 a8"),
        ("a", "baseline7 b7 b8 baseline8 a78"),
    ],
    ids=["none", "all", "the baseline and another", "another"],
)
def test_arms_whose_seeds_go_together_are_one_job_each(in_one_go: str, expected: str) -> None:
    jobs = ordered(THREE, [7, 8], lambda arm: arm.name in in_one_go.split())
    assert " ".join(job.arm.name + "".join(map(str, job.seeds)) for job in jobs) == expected


def told(found: Iterable[tuple[Arm, Arm]]) -> list[tuple[str, str]]:
    return [(without.name, having.name) for without, having in found]


@pytest.mark.parametrize(
    ("design", "knob", "expected"),
    [
        ("one_at_a_time", C, [("baseline", "c=1"), ("baseline", "c=2")]),
        ("greedy", A, [("baseline", "a=1"), ("baseline", "a=2")]),
        (
            "greedy", B,
            [("baseline", "b=1"), ("a=1", "a=1,b=1"), ("a=2", "a=2,b=1")],
        ),
        ("leave_one_out", B, [("full without b", "full")]),
        (
            "grid", B,
            [(f"a={a},c={c}", f"a={a},b=1,c={c}") for a in (1, 2) for c in (1, 2)],
        ),
    ],
    ids=["one_at_a_time", "greedy, first", "greedy, second", "leave_one_out", "grid"],
)  # fmt: skip
def test_what_a_design_may_compare_of_a_knob(design: str, knob: Knob, expected: list[tuple[str, str]]) -> None:
    assert told(comparisons(design, [A, B, C], knob)) == expected


def test_greedy_may_keep_any_of_the_knobs_before() -> None:
    found = told(comparisons("greedy", [A, B, C], C))
    kept = ["baseline", "a=1", "a=2", "b=1", "a=1,b=1", "a=2,b=1"]
    prefixes = ["" if arm == "baseline" else f"{arm}," for arm in kept]
    assert found == [(arm, f"{prefix}c={c}") for arm, prefix in zip(kept, prefixes, strict=True) for c in (1, 2)]


def test_labels_that_stand_for_different_settings() -> None:
    twice = zipped_knob("z", [{"label": "x", "a": 1}, {"label": "x", "a": 2}, {"label": "y", "a": 1}])
    assert labels_used_twice(twice) == ["x"]
    assert labels_used_twice(knob("a", [1, 1, 2])) == []
    assert hidden_settings([twice, ACTIVATION, ZIPPED]) == {"z=x": {"a": 2}, "z=y": {"a": 1}}
