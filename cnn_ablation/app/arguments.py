"""The words of the command line, read before Hydra sees them: flags, overrides, and words that the shell took apart."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile
from pathlib import Path

from cnn_ablation.app import keys
from cnn_ablation.common.errors import ConfigError, Problem, UserError
from cnn_ablation.config import nearest

ZIP = "zip."
"""`zip.NAME={key:value,key:value},{...}` is a knob called NAME whose levels move several keys together."""
PARAMS = "hydra.sweeper.params"
"""Where a study file names its knobs."""
ZIP_EXAMPLE = "{train.batch_size:256,optimizer.lr:4e-3}"


@dataclass(frozen=True)
class Flag:
    """A flag, its short form, and what follows it."""

    name: str
    short: str = ""
    value: str = ""
    """How its value is called; none if empty."""
    choices: tuple[str, ...] = ()
    is_optional: bool = False
    """Its value may be left out."""

    def __str__(self) -> str:
        return f"{self.name} {self.value}".rstrip()


FLAGS = (
    Flag("--help", "-h"),
    Flag("--version"),
    Flag("--multirun", "-m"),
    Flag("--cfg", "-c", "job|hydra|all", ("job", "hydra", "all")),
    Flag("--resolve"),
    Flag("--config-dir", "-cd", "DIR"),
    Flag("--config-name", "-cn", "NAME"),
    Flag("--config-path", "-cp", "DIR"),
    Flag("--package", "-p", "NAME"),
    Flag("--run", "-r"),
    Flag(
        "--info",
        "-i",
        "WHAT",
        ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
        is_optional=True,
    ),
    Flag("--experimental-rerun", "", "FILE"),
    Flag("--shell-completion", "-sc"),
    Flag("--hydra-help"),
)
"""Hydra's flags, and `--version`, which is ours."""

_COMMANDS = ("report", "describe", "predict", "store")
_ONE_OF = ("--run", "--multirun", "--cfg", "--info", "--shell-completion")


@dataclass(frozen=True)
class Arguments:
    """A command line, taken apart."""

    flags: dict[str, str]
    """Long name -> value, empty for a flag without one."""
    overrides: list[str]

    def words(self) -> list[str]:
        """What Hydra is given: flags first, as its parser wants them."""
        flags = (word for name, value in self.flags.items() for word in (name, value) if word)
        return [*flags, *self.overrides]


def read(words: Sequence[str]) -> Arguments:
    """Takes a command line apart; flags may stand anywhere.

    Raises:
        UserError: an unknown flag, a flag without its value, or a word that is no KEY=VALUE.
    """
    arguments = _taken_apart(words)
    if {"--help", "--version", "--hydra-help", "--shell-completion"} & arguments.flags.keys():
        return arguments
    _check_flags(arguments.flags)
    _check_words(arguments.overrides)
    return arguments


def _taken_apart(words: Sequence[str]) -> Arguments:
    flags: dict[str, str] = {}
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            overrides += rest
            break
        if word.startswith("-") and len(word) > 1:
            flag, given = _flag(word)
            flags[flag.name] = _value(flag, given, rest)
        else:
            overrides.append(word)
    return Arguments(flags, overrides)


def _flag(word: str) -> tuple[Flag, str | None]:
    """The flag and the value behind its `=`, if there is one; a long name may be cut short."""
    name, equals, value = word.partition("=")
    found = [flag for flag in FLAGS if name in (flag.name, flag.short)]
    if not found and name.startswith("--") and len(name) > len("--"):
        found = [flag for flag in FLAGS if flag.name.startswith(name)]
    if len(found) != 1:
        raise _unknown_flag(word)
    return found[0], value if equals else None


def _unknown_flag(word: str) -> UserError:
    flags = ", ".join(flag.short or flag.name for flag in FLAGS[:6])
    return UserError(
        f"configuration error: {word}\n  allowed: the flags {flags}, and settings as KEY=VALUE; --help lists both\n"
        f"  {_meant_by_flag(word)}"
    )


