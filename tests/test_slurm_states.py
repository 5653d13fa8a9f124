"""What Slurm prints, in a person's words; the lines are what Slurm 22.05 printed on a cluster of two nodes."""

from __future__ import annotations

import os
import subprocess

import pytest

from cnn_ablation.common import progress
from cnn_ablation.launch.engines import JobState, slurm
from cnn_ablation.launch.engines.slurm import FORGOTTEN, NEVER_BEGUN, Queue

WAITING, RUNNING, WELL = JobState(is_over=False), JobState(is_over=False, is_running=True), JobState(is_over=True)


def over(reason: str) -> JobState:
    return JobState(is_over=True, reason=reason)


def waits(reason: str) -> JobState:
    return JobState(is_over=False, reason=reason)


def line(name: str, state: str, status: str, reason: str) -> str:
    """As `squeue --Format=JobArrayID:48,State:24,exit_code:16,Reason:160` fills it up."""
    return f"{name:<48}{state:<24}{status:<16}{reason:<160}"


DOWN = "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions"

OF_SQUEUE = [
    ("4_0", "COMPLETED", "0", "None", WELL),
    ("4_1", "FAILED", "768", "NonZeroExitCode", over("failed (exit code 3)")),
    ("4_3", "FAILED", "9", "JobLaunchFailure", over("failed (signal SIGKILL)")),
    ("4", "OUT_OF_MEMORY", "253", "OutOfMemory", over("out of memory")),
    ("5", "TIMEOUT", "0", "TimeLimit", over("out of time")),
    ("8", "PREEMPTED", "15", "None", over("preempted")),
    ("4_2", "CANCELLED", "0", "None", over("cancelled")),
    ("11", "NODE_FAIL", "0", "NodeDown", over("its node failed")),
    ("7", "DEADLINE", "1", "DeadLine", over("past its deadline")),
    ("7", "BOOT_FAIL", "1", "None", over("its node did not start")),
    ("4_7", "RUNNING", "0", "None", RUNNING),
    ("12", "COMPLETING", "0", "None", RUNNING),
    ("4_8", "PENDING", "0", "Resources", WAITING),
    ("9", "PENDING", "0", "BeginTime", WAITING),
    ("4_9", "PENDING", "0", "JobArrayTaskLimit", WAITING),
    ("5", "PENDING", "0", DOWN, WAITING),
    ("7", "CONFIGURING", "0", "None", WAITING),
    ("7", "SOMETHING_NEW", "0", "None", WAITING),
    (
        "6",
        "PENDING",
        "0",
        "PartitionTimeLimit",
        waits("its partition allows less time than it asks for (PartitionTimeLimit)"),
    ),
    ("20", "PENDING", "0", "PartitionConfig", waits("no node of its partition has what it asks for (PartitionConfig)")),
    (
        "7",
        "PENDING",
        "0",
        "DependencyNeverSatisfied",
        waits("what it depends on did not end as it wants (DependencyNeverSatisfied)"),
    ),
    ("8", "PENDING", "0", "JobHeldUser", waits("it is held until `scontrol release` lets it go (JobHeldUser)")),
    (
        "21",
        "PENDING",
        "0",
        "launch failed requeued held",
        waits("it could not be started, and is held (launch failed requeued held)"),
    ),
    (
        "3",
        "PENDING",
        "0",
        "ReqNodeNotAvail, UnavailableNodes:n2",
        waits("a node that it asks for is not available (ReqNodeNotAvail, UnavailableNodes:n2)"),
    ),
    (
        "3",
        "PENDING",
        "0",
        "QOSMaxWallDurationPerJobLimit",
        waits("it asks for more than a person may have (QOSMaxWallDurationPerJobLimit)"),
    ),
]


