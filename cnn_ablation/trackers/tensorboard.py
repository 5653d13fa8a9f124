"""`trackers=[tensorboard]`: a log folder per arm and seed in the study's `tensorboard/`. TensorFlow and torch unneeded.

A run that is finished has a file beside its events that says so; what an interrupted command left is begun anew.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from cnn_ablation.launch.observers import ObservedRun, ObservedStudy
from cnn_ablation.trackers.naming import curve_of, figures_of_arm, file_name, knob_values, rows_of

if TYPE_CHECKING:
    import pandas as pd

PLACE, STUDY = "tensorboard", "study"
_FINISHED = "finished"
_FLUSH_SECONDS = 5
_SIZE_IN_PNG = slice(16, 24)  # width and height, big-endian


class Tracker:
    """Scalars and hyperparameters of every run; the table, verdicts and pictures of the study."""

    def on_study(self, study: ObservedStudy) -> None:
        self._study, self._root = study, study.folder / PLACE
        self._writers: dict[tuple[str, int], EventFileWriter] = {}

    def on_start(self, run: ObservedRun) -> None:
        """Begins a log, unless the same run is there and finished."""
        folder = self._folder(run.arm, run.seed)
        if _is_finished(folder, run.fingerprint):
            return
        writer = self._writers[run.arm, run.seed] = _fresh(folder)
        values = knob_values(self._study, run) | {"seed": run.seed}
        _add(writer, hparams_pb(values, trial_id=f"{folder.parent.name}/{folder.name}"))
        _add(writer, text_pb("fingerprint", run.fingerprint))

    def on_epoch(self, arm: str, seed: int, epoch: int, metrics: Mapping[str, float]) -> None:
        if writer := self._writers.get((arm, seed)):
            _add(writer, _scalars(curve_of(metrics)), epoch)

    def on_run(self, run: ObservedRun) -> None:
        """Its figures, at the step of its last epoch."""
        writer = self._writers.pop((run.arm, run.seed), None)
        if writer is None:
            return
        _add(writer, _scalars(run.metrics), len(run.curves))
        status = api_pb2.STATUS_FAILURE if run.status == "failed" else api_pb2.STATUS_SUCCESS
        _add(writer, text_pb("status", f"{run.status} {run.error}".strip()))
        _add(writer, _end_of_hyperparameters(status))
        writer.close()
        (self._folder(run.arm, run.seed) / _FINISHED).write_text(run.fingerprint)

    def on_report(self, folder: Path, arms: pd.DataFrame) -> None:
        """In the place of those of an earlier table: the table as text, numbers of every arm, pictures."""
        writer = _fresh(self._root / STUDY)
        _add(writer, text_pb("command", self._study.command))
        _add(writer, text_pb("ablation", (folder / "ablation.md").read_text(encoding="utf-8")))
        for row in rows_of(arms):
            numbers, texts = figures_of_arm(row)
            _add(writer, _scalars({f"{name}/{row['arm']}": value for name, value in numbers.items()}))
            _add(writer, text_pb(f"verdict/{row['arm']}", texts.get("verdict", "")))
        for picture in sorted(folder.glob("*.png")):
            _add(writer, _image(picture))
        writer.close()

    def close(self) -> None:
        """Of runs that have not finished what there is stays, and is begun anew next time."""
        for writer in self._writers.values():
            writer.close()

    def _folder(self, arm: str, seed: int) -> Path:
        return self._root / file_name(arm) / f"seed{seed}"


def _is_finished(folder: Path, fingerprint: str) -> bool:
    path = folder / _FINISHED
    return path.exists() and path.read_text() == fingerprint


def _fresh(folder: Path) -> EventFileWriter:
    """A log in a folder whose earlier events, which this class has written, are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*folder.glob("events.out.tfevents.*"), folder / _FINISHED):
        path.unlink(missing_ok=True)
    return EventFileWriter(str(folder), flush_secs=_FLUSH_SECONDS)


def _add(writer: EventFileWriter, summary: Any, step: int = 0) -> None:
    writer.add_event(Event(summary=summary, wall_time=time.time(), step=step))


def _scalars(figures: Mapping[str, float]) -> Any:
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in figures.items()])


def _end_of_hyperparameters(status: int) -> Any:
    """TensorBoard's own function for it wants TensorFlow."""
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    told = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    tag = metadata.SESSION_END_INFO_TAG
    return Summary(value=[Summary.Value(tag=tag, metadata=told, tensor=metadata.NULL_TENSOR)])


def _image(picture: Path) -> Any:
    content = picture.read_bytes()
    width, height = struct.unpack(">II", content[_SIZE_IN_PNG])
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=content)
    return Summary(value=[Summary.Value(tag=picture.stem, image=image)])
