"""report.html: everything that a reader wants of a study, in one file that asks nothing of any other."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_ablation.analysis.metrics import WEIGHTED
from cnn_ablation.analysis.tables import num_comparisons, reference_words
from cnn_ablation.common.errors import one_line
from cnn_ablation.common.progress import warn
from cnn_ablation.common.words import counted
from cnn_ablation.report.findings import Findings
from cnn_ablation.report.page import answers, classes, curves, protocol, rows, side_effects
from cnn_ablation.report.page.citation import citation
from cnn_ablation.report.page.names import Names, knob_names, metric_title
from cnn_ablation.report.page.plots import plots
from cnn_ablation.report.page.simple_table import SimpleTable
from cnn_ablation.report.paper import HOW_TO_READ as OF_PAPER
from cnn_ablation.report.paper import readable_comparison
from cnn_ablation.report.pictures import left_out
from cnn_ablation.report.variance import HOW_TO_READ as OF_VARIANCE
from cnn_ablation.report.variance import readable_variance
from cnn_ablation.runs.provenance import code_version, versions
from cnn_ablation.runs.store.memory import key_of
from cnn_ablation.study.chance import VARY

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Template

NAME = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what no page may hold


def files(found: Findings) -> dict[str, bytes]:
    """The page by its name; nothing where it cannot be made, which is told of and costs nothing else."""
    try:
        return {NAME: document(found)}
    except Exception as error:  # tables and pictures are worth more than the page around them
        warn(f"{NAME} could not be made ({one_line(error)}); tables and pictures do not need it")
        return {}


def document(found: Findings) -> bytes:
    """The page as UTF-8; what is no Unicode is a question mark. The same findings give the same bytes.

    One that would show what is remembered is taken from the store: a template takes a tenth of a second to compile.
    """
    content, memory = _content(found), found.memory
    key = f"{key_of(repr(content), _version())}.html"
    page = memory.find(key) if memory else None
    if page is None:
        page = _template().render(content).encode(errors="replace")
        if memory:
            memory.keep(key, page)
    return page


@cache
def _version() -> tuple[Any, ...]:
    """Of what makes a page from its content."""
    templates = [path.read_bytes() for path in sorted(_TEMPLATES.iterdir())]
    return sha256(b"\0".join(templates)).hexdigest(), code_version(("report",)), versions(("jinja2",))


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    for name in ("style.css", "page.js"):
        environment.globals[name.partition(".")[0]] = Markup((_TEMPLATES / name).read_text(encoding="utf-8"))
    environment.filters["share"] = classes.share
    environment.get_template("macros.jinja")  # which it imports where it is shown
    return environment.get_template("report.html.jinja")


def prepare() -> None:
    """Compiles the page ahead of what it shows."""
    _template()


def _printable(value: Any) -> Any:
    """A text from outside without characters that no page may hold; markup of ours is left as it is."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", value) if type(value) is str else value


def _content(found: Findings) -> dict[str, Any]:
    names = Names(found.arms)
    is_of_chance = len(found.variance) > 0 and knob_names(found.arms) == [VARY]
    said = answers.answers(found.arms, names)
    shown = answers.of_variance(found.variance, found.metric) if is_of_chance else said
    failures, more_failures = side_effects.failures(found.runs, names)
    return {
        "question": answers.question(found.arms, names),
        "varied": answers.varied(found.arms, names),
        "of_what": list(_of_what(found)),
        "conclusion": answers.conclusion(found.arms, [] if is_of_chance else said),
        "answers": answers.grouped(shown, names),
        "basis": list(_basis(found)),
        "table": rows.table_of_arms(found.arms, names),
        "interval_width": rows.WIDTH,
        "reference": reference_words(found.arms),
        "plots": list(plots(found, names)),
        "metric": metric_title(found.metric),
        "left_out": left_out(found.arms),
        "curves": curves.curves_of(found, names, [answer.arm for answer in said]),
        "panel_axes": curves.AXES,
        "classes": classes.classes_of(found, names),
        "figures_per_class": classes.FIGURES,
        "most_classes": classes.MOST_CLASSES,
        "costs": side_effects.costs(found.runs, found.arms, names),
        "diagnoses": side_effects.diagnoses(found.runs, found.arms, names),
        "failures": failures,
        "more_failures": more_failures,
        "variance": _variance(found),
        "paper": _paper(found),
        "paragraphs": found.caption.paragraphs(),
        **_protocol(found, names),
    }


