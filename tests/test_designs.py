from __future__ import annotations

import pytest

from cnn_ablation.designs import DESIGNS, Arm, Knob, Level, arm_by_arm, knob, seed_by_seed, without_duplicates

ACTIVATION = knob("model.activation", ["relu", "leaky"])
BATCH_SIZE = knob("train.batch_size", ["64", "256"])
ZIPPED = Knob("width", (Level("wide", (("model.filters", "[64,128,256]"), ("model.hidden", "[512,128]"))),))


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
        ("one_at_a_time", [ZIPPED], ["baseline", "width=wide"]),
    ],
)  # fmt: skip
def test_expansion(design: str, knobs: list[Knob], expected: list[str]) -> None:
    assert [arm.name for arm in DESIGNS[design](knobs)] == expected


def test_an_arm_carries_the_settings_of_its_levels() -> None:
    arm = DESIGNS["grid"]([ACTIVATION, ZIPPED])[2]
    assert arm == Arm(
        name="model.activation=leaky,width=wide",
        knob="model.activation,width",
        level="leaky,wide",
        settings=(("model.activation", "leaky"), ("model.filters", "[64,128,256]"), ("model.hidden", "[512,128]")),
    )


def test_levels_are_written_as_typed() -> None:
    assert [level.label for level in knob("model.batch_norm", ["False", "True", "'a b'"]).levels] == [
        "false",
        "true",
        "a b",
    ]


def test_equal_configurations_are_one_arm_and_the_first_name_stays() -> None:
    arms = DESIGNS["one_at_a_time"]([ACTIVATION])
    composed = {"baseline": "relu", "model.activation=relu": "relu", "model.activation=leaky": "leaky"}
    unique = without_duplicates(arms, lambda arm: composed[arm.name])
    assert [arm.name for arm in unique] == ["baseline", "model.activation=leaky"]


def test_order_of_jobs() -> None:
    arms = [Arm("baseline"), Arm("a")]
    assert [(job.arm.name, job.seeds) for job in seed_by_seed(arms, [7, 8])] == [
        ("baseline", (7,)),
        ("a", (7,)),
        ("baseline", (8,)),
        ("a", (8,)),
    ]
    assert [(job.arm.name, job.seeds) for job in arm_by_arm(arms, [7, 8])] == [("baseline", (7, 8)), ("a", (7, 8))]
