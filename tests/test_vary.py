"""What follows a run's seed: `vary`, in every way of training, in splits, identities and plans."""

from __future__ import annotations

import gc
import itertools
import pickle
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, Answer
from torch import nn

import cnn_ablation
from cnn_ablation import predict
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.common.streams import stream_seed
from cnn_ablation.config import with_settings
from cnn_ablation.launch.forecast import forecast
from cnn_ablation.launch.planning import Planning
from cnn_ablation.runs import provenance
from cnn_ablation.runs.records import read_run
from cnn_ablation.runs.run import run
from cnn_ablation.runs.task import check
from cnn_ablation.study.designs import BASELINE, Arm, knob
from cnn_ablation.tasks.image_classification import data, effects, engine, task, training
from cnn_ablation.tasks.image_classification.config import Config, DigitsConfig, ModuleConfig, ShapesConfig
from cnn_ablation.tasks.image_classification.data.augmentation import epoch_draws
from cnn_ablation.tasks.image_classification.data.images import ImageData
from cnn_ablation.tasks.image_classification.data.resident import resident
from cnn_ablation.tasks.image_classification.engine.steps import EagerSteps
from cnn_ablation.tasks.image_classification.engine.together import train_together
from cnn_ablation.tasks.image_classification.models import build_network
from cnn_ablation.tasks.image_classification.seeds import chance

CPU = torch.device("cpu")
SEED = 5
LEVELS = [[], ["init"], ["order"], ["dropout"], ["init", "order", "dropout"]]


@pytest.fixture(autouse=True)
def no_data_before_or_after() -> Iterator[None]:
    data.forget()
    yield
    data.forget()


def configured(*overrides: str, vary: list[str] | None = None) -> Config:
    config = cnn_ablation.compose([*TINY, "model.dropout=0.4", "precision=float32", "device=cpu", *overrides])
    assert isinstance(config, Config)
    return config if vary is None else replace(config, vary=vary)


def by_hand(config: Config, images: ImageData, *, init: int, order: int, dropout: int) -> nn.Module:
    """PyTorch's plain loop, each stream with a seed of its own."""
    network = build_network(config.model, images.num_classes, images.input_shape, seed=init)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.optimizer.lr)
    part, size = resident(images, CPU).train, config.train.batch_size
    shuffles = torch.Generator().manual_seed(stream_seed(order, "order"))
    draws = epoch_draws(config.train, len(part), part.pixels.shape[2:], seed=order)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(dropout, "dropout"))
        network.train()
        for _ in range(config.train.epochs):
            places, changes = torch.randperm(len(part), generator=shuffles), next(draws)
            for start in range(0, len(part), size):
                chosen = places[start : start + size]
                inputs, labels = (
                    part.batch(chosen) if changes is None else part.augmented(chosen, changes[start : start + size])
                )
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(inputs), labels).backward()
                optimizer.step()
    return network


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("overrides", [[], ["train.max_translation=1"]], ids=["plain", "augmented"])
@pytest.mark.parametrize("vary", LEVELS, ids=str)
def test_only_what_is_named_follows_the_seed(vary: list[str], overrides: list[str]) -> None:
    config = configured(*overrides, vary=vary)
    images = data.load(config.data)
    streams = {name: SEED if name in vary else 0 for name in ("init", "order", "dropout")}
    found = training.train(config, images, seed=SEED, device=CPU)
    assert same_weights(found.network, by_hand(config, images, **streams))


@pytest.mark.parametrize("vary", LEVELS, ids=str)
def test_all_ways_of_training_vary_the_same(vary: list[str]) -> None:
    config, seeds = configured(vary=vary), [0, 3, SEED]
    images = data.load(config.data)
    joined = train_together(
        config, images, seeds=seeds, device=CPU, make_steps=EagerSteps, technique=training.REFERENCE
    )
    for seed, together in zip(seeds, joined, strict=True):
        alone = training.train(config, images, seed=seed, device=CPU)
        fast = engine.train(config, images, seed=seed, device=CPU)
        assert together.test.loss == pytest.approx(alone.test.loss, rel=1e-5)
        assert fast.test.loss == pytest.approx(alone.test.loss, rel=1e-4)
    assert len({result.test.loss for result in joined}) == (3 if vary else 1)


def test_a_record_says_the_same_of_every_seed_where_nothing_varies(tmp_path: Path) -> None:
    """Diagnoses draw too: they see dropout as the network had it."""
    runs = run(replace(configured(vary=[]), store=str(tmp_path / "store"), replicates=3), tmp_path)
    told = {(each.test_loss, each.initial_gradient_norm, each.final_gradient_norm, each.dead_units) for each in runs}
    assert len(told) == 1
    assert len({each.fingerprint for each in runs}) == 3