def _meant_by_flag(word: str) -> str:
    """The flag spelt alike, or the setting that users of other programs write as one: `--dry-run`, `--epochs=3`."""
    name, _, value = word.lstrip("-").partition("=")
    flag = nearest(word.partition("=")[0], [flag.name for flag in FLAGS])
    found = keys.suggestion(name.replace("-", "_"), value or "...") if len(name) > 1 else keys.Suggestion()
    key = (found.nearest or "").partition("=")[0]
    if flag and _likeness(name, flag.lstrip("-")) >= _likeness(name, key.rpartition(".")[2]):
        return f"did you mean: {flag}"
    if not key:
        return f"remedy: {found.remedy or 'leave it out'}"
    field = keys.schema_keys().get(key)
    return f"did you mean: {key}={value or ('true' if field is not None and field.type == 'bool' else 'VALUE')}"


def _likeness(first: str, second: str) -> float:
    return SequenceMatcher(None, first, second).ratio()


def _value(flag: Flag, given: str | None, rest: list[str]) -> str:
    """The value of a flag, from behind its `=` or from the next word, which is then taken away."""
    if not flag.value:
        if given is not None:
            raise UserError(
                f"configuration error: {flag.name}={given}\n  allowed: {flag.name} alone; it takes no value"
            )
        return ""
    if given is None and rest and (rest[0] in flag.choices or not (flag.choices or rest[0].startswith("-"))):
        given = rest.pop(0)
    if given is None and flag.is_optional:
        return flag.choices[0]
    if not given or (flag.choices and given not in flag.choices):
        given = given or (rest[0] if flag.choices and rest and "=" not in rest[0] else "")
        allowed = ", ".join(flag.choices) or f"one {flag.value} behind it"
        raise UserError(
            f"configuration error: {flag.name} {given}".rstrip()
            + f"\n  allowed: {allowed}\n  remedy: {flag.name} {flag.choices[0] if flag.choices else flag.value}"
        )
    return given


def _check_flags(flags: dict[str, str]) -> None:
    together = [name for name in _ONE_OF if name in flags]
    if len(together) > 1:
        raise UserError(
            f"configuration error: {' '.join(together)}\n  allowed: one of {', '.join(_ONE_OF)}\n"
            f"  remedy: leave out {together[0]}" + (", and give one value for each key" if "--cfg" in together else "")
        )
    if "--resolve" in flags and "--cfg" not in flags:
        raise UserError("configuration error: --resolve\n  allowed: with --cfg only\n  remedy: --cfg job --resolve")
    folder = flags.get("--config-dir")
    if folder is not None and not Path(folder).is_dir():
        what = "is a file" if Path(folder).exists() else "is not there"
        raise UserError(
            f"configuration error: --config-dir {folder}\n  allowed: a folder with YAML files; this {what}\n"
            f"  remedy: the folder that holds your data/, model/, optimizer/ or study/, seen from {Path.cwd()}"
        )


def _check_words(words: Sequence[str]) -> None:
    """Refuses what cannot be KEY=VALUE, with the mistake that a person made, not the one a parser meets."""
    for number, word in enumerate(words):
        key, equals, value = word.partition("=")
        after = words[number + 1 :]
        if not word.strip():
            raise UserError(
                "configuration error: an empty word\n  allowed: KEY=VALUE\n"
                "  remedy: look for a variable of the shell that is empty"
            )
        if equals and open_brackets(value) > 0:
            _refuse_torn(word, after)
        if equals and not key.strip("+~ "):
            raise UserError(f"configuration error: {word}\n  allowed: KEY=VALUE\n  remedy: a key before the '='")
        if not equals and not word.startswith("~"):
            raise UserError("\n".join(_without_equals(word, words[number - 1] if number else "", after)))
        if key.lstrip("+") in (ZIP.rstrip("."), ZIP) or key.lstrip("+").startswith(ZIP):
            _check_zip(key.lstrip("+"), value)