@pytest.mark.parametrize(
    ("name", "state", "status", "reason", "expected"), OF_SQUEUE, ids=[f"{row[1]}-{row[3]}" for row in OF_SQUEUE]
)
def test_a_line_of_squeue(name: str, state: str, status: str, reason: str, expected: JobState) -> None:
    assert list(slurm.read_squeue([line(name, state, status, reason), ""])) == [(name, expected)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5_0|COMPLETED|0:0", {"5_0": WELL}),
        ("5_1|FAILED|3:0", {"5_1": over("failed (exit code 3)")}),
        ("5_2|FAILED|0:9", {"5_2": over("failed (signal SIGKILL)")}),
        ("5_3|OUT_OF_MEMORY|0:125", {"5_3": over("out of memory")}),
        ("5_4|CANCELLED by 0|0:0", {"5_4": over("cancelled by root")}),
        ("5_4|CANCELLED by 4000000|0:0", {"5_4": over("cancelled by 4000000")}),
        ("5_4|CANCELLED|0:0", {"5_4": over("cancelled")}),
        ("5_5|RUNNING|0:0", {"5_5": RUNNING}),
        ("7|TIMEOUT|0:0", {"7": over("out of time")}),
        ("16_[1-3,8%1]|PENDING|0:0", dict.fromkeys(("16_1", "16_2", "16_3", "16_8"), WAITING)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_line_of_sacct(text: str, expected: dict[str, JobState]) -> None:
    assert dict(slurm.read_sacct([text])) == expected


def test_an_array_is_asked_for_once() -> None:
    assert slurm.arrays_of(["12_0", "12_1", "15", "12_2", "16_0"]) == ["12", "15", "16"]


class Answers:
    """What Slurm's commands answer, one after another, and what they were asked."""

    def __init__(self, *answers: tuple[int, str, str]):
        self.answers, self.asked = list(answers), list[list[str]]()

    def __call__(self, *command: str) -> subprocess.CompletedProcess[str]:
        self.asked.append(list(command))
        code, out, error = self.answers.pop(0)
        return subprocess.CompletedProcess(command, code, out, error)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(progress, "warn", lines.append)
    return lines


UNKNOWN = (1, "", "slurm_load_jobs error: Invalid job id specified\n")
SILENT = (1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
NO_ACCOUNTS = (1, "", "Slurm accounting storage is disabled\n")


def test_one_question_for_all_jobs_and_none_for_those_that_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    both = "\n".join([line("4_0", "COMPLETED", "0", "None"), line("4_1", "RUNNING", "0", "None")])
    answers = Answers((0, both, ""), (0, line("4_1", "COMPLETED", "0", "None"), ""))
    monkeypatch.setattr(slurm, "ask", answers)
    queue = Queue()
    assert queue.states(["4_0", "4_1"]) == {"4_0": WELL, "4_1": RUNNING}
    assert queue.states(["4_0", "4_1"]) == {"4_0": WELL, "4_1": WELL}
    assert queue.states(["4_0", "4_1"]) == {"4_0": WELL, "4_1": WELL}
    assert [command[-1] for command in answers.asked] == ["--jobs=4", "--jobs=4"]


def test_what_was_known_stands_while_slurm_is_silent_and_one_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    running = (0, line("4_0", "RUNNING", "0", "None"), "")
    monkeypatch.setattr(slurm, "ask", Answers(running, SILENT, SILENT, running, SILENT))
    queue = Queue()
    for _ in range(5):
        assert queue.states(["4_0"]) == {"4_0": RUNNING}
    warning = (
        "Slurm does not answer (slurm_load_jobs error: Unable to contact slurm controller (connect failure)); "
        "its jobs go on, and it is asked again"
    )
    assert said == [warning] * 2  # once for each silence


def test_an_answer_is_waited_for_where_nothing_was_ever_heard(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    """Jobs that another process has submitted must not be taken for lost."""
    monkeypatch.setattr(slurm, "_SECONDS_OF_SILENCE", 0.001)
    monkeypatch.setattr(slurm, "ask", Answers(SILENT, SILENT, (0, line("4_0", "RUNNING", "0", "None"), "")))
    assert Queue().states(["4_0"]) == {"4_0": RUNNING}
    assert len(said) == 1


def test_sacct_is_asked_for_what_squeue_has_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(UNKNOWN, (0, "4_0|TIMEOUT|0:0\n4_1|COMPLETED|0:0\n", ""))
    monkeypatch.setattr(slurm, "ask", answers)
    assert Queue().states(["4_0", "4_1", "5"]) == {"4_0": over("out of time"), "4_1": WELL, "5": FORGOTTEN}
    assert answers.asked[1][0] == "sacct"
    assert answers.asked[1][-1] == "--jobs=4,5"


def test_sacct_is_asked_once_where_there_are_no_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(UNKNOWN, NO_ACCOUNTS, UNKNOWN)
    monkeypatch.setattr(slurm, "ask", answers)
    queue = Queue()
    assert queue.states(["4"]) == {"4": FORGOTTEN}
    assert queue.states(["5"]) == {"5": FORGOTTEN}
    assert [command[0] for command in answers.asked] == ["squeue", "sacct", "squeue"]


def test_what_waited_a_moment_ago_and_is_gone_was_cancelled_before_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    first = (0, line("4_0", "RUNNING", "0", "None"), "")
    monkeypatch.setattr(slurm, "ask", Answers(first, NO_ACCOUNTS, UNKNOWN, UNKNOWN))
    queue = Queue()
    queue.submitted(["4_0", "4_1", "5"])
    assert queue.states(["4_0", "4_1"]) == {"4_0": RUNNING, "4_1": NEVER_BEGUN}
    assert queue.states(["4_0"]) == {"4_0": FORGOTTEN}  # it ran
    queue.heard -= 1000
    assert queue.states(["5"]) == {"5": FORGOTTEN}  # it may have run meanwhile


def test_a_command_that_is_missing_or_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    monkeypatch.setenv("SLURM_CONF", "kept")
    answer = slurm.ask("env")
    assert "SQUEUE_PARTITION" not in answer.stdout
    assert "SLURM_CONF=kept" in answer.stdout
    gone = slurm.ask("no_such_command_of_slurm")
    assert (gone.returncode, slurm.words(gone)) == (1, f"no_such_command_of_slurm: {os.strerror(2)}")
    assert slurm.words(slurm.ask("false")) == "false failed with exit code 1"
