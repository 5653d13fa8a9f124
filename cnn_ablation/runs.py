"""Runs: from a configuration to records on disk. No Hydra; what notebooks, tests and the sweeper's jobs call."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from cnn_ablation import data, devices, progress, provenance
from cnn_ablation.config import Config, all_settings, result_settings
from cnn_ablation.data.images import ImageData
from cnn_ablation.errors import RecordError, UserError
from cnn_ablation.records import (
    Run,
    failed_run,
    labels,
    read_run,
    record_path,
    stored_path,
    write_atomically,
    write_run,
)
from cnn_ablation.training import TrainingResult, resolve_precision, train

log = logging.getLogger(__name__)


def run(config: Config, folder: Path) -> list[Run]:
    """Trains (or reuses) one configuration with each of its seeds; every run is on disk the moment it ends.

    A run that raises becomes a record with `status=failed` and a traceback file beside it; the other seeds go on.

    Args:
        config: checked by `checks.check`.
        folder: where `run-seed<seed>.json` is written.
    """
    return [_run_or_failure(config, seed, folder) for seed in config.seeds]


def _run_or_failure(config: Config, seed: int, folder: Path) -> Run:
    try:
        record = _train_or_reuse(config, seed)
    except Exception as error:  # any failure of an arm is a row of the table, not the end of the study
        record = failed_run(config, seed, _one_line(error))
        if not isinstance(error, UserError):
            write_atomically(folder / f"run-seed{seed}.traceback.txt", traceback.format_exc().encode())
    write_run(record_path(folder, seed), record)
    log.info("%s seed %d: %s %s", record.arm, seed, record.status, record.error)
    return record


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _train_or_reuse(config: Config, seed: int) -> Run:
    device = devices.choose(config.device)
    images = data.load(config.data)
    identity = provenance.fingerprint(
        result_settings(config),
        seed=seed,
        data_digest=images.digest,
        device=device.type,
        precision=resolve_precision(config.precision),
    )
    stored = stored_path(Path(config.store), identity)
    found = _find(stored) if config.reuse else None
    if found is not None:
        return dataclasses.replace(found, **labels(config), settings=all_settings(config), reused=True)
    record = _trained(config, images, seed, device, identity)
    write_run(stored, record)
    return record


def _find(stored: Path) -> Run | None:
    """The stored run, or None; a damaged one is named and trained again."""
    if not stored.exists():
        return None
    try:
        return read_run(stored)
    except RecordError as error:
        progress.warn(f"{error}; training this run again")
        return None


def _trained(config: Config, images: ImageData, seed: int, device: torch.device, identity: str) -> Run:
    devices.reset_peak_memory(device)
    started = time.perf_counter()
    with progress.bar(f"epochs of {config.arm.name}, seed {seed}", config.train.epochs) as advance:
        result = train(config, images, seed=seed, device=device, on_epoch=lambda epoch: advance(1))
    total_seconds = time.perf_counter() - started
    return Run(
        **labels(config),
        seed=seed,
        **_measurements(result),
        total_seconds=total_seconds,
        peak_memory_mib=devices.peak_memory_mib(device),
        device=device.type,
        fingerprint=identity,
        settings=all_settings(config),
        provenance={
            **provenance.environment(),
            "hardware": devices.hardware_name(device),
            "torch_threads": torch.get_num_threads(),
            "process": os.getpid(),
        },
    )


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
