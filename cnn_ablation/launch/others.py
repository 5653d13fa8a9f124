"""Jobs in a study's folder of other commands than this one: they would write where its runs have their records."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.launch import submissions
from cnn_ablation.launch.engines import ENGINES, Engine

KEY, NONE = "hydra/launcher", "basic"
"""`basic` is Hydra's word for this machine alone."""
_UNNAMED = "the launcher of the command that was killed while it submitted jobs"


def refuse_others(study: Path, engine: Engine | None) -> None:
    """Refuses a folder with jobs of another engine, or of any where this command has none, that may be going on.

    Only their own engine can ask, await or end them. Called by whoever has the study's lease: of jobs that end with the
    command that submitted them, and that nobody has waited for, that command is dead, and so are they.

    Args:
        study: its folder.
        engine: of this command; None where its runs are trained on this machine, or by a launcher of Hydra's.

    Raises:
        ConfigError: nobody has waited for some to the end.
    """
    ours = type(engine).__name__ if engine else ""
    found = [each.engine for each in submissions.read(study) if each.engine != ours]
    found += [name for name in map(submissions.engine_of, submissions.unknown(study)) if name != ours]
    found = [name or _UNNAMED for name in found if (_survive(name) if name else not engine)]
    if found:
        names = {path.rpartition(".")[2]: name for name, path in ENGINES.items()}
        theirs = names.get(found[0], found[0])
        allowed = f"{theirs} in {study}, where jobs of its own may be going on"
        launcher = f"{KEY}={theirs if found[0] in names else 'LAUNCHER'}"
        remedy = (
            f"{launcher}, or another folder with hydra.sweep.dir=DIR (engine= and folder= in Python); "
            f"where none goes on, as in a copy of the folder, remove {study / submissions.JOBS}"
        )
        raise ConfigError([Problem(KEY, names.get(ours, ours) or NONE, allowed, remedy=remedy)])


def _survive(engine: str) -> bool:
    """Whether jobs of an engine, by the name of its class, can go on without the command."""
    path = next((path for path in ENGINES.values() if path.rpartition(".")[2] == engine), "")
    if not path:  # somebody's own
        return True
    kind: type[Engine] = getattr(import_module(path.rpartition(".")[0]), engine)
    return kind.survives
