"""A study that is extended after its table was shown keeps its family-wise error: looks at tables are on record."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import looks
import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

import cnn_ablation
from cnn_ablation import store as store_command
from cnn_ablation.analysis import anytime, assurance, tables
from cnn_ablation.analysis.tables.first_look import put_on_record
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.config import ArmConfig, StatsConfig, with_settings
from cnn_ablation.launch.planning import Planning
from cnn_ablation.report.__main__ import main as report
from cnn_ablation.report.caption import caption
from cnn_ablation.runs.records import Run, record_path, write_run
from cnn_ablation.runs.run import run
from cnn_ablation.runs.store import looks as records
from cnn_ablation.runs.store.looks import FirstLook, Looks
from cnn_ablation.study.designs import Arm, knob
from cnn_ablation.study.plans import Plan, write_plan
from cnn_ablation.tasks.image_classification.config import Config

ARMS = {"k=1": 0.0, "k=2": 3.0, "k=3": 1.1}
MARGIN = 1.0


def noise(arm: str, seed: int) -> float:
    """Normal, the same whenever an arm is trained with a seed."""
    return float(np.random.default_rng([seed, *map(ord, arm)]).normal())


def score(arm: str, seed: int, shift: float) -> float:
    return 2 * noise("shared", seed) + 0.5 * noise(arm, seed) + shift


@dataclass(frozen=True)
class Written:
    """A study of ready records in a folder of its own."""

    home: Path
    seeds: Sequence[int] = range(5)
    name: str = "study"
    arms: dict[str, float] = field(default_factory=lambda: ARMS)
    missing: Collection[tuple[str, int]] = ()
    failed: Collection[tuple[str, int]] = ()
    code: str = "1"
    scores: dict[str, Sequence[float]] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.home / self.name

    @property
    def store(self) -> Path:
        return self.home / "store"

    def write(self) -> Written:
        self.store.mkdir(exist_ok=True)
        shifts = {"baseline": 0.0, **self.arms}
        settings = StatsConfig(**{"metric": "score", "margin": MARGIN, **self.stats})
        plan = Plan("one_at_a_time", {"k": list(self.arms)}, ["k"], [Arm(name) for name in shifts], list(self.seeds),
                    {"task.name": "function", "store": str(self.store)}, stats=settings)  # fmt: skip
        self.folder.mkdir(exist_ok=True)
        (self.folder / "study.yaml").unlink(missing_ok=True)
        write_plan(self.folder, plan)
        for number, (arm, shift) in enumerate(shifts.items()):
            for seed in self.seeds:
                if (arm, seed) not in self.missing:
                    write_run(record_path(self.folder / str(number), seed), self._run(arm, seed, shift))
        return self

    def _run(self, arm: str, seed: int, shift: float) -> Run:
        identity = {"settings": {"k": arm}, "seed": seed, "data": "", "code": self.code}
        if (arm, seed) in self.failed:
            return Run(arm, "", "", seed, "failed")
        value = self.scores[arm][seed] if arm in self.scores else score(arm, seed, shift)
        return Run(arm, "", "", seed, "ok", metrics={"score": value, "other": 1.5 * value},
                   provenance={"identity": identity})  # fmt: skip

    def shown(self, **settings: Any) -> Shown:
        """Its table and caption as the report makes them."""
        study = tables.read_study(self.folder)
        stats, runs = replace(study.stats, **settings), study.run_table()
        stats = put_on_record(runs, study, self.folder, stats)
        arms = tables.ablation_table(runs, **asdict(stats))
        return Shown(arms.set_index("arm"), caption(runs, arms, stats))

    @property
    def on_record(self) -> Looks:
        (path,) = (self.store / "looks").glob("*.json")
        return records.read_looks(path)

    def differences(self, arm: str, seeds: Sequence[int] | None = None) -> np.ndarray:
        shift = self.arms[arm]
        return np.array([score(arm, seed, shift) - score("baseline", seed, 0.0) for seed in seeds or self.seeds])


@dataclass(frozen=True)
class Shown:
    arms: pd.DataFrame
    caption: str

    def __getitem__(self, column: str) -> dict[str, Any]:
        return self.arms[column].drop("baseline").to_dict()


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """By the definition: the largest of all (m - rank) p up to a p-value's own rank."""
    found, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, (len(p_values) - rank) * p)
        found[name] = min(largest, 1.0)
    return found


