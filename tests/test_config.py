from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from typing import Any, Literal, Optional

import pytest

from cnn_ablation.common.errors import ConfigError
from cnn_ablation.config import Bounds, StatsConfig, bounds_of, fits, result_settings, types_of, value_problems
from cnn_ablation.study import checks
from cnn_ablation.tasks.image_classification.config import (
    GROUPS,
    AdamConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    ShapesConfig,
    TrainConfig,
)


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
        (Bounds(at_least=1, min_length=1, per_layer=int), [3, [3], [3, 5]], [0, [], [[3]], "3", True, None, 3.0, {}]),
        (Bounds(per_layer=bool), [True, [True, False]], [1, "true", [1], None]),
    ],
    ids=["half open", "open", "upper", "choices", "list", "for all layers", "truths for all layers"],
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


@pytest.mark.parametrize(
    ("seed", "replicates", "allowed"),
    [(2**32 - 1, 1, None), (2**32 - 1, 2, 1), (2**32 - 3, 3, None), (2**32 - 3, 4, 3), (0, 10_000, None)],
)
def test_the_last_seed_counts(tiny_config: Config, seed: int, replicates: int, allowed: int | None) -> None:
    config = replace(tiny_config, seed=seed, replicates=replicates)
    if allowed is None:
        checks.check(config)
        return
    with pytest.raises(ConfigError, match=rf"replicates={replicates}\n  allowed: at most {allowed} with seed={seed}"):
        checks.check(config)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"val_fraction": 0.1},
            "data.val_fraction=0.1\n  allowed: one image or more of each of 10 .* 6 and 54",
        ),
        ({"val_images": 9}, "data.val_images=9\n  allowed: one image or more .* here 9 and 51 images"),
        ({"val_images": 51}, "data.val_images=51\n  allowed: one image or more .* here 51 and 9 images"),
    ],
)
def test_every_part_of_the_split_has_room_for_every_class(
    tiny_config: Config, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        checks.check(replace(tiny_config, data=replace(tiny_config.data, **settings)))


@pytest.mark.parametrize("rate", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_not_finite_is_called_so(rate: float) -> None:
    (problem,) = value_problems(Config(ShapesConfig(), ModelConfig(), AdamConfig(lr=rate)))
    assert problem.allowed == "a finite number, above 0"


@pytest.mark.parametrize(
    ("wanted", "fitting", "other"),
    [
        (int, [3, 0], [True, 3.0, "3", None, [3]]),
        (float, [3, 0.5, math.inf], [True, "3", None]),
        (bool, [True], [0, 1, "true", None]),
        (str, ["", "a"], [3, None, b"a"]),
        (list[int], [[], [3]], [3, (3,), [True], [3.0], None]),
        (int | None, [3, None], ["3", True]),
        (Optional[int], [3, None], ["3", True]),  # noqa: UP045
        (Any, [3, None, "x"], []),
        (dict[str, int], [{"a": 1}], [3, None]),
        (Literal["a"], ["a"], []),
        (TrainConfig, [TrainConfig()], [3, None, AdamConfig(), TrainConfig]),
        (OptimizerConfig, [AdamConfig()], [OptimizerConfig("adam"), TrainConfig()]),
    ],
    ids=str,
)
def test_types_of_values(wanted: Any, fitting: list[Any], other: list[Any]) -> None:
    assert [value for value in fitting if not fits(value, wanted)] == []
    assert [value for value in other if fits(value, wanted)] == []


def test_every_field_of_the_schema_has_a_type_that_is_checked() -> None:
    """A default of another type would be refused, and a field without a type be taken for anything."""
    for option in [option for options in GROUPS.values() for option in options.values()] + [TrainConfig, StatsConfig]:
        config = option()
        assert value_problems(config) == []
        for item in dataclasses.fields(option):
            assert not fits(object(), types_of(option)[item.name]) or bounds_of(item).per_layer, (option, item.name)


def test_defaults_have_no_problem() -> None:
    assert value_problems(config_with()) == []


def test_settings_that_cannot_change_a_result_stay_out_of_its_identity() -> None:
    settings = result_settings(config_with())
    assert {"model.filters", "optimizer.lr", "train.shuffle", "data.split_seed"} <= settings.keys()
    assert not {"replicates", "seed", "store", "reuse", "stats.alpha", "arm.name"} & settings.keys()
