"""How knobs become arms. Pure: names, values and scores in, arms out; nothing is composed, launched or read here.

A design is a function from the knobs and the scores known so far to all arms known so far. It is asked again whenever
new scores are in, and the study is complete when it names no new arm. Only `greedy` looks at the scores.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any

_TRUTH = re.compile(r"\b(True|False)\b")
BASELINE = "baseline"
LABEL = "label"
FULL = "full"

Setting = tuple[str, Any]
"""A config key and its value: as written on the command line, or as a Python value."""


@dataclass(frozen=True)
class Level:
    """One value of a knob; a zipped level moves several keys together."""

    label: str
    settings: tuple[Setting, ...] = field(hash=False)


@dataclass(frozen=True)
class Knob:
    """What a study varies: a config key (or a name for several) and its levels."""

    name: str
    levels: tuple[Level, ...]

    @property
    def keys(self) -> list[str]:
        """The config keys it moves."""
        return list(dict.fromkeys(key for level in self.levels for key, _ in level.settings))


@dataclass(frozen=True)
class Arm:
    """One configuration to train: the baseline with `settings` on top."""

    name: str
    knob: str = ""
    level: str = ""
    settings: tuple[Setting, ...] = field(default=(), hash=False)


Score = Callable[[Arm], float | None]
"""Mean validation accuracy of an arm over its seeds; None while it is not trained."""


def knob(key: str, values: Sequence[Any]) -> Knob:
    """A knob whose levels are the values of a single key."""
    return Knob(key, tuple(Level(label_of(value), ((key, value),)) for value in values))


def zipped_knob(name: str, levels: Sequence[dict[str, Any]]) -> Knob:
    """A knob whose levels set several keys together: `{"train.batch_size": 256, "optimizer.lr": 4e-3}`.

    A `label` among them names the level in tables; it is no key.
    """
    return Knob(name, tuple(_zipped_level(level) for level in levels))


def _zipped_level(level: dict[str, Any]) -> Level:
    settings = {key: value for key, value in level.items() if key != LABEL}
    return Level(label_of(level.get(LABEL, "")) or _zipped_label(settings), tuple(settings.items()))


def _zipped_label(level: dict[str, Any]) -> str:
    return "{" + ",".join(f"{key}:{label_of(value)}" for key, value in level.items()) + "}"


def label_of(value: Any) -> str:
    """A value as typed on the command line: `true` for True, `[24,48]` for a list, the name of a group's option."""
    value = "null" if value is None else getattr(value, "name", value)
    if isinstance(value, list):
        return f"[{','.join(map(label_of, value))}]"
    text = str(value).replace(" ", "") if isinstance(value, dict) else str(value)
    if text in ("True", "False") or text.startswith(("[", "{")):  # Hydra writes Python's truths within a list
        text = _TRUTH.sub(lambda found: found[0].lower(), text)
    return text.strip("'\"")


def hidden_settings(knobs: Sequence[Knob]) -> dict[str, dict[str, Any]]:
    """`KNOB=LABEL` -> what the level sets, where its label does not say so: named zips, dataclasses of whole groups."""
    return {
        f"{knob.name}={level.label}": dict(level.settings)
        for knob in knobs
        for level in knob.levels
        if level.label not in (_zipped_label(dict(level.settings)), label_of(level.settings[0][1]))
        or any(is_dataclass(value) for _, value in level.settings)
    }


def keys_moved_twice(knobs: Sequence[Knob]) -> list[str]:
    """Keys that several knobs move: only `one_at_a_time` can tell what such a study means."""
    counts = Counter(key for knob in knobs for key in knob.keys)
    return [key for key, count in counts.items() if count > 1]


def labels_used_twice(knob: Knob) -> list[str]:
    """Labels of several levels that set different things: arms are told apart, and their runs found, by these."""
    first: dict[str, Level] = {}
    clashing = [level.label for level in knob.levels if first.setdefault(level.label, level) != level]
    return list(dict.fromkeys(clashing))