def fixed(study: Written, seeds: Sequence[int] | None = None) -> dict[str, float]:
    return holm({arm: scipy_stats.ttest_1samp(study.differences(arm, seeds), 0).pvalue for arm in study.arms})


def always(study: Written, seeds: Sequence[int] | None = None) -> dict[str, float]:
    return holm({arm: anytime.p_value(study.differences(arm, seeds), "two-sided") for arm in study.arms})


def near(expected: dict[str, float]) -> Any:
    return pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("reserve", [0.0, 0.1, 0.5])
def test_the_first_look_is_judged_at_its_share_of_alpha(reserve: float, tmp_path: Path) -> None:
    study = Written(tmp_path).write()
    shown = study.shown(reserve=reserve)
    assert shown["p_holm"] == near({arm: min(p / (1 - reserve), 1) for arm, p in fixed(study).items()})
    low, high = scipy_stats.ttest_1samp(study.differences("k=2"), 0).confidence_interval(0.95)
    assert shown.arms.loc["k=2", ["delta_ci_low", "delta_ci_high"]].tolist() == pytest.approx([low, high])


@pytest.mark.parametrize("other_folder", [False, True], ids=["the same folder", "another folder"])
def test_seeds_that_are_added_are_judged_by_the_test_that_always_holds(other_folder: bool, tmp_path: Path) -> None:
    first = Written(tmp_path).write()
    first.shown()
    study = replace(first, seeds=range(20), name="another" if other_folder else "study").write()
    shown = study.shown()
    once, since = fixed(study, range(5)), always(study)
    expected = {arm: min(once[arm] / 0.8, since[arm] / 0.2, 1.0) for arm in study.arms}
    assert shown["p_holm"] == near(expected)
    assert once["k=3"] / 0.8 > 0.05 > expected["k=3"]  # the later test decided
    assert shown["verdict"]["k=3"] == "better"
    for arm in study.arms:
        low, high = map(float, anytime.limits(study.differences(arm), 0.05))
        assert shown.arms.loc[arm, ["delta_ci_low", "delta_ci_high"]].tolist() == pytest.approx([low, high])
    assert "Look 2 at this study: the first, after 5 seeds, was judged by a paired t test at 0.04" in shown.caption
    assert "from there on a paired t test that holds at every number of seeds judges at 0.01" in shown.caption


def test_what_the_first_look_decided_stays_decided(tmp_path: Path) -> None:
    """On its side too, though all seeds together now lie on the other."""
    baseline = [noise("shared", seed) for seed in range(12)]
    arm = [value + 2 + 0.01 * (-1) ** seed if seed < 4 else value - 9 + noise("k=1", seed)
           for seed, value in enumerate(baseline)]  # fmt: skip
    study = Written(tmp_path, range(4), arms={"k=1": 0.0}, scores={"baseline": baseline, "k=1": arm}).write()
    before = study.shown()
    after = replace(study, seeds=range(12)).write().shown()
    assert (before["verdict"]["k=1"], after["verdict"]["k=1"]) == ("better", "better")
    assert before["delta"]["k=1"] > 0 > after["delta"]["k=1"]
    assert after["p_holm"]["k=1"] <= before["p_holm"]["k=1"]


def test_equivalence_is_divided_likewise(tmp_path: Path) -> None:
    study = Written(tmp_path, arms={"k=1": 0.3}, stats={"margin": 0.7}).write()

    def one_sided(seeds: Sequence[int], always_holds: bool) -> float:
        values = study.differences("k=1", seeds)
        if always_holds:
            return float(max(anytime.p_value(values + 0.7, "greater"), anytime.p_value(values - 0.7, "less")))
        sides = ((0.7, "greater"), (-0.7, "less"))
        return max(scipy_stats.ttest_1samp(values + by, 0, alternative=way).pvalue for by, way in sides)

    first, verdicts = one_sided(range(5), False) / 0.8, []
    study.shown()
    for count in (6, 12, 20):
        verdict = replace(study, seeds=range(count)).write().shown()["verdict"]["k=1"]
        p_value = min(first, one_sided(range(count), True) / 0.2)
        assert verdict == ("equivalent" if p_value <= 0.05 else "undecided")
        verdicts.append(verdict)
    assert first > 0.05
    assert set(verdicts) == {"undecided", "equivalent"}


