"""`trackers=[mlflow]`: a study is an experiment, an arm a run, its seeds the runs below that.

Where the server is, MLflow's own environment says (`MLFLOW_TRACKING_URI`); else it is a database in the study's folder.
Runs are found again by their tags, so that a study which is repeated or extended in its folder tells none twice.
"""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_ablation.launch.observers import ObservedRun, ObservedStudy, artefacts
from cnn_ablation.trackers.naming import curve_of, figures_of_arm, rows_of, run_name, study_name

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric

PREFIX = "cnn_ablation."
"""Before the names of our tags: study, kind, arm, seed, fingerprint, verdict."""
DATABASE, FILES = "mlflow.db", "mlartifacts"
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""Else a server that is not there is asked for minutes."""
_PAUSES = (2.0, 5.0, 15.0)
"""Seconds between attempts at a database: commands that begin at once make its tables all at once, and one succeeds."""
_MOST_METRICS, _MOST_OTHERS = 1000, 100  # that one request takes; the others are parameters and tags
_PAUSE_SECONDS = 2.0
"""Between requests with the epochs of a run: those of one that is reused come all at once."""
_LONGEST_TAG, _LONGEST_PARAM = 5000, 500


@dataclass
class _Open:
    """A run that is not finished."""

    id: str
    points: list[Metric] = field(default_factory=list)
    """Of its curves, that are still to be sent."""
    sent: float = field(default_factory=time.monotonic)
    """When others were last."""


class Tracker:
    """One experiment; a run for the table, one for each arm, and below it one for each seed."""

    def __init__(self) -> None:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"alembic\.")
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.ERROR)  # a line for each table of a new database, and each attempt

    def on_study(self, study: ObservedStudy) -> None:
        self._study = study
        self._arms: dict[str, str] = {}
        self._open: dict[tuple[str, int], _Open] = {}
        is_elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = _client(is_elsewhere or f"sqlite:///{study.folder / DATABASE}")
        files = None if is_elsewhere else (study.folder / FILES).as_uri()
        self._experiment = self._found_experiment() or self._new_experiment(files)

    def _found_experiment(self) -> str | None:
        [*found] = self._client.search_experiments(filter_string=_is("study", self._study.id))
        return str(found[0].experiment_id) if found else None

    def _new_experiment(self, files: str | None) -> str:
        from mlflow.exceptions import MlflowException

        name = study_name(self._study)
        tags = _tags(study=self._study.id, folder=self._study.folder, command=self._study.command)
        try:
            return str(self._client.create_experiment(name, files, tags))
        except MlflowException:  # another study of this name, or one that was deleted
            return str(self._client.create_experiment(f"{name} {self._study.id}", files, tags))

    def on_start(self, run: ObservedRun) -> None:
        """Makes its run, unless the same one is there and finished; one that was interrupted is begun anew."""
        tags = {"kind": "seed", "arm": run.arm, "seed": run.seed, "fingerprint": run.fingerprint}
        for found in self._found(**tags):
            if found.info.status == "FINISHED":
                return
            self._client.delete_run(found.info.run_id)
        parent = {"mlflow.parentRunId": self._of_arm(run.arm, run.knob, run.level)}
        made = self._made(run_name(run.arm, run.seed), parent, **tags, knob=run.knob, level=run.level,
                          reused=str(run.reused).lower())  # fmt: skip
        self._open[run.arm, run.seed] = _Open(made)
        self._log_params(made, run.settings)

    def on_epoch(self, arm: str, seed: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Points that come fast are sent together."""
        if opened := self._open.get((arm, seed)):
            opened.points += _metrics(curve_of(metrics), epoch)
            if len(opened.points) >= _MOST_METRICS or time.monotonic() - opened.sent >= _PAUSE_SECONDS:
                self._send_points(opened)

    def on_run(self, run: ObservedRun) -> None:
        opened = self._open.pop((run.arm, run.seed), None)
        if opened is None:
            return
        opened.points += _metrics(run.metrics, len(run.curves))
        self._send_points(opened)
        self._set_tags(opened.id, _tags(status=run.status, error=run.error))
        self._client.set_terminated(opened.id, "FAILED" if run.status == "failed" else "FINISHED")

    def on_report(self, folder: Path, arms: pd.DataFrame) -> None:
        """Verdicts to the arms' runs; table, page and pictures to a run of their own."""
        for row in rows_of(arms):
            self._tell_arm(row)
        table = next(iter(self._found(kind="table")), None)
        made = table.info.run_id if table else self._made("table", {}, kind="table", command=self._study.command)
        text = (folder / "ablation.md").read_text(encoding="utf-8")[:_LONGEST_TAG]
        self._client.set_tag(made, "mlflow.note.content", text)
        self._client.set_experiment_tag(self._experiment, "mlflow.note.content", text)
        for path in artefacts(folder):
            self._client.log_artifact(made, str(path))
        self._client.set_terminated(made)

    def _tell_arm(self, row: Mapping[str, Any]) -> None:
        made = self._of_arm(row["arm"], row["knob"], row["level"])
        numbers, texts = figures_of_arm(row)
        there = self._client.get_run(made).data.metrics
        self._log_metrics(made, _metrics({name: value for name, value in numbers.items() if there.get(name) != value}))
        self._set_tags(made, _tags(**texts))
        self._client.set_terminated(made)

    def close(self) -> None:
        """Runs that have not finished say so; the next command begins them anew."""
        for opened in self._open.values():
            self._send_points(opened)
            self._client.set_terminated(opened.id, "KILLED")

    def _of_arm(self, arm: str, knob: str, level: str) -> str:
        """The run of an arm, which is there or made."""
        if arm not in self._arms:
            found = next(iter(self._found(kind="arm", arm=arm)), None)
            made = found.info.run_id if found else self._made(arm, {}, kind="arm", arm=arm, knob=knob, level=level)
            self._arms[arm] = made
        return self._arms[arm]

    def _found(self, **tags: Any) -> Sequence[Any]:
        """Runs of this study with these tags."""
        wanted = " and ".join(_is(name, value) for name, value in tags.items())
        return list(self._client.search_runs([self._experiment], wanted))

    def _made(self, name: str, more: Mapping[str, str], **tags: Any) -> str:
        of_mlflow = {"mlflow.source.name": self._study.command, **more}
        tags = {**of_mlflow, **_tags(study=self._study.id, **tags)}
        return str(self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id)

    def _log_params(self, made: str, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(_name(key), str(value)[:_LONGEST_PARAM]) for key, value in settings.items()]
        for some in _parts(params, _MOST_OTHERS):
            self._client.log_batch(made, params=some)

    def _send_points(self, opened: _Open) -> None:
        self._log_metrics(opened.id, opened.points)
        opened.points, opened.sent = [], time.monotonic()

    def _log_metrics(self, made: str, metrics: Sequence[Metric]) -> None:
        for some in _parts(metrics, _MOST_METRICS):
            self._client.log_batch(made, metrics=some)

    def _set_tags(self, made: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        for some in _parts([RunTag(*each) for each in tags.items()], _MOST_OTHERS):
            self._client.log_batch(made, tags=some)


def _client(uri: str) -> MlflowClient:
    """Of a place that answers; requests to a server are repeated by MLflow itself, of a database here."""
    from mlflow import MlflowClient

    for pause in () if uri.startswith("http") else _PAUSES:
        try:
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
            return client
        except Exception:  # of the database's own library
            time.sleep(pause)
    return MlflowClient(uri)


def _tags(**values: Any) -> dict[str, str]:
    return {f"{PREFIX}{name}": str(value)[:_LONGEST_TAG] for name, value in values.items()}


def _is(name: str, value: Any) -> str:
    """In MLflow's language of filters, where a text ends at the first quote of its kind."""
    quote = '"' if "'" in str(value) else "'"
    return f"tags.`{PREFIX}{name}` = {quote}{value}{quote}"


def _name(text: str) -> str:
    """With the characters that MLflow takes."""
    return re.sub(r"[^\w\-. /:]", "_", text)


def _metrics(figures: Mapping[str, float], step: int = 0) -> list[Metric]:
    """Figures as of now."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(_name(name), value, now, step) for name, value in figures.items()]


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
