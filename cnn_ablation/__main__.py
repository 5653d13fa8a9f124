"""The command line: `python -m cnn_ablation [-m] [KEY=VALUE ...]`, also installed as `cnn-ablation`.

Exit codes: 0 all runs finished, 1 runs failed, 2 bad configuration or data, 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cnn_ablation.errors import UserError

INTERRUPTED = 130


def command() -> NoReturn:
    """`main`, ended without taking the interpreter apart: with torch and pandas loaded that takes up to 3 seconds."""
    gc.set_threshold(100_000)  # imports make many objects that stay; looking for garbage among them costs a fifth
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
        atexit._run_exitfuncs()  # what libraries clean up: logs, processes of launchers
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # nobody reads it any more, or the disk is full
            code = code or 1
        os._exit(code)


def main() -> NoReturn:
    """Runs what the command line asks for and exits."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises instead of printing 60 lines; see `_explained`
    signal.signal(signal.SIGTERM, _as_keyboard_interrupt)
    logging.raiseExceptions = False  # a log that a full disk cannot take is no reason for a traceback
    try:
        _run_hydra()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of our output (`| head`) has left; files are written before tables are printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        explained = _explained(error)
        print(explained, file=sys.stderr)
        sys.exit(explained.exit_code)
    sys.exit(0)


def _as_keyboard_interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """A terminated study leaves its table, as an interrupted one does."""
    raise KeyboardInterrupt


def _explained(error: Exception) -> UserError:
    """What the user did wrong; any other error is ours and passes with its traceback."""
    from cnn_ablation.hydra_errors import HYDRA_ERRORS, explain

    if isinstance(error, UserError):
        return error
    if isinstance(error, HYDRA_ERRORS):
        return explain(error)
    if isinstance(error, OSError) and error.strerror:
        return UserError(f"{error.strerror}" + (f": {error.filename}" if error.filename else ""))
    raise error


def _run_hydra() -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig

    from cnn_ablation.composition import CONF_DIR, CONFIG_NAME, register_schemas, to_config
    from cnn_ablation.studies import run_single
    from cnn_ablation.sweeper import as_sweep, register_sweeper

    errors: list[Exception] = []

    def job(composed: DictConfig) -> None:
        """One job of a study, or the whole of a single run."""
        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        if hydra_config.mode == RunMode.MULTIRUN:
            from cnn_ablation.runs import run

            run(to_config(composed), folder, study=folder.parent)
            return
        try:
            run_single(to_config(composed), folder)
        except Exception as error:  # raised again outside, where Hydra adds no lines of its own
            errors.append(error)

    register_schemas()
    register_sweeper()
    sys.argv[1:] = map(as_sweep, sys.argv[1:])
    hydra.main(version_base="1.3", config_path=CONF_DIR, config_name=CONFIG_NAME)(job)()
    if errors:
        raise errors[0]


if __name__ == "__main__":
    command()
