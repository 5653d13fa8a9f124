"""`python -m cnn_ablation.store list` shows the finished runs that studies reuse; `prune` removes some of them."""

from __future__ import annotations

from cnn_ablation.common import commands

if __name__ == "__main__":
    commands.leave_when_interrupted()

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from cnn_ablation.runs.records import Run
    from cnn_ablation.runs.store.entries import Entry

_FILES_OF_A_RUN = ("run.", "checkpoint.", "weights.", ".")
_WIDTH_WITHOUT_TERMINAL = 160


def main(arguments: Sequence[str] | None = None) -> int:
    """Lists or prunes; returns the exit code."""
    return commands.guarded(lambda: _answer(arguments))


def _answer(arguments: Sequence[str] | None) -> int:
    options = _parse(arguments)
    found = _runs(options.store)
    if options.command == "list":
        _print(found)
    else:
        _prune(options, [entry for entry in found if _is_selected(entry, options)])
    return 0


def _runs(store: Path) -> list[Entry]:
    """What is in a store.

    Raises:
        RecordError: it cannot be read, or the folder is no store: pruning it would remove what is not ours.
    """
    from cnn_ablation.common.errors import RecordError
    from cnn_ablation.runs.store.entries import entries

    remedy = "  remedy: name the store with --store DIR, for example --store .ablation_runs"
    try:
        if not store.is_dir():
            what = "is a file" if store.exists() else "is not there"
            raise RecordError(f"there is no store at {store}: it {what}\n{remedy}")
        found = entries(store)
        strange = [entry.fingerprint for entry in found if not _is_run(store / entry.fingerprint)]
        if strange:
            raise RecordError(f"{store} is no store: {min(strange)}/ in it is no run\n{remedy}")
        return found
    except OSError as error:
        raise RecordError(f"cannot read the store {store}: {error.strerror or error}\n{remedy}") from error


def _is_run(folder: Path) -> bool:
    """Whether a folder holds what a run leaves in a store, and nothing else."""
    return all(path.is_file() and path.name.startswith(_FILES_OF_A_RUN) for path in folder.iterdir())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    import argparse
    from pathlib import Path

    from cnn_ablation.tasks.image_classification.config import Config

    parser = argparse.ArgumentParser(prog="python -m cnn_ablation.store", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="one line per run, the oldest first")
    pruning = commands.add_parser("prune", help="remove the runs that any of the options selects")
    for command in (listing, pruning):
        command.add_argument(
            "--store", type=Path, default=Path(Config.store), metavar="DIR", help=f"default: {Config.store}"
        )
    pruning.add_argument("--outdated", action="store_true", help="made with other training code or libraries")
    pruning.add_argument("--damaged", action="store_true", help="unreadable, or empty")
    pruning.add_argument("--unfinished", action="store_true", help="checkpoints of runs that never ended")
    pruning.add_argument("--older-than", type=float, metavar="DAYS", help="last written more than DAYS ago")
    pruning.add_argument("--all", action="store_true", help="everything")
    pruning.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    options = parser.parse_args(arguments)
    if options.command == "prune" and not _says_what(options):
        pruning.error("say what: --outdated, --damaged, --unfinished, --older-than DAYS or --all")
    if options.command == "prune" and options.older_than is not None and not options.older_than >= 0:
        pruning.error(f"--older-than {options.older_than}: allowed is 0 or more days")
    return options


def _says_what(options: argparse.Namespace) -> bool:
    named: bool = options.outdated or options.damaged or options.unfinished or options.all
    return named or options.older_than is not None


def _is_selected(entry: Entry, options: argparse.Namespace) -> bool:
    return (
        options.all
        or (options.outdated and entry.state == "finished" and not entry.current)
        or (options.damaged and entry.state in ("damaged", "empty"))
        or (options.unfinished and entry.state == "unfinished")
        or (options.older_than is not None and entry.age_days > options.older_than)
    )


def _prune(options: argparse.Namespace, selected: list[Entry]) -> None:
    from cnn_ablation.common.words import counted
    from cnn_ablation.runs.store.entries import prune
    from cnn_ablation.runs.store.looks import LOOKS, num_records

    if options.dry_run:
        _print(selected)
        return
    removed = prune(options.store, selected)
    kept = len(selected) - len(removed)
    print(f"removed {counted(len(removed), 'run')}, {_size(removed)}" + (f"; {kept} in training now" if kept else ""))
    if looks := num_records(options.store):
        print(f"the record of {_studies(looks)} that {'was' if looks == 1 else 'were'} looked at stays, in {LOOKS}/")


def _studies(count: int) -> str:
    return "1 study" if count == 1 else f"{count} studies"


def _print(found: Sequence[Entry]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from cnn_ablation.common.progress import screen_environment
    from cnn_ablation.common.words import counted

    is_terminal = sys.stdout.isatty()
    width = None if is_terminal else _WIDTH_WITHOUT_TERMINAL
    console = Console(force_terminal=is_terminal, width=width, markup=False, _environ=screen_environment())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "state", "reusable", "seed", "figure", "train s", "age", "first trained as"):
        table.add_column(name, no_wrap=name == "run", overflow="fold")
    for entry in found:
        table.add_row(entry.fingerprint[:12], entry.state, *_columns(entry))
    console.print(table)
    print(f"{counted(len(found), 'run')}, {_size(found)}")


def _columns(entry: Entry) -> list[str]:
    age, run = f"{entry.age_days:.1f} d", entry.run
    if run is None:
        return ["", "", "", "", age, ""]
    reusable = "yes" if entry.current else "no"
    what = run.settings.get("task.target") or run.settings.get("data.name", "")
    return [reusable, str(run.seed), _figure(run), f"{run.train_seconds:.1f}", age, f"{what} {run.arm}"]


def _figure(run: Run) -> str:
    """The test accuracy of a network, the first figure of a function."""
    if run.metrics:
        name, value = next(iter(run.metrics.items()))
        return f"{name} {value:.4g}"
    return f"{100 * run.test_accuracy:.2f} %"


def _size(found: Sequence[Entry]) -> str:
    return f"{sum(entry.num_bytes for entry in found) / 2**20:.1f} MiB"


if __name__ == "__main__":
    commands.run_as_process(main)
