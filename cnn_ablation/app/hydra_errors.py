"""Hydra's and OmegaConf's errors as one message: key, value given, values allowed, nearest spelling, remedy."""

from __future__ import annotations

import dataclasses
import re
import traceback
from typing import Any

import yaml
from hydra.core.utils import run_job
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from cnn_ablation.app import keys
from cnn_ablation.app.arguments import PARAMS, ZIP, ZIP_EXAMPLE, open_brackets
from cnn_ablation.common.errors import ConfigError, Problem, RecordError, UserError, as_typed
from cnn_ablation.config import StudyConfig, nearest
from cnn_ablation.runs.task import TASKS
from cnn_ablation.study import checks
from cnn_ablation.study.designs import knob
from cnn_ablation.study.plans import ANOTHER_FOLDER
from cnn_ablation.tasks.image_classification.config import GROUPS, Config

HYDRA_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)

_SUGGESTED_APPEND = re.compile(r"use \+(?P<key>[^=]+)=(?P<value>.*)")
_SWEEP_ALONE = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(?P<key>[^=]+)=(?P<value>.*)'")
_SWEEP_OF_HYDRA = re.compile(r"Sweeping over Hydra's configuration is not supported : '(?P<key>[^=]+)=(?P<value>.*)'")
_IN_A_FILE = re.compile(r"In '(?P<path>[^']+)': \w+ raised while composing config")
_NO_TOKEN = "LexerNoViableAltException: "
_LIBRARIES = ("hydra", "omegaconf", "antlr4", "yaml")
_GROUP_ELSEWHERE = re.compile(
    r"Could not override '(?P<group>[\w/]+)'\. No match in the defaults list\.\s+.*\+(?P=group)=(?P<option>\S+)",
    re.DOTALL,
)
_MAX_LINES = 9

_INSTALLED_BY = {"ray_aws": "hydra-ray-launcher", "rq": "hydra-rq-launcher"}
"""Launchers that Hydra knows and this package has not -> the package that brings them."""


def explain(error: BaseException) -> UserError:
    """The message for a person, from whatever Hydra raised."""
    if denied := _denied(error):
        return RecordError(f"cannot write to {denied.filename}: {denied.strerror}\n  remedy: {ANOTHER_FOLDER}")
    if isinstance(error, OverrideParseException):
        return _unreadable_override(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_option(error)
    file = _IN_A_FILE.match(str(error))
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or (file and error.__context__)
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        problem = _wrong_key_or_value(cause, str(error))
        return ConfigError([problem], file=f"{file['path']}.yaml" if file else None)
    if isinstance(error, HYDRA_ERRORS):
        return _from_text(str(error))
    unreadable = _file_being_read(error) if isinstance(error, UnicodeDecodeError) else None
    no_text = f"{unreadable} is no text ({error})\n  remedy: save it as UTF-8"
    words = no_text if unreadable else f"Hydra cannot read this ({type(error).__name__}: {error})"
    return UserError(f"configuration error: {words}")


def _wrong_key_or_value(cause: OmegaConfBaseException, text: str) -> Problem:
    if not isinstance(cause, ConfigKeyError | ConfigAttributeError) or cause.object_type is None:
        return _wrong_value(cause)
    typed = _SUGGESTED_APPEND.search(text)
    key, value = (typed["key"], typed["value"]) if typed else (str(cause.full_key), "...")
    if str(cause.full_key).count(".") > 2 and str(cause.full_key).startswith("hydra.launcher."):
        return _to_be_added(key, value, str(cause.full_key))
    if key.startswith("hydra.launcher.") and isinstance(cause.parent_node, DictConfig):
        return _unknown_to_launcher(key, value, [str(name) for name in cause.parent_node])
    return unknown_key(key, value, cause.object_type, missing=str(cause.full_key))


def _to_be_added(key: str, value: str, full_key: str) -> Problem:
    """A name below a key of a launcher that takes any, which Hydra wants to be told of."""
    level = value if key == full_key else "VALUE"
    return Problem(key, value, "with a + before it where the names are free", remedy=f"+{full_key}={level}")


def _unknown_to_launcher(key: str, value: str, names: list[str]) -> Problem:
    """A key that the launcher which is chosen has not; another one may have it."""
    known = [name for name in names if not name.startswith("_")]
    group, _, name = key.rpartition(".")
    close = nearest(name, known)
    allowed = f"keys of the launcher that is chosen: {', '.join(known)}" if known else "no key: this launcher has none"
    remedy = None if close else "hydra/launcher=NAME chooses another launcher (conf/hydra/launcher)"
    return Problem(key, value, allowed, nearest=f"{group}.{close}={value}" if close else None, remedy=remedy)


def _from_text(text: str) -> UserError:
    """Errors that Hydra tells in words only."""
    if found := _SWEEP_ALONE.search(text):
        return _sweep_without_multirun(found["key"], found["value"])
    if found := _SWEEP_OF_HYDRA.search(text):
        remedy = "one command for each of them"
        return ConfigError([Problem(found["key"], found["value"], "one value: it is no knob", remedy=remedy)])
    if found := _GROUP_ELSEWHERE.search(text):
        group, option = found["group"], found["option"]
        allowed = f"groups of the task that is chosen; {group} belongs to task={next(iter(TASKS))}"
        return ConfigError([Problem(group, option, allowed, remedy=f"leave it out, or task={next(iter(TASKS))}")])
    lines = [line for line in text.splitlines() if line.strip()]
    return UserError("configuration error: " + "\n  ".join(lines[:_MAX_LINES]))


def is_from_hydra(error: BaseException) -> bool:
    """Whether an error was raised inside Hydra or below it, as its assertions are, and not by our code."""
    if isinstance(error, OSError) and not _denied(error):  # nobody reads what Hydra prints, or the disk is full
        return False
    names = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    rooms = [name.partition(".")[0] for name in names]
    return next((room in _LIBRARIES for room in reversed(rooms) if room in (*_LIBRARIES, "cnn_ablation")), False)


def _denied(error: BaseException) -> OSError | None:
    """What kept Hydra from making a job's folder or a file in it; its log says so in other words."""
    cause = error if isinstance(error, OSError) else error.__cause__
    is_of_a_job = any(frame.f_code is run_job.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))
    return cause if is_of_a_job and isinstance(cause, OSError) and cause.filename else None


