"""What the command line and a study file ask for: knobs, and settings that hold for all arms. Composes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer, ValueType
from hydra.errors import HydraException

from cnn_ablation.app import keys
from cnn_ablation.app.arguments import PARAMS, ZIP, ZIP_EXAMPLE, not_a_zip, scanned
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.config import LABEL as OF_ARM
from cnn_ablation.config import role_of
from cnn_ablation.study.designs import DESIGNS, FULL, LABEL, Arm, Knob, knob, zipped_knob
from cnn_ablation.tasks.image_classification.config import GROUPS

MAX_LEVELS = 10_000


@dataclass(frozen=True)
class StudyRequest:
    """What is asked for, before anything is composed."""

    fixed: dict[str, str]
    """Key -> override that holds for all arms."""
    knobs: list[Knob]
    typed: dict[tuple[str, str], str] = field(default_factory=dict)
    """(knob, label of a level) -> the level as it was typed: `optimizer.lr=1e-3`."""
    dropped: list[str] = field(default_factory=list)
    """Overrides of the command line that replace a knob of the study file by one value."""
    _prefixes: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def overrides(self, arm: Arm) -> list[str]:
        """What composes an arm."""
        kept, own = self.parts(arm)
        return [*kept, *own]

    def parts(self, arm: Arm) -> tuple[list[str], list[str]]:
        """The overrides that an arm shares, and its own, which take the place of fixed ones of the same keys."""
        settings = dict(arm.settings)
        kept = [line for key, line in self.fixed.items() if key not in settings]
        return kept, [f"{self._settable(key)}{value}" for key, value in arm.settings]

    def _settable(self, key: str) -> str:
        """What stands before a key's value; told once, because the whole schema is looked through."""
        if key not in self._prefixes:
            self._prefixes[key] = keys.settable(f"{key}=")
        return self._prefixes[key]

    def name(self, arm: Arm) -> str:
        """An arm by its levels as they were typed, for messages."""
        levels = [
            self.typed.get((knob.name, level.label), f"{knob.name}={level.label}")
            for knob in self.knobs
            for level in knob.levels
            if all(setting in arm.settings for setting in level.settings)
        ]
        typed = ",".join(dict.fromkeys(levels))
        return f"{arm.name}: {typed}" if arm.name.startswith(FULL) else typed or arm.name


def read_request(from_file: Sequence[Override], from_command: Sequence[Override]) -> StudyRequest:
    """Separates knobs from overrides that hold for all arms.

    What is typed replaces a knob of the study file: a list by other levels, a single value by none. Among what is
    typed, a single value before a list is the baseline's.

    Raises:
        ConfigError: a key has two lists, or a list and then a value; a list is empty, open or too long; a zipped knob
            has no dictionaries; a knob of the study file is no list.
    """
    knobs = {_key(override): _read_knob(override) for override in from_file}
    lists = {_key(override): override for override in from_file}
    typed: set[str] = set()
    fixed, dropped = dict[str, str](), list[str]()
    for override in from_command:
        key, line = _key(override), str(override.input_line)
        if key in typed:
            raise ConfigError([_given_twice(key, lists[key], override)])
        if _is_knob(override):
            knobs[key], lists[key] = _read_knob(override), override
            typed.add(key)
        else:
            if knobs.pop(key, None):
                dropped.append(line)
            fixed[key] = line
    texts = {key: text for name in knobs for key, text in _typed_levels(knobs[name], lists[name]).items()}
    return StudyRequest(fixed, list(knobs.values()), texts, dropped)


def parse(lines: Sequence[str], parser: OverridesParser | None = None) -> list[Override]:
    """Reads overrides as Hydra does.

    Raises:
        HydraException: one of them cannot be read.
    """
    return (parser or OverridesParser.create()).parse_overrides(list(lines))


def parse_params(params: Mapping[str, str], parser: OverridesParser) -> list[Override]:
    """Reads the knobs of a study file.

    Raises:
        ConfigError: levels that cannot be read.
    """
    parsed = []
    for key, value in params.items():
        try:
            parsed += parse([f"{key}={value}"], parser)
        except HydraException as error:
            example = ZIP_EXAMPLE if key.startswith(ZIP) else "A,B"
            allowed = "levels as text, below the whole key, as in model.dropout: 0.0,0.3"
            remedy = f'{key}: "{example}" in the study\'s file'
            raise ConfigError([Problem(f"{PARAMS}.{key}", value, allowed, remedy=remedy)]) from error
    return parsed


