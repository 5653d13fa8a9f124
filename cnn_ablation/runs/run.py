"""Runs: from a configuration to records on disk. No Hydra; what notebooks, tests and the sweeper's jobs call."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from cnn_ablation.common import extensions, progress
from cnn_ablation.common.errors import RecordError, UserError
from cnn_ablation.config import Config, all_settings, result_settings
from cnn_ablation.runs import provenance
from cnn_ablation.runs.checkpoints import Checkpoints
from cnn_ablation.runs.records import (
    Run,
    deferred_file,
    failed_run,
    is_stopped,
    labels,
    record_path,
    stop_file,
    weights_path,
    write_atomically,
    write_run,
)
from cnn_ablation.runs.store import BusyError, RunStore
from cnn_ablation.study import checks
from cnn_ablation.study.plans import counted
from cnn_ablation.tasks.image_classification import computing, data, devices, diagnoses, engine, metrics, models, parts
from cnn_ablation.tasks.image_classification import weights as trained
from cnn_ablation.tasks.image_classification.computing import Computing
from cnn_ablation.tasks.image_classification.data.images import ImageData
from cnn_ablation.tasks.image_classification.data.resident import resident
from cnn_ablation.tasks.image_classification.lengths import num_epochs
from cnn_ablation.tasks.image_classification.losses import LOSSES
from cnn_ablation.tasks.image_classification.training import TrainingResult, autocast

log = logging.getLogger(__name__)

_MOST_CLASSES_CONFUSED = 100  # a matrix of more would outgrow the rest of a record
_FEW_IMAGES = 16  # tell outputs that are probabilities from those that are not


ConcurrentJobs = Callable[[torch.device], int]
"""Device -> jobs trained on it at the same time; asked once training has shown how much of its memory one takes."""


def _alone(_: torch.device) -> int:
    return 1


@data.one_look()
def run(
    config: Config,
    folder: Path,
    *,
    study: Path | None = None,
    concurrent_jobs: ConcurrentJobs = _alone,
    threads: int | None = None,
) -> list[Run]:
    """Trains (or reuses) one configuration with each of its seeds; every run is on disk the moment it ends.

    A run that raises becomes a record with `status=failed` and a traceback file beside it.

    Args:
        config: checked here where no study has done so.
        folder: where `run-seed<seed>.json` is written.
        study: the folder of the study that this is a job of. A failure under `on_error=stop`, or a full disk, then
            stops all its jobs; and a job's only run is passed over while another process trains it. Asked for again, it
            is waited for.
        concurrent_jobs: how many jobs share the device, this one included; alone by default.
        threads: as the study's packing decided; None where the run has the machine to itself.

    Raises:
        ConfigError: the configuration must not be trained, or its device is not here.
        RecordError: a record cannot be written.
    """
    extensions.load(config.extensions)  # in a worker or a launcher's job nobody has done so
    if study is None:
        checks.check(config)
    how = computing.resolve(config, threads=threads)
    with devices.settings(threads=how.threads, precision=how.precision):
        return _run(config, folder, how, study, concurrent_jobs)


def _run(
    config: Config, folder: Path, how: Computing, study: Path | None, concurrent_jobs: ConcurrentJobs
) -> list[Run]:
    runs = _run_together(config, folder, how, concurrent_jobs)
    done = {run.seed for run in runs}
    for seed in (seed for seed in config.seeds if seed not in done):
        if study and is_stopped(study):
            break
        deferred = deferred_file(folder, seed)
        wait = not study or config.replicates > 1 or deferred.exists()
        try:
            runs.append(_run_or_failure(config, seed, folder, how, wait=wait, concurrent_jobs=concurrent_jobs))
            deferred.unlink(missing_ok=True)
        except BusyError:
            folder.mkdir(parents=True, exist_ok=True)
            deferred.touch()
        except RecordError:
            _stop(study)
            raise
        if runs and runs[-1].status == "failed" and config.on_error == "stop":
            _stop(study)
            break
    return sorted(runs, key=attrgetter("seed"))


def _run_together(config: Config, folder: Path, how: Computing, concurrent_jobs: ConcurrentJobs) -> list[Run]:
    """Trains those seeds that are not in the store all at once, where the device gains by it; none if that fails.

    Under `timing=isolated` one after the other, by the same steps.
    """
    device = torch.device(how.device)
    if not engine.trains_together(config, device):
        return []
    images, store = data.load(config.data), RunStore(Path(config.store))
    identities = {seed: _identity(config, seed, how) for seed in config.seeds}
    with ExitStack() as locks:
        missing = []
        for seed, identity in identities.items():
            fingerprint = provenance.fingerprint(identity)
            locks.enter_context(store.locked(fingerprint))
            if not config.reuse or _finished(store, fingerprint, config) is None:
                missing.append(seed)
        groups = [missing] if config.timing == "packed" and missing else [[seed] for seed in missing]
        runs: list[Run] = []
        for seeds in groups:
            try:
                finished = _trained_together(config, images, seeds, device, concurrent_jobs)
            except Exception as error:
                progress.warn(f"{_one_line(error)}; training one seed after the other, by the reference loop's steps")
                break
            for record, weights in finished:
                identity = identities[record.seed]
                runs.append(_kept(store, provenance.fingerprint(identity), identity, record, weights))
                _leave(runs[-1], folder, store)
    return runs


def _trained_together(
    config: Config, images: ImageData, seeds: Sequence[int], device: torch.device, concurrent_jobs: ConcurrentJobs
) -> list[tuple[Run, bytes | None]]:
    devices.reset_peak_memory(device)
    started = time.monotonic()
    label = f"epochs of {config.arm.name}, {counted(len(seeds), 'seed')} together"
    with progress.bar(label, num_epochs(config.train, len(images.train))) as advance:

        def on_epoch(_: int) -> None:
            advance(1)
            concurrent_jobs(device)  # other arms may start from now on

        results = engine.train_together(config, images, seeds=seeds, device=device, on_epoch=on_epoch)
    seconds, concurrent_runs = time.monotonic() - started, len(seeds) * concurrent_jobs(device)
    return [
        (
            dataclasses.replace(
                _record(config, images, result, seed, device, total_seconds=seconds), concurrent_runs=concurrent_runs
            ),
            _weights(config, images, result),
        )
        for seed, result in zip(seeds, results, strict=True)
    ]


def _leave(run: Run, folder: Path, store: RunStore) -> None:
    """Writes a run into its job's folder, with its weights if the store has them."""
    write_run(record_path(folder, run.seed), run)
    weights, wanted = store.weights_path(run.fingerprint), weights_path(folder, run.seed)
    if run.fingerprint and weights.exists():
        wanted.unlink(missing_ok=True)
        try:
            os.link(weights, wanted)
        except OSError:  # another file system, or one without links
            with suppress(OSError):  # on a full disk the store still has them
                shutil.copyfile(weights, wanted)


