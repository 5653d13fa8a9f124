"""One run on disk, whole or not at all, and the columns of the table of runs with their units. No torch."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.files import write_atomically, write_if_none
from cnn_ablation.config import StudyConfig, all_settings

FORMAT = 1
NAN = math.nan


@dataclass(frozen=True)
class Run:
    """One arm trained with one seed. Up to `error` the fields are the columns of runs.csv, in their order.

    Behind those follow one column per swept key, then the diagnoses.
    """

    arm: str
    knob: str
    level: str
    seed: int
    status: str
    """`ok`, `diverged` (trained until a loss was not finite, then evaluated) or `failed` (no result)."""
    train_accuracy: float = NAN
    val_accuracy: float = NAN
    test_accuracy: float = NAN
    """Accuracies: top-1, as fractions in 0..1; on the training images, of up to 10,000 that are evenly spaced."""
    train_loss: float = NAN
    val_loss: float = NAN
    test_loss: float = NAN
    """Losses: mean of `train.loss` over the same images; cross-entropy in nats."""
    train_seconds: float = NAN
    """Wall-clock time of training steps only."""
    cpu_seconds: float = NAN
    """What all threads of the process computed meanwhile; of a function, its child processes too."""
    total_seconds: float = NAN
    """Wall-clock time of the run with building, warm-up, evaluation and curves, without loading the data."""
    images_per_second: float = NAN
    """Training images per second of `train_seconds`."""
    epochs: int = 0
    updates: int = 0
    """Optimiser steps."""
    num_params: int = 0
    peak_memory_mib: float = NAN
    device: str = ""
    precision: str = ""
    hardware: str = ""
    """The processor or GPU by its maker's name."""
    threads: int = 0
    """Of the CPU; 0 on a GPU."""
    images_in_host_memory: bool = False
    """They did not fit on the GPU beside the run, which took them from there batch by batch."""
    concurrent_runs: int = 1
    """Planned to share the machine, this one included."""
    neighbours: float = NAN
    """Mean number of other runs that were in training on this machine meanwhile; NaN where nobody counted."""
    train_started: float = NAN
    train_ended: float = NAN
    """When it was in training, with building and evaluation: seconds since 1970. Seeds that were trained together
    have one start."""
    reused: bool = False
    """Taken from the store instead of trained for this study."""
    fingerprint: str = ""
    error: str = ""
    num_classes: int = 0
    """From here to `double_softmax`: diagnoses, the last columns of runs.csv."""
    multiply_adds: int = 0
    """Of one image's forward pass."""
    lowest_train_loss: float = NAN
    """Over epochs and at the end, nats per image; NaN where another loss than cross-entropy was trained on."""
    initial_gradient_norm: float = NAN
    final_gradient_norm: float = NAN
    """Of the mean loss over up to 64 training images, L2 over all parameters."""
    dead_units: float = NAN
    """Share of units that are 0 for each of up to 128 validation images, in the layer where it is largest."""
    dead_layer: str = ""
    saturated_outputs: float = NAN
    """Share of outputs of a sigmoid or tanh with hardly any slope, in the layer where it is largest."""
    saturated_layer: str = ""
    double_softmax: bool = False
    """What reaches the cross-entropy are probabilities already."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The resolved configuration, by dotted key."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What a task other than image classification measured, by its own names; of such a run the accuracies, losses,
    counts and diagnoses above are empty."""
    class_names: list[str] = field(default_factory=list)
    """From here to the end: details, which no table of runs or arms needs."""
    per_class: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Of the validation ("val") and the test part: the rows of `metrics.per_class`, each with its class."""
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    """Of the same parts: images by true class (rows) and predicted class; left out beyond 100 classes."""
    activation_layers: list[dict[str, Any]] = field(default_factory=list)
    """One entry per activation layer: layer, kind, units, dead, saturated."""
    curves: list[dict[str, float]] = field(default_factory=list)
    """One entry per epoch: epoch, train_loss, val_loss, val_accuracy, train_seconds."""
    provenance: dict[str, Any] = field(default_factory=dict)

    def figure(self, column: str) -> float:
        """What the run measured, under its own name or in a column of numbers; NaN where it did not."""
        found = self.metrics.get(column, getattr(self, column, NAN) if column in FIGURES else NAN)
        return float(found)

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of what a run of its kind measures."""
        return tuple(self.metrics) or FIGURES


_NAMES = [item.name for item in dataclasses.fields(Run)]
RUN_COLUMNS = tuple(_NAMES[: _NAMES.index("error") + 1])
DIAGNOSIS_COLUMNS = tuple(_NAMES[_NAMES.index("num_classes") : _NAMES.index("double_softmax") + 1])
_NO_FIGURES = ("seed", "threads", "concurrent_runs", "neighbours", "train_started", "train_ended", "num_classes")
FIGURES = tuple(
    item.name for item in dataclasses.fields(Run) if item.type in ("float", "int") and item.name not in _NO_FIGURES
)
"""Columns of numbers that a run measured."""
TASK_COLUMNS = (*RUN_COLUMNS[RUN_COLUMNS.index("train_accuracy") : RUN_COLUMNS.index("train_seconds")],
                "images_per_second", "epochs", "updates", "num_params", "images_in_host_memory",
                *DIAGNOSIS_COLUMNS)  # fmt: skip
"""Columns that image classification fills; runs of another task have `metrics` in their place."""
TAKEN_NAMES = tuple(name for name in RUN_COLUMNS if name not in TASK_COLUMNS)
"""Columns that every run has, so that no metric can have these names."""
_START_OF_DETAILS = b',\n"class_names": '
_END = b"\n}}\n"
_FLOATS = {item.name for item in dataclasses.fields(Run) if item.type == "float"}


