"""What looking at a table, adding seeds and looking again does to verdicts, in simulated studies.

    python benchmarks/looks.py --out looks.md
    python benchmarks/looks.py --scale 0.05                             a quick look

Every study has a baseline and nine arms and is looked at after 5, 10 and 15 seeds. Accuracies are normal around 90 %,
independent, with a standard deviation of 1 percentage point. Effects are in standard deviations of the paired
differences (1.41 points), and all arms have one. The first way is that of the package with `stats.test=t`: each look is
made from records of runs, put on record in a store, and judged, by the functions of the report. A repeated t test takes
no notice of earlier looks. `anytime` is there from the start.
"""

from __future__ import annotations

import argparse
import gc
import math
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy
from scipy import stats as scipy_stats

from cnn_ablation.analysis import stats
from cnn_ablation.analysis.tables import FinishedStudy, ablation_table
from cnn_ablation.analysis.tables.first_look import put_on_record
from cnn_ablation.config import StatsConfig
from cnn_ablation.runs import provenance
from cnn_ablation.runs.records import Run
from cnn_ablation.study.designs import BASELINE, Arm
from cnn_ablation.study.plans import Plan
from cnn_ablation.tasks.image_classification.identity import LIBRARIES

SEED = 20_261_126
LOOKS = (5, 10, 15)
NUM_ARMS = 9
RESERVES = (0.2, 0.5)
STUDIES = {(0.0, 0.2): 2000, (0.0, 0.5): 400, (1.0, 0.2): 100, (1.0, 0.5): 100, (2.0, 0.2): 100, (2.0, 0.5): 100}
"""By effect and reserve; others, which are quick, are of `QUICK`."""
QUICK = {0.0: 5000, 1.0: 500, 2.0: 500}
SPREAD = 0.01
NAMES = (BASELINE, *(f"k={number}" for number in range(1, NUM_ARMS + 1)))
REPEATED, ALWAYS = "a t test at every look", "anytime at every look"

Verdicts = npt.NDArray[np.str_]


def accuracies(effect: float, num_studies: int) -> npt.NDArray[np.float64]:
    """Fractions (studies, 1 + arms, seeds), the baseline first."""
    noise = np.random.default_rng([SEED, int(10 * effect)]).standard_normal((num_studies, 1 + NUM_ARMS, LOOKS[-1]))
    shift = np.array([0.0] + [effect * math.sqrt(2)] * NUM_ARMS)[:, None]
    found: npt.NDArray[np.float64] = 0.9 + SPREAD * (noise + shift)
    return found


def on_record(found: npt.NDArray[np.float64], home: Path, reserve: float) -> Verdicts:
    """Verdicts (studies, looks, arms) of studies that are extended, each look in a folder of its own."""
    settings = StatsConfig(reserve=reserve)
    return np.array([
        [_shown(study[:, :count], f"study {number}", home, settings) for count in LOOKS]
        for number, study in enumerate(found)
    ])  # fmt: skip


def _shown(study: npt.NDArray[np.float64], data: str, home: Path, settings: StatsConfig) -> list[str]:
    """The verdicts of a study (1 + arms, seeds) as `report_study` makes them of its records."""
    seeds = list(range(study.shape[1]))
    plan = Plan("one_at_a_time", {"k": list(NAMES[1:])}, [], [Arm(name) for name in NAMES], seeds, {"store": str(home)})
    runs = [
        Run(name, "", "", seed, "ok", val_accuracy=value, test_accuracy=value, train_seconds=1.0,
            provenance={"identity": {"settings": {"k": name}, "data": data, "seed": seed}})
        for name, values in zip(NAMES, study.tolist(), strict=True) for seed, value in zip(seeds, values, strict=True)
    ]  # fmt: skip
    folder = home / f"{data} with {len(seeds)} seeds"
    finished = FinishedStudy(plan, runs)
    table = finished.run_table()
    settings = put_on_record(table, finished, folder, settings)
    return ablation_table(table, **asdict(settings))["verdict"].tolist()[1:]


