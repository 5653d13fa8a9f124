"""Studies whose processes are killed while they train: what is trained says when it begins and ends, and is counted.

A study is `task=function` with a function that waits; it writes a line when it begins and one when it ends. A `Study`
gives its command as a person does in a shell; `endure` gives it again and again, while kills fall at random moments,
until it ends well.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

import pandas as pd

from cnn_ablation.common import leases
from cnn_ablation.runs.records import Run, read_run, record_paths

SLURM = [
    "hydra/launcher=submitit_slurm", "hydra.launcher.jobs=4", "hydra.launcher.cpus=2", "hydra.launcher.memory_gb=1.5",
    "hydra.launcher.poll_seconds=0.5",
]  # fmt: skip
RAY = [
    "hydra/launcher=ray", "hydra.launcher.address=auto", "hydra.launcher.jobs=4", "hydra.launcher.cpus=2",
    "hydra.launcher.poll_seconds=0.5",
]  # fmt: skip

FUNCTION = """
import os
import time
from pathlib import Path


def note(word, shift, seed):
    file = os.open("noted.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{word} {shift} {seed} {os.getpid()} {time.time()}\\n".encode())
    os.close(file)


def train(shift: float = 0.0, kind: int = 0, seconds: float = 1.0, *, seed):
    note("begins", shift, seed)
    eats = Path(f"eats-{shift}")
    eaten = bytearray(b"x") * (int(eats.read_text()) * 10**6 if eats.exists() else 0)
    time.sleep(seconds)
    note("ends", shift, seed)
    return {"loss": (seed * (37 + 11 * kind) % 29) / 29 + shift - kind / 4}
