"""`replicates=auto`: seeds are added to arms without a verdict, and not a seed longer."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Answer, without_pictures
from scipy import integrate, optimize
from scipy import stats as scipy_stats

import cnn_ablation
from cnn_ablation import ablate
from cnn_ablation.analysis.expected import ExpectedSeeds, Rule, of_arm, of_effect
from cnn_ablation.common import machine
from cnn_ablation.common.errors import ConfigError, RecordError, UserError
from cnn_ablation.config import StatsConfig, value_problems, with_settings
from cnn_ablation.launch.execution import NumberedJob, Study, StudyFailedError, on_this_machine
from cnn_ablation.launch.planning import Planning
from cnn_ablation.launch.rounds import Rounds
from cnn_ablation.report.study import report_study
from cnn_ablation.study.checks.knobs import read_knobs
from cnn_ablation.study.plans import read_plan
from cnn_ablation.tasks.function import signature
from cnn_ablation.tasks.image_classification.config import Config

Cli = Callable[..., Answer]

MODULE = '''
import os
import signal
from pathlib import Path

NOISE = [((seed * 37 + 11) % 29 - 14) / 14 for seed in range(100)]  # the same in every arm
OWN = [((seed * 53 + 7) % 31 - 15) / 15 for seed in range(100)]


def train(shift: float = 0.0, own: float = 0.0, word: str = "a", deadly: int = -1, *, seed):
    """A loss whose difference from the baseline's is shift * (1 + OWN[seed] / 50) + own * OWN[seed]."""
    if word == "fails" or (word == "fails later" and seed > 2):
        raise RuntimeError("out of paint")
    if seed == 5 and Path("kill").exists():
        Path("kill").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 5 and Path("interrupt").exists():
        raise KeyboardInterrupt
    if word == "lost" and seed == 1:
        return {"loss": float("nan")}
    return {"loss": 10 + NOISE[seed] + shift * (1 + OWN[seed] / 50) + own * OWN[seed]}


def choosing(lr: float = 0.1, width: int = 1, *, seed):
    """By validation 0.2 is the better rate in the first three seeds, the worse one in all later ones."""
    sign = 1 if seed < 3 else -100
    val = 5 - sign * (lr - 0.1) + (1 + OWN[seed]) * (width - 1) + NOISE[seed] * 1e-3
    test = 5 + NOISE[seed] + (lr - 0.1) * OWN[seed] + (30 + OWN[seed]) * (width - 1)
    return {"val_loss": val, "test_loss": test}
