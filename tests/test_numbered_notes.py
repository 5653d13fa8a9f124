"""Notes of rows, numbered below a table."""

from __future__ import annotations

import pytest

from cnn_ablation.analysis.notes import OTHER_COMPANY, OTHER_TIME, uncompared_times
from cnn_ablation.report.numbered_notes import apart, numbered


def partial(comparable: int, shared: int, reason: str = OTHER_COMPANY) -> str:
    (note,) = uncompared_times(comparable, shared, [reason])
    return note


COMPANY = "in the others the runs were not side by side with equally many others"
TIME = "in the others the runs were not trained next to each other in time"


@pytest.mark.parametrize(
    ("texts", "numbers", "rows"),
    [
        ([], [[], []], [[], []]),
        (["a", "b", "c"], [[], [1, 2], [2, 3]], [[], ["a", "b"], ["b", "c"]]),
        ([f"time ratio from 4 of 5 seeds: {COMPANY}"], [[1], [1]], [[partial(4, 5)], [partial(4, 5)]]),
        (
            ["a", f"time ratio from 14 of 30 to 27 of 30 seeds: {COMPANY}"],
            [[1, 2], [2], [2]],
            [["a", partial(4, 5)], [partial(14, 30)], [partial(27, 30)]],
        ),
        (
            [f"time ratio from 4 of 5 seeds: {COMPANY}", f"time ratio from 4 of 5 seeds: {TIME}"],
            [[1], [2]],
            [[partial(4, 5)], [partial(4, 5, OTHER_TIME)]],
        ),
        (["14 % dead units", "25 % dead units"], [[1], [2]], [["14 % dead units"], ["25 % dead units"]]),
    ],
    ids=["none", "shared", "the same seeds", "ranges", "two reasons", "figures of single rows"],
)
def test_each_note_stands_once(texts: list[str], numbers: list[list[int]], rows: list[list[str]]) -> None:
    found = numbered(rows)
    assert (found.texts, found.numbers) == (texts, numbers)
    assert [found.marks(row) for row in range(len(rows))] == [", ".join(map(str, each)) for each in numbers]


def test_notes_of_single_rows_stay_with_them() -> None:
    own, shared = apart([["a", partial(3, 5)], ["b", partial(4, 5)], []])
    assert own == [["a"], ["b"], []]
    assert shared.texts == [f"time ratio from 3 of 5 to 4 of 5 seeds: {COMPANY}"]
    assert shared.numbers == [[1], [1], []]
