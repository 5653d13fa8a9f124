"""What a study has handed to an engine, on disk: so that the same command finds its jobs again.

`jobs/<n>/` in the study's folder holds the batches of one submission, and in `submitted.json` the jobs they became. The
store knows by the study's plan which folder it was begun in, and whether it is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn_ablation.common import progress
from cnn_ablation.common.errors import RecordError
from cnn_ablation.common.files import write_atomically
from cnn_ablation.launch.engines import Engine
from cnn_ablation.launch.observers import settings_of_runs
from cnn_ablation.runs.store.entries import SUBMITTED
from cnn_ablation.study.plans import Plan

JOBS, LEDGER = "jobs", "submitted.json"
_ENGINE = "engine"
"""In the folder of a submission, from before anything is submitted: its engine's name."""
_SETTLED = "settled"
"""In the folder of a submission whose jobs have been waited for to the end."""


@dataclass(frozen=True)
class Submission:
    """Batches that were handed to an engine together."""

    folder: Path
    engine: str
    jobs: dict[str, str] = field(default_factory=dict)
    """Name of a batch -> id of its job; of runs that were taken there is none."""
    runs: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name of a batch -> its records, by their place in the study's folder, each with what it is a run of."""
    before: dict[str, int] = field(default_factory=dict)
    """The stamps of records that were there before, by their place."""

    @property
    def study(self) -> Path:
        return self.folder.parent.parent

    def all_runs(self) -> Iterator[tuple[str, str]]:
        """Its records by their place, each with what it is a run of."""
        for runs in self.runs.values():
            yield from runs.items()

    def batch(self, name: str) -> Path:
        """The file of a batch."""
        return self.folder / f"{name}.batch"

    def begin(self) -> None:
        """Writes whose jobs these will be: nobody but their engine can end them if they are never written down."""
        write_atomically(self.folder / _ENGINE, self.engine.encode())

    def keep(self) -> None:
        """Writes what another process has to know to wait for these jobs."""
        content = {key: value for key, value in dataclasses.asdict(self).items() if key != "folder"}
        write_atomically(self.folder / LEDGER, json.dumps(content, indent=1).encode())

    def settle(self) -> None:
        """Notes that its jobs have been waited for to the end; on a full disk they are asked for once more."""
        with suppress(OSError):
            (self.folder / _SETTLED).touch()


def new_folder(study: Path) -> Path:
    """A folder for the next submission of a study.

    Raises:
        RecordError: it cannot be made.
    """
    number = 0
    while True:
        folder = study / JOBS / str(number)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise RecordError(f"cannot write to {folder}: {error.strerror or error}") from error
        else:
            return folder


def read(study: Path, *, settled: bool = False) -> Iterator[Submission]:
    """The submissions of a study that nobody has waited for to the end; one that is not readable is none.

    Args:
        study: its folder.
        settled: the others too.
    """
    ledgers = sorted((study / JOBS).glob(f"*/{LEDGER}"), key=lambda path: (len(path.parent.name), path.parent.name))
    for ledger in (each for each in ledgers if settled or not (each.parent / _SETTLED).exists()):
        with suppress(OSError, ValueError, TypeError):
            yield Submission(folder=ledger.parent, **json.loads(ledger.read_bytes()))


def unknown(study: Path) -> list[Path]:
    """Folders of submissions whose jobs nobody knows: the command was killed, or refused, while it submitted them."""
    return [path for path in (study / JOBS).glob("*") if path.is_dir() and not (path / LEDGER).exists()]


def engine_of(folder: Path) -> str:
    """The name of the engine that was to get a submission; empty where nobody wrote it."""
    try:
        return (folder / _ENGINE).read_text()
    except (OSError, ValueError):
        return ""


def key_of(plan: Plan, engine: Engine) -> str:
    """What tells one study from another, whatever folder it is in; its first plan, before anything is trained."""
    arms = [[arm.name, list(map(list, arm.settings))] for arm in plan.arms]
    content: list[Any] = [
        type(engine).__name__,
        plan.design,
        arms,
        plan.seeds,
        settings_of_runs(plan.baseline),
        dataclasses.asdict(plan.stats),
    ]
    return hashlib.sha256(json.dumps(content, default=str, sort_keys=True).encode()).hexdigest()[:32]


def token_path(store: Path, key: str) -> Path:
    """The file in a store that names the folder of a study; a node that does not see it has another store."""
    return store / SUBMITTED / f"{key}.json"


def studies(store: Path) -> list[Path]:
    """The folders of all studies that an engine was given, as the store names them."""
    found = []
    for token in sorted((store / SUBMITTED).glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found.append(Path(json.loads(token.read_bytes())["folder"]))
    return found


def unfinished(store: Path, key: str) -> Path | None:
    """The folder that a study was begun in, where it is not complete and the folder is still there."""
    try:
        content = json.loads(token_path(store, key).read_bytes())
        folder = Path(content["folder"])
        return None if content["complete"] or not (folder / JOBS).is_dir() else folder
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def begun(store: Path, key: str, study: Path) -> Iterator[Path]:
    """Lets the store name the folder of a study, complete once it is left without an error; yields the file.

    Raises:
        RecordError: the store cannot be written to, before anything is trained.
    """
    token = token_path(store, key)

    def write(*, complete: bool) -> None:
        write_atomically(token, json.dumps({"folder": str(study), "complete": complete}).encode())

    write(complete=False)
    yield token
    try:
        write(complete=True)
    except RecordError as error:  # the disk is full: there is a table to write, and the same command finds all done
        progress.warn(str(error))