def as_sweep(override: Override) -> str:
    """An override in the form in which Hydra takes it.

    A zipped knob with a single level looks like a value for an unknown key; `choice` makes it a sweep.
    """
    line = str(override.input_line)
    if not _key(override).startswith(ZIP) or override.is_sweep_override():
        return keys.settable(line)
    key, _, value = line.partition("=")
    return f"{key.lstrip('+')}=choice({value})"


def check_options(overrides: Sequence[Override]) -> None:
    """Refuses typed values that Hydra would take without a word, or fail at with an assertion.

    Raises:
        ConfigError: with all problems found.
    """
    problems = [problem for override in overrides if (problem := _problem(override, _value_text(override)))]
    if problems:
        raise ConfigError(problems)


def _problem(override: Override, text: str) -> Problem | None:
    key, value = _key(override), override.value()
    if key.startswith("hydra"):
        return None if isinstance(value, dict) else _problem_of_hydra(key, value, text)
    if key == "study" and override.is_sweep_override():
        allowed = "one study: it is no knob, and brings knobs of its own"
        return Problem(key, text, allowed, remedy="one command for each study")
    if key in (*GROUPS, "study") and not _is_option(override):
        options = keys.group_options().get(key, [])
        return Problem(key, text, f"one of {', '.join(options)}", remedy=f"{key}={options[0]}")
    if _names_arms(key) and not override.is_sweep_override():
        remedy = "leave it out; label:WORD in 'zip.NAME={label:WORD,KEY:VALUE}' names a level of your own"
        return Problem(key, text, "no value: a study names its arms itself, by what they change", remedy=remedy)
    field = keys.schema_keys().get(key)
    if field is not None and field.type == "bool" and isinstance(value, int | float) and value not in (0, 1):
        return Problem(key, text, "bool", remedy=f"{key}=true or {key}=false; the default is {keys.default(field)}")
    return None


def _names_arms(key: str) -> bool:
    """Whether it says, alone or with others, which arm a run belongs to; jobs are told so by their study."""
    found = [item for name, item in keys.schema_keys().items() if f"{name}.".startswith(f"{key}.")]
    return bool(found) and all(role_of(item) is OF_ARM for item in found)


def _problem_of_hydra(key: str, value: object, text: str) -> Problem | None:
    if key in ("hydra.launcher", "hydra.sweeper"):
        found = keys.suggestion(key, text)
        return Problem(key, text, "a group of Hydra's, chosen with a slash", nearest=found.nearest, remedy=found.remedy)
    if key in ("hydra.sweep.dir", "hydra.run.dir") and text.strip("'\"") in ("", "null"):
        remedy = f"leave it out for a new one, or {key}=. for the working directory"
        return Problem(key, text, "the name of a folder", remedy=remedy)
    if key == "hydra/sweeper" and value != "ablation":
        return other_sweeper(text).problems[0]
    if key.startswith(PARAMS):
        return Problem(key, text, "in the file of a study only", remedy="KEY=A,B on the command line (with -m)")
    if key == "hydra.sweeper.design" and isinstance(value, str) and value not in DESIGNS:
        return Problem(key, text, ", ".join(DESIGNS), nearest=keys.suggestion("design", text).nearest)
    return None


def _is_option(override: Override) -> bool:
    """Whether it chooses an option of a group, or options to compare."""
    value = override.value()
    no_study = override.key_or_group == "study" and value is None
    return isinstance(value, str | dict) or override.is_sweep_override() or override.is_delete() or no_study


def other_sweeper(name: str) -> ConfigError:
    """A sweeper of Hydra's would train, but leave no table, and heed neither designs nor `dry_run`."""
    remedy = f"hydra.sweeper.design={'|'.join(DESIGNS)} says how knobs become arms"
    return ConfigError([Problem("hydra/sweeper", name, "ablation: only this sweeper plans studies", remedy=remedy)])


def _key(override: Override) -> str:
    """`++key` means the key, which the schema has."""
    key: str = override.get_key_element()
    return key.lstrip("+") if override.is_force_add() or key.lstrip("+").startswith(ZIP) else key


def _value_text(override: Override) -> str:
    """The value as typed, without what `as_sweep` puts around it."""
    text = str(override.input_line).partition("=")[2]
    if _key(override).startswith(ZIP) and text.startswith("choice(") and text.endswith(")"):
        return text.removeprefix("choice(").removesuffix(")")
    return text