@pytest.mark.parametrize("reserve", [0.1, 0.3])
def test_more_seeds_are_those_of_the_test_that_judges_them(reserve: float, tmp_path: Path) -> None:
    """At the level that Holm's method has left of the reserve: k=2 is decided."""
    study = Written(tmp_path, range(6)).write()
    shown = study.shown(reserve=reserve)
    assert shown["verdict"] == {"k=1": "undecided", "k=2": "better", "k=3": "undecided"}
    settings = StatsConfig(metric="score", margin=MARGIN, test="anytime")
    for arm in ("k=1", "k=3"):
        expected = assurance.seeds_needed(study.differences(arm), settings, (reserve * 0.05 / 2, reserve * 0.05 / 3))
        assert shown.arms.loc[arm, ["seeds_needed_low", "seeds_needed"]].tolist() == pytest.approx(
            [expected.low, expected.high], nan_ok=True
        )


def test_dunnett_judges_the_first_look_and_is_followed_by_pairs(tmp_path: Path) -> None:
    study = Written(tmp_path, stats={"test": "dunnett"}).write()

    def dunnett(seeds: Sequence[int]) -> dict[str, float]:
        samples = [[score(arm, seed, shift) for seed in seeds] for arm, shift in {"baseline": 0.0, **ARMS}.items()]
        found = scipy_stats.dunnett(*samples[1:], control=samples[0], random_state=np.random.default_rng(0))
        return dict(zip(ARMS, found.pvalue, strict=True))

    once = {arm: min(p / 0.8, 1.0) for arm, p in dunnett(range(5)).items()}
    assert study.shown()["p_holm"] == pytest.approx(once, abs=2e-3)  # scipy draws random points
    longer = replace(study, seeds=range(20)).write()
    shown, since = longer.shown(), always(longer)
    assert shown["p_holm"] == pytest.approx({arm: min(once[arm], since[arm] / 0.2) for arm in ARMS}, abs=2e-3)
    assert since["k=3"] / 0.2 < 0.05 < once["k=3"]
    assert "was judged by Dunnett's test with one variance for all arms at 0.04" in shown.caption
    part = replace(study, name="part", missing=[("k=3", 4)], scores={}, code="2").write().shown()
    assert all(p == 1 or p > 0.05 for p in part["p_holm"].values())


def test_a_table_of_the_same_runs_is_no_new_look(tmp_path: Path) -> None:
    study = Written(tmp_path).write()
    first = study.shown()
    content = (study.folder / "looks.json").read_bytes(), next((study.store / "looks").glob("*.json")).read_bytes()
    again = study.shown()
    assert again.caption == first.caption
    pd.testing.assert_frame_equal(again.arms, first.arms)
    replace(study, seeds=range(9), name="another").write().shown()
    rebuilt = study.shown()  # that another folder has more is nothing to this one
    assert rebuilt.caption == first.caption
    pd.testing.assert_frame_equal(rebuilt.arms, first.arms)
    assert len(study.on_record.tables) == 2
    assert content[0] != (study.folder / "looks.json").read_bytes()


def test_a_table_of_runs_alone_knows_of_no_looks(tmp_path: Path) -> None:
    study = Written(tmp_path).write()
    assert "This first look is judged at 0.04, for which p-values are divided by 0.8; 0.01 is left" in (
        study.shown().caption
    )
    runs = tables.read_study(study.folder).run_table()
    settings = StatsConfig(metric="score")
    text = caption(runs, tables.ablation_table(runs, metric="score"), settings)
    assert "This table, taken for a first look, is judged at 0.04" in text