def one_at_a_time(knobs: Sequence[Knob]) -> list[Arm]:
    """The baseline, then each level of each knob alone."""
    return [Arm(BASELINE)] + [_arm([(knob, level)]) for knob in knobs for level in knob.levels]


def grid(knobs: Sequence[Knob]) -> list[Arm]:
    """The baseline to compare with, then the Cartesian product of all levels."""
    if not knobs:
        return [Arm(BASELINE)]
    combinations = itertools.product(*map(_choices, knobs))
    return [Arm(BASELINE)] + [_arm(list(combination)) for combination in combinations]


def _arm(chosen: Sequence[tuple[Knob, Level]]) -> Arm:
    """The arm with these levels, named after them: `model.activation=leaky,train.batch_size=256`."""
    return Arm(
        name=",".join(f"{knob.name}={level.label}" for knob, level in chosen),
        knob=",".join(knob.name for knob, _ in chosen),
        level=",".join(level.label for _, level in chosen),
        settings=tuple(setting for _, level in chosen for setting in level.settings),
    )


def leave_one_out(knobs: Sequence[Knob]) -> list[Arm]:
    """The full configuration (every knob at its last level), then the full one with one knob back at the baseline."""
    if not knobs:
        return [Arm(BASELINE)]
    lasts = {knob.name: knob.levels[-1].settings for knob in knobs}

    def full_without(*left_out: str) -> tuple[Setting, ...]:
        return tuple(setting for name, last in lasts.items() if name not in left_out for setting in last)

    without = [Arm(f"{FULL} without {name}", name, BASELINE, full_without(name)) for name in lasts]
    return [Arm(FULL, settings=full_without()), *without]


@dataclass(frozen=True)
class Step:
    """One step of a greedy study: the levels of one knob, tried on top of what earlier steps kept."""

    knob: str
    before: Arm
    candidates: tuple[Arm, ...]
    kept: Arm | None
    """None while not all scores are known."""


def greedy_steps(knobs: Sequence[Knob], score: Score) -> list[Step]:
    """The steps whose arms are known: each keeps the arm with the best validation accuracy and builds on it.

    What earlier steps kept stays where no level beats it.
    """
    steps: list[Step] = []
    current = Arm(BASELINE)
    for knob in knobs:
        candidates = tuple(_on_top(current, knob, level) for level in knob.levels)
        scores = {arm: score(arm) for arm in (current, *candidates)}
        known = all(value is not None for value in scores.values())
        kept = max(scores, key=lambda arm: scores[arm] or 0.0) if known else None
        steps.append(Step(knob.name, current, candidates, kept))
        if kept is None:
            break
        current = kept
    return steps


def _on_top(arm: Arm, knob: Knob, level: Level) -> Arm:
    """An arm with one more level: `model.filters=[64,128,256],model.activation=leaky`."""
    name = f"{knob.name}={level.label}"
    whole = f"{arm.name},{name}" if arm.settings else name
    return Arm(whole, knob.name, level.label, (*arm.settings, *level.settings))


def greedy(knobs: Sequence[Knob], score: Score) -> list[Arm]:
    """The baseline, then knob after knob on top of what validation kept so far."""
    tried = itertools.chain.from_iterable(step.candidates for step in greedy_steps(knobs, score))
    return list(dict.fromkeys([Arm(BASELINE), *tried]))


DESIGNS: dict[str, Callable[[Sequence[Knob], Score], list[Arm]]] = {
    "one_at_a_time": lambda knobs, score: one_at_a_time(knobs),
    "greedy": greedy,
    "leave_one_out": lambda knobs, score: leave_one_out(knobs),
    "grid": lambda knobs, score: grid(knobs),
}


