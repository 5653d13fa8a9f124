from __future__ import annotations

import math

import pytest

from cnn_ablation.config import AdamConfig, Bounds, Config, ModelConfig, ShapesConfig, result_settings, value_problems


def config_with(**model: object) -> Config:
    return Config(data=ShapesConfig(), model=ModelConfig(**model), optimizer=AdamConfig())


@pytest.mark.parametrize(
    ("bounds", "allowed", "refused"),
    [
        (Bounds(at_least=0, below=1), [0, 0.5, None], [-0.1, 1, math.nan, math.inf]),
        (Bounds(above=0), [1e-9, 10], [0, -1, math.inf]),
        (Bounds(at_most=3), [3, -5], [4]),
        (Bounds(choices=lambda: ("a", "b")), ["a"], ["c", ""]),
        (Bounds(at_least=1, min_length=2), [[1, 2], [1, 2, 3]], [[1], [], [0, 1]]),
    ],
    ids=["half open", "open", "upper", "choices", "list"],
)
def test_bounds_allow_what_they_say(bounds: Bounds, allowed: list[object], refused: list[object]) -> None:
    assert [value for value in allowed if not bounds.allows(value)] == []
    assert [value for value in refused if bounds.allows(value)] == []


def test_a_problem_names_key_value_allowed_and_nearest_spelling() -> None:
    (problem,) = value_problems(config_with(activation="leeky"))
    assert str(problem) == (
        "model.activation=leeky\n"
        "  allowed: relu, leaky, prelu, elu, sigmoid, tanh, none\n"
        "  did you mean: model.activation=leaky"
    )


@pytest.mark.parametrize("seed", [2**32, -1])
def test_seeds_are_those_that_numpy_takes(seed: int) -> None:
    config = Config(ShapesConfig(split_seed=seed, generator_seed=seed), ModelConfig(), AdamConfig(), seed=seed)
    problems = value_problems(config)
    assert {problem.key for problem in problems} == {"data.split_seed", "data.generator_seed", "seed"}
    assert {problem.allowed for problem in problems} == {"at least 0 and at most 4294967295"}


def test_defaults_have_no_problem() -> None:
    assert value_problems(config_with()) == []


def test_settings_that_cannot_change_a_result_stay_out_of_its_identity() -> None:
    settings = result_settings(config_with())
    assert {"model.filters", "optimizer.lr", "train.shuffle", "data.split_seed"} <= settings.keys()
    assert not {"replicates", "seed", "store", "reuse", "stats.alpha", "arm.name"} & settings.keys()