def _file_being_read(error: BaseException) -> str | None:
    """The configuration file that Hydra had opened; its error does not name it."""
    opened = [frame.f_locals.get("full_path") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((str(path) for path in reversed(opened) if path), None)


def _sweep_without_multirun(key: str, value: str) -> UserError:
    """Several values without `-m`: a knob that needs it, or what is no knob with it either."""
    if key.startswith(ZIP):  # a single level is given to Hydra as `choice({...})`
        value = re.sub(r"^choice\((.*)\)$", r"\1", value)
    else:
        try:
            checks.check_study("one_at_a_time", [knob(key, [value])], _any_config())
        except ConfigError as error:
            return ConfigError([dataclasses.replace(problem, key=key, value=value) for problem in error.problems[:1]])
    remedy = "add --multirun (-m): then it is a knob, and each of its values is compared with the baseline"
    return ConfigError([Problem(key, value, "one value, where a single configuration is trained", remedy=remedy)])


def _any_config() -> Config:
    """With the first option of every group, for what does not hang on the options."""
    chosen: dict[str, Any] = {group: next(iter(options.values()))() for group, options in GROUPS.items()}
    return Config(**chosen)


def unknown_key(key: str, value: Any, owner: type, *, missing: str) -> Problem:
    """A key that the schema lacks, with the known key spelled most like it.

    Args:
        key: as typed, `model.activatoin`.
        value: as typed.
        owner: the dataclass that lacks it.
        missing: the part of `key` up to the name that `owner` lacks.
    """
    if key == "study":
        allowed = "keys as they stand in --cfg job, in a file that is no part of a group"
        return Problem(key, value, allowed, remedy="begin the file with the line '# @package _global_'")
    if issubclass(owner, StudyConfig) and owner is not Config:
        return _foreign_key(key, value, owner)
    if owner is Config or not dataclasses.is_dataclass(owner) or key in ("hydra.launcher", "hydra.sweeper"):
        found: keys.Suggestion | None = keys.suggestion(key, str(value))
        allowed = f"known keys and groups ({', '.join(GROUPS)}, study); --help lists all"
    else:
        group, _, name = missing.rpartition(".")
        names = [item.name for item in dataclasses.fields(owner)]
        allowed, close = f"keys of {group}: {', '.join(names)}", nearest(name, names)
        rest = key.removeprefix(missing)
        is_misspelt = close and not _options_with(key, owner)
        found = (
            keys.suggestion(f"{group}.{close}{rest}", str(value), [f"{group}.{close}{rest}"]) if is_misspelt else None
        )
    if found is None or found == keys.Suggestion():
        found = keys.Suggestion(remedy=keys.in_other_words(key) or _where_it_belongs(key, owner))
    return Problem(key, value, allowed, nearest=found.nearest, remedy=found.remedy)


def _foreign_key(key: str, value: Any, owner: type) -> Problem:
    """A key that the chosen task lacks; most often it is one of image classification."""
    names = [name for name in keys.schema_keys(owner) if not name.startswith(("arm.", "stats."))]
    first = next(iter(TASKS))
    part = key.partition(".")[0]
    is_of_images = key in keys.schema_keys() or part in GROUPS
    return Problem(
        key,
        value,
        f"keys of the task that is chosen: {', '.join(names)}",
        nearest=None if is_of_images or not (found := nearest(key, names)) else f"{found}={value}",
        remedy=f"this key belongs to task={first}" if is_of_images else None,
    )


def _where_it_belongs(key: str, owner: type) -> str:
    options = [f"{key.rpartition('.')[0]}={option}" for option in _options_with(key, owner)]
    return (
        f"this key belongs to {' and '.join(options)}" if options else "`python -m cnn_ablation --help` lists every key"
    )


def _options_with(key: str, owner: type) -> list[str]:
    """The options of a config group that have the key, where the chosen one has not."""
    name = key.rpartition(".")[2]
    siblings = next((options.values() for options in GROUPS.values() if owner in options.values()), ())
    return [
        str(vars(option)["name"]) for option in siblings if name in {item.name for item in dataclasses.fields(option)}
    ]


def _wrong_value(error: OmegaConfBaseException) -> Problem:
    """A value of the wrong type, with the type and bounds of its field."""
    key = re.sub(r"\[.*", "", str(error.full_key))
    if key == PARAMS:
        remedy = "params:, and below it, indented, model.dropout: 0.0,0.3"
        return Problem(key, error.value, "whole keys, each with its levels as text", remedy=remedy)
    reason = str(error.msg or error).splitlines()[0]
    field = keys.schema_keys().get(key)
    value = "null" if error.value is None else error.value
    if field is not None:
        remedy = "; ".join(filter(None, (_remedy(key, field, error), f"the default is {keys.default(field)}")))
        return Problem(str(error.full_key), value, keys.allowed(field), remedy=remedy)
    inside = [name for name in keys.schema_keys() if name.startswith(f"{key}.")]
    if inside:
        names = ", ".join(name.removeprefix(f"{key}.") for name in inside)
        return Problem(key, value, f"keys of {key}: {names}", remedy=f"{inside[0]}=VALUE")
    return Problem(key, value, reason)


def _remedy(key: str, field: keys.Field, error: OmegaConfBaseException) -> str:
    """What may be meant by a value of the wrong type; else why it has none, where the type does not say it."""
    wants_list = str(field.type).startswith("list")
    if wants_list and isinstance(error.value, int | str) and keys.fits(field, f"[{error.value}]"):
        return f"{key}=[{error.value}]"
    if not wants_list and isinstance(error.value, list | ListConfig):
        levels = ",".join(map(as_typed, error.value))
        return f"{'-m ' if len(error.value) > 1 else ''}{key}={levels} without brackets"
    return "" if isinstance(error, ValidationError) else str(error.msg or error).splitlines()[0]


def _unreadable_override(error: OverrideParseException) -> UserError:
    typed, reason = str(error.override), str(error.message)
    key, _, value = typed.partition("=")
    if "empty choice" in reason:
        return ConfigError([Problem(key, value, "one level or more; this list is empty", remedy=f"{key}=A,B")])
    if key.startswith(ZIP):
        remedy = f"close every bracket and quote: '{key}={ZIP_EXAMPLE}'"
    elif value and not value.startswith(("[", "{")) and open_brackets(value) == 0:
        remedy = f"quote the value for Hydra, and all of it for the shell: \"{key}='{value}'\""
    else:
        remedy = "close every bracket and quote, and quote lists for the shell: 'model.filters=[24,48,96]'"
    return UserError(
        f"configuration error: {typed}\n  cannot be read as KEY=VALUE: {_why(typed, reason)}\n  remedy: {remedy}"
    )


def _why(typed: str, reason: str) -> str:
    """The parser's reason, without its list of tokens and its link."""
    lines = [line for line in reason.splitlines() if not line.startswith(("See http", "Error parsing override"))]
    if lines[0].startswith(_NO_TOKEN) and len(lines) > 1:  # the second line points at the character
        return f"{typed[len(lines[1]) - len(_NO_TOKEN) - 1]} cannot stand there without quotes"
    return re.sub(r" expecting (\{.*\}|<EOF>)| at '<EOF>'", "", lines[0])


def _unknown_option(error: MissingConfigException) -> UserError:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = [str(name) for name in error.options or ()]
    if not group:
        return UserError(
            f"configuration error: there is no configuration file '{option}.yaml'\n"
            f"  remedy: --config-name NAME of a file in --config-dir DIR, or neither of them"
        )
    found = nearest(option, options) or next((name for name in options if option in name.split("_")), None)
    package = _INSTALLED_BY.get(option) if group == "hydra/launcher" else None
    allowed = ", ".join(options) or "no such group"
    return ConfigError(
        [
            Problem(
                group,
                option,
                f"{allowed} (what is installed)" if package else allowed,
                nearest=f"{group}={found}" if found else None,
                remedy=f"pip install {package}" if package else None,
            )
        ]
    )
