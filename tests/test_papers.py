"""The papers' studies: every figure belongs to an arm of its study, and comparing is arithmetic on records."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cnn_ablation.analysis.tables import FinishedStudy
from cnn_ablation.app.composition import CONF_DIR
from cnn_ablation.common.errors import UserError
from cnn_ablation.config import StatsConfig
from cnn_ablation.report import papers
from cnn_ablation.report.paper import readable_comparison, section
from cnn_ablation.runs.records import RUN_COLUMNS, Run
from cnn_ablation.study.designs import Arm
from cnn_ablation.study.plans import Plan, read_plan
from cnn_ablation.tasks.image_classification.config import paper_names

STUDIES = {
    path.stem: found[1]
    for path in sorted(Path(CONF_DIR).glob("study/*.yaml"))
    if (found := re.search(r"^paper: (\w+)$", path.read_text(), re.MULTILINE))
}


def test_every_paper_has_a_study() -> None:
    assert set(STUDIES.values()) == set(paper_names())
    assert {name.partition("_")[0] for name in STUDIES} == {"eq2425", "sorensen", "svalheim", "jappinen"}


@pytest.mark.parametrize("name", paper_names())
def test_every_figure_belongs_to_an_arm_and_says_where_it_is_printed(name: str, cli: Callable[..., Any]) -> None:
    arms = set()
    for study in (study for study, paper in STUDIES.items() if paper == name):
        answer = cli("-m", f"study={study}", "dry_run=true")
        assert answer.code == 0, answer.err
        arms |= {line.split(" (")[0].strip() for line in answer.out.splitlines() if line.startswith("  ")}
    paper = papers.read(name)
    assert paper.source
    for figure in paper.figures:
        assert figure.arm in arms, figure
        assert figure.where
        column = figure.metric.removesuffix("_difference")
        assert column in RUN_COLUMNS or column.partition("_")[0] in ("val", "test")
        assert figure.metric == "num_params" or figure.metric.endswith("seconds") or -1 < figure.value < 1


def study_of(
    scores: dict[str, list[float]],
    *,
    area_ratios: Sequence[float] = (0.5, 0.5, 0.5),
    seconds: Sequence[float] = (1.0, 1.0, 1.0),
    num_classes: int = 0,
    settings: dict[str, Any] | None = None,
) -> FinishedStudy:
    """Runs with these test accuracies, one per seed."""
    names = list(scores)
    plan = Plan("one_at_a_time", {}, [], [Arm(name) for name in names], [0, 1, 2], settings or {}, StatsConfig())
    rows = [
        [{"class": "cat", "f1": 0.25}, {"class": "weighted", "f1": 0.5, "area_ratio": ratio}] for ratio in area_ratios
    ]
    runs = [
        Run(name, "", "", seed, "ok", test_accuracy=score, num_params=7, per_class={"test": rows[seed]},
            train_seconds=seconds[seed], num_classes=num_classes)
        for name in names
        for seed, score in enumerate(scores[name])
    ]  # fmt: skip
    return FinishedStudy(plan, runs)


def compared(study: FinishedStudy, *figures: papers.Figure) -> list[dict[str, Any]]:
    frame = papers.compare(papers.Paper("a paper", {"train.epochs": 9}, figures), study, alpha=0.05)
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def test_agreement_is_where_the_papers_figure_lies_against_one_further_run() -> None:
    """Mean 0.60, deviation 0.01, t 4.303 with 2 degrees of freedom: 0.60 +- 4.303 * 0.01 * sqrt(1 + 1/3) = 0.0497."""
    study = study_of({"baseline": [0.59, 0.60, 0.61]})
    figures = [papers.Figure("baseline", "test_accuracy", value, "table 1") for value in (0.551, 0.649, 0.651, 0.549)]
    rows = compared(study, *figures)
    assert [row["agreement"] for row in rows] == ["inside", "inside", "higher", "lower"]
    assert rows[0]["ours"] == pytest.approx(0.60)
    assert rows[0]["ci_high"] == pytest.approx(0.60 + 4.3027 * 0.01 * math.sqrt(4 / 3), abs=1e-5)


@pytest.mark.parametrize(
    ("scores", "metric", "value", "word"),
    [
        ([0.386, 0.427], "test_accuracy", 0.5202, "cannot tell"),
        ([0.386, 0.427], "test_accuracy", 0.9900, "cannot tell"),
        ([0.40, 0.42, 0.45], "test_accuracy", 0.5202, "cannot tell"),
        ([0.40, 0.42, 0.45], "test_accuracy", 0.9900, "higher"),
        ([0.11, 0.115, 0.12], "test_accuracy", 0.1300, "cannot tell"),
        ([0.11, 0.115, 0.12], "test_accuracy", 0.8200, "higher"),
        ([0.41, 0.42, 0.43], "test_accuracy", 0.4300, "inside"),
        ([0.50, 0.50, 0.50], "test_accuracy", 0.5000, "no interval"),
    ],
    ids=["two seeds", "two seeds, far away", "wide", "wide, far away", "guessing", "guessing, far away", "narrow",
         "no spread"],
)  # fmt: skip
def test_a_comparison_that_cannot_tell_says_so(scores: list[float], metric: str, value: float, word: str) -> None:
    """Guessing finds 10 % of ten classes; the wide interval is 0.423 +- 0.125, the one at guessing reaches 0.09."""
    study = study_of({"baseline": scores}, num_classes=10)
    (row,) = compared(study, papers.Figure("baseline", metric, value, "table 1"))
    assert row["agreement"] == word


def test_area_ratios_of_guessing_are_zero() -> None:
    """0.01 +- 0.0497 holds 0, which guessing gives; the same interval around 0.60 tells."""
    for mean, word in ((0.01, "cannot tell"), (0.60, "inside")):
        scores = [mean - 0.01, mean, mean + 0.01]
        study = study_of({"baseline": scores}, area_ratios=scores, num_classes=10)
        (row,) = compared(study, papers.Figure("baseline", "test_area_ratio", mean + 0.02, "table 2"))
        assert row["agreement"] == word


def test_seconds_are_shown_and_never_judged() -> None:
    """5,108 s of a Colab GPU beside 13 s for a hundredth of the training."""
    settings = {"train.epochs": 9, "train.scale": 0.01}
    study = study_of({"baseline": [0.5, 0.6, 0.7]}, seconds=[13.0, 13.3, 13.6], settings=settings)
    figure = papers.Figure("baseline", "train_seconds", 13.2, "column 3.2", why="another machine: a Colab GPU")
    paper = papers.Paper("a paper", {"train.epochs": 9, "train.scale": 1.0, "data.name": "cifar10"}, (figure,))
    comparison = papers.compare(paper, study, 0.05)
    assert comparison["agreement"].tolist() == ["cannot tell"]
    assert comparison["ours"].tolist() == pytest.approx([13.3])
    assert comparison["why"].tolist() == ["another machine: a Colab GPU; train.scale=0.01 here, 1.0 in the paper"]
    text = section(paper, comparison, [])
    assert "Of the paper's 1 figures 1 cannot be compared." in text
    assert "prediction intervals: where one further run of ours would lie" in text


def test_seconds_of_trainings_that_diverged_do_not_count() -> None:
    study = study_of({"baseline": [0.5, 0.6, 0.7]}, seconds=[1.0, 13.0, 15.0])
    diverged = FinishedStudy(study.plan, [replace(study.runs[0], status="diverged"), *study.runs[1:]])
    (row,) = compared(diverged, papers.Figure("baseline", "train_seconds", 5108, "column 3.2"))
    assert (row["ours"], row["n"]) == (14.0, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda study, paper: papers.read("eq2426"),
            "paper=eq2426\n  allowed: eq2425, eq2425_controlled, eq2425_program",
        ),
        (lambda study, paper: papers.read("../papers/eq2425"), "allowed: eq2425, "),
        (lambda study, paper: papers.read(None), "paper=null"),
        (lambda study, paper: papers.compare(paper, study, alpha=5), "alpha=5.0\n  allowed: above 0 and below 0.5"),
        (lambda study, paper: papers.compare("eq2425", study, 0.05), "paper is 'eq2425'; a Paper is wanted"),
        (lambda study, paper: papers.compare(paper, "multirun", 0.05), "study is 'multirun'; a FinishedStudy is"),
        (lambda study, paper: papers.compare(paper, study, 0.05), "is of 'speed'; known are train_accuracy"),
    ],
    ids=["no such paper", "a path", "nothing", "alpha", "a name as paper", "a folder as study", "an unknown metric"],
)
def test_mistakes_of_a_comparison_are_named(call: Callable[[Any, Any], Any], message: str) -> None:
    paper = papers.Paper("a paper", {}, (papers.Figure("baseline", "speed", 1, "table 1"),))
    with pytest.raises(UserError) as raised:
        call(study_of({"baseline": [0.5, 0.6, 0.7]}), paper)
    assert message in str(raised.value)


def test_figures_of_a_class_of_all_classes_and_of_differences() -> None:
    study = study_of({"baseline": [0.5, 0.6, 0.7], "column=2": [0.6, 0.7, 0.8]})
    rows = compared(
        study,
        papers.Figure("baseline", "test_f1", 0.5, "table 1"),
        papers.Figure("baseline", "test_f1", 0.25, "table 1", class_name="cat"),
        papers.Figure("baseline", "num_params", 7, "figure 2"),
        papers.Figure("column=2", "test_accuracy_difference", 0.1, "table 3"),
        papers.Figure("column=3", "test_accuracy", 0.1, "never trained"),
    )
    assert [row["ours"] for row in rows] == pytest.approx([0.5, 0.25, 7, 0.1])
    assert [row["n"] for row in rows] == [3] * 4


def test_one_seed_has_no_interval_and_says_so() -> None:
    (row,) = compared(study_of({"baseline": [0.5]}), papers.Figure("baseline", "test_accuracy", 0.5, "table 1"))
    assert row["agreement"] == "no interval"


def test_what_our_protocol_does_otherwise_is_said() -> None:
    paper = papers.Paper("a paper", {"train.epochs": 300, "data.name": "cifar10", "train.shuffle": False})
    found = list(paper.departures({"train.epochs": 6, "data.name": "digits", "train.shuffle": False}))
    assert found == ["train.epochs=6 here, 300 in the paper", "data=digits here, cifar10 in the paper"]


def test_a_study_leaves_the_section(cli: Callable[..., Any], tmp_path: Path) -> None:
    """A real study, scaled down, on the bundled digits; its report can be rebuilt."""
    answer = cli(
        "-m", "study=jappinen_cifar10", "data=digits", "data.image_size=8", "train.scale=0.01", "replicates=2",
        "zip.network={label:cnn,model:jappinen_cnn,train.batch_size:500,train.epochs:100}", "hydra.sweep.dir=study",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "Paper against ours: jappinen" in answer.out
    assert "Scaled down to 0.01 of the 300 epochs" in " ".join(answer.out.split())
    comparison = pd.read_csv(tmp_path / "study" / "paper.csv")
    assert list(comparison.columns) == list(papers.COLUMNS)
    text = (tmp_path / "study" / "paper.md").read_text()
    assert "train.scale=0.01 here, 1.0 in the paper" in text
    per_class = pd.read_csv(tmp_path / "study" / "per_class.csv")
    assert set(per_class["part"]) == {"val", "test"}
    assert set(per_class["arm"]) == {"baseline", "network=cnn"}
    assert (tmp_path / "study" / "confusion.png").stat().st_size > 10_000
    confusion = pd.read_csv(tmp_path / "study" / "confusion.csv")
    rows = confusion.groupby(["arm", "part", "true_class"])
    assert len(rows) == 2 * 2 * 10
    assert rows["percent"].sum().to_numpy() == pytest.approx(100)
    diagonal = confusion[confusion["true_class"] == confusion["predicted_class"]].set_index(
        ["arm", "part", "true_class"]
    )
    recall = per_class[per_class["class"] != "weighted"].set_index(["arm", "part", "class"])["recall"]
    recall.index = recall.index.set_levels(recall.index.levels[2].astype(int), level=2)
    assert (diagonal["percent"] / 100 - recall.reindex(diagonal.index)).abs().max() < 0.01  # seeds have equal classes
    assert read_plan(tmp_path / "study").baseline["paper"] == "jappinen_cifar10"


def test_the_section_rounds_and_counts() -> None:
    study = study_of({"baseline": [0.59, 0.60, 0.61]}, settings={"train.epochs": 9})
    figures = (
        papers.Figure("baseline", "test_accuracy", 0.58, "table 1"),
        papers.Figure("baseline", "num_params", 7, "f"),
    )
    paper = papers.Paper("a paper", {"train.epochs": 9}, figures)
    comparison = papers.compare(paper, study, 0.05)
    readable = readable_comparison(comparison)
    assert readable["ours"].tolist() == ["60.00 [55.03, 64.97]", "7"]
    assert readable["the paper's is"].tolist() == ["inside", "equal"]
    text = section(paper, comparison, paper.departures(study.plan.baseline))
    assert "Settings that the paper gives are the paper's." in text
    assert "Of the paper's 2 figures 1 are counts that are equal, 1 lie inside our interval." in text


def rows_of_the_page() -> Iterator[dict[str, str]]:
    """Every row of docs/papers.md that sets a figure of a paper beside ours."""
    header: list[str] = []
    for line in (Path(__file__).parents[1] / "docs" / "papers.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif "the paper's is" in cells:
            header = cells
        elif header and not line.startswith("|:"):
            yield dict(zip(header, cells, strict=True))


def test_the_page_of_the_papers_claims_no_more_than_its_numbers_tell() -> None:
    rows = list(rows_of_the_page())
    assert len(rows) > 15
    for row in rows:
        word, seeds = row["the paper's is"], int(row["n"])
        if "seconds" in row["figure"]:
            assert word == "cannot tell", row
        elif seeds < 3:
            assert word in ("cannot tell", "no interval", "equal"), row
        elif word != "equal":
            paper, low, high = float(row["paper"]), *map(float, re.findall(r"[\d.]+(?=[,\]])", row["ours"]))
            assert word == ("inside" if low <= paper <= high else "higher" if paper > high else "lower"), row
            assert word != "inside" or high - low <= 20, row
