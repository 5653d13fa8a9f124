from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cnn_ablation.tasks.image_classification import data, generators
from cnn_ablation.tasks.image_classification.config import Config, DigitsConfig, ModelConfig, SGDConfig, TrainConfig
from cnn_ablation.tasks.image_classification.data.resident import resident
from cnn_ablation.tasks.image_classification.losses import cross_entropy
from cnn_ablation.tasks.image_classification.models import network_layers
from cnn_ablation.tasks.image_classification.models.build import build
from cnn_ablation.tasks.image_classification.scoring import count_correct, evaluate, probabilities_from
from cnn_ablation.tasks.image_classification.training import (
    EpochSums,
    StepClock,
    TrainingResult,
    autocast,
    evaluation_batch,
    gradients,
    image_orders,
    train,
    train_batches,
    warm_up,
)

CPU = torch.device("cpu")


def trained(config: Config, seed: int = 0) -> TrainingResult:
    return train(config, data.load(config.data), seed=seed, device=CPU)


def weights(result: TrainingResult) -> dict[str, torch.Tensor]:
    return result.network.state_dict()


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(tiny_config: Config) -> None:
    first, again, other = trained(tiny_config), trained(tiny_config), trained(tiny_config, seed=1)
    assert (first.test, first.train, first.val) == (again.test, again.train, again.val)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(first).items())
    assert first.test.loss != other.test.loss


def test_training_leaves_the_callers_random_state_alone(tiny_config: Config) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    trained(replace(tiny_config, model=replace(tiny_config.model, dropout=0.5)))
    assert torch.equal(torch.rand(1), expected)


def test_dropout_draws_from_a_stream_of_the_seed_on_every_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's GPU is played by the two functions that PyTorch has for its state."""
    held = {"mps": torch.arange(3)}
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: held["mps"])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: held.update(mps=state))
    device = torch.device("mps")
    before = torch.get_rng_state()
    place = {"cpu": torch.Generator().manual_seed(1).get_state(), "mps": torch.arange(5)}
    with generators.at(place, device):
        assert held["mps"].tolist() == generators.states(device)["mps"].tolist() == [0, 1, 2, 3, 4]
        held["mps"] = torch.arange(2)
        drawn = torch.rand(1)
    assert place["mps"].tolist() == [0, 1], "where it has come to"
    assert torch.equal(drawn, torch.rand(1, generator=torch.Generator().manual_seed(1)))
    assert held["mps"].tolist() == [0, 1, 2]
    assert torch.equal(torch.get_rng_state(), before)