def test_looks_are_counted_over_folders(tmp_path: Path) -> None:
    for number, count in enumerate((3, 6, 9), start=1):
        text = Written(tmp_path, range(count), name=str(count)).write().shown().caption
        assert (f"Look {number} at this study" in text) == (number > 1)
    assert "Look 2 at this study" in Written(tmp_path, range(6), name="6").shown().caption


def test_an_interrupted_study_loses_nothing(tmp_path: Path) -> None:
    missing = [(arm, 4) for arm in ("k=2", "k=3")]
    study = Written(tmp_path, missing=missing).write()
    shown = study.shown()
    pairs = {arm: study.differences(arm, range(4 if (arm, 4) in missing else 5)) for arm in study.arms}
    p_values = holm({arm: anytime.p_value(values, "two-sided") for arm, values in pairs.items()})
    assert shown["p_holm"] == near({arm: min(p / 0.2, 1.0) for arm, p in p_values.items()})
    assert (
        "Runs that were planned for the first look are missing: until they are there, only a paired t test that holds "
        "at every number of seeds judges, at 0.01." in shown.caption
    )
    whole = replace(study, missing=()).write()
    assert whole.shown()["p_holm"] == near({arm: min(p / 0.8, 1) for arm, p in fixed(whole).items()})
    assert "This first look is judged at 0.04" in whole.shown().caption


def test_fewer_seeds_than_were_planned_at_the_first_table_are_no_first_look(tmp_path: Path) -> None:
    """Or whoever watches a study could stop it where a test for a fixed number of seeds happens to decide."""
    Written(tmp_path, range(8), missing=[("k=3", 7)]).write().shown()
    study = Written(tmp_path, range(5), name="shorter").write()
    assert study.shown()["p_holm"] == near({arm: min(p / 0.2, 1) for arm, p in always(study).items()})
    longer = Written(tmp_path, range(12), name="longer").write()
    once, since = fixed(longer, range(8)), always(longer)
    assert longer.shown()["p_holm"] == near({arm: min(once[arm] / 0.8, since[arm] / 0.2, 1) for arm in ARMS})


def test_failed_runs_count_as_there_and_add_to_later_looks(tmp_path: Path) -> None:
    study = Written(tmp_path, failed=[("k=2", 3)]).write()
    first = study.shown()
    alone = scipy_stats.ttest_1samp(study.differences("k=2", [0, 1, 2, 4]), 0).pvalue
    assert first["p_value"]["k=2"] == pytest.approx(alone / 0.8)
    mended = replace(study, failed=()).write().shown()
    since = anytime.p_value(study.differences("k=2", [0, 1, 2, 4, 3]), "two-sided")
    assert mended["p_value"]["k=2"] == pytest.approx(min(alone / 0.8, since / 0.2))
    assert mended["p_value"]["k=1"] == first["p_value"]["k=1"]
    assert "Look 2 at this study (of 1 of 3 arms)" in mended.caption
    assert "This first look (of 2 of 3 arms)" in mended.caption


def test_an_arm_that_is_added_has_its_own_first_look(tmp_path: Path) -> None:
    Written(tmp_path, range(4), arms={"k=1": 0.0, "k=2": 3.0}).write().shown()
    study = Written(tmp_path, range(9), name="more").write()
    shown = study.shown()
    raw = scipy_stats.ttest_1samp(study.differences("k=3"), 0).pvalue
    assert shown["p_value"]["k=3"] == pytest.approx(raw / 0.8)
    assert shown["p_value"]["k=3"] < anytime.p_value(study.differences("k=3"), "two-sided") / 0.2
    assert study.on_record.first[_fingerprint("k=3")][0].seeds == tuple(range(9))
    assert study.on_record.first[_fingerprint("k=2")][0].seeds == tuple(range(4))


def _fingerprint(arm: str) -> str:
    from cnn_ablation.runs import provenance

    return provenance.fingerprint({"settings": {"k": arm}, "data": "", "code": "1"})