def _run_or_failure(
    config: Config, seed: int, folder: Path, how: Computing, *, wait: bool, concurrent_jobs: ConcurrentJobs
) -> Run:
    try:
        record = _train_or_reuse(config, seed, how, wait=wait, concurrent_jobs=concurrent_jobs)
    except BusyError:
        raise
    except Exception as error:  # any failure of an arm is a row of the table, not the end of the study
        record = failed_run(config, seed, _one_line(error))
        if not isinstance(error, UserError):
            write_atomically(folder / f"run-seed{seed}.traceback.txt", traceback.format_exc().encode())
    _leave(record, folder, RunStore(Path(config.store)))
    log.info("%s seed %d: %s %s", record.arm, seed, record.status, record.error)
    return record


def _stop(study: Path | None) -> None:
    """Lets no further run of the study start, in whatever process."""
    if study is None:
        return
    with suppress(OSError):  # on a full disk; the next run will find that out on its own
        stop_file(study).touch()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _train_or_reuse(config: Config, seed: int, how: Computing, *, wait: bool, concurrent_jobs: ConcurrentJobs) -> Run:
    device = torch.device(how.device)
    images = data.load(config.data)
    identity = _identity(config, seed, how)
    fingerprint = provenance.fingerprint(identity)
    store = RunStore(Path(config.store))
    with store.locked(fingerprint, wait=wait):
        found = _finished(store, fingerprint, config) if config.reuse else None
        if found is not None:
            return found
        if not config.reuse:
            store.checkpoint_path(fingerprint).unlink(missing_ok=True)
        checkpoints = Checkpoints(store.checkpoint_path(fingerprint), config.checkpoint_seconds, fingerprint)
        record, weights = _trained(config, images, seed, device, checkpoints)
        record = dataclasses.replace(record, concurrent_runs=concurrent_jobs(device))
        return _kept(store, fingerprint, identity, record, weights)


