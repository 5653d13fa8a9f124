"""What a dry run says of how runs are computed and how long that takes, from what is known of each arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from cnn_ablation.common.allocation import Allocation, seen_as
from cnn_ablation.launch.forecast import ArmForecast, lines
from cnn_ablation.runs.task import How
from cnn_ablation.study.designs import Arm
from cnn_ablation.tasks.image_classification.computing import Computing

ON_CPU = Computing("cpu", 2, "float32", "AVX2", "compiled")


def arm(
    how: How | None = ON_CPU, *, reused: Sequence[int] | None = (), most: int = 3, seconds: float = 10.0
) -> ArmForecast:
    """Three seeds at first."""
    seeds = None if reused is None else list(reused)
    return ArmForecast(Arm("a"), how, [], seeds, False, range(3), range(most), seconds, [])


HOW: dict[str, tuple[list[How | None], str]] = {
    "one": ([ON_CPU, ON_CPU], "computed on cpu in float32 with 2 threads"),
    "a GPU": ([replace(ON_CPU, device="cuda", threads=0, precision="tf32")], "computed on cuda in tf32"),
    "no precision": ([How("cpu", 1)], "computed on cpu with 1 thread"),
    "another machine's": (
        [replace(ON_CPU, precision="")],
        "computed on cpu in the precision of its processor with 2 threads",
    ),
    "several": (
        [ON_CPU, replace(ON_CPU, precision="bfloat16"), ON_CPU],
        "computed on cpu in float32 with 2 threads: 2 arms; on cpu in bfloat16 with 2 threads: 1 arm",
    ),
}


@pytest.mark.parametrize(("hows", "words"), HOW.values(), ids=HOW)
def test_how_runs_are_computed(hows: list[How | None], words: str) -> None:
    assert next(lines(list(map(arm, hows)), "store")) == words


def test_what_only_another_machine_can_tell_is_not_told() -> None:
    assert (
        next(lines([arm(None, reused=None)], "store")) == "what would be reused is known only where the jobs will run"
    )


TIMES: dict[str, tuple[list[ArmForecast], str]] = {
    "all": ([arm(), arm()], "about 60 s for 6 runs, from past runs"),
    "some": ([arm(reused=[0, 1]), arm()], "about 40 s for 4 runs, from past runs"),
    "none": ([arm(reused=[0, 1, 2])], "none, nothing is left to train"),
    "none that took an unknown time": ([arm(reused=[0, 1, 2], seconds=math.nan)], "none, nothing is left to train"),
    "unknown": ([arm(seconds=math.nan)], "unknown, there are no past runs on this machine"),
    "more may come": ([arm(most=5)], "about 30 s for 3 runs to 50 s for 5 runs, from past runs"),
    "more alone": ([arm(reused=[0, 1, 2], most=5)], "none, or up to about 20 s for 2 runs, from past runs"),
    "none even then": ([arm(reused=[0, 1, 2, 3, 4], most=5)], "none, nothing is left to train"),
}


@pytest.mark.parametrize(("arms", "words"), TIMES.values(), ids=TIMES)
def test_how_long_what_is_left_takes(arms: list[ArmForecast], words: str) -> None:
    assert list(lines(arms, "store"))[-1] == f"estimated time: {words}"


def test_times_elsewhere_are_those_of_one_job_at_a_time() -> None:
    with seen_as(Allocation(cpus=1), elsewhere=True):
        found = [list(lines([arm(seconds=seconds)], "store"))[-1] for seconds in (10.0, math.nan)]
    assert found == [
        "estimated time: about 30 s for 3 runs by one job at a time, from past runs",
        "estimated time: unknown, there are no past runs",
    ]