def test_arms_that_are_left_out_later_still_count_as_comparisons(tmp_path: Path) -> None:
    """Or the best of many arms would be judged as if it were the only one."""
    Written(tmp_path).write().shown()
    alone = Written(tmp_path, range(9), name="the best", arms={"k=2": 3.0}).write()
    once = scipy_stats.ttest_1samp(alone.differences("k=2", range(5)), 0).pvalue / 0.8
    since = anytime.p_value(alone.differences("k=2"), "two-sided") / 0.2
    shown = alone.shown()
    assert shown["p_value"] == near({"k=2": min(once, since)})
    assert shown["p_holm"] == near({"k=2": 3 * min(once, since)})
    assert "correction over 3 comparisons" in shown.caption
    assert "2 arms that an earlier table had beside these count as comparisons too." in shown.caption
    runs = cnn_ablation.load_runs(alone.folder)
    table = cnn_ablation.ablation_table(runs, metric="score", margin=MARGIN).set_index("arm")
    pd.testing.assert_frame_equal(table, shown.arms)
    more = Written(tmp_path, range(9), name="more", arms={**ARMS, "k=4": 0.0}).write().shown()
    assert "beside" not in more.caption
    assert "correction over 4 comparisons" in more.caption


def test_an_arm_is_what_it_computes_not_its_name(tmp_path: Path) -> None:
    """Other code trains all runs again: this is another study."""
    Written(tmp_path).write().shown()
    study = Written(tmp_path, range(9), name="later", code="2").write()
    assert study.shown()["p_holm"] == near({arm: min(p / 0.8, 1) for arm, p in fixed(study).items()})


def test_seeds_that_nobody_looked_at_are_another_study(tmp_path: Path) -> None:
    Written(tmp_path).write().shown()
    study = Written(tmp_path, range(100, 106), name="fresh").write()
    shown = study.shown()
    assert shown["p_holm"] == near({arm: min(p / 0.8, 1) for arm, p in fixed(study).items()})
    assert (
        "Alpha holds for these seeds alone: there was 1 earlier look at other seeds of the same arms." in shown.caption
    )


def test_seeds_that_were_added_count_after_those_of_the_first_look(tmp_path: Path) -> None:
    """Evidence is added in the order in which seeds were, whatever their numbers."""
    Written(tmp_path, range(5, 9)).write().shown()
    study = Written(tmp_path, range(9), name="before").write()
    order = [5, 6, 7, 8, 0, 1, 2, 3, 4]
    raw = {arm: scipy_stats.ttest_1samp(study.differences(arm, order[:4]), 0).pvalue / 0.8 for arm in ARMS}
    later = {arm: anytime.p_value(study.differences(arm, order), "two-sided") / 0.2 for arm in ARMS}
    assert study.shown()["p_value"] == near({arm: min(raw[arm], later[arm], 1.0) for arm in ARMS})


def test_another_metric_is_looked_at_for_itself(tmp_path: Path) -> None:
    Written(tmp_path).write().shown()
    study = replace(Written(tmp_path), seeds=range(9)).write()
    study.shown()
    other = study.shown(metric="other")  # the scores times a constant: the same t statistics
    assert other["p_holm"] == near({arm: min(p / 0.8, 1) for arm, p in fixed(study).items()})
    assert study.shown()["p_holm"] != other["p_holm"]


def test_the_test_that_always_holds_has_no_first_look(tmp_path: Path) -> None:
    for count in (3, 6):
        study = Written(tmp_path, range(count)).write()
        shown = study.shown(test="anytime", reserve=0.5)
        assert shown["p_holm"] == near(always(study))
        assert "ook" not in shown.caption.replace("every look", "")
    assert not (study.store / "looks").exists()
    assert not (study.folder / "looks.json").exists()


def test_the_test_that_always_holds_after_another_one_says_so(tmp_path: Path) -> None:
    """It spends an alpha of its own."""
    study = Written(tmp_path).write()
    study.shown()
    content = (study.folder / "looks.json").read_bytes()
    text = replace(study, seeds=range(9)).write().shown(test="anytime").caption
    assert "Alpha holds for this test alone: there was 1 earlier look at these arms with another one." in text
    assert (study.folder / "looks.json").read_bytes() == content
    assert len(study.on_record.tables) == 1


