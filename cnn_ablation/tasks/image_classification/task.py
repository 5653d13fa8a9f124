"""Image classification as a task (`runs.task.Task`). No torch until something is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cnn_ablation.common import lanes, looks
from cnn_ablation.common.errors import Problem
from cnn_ablation.common.looks import one_look
from cnn_ablation.config import result_settings
from cnn_ablation.runs import provenance
from cnn_ablation.runs.records import Run
from cnn_ablation.runs.task import Chance, Cost, Footprint, HeldOut, How, Inert, Place, Trained
from cnn_ablation.tasks.image_classification import checks, computing, data, effects, models, parts, seeds
from cnn_ablation.tasks.image_classification.computing import Computing
from cnn_ablation.tasks.image_classification.config import Config, ImageFolderConfig
from cnn_ablation.tasks.image_classification.identity import CODE, LIBRARIES
from cnn_ablation.tasks.image_classification.lengths import epoch_images, num_epochs, num_updates
from cnn_ablation.tasks.image_classification.models.spec import NetworkSpec

CONFIG = Config
PRELOADED = "cnn_ablation.tasks.image_classification.preloaded"

_BYTES_OF_A_PROCESS = 600 * 2**20  # its own share of what is imported, and what the allocator keeps; without images
_IMAGES_EVALUATED = 250  # at once, and a training step keeps its maps for the gradient: twice

looking = one_look


def complete(config: Config) -> Config:
    return config


def problems(config: Config) -> list[Problem]:
    return checks.problems(config)


def effective(config: Config, resolved: Mapping[str, Any]) -> str:
    return effects.effective(config, resolved)


def inert(config: Config) -> dict[str, Inert]:
    return effects.inert(config)


def device(config: Config) -> str:
    computing.serve_streams(config)
    return computing.device_type(config.device)


def resolve(config: Config, *, threads: int | None = None, planned: bool = False) -> Computing:
    return computing.resolve(config, threads=threads, planned=planned)


def identity(config: Config, how: Computing, *, seed: int, planned: bool = False) -> dict[str, Any]:
    """What a run's result depends on; while planned, without the data, which are not read then.

    A split that follows the seed is told by the seed, `vary` and the data that it is made of.
    """
    return _identity(config, how, seed, "" if planned else data.load(config.data).digest)


def _identity(config: Config, how: Computing, seed: int, data_digest: str) -> dict[str, Any]:
    return provenance.identity(
        result_settings(config) | {"vary": seeds.in_order(config.vary)} | how.identifying(),
        seed=seed,
        data_digest=data_digest,
        made_with=provenance.code_identity(CODE, LIBRARIES),
        extensions=parts.used(config),
    )


def known_identity(config: Config, *, threads: int | None, seed: int) -> dict[str, Any] | None:
    """By the digest that the store remembers of data, as long as their files are as they were."""
    if not computing.is_decided(config):
        return None
    digest = data.known_digest(config.data, Path(config.store))
    return _identity(config, resolve(config, threads=threads), seed, digest) if digest else None


def paths(config: Config) -> list[tuple[str, Path]]:
    """That of pictures; published data are fetched where they are not there."""
    if not isinstance(config.data, ImageFolderConfig):
        return []
    return [("data.root", looks.folder("data.root", config.data.root))]


def check_available(configs: Iterable[Config]) -> None:
    for config in _each_data_set(configs):
        data.check_available(config.data)


def load(configs: Iterable[Config]) -> None:
    """Also tells their digests, once and not in every worker, and remembers them."""
    for config in _each_data_set(configs):
        data.learn_digest(config.data, Path(config.store))


def _each_data_set(configs: Iterable[Config]) -> list[Config]:
    """One arm for each data set that arms are trained on."""
    return list({repr(config.data): config for config in configs}.values())


def loaded() -> dict[str, data.ImageData]:
    return data.loaded()


def limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)  # also where a run does not say, because a GPU computes it


def take_over(loaded: dict[str, data.ImageData]) -> None:
    data.take_over(loaded)


def cost(config: Config) -> Cost:
    updates = num_updates(config.train, data.describe(config.data).train_images(config.data))
    network = _network(config)
    return Cost(updates, network.num_params, network.multiply_adds)


def _network(config: Config) -> NetworkSpec:
    spec = data.describe(config.data)
    return models.describe(config.model, spec.num_classes, spec.input_shape)


def work(config: Config) -> float:
    """Multiply-adds of all training images."""
    images = data.describe(config.data).train_images(config.data)
    seen = sum(epoch_images(config.train, epoch, images) for epoch in range(num_epochs(config.train, images)))
    return cost(config).multiply_adds * seen


def work_done(run: Run) -> float:
    """Multiply-adds of all training images."""
    return run.multiply_adds * run.images_per_second * run.train_seconds


def footprint(config: Config) -> Footprint:
    """Images; of a process itself and the maps of a step."""
    spec = data.describe(config.data)
    images = (spec.source_train_images + spec.test_images) * math.prod(spec.input_shape) * spec.bytes_per_value
    maps = 4 * _network(config).num_values
    own_images = images if config.engine == "reference" else 0  # in another order of channels
    own_images += 2 * images if "split" in config.vary else 0  # while the split of a seed follows that of another one
    own = _BYTES_OF_A_PROCESS + own_images + maps * max(2 * config.train.batch_size, _IMAGES_EVALUATED)
    return Footprint(shared=images, own=own)


def held_out(config: Config) -> HeldOut:
    return HeldOut(data.describe(config.data).test_images, differ_by_seed=seeds.redraws_tests(config))


def chance(runs: Sequence[Mapping[str, Any]]) -> Chance:
    return seeds.chance(runs)


def is_known_elsewhere(config: Config) -> bool:
    """What was registered in this process is known in no other."""
    return not parts.lives_here_alone(config)


def common_process(config: Config) -> str | None:
    """Arms whose seeds are trained together draw from streams of their own; what PyTorch switches is one for all."""
    if not computing.arms_are_threads() or not trains_together(config, How(device(config), threads=0)):
        return None
    return f"device={config.device} precision={config.precision} threads={config.threads}"


def room_for_more(how: Computing) -> int:
    from cnn_ablation.tasks.image_classification import devices
    from cnn_ablation.tasks.image_classification.engine import streams

    device = _torch_device(how.device)
    room = devices.room_for_more(device)
    return min(room, streams.room(device)) if lanes.in_one() and device.type == "cuda" else room


@cache
def _torch_device(name: str) -> Any:
    import torch

    return torch.device(name)


@contextmanager
def computing_as(how: Computing) -> Iterator[None]:
    from cnn_ablation.tasks.image_classification import devices
    from cnn_ablation.tasks.image_classification.engine import streams

    device = _torch_device(how.device)
    with devices.settings(threads=how.threads, precision=how.precision), devices.on(device), streams.of_a_lane(device):
        yield


def trouble(config: Config) -> str:
    if device(config) != "cuda":
        return ""
    from cnn_ablation.tasks.image_classification import devices

    return devices.trouble(_torch_device("cuda" if config.device == "auto" else config.device))


def trains_together(config: Config, how: How) -> bool:
    from cnn_ablation.tasks.image_classification import engine

    return engine.trains_together(config, _torch_device(how.device))


def train(config: Config, seed: int, how: Computing, place: Place) -> Trained:
    from cnn_ablation.tasks.image_classification import run

    return run.train(config, seed, how, place)


def train_together(
    config: Config, seeds: Sequence[int], how: Computing, place: Place, on_epoch: Callable[[int], None]
) -> list[Trained]:
    from cnn_ablation.tasks.image_classification import run

    return run.train_together(config, seeds, how, place, on_epoch)