"""
ENDS_WITHIN = 120.0
"""Seconds, of a command, with whatever kill; two cores may be shared with others."""


@dataclass(frozen=True)
class Note:
    """A line that the function wrote."""

    word: str
    run: tuple[float, int]
    """Shift and seed."""
    process: int
    at: float


@dataclass
class Study:
    """A study of `arms` x `seeds` runs, and the command that trains it.

    Args:
        folder: its working directory, which holds the store too; made with the function.
        launcher: overrides that choose the engine; none for this machine.
        others: further overrides.
        chosen: whether the command names the study's folder.
    """

    folder: Path
    launcher: Sequence[str]
    others: Sequence[str] = ()
    chosen: bool = True
    arms: int = 10
    seeds: int = 5

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "counted.py").write_text(FUNCTION)

    @property
    def command(self) -> list[str]:
        shifts = ",".join(str(float(number)) for number in range(1, self.arms))
        return [
            *(sys.executable, "-m", "cnn_ablation", "-m", "task=function", "task.target=counted.train", "device=cpu"),
            "stats.metric=loss",
            *([] if any(each.startswith("replicates=") for each in self.others) else [f"replicates={self.seeds}"]),
            *([f"settings.shift={shifts}"] if shifts else []),
            *(["hydra.sweep.dir=study"] if self.chosen else []),
            *self.launcher,
            *self.others,
        ]

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """The command, in a session of its own: what reaches its process group is a Ctrl-C."""
        with log.open("wb") as output:
            own = {"stdin": subprocess.DEVNULL, "start_new_session": True}
            return subprocess.Popen(self.command, cwd=self.folder, stdout=output, stderr=output, **own)

    def carried_out(self, within: float = ENDS_WITHIN) -> tuple[int, str]:
        """Its exit code and what it said."""
        log = self.folder / f"said-{len(list(self.folder.glob('said-*')))}.txt"
        process = self.start(log)
        try:
            code = process.wait(within)
        finally:
            process.kill()
        return code, log.read_text()

    @property
    def folders(self) -> list[Path]:
        """Where its records are, the newest last."""
        found = [self.folder / "study"] if self.chosen else self.folder.glob("multirun/*/*")
        return sorted((each for each in found if each.is_dir()), key=lambda each: each.stat().st_mtime)

    @property
    def store(self) -> Path:
        return self.folder / ".ablation_runs"

    def runs(self) -> list[Run]:
        """Of its newest folder."""
        return [read_run(path) for path in record_paths(self.folders[-1])] if self.folders else []

    def errors(self) -> list[str]:
        """Of the rows that failed."""
        return [run.error for run in self.runs() if run.status == "failed"]

    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.folders[-1] / "ablation.csv")

    def notes(self) -> list[Note]:
        """What the function wrote; nothing of what is begun below is lost, because each line is one write."""
        path = self.folder / "noted.txt"
        lines = map(str.split, path.read_text().splitlines() if path.exists() else [])
        return [Note(word, (float(x), int(seed)), int(pid), float(at)) for word, x, seed, pid, at in lines]

    def kept(self) -> dict[tuple[float, int], float]:
        """Runs in the store, with when each was put there."""
        found = {}
        for path in self.store.glob("*/run.json"):
            run = read_run(path)
            found[float(run.settings.get("settings.shift", 0.0)), run.seed] = path.stat().st_mtime
        return found


class Engine(Protocol):
    """What can be killed of an engine, by name; each says what it hit, or nothing where there was nothing to hit."""

    kinds: Mapping[str, Callable[[], str]]

    def jobs(self) -> list[str]:
        """Jobs that wait or run, as the engine tells, and their processes."""

    def mend(self, *, now: bool) -> None:
        """Starts what was killed of the cluster itself; `now`, or when it is due."""


FRONT_END = ("SIGKILL of the front end", "SIGTERM of the front end", "Ctrl-C")


@dataclass
class Story:
    """What happened to a study."""

    struck: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    """How each ended."""
    errors: Counter[str] = field(default_factory=Counter)
    """Of rows that failed in the meantime."""
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [f"{self.seconds:.0f} s, {len(self.commands)} commands", *self.struck, *self.commands]
        return "\n  ".join([*lines, *(f"{number} x {error}" for error, number in self.errors.items())])


def endure(study: Study, engine: Engine, kills: list[str], chance: Random, say: Callable[[str], None]) -> Story:
    """Gives the command of a study until it ends well; takes from `kills` those that have fallen."""
    story, began = Story(), time.monotonic()
    while not story.commands or not story.commands[-1].startswith("exit code 0"):
        number = len(story.commands)
        log = study.folder / f"said-{number}.txt"
        process, since = study.start(log), time.monotonic()
        try:
            hit = _strike(process, engine, kills, chance, lambda what: (story.struck.append(what), say(what)))
            code = process.wait(ENDS_WITHIN)
        finally:
            process.kill()
        story.commands.append(f"exit code {code} after {time.monotonic() - since:.1f} s")
        say(story.commands[-1])
        engine.mend(now=True)
        _check_command(hit, code, log.read_text())
        if hit not in FRONT_END:
            story.errors.update(study.errors())
    story.seconds = time.monotonic() - began
    return story


def _strike(
    process: subprocess.Popen[bytes], engine: Engine, kills: list[str], chance: Random, say: Callable[[str], object]
) -> str:
    """Lets kills fall while a command lives; returns the one that hit the command itself."""
    began, tried = time.monotonic(), 0
    due = began + chance.uniform(0.2, 10.0)
    while process.poll() is None and time.monotonic() - began < ENDS_WITHIN:
        time.sleep(0.05)
        engine.mend(now=False)
        if not kills or time.monotonic() < due:
            continue
        kind = kills[0]
        if kind in FRONT_END:
            kills.pop(0)
            say(f"{time.monotonic() - began:.1f} s: {kind}")
            _strike_front_end(process, kind)
            return kind
        if hit := engine.kinds[kind]():
            kills.pop(0)
            say(f"{time.monotonic() - began:.1f} s: {kind} ({hit})")
            due, tried = time.monotonic() + chance.uniform(0.2, 4.0), 0
        else:
            tried += 1
            if tried % 20 == 0:  # it is another's turn
                kills.append(kills.pop(0))
    return ""


def _strike_front_end(process: subprocess.Popen[bytes], kind: str) -> None:
    if kind == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGKILL if "SIGKILL" in kind else signal.SIGTERM)


def _check_command(hit: str, code: int, said: str) -> None:
    expected = {FRONT_END[0]: (-signal.SIGKILL,), FRONT_END[1]: (-signal.SIGTERM, 130), "Ctrl-C": (130,)}.get(hit)
    assert code in (*(expected or ()), 0, 1), f"exit code {code} after {hit or 'no kill of its own'}:\n{said}"
    assert "Traceback" not in said, said


def check_complete(study: Study, engine: Engine) -> dict[str, int]:
    """That nothing was lost and nothing trained twice; returns what was counted.

    Raises:
        AssertionError: with what is wrong.
    """
    table, runs = study.table(), pd.read_csv(study.folders[-1] / "runs.csv")
    assert table["n"].tolist() == [study.seeds] * study.arms
    assert set(runs["status"]) == {"ok"}
    assert len(runs) == study.arms * study.seeds == len(study.kept())
    expected = [(seed * 37 % 29) / 29 + shift for shift in range(study.arms) for seed in range(study.seeds)]
    assert sorted(runs["loss"].round(9)) == sorted(round(each, 9) for each in expected)
    counted = check_trained_once(study)
    check_left_nothing(study, engine)
    return counted


def check_trained_once(study: Study, *, may_end_again: bool = False) -> dict[str, int]:
    """No run begins once it is in the store, and none while another process trains it.

    Args:
        study: complete.
        may_end_again: the store could not take each of them at once.

    Raises:
        AssertionError: with the run.
    """
    notes, kept = study.notes(), study.kept()
    begun, ended = (Counter(note.run for note in notes if note.word == word) for word in ("begins", "ends"))
    late = [note for note in notes if note.word == "begins" and note.at > kept[note.run]]
    assert not late, f"begun although they were finished: {late}"
    for note in notes:
        if note.word == "begins":
            end = next((each.at for each in notes if each.word == "ends" and _is_same(each, note)), None)
            inside = [each for each in notes if each.run == note.run and end and note.at < each.at < end]
            assert not inside, f"{note} was being trained: {inside}"
    twice = {run: number for run, number in ended.items() if number > 1}
    assert may_end_again or not twice, (
        f"trained to their end more than once: {twice}: {[n for n in notes if n.run in twice]}"
    )
    return {"begun": sum(begun.values()), "begun again": sum(begun.values()) - len(begun), "ended": sum(ended.values())}


def _is_same(one: Note, other: Note) -> bool:
    return one.run == other.run and one.process == other.process


def check_left_nothing(study: Study, engine: Engine, seconds: float = 30.0) -> None:
    """No job waits, runs, or has processes; every lease is free at once.

    Raises:
        AssertionError: with what is left.
    """
    end = time.monotonic() + seconds
    while left := engine.jobs():
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.2)
    for path in set(_leases(study.folder)):
        leases.acquire(path, watches=False).release()


def _leases(folder: Path) -> Iterator[Path]:
    for path in folder.rglob(".lease*"):
        if found := re.fullmatch(r"(\.lease.*)\.\d+", path.name):
            yield path.with_name(found[1])


def processes(marks: Callable[[int], bool], command: str) -> list[int]:
    """Those that live, are marked, and whose command line fits a pattern."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if re.search(command, line) and marks(int(entry.name)):
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


def workers_of(forked: Sequence[int]) -> list[int]:
    """Those that a server has forked, of all processes with the command line of such a server."""
    return [each for each in forked if _parent(each) in forked]


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def kill_one(found: Sequence[int], chance: Random) -> str:
    """SIGKILL for one of these processes; what was hit."""
    if not found:
        return ""
    process = chance.choice(sorted(found))
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return ""
    return f"process {process}"