def test_nothing_reserved_leaves_nothing_for_more_seeds(tmp_path: Path) -> None:
    first = Written(tmp_path).write()
    once = first.shown(reserve=0.0)
    assert "ook" not in once.caption
    later = replace(first, seeds=range(30)).write().shown(reserve=0.0)
    assert later["p_holm"] == near(once["p_holm"])
    assert later["verdict"] == once["verdict"]
    assert "stats.reserve=0 left nothing for the seeds that were added, which decide nothing" in later.caption


def test_alpha_is_divided_once_and_for_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Written(tmp_path).write()
    study.shown(reserve=0.2)
    capsys.readouterr()
    longer = replace(study, seeds=range(9)).write()
    once, since = fixed(longer, range(5)), always(longer)
    assert longer.shown(reserve=0.5)["p_holm"] == near({arm: min(once[arm] / 0.8, since[arm] / 0.2, 1) for arm in ARMS})
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "warning: stats.reserve=0.5: alpha was divided at the first look at this study, with stats.reserve=0.2, which "
        "counts" in said
    )


# Where the record is


def test_a_copied_folder_keeps_its_first_look(tmp_path: Path) -> None:
    study = Written(tmp_path).write()
    study.shown()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(study.folder, elsewhere / "study")
    longer = Written(elsewhere, range(9)).write()
    shutil.rmtree(elsewhere / "store")
    once, since = fixed(longer, range(5)), always(longer)
    expected = near({arm: min(once[arm] / 0.8, since[arm] / 0.2, 1) for arm in ARMS})
    assert longer.shown()["p_holm"] == expected
    assert not longer.store.exists()
    longer.store.mkdir()
    assert longer.shown()["p_holm"] == expected  # a store that knows nothing of it learns it
    assert longer.on_record.first[_fingerprint("k=1")][0].seeds == tuple(range(5))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 9}',
        b'{"format": 1, "first": {"a": [1]}}',
        b'{"format": 1, "tables": 3}',
        b'{"format": 1, "reserve": 2}',
        b"\xff",
    ],
    ids=["empty", "torn", "a list", "format", "first", "tables", "reserve", "no text"],
)
def test_a_damaged_record_is_named_and_the_copy_counts(
    text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Written(tmp_path).write()
    study.shown()
    (path,) = (study.store / "looks").glob("*.json")
    path.write_bytes(text)
    longer = replace(study, seeds=range(9)).write()
    once, since = fixed(longer, range(5)), always(longer)
    assert longer.shown()["p_holm"] == near({arm: min(once[arm] / 0.8, since[arm] / 0.2, 1) for arm in ARMS})
    said = " ".join(capsys.readouterr().err.split())
    assert f"warning: {path} is damaged or unreadable" in said
    assert "the looks on record there do not count" in said
    assert len(study.on_record.tables) == 2  # mended


@pytest.mark.parametrize(
    "text",
    [b"{", b'{"format": 1, "metrics": [1]}', b'{"format": 1, "metrics": {"score": {"arms": 1}}}'],
    ids=["torn", "a list", "arms"],
)
def test_a_damaged_copy_is_named_and_the_store_counts(
    text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Written(tmp_path).write()
    study.shown()
    (study.folder / "looks.json").write_bytes(text)
    cnn_ablation.load_runs(study.folder)
    assert "looks.json is damaged or unreadable" in " ".join(capsys.readouterr().err.split())
    longer = replace(study, seeds=range(9)).write()
    assert longer.shown()["p_holm"]["k=1"] == near(min(fixed(longer, range(5))["k=1"] / 0.8, 1))
    assert "Look 2" in longer.shown().caption


def test_a_record_that_cannot_be_kept_holds_nothing_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Written(tmp_path).write()
    (study.store / "looks").write_text("a file where the folder belongs")
    expected = study.shown()["p_holm"]
    assert expected == near({arm: min(p / 0.8, 1) for arm, p in fixed(study).items()})
    said = " ".join(capsys.readouterr().err.split())
    assert f"warning: cannot write {study.store / 'looks'}" in said
    assert "more seeds of this study will not know of this look at its table" in said
    assert study.shown()["p_holm"] == expected


def test_studies_that_end_at_once_share_one_first_look(tmp_path: Path) -> None:
    """Whoever comes first settles it; nobody's look is lost."""
    studies = [Written(tmp_path, range(count), name=str(count)).write() for count in range(3, 11)]
    threads = [threading.Thread(target=study.shown) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = studies[0].on_record
    assert {tuple(table[_fingerprint("k=1")]) for _, table in found.tables} == {tuple(range(n)) for n in range(3, 11)}
    assert {arm: len(first) for arm, first in found.first.items()} == {_fingerprint(arm): 1 for arm in ARMS}


def test_the_earlier_of_two_records_counts() -> None:
    early, late = FirstLook("2026-01-01", (0, 1, 2), taken=True), FirstLook("2026-01-02", (0, 1, 2, 3, 4), taken=True)
    other = FirstLook("2026-01-03", (7, 8), taken=True)
    for found in (Looks({"a": (early,)}).merged(Looks({"a": (late, other)})),
                  Looks({"a": (late, other)}).merged(Looks({"a": (early,)}))):  # fmt: skip
        assert found.first == {"a": (early, other)}
    planned = FirstLook("2026-01-01", (0, 1, 2, 3), taken=False)
    assert Looks({"a": (planned,)}).merged(Looks({"a": (early,)})).first == {"a": (early,)}


def test_looks_are_no_runs_of_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Written(tmp_path).write()
    study.shown()
    assert store_command.main(["list", "--store", str(study.store)]) == 0
    assert "0 runs" in capsys.readouterr().out
    assert store_command.main(["prune", "--all", "--store", str(study.store)]) == 0
    assert "the record of 1 study that was looked at stays" in capsys.readouterr().out
    assert len(study.on_record.tables) == 1


# In Python and from the command line


def test_a_notebook_shows_the_verdicts_of_the_study(tmp_path: Path) -> None:
    Written(tmp_path).write().shown()
    study = replace(Written(tmp_path), seeds=range(9)).write()
    expected = study.shown().arms
    runs = cnn_ablation.load_runs(study.folder)
    assert runs.attrs["first_look"] == {"score": {arm: list(range(5)) for arm in ARMS}}
    arms = cnn_ablation.ablation_table(runs, metric="score", margin=MARGIN).set_index("arm")
    pd.testing.assert_frame_equal(arms, expected)
    given = cnn_ablation.ablation_table(runs, metric="score", margin=MARGIN, first_look={}).set_index("arm")
    assert given["p_holm"].drop("baseline").to_dict() == near({a: min(p / 0.8, 1) for a, p in fixed(study).items()})


def test_copies_of_a_table_of_runs_share_what_it_knows_of_looks(tmp_path: Path) -> None:
    """Pandas copies attributes deeply for every column: with a thousand arms that took most of a report's time."""
    Written(tmp_path).write()
    runs = cnn_ablation.load_runs(tmp_path / "study")
    assert runs[["seed"]].attrs["first_look"] is runs.attrs["first_look"]
    runs.to_parquet(tmp_path / "runs.parquet")
    assert pd.read_parquet(tmp_path / "runs.parquet").attrs["first_look"] == runs.attrs["first_look"]


def test_a_study_that_was_killed_before_any_table_has_no_first_look(tmp_path: Path) -> None:
    study = Written(tmp_path, missing=[("k=3", 4)]).write()
    runs = cnn_ablation.load_runs(study.folder)
    assert runs.attrs["first_look"] == {"score": dict.fromkeys(ARMS)}
    assert not (study.folder / "looks.json").exists()
    assert not (study.store / "looks").exists()


@pytest.mark.parametrize("given", [5, [0, 1], {"k=1": 3}, {"k=1": "012"}, {"k=1": [0.5]}, {"k=1": [True]}], ids=str)
def test_a_first_look_that_is_none_is_refused(given: Any, tmp_path: Path) -> None:
    runs = Written(tmp_path).write() and cnn_ablation.load_runs(tmp_path / "study")
    with pytest.raises(ConfigError) as raised:
        cnn_ablation.ablation_table(runs, metric="score", first_look=given)
    said = str(raised.value)
    assert "first_look=" in said
    assert "allowed: arm -> the seeds of its first look (whole numbers), or None" in said
    assert 'remedy: first_look={"k=v": [0, 1, 2]}' in said


@pytest.mark.parametrize("reserve", [-0.1, 1.0, math.nan])
def test_the_bounds_of_the_reserve(reserve: float, tmp_path: Path) -> None:
    runs = Written(tmp_path).write() and cnn_ablation.load_runs(tmp_path / "study")
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        cnn_ablation.ablation_table(runs, metric="score", reserve=reserve)


def test_notes_name_the_test_that_may_still_decide(tmp_path: Path) -> None:
    """At 0.04 / 3 signs need 8 seeds; at 0.01 / 3 the other test needs 5."""
    study = Written(tmp_path, range(3), stats={"test": "sign_flip"}).write()
    assert "no verdict possible with 3 seeds: sign_flip needs 8 here" in study.shown().arms["notes"]["k=1"]
    later = replace(study, seeds=range(4)).write().shown()
    assert anytime.smallest_p_value(4) > 0.01 / 3 >= anytime.smallest_p_value(5)
    assert "no verdict possible with 4 seeds: anytime needs 5 here" in later.arms["notes"]["k=1"]


def trained(config: Config, folder: Path) -> Written:
    """A study of real runs, without its pictures."""
    planning = Planning(
        "one_at_a_time", [knob("train.batch_size", [8])], lambda arm: with_settings(config, arm.settings)
    )
    write_plan(folder, planning.plan())
    for number, (arm, each) in enumerate(planning.configs.items()):
        run(replace(each, arm=ArmConfig(arm.name, arm.knob, arm.level)), folder / str(number), study=folder)
    return Written(folder.parent, name=folder.name)


def test_real_runs_share_their_looks(tiny_config: Config, tmp_path: Path) -> None:
    """The records of an arm have the same identity in every folder, but for the seed."""
    config = replace(tiny_config, stats=StatsConfig(metric="test_loss"))
    first = trained(config, tmp_path / "first").shown()
    after = trained(replace(config, replicates=4), tmp_path / "longer").shown()
    losses = cnn_ablation.load_runs(tmp_path / "longer").pivot(index="seed", columns="arm", values="test_loss")
    values = (losses["train.batch_size=8"] - losses["baseline"]).to_numpy()
    once, since = scipy_stats.ttest_1samp(values[:2], 0).pvalue / 0.8, anytime.p_value(values, "two-sided") / 0.2
    assert first["p_holm"] == near({"train.batch_size=8": once})
    assert after["p_holm"] == near({"train.batch_size=8": min(once, since, 1.0)})
    assert "Look 2 at this study: the first, after 2 seeds, was judged" in after.caption


def test_the_report_keeps_looks_and_rebuilds_the_same_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Written(tmp_path, arms={"k=2": 3.0}).write()
    assert report([str(study.folder)]) == 0
    replace(study, seeds=range(9)).write()
    assert report([str(study.folder)]) == 0
    files = [study.folder / f"ablation.{kind}" for kind in ("csv", "md", "tex")]
    before = [file.read_bytes() for file in files]
    assert b"Look 2 at this study: the first, after 5 seeds" in before[1]
    assert report([str(study.folder)]) == 0
    assert [file.read_bytes() for file in files] == before
    capsys.readouterr()


def test_the_simulation_of_looks_judges_as_the_report_does(tmp_path: Path) -> None:
    """With nothing reserved the first look is Holm's t test, and no later one adds anything."""
    found = looks.accuracies(2.0, 4)
    verdicts = looks.on_record(found, tmp_path, 0.0)
    assert verdicts.shape == (4, 3, 9)
    assert np.array_equal(verdicts[:, 0], looks.unheeding(found, "t")[:, 0])
    assert np.array_equal(verdicts[:, 2], verdicts[:, 0])
    assert set(verdicts.ravel()) > {"better"}
