"""Notes of rows, numbered below a table."""

from __future__ import annotations

import pytest

from cnn_ablation.analysis.notes import OTHER_COMPANY, OTHER_TIME, pairing, uncompared_times, waited
from cnn_ablation.report.numbered_notes import apart, numbered


def partial(comparable: int, shared: int, reason: str = OTHER_COMPANY) -> str:
    (note,) = uncompared_times(comparable, shared, [reason])
    return note


def waiting(*shares: float, seeds: int = 4) -> str:
    """Of so many seeds the first ones had the processor for those shares of their time."""
    (note,) = waited(range(seeds), [*shares, *[1.0] * (seeds - len(shares))])
    return note


def in_one_go(seeds: int) -> str:
    (note,) = uncompared_times(1, seeds, [], in_one_go=seeds - 1)
    return note


COMPANY = "in the others the runs were not side by side with equally many others"
TIME = "in the others the runs were not trained next to each other in time"


@pytest.mark.parametrize(
    ("texts", "numbers", "rows"),
    [
        ([], [[], []], [[], []]),
        (["a; b", "c; d"], [[], [1], [2]], [[], ["a", "b"], ["c", "d"]]),
        (["a", "b", "c"], [[], [1, 2], [2, 3]], [[], ["a", "b"], ["c", "b"]]),
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
        (
            ["3 of 4 to 4 of 4 seeds had the processor for 12 to 28 % of their training time", "a"],
            [[1], [1], [1, 2]],
            [[waiting(0.13, 0.13, 0.17)], [waiting(0.12, 0.13, 0.2, 0.28)], ["a", waiting(0.2, 0.2, 0.2, 0.2)]],
        ),
        (
            ["seed 0 had the processor for 40 to 60 % of its training time"],
            [[1], [1]],
            [[waiting(0.6)], [waiting(0.4)]],
        ),
        (
            ["seed 0 had the processor for 60 % of its training time", waiting(0.5, 0.5)],
            [[1], [2]],
            [[waiting(0.6)], [waiting(0.5, 0.5)]],
        ),
        (["4 to 8 seeds trained in one go: one measurement of time"], [[1], [1]], [[in_one_go(8)], [in_one_go(4)]]),
        (
            ["pairing widened the interval by 1.1 to 12.4 times"],
            [[1], [1], [1]],
            [["pairing widened the interval by 12.4 times"], [*pairing(1.1)], [*pairing(2.0)]],
        ),
        (
            ["14 % dead units; more seeds: 3-4", "25 % dead units; more seeds: 3-5"],
            [[1], [2]],
            [["14 % dead units", "more seeds: 3-4"], ["25 % dead units", "more seeds: 3-5"]],
        ),
    ],
    ids=[
        "none",
        "of single rows",
        "shared",
        "the same seeds",
        "ranges",
        "two reasons",
        "waited",
        "one seed waited",
        "one seed and several",
        "in one go",
        "pairing",
        "figures of single rows",
    ],
)
def test_a_row_has_one_note_of_its_own_and_those_it_shares(
    texts: list[str], numbers: list[list[int]], rows: list[list[str]]
) -> None:
    found = numbered(rows)
    assert (found.texts, found.numbers) == (texts, numbers)
    assert [found.marks(row) for row in range(len(rows))] == [", ".join(map(str, each)) for each in numbers]


def test_notes_of_single_rows_stay_with_them() -> None:
    own, shared = apart([["a", partial(3, 5)], ["b", partial(4, 5)], []])
    assert own == [["a"], ["b"], []]
    assert shared.texts == [f"time ratio from 3 of 5 to 4 of 5 seeds: {COMPANY}"]
    assert shared.numbers == [[1], [1], []]
