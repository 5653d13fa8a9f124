"""What goes wrong because of the user's input, as one readable message and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_PROBLEMS_SHOWN = 2  # two problems of four lines each, a headline and a count: never more than ten lines


class UserError(Exception):
    """Bad input. The command line prints the text alone, without a traceback, and exits with `exit_code`."""

    exit_code = 2


class DataError(UserError):
    """Images that cannot be read, decoded or downloaded."""


class RecordError(UserError):
    """A run, study or table on disk that is missing, damaged or cannot be written."""


def as_typed(value: object) -> str:
    """A value as it is written on the command line: `true`, `null`, `[24,48]`."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_typed, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{as_typed(element)}' for key, element in value.items())}}}"
    return {"True": "true", "False": "false", "None": "null"}.get(str(value), str(value))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration."""

    key: str
    value: object
    allowed: str
    nearest: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        lines = [f"{self.key}={as_typed(self.value)}", f"  allowed: {self.allowed}"]
        if self.nearest:
            lines.append(f"  did you mean: {self.nearest}")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)


class ConfigError(UserError):
    """A configuration that must not be trained.

    Args:
        problems: what is wrong, most important first.
        arm: the arm of the study in which it was found, if not in the baseline.
        file: the YAML file in which it stands, if it was not typed.
    """

    def __init__(self, problems: Sequence[Problem], arm: str | None = None, file: str | None = None):
        shown = [str(problem) for problem in problems[:MAX_PROBLEMS_SHOWN]]
        if len(problems) > MAX_PROBLEMS_SHOWN:
            shown.append(f"... and {len(problems) - MAX_PROBLEMS_SHOWN} more")
        where = f" (in arm {arm})" if arm else f" (in the file {file})" if file else ""
        super().__init__(f"configuration error{where}: " + "\n".join(shown))
        self.problems = tuple(problems)
        self.arm = arm


def one_line(error: Exception) -> str:
    """An error in one line; one that nobody foresaw begins with its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