# -- splits ----------------------------------------------------------------------------------------------------------

DIGITS, SHAPES = DigitsConfig(image_size=8), ShapesConfig(image_size=8, train_images=80, test_images=40)


def contents(*parts: data.Split) -> Counter[bytes]:
    """How often every labelled picture is there."""
    return Counter(
        np.ascontiguousarray(image).tobytes() + bytes([label])
        for part in parts
        for image, label in zip(part.images, part.labels, strict=True)
    )


@pytest.mark.parametrize(("config", "has_test_set"), [(DIGITS, False), (SHAPES, True)], ids=["digits", "shapes"])
def test_a_split_for_a_seed_is_the_same_pictures_in_other_parts(config: data.DataConfig, has_test_set: bool) -> None:
    base, first, second = data.load(config), data.load(config, seed=0), data.load(config, seed=1)
    for each in (first, second):
        assert [len(part) for part in (each.train, each.val, each.test)] == [
            len(part) for part in (base.train, base.val, base.test)
        ]
        assert contents(each.train, each.val, each.test) == contents(base.train, base.val, base.test)
        shares = [np.bincount(part.labels) / len(part) for part in (each.train, each.val)]
        assert np.abs(shares[0] - shares[1]).max() < 0.05  # stratified
    vals = [contents(each.val) for each in (base, first, second)]
    tests = [contents(each.test) for each in (base, first, second)]
    assert all(one != other for one, other in itertools.combinations(vals, 2))
    assert all((one == other) == has_test_set for one, other in itertools.combinations(tests, 2))
    assert (first.test is base.test) == has_test_set


def test_a_split_follows_from_its_seed_alone() -> None:
    once = data.load(DIGITS, seed=3).digest
    data.forget()
    data.load(DIGITS, seed=8)
    assert data.load(DIGITS, seed=3).digest == once


@pytest.mark.parametrize("settings", [{"val_fraction": 0.4}, {"val_images": 30}, {"scale": "standard"}], ids=str)
def test_arms_of_a_seed_are_tested_on_the_same_pictures(settings: dict[str, Any]) -> None:
    tests = [data.load(config, seed=2).test for config in (DIGITS, replace(DIGITS, **settings))]
    np.testing.assert_array_equal(tests[0].images, tests[1].images)


def test_a_scale_is_that_of_the_images_a_seed_trains_on() -> None:
    images = data.load(replace(DIGITS, scale="standard"), seed=4)
    pixels = images.train.images.astype(np.float64)
    factor, shift = images.normalisation
    assert factor == pytest.approx(1 / pixels.std(axis=(0, 2, 3)), rel=1e-5)
    assert shift == pytest.approx(-pixels.mean(axis=(0, 2, 3)) / pixels.std(axis=(0, 2, 3)), rel=1e-5)


def test_splits_of_many_seeds_do_not_pile_up() -> None:
    kept = []
    for seed in range(4):
        images = data.load(DIGITS, seed=seed)
        resident(images, CPU, torch.channels_last)
        kept.append(weakref.ref(images.train.images))
        assert data.load(DIGITS, seed=seed) is images  # for the next arm of this seed
    del images
    gc.collect()
    assert [each() is None for each in kept] == [True, True, True, False]
    assert len(data.loaded()) == 1  # what workers are handed


def test_a_worker_splits_what_it_was_handed_and_copies_it_once() -> None:
    here = data.load(DIGITS, seed=1)
    handed = pickle.loads(pickle.dumps(data.loaded()))
    data.forget()
    data.take_over(handed)
    there = data.load(DIGITS, seed=1)
    assert there.digest == here.digest
    pixels = resident(there, CPU, torch.channels_last).train.pixels
    assert pixels.data_ptr() == there.train.images.__array_interface__["data"][0]


def test_memory_of_a_split_of_its_own_is_counted() -> None:
    config = configured()
    one, other = task.footprint(config), task.footprint(replace(config, vary=["split"]))
    images = (60 + 40) * 3 * 8 * 8
    assert (one.shared, other.own - one.own) == (images, 2 * images)


