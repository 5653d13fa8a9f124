"""What a key is stands in its field; identities of runs, checks of knobs and studies' folders agree on it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cnn_ablation.common.errors import ConfigError, RecordError
from cnn_ablation.config import all_settings, bounds_of, keys_of, result_settings, with_settings
from cnn_ablation.study import checks
from cnn_ablation.study.designs import BASELINE, Arm, knob
from cnn_ablation.study.plans import Plan, refuse_other_study, write_plan
from cnn_ablation.tasks.image_classification.config import GROUPS, AdamConfig, Config, ModelConfig, ShapesConfig

BASE = Config(ShapesConfig(), ModelConfig(), AdamConfig())
CONFIGS = [
    replace(BASE, **{group: option()})
    for group, options in GROUPS.items()
    for option in options.values()
]  # fmt: skip
KEYS = {
    f"{key} of {getattr(config, key.partition('.')[0]).name}" if key.partition(".")[0] in GROUPS else key: (config, key)
    for config in CONFIGS
    for key in keys_of(config)
}

# Neither enters an identity by its value nor makes another study of a folder; no study can vary it.
CONDUCT = {
    *(
        "seed",
        "replicates",
        "min_replicates",
        "max_replicates",
        "timing",
        "reuse",
        "store",
        "checkpoint_seconds",
        "keep_weights",
        "paper",
        "on_error",
    ),
    *("dry_run", "stats.alpha", "stats.margin_pp", "stats.test", "stats.simultaneous", "stats.reserve"),
    *("stats.metric", "stats.direction", "stats.margin", "stats.time_margin"),
    *("arm.name", "arm.knob", "arm.level", "data.cache of image_folder", "data.root of cifar10"),
    "extensions",
    "trackers",
}
# Decides which pictures are tested: levels could not be compared, and a folder holds one value.
TEST_SET = {
    *("data.name of digits", "data.name of shapes", "data.name of cifar10", "data.name of image_folder"),
    *("data.name of arrays", "data.target of arrays"),
    *("data.root of image_folder", "data.split_seed of digits", "data.test_fraction of digits"),
    *("data.image_size of shapes", "data.test_images of shapes", "data.difficulty of shapes"),
    *("data.generator_seed of shapes", "task.name"),
}
BY_CONTENT = {"data.root of image_folder", "data.target of arrays"}  # the digest of the pictures identifies instead


def other_value(config: Config, key: str) -> Any:
    """A value of the same type within the same bounds, as far as there is one."""
    value, bounds = all_settings(config)[key], bounds_of(keys_of(config)[key])
    if isinstance(value, bool):
        return not value
    if bounds.choices and len(bounds.choices()) > 1:
        other = next(choice for choice in bounds.choices() if choice != value)
        return [other] if isinstance(value, list) else other
    if isinstance(value, str):
        return f"{value}-2"
    if isinstance(value, list):
        return [each + 1 for each in value]
    return 40 if value is None else (value or 0.5) / 2 if isinstance(value, float) else value + 1


def changed(config: Config, key: str) -> Config:
    return with_settings(config, [(key, other_value(config, key))])


def plan_of(config: Config) -> Plan:
    """Seeds are left as they are: what more and fewer of them mean is another test."""
    return Plan("one_at_a_time", {}, [], [Arm(BASELINE)], [0], all_settings(config))


def may_be_a_knob(config: Config, key: str) -> bool:
    try:
        checks.check_study("one_at_a_time", [knob(key, [other_value(config, key)])], config)
    except ConfigError:
        return False
    return True


def makes_another_study(folder: Path, config: Config, key: str) -> bool:
    write_plan(folder, plan_of(config))
    try:
        refuse_other_study(folder, plan_of(changed(config, key)))
    except RecordError:
        return True
    return False


@pytest.mark.parametrize("name", KEYS)
def test_three_uses_of_a_key_agree(tmp_path: Path, name: str) -> None:
    config, key = KEYS[name]
    identifies = result_settings(config) != result_settings(changed(config, key))
    uses = (identifies, may_be_a_knob(config, key), makes_another_study(tmp_path, config, key))
    expected = (
        (False, False, False) if name in CONDUCT
        else (name not in BY_CONTENT, False, True) if name in TEST_SET
        else (True, True, True)
    )  # fmt: skip
    assert uses == expected


def test_the_table_names_keys_that_exist() -> None:
    assert KEYS.keys() >= CONDUCT | TEST_SET | BY_CONTENT
    assert len(KEYS) > 60


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("data", "tested on different pictures"),
        ("data.name", "tested on different pictures"),
        ("+data.root", "give it once"),
        ("arm", "names its arms itself"),
        ("stats", "give it once"),
        ("timing", "give it once"),
        ("replicates", "replicates=N trains every arm"),
    ],
)
def test_what_is_no_knob_says_what_to_do_instead(key: str, remedy: str) -> None:
    config = replace(BASE, data=GROUPS["data"]["torchvision"]())
    with pytest.raises(ConfigError) as refused:
        checks.check_study("grid", [knob(key, ["a", "b"])], config)
    assert f"{key}=a,b\n  allowed: one value: it is no knob\n  remedy: " in str(refused.value)
    assert remedy in str(refused.value)


@pytest.mark.parametrize("key", ["optimizer", "model", "train", "data.scale", "data.train_images", "data.split_seed"])
def test_what_is_a_knob_passes(key: str) -> None:
    checks.check_study("grid", [knob(key, ["a", "b"])], BASE)


# -- which data keys leave the test pictures alone --------------------------------------------------------------------

SMALL = {
    "digits": {},
    "shapes": {"data.train_images": 60, "data.test_images": 40, "data.image_size": 8, "data.difficulty": 0.5},
}


@pytest.mark.parametrize(
    ("source", "key", "value"),
    [
        (source, key, value)
        for source, (key, value) in itertools.product(
            SMALL,
            [("data.val_fraction", 0.3), ("data.val_images", 20), ("data.scale", "unit"), ("data.split_seed", 1)],
        )
    ]
    + [("shapes", "data.train_images", 80), ("shapes", "data.image_size", 10), ("shapes", "data.difficulty", 0.4)]
    + [("shapes", "data.generator_seed", 1), ("shapes", "data.test_images", 50), ("digits", "data.test_fraction", 0.2)],
    ids=str,
)
def test_a_key_is_a_knob_exactly_where_the_test_pictures_stay(source: str, key: str, value: Any) -> None:
    """Told from the pictures themselves."""
    from cnn_ablation.tasks.image_classification import data

    config = replace(BASE, data=GROUPS["data"][source]())
    config = with_settings(config, SMALL[source].items())
    tested = [data.load(each.data).test for each in (config, with_settings(config, [(key, value)]))]
    same = tested[0].images.shape == tested[1].images.shape and bool((tested[0].images == tested[1].images).all())
    assert may_be_a_knob(config, key) == same


def test_a_resized_test_picture_is_the_same_picture() -> None:
    from cnn_ablation.tasks.image_classification import data

    config = replace(BASE, data=GROUPS["data"]["digits"]())
    small, large = (data.load(with_settings(config, [("data.image_size", size)]).data).test for size in (8, 16))
    assert (small.labels == large.labels).all()
    assert may_be_a_knob(config, "data.image_size")