def batches_seen(config: Config, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The image indices of every training batch, as the training loop asked for them."""
    from cnn_ablation.tasks.image_classification.data.resident import ResidentSplit

    seen: list[list[int]] = []
    original = ResidentSplit.batch
    num_train = len(data.load(config.data).train)

    def spy(part: ResidentSplit, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(part) == num_train and torch.is_grad_enabled():
            seen.append(indices.tolist())
        return original(part, indices)

    with monkeypatch.context() as patch:
        patch.setattr(ResidentSplit, "batch", spy)
        trained(config)
    return seen[1:]  # the first is the warm-up's


@pytest.mark.parametrize(
    "change",
    [{"filters": [9]}, {"batch_norm": True}, {"dropout": 0.5}, {"activation": "tanh"}, {"hidden": [3, 3]}],
    ids=str,
)
def test_a_knob_of_the_network_leaves_the_order_of_the_batches(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    changed = replace(tiny_config, model=replace(tiny_config.model, **change))
    expected = batches_seen(tiny_config, monkeypatch)
    assert len(expected) == 2 * math.ceil(48 / 16)
    assert sorted(itertools.chain(*expected[:3])) == list(range(48))
    assert batches_seen(changed, monkeypatch) == expected


def test_shuffling_draws_a_new_order_every_epoch_and_no_shuffling_repeats_one() -> None:
    shuffled, fixed = image_orders(50, shuffle=True, seed=0), image_orders(50, shuffle=False, seed=0)
    first, second = next(shuffled), next(shuffled)
    assert not torch.equal(first, second)
    assert torch.equal(next(fixed), next(fixed))
    assert torch.equal(next(image_orders(50, shuffle=True, seed=0)), first)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"batch_norm": True}, {"Conv1", "Conv2", "Conv3", "Linear1", "Linear2"}),
        ({"dropout": 0.5}, {"Conv1", "Conv2", "Conv3", "Linear1", "Linear2"}),
        ({"hidden": [17]}, {"Conv1", "Conv2", "Conv3"}),
        ({"filters": [24, 50, 96]}, {"Conv1", "Linear1", "Linear2"}),
    ],
    ids=["batch norm", "dropout", "hidden", "filters"],
)
def test_initial_weights_of_unchanged_layers_stay(change: dict[str, object], same: set[str]) -> None:
    def initial(model: ModelConfig) -> dict[str, torch.Tensor]:
        return build(network_layers(model, 10), (3, 32, 32), seed=4).state_dict()

    before, after = initial(ModelConfig()), initial(ModelConfig(**change))
    assert {name for name in same if not torch.equal(before[f"{name}.weight"], after[f"{name}.weight"])} == set()


def test_every_image_counts_once_in_accuracy_and_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(7, 4, generator=generator), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    network = torch.nn.Identity()
    uneven = evaluate(network, [(inputs[:5], labels[:5]), (inputs[5:], labels[5:])])
    logs = inputs.double().numpy()
    losses = np.log(np.exp(logs).sum(axis=1)) - logs[np.arange(7), labels]
    assert uneven.num_images == 7
    assert uneven.loss == pytest.approx(losses.mean(), rel=1e-6)
    assert uneven.accuracy == pytest.approx((logs.argmax(axis=1) == labels.numpy()).mean())


def test_logits_that_are_not_finite_predict_nothing() -> None:
    logits = torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [1.0, 0.0]])
    assert int(count_correct(logits, torch.tensor([0, 0, 0]))) == 1


def test_evaluation_restores_the_mode_of_the_network() -> None:
    network = torch.nn.Dropout(0.5).train()
    evaluate(network, [(torch.ones(2, 3), torch.tensor([0, 1]))])
    assert network.training


def test_an_infinite_loss_ends_the_run_as_diverged(tiny_config: Config) -> None:
    result = trained(replace(tiny_config, optimizer=SGDConfig(lr=1e30), train=replace(tiny_config.train, epochs=9)))
    assert result.status == "diverged"
    assert len(result.curves) < 9
    assert not math.isfinite(result.curves[-1].train_loss)
    assert 0 <= result.test.accuracy <= 1


def test_training_learns(tiny_config: Config) -> None:
    config = replace(tiny_config, data=DigitsConfig(), model=ModelConfig(), train=TrainConfig(epochs=3))
    result = trained(config)
    assert result.test.accuracy > 0.8
    assert result.curves[-1].train_loss < 0.5 * result.curves[0].train_loss
    assert result.updates == 3 * math.ceil(len(data.load(config.data).train) / 64)


def test_one_step_is_the_gradient_step_of_the_mean_cross_entropy(tiny_config: Config) -> None:
    images = data.load(tiny_config.data)
    part = resident(images, CPU).train
    network = build(network_layers(tiny_config.model, 10), images.input_shape, seed=0)
    expected = copy.deepcopy(network)
    inputs, labels = part.batch(torch.arange(16))
    (-torch.log_softmax(expected(inputs), dim=1)[torch.arange(16), labels].mean()).backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.sub_(0.1 * parameter.grad)
    sums = EpochSums(torch.zeros(()))
    train_batches(network, torch.optim.SGD(network.parameters(), lr=0.1), [(inputs, labels)], sums)
    for actual, wanted in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_images_are_scored_on_an_even_sample(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    images = data.load(tiny_config.data)
    count, size = 7, len(images.train)
    monkeypatch.setattr("cnn_ablation.tasks.image_classification.training.SCORED_TRAIN_IMAGES", count)
    result = train(replace(tiny_config, precision=precision), images, seed=0, device=CPU)
    part = resident(images, CPU).train
    places = torch.tensor([index * size // count for index in range(count)])
    with autocast(CPU, precision):
        expected = evaluate(result.network, [part.batch(places)])
    assert replace(result.train, probabilities=None) == expected
    assert result.val.num_images == len(images.val)
    assert part.evenly_spaced(size) is part


def test_only_the_first_of_equal_networks_warms_up(tiny_config: Config) -> None:
    images = data.load(tiny_config.data)
    batches = resident(images, CPU).train.batch(torch.arange(8)), resident(images, CPU).train.batch(torch.arange(7))
    calls = []
    for (inputs, labels), hidden in itertools.product(batches, (31, 32, 31)):
        network = build(network_layers(replace(tiny_config.model, hidden=[hidden]), 10), images.input_shape, seed=0)
        network.register_forward_hook(lambda *given: calls.append(1))
        warm_up(network, (inputs, labels), precision="float32", loss_of=cross_entropy)
    assert len(calls) == 4


def test_gradients_leave_the_network_as_it_was(tiny_config: Config) -> None:
    images = data.load(tiny_config.data)
    model = replace(tiny_config.model, batch_norm=True)
    network = build(network_layers(model, 10), images.input_shape, seed=0)
    before = copy.deepcopy(network.state_dict())
    network.eval()
    found = gradients(network, resident(images, CPU).train.batch(torch.arange(8)))
    assert [gradient.shape for gradient in found] == [parameter.shape for parameter in network.parameters()]
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_clock_counts_only_what_runs_inside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now, computed = iter([10.0, 12.5, 100.0, 101.0]), iter([1.0, 2.0, 2.5, 3.0])
    monkeypatch.setattr("cnn_ablation.common.machine.time.process_time", lambda: next(computed))
    monkeypatch.setattr("cnn_ablation.tasks.image_classification.training.time.perf_counter", lambda: next(now))
    clock = StepClock(CPU)
    with clock.running():
        pass
    with clock.running():
        pass
    assert (clock.seconds, clock.cpu_seconds) == (3.5, 1.5)


def test_bfloat16_learns_as_float32_does(tiny_config: Config) -> None:
    config = replace(tiny_config, data=DigitsConfig(), model=ModelConfig(), train=TrainConfig(epochs=3))
    full, half = (trained(replace(config, precision=name)) for name in ("float32", "bfloat16"))
    assert half.precision == "bfloat16"
    assert half.train.loss != full.train.loss
    assert half.test.accuracy == pytest.approx(full.test.accuracy, abs=0.03)
    losses = [[point.train_loss for point in result.curves] for result in (half, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_pixels_reach_the_network_scaled_as_asked(tiny_config: Config) -> None:
    half = data.load(tiny_config.data)
    inputs, _ = resident(half, CPU).train.batch(torch.arange(48))
    pixels = torch.from_numpy(half.train.images)
    torch.testing.assert_close(inputs, pixels / 255 - 0.5)
    standard = data.load(replace(tiny_config.data, scale="standard"))
    inputs, _ = resident(standard, CPU).train.batch(torch.arange(48))
    assert inputs.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(inputs.std(dim=(0, 2, 3), correction=0), torch.ones(3), rtol=1e-4, atol=0)


def test_probabilities_of_a_softmax_in_bfloat16_sum_to_one() -> None:
    outputs = torch.randn(50, 10, generator=torch.Generator().manual_seed(0)).bfloat16().softmax(dim=1).float()
    assert float((outputs.sum(dim=1) - 1).abs().max()) > 1e-3, "as they come"
    found = probabilities_from("softmax")(outputs)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(50), rtol=0, atol=1e-6)
    assert torch.equal(found.argmax(dim=1), outputs.argmax(dim=1))


@pytest.mark.parametrize(
    ("expected", "filters", "device"),
    [
        (250, 2**19, "cpu"),
        (2000, 4, "cuda"),
        (170, 2**19, "cuda"),  # 2 GiB / 4 bytes over 6 * 2**19 values and ten outputs
        (1, 2**26, "cuda"),
    ],
)
def test_fewer_images_are_scored_at_once_where_their_maps_are_large(
    tiny_config: Config, expected: int, filters: int, device: str
) -> None:
    """Of 3x3 images a convolution by 2x2 makes 2x2 values a filter, pooling makes one, and that is flattened."""
    model = ModelConfig(filters=[filters], kernel_sizes=[2], hidden=[])
    config = replace(tiny_config, model=model, data=replace(tiny_config.data, image_size=3))
    assert evaluation_batch(config, data.load(config.data), torch.device(device)) == expected