def test_a_run_with_a_split_of_its_own_is_scored_on_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its figures are those of a training on that split, and `predict` shows the validation images of that seed."""
    config = replace(configured(vary=["split"]), store=str(tmp_path / "store"), replicates=2)
    runs = run(config, tmp_path / "0")
    for each in runs:
        images = data.load(config.data, seed=each.seed)
        expected = engine.train(replace(config, vary=[]), images, seed=each.seed, device=CPU)
        assert (each.val_loss, each.test_loss) == (expected.val.loss, expected.test.loss)
    assert runs[0].val_loss != runs[1].val_loss
    capsys.readouterr()
    assert predict.main([str(tmp_path / "0"), "--seed", "1", "--out", str(tmp_path / "drawn")]) == 0
    told = capsys.readouterr()
    num_val = len(data.load(config.data).val)
    assert told.out.startswith(f"{round(runs[1].val_accuracy * num_val)} of {num_val} validation images")
    assert told.err == ""


@pytest.mark.parametrize(("vary", "together"), [(["init"], True), ([], True), (["init", "split"], False)], ids=str)
def test_seeds_with_splits_of_their_own_are_trained_one_by_one(vary: list[str], together: bool) -> None:
    assert engine.trains_together(replace(configured(), vary=vary), torch.device("cuda")) is together


# -- identities and plans --------------------------------------------------------------------------------------------


def fingerprint(config: Config, seed: int) -> str:
    how = task.resolve(config)
    return provenance.fingerprint(task.identity(config, how, seed=seed))


def test_identities_tell_runs_apart_by_what_follows_the_seed() -> None:
    found = [
        fingerprint(configured(vary=vary), seed) for vary in (*LEVELS, ["split"], ["init", "split"]) for seed in (0, 1)
    ]
    assert len(set(found)) == len(found)
    words = [fingerprint(configured(vary=vary), 0) for vary in (["order", "init"], ["init", "order", "init"])]
    assert set(words) == {fingerprint(configured(vary=["init", "order"]), 0)}


@pytest.mark.parametrize(
    ("vary", "replicates", "known"),
    [
        (["split"], 2, [0, 1]),
        (["split"], 3, [0, 1]),
        (["order", "split"], 2, []),
        (["init", "order", "dropout"], 2, []),
    ],
    ids=str,
)
def test_a_dry_run_knows_runs_with_splits_of_their_own(
    tmp_path: Path, vary: list[str], replicates: int, known: list[int]
) -> None:
    config = replace(configured(vary=["split"]), store=str(tmp_path / "store"), replicates=2)
    run(config, tmp_path / "0")
    to_come = {Arm(BASELINE): replace(config, vary=vary, replicates=replicates)}
    (found,) = forecast(to_come, partial(task.resolve, planned=True))
    assert found.reused_seeds == known


SAME: list[tuple[list[str], list[str], list[str], bool]] = [
    ([], ["init", "dropout"], ["init"], True),
    ([], ["init", "order", "dropout"], ["order", "init"], True),
    (["model.dropout=0.3"], ["init", "dropout"], ["init"], False),
    (["model.conv_dropout=0.3"], ["dropout"], [], False),
    (["model.dropout=0.3", "model.hidden=[]"], ["dropout"], [], True),
    ([], ["order"], [], False),
    (["train.shuffle=false"], ["order"], [], True),
    (["train.shuffle=false", "train.horizontal_flip=true"], ["order"], [], False),
    (["train.shuffle=false", "train.mixup=0.2", "train.batch_size=1"], ["order"], [], True),
    ([], ["split"], [], False),
    ([], ["init"], [], False),
]


@pytest.mark.parametrize(("overrides", "vary", "other", "same"), SAME, ids=str)
def test_levels_that_come_to_the_same_are_told(
    overrides: list[str], vary: list[str], other: list[str], same: bool
) -> None:
    """And trained: two that come to the same give the same bits, two that do not give others."""
    config = configured("model.dropout=0", *overrides)
    assert (effects.effective(replace(config, vary=vary)) == effects.effective(replace(config, vary=other))) is same
    if "split" in vary:
        return
    images = data.load(config.data)
    found = [engine.train(replace(config, vary=each), images, seed=SEED, device=CPU).network for each in (vary, other)]
    assert same_weights(*found) is same


def test_a_network_of_ones_own_may_draw() -> None:
    config = replace(configured(), model=ModuleConfig(target="own_nets.Dropping"))
    assert effects.effective(replace(config, vary=["dropout"])) != effects.effective(replace(config, vary=[]))


def test_arms_that_vary_the_same_are_trained_once() -> None:
    planning = Planning(
        "one_at_a_time",
        [knob("vary", [["init", "dropout"], ["init"], ["order"]])],
        lambda arm: with_settings(configured("model.dropout=0"), arm.settings),
    )
    assert [arm.name for arm in planning.configs] == ["baseline", "vary=[init,dropout]", "vary=[order]"]
    assert planning.merged == {"vary=[init]": "vary=[init,dropout] (vary=[init] and [init,dropout] come to the same)"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("vary=[weights]", ["vary=['weights']", "allowed: init, order, dropout, split", "remedy: vary=[init]"]),
        ("vary=[ordr]", ["vary=['ordr']", "did you mean: vary=[order]"]),
        ("vary=init", ["vary=init", "list[str], init, order, dropout, split", "remedy: vary=[init]"]),
        (
            "-m vary=[init,order,dropout],[init,order]",
            ["vary=[init,order,dropout],[init,order]", "[init,order,dropout] and [init,order] come to the same"],
        ),
    ],
)
def test_wrong_words_are_refused(cli: Callable[..., Answer], word: str, expected: list[str]) -> None:
    answer = cli(*TINY, *word.split())
    assert answer.code == 2
    assert [text for text in expected if text not in answer.err] == []
    assert len(answer.err.splitlines()) < 10


def test_a_greedy_study_chooses_no_luck(cli: Callable[..., Answer]) -> None:
    answer = cli(*TINY, "-m", "vary=[init],[order]", "hydra.sweeper.design=greedy")
    assert answer.code == 2
    expected = [
        "hydra.sweeper.design=greedy",
        "because no level of vary is better",
        "hydra.sweeper.design=one_at_a_time",
    ]
    assert [text for text in expected if text not in answer.err] == []


def test_python_is_held_to_the_same_bounds() -> None:
    with pytest.raises(ConfigError, match="allowed: init, order, dropout, split"):
        check(replace(configured(), vary=["seed"]))


# -- words -----------------------------------------------------------------------------------------------------------

NOT_SPLIT = ", not in the split of data"
CAPTIONS: dict[str, tuple[list[dict[str, Any]], str, bool]] = {
    "default": ([{}], "differ in initial weights and order of images" + NOT_SPLIT, True),
    "dropout": ([{"model.dropout": 0.1}], "differ in initial weights, order of images and dropout" + NOT_SPLIT, True),
    "dropout in one arm": (
        [{}, {"model.conv_dropout": 0.1}], "differ in initial weights, order of images and dropout" + NOT_SPLIT, True
    ),
    "no order": ([{"train.shuffle": False}], "differ in initial weights" + NOT_SPLIT, True),
    "augmented": (
        [{"train.mixup": 0.2}], "differ in initial weights, order of images and augmentation" + NOT_SPLIT, True
    ),
    "module": ([{"model.name": "module"}], "differ in initial weights, order of images and dropout" + NOT_SPLIT, True),
    "init alone": ([{"vary": ["init"]}], "differ in initial weights" + NOT_SPLIT, True),
    "split": (
        [{"vary": ["order", "split"]}],
        "differ in order of images and the split into training and validation images", True,
    ),
    "split of digits": (
        [{"vary": ["split"], "data.name": "digits"}],
        "differ in the split into training, validation and test images", False,
    ),
    "nothing": ([{"vary": []}], "all draw the same", False),
    "nothing that acts": ([{"vary": ["dropout"]}], "all draw the same", False),
    "a knob": ([{"vary": ["init"]}, {"vary": ["order"]}], "differ in what vary names, arm by arm", False),
}  # fmt: skip


@pytest.mark.parametrize(("runs", "words", "same_tests"), CAPTIONS.values(), ids=CAPTIONS)
def test_a_caption_names_what_was_varied_and_nothing_more(
    runs: list[dict[str, Any]], words: str, same_tests: bool
) -> None:
    told = chance([{"model.name": "three_conv", "data.name": "cifar10", **settings} for settings in runs])
    assert (told.words, told.same_tests) == (words, same_tests)


@pytest.mark.usefixtures("undrawn")
def test_a_study_tells_what_its_seeds_vary(cli: Callable[..., Answer], tmp_path: Path) -> None:
    study = ("-m", "train.batch_size=16,32", "replicates=2", "hydra.sweep.dir=study")
    assert cli(*TINY, "vary=[init,split]", *study).code == 0
    text = (tmp_path / "study/ablation.md").read_text()
    assert (
        "over seeds (n = 2), which differ in initial weights and the split into training and validation images. "
        "Intervals say what other seeds would give on these test images, not what other images would." in text
    )
    record = read_run(tmp_path / "study/0/run-seed0.json")
    assert record.settings["vary"] == ["init", "split"]