def unheeding(found: npt.NDArray[np.float64], test: str) -> Verdicts:
    """Verdicts (studies, looks, arms) of one test of all seeds at every look."""
    settings = StatsConfig(test=test)
    looks = [_judged(found[..., :count], settings) for count in LOOKS]
    return np.stack(looks, axis=1)


def _judged(found: npt.NDArray[np.float64], settings: StatsConfig) -> Verdicts:
    compared = stats.compare(found[:, 1:], found[:, :1], settings, num_comparisons=NUM_ARMS)
    numbers = np.stack([compared.difference.mean, compared.p_value, compared.p_equivalence], axis=-1)
    families = [[stats.Comparison(stats.Interval(mean), *p) for mean, *p in study] for study in numbers]
    return np.array([[verdict for _, verdict in stats.verdicts(family, settings)] for family in families])


def simulated(scale: float) -> Iterator[tuple[float, str, Verdicts]]:
    """Effect, way and verdicts."""
    for effect, quick in QUICK.items():
        found = accuracies(effect, max(int(scale * quick), 10))
        for reserve in RESERVES:
            count = max(int(scale * STUDIES[effect, reserve]), 10)
            with tempfile.TemporaryDirectory() as home:
                verdicts = on_record(found[:count], Path(home), reserve)
            yield effect, f"looks on record, stats.reserve={reserve:g}", verdicts
        yield effect, REPEATED, unheeding(found, "t")
        yield effect, ALWAYS, unheeding(found, "anytime")


def report(scale: float) -> Iterator[str]:
    """The page, line by line."""
    found = list(simulated(scale))
    yield "## Looking, adding seeds and looking again\n"
    yield f"From `python benchmarks/looks.py`, random seed {SEED}."
    yield from _made_with()
    yield (__doc__ or "").split("\n\n")[2].strip() + "\n"
    yield "### No effect: studies with any `better` or `worse` so far (family-wise error, %)\n"
    yield "At most 5 is promised; in brackets the 95 % interval of the simulation.\n"
    yield from _table([[way, str(len(verdicts)), *_errors(verdicts)] for effect, way, verdicts in found if not effect])
    for true in list(QUICK)[1:]:
        yield f"### An effect of {true:g} standard deviations: arms found `better` so far (power, %)\n"
        rows = [[way, str(len(verdicts)), *_powers(verdicts)] for effect, way, verdicts in found if effect == true]
        yield from _table(rows)


def _errors(verdicts: Verdicts) -> list[str]:
    """At each look, of studies without an effect."""
    wrong = np.logical_or.accumulate(np.isin(verdicts, ["better", "worse"]).any(axis=2), axis=1)
    return [_with_interval(int(count), len(verdicts)) for count in wrong.sum(axis=0)]


def _with_interval(count: int, total: int) -> str:
    """A share in percent with its exact interval (Clopper and Pearson 1934)."""
    low, high = scipy_stats.binomtest(count, total).proportion_ci()
    return f"{100 * count / total:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _powers(verdicts: Verdicts) -> list[str]:
    """At each look, of arms with an effect."""
    right = np.logical_or.accumulate(verdicts == "better", axis=1)
    return [f"{100 * share:.1f}" for share in right.mean(axis=(0, 2))]


def _table(rows: list[list[str]]) -> Iterator[str]:
    heading = ["way", "studies", *(f"{count} seeds" for count in LOOKS)]
    yield "| " + " | ".join(heading) + " |"
    yield "|:---|" + "---:|" * (len(heading) - 1)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""


def _made_with() -> Iterator[str]:
    made_with = provenance.environment(LIBRARIES)
    yield f"cnn_ablation {made_with['versions']['cnn_ablation']} ({str(made_with['git_commit'])[:12]}),"
    yield f"numpy {np.__version__}, scipy {scipy.__version__}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the page there instead of printing it")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the studies; 0.01 for a quick look")
    options = parser.parse_args()
    gc.freeze()  # nothing of it is garbage
    page = "\n".join(report(options.scale)) + "\n"
    if options.out:
        options.out.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