def _kept(store: RunStore, fingerprint: str, identity: dict[str, Any], record: Run, weights: bytes | None) -> Run:
    """The record with its identity, put into the store with the weights."""
    record = dataclasses.replace(
        record, fingerprint=fingerprint, provenance={**record.provenance, "identity": identity}
    )
    try:
        store.keep(fingerprint, record, weights)
    except RecordError as error:
        progress.warn(f"{error}; this run is kept in its study alone, without its weights")
    return record


def _identity(config: Config, seed: int, how: Computing) -> dict[str, Any]:
    return provenance.identity(
        result_settings(config),
        seed=seed,
        data_digest=data.load(config.data).digest,
        computing=how,
        extensions=parts.used(config),
    )


def _finished(store: RunStore, fingerprint: str, config: Config) -> Run | None:
    """A run of the store as one of this configuration's arm; `timing=isolated` takes none that shared the machine."""
    found = store.find(fingerprint)
    if found is None or (config.timing == "isolated" and found.concurrent_runs > 1):
        return None
    return dataclasses.replace(found, **labels(config), settings=all_settings(config), reused=True)


def _trained(
    config: Config, images: ImageData, seed: int, device: torch.device, checkpoints: Checkpoints
) -> tuple[Run, bytes | None]:
    devices.reset_peak_memory(device)
    epochs = num_epochs(config.train, len(images.train))
    with progress.bar(f"epochs of {config.arm.name}, seed {seed}", epochs) as advance:
        result = engine.train(
            config, images, seed=seed, device=device, checkpoints=checkpoints, on_epoch=lambda epoch: advance(1)
        )
    record = _record(config, images, result, seed, device, total_seconds=checkpoints.elapsed_seconds)
    return record, _weights(config, images, result)


def _weights(config: Config, images: ImageData, result: TrainingResult) -> bytes | None:
    return trained.as_bytes(result.network, images) if config.keep_weights else None


def _record(
    config: Config, images: ImageData, result: TrainingResult, seed: int, device: torch.device, *, total_seconds: float
) -> Run:
    peak_memory_mib = devices.peak_memory_mib(device)
    return Run(
        **labels(config),
        seed=seed,
        **_measurements(result),
        **_attempt("diagnosis", config, seed, lambda: _diagnosis(config, images, result, seed, device)),
        **_attempt("figures per class", config, seed, lambda: _figures_per_class(images, result)),
        total_seconds=total_seconds,
        peak_memory_mib=peak_memory_mib,
        device=device.type,
        settings=all_settings(config),
        provenance={
            **provenance.environment(),
            "hardware": devices.hardware_name(device),
            "torch_threads": torch.get_num_threads(),
            "process": os.getpid(),
        },
    )


