"""The table in TeX: its form, and what pdflatex makes of it in documents of two columns."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from arm_tables import STUDIES, another_metric, knobs, special_names

from cnn_ablation.report.tex_table import tex_table
from cnn_ablation.report.tex_text import breakable, escaped, sentence
from cnn_ablation.report.text import name_pieces

CLASSES = {
    "article": r"\documentclass[twocolumn]{article}",
    "252 points": r"\documentclass[twocolumn,10pt]{article}\textwidth=516pt\columnsep=12pt\hoffset=-0.6in",
    "219 points": r"\documentclass[twocolumn,11pt,a4paper]{article}\textwidth=455pt\columnsep=17pt\hoffset=-0.4in",
}
"""That of LaTeX, and columns as wide as those of IEEE and of ACL."""
PREAMBLE = r"""
\usepackage{booktabs,threeparttable,siunitx}
\begin{document}
\input{ablation}
Table~\ref{tab:ablation}.
\end{document}
"""
MOST_OVERFULL = 1.0  # points


@pytest.mark.tex
@pytest.mark.parametrize("document", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_the_table_compiles_inside_its_column(study: object, document: str, tmp_path: Path) -> None:
    arms, caption = study()  # type: ignore[operator]
    (tmp_path / "ablation.tex").write_text(tex_table(arms, caption), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(document + PREAMBLE, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    log = (tmp_path / "paper.log").read_text(encoding="latin-1")
    assert done.returncode == 0, log[-3000:]
    overfull = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]
    assert [points for points in overfull if points > MOST_OVERFULL] == []
    assert "Missing character" not in log
    assert (tmp_path / "paper.pdf").stat().st_size > 1000


def rows(text: str) -> list[list[str]]:
    """Cells of the lines of figures."""
    body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0]
    lines = [line.removesuffix(r" \\") for line in body.splitlines() if " & " in line]
    return [line.split(" & ") for line in lines]


def test_numbers_are_for_siunitx_to_align() -> None:
    arms, caption = knobs()
    text = tex_table(arms, caption)
    by_hand = arms.iloc[1]
    assert rows(text)[1] == [
        "8",
        f"{100 * by_hand['test_accuracy_mean']:.2f}",
        f"{by_hand['delta_pp']:+.2f}",
        rf"[\num{{{by_hand['delta_ci_low_pp']:+.2f}}}, \num{{{by_hand['delta_ci_high_pp']:+.2f}}}]",
        "worse",
        f"{by_hand['time_ratio']:.2f}",
    ]
    assert "S[table-format=1.0]S[table-format=2.2]S[table-format=+2.2]llS[table-format=1.2]" in text
    assert r"\label{tab:ablation}" in text
    assert r"\usepackage{booktabs,threeparttable,siunitx}" in text.partition(r"\begin{table}")[0]


def test_the_caption_is_three_sentences_and_the_others_stay_as_a_comment() -> None:
    arms, caption = knobs()
    text = tex_table(arms, caption)
    shown = re.search(r"\\caption\{(.*)\}\n", text)
    assert shown
    assert shown[1].startswith("Top-1 test accuracy at the end of training, mean over seeds (n = 8). Differences from")
    assert r"paired by seed, with individual 95~\% t intervals, a paired t test and Holm's correction" in shown[1]
    assert len(re.findall(r"\.(?= |$)", shown[1])) == 3
    comment = " ".join(line.removeprefix("%").strip() for line in text.splitlines() if line.startswith("%"))
    for words in ("Any false better or worse", "Trained on a machine.", "Intervals of the means"):
        assert words in comment
        assert words not in text.partition(r"\begin{table}")[2]


def test_runs_that_are_not_as_planned_are_told_below_the_table() -> None:
    arms, caption = STUDIES["failed and diverged arms"]()
    notes = tex_table(arms, caption).partition(r"\begin{tablenotes}")[2]
    assert r"\item[] 5 of 15 runs failed and have no score." in notes
    assert r"\item[] 2 of 15 runs diverged and count as what they scored." in notes


def test_notes_are_numbered_once() -> None:
    arms, caption = knobs()
    text = tex_table(arms, caption)
    assert text.count("the runs were not side by side with equally many others") == 1
    assert r"\item[1] $-$84~\% parameters" in text
    assert r"time ratio from 5 of 8 to 6 of 8 seeds: in the others" in text
    marks = re.findall(r"\\tnote\{([\d,]+)\}", text)
    assert marks == ["1,2", *["2"] * 5]
    assert r"filters=\allowbreak{}[4,\allowbreak{}8,\allowbreak{}16]\tnote{1,2}" in text


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (r"batch\_norm=50\%", "batch_norm=50%"),
        (r"\textbackslash{}\{\}\textasciitilde{}\textasciicircum{}\#\$\&", "\\{}~^#$&"),
        (r"\textless{}\textbar{}\textgreater{}", "<|>"),
        (r"a-{}-b '{}' ,{},", "a--b '' ,,"),
        (r"gr\"{o}\ss{}e \'{\i{}}", "größe í"),
        (r"$\pi$ $\Omega$ A $\varsigma$ o $\lambda$", "π Ω Α ς ο λ"),
        (r"1e-3 $\pm$0.5", "1e-3 ±0.5"),
        (r"\texttt{U+4E2D} \texttt{U+1F600}", "中 😀"),
        (r"fi2  ", "ﬁ²\u00a0\n"),
        (r"\texttt{U+03DD}", "ϝ"),
    ],
)
def test_every_character_has_its_sign(expected: str, text: str) -> None:
    assert escaped(text) == expected


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (r"$-$84~\% parameters", "-84 % parameters"),
        (r"inside $\pm$0.5", "inside ±0.5"),
        (r"Top-1 at 1e-3, 7-19", "Top-1 at 1e-3, 7-19"),
    ],
)
def test_prose_has_real_minus_signs(expected: str, text: str) -> None:
    assert sentence(text) == expected


@pytest.mark.parametrize(
    ("pieces", "name"),
    [
        (["model.", "filters=", "[4,", "8,", "16]"], "model.filters=[4,8,16]"),
        (["optimizer.", "lr=", "0.001"], "optimizer.lr=0.001"),
        (["k=", "-1e-05"], "k=-1e-05"),
        (["x" * 16, "x" * 4], "x" * 20),
        (["batch_", "norm=", "true"], "batch_norm=true"),
    ],
)
def test_names_part_at_punctuation_and_not_in_numbers(pieces: list[str], name: str) -> None:
    assert name_pieces(name) == pieces
    assert "".join(pieces) == name
    assert breakable(pieces).count(r"\allowbreak{}") == len(pieces) - 1


def test_no_character_of_a_name_is_lost() -> None:
    arms, caption = special_names()
    text = tex_table(arms, caption)
    assert r"\textasciitilde{}" in text
    assert r"\texttt{U+4E2D}" in text
    assert text.partition(r"\begin{table}")[2].isascii()


@pytest.mark.parametrize(("unit", "power"), [(1e-5, -5), (1e10, 10)])
def test_the_exponent_that_all_numbers_share_is_in_the_heading(unit: float, power: int) -> None:
    arms, caption = another_metric(unit)
    text, best = tex_table(arms, caption), arms.iloc[1]
    mean, delta = best["metric_mean"] / 10.0**power, best["delta"] / 10.0**power
    assert [float(cell) for cell in rows(text)[1][1:3]] == pytest.approx([mean, delta], abs=1e-3)
    assert rf"($10^{{{power}}}$)" in text
    assert "e-" not in "".join(cell for row in rows(text) for cell in row)


def test_without_a_caption_there_is_one_all_the_same() -> None:
    assert r"\caption{Ablation.}" in tex_table(knobs()[0], "")


def test_an_arm_without_figures_is_an_empty_row() -> None:
    arms, caption = STUDIES["failed and diverged arms"]()
    assert isinstance(arms, pd.DataFrame)
    assert rows(tex_table(arms, caption))[1] == ["0", "", "", "", "undecided", ""]