def comparisons(design: str, knobs: Sequence[Knob], knob: Knob) -> Iterator[tuple[Arm, Arm]]:
    """Every pair of arms, without a knob and with one of its levels, that a design may come to train.

    Args:
        design: a name in `DESIGNS`.
        knobs: all of the study.
        knob: one of them.
    """
    if design == "leave_one_out":
        full, *without = leave_one_out(knobs)
        yield without[list(knobs).index(knob)], full
    elif design == "grid":
        place = list(knobs).index(knob)
        before, after = ([_choices(other) for other in part] for part in (knobs[:place], knobs[place + 1 :]))
        for first, second, level in itertools.product(
            itertools.product(*before), itertools.product(*after), knob.levels
        ):
            others = [*first, *second]
            yield (_arm(others) if others else Arm(BASELINE)), _arm([*first, (knob, level), *second])
    else:
        earlier = knobs[: list(knobs).index(knob)] if design == "greedy" else []
        yield from ((kept, _on_top(kept, knob, level)) for kept in _may_be_kept(earlier) for level in knob.levels)


def _choices(knob: Knob) -> list[tuple[Knob, Level]]:
    return [(knob, level) for level in knob.levels]


def _may_be_kept(knobs: Sequence[Knob]) -> Iterator[Arm]:
    """The baseline, then whatever validation may keep of these knobs, with few levels first."""
    for count in range(len(knobs) + 1):
        for some in itertools.combinations(knobs, count):
            for levels in itertools.product(*map(_choices, some)):
                arm = Arm(BASELINE)
                for knob, level in levels:
                    arm = _on_top(arm, knob, level)
                yield arm


@dataclass(frozen=True)
class Job:
    """One arm with the seeds that are trained in one go."""

    arm: Arm
    seeds: tuple[int, ...]


def seed_by_seed(
    arms: Sequence[Arm], seeds: Sequence[int], *, back_and_forth: bool = False, rounds_before: int = 0
) -> list[Job]:
    """All arms of the first seed, then of the second: an interrupted study is a complete smaller one.

    Each seed begins one arm later than the one before, so that what changes while a study trains (a processor that
    warms up, neighbours that come and go) is not always the same arm's.

    Args:
        arms: the first of them begins.
        seeds: one round each.
        back_and_forth: every other seed takes the arms from the last to the first instead (ABBA): what changes steadily
            then cancels over two seeds. For runs that have the machine to themselves.
        rounds_before: seeds that these arms were trained with earlier.
    """
    numbered = enumerate(seeds, start=rounds_before)
    return [Job(arm, (seed,)) for number, seed in numbered for arm in _in_turn(arms, number, back_and_forth)]


def _in_turn(arms: Sequence[Arm], number: int, back_and_forth: bool) -> list[Arm]:
    if back_and_forth:
        return list(reversed(arms)) if number % 2 else list(arms)
    first = number % max(len(arms), 1)
    return [*arms[first:], *arms[:first]]


def arm_by_arm(arms: Sequence[Arm], seeds: Sequence[int]) -> list[Job]:
    """All seeds of an arm together."""
    return [Job(arm, tuple(seeds)) for arm in arms]


def ordered(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    in_one_go: Callable[[Arm], bool],
    *,
    back_and_forth: bool = False,
    rounds_before: int = 0,
) -> list[Job]:
    """The jobs of a study in the order in which they are begun: arm by arm where an arm's seeds are trained in one go.

    The others follow as `seed_by_seed` orders them, or go first if the first arm is one of them.
    """
    at_once = [in_one_go(arm) for arm in arms]
    together, apart = (
        [arm for arm, is_one in zip(arms, at_once, strict=True) if is_one is way] for way in (True, False)
    )
    in_turn = seed_by_seed(apart, seeds, back_and_forth=back_and_forth, rounds_before=rounds_before)
    jobs = arm_by_arm(together, seeds), in_turn
    return [job for part in (jobs if together[:1] == list(arms[:1]) else reversed(jobs)) for job in part]