def open_brackets(text: str) -> int:
    """Brackets and braces that are opened and not closed, outside quotes."""
    return next((depth for _, depth, _ in reversed(list(scanned(text)))), 0)


def scanned(text: str) -> Iterator[tuple[str, int, bool]]:
    """Each character, with the brackets open behind it and whether it stands in quotes."""
    depth, quote = 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "[{(") - (character in "]})")
        yield character, depth, bool(quote)


def _refuse_torn(word: str, after: Sequence[str]) -> None:
    """A list with spaces that the shell has cut into words; what no word behind it closes is left to Hydra's parser."""
    whole = word
    for number, part in enumerate(after):
        if "=" in part:
            return
        whole += f" {part}"
        if open_brackets(whole) == 0:
            behind = "the next word is" if number == 0 else "the next words are"
            raise UserError(
                f"configuration error: {word}\n"
                f"  allowed: a whole list in one word; {behind} {' '.join(after[: number + 1])}\n"
                f"  remedy: quote it for the shell: '{whole}'"
            )


def _without_equals(word: str, before: str, after: Sequence[str]) -> Iterator[str]:
    """Why a word is no KEY=VALUE."""
    yield f"configuration error: {word}"
    yield "  cannot be read as KEY=VALUE: there is no '=' in it"
    meant = _without_spaces(word, before, after) or _as_command(word, after) or _as_setting(word, after)
    yield (
        f"  did you mean: {meant}"
        if meant
        else ("  remedy: KEY=VALUE, with quotes where a value has spaces: 'model.filters=[24, 48, 96]'")
    )


def _without_spaces(word: str, before: str, after: Sequence[str]) -> str:
    """A setting that spaces have cut apart; empty if none has been."""
    if before.endswith("="):
        return f"{before}{word}, without the space"
    if "=" in before and (before.endswith(",") or word.startswith(",")):
        levels = (word, *takewhile(lambda each: "=" not in each, after))
        return f"{before}{''.join(levels)}, without spaces"
    if after and after[0].startswith("="):
        return f"{word}={after[0].removeprefix('=') or ''.join(after[1:2])}, without spaces"
    return ""


def _as_setting(word: str, after: Sequence[str]) -> str:
    """The setting that a key, or an option of a group, stands for; empty if it is neither."""
    key, colon, value = word.partition(":")
    field = keys.schema_keys().get(word)
    if colon and value:
        return f"{key}={value}"
    if field is not None and after and "=" not in after[0]:
        return f"{word}={after[0]}"
    if field is not None:
        return f"{word}={'true' if field.type == 'bool' else keys.default(field)}"
    return " or ".join(f"{group}={word}" for group, options in keys.group_options().items() if word in options)


def _as_command(word: str, after: Sequence[str]) -> str:
    """The command, or the flag, that a word is the name of; empty if it is none."""
    if word == "guide":
        return "python -m cnn_ablation guide, without other words"
    if word in _COMMANDS and (word != "store" or after[:1] in (["list"], ["prune"])):  # which is a key too
        return f"{shlex.join(['python', '-m', f'cnn_ablation.{word}', *after])}, a command of its own"
    return f"--{word}" if word in ("help", "version") else ""


def _check_zip(key: str, value: str) -> None:
    name = key.removeprefix(ZIP) if key.startswith(ZIP) else ""
    if not name:
        raise ConfigError([Problem(key, value, "a name behind zip.", remedy=f"'zip.large={ZIP_EXAMPLE}'")])
    if not value.startswith(("{", "choice(", "sort(", "shuffle(", "'", '"', "tag(")):
        raise ConfigError([not_a_zip(key, value)])


def not_a_zip(key: str, value: object) -> Problem:
    """Levels of a zipped knob that are no dictionaries of keys."""
    allowed = "dictionaries of config keys, in quotes: a shell takes bare braces apart"
    return Problem(key, value, allowed, remedy=f"'{key}={ZIP_EXAMPLE}' (with -m)")