def _is_knob(override: Override) -> bool:
    return bool(override.is_sweep_override()) or _key(override).startswith(ZIP)


def _given_twice(key: str, first: Override, second: Override) -> Problem:
    before, text = f"{key}={_value_text(first)}", _value_text(second)
    if _is_knob(second):
        remedy = "another name" if key.startswith(ZIP) else f"{before},{text}"
        return Problem(key, text, f"one list of levels; {before} stands before it", remedy=remedy)
    remedy = f"{key}={text} {before} for a baseline of {text}, or {key}={text} alone for no knob"
    return Problem(key, text, f"the baseline's value before the levels; {before} stands before it", remedy=remedy)


def _read_knob(override: Override) -> Knob:
    key, text = _key(override), _value_text(override)
    if key.startswith(ZIP):
        return _read_zip(key, override)
    if not override.is_sweep_override():
        remedy = (
            f"{key}: {keys.default(keys.schema_keys()[key])},{text}" if key in keys.schema_keys() else f"{key}: A,B"
        )
        raise ConfigError([Problem(f"{PARAMS}.{key}", text, "a list of levels: A,B", remedy=remedy)])
    if not override.is_discrete_sweep():
        raise ConfigError([Problem(key, text, "a list of levels", remedy=f"{key}=A,B,C or {key}=range(1,4)")])
    return knob(key, _levels(key, override))


def _levels(key: str, override: Override) -> list[str]:
    """The levels of a knob, as written into overrides."""
    text = _value_text(override)
    try:
        levels = list(itertools.islice(override.sweep_string_iterator(), MAX_LEVELS + 1))
    except (HydraException, ValueError, ArithmeticError) as error:
        raise ConfigError([Problem(key, text, "levels that end", remedy=f"{key}=range(1,4), {key}=A,B")]) from error
    if 0 < len(levels) <= MAX_LEVELS:
        return levels
    if levels:
        problem = Problem(key, text, f"at most {MAX_LEVELS} levels", remedy="fewer of them")
    elif override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        problem = _glob_of_nothing(key, text)
    else:
        problem = Problem(key, text, "one level or more; this list is empty", remedy=f"{key}=A,B or {key}=range(1,4)")
    raise ConfigError([problem])


def _glob_of_nothing(key: str, text: str) -> Problem:
    options = keys.group_options().get(key)
    if options:
        return Problem(key, text, f"a pattern of {', '.join(options)}", remedy=f"{key}={','.join(options[:2])}")
    known = keys.schema_keys().get(key)
    remedy = f"{key}=A,B" if known is None else f"{key}=A,B with levels that are {keys.allowed(known)}"
    return Problem(key, text, f"glob for a config group ({', '.join(GROUPS)}), not for a key", remedy=remedy)


def _read_zip(key: str, override: Override) -> Knob:
    """A knob from dictionaries of keys; a single one is a level too, to compare with the baseline."""
    text = _value_text(override)
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    dictionaries = [value for value in values if isinstance(value, dict) and value.keys() - {LABEL}]
    if len(dictionaries) < len(values) or not values:
        raise ConfigError([not_a_zip(key, text)])
    levels = [{str(name): Transformer.encode(value) for name, value in level.items()} for level in dictionaries]
    zipped = zipped_knob(key.removeprefix(ZIP), levels)
    labels = [level.label for level in zipped.levels]
    for level in zipped.levels:
        if labels.count(level.label) > 1 and any(other.settings != level.settings for other in zipped.levels):
            allowed = f"a label of its own for each level; {level.label} stands there twice"
            raise ConfigError([Problem(key, text, allowed, remedy="label:ANOTHER_WORD")])
    return zipped


def _typed_levels(levels: Knob, override: Override) -> dict[tuple[str, str], str]:
    """(knob, label) -> text, where the list tells its levels apart by commas."""
    text = _value_text(override)
    if text.startswith("choice(") and text.endswith(")"):
        text = text.removeprefix("choice(").removesuffix(")")
    parts = _split(text)
    if len(parts) != len(levels.levels):
        return {}
    key = _key(override)
    return {(levels.name, level.label): f"{key}={part}" for level, part in zip(levels.levels, parts, strict=True)}


def _split(text: str) -> list[str]:
    """Parts between the commas that stand outside brackets and quotes."""
    parts = [""]
    for character, depth, quoted in scanned(text):
        if character == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
