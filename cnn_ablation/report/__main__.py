"""`python -m cnn_ablation.report DIR` or `--runs runs.csv --out DIR`: rebuild every table and the page.

A folder that holds studies instead of being one is listed.
"""

from __future__ import annotations

from cnn_ablation.common import commands

if __name__ == "__main__":
    commands.leave_when_interrupted()

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn_ablation.common.errors import RecordError
from cnn_ablation.config import StatsConfig, bounds_of, fields_of, value_problems

_STATS_OPTIONS = ("alpha", "metric", "direction", "margin_pp", "margin", "time_margin", "test", "simultaneous")
_TESTS = bounds_of(fields_of(StatsConfig)["test"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuilds the tables and prints the ablation table, or lists studies; returns the exit code."""
    return commands.guarded(lambda: _answer(arguments))


def _answer(arguments: Sequence[str] | None) -> int:
    options, overrides = _parse(arguments)
    from cnn_ablation.report import listing, page, study  # only once the arguments are known to be good

    if options.runs:
        study.report_runs(options.runs, options.out, overrides)
    elif _holds_studies(options.folder):
        found = listing.studies_below(options.folder)
        _refuse_what_is_of_one_study(options, overrides, len(found))
        listing.print_studies(found)
        return 0
    else:
        study.report_study(options.folder, options.out, overrides)
    if options.open:
        _open((options.out or options.folder) / page.NAME)
    return 0


def _holds_studies(folder: Path) -> bool:
    """Whether a folder is none of a study, nor of a job of one."""
    from cnn_ablation.report.listing import is_study

    return folder.is_dir() and not is_study(folder) and not is_study(folder.absolute().parent)


def _refuse_what_is_of_one_study(options: argparse.Namespace, overrides: dict[str, Any], count: int) -> None:
    """Of several there is nothing to open, and nothing to write.

    Raises:
        RecordError: something of the kind was asked for.
    """
    given = [name for name in ("out", "open") if getattr(options, name)] + list(overrides)
    if given:
        asked = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise RecordError(
            f"{options.folder} is no study: it holds {count} of them, and {asked} is of one\n"
            "  remedy: the folder of one of them"
        )


def _open(path: Path) -> None:
    """Shows the page in a browser, or says where it is.

    Raises:
        RecordError: it could not be made.
    """
    if not path.exists():
        raise RecordError(f"there is no {path} to open: what kept it from being made is said above")
    import webbrowser

    if not webbrowser.open(path.absolute().as_uri()):
        print(f"no browser could be started; the page is {path}")


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Where to read and write, and the settings that take the place of the study's."""
    parser = argparse.ArgumentParser(prog="python -m cnn_ablation.report", description=__doc__)
    parser.add_argument(
        "folder",
        metavar="DIR",
        nargs="?",
        type=Path,
        help="a study's folder; one that holds several lists them",
    )
    parser.add_argument(
        "--runs", type=Path, metavar="CSV", help="a table of runs (CSV or Parquet) instead of a study's folder"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: the study's folder)")
    parser.add_argument("--open", action="store_true", help="show report.html in the browser")
    parser.add_argument(
        "--alpha", type=float, help="probability of any false better or worse (default: the study's, or 0.05)"
    )
    parser.add_argument(
        "--metric", help="the column that arms are compared by (default: the study's, or test_accuracy)"
    )
    parser.add_argument("--direction", choices=("higher", "lower"), help="which values of the metric are better")
    parser.add_argument("--margin-pp", type=float, help="equivalence margin in points (default: the study's, or 0.5)")
    parser.add_argument("--margin", type=float, help="that of a metric that is no accuracy, in its own unit")
    parser.add_argument("--time-margin", type=float, help="of ratios of times: 0.05 is 1/1.05 to 1.05 (default)")
    parser.add_argument("--test", help=f"of differences: {_TESTS} (default: the study's, or t)")
    parser.add_argument(
        "--simultaneous", action="store_true", default=None, help="intervals of differences that hold for all arms"
    )
    options = parser.parse_args(arguments)
    if (options.folder is None) == (options.runs is None):
        parser.error("give either a study's folder or --runs CSV")
    if options.runs and not options.out:
        parser.error("--runs needs --out DIR")
    overrides = {name: value for name in _STATS_OPTIONS if (value := getattr(options, name)) is not None}
    problems = value_problems(StatsConfig(**overrides))
    if problems:
        parser.error(
            "; ".join(
                f"--{problem.key.replace('_', '-')} {problem.value}: allowed is {problem.allowed}"
                for problem in problems
            )
        )
    return options, overrides


if __name__ == "__main__":
    commands.run_as_process(main)