def _figures_per_class(images: ImageData, result: TrainingResult) -> dict[str, Any]:
    """Of validation and test images; nothing for a network whose outputs are not finite."""
    parts = {"val": (result.val, images.val.labels), "test": (result.test, images.test.labels)}
    per_class, confusion = {}, {}
    for part, (evaluation, truth) in parts.items():
        if evaluation.probabilities is None or not evaluation.probabilities.isfinite().all():
            continue
        probabilities = evaluation.probabilities.numpy()
        per_class[part] = metrics.per_class(probabilities, truth, images.class_names).reset_index().to_dict("records")
        if images.num_classes <= _MOST_CLASSES_CONFUSED:
            confusion[part] = metrics.confusion(probabilities, truth).tolist()
    return {"class_names": list(images.class_names), "per_class": per_class, "confusion": confusion}


def _attempt(what: str, config: Config, seed: int, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A trained network is never lost to what cannot be said of it (out of memory, an unusual network)."""
    try:
        return measure()
    except Exception as error:
        progress.warn(f"no {what} of {config.arm.name}, seed {seed}: {_one_line(error)}")
        return {}


def _diagnosis(
    config: Config, images: ImageData, result: TrainingResult, seed: int, device: torch.device
) -> dict[str, Any]:
    """The part of a record that explains its scores; the initial network is built once more from its seed."""
    technique = engine.technique_of(config, images)
    initial = models.build_network(config.model, images.num_classes, images.input_shape, seed=seed).to(device)
    initial, final = initial.to(memory_format=technique.memory_format), result.network
    parts = resident(images, device, technique.memory_format)
    some = next(parts.train.head(diagnoses.GRADIENT_IMAGES))
    by_cross_entropy = config.train.loss == "cross_entropy"
    with autocast(device, result.precision):
        some_val = parts.val.head(diagnoses.ACTIVATION_IMAGES)
        found = diagnoses.activation_layers(final, some_val, technique.rewrite)
        double_softmax = by_cross_entropy and diagnoses.gives_probabilities(
            technique.rewrite(final), some[0][:_FEW_IMAGES]
        )
    loss_of = LOSSES[config.train.loss]
    norms = [
        diagnoses.gradient_norm(
            technique.rewrite(network), some, seed=seed, precision=result.precision, loss_of=loss_of
        )
        for network in (initial, final)
    ]
    network = models.describe(config.model, images.num_classes, images.input_shape)
    deadest, flattest = (max(found, key=attrgetter(share), default=None) for share in ("dead", "saturated"))
    return {
        "num_classes": images.num_classes,
        "multiply_adds": _whole(network.multiply_adds),
        "lowest_train_loss": _lowest_train_loss(result) if by_cross_entropy else math.nan,
        "initial_gradient_norm": norms[0],
        "final_gradient_norm": norms[1],
        **({"dead_units": deadest.dead, "dead_layer": deadest.label} if deadest else {}),
        **({"saturated_outputs": flattest.saturated, "saturated_layer": flattest.label} if flattest else {}),
        "double_softmax": double_softmax,
        "activation_layers": [dataclasses.asdict(layer) for layer in found],
    }


def _whole(count: float) -> int:
    """0 where it is not known."""
    return int(count) if math.isfinite(count) else 0


def _lowest_train_loss(result: TrainingResult) -> float:
    """Over epochs, and at the end: a first epoch's mean, with dropout, says little of what it has learnt."""
    losses = [result.train.loss, *(epoch.train_loss for epoch in result.curves)]
    return min(filter(math.isfinite, losses), default=math.nan)


def _measurements(result: TrainingResult) -> dict[str, Any]:
    """The part of a record that training measured."""
    scores = {
        f"{part}_{name}": getattr(getattr(result, part), name)
        for name in ("accuracy", "loss")
        for part in ("train", "val", "test")
    }
    return {
        **scores,
        "status": result.status,
        "train_seconds": result.train_seconds,
        "images_per_second": result.images_seen / result.train_seconds,
        "epochs": len(result.curves),
        "updates": result.updates,
        "num_params": result.num_params,
        "precision": result.precision,
        "curves": [dataclasses.asdict(point) for point in result.curves],
    }
