"""Knobs on the command line that compare nothing, or what cannot be compared; and one filter size for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Answer

import cnn_ablation
from cnn_ablation.tasks.image_classification.config import ModelConfig
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.layers import Conv

Cli = Callable[..., Answer]
KNOB = "model.activation=relu,leaky"

REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "a slope without a leak": (
        ["model.leaky_slope=0.01,0.1"],
        ["model.leaky_slope=0.01,0.1", "does nothing here: model.activation=relu", "remedy: model.activation=leaky"],
    ),
    "a place without batch norm": (["model.batch_norm_place=before,after"], ["remedy: model.batch_norm=true"]),
    "patience for nothing": (["train.patience=1,2"], ["train.stop_on=null", "remedy: train.stop_on=val_loss"]),
    "one level twice": (["model.activation=relu,relu"], ["model.activation=relu,relu", "nothing to compare"]),
    "one number twice": (["optimizer.lr=1e-3,0.001"], ["nothing to compare"]),
    "one size in two forms": (["model.kernel_sizes=3,[3]"], ["model.kernel_sizes=3,[3]", "nothing to compare"]),
    "data sets": (["data=digits,shapes"], ["data=digits,shapes", "it is no knob", "one study for each value"]),
    "folders": (["data=image_folder", "data.root=a,b"], ["data.root=a,b", "it is no knob"]),
    "generated pictures": (["data.generator_seed=0,1"], ["it is no knob", "different pictures"]),
    "zipped with data": (["zip.z={data:digits,train.epochs:3}"], ["data={data:digits,train.epochs:3}", "no knob"]),
    "timing": (["timing=packed,isolated"], ["timing=packed,isolated", "it is no knob", "give it once"]),
    "dry run": (["dry_run=true,false"], ["it is no knob", "give it once"]),
    "a cache": (["data=image_folder", "data.cache=a,b"], ["data.cache=a,b", "give it once"]),
    "an infinite rate": ([KNOB, "optimizer.lr=inf"], ["optimizer.lr=inf", "a finite number, above 0"]),
    "a size by word": (
        [KNOB, "model.kernel_sizes=three"],
        ["model.kernel_sizes=three", "int, at least 1; one value for all"],
    ),
    "no size": (
        [KNOB, "model.kernel_sizes=null"],
        ["model.kernel_sizes=null", "int, at least 1; one value for all layers"],
    ),
    "one seed too many": (
        [KNOB, "seed=4294967295", "replicates=2"],
        ["replicates=2", "at most 1 with seed=4294967295"],
    ),
    "two knobs of a name": (
        ["train.epochs=2,3", "zip.train.epochs={train.batch_size:8}"],
        ["train.epochs=2,3; {train.batch_size:8}", "one knob of this name", "another name after zip."],
    ),
    "two levels of a name": (
        ["zip.z={label:x,train.epochs:1},{label:x,train.epochs:3}"],
        ["zip.z=", "a label of its own for each level"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_compares_nothing_is_refused_before_anything_is_loaded(cli: Cli, tmp_path: Path, case: str) -> None:
    given, expected = REFUSED[case]
    tiny = [word for word in TINY if not (any("image_folder" in each for each in given) and word.startswith("data"))]
    answer = cli("-m", *tiny, *given)
    assert answer.code == 2
    assert [part for part in expected if part not in answer.err] == [], answer.err
    assert len(answer.err.splitlines()) <= 10
    assert list(tmp_path.iterdir()) == []


def test_merged_arms_are_one_line_of_the_plan(cli: Cli) -> None:
    answer = cli(
        "-m", *TINY, "model.activation=relu,leaky", "model.leaky_slope=0.01,0.1", "hydra.sweeper.design=grid",
        "replicates=1", "dry_run=true",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[:5] == [
        "grid: 3 arms x 1 seed (0) = 3 runs",
        "  baseline (model.activation=relu, model.leaky_slope=0.01)",
        "  model.activation=leaky,model.leaky_slope=0.01",
        "  model.activation=leaky,model.leaky_slope=0.1",
        "  model.activation=relu,model.leaky_slope=0.1 is the same as baseline "
        "(model.leaky_slope does nothing here: model.activation=relu)",
    ]


@pytest.mark.parametrize(
    ("typed", "sizes"), [("3", [3, 3, 3]), ("[3]", [3, 3, 3]), ("[7,5,3]", [7, 5, 3]), (None, [5, 3, 3])]
)
def test_one_filter_size_holds_for_all_convolutions(typed: str | None, sizes: list[int]) -> None:
    model = cnn_ablation.compose([f"model.kernel_sizes={typed}"] if typed else []).model
    layers = network_layers(model, 10)
    assert [layer.kernel for layer in layers if isinstance(layer, Conv)] == sizes
    assert layers == network_layers(ModelConfig(kernel_sizes=sizes), 10)


def test_sizes_in_both_forms_are_levels_of_one_knob(cli: Cli) -> None:
    answer = cli("-m", "model.kernel_sizes=3,[5,3,3],[3,3,3]", "dry_run=true")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[1:3] == ["  baseline (model.kernel_sizes=[5,3,3])", "  model.kernel_sizes=3"]
    assert "model.kernel_sizes=[3,3,3]" not in answer.out