'''


@contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    """With the module beside, and without pictures."""
    (folder / "decides.py").write_text(MODULE)
    try:
        with pytest.MonkeyPatch.context() as patched, without_pictures():
            patched.chdir(folder)
            yield folder
    finally:
        sys.modules.pop("decides", None)
        sys.path[:] = [entry for entry in sys.path if entry != str(folder)]
        for kept in (signature.parameters, signature._schema):
            kept.cache_clear()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    with working_in(tmp_path):
        yield tmp_path


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of `ARMS`, to be copied."""
    with working_in(tmp_path_factory.mktemp("finished")) as folder:
        ablate(composed(f"max_replicates={request.param}"), ARMS, "study")
    return folder / "study"


@pytest.fixture
def copied(finished: Path, here: Path) -> Path:
    """A folder that holds a copy of it."""
    shutil.copytree(finished, "study")
    return here


def composed(*overrides: str, function: str = "train") -> Any:
    """Trained in this process, one run after another."""
    return cnn_ablation.compose(
        ["task=function", f"task.target=decides.{function}", "timing=isolated", "device=cpu", "replicates=auto",
         "stats.metric=test_loss" if function == "choosing" else "stats.metric=loss", *overrides]
    )  # fmt: skip


def zips(**levels: dict[str, Any]) -> dict[str, Any]:
    """Arms by the names of their levels."""
    keys = {f"settings.{key}" for level in levels.values() for key in level}
    assert keys
    return {"arm": [{"label": name, **{f"settings.{key}": value for key, value in level.items()}}
                    for name, level in levels.items()]}  # fmt: skip


def seeds(folder: Path | str) -> dict[str, int]:
    """How many records of each arm there are, by the table of runs; they are the study's first."""
    runs = cnn_ablation.load_runs(folder)
    counts = {str(arm).removeprefix("arm="): list(found["seed"]) for arm, found in runs.groupby("arm", sort=False)}
    assert all(each == list(range(len(each))) for each in counts.values())
    return {arm: len(each) for arm, each in counts.items()}


def verdicts(table: pd.DataFrame) -> dict[str, str]:
    return {arm.removeprefix("arm="): verdict for arm, verdict in zip(table["arm"], table["verdict"], strict=True)}


def evidence(differences: np.ndarray) -> float:
    """That the mean lies on the side where it is, by integration.

    The likelihood of t with effects drawn from half a normal distribution of variance 10, over that without an effect.
    """
    return evidence_of_t(t_of(differences), len(differences))


def t_of(differences: np.ndarray) -> float:
    return float(abs(differences.mean()) / differences.std(ddof=1) * math.sqrt(len(differences)))


@cache
def critical(n: int) -> float:
    """From which on the two-sided p-value is at most 0.05."""
    return float(optimize.brentq(lambda t: evidence_of_t(t, n) - 40, 1, 200, xtol=1e-2))


def evidence_of_t(t: float, n: int) -> float:
    def weighted(effect: float) -> float:
        prior = 2 * scipy_stats.norm.pdf(effect, scale=math.sqrt(10))
        return float(scipy_stats.nct.pdf(t, n - 1, effect * math.sqrt(n)) * prior)

    likelihood = integrate.quad(weighted, 0, 20, limit=400, points=[t / math.sqrt(n)])[0]
    return float(likelihood / scipy_stats.t.pdf(t, n - 1))


def own_noise(count: int) -> np.ndarray:
    return np.array([((seed * 53 + 7) % 31 - 15) / 15 for seed in range(count)])


def test_an_arm_with_a_verdict_gets_no_further_seed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With three seeds no effect, however large, decides two comparisons: 2 / evidence is above 1/31."""
    arms = ablate(composed("max_replicates=12"), zips(
        clear={"shift": 5.0, "own": 0.1}, weak={"shift": 1.2, "own": 1.0}, none={"own": 1.0}
    ), "study")  # fmt: skip
    weak = 1.2 * (1 + own_noise(12) / 50) + own_noise(12)
    decided = next(n for n in range(4, 13) if 2 / evidence(weak[:n]) <= 0.05 / 2)
    assert 4 < decided < 12, "the case says nothing otherwise"
    assert seeds("study") == {"baseline": 12, "clear": 4, "weak": decided, "none": 12}
    assert verdicts(arms) == {"baseline": "baseline", "clear": "worse", "weak": "worse", "none": "undecided"}
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "after 4 seeds" in line] == [
        "after 4 seeds: arm=clear worse, +5.0 in loss [+4.6, +5.5]",
        "after 4 seeds: no verdict yet for 2 arms; next, 1 seed of each",
    ]
    assert said[-1] == "after 12 seeds: no further seeds; without a verdict: arm=none"


def test_seeds_are_added_to_arms_that_can_get_a_verdict(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not to the baseline's twin, to what always fails, or to what only lost runs keep from being better."""
    with pytest.raises(StudyFailedError, match="3 of "):
        ablate(composed("max_replicates=6", "stats.margin=1"), zips(
            twin={"word": "b"}, fails={"word": "fails"}, lost={"word": "lost", "shift": -9.0, "own": 0.1},
            same={"own": 0.01},
        ), "study")  # fmt: skip
    arms = report_study("study").arms
    assert verdicts(arms) == {
        "baseline": "baseline", "twin": "undecided", "fails": "undecided", "lost": "undecided", "same": "equivalent"
    }  # fmt: skip
    found = seeds("study")
    assert (found["twin"], found["fails"], found["same"]) == (3, 3, 3)
    assert found["lost"] == found["baseline"] == 5, "one of them has no loss, and four decide"
    said = capsys.readouterr().err
    assert "after 3 seeds: arm=twin: more seeds can bring no verdict (its runs are the baseline's bit for bit" in said
    assert "after 5 seeds: arm=lost: more seeds can bring no verdict (1 of 5 runs diverged" in said
    assert said.splitlines()[-1] == "after 5 seeds: no arm is left without a verdict that more seeds could bring"


@pytest.mark.parametrize(
    ("settings", "expected", "said"),
    [
        (("fails later", "continue"), 4, "no run of these seeds left a score: no further seeds are added"),
        (("fails later", "stop"), 4, "stopped after 7 of 8 runs planned so far; the same command goes on from there"),
        (("fails", "continue"), 3, ""),
    ],
    ids=["a whole round fails", "stops at the first failure", "nothing to compare with"],
)
def test_a_study_in_which_everything_fails_ends(
    here: Path, capsys: pytest.CaptureFixture[str], settings: tuple[str, str], expected: int, said: str
) -> None:
    baseline = composed(f"settings.word='{settings[0]}'", f"on_error={settings[1]}")
    with pytest.raises(UserError):
        ablate(baseline, {"settings.own": [1.0]}, "study")
    assert read_plan(here / "study").auto.replicates == {"baseline": expected, "settings.own=1.0": expected}
    assert said in capsys.readouterr().err


def test_one_arm_that_fails_later_ends_at_the_largest_number(here: Path) -> None:
    with pytest.raises(StudyFailedError):
        ablate(composed("max_replicates=5"), zips(later={"word": "fails later", "own": 1.0}), "study")
    assert seeds("study") == {"baseline": 5, "later": 5}
    (note,) = report_study("study").arms["notes"][1:]
    assert note.startswith("no verdict with max_replicates=5 seeds; 2 of 5 runs failed")


@pytest.mark.parametrize("metric", ["test_loss", "val_loss"])
def test_later_seeds_change_no_choice(here: Path, metric: str) -> None:
    """The path is that of three seeds, although the seeds that are added speak against it."""
    knobs = {"settings.lr": [0.2], "settings.width": [2]}
    for replicates in ("3", "auto"):
        settings = (f"replicates={replicates}", "max_replicates=6", f"stats.metric={metric}")
        arms = ablate(composed(*settings, function="choosing"), knobs, replicates, design="greedy")
    paths = [read_plan(here / name).path for name in ("3", "auto")]
    assert paths[0] == paths[1]
    assert [step.kept for step in paths[1]] == ["settings.lr=0.2", "settings.lr=0.2"]
    hidden = metric == "test_loss"
    assert seeds("auto") == {
        "baseline": 6,
        "settings.lr=0.2": 6,
        "settings.lr=0.2,settings.width=2": 3 if hidden else 6,
    }
    assert list(arms["n"]) == [6, 6, 3 if hidden else 6]


@pytest.mark.parametrize(
    ("design", "expected"),
    [
        ("one_at_a_time", {"baseline": 7, "settings.shift=5.0": 4, "settings.own=1.0": 7}),
        ("grid", {"baseline": 4, "settings.shift=5.0,settings.own=1.0": 4}),
        ("leave_one_out", {"full": 7, "full without settings.shift": 4, "full without settings.own": 7}),
    ],
)
def test_every_design(here: Path, design: str, expected: dict[str, int]) -> None:
    """Each compares with its own reference: `full` gets the seeds of its longest comparison."""
    knobs = {"settings.shift": [5.0], "settings.own": [1.0]}
    ablate(composed("max_replicates=7"), knobs, "study", design=design)
    assert seeds("study") == expected


# -- one study, several commands --------------------------------------------------------------------------------------

ARMS = zips(clear={"shift": 5.0, "own": 0.1}, weak={"shift": 1.2, "own": 1.0}, none={"own": 1.0})
SCRIPT = """
import sys
from test_seeds_until_decided import ARMS, composed
from cnn_ablation import ablate
ablate(composed("max_replicates=8"), ARMS, sys.argv[1])
"""


def without_times(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables, but for what a clock or a store decides."""
    runs, arms = pd.read_csv(folder / "runs.csv"), pd.read_csv(folder / "ablation.csv")
    clocks = [name for frame in (runs, arms) for name in frame if "seconds" in name or "time" in name]
    return tuple(frame.drop(columns=[*clocks, "reused"], errors="ignore") for frame in (runs, arms))  # type: ignore


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that the system killed in the middle of a round."""
    with working_in(tmp_path_factory.mktemp("killed")) as folder:
        (folder / "kill").touch()
        words = [sys.executable, "-c", SCRIPT, "killed"]
        path = f"{Path(__file__).parent}:{folder}"
        done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == -9, done.stderr
    return folder


@pytest.mark.parametrize("finished", [8], indirect=True)
@pytest.mark.parametrize("again", ["killed", "elsewhere"])
def test_a_killed_study_goes_on_where_it_was(killed: Path, here: Path, finished: Path, again: str) -> None:
    """The same command goes on, in its folder or in another one."""
    shutil.copytree(killed, here, dirs_exist_ok=True)
    assert read_plan(here / "killed").auto.replicates == {"baseline": 6, "arm=clear": 4, "arm=weak": 6, "arm=none": 6}
    ablate(composed("max_replicates=8"), ARMS, again)
    for found, expected in zip(without_times(here / again), without_times(finished), strict=True):
        pd.testing.assert_frame_equal(found, expected)
    assert cnn_ablation.load_runs(again)["reused"].sum() > 12


@pytest.mark.parametrize("when", ["in a run", "between two rounds"])
def test_an_interrupted_study_leaves_its_table(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    def interrupted(_: Path) -> pd.DataFrame:
        raise KeyboardInterrupt

    (here / "interrupt").touch()
    if when == "between two rounds":
        monkeypatch.setattr("cnn_ablation.analysis.tables.judged", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ablate(composed("max_replicates=8"), ARMS, "study")
    in_a_run = when == "in a run"
    said = f"stopped after {19 if in_a_run else 12} of {22 if in_a_run else 12} runs planned so far; the same command"
    assert said in capsys.readouterr().err
    unfinished = "3 of 22 planned runs have not finished." in (here / "study" / "ablation.md").read_text()
    assert unfinished == in_a_run
    assert list(pd.read_csv(here / "study" / "ablation.csv")["n"]) == ([5, 4, 5, 5] if in_a_run else [3, 3, 3, 3])


def test_the_report_gives_the_same_table(here: Path) -> None:
    ablate(composed("max_replicates=5"), ARMS, "study")
    before = {path.name: path.read_bytes() for path in (here / "study").glob("ablation.*")}
    assert len(before) == 5
    report_study("study", "again")
    assert {path.name: path.read_bytes() for path in (here / "again").glob("ablation.*")} == before
    with pytest.raises(ConfigError, match=r"test=t\n  allowed: anytime: this study added seeds after looks at its"):
        report_study("study", "again", {"test": "t"})


def test_the_plan_says_what_comes_and_keeps_what_came(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ablate(composed("max_replicates=5"), ARMS, "study")
    said = capsys.readouterr().out.splitlines()[0]
    assert said == "one_at_a_time: 4 arms, seeds 0, 1, 2 and then as many as a verdict takes, at most 5"
    kept = yaml.safe_load((here / "study" / "study.yaml").read_text())
    replicates = {"baseline": 5, "arm=clear": 4, "arm=weak": 5, "arm=none": 5}
    assert kept["auto"] == {"min_replicates": 3, "max_replicates": 5, "replicates": replicates}
    assert kept["seeds"] == [0, 1, 2, 3, 4]
    assert kept["stats"]["test"] == kept["baseline"]["stats.test"] == "anytime"
    assert kept["baseline"]["replicates"] == "auto"
    plan = read_plan(here / "study")
    assert plan.num_runs == 19
    assert "planned runs have not finished" not in (here / "study" / "ablation.md").read_text()
    assert (
        "Seeds were added to arms without a verdict, and to the arm that they are compared with, one round after "
        "another, from 3 to at most 5: 1 arm has 4, 3 arms have 5."
    ) in (here / "study" / "ablation.md").read_text()


def test_every_step_of_a_greedy_plan_has_the_first_seeds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    knobs = {"settings.lr": [0.2], "settings.width": [2]}
    ablate(composed("max_replicates=4", function="choosing"), knobs, "study", design="greedy")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "greedy, step 1 of 2: settings.lr on top of baseline: 2 arms x 3 seeds (0, 1, 2) = 6 runs"
    assert (
        "  when nothing more is to be chosen, seeds 0, 1, 2 and then as many as a verdict takes, at most 4" in lines[:6]
    )


FIXED, AUTO = ("replicates=6",), ("replicates=auto", "max_replicates=8")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (FIXED, AUTO, {"baseline": 8, "clear": 6, "weak": 8, "none": 8}),
        (AUTO, ("replicates=8", "stats.test=anytime"), {"baseline": 8, "clear": 8, "weak": 8, "none": 8}),
        (AUTO, ("replicates=auto", "max_replicates=9"), {"baseline": 9, "clear": 4, "weak": 8, "none": 9}),
        (("replicates=3",), ("replicates=auto", "max_replicates=4"), {"baseline": 4, "clear": 4, "weak": 4, "none": 4}),
    ],
    ids=["from a fixed number", "to a fixed number", "a larger number", "from as many as at first"],
)
def test_a_study_is_extended_in_its_folder(
    here: Path, before: tuple[str, ...], after: tuple[str, ...], expected: dict[str, int]
) -> None:
    """No seed that is there is taken away."""
    for settings in (before, after):
        ablate(composed(*settings), ARMS, "study")
    assert seeds("study") == expected


@pytest.mark.parametrize("finished", [8], indirect=True)
@pytest.mark.parametrize("after", [("replicates=5",), ("replicates=auto", "max_replicates=5")], ids=["fixed", "auto"])
@pytest.mark.usefixtures("copied")
def test_fewer_seeds_are_refused(after: tuple[str, ...]) -> None:
    with pytest.raises(RecordError, match="seed 5 is there, not here; more seeds extend a study, fewer do not"):
        ablate(composed(*after), ARMS, "study")


def test_a_level_that_comes_later_has_its_own_rounds(here: Path) -> None:
    """The baseline has all seeds by then: what is trained are the new arm's alone."""
    ablate(composed(*AUTO), {"settings.own": [1.0]}, "study")
    ablate(composed(*AUTO), {"settings.own": [1.0], "settings.shift": [5.0]}, "study")
    assert seeds("study") == {"baseline": 8, "settings.own=1.0": 8, "settings.shift=5.0": 4}
    assert cnn_ablation.load_runs("study").query("~reused")["arm"].unique().tolist() == ["settings.shift=5.0"]


# -- how many at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [3], indirect=True)
@pytest.mark.parametrize(
    ("cores", "settings", "step"),
    [
        (1, (), 1),
        (4, (), 1),
        (8, (), 2),
        (12, (), 3),
        (12, ("timing=isolated",), 1),
        (1, ("device=mps",), 1),
        (12, ("elsewhere",), 3),
    ],
    ids=[
        "one core",
        "as many cores as jobs",
        "twice",
        "a round never idles",
        "one at a time",
        "seed after seed on a device",
        "a launcher",
    ],
)
def test_a_round_leaves_no_process_idle(
    copied: Path, monkeypatch: pytest.MonkeyPatch, cores: int, settings: tuple[str, ...], step: int
) -> None:
    """Three arms have no verdict after three seeds; with the baseline that makes four jobs for each seed."""
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "available_memory", lambda: None)
    here_too = settings != ("elsewhere",)
    baseline = composed("timing=packed", *(settings if here_too else ()))
    knobs = read_knobs(ARMS)
    planning = Planning("one_at_a_time", knobs, lambda arm: with_settings(baseline, arm.settings), here=here_too)
    expected = range(3, 3 + step)
    assert Rounds(copied / "study", planning).next() == dict.fromkeys(planning.configs, expected)


def test_a_round_ends_at_the_largest_number(here: Path) -> None:
    """Jobs that go elsewhere get three seeds at a time, and the last of them what is left."""
    baseline = composed("max_replicates=7")
    planning = Planning(
        "one_at_a_time", read_knobs(ARMS), lambda arm: with_settings(baseline, arm.settings), here=False
    )
    study, rounds = Study(here / "study", planning), []

    def launch(jobs: Sequence[NumberedJob]) -> list[str]:
        rounds.append(sorted({seed for item in jobs for seed in item.job.seeds}))
        return on_this_machine(study)(jobs)

    study.carry_out(launch)
    assert rounds == [[0, 1, 2], [3, 4, 5], [6]]


# -- what is refused --------------------------------------------------------------------------------------------------

KNOB = ("-m", "model.activation=relu,leaky")

WRONG: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "a word": ((*KNOB, "replicates=automatic"), [
        "replicates=automatic\n  allowed: at least 1 and at most 10000, or auto\n  did you mean: replicates=auto"
    ]),
    "none": ((*KNOB, "replicates=0"), ["replicates=0\n  allowed: at least 1 and at most 10000, or auto"]),
    "a fraction": ((*KNOB, "replicates=2.5"), [
        "replicates=2.5\n  allowed: int, at least 1 and at most 10000, or auto\n  remedy: the default is 3"
    ]),
    "nothing": ((*KNOB, "replicates=null"), ["replicates=null\n  allowed: int, at least 1 and at most 10000, or auto"]),
    "one at first": ((*KNOB, "replicates=auto", "min_replicates=1"), ["min_replicates=1\n  allowed: at least 2"]),
    "more at first than at last": ((*KNOB, "replicates=auto", "min_replicates=9", "max_replicates=5"), [
        "min_replicates=9\n  allowed: at most max_replicates=5\n  remedy: fewer, or a larger max_replicates"
    ]),
    "another test": ((*KNOB, "replicates=auto", "stats.test=sign_flip"), [
        "stats.test=sign_flip\n  allowed: anytime with replicates=auto, whose seeds are added after looks at the table",
        "remedy: leave it out, or replicates=N",
    ]),
    "beyond the last seed": ((*KNOB, "replicates=auto", "seed=4294967290"), [
        "max_replicates=30\n  allowed: at most 6 with seed=4294967290"
    ]),
    "a knob": ((*KNOB, "replicates=3,auto"), ["replicates=3,auto\n  allowed: one value: it is no knob"]),
    "a single configuration": (("replicates=auto",), [
        "replicates=auto\n  allowed: a number of seeds, where a single configuration is trained: without a comparison",
        "remedy: replicates=5; or -m with a knob (model.activation=relu,leaky)",
    ]),
    "a single configuration, planned": (("replicates=auto", "dry_run=true"), ["replicates=auto\n  allowed: a number"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_numbers_of_seeds_are_refused_with_one_message(cli: Cli, tmp_path: Path, case: str) -> None:
    words, expected = WRONG[case]
    answer = cli(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("configuration error: ")
    assert len(answer.err.splitlines()) <= 10
    assert "Traceback" not in answer.err
    for part in expected:
        assert part in answer.err
    assert not (tmp_path / ".ablation_runs").exists()


def test_a_single_configuration_is_refused_in_python_too(tiny_config: Config, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="replicates=auto\n  allowed: a number of seeds, where a single configuration"
    ):
        cnn_ablation.run(replace(tiny_config, replicates="auto"), tmp_path)


@pytest.mark.parametrize(
    ("value", "kept"), [(5, 5), ("5", 5), (np.int64(5), 5), ("auto", "auto")], ids=["number", "text", "numpy", "word"]
)
def test_a_number_in_quotes_is_a_number(tiny_config: Config, value: Any, kept: Any) -> None:
    assert replace(tiny_config, replicates=value).replicates == kept
    assert not value_problems(replace(tiny_config, replicates=value))


@pytest.mark.parametrize("value", [2.5, "Auto", "-3", True, None, [3]])
def test_other_values_are_none(tiny_config: Config, value: Any) -> None:
    (problem,) = value_problems(replace(tiny_config, replicates=value))
    assert problem.key == "replicates"
    assert "at least 1 and at most 10000, or auto" in problem.allowed


def test_limits_without_auto_are_said_to_have_no_effect(cli: Cli) -> None:
    answer = cli(*KNOB, "min_replicates=4", "max_replicates=9", "dry_run=true")
    assert answer.code == 0
    assert answer.err.splitlines() == [
        "min_replicates=4 has no effect without replicates=auto",
        "max_replicates=9 has no effect without replicates=auto",
    ]


def test_a_plan_that_was_edited_is_refused(here: Path) -> None:
    ablate(composed("max_replicates=3"), {"settings.own": [1.0]}, "study")
    path = here / "study" / "study.yaml"
    text = path.read_text()
    for before, after, said in (
        ("settings.own=1.0: 3", "settings.own=1.0: 4", "auto: replicates of settings.own=1.0: 4; 1 to 3 are wanted"),
        ("    baseline: 3\n", "", "auto: replicates of baseline: None; 1 to 3 are wanted"),
        ("auto:\n  min_replicates: 3", "auto:\n  min_replicates: many", "auto: min_replicates 'many' and"),
        (
            "max_replicates: 3\n  replicates:",
            "most: 3\n  replicates:",
            "study.yaml is damaged or unreadable (TypeError",
        ),
    ):
        assert text.count(before) == 1, before
        path.write_text(text.replace(before, after))
        for goes_on in (lambda: report_study("study"), lambda: ablate(composed(), {"settings.own": [1.0]}, "study")):
            with pytest.raises(RecordError, match=re.escape(said)):
                goes_on()


def test_on_real_images(cli: Cli, tmp_path: Path) -> None:
    """From the command line to the table and the pictures; the arm's rate is so small that it learns nothing."""
    answer = cli(
        "-m", "data=digits", "data.image_size=8", "model.filters=[4]", "model.kernel_sizes=[3]", "model.hidden=[8]",
        "train.epochs=1", "optimizer.lr=0.01", "optimizer.lr=0.01,1e-7", "replicates=auto", "max_replicates=8",
        "hydra.sweep.dir=study",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    runs = cnn_ablation.load_runs("study")
    arms = cnn_ablation.ablation_table(runs, test="anytime")
    assert list(arms["verdict"]) == ["baseline", "worse"]
    baseline, count = arms["n"]
    assert baseline == count
    before = cnn_ablation.ablation_table(runs[runs["seed"] < count - 1], test="anytime")
    assert count == 3 or before["verdict"][1] == "undecided", "not a seed longer"
    jobs = {str(number) for number in range(2 * count)}
    assert {path.name for path in (tmp_path / "study").iterdir()} >= {*jobs, "study.yaml", "differences.png"}
    assert "replicates=1" in (tmp_path / "study" / "0" / ".hydra" / "overrides.yaml").read_text()


def test_a_dry_run_says_the_least_and_the_most(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ablate(composed("max_replicates=4"), {"settings.own": [1.0]}, "study")
    capsys.readouterr()
    planned = composed("max_replicates=10", "dry_run=true")
    assert not len(ablate(planned, {"settings.own": [1.0], "settings.shift": [5.0]}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "one_at_a_time: 3 arms, seeds 0, 1, 2 and then as many as a verdict takes, at most 10"
    assert "would reuse 6 of 9 runs at least and 8 of 30 runs at most from .ablation_runs" in lines[5]
    assert re.fullmatch(r"estimated time: about 0 s for 3 runs to 0 s for 22 runs, from past runs", lines[6])


# -- how many to expect -----------------------------------------------------------------------------------------------

OF_ONE = Rule(StatsConfig(metric="loss"), num_comparisons=1, fewest=3, most=20)


def test_seeds_that_are_there_decide_as_the_study_would() -> None:
    """With as many known differences as there can be nothing is left to chance: the study's own stop."""
    weak = 1.2 * (1 + own_noise(20) / 50) + own_noise(20)
    stop = next(n for n in range(3, 21) if 2 / evidence(weak[:n]) <= 0.05)
    assert of_arm(weak, OF_ONE) == ExpectedSeeds(stop, stop, stop)
    assert of_arm(weak[: stop + 1], OF_ONE).median == stop, "what comes afterwards is of no concern"


@pytest.mark.parametrize("effect", [1.0, 2.0, 4.0])
def test_the_expected_number_is_that_of_simulated_studies(effect: float) -> None:
    """Where the spread is known, from many scores of the baseline; each study is stopped by the integral above."""
    rule = replace(OF_ONE, most=10)
    scores = scipy_stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    studies = effect + math.sqrt(2) * np.random.default_rng(1).standard_normal((400, 10))
    stops = [next((n for n in range(3, 11) if t_of(study[:n]) >= critical(n)), math.inf) for study in studies]
    low, high = np.quantile(stops, (0.4, 0.6), method="nearest")  # of the median of 400, four standard errors
    assert low <= of_effect(effect, scores, rule).median <= high


def test_equivalence_is_expected_where_there_is_a_margin() -> None:
    """Without one an arm without an effect ends at the largest number."""
    same = np.array([0.01, -0.02, 0.015])
    assert of_arm(same, OF_ONE).median == math.inf
    with_margin = replace(OF_ONE, settings=StatsConfig(metric="loss", margin=1.0))
    assert of_arm(same, with_margin) == ExpectedSeeds(3, 3, 3)


def test_a_dry_run_says_how_many_seeds_to_expect(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def planned(**knobs: list[float]) -> list[str]:
        capsys.readouterr()
        ablate(composed("dry_run=true", "stats.margin=0.1"), {f"settings.{key}": each for key, each in knobs.items()})
        lines = capsys.readouterr().out.splitlines()
        return lines[next(number for number, line in enumerate(lines) if line.startswith("seeds until")) :]

    assert planned(shift=[5.0]) == ["seeds until a verdict: unknown from 0 past runs of baseline"]
    ablate(composed("max_replicates=5"), {"settings.shift": [5.0]}, "study")
    heading = "seeds until a verdict, from past runs (median, 10 to 90 %):"
    assert planned(shift=[5.0]) == [heading, "  settings.shift=5.0: 3"]
    noise = [((seed * 37 + 11) % 29 - 14) / 14 for seed in range(3)]
    known, *others = planned(shift=[5.0, 6.0])[1:]
    assert known == "  settings.shift=5.0: 4"
    assert [line.partition(":")[0] for line in others] == [
        f"  another arm with an effect of {np.std(noise, ddof=1):.3g} in loss, the spread of the baseline's runs",
        "  another arm without any effect",
        "  (if pairing by seed gains nothing)",
    ]
    assert others[1] == "  another arm without any effect: more than 30"