def _protocol(found: Findings, names: Names) -> dict[str, Any]:
    """Of a study; a table of runs alone has no plan."""
    plan = found.plan
    known: Mapping[str, Any] = plan.provenance if plan else {}
    return {
        "facts": list(protocol.facts(found, plan)) if plan else [],
        "knobs": protocol.knobs(plan, names) if plan else [],
        "steps": list(protocol.steps(plan, found.arms, names)) if plan else [],
        "merged": list(plan.merged.items()) if plan else [],
        "settings": protocol.settings(plan) if plan else [],
        "environments": protocol.environments(found.study.runs) if found.study else [],
        "command": str(known.get("command") or ""),
        "is_study": plan is not None,
        "citation": citation(known.get("versions") or {}),
    }


def _of_what(found: Findings) -> Iterator[str]:
    """What stands above the heading: what was trained, and when."""
    yield "Ablation study"
    if not found.plan:
        return
    baseline = found.plan.baseline
    if what := baseline.get("task.target") or baseline.get("data.name"):
        yield str(what)
    if date := _date(str(found.plan.provenance.get("time", ""))):
        yield date


def _date(moment: str) -> str:
    """`2026-11-26T09:11:17+0000` -> 26 November 2026; empty for what is no moment."""
    try:
        found = time.strptime(moment[:10], "%Y-%m-%d")
    except ValueError:
        return ""
    return f"{found.tm_mday} {_MONTHS[found.tm_mon - 1]} {found.tm_year}"


_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip  # the system's language is not the page's


def _basis(found: Findings) -> Iterator[tuple[str, str]]:
    """What the answers rest on: metric, seeds, test examples, and how long verdicts hold."""
    metric = found.metric
    better = "top-1, higher is better" if metric.is_accuracy else f"{metric.direction} is better"
    yield "Metric", f"{metric.words} ({better})"
    counts = found.arms["n"]
    least, most = int(counts.min()), int(counts.max())
    yield "Seeds", f"{counted(most, 'seed')} an arm" if least == most else f"{least} to {most} an arm"
    if most > 1:
        yield "Intervals", f"{100 * (1 - found.settings.alpha):g} %, for the mean over seeds"
    if examples := _num_examples(found):
        yield "Tested on", f"{examples:,} examples"
    comparisons = num_comparisons(found.arms)
    if comparisons and found.arms["p_value"].isna().all():
        yield "Verdicts", "none: with these seeds no test is possible"
    elif comparisons:
        how = "Dunnett's test" if found.settings.test == "dunnett" else "Holm's correction"
        yield "Verdicts", f"hold after {how} over {counted(comparisons, 'comparison')} at {found.settings.alpha:g}"
    if metric.margin is not None and comparisons and found.arms["p_value"].notna().any():
        yield "Equivalent", f"within ±{metric.margin:g}{' points' if metric.is_accuracy else ''}"


def _num_examples(found: Findings) -> int:
    """Of the test part of the arm that others are compared with; 0 where that is not known."""
    per_class = found.per_class
    if not len(per_class) or not found.metric.column.startswith("test_") or "support" not in per_class:
        return 0
    is_whole = (per_class["part"] == "test") & (per_class["class"] == WEIGHTED)
    supports = per_class.loc[is_whole & (per_class["arm"] == found.arms["arm"].iloc[0]), "support"]
    return round(float(supports.iloc[0])) if len(supports) else 0


def _variance(found: Findings) -> tuple[SimpleTable, str] | None:
    if not len(found.variance):
        return None
    return _as_table("Variance by source", readable_variance(found.variance, found.metric), {"note"}), OF_VARIANCE


def _paper(found: Findings) -> dict[str, Any] | None:
    """The paper's figures beside ours, those of single classes left to paper.csv."""
    if not found.paper:
        return None
    whole = found.paper.rows[found.paper.rows["class"] == ""]
    texts = {"figure", "the paper's is", "printed in", "why"}
    return {
        "table": _as_table("Paper against ours", readable_comparison(whole), texts),
        "source": found.paper.paper.source,
        "departures": found.paper.departures,
        "more": len(found.paper.rows) - len(whole),
        "how_to_read": OF_PAPER,
    }


def _as_table(caption: str, frame: pd.DataFrame, texts: set[str]) -> SimpleTable:
    places = frozenset(place for place, name in enumerate(frame.columns) if name in texts)
    return SimpleTable(caption, [str(name) for name in frame.columns], frame.astype(str).values.tolist(), places)
