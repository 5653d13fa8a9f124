"""What the parts of the calibration's page share: the random seed, tables, and how precise a share is."""

from __future__ import annotations

import gc
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
import scipy
from scipy import stats as scipy_stats

from cnn_ablation.runs import provenance
from cnn_ablation.tasks.image_classification.identity import LIBRARIES

SEED = 20_261_121


def prepare() -> None:
    """Freezes what is there: Python need not look for garbage among it."""
    gc.freeze()


def percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.1f}"


def interval(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Clopper and Pearson 1934)."""
    found = scipy_stats.binomtest(count, total).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def paragraph(*lines: str) -> Iterator[str]:
    """Filled to the width of the page, with an empty line behind it."""
    yield textwrap.fill(" ".join(lines), 120, break_long_words=False, break_on_hyphens=False) + "\n"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heading) + " |"
    yield "|" + "---:|" * len(heading)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""


def precision(studies: int) -> str:
    error = 196 * np.sqrt(0.05 * 0.95 / studies)
    worst = 5 + 1.56 * error
    return f"a true 5 % shows as 5 ± {error:.1f} in 19\nof 20 cells, and as up to {worst:.1f} in the worst of 45"


def made_with() -> Iterator[str]:
    made_with = provenance.environment(LIBRARIES)
    yield f"cnn_ablation {made_with['versions']['cnn_ablation']} ({str(made_with['git_commit'])[:12]}),"
    yield f"numpy {np.__version__}, scipy {scipy.__version__}.\n"