def write_run(path: Path, run: Run, *, replace: bool = True) -> bool:
    """Writes a run atomically.

    Args:
        path: of the record.
        run: what is written.
        replace: False leaves a record that is there, also one that another host has just written and that cannot be
            seen here yet.

    Returns:
        Whether it was written.

    Raises:
        RecordError: the file cannot be written (disk full, no permission).
    """
    content = as_json(run).encode()
    if not replace:
        return write_if_none(path, content)
    write_atomically(path, content)
    return True


def stamp(path: Path) -> int | None:
    """Tells a record from the one that replaces it; None where there is none.

    It is opened for that: attributes that another host has changed may be seen late otherwise.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def write_failed(path: Path, run: Run, known: int | None) -> bool:
    """Writes the record of a run without a result, which replaces nothing but what was there before that run.

    What was there gets another name first, so that a record that comes at this moment is found and put back.

    Args:
        path: of the record.
        run: one that failed.
        known: the `stamp` of what may be replaced; None: nothing.

    Returns:
        Whether it was written; if not, there is a newer record.

    Raises:
        RecordError: the file cannot be written.
    """
    if known is not None:
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with suppress(OSError):  # somebody has removed it, or nothing can be written, as is found next
            os.rename(path, aside)
            if stamp(aside) != known:
                with suppress(FileExistsError):
                    os.link(aside, path)
            os.unlink(aside)
    return write_run(path, run, replace=False)


_encoded = json.JSONEncoder(allow_nan=False).encode  # `json.dumps` would make an encoder for every field


def as_json(run: Run) -> str:
    """The text of a run's record: JSON with a line for every field, which Python writes faster than indented text."""
    lines = [f'"{name}": {_encoded(value)}' for name, value in _nan_to_none(_fields(run)).items()]
    return f'{{"format": {FORMAT}, "run": {{\n' + ",\n".join(lines) + _END.decode()


def read_run(path: str | Path, *, details: bool = True) -> Run:
    """Reads what `write_run` wrote.

    Args:
        path: of the record.
        details: False leaves `class_names` and what follows it empty, in a third of the time; damage there is then not
            seen, unless the end of the file is missing.

    Raises:
        RecordError: the file is damaged, unreadable or of another format.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read()
        content = _parsed(text if details else _without_details(text))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        values = content["run"]
        floats = {
            name: NAN if value is None else float(value)
            for name, value in values.items()
            if type(value) is not float and name in _FLOATS
        }
        points = values.get("curves", [])
        curves = [{key: NAN if value is None else value for key, value in point.items()} for point in points]
        own = {name: NAN if value is None else float(value) for name, value in values.get("metrics", {}).items()}
        values |= floats | {"curves": curves, "metrics": own}
        return Run(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is damaged or unreadable ({type(error).__name__}: {error})") from error


def _parsed(text: bytes) -> Any:
    """Orjson reads four times as fast, but no text that is not Unicode, as names of folders may be."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def _without_details(text: bytes) -> bytes:
    """A record up to its details, as JSON of its own; a text that is laid out otherwise is given back as it is."""
    start = text.find(_START_OF_DETAILS)
    return text[:start] + _END if start >= 0 and text.endswith(_END) else text


def record_path(folder: Path, seed: int) -> Path:
    """The record of one seed in a job's folder."""
    return folder / f"run-seed{seed}.json"


def weights_path(folder: Path, seed: int) -> Path:
    """The weights of one seed in a job's folder."""
    return folder / f"weights-seed{seed}.pt"


def record_paths(folder: Path) -> list[Path]:
    """All records of a study, in the order of its jobs; none if the folder is not there."""
    return [Path(name) for name in record_files(folder)]


def record_files(folder: Path) -> list[str]:
    """`record_paths` as text: a path object takes a tenth of the time that reading its record does."""
    jobs = sorted((name for name in _names_in(folder) if name.isdigit()), key=int)
    return [
        f"{folder}/{job}/{name}"
        for job in jobs
        for name in sorted(_names_in(f"{folder}/{job}"))
        if name.startswith("run-seed") and name.endswith(".json")
    ]


def _names_in(folder: str | Path) -> list[str]:
    """Without a look at each entry's kind, which would take as long again."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def stop_file(study: Path) -> Path:
    """Present while no further run of the study may start: one failed under `on_error=stop`, or the disk is full."""
    return study / ".stop"


def deferred_file(folder: Path, seed: int) -> Path:
    """Present where a job passed over a run that another process was training; next time it waits for that."""
    return folder / f".deferred-seed{seed}"


def is_stopped(study: Path) -> bool:
    """Whether no further run of a study is to start, in whatever process."""
    return stop_file(study).exists()


def labels(config: StudyConfig) -> dict[str, Any]:
    """The arm a configuration belongs to, as fields of `Run`."""
    return {"arm": config.arm.name, "knob": config.arm.knob, "level": config.arm.level}


def failed_run(config: StudyConfig, seed: int, error: str) -> Run:
    """The record of a run without a result."""
    return Run(**labels(config), seed=seed, status="failed", error=error, settings=all_settings(config))


def _fields(run: Run) -> dict[str, Any]:
    """Without the copies that `dataclasses.asdict` makes of everything inside."""
    return {name: getattr(run, name) for name in _NAMES}


def _nan_to_none(value: Any) -> Any:
    """JSON knows neither NaN nor infinity; both become null."""
    if isinstance(value, dict):
        return {key: _nan_to_none(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_nan_to_none(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
