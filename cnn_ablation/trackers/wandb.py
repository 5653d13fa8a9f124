"""`trackers=[wandb]`: a run per arm and seed, in a group that is the study.

Offline, in the study's `wandb/`, unless W&B's own environment says otherwise. A run's id follows from study, arm, seed
and fingerprint, so that a study which is repeated or extended tells none twice.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb

from cnn_ablation.common import progress
from cnn_ablation.launch.observers import ObservedRun, ObservedStudy, artefacts
from cnn_ablation.trackers.naming import curve_of, figures_of_arm, rows_of, run_name, study_name

if TYPE_CHECKING:
    import pandas as pd

PROJECT, PLACE = "cnn_ablation", "wandb"
_FINISHED = "finished.txt"
_INIT_SECONDS = 30.0
_LONGEST = 128  # of a group and a type
_LONGEST_TAG = 64


class Tracker:
    """A run per arm and seed; one for the table, with verdicts as its summary and files as its artefact."""

    def on_study(self, study: ObservedStudy) -> None:
        self._study = study
        self._open: dict[tuple[str, int], Any] = {}
        self._is_offline = not any(os.environ.get(name) for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"))
        self._folder = Path(os.environ.get("WANDB_DIR") or study.folder)
        self._place = self._folder / PLACE
        self._finished_file = study.folder / PLACE / _FINISHED
        self._finished_file.parent.mkdir(exist_ok=True)
        self._finished = set(self._finished_file.read_text().split()) if self._finished_file.exists() else set()

    def on_start(self, run: ObservedRun) -> None:
        """Begins its run, unless the same one is finished."""
        run_id = self._id(run.arm, run.seed, run.fingerprint)
        if run_id in self._finished:
            return
        labels = {"arm": run.arm, "knob": run.knob, "level": run.level, "fingerprint": run.fingerprint}
        config = {**run.settings, **labels, "study": self._study.id, "reused": run.reused}
        tags = [f"study {self._study.id}", f"arm {run.arm}", f"seed {run.seed}", f"fingerprint {run.fingerprint}"]
        self._open[run.arm, run.seed] = self._begun(run_id, run.arm, run_name(run.arm, run.seed), config, tags)

    def on_epoch(self, arm: str, seed: int, epoch: int, metrics: Mapping[str, float]) -> None:
        if begun := self._open.get((arm, seed)):
            begun.log(curve_of(metrics), step=epoch)

    def on_run(self, run: ObservedRun) -> None:
        begun = self._open.pop((run.arm, run.seed), None)
        if begun is None:
            return
        begun.summary.update({**run.metrics, "status": run.status, "error": run.error})
        begun.finish(exit_code=int(run.status == "failed"))
        if run.status != "failed":
            self._note_finished(begun.id)

    def on_report(self, folder: Path, arms: pd.DataFrame) -> None:
        """The table with its files, as a run of its own."""
        config = {"study": self._study.id, "command": self._study.command, "design": self._study.design}
        begun = self._begun(self._id("table"), "table", "table", config, [])
        for row in rows_of(arms):
            numbers, texts = figures_of_arm(row)
            begun.summary.update({f"{row['arm']}/{name}": value for name, value in (numbers | texts).items()})
        pictures = {path.stem: wandb.Image(str(path)) for path in sorted(folder.glob("*.png"))}
        begun.log({"ablation": wandb.Table(dataframe=arms.astype(object).where(arms.notna(), None)), **pictures})
        artefact = wandb.Artifact(f"ablation-{self._study.id}", type="ablation")
        for path in artefacts(folder):
            artefact.add_file(str(path))
        begun.log_artifact(artefact)
        begun.finish()

    def close(self) -> None:
        """Runs that have not finished are begun anew by the next command."""
        for begun in self._open.values():
            begun.finish(exit_code=1)
        if self._is_offline:
            progress.say(
                f"wandb is offline; what it has goes to a server with: wandb sync {self._place / 'offline-run-*'}"
            )

    def _begun(self, run_id: str, kind: str, name: str, config: Mapping[str, Any], tags: list[str]) -> Any:
        """A run in the place of an earlier one with its id, which was interrupted or is of an earlier table."""
        for earlier in self._place.glob(f"offline-run-*-{run_id}"):
            shutil.rmtree(earlier, ignore_errors=True)
        return wandb.init(
            id=run_id,
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=study_name(self._study)[:_LONGEST],
            job_type=kind[:_LONGEST],
            name=name,
            config=dict(config),
            tags=[tag[:_LONGEST_TAG] for tag in tags],
            dir=str(self._folder),
            mode="offline" if self._is_offline else None,
            resume=None if self._is_offline else "allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=_INIT_SECONDS, x_disable_stats=True),
        )

    def _id(self, *parts: Any) -> str:
        return hashlib.sha256(repr((self._study.id, *parts)).encode()).hexdigest()[:16]

    def _note_finished(self, run_id: str) -> None:
        self._finished.add(run_id)
        with self._finished_file.open("a") as file:
            file.write(f"{run_id}\n")
