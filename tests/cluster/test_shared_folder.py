"""A store on a folder that two hosts share, each with a mount of its own: see slow_folder.py.

Needs /dev/fuse, libfuse (Debian: fuse3 or libfuse2) and `pip install -e ".[cluster]"`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from cnn_ablation.common import leases
from cnn_ablation.common.processes import HOST_VARIABLE
from cnn_ablation.config import with_settings
from cnn_ablation.launch.execution import NumberedJob, Study
from cnn_ablation.launch.planning import Planning
from cnn_ablation.runs.records import Run, read_run, record_path, record_paths, write_run
from cnn_ablation.runs.run import run
from cnn_ablation.runs.store import RunStore
from cnn_ablation.study.designs import knob
from cnn_ablation.tasks.image_classification.config import Config

pytestmark = pytest.mark.cluster

SECONDS = 3.0
"""What one host does is unseen by the other for so long."""
START = "import os, random, sys, time\nfrom pathlib import Path\nfrom cnn_ablation.common import leases\n"
RUN = Run("baseline", "", "", 0, "ok", test_accuracy=0.9)


class Hosts(NamedTuple):
    """Two mounts of one folder."""

    backing: Path
    here: Path
    there: Path


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    pytest.importorskip("mfusepy", exc_type=(ImportError, OSError))
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse to mount with")
    found = Hosts(*(tmp_path / name for name in ("backing", "here", "there")))
    with ExitStack() as stack:
        for folder in found:
            folder.mkdir()
        for mount in found[1:]:
            stack.enter_context(_mounted(found.backing, mount))
        yield found


@contextmanager
def _mounted(backing: Path, mount: Path) -> Iterator[None]:
    script = Path(__file__).with_name("slow_folder.py")
    with subprocess.Popen([sys.executable, script, backing, mount, str(SECONDS)]) as server:
        until = time.monotonic() + 30
        while not mount.is_mount():
            assert server.poll() is None, "the folder cannot be mounted"
            assert time.monotonic() < until
            time.sleep(0.05)
        try:
            yield
        finally:
            subprocess.run(["fusermount", "-u", "-z", mount], check=False)
            server.wait(10)


@contextmanager
def process(code: str, *arguments: object, host: str) -> Iterator[subprocess.Popen[str]]:
    """Python code on a host, that has printed its first line."""
    with subprocess.Popen(
        [sys.executable, "-c", START + textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, HOST_VARIABLE: host}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        try:
            yield child
        finally:
            child.kill()


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin
    child.stdin.write("\n")
    child.stdin.flush()


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def test_the_folder_is_as_slow_and_strict_as_is_said(hosts: Hosts) -> None:
    import fcntl

    (hosts.here / "file").write_text("1")
    assert (hosts.here / "file").read_text() == "1"
    assert not (hosts.there / "file").exists()
    assert os.listdir(hosts.there) == []
    with pytest.raises(FileExistsError):
        (hosts.there / "file").touch(exist_ok=False)
    with open(hosts.here / "file") as file, pytest.raises(OSError, match="No locks"):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not (hosts.there / "later").exists()
    time.sleep(SECONDS - 1)
    (hosts.here / "later").touch()
    time.sleep(1.1)
    assert (hosts.there / "file").read_text() == "1"
    assert not (hosts.there / "later").exists()
    with open(hosts.there / "file") as opened_before:
        (hosts.here / "file").write_text("2")
        assert (opened_before.read(), (hosts.there / "file").read_text()) == ("1", "2")


RACE = """
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    print('ready', flush=True); sys.stdin.readline()
    order = [str(number) for number in range(200)]
    random.Random(os.environ['CNN_ABLATION_HOST']).shuffle(order)
    while order:
        name = order.pop(0)
        try:
            lease = leases.acquire(Path(sys.argv[1]) / name, watches=False)
        except leases.HeldError:
            order.append(name); time.sleep(0.01)
            continue
        os.write(log, f'{name} begins\\n'.encode())
        time.sleep(0.002 * random.random())
        assert lease.is_ours()
        os.write(log, f'{name} ends\\n'.encode())
        lease.release()
    print('done', flush=True)
"""


def test_no_lease_has_two_owners_and_none_is_lost(hosts: Hosts, tmp_path: Path) -> None:
    """200 leases, each of which both hosts want once; all of them were contested within the time of not seeing."""
    log = tmp_path / "log"
    with process(RACE, hosts.here, log, host="a") as a, process(RACE, hosts.there, log, host="b") as b:
        for child in (a, b):
            go(child)
        assert (said(a), said(b)) == ("done", "done")
    lines = log.read_text().splitlines()
    for number in range(200):
        own = [line.split()[1] for line in lines if line.split()[0] == str(number)]
        assert own == ["begins", "ends", "begins", "ends"], number
    assert len(os.listdir(hosts.backing)) == 400


HOLD = "lease = leases.acquire(Path(sys.argv[1]))\nprint('ready', flush=True); sys.stdin.readline()\n"


def test_a_killed_holder_of_another_host_is_followed_within_a_minute(hosts: Hosts) -> None:
    with process(HOLD, hosts.here / "run", host="a"):
        time.sleep(leases.BEAT_SECONDS + 1)
    began = time.monotonic()
    with process(HOLD, hosts.there / "run", host="b"):
        seconds = time.monotonic() - began
    print(f"followed after {seconds:.1f} s")
    assert leases.EXPIRY_SECONDS - leases.BEAT_SECONDS < seconds < 60


def test_a_killed_holder_of_the_same_host_is_followed_at_once(hosts: Hosts) -> None:
    with process(HOLD, hosts.here / "run", host="a") as child:
        child.send_signal(signal.SIGKILL)
        began = time.monotonic()
        with process(HOLD, hosts.here / "run", host="a"):
            seconds = time.monotonic() - began
    print(f"followed after {seconds:.1f} s, with the start of a process")
    assert seconds < 10


def test_a_holder_that_lives_is_not_followed(hosts: Hosts) -> None:
    """For longer than a lease takes to expire: its heartbeat comes through."""
    with process(HOLD, hosts.here / "run", host="a"):
        waiter = subprocess.Popen(
            [sys.executable, "-c", START + HOLD, hosts.there / "run"],
            env={**os.environ, HOST_VARIABLE: "b"}, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        with waiter:
            time.sleep(leases.EXPIRY_SECONDS + 15)
            still_waits = waiter.poll() is None
            waiter.kill()
    assert still_waits


def test_a_stopped_holder_of_another_host_that_comes_back_has_lost(hosts: Hosts) -> None:
    code = HOLD + "print(lease.is_ours(), flush=True); lease.release(left=True)\nsys.stdin.readline()"
    with process(code, hosts.here / "run", host="a") as child:
        child.send_signal(signal.SIGSTOP)
        with process(f"{HOLD}print(lease.is_ours(), lease.generation, flush=True)", hosts.there / "run", host="b") as b:
            time.sleep(SECONDS)
            child.send_signal(signal.SIGCONT)
            go(child)
            assert said(child) == "False"
            go(b)
            assert said(b) == "True 2"


TRAINS = """
    from cnn_ablation.runs.records import Run
    from cnn_ablation.runs.store import RunStore
    store = RunStore(Path(sys.argv[1]))
    with store.locked('run'):
        store.keep('run', Run('baseline', '', '', 0, 'ok', test_accuracy=0.9))
        print('ready', flush=True)
"""


def test_a_record_that_cannot_be_seen_yet_is_waited_for(hosts: Hosts) -> None:
    store = RunStore(hosts.here)
    assert store.find("run") is None
    with process(TRAINS, hosts.there, host="there") as child:
        child.wait(10)
        assert store.find("run") is None
        began = time.monotonic()
        with store.locked("run") as hold:
            assert hold.had_record
            assert store.find("run") == RUN
    print(f"waited for {time.monotonic() - began:.1f} s")


def test_nothing_replaces_a_record_that_cannot_be_seen_yet(hosts: Hosts) -> None:
    paths = [record_path(mount / "0", 0) for mount in (hosts.here, hosts.there)]
    assert not paths[1].parent.exists()
    write_run(paths[0], RUN)
    assert not paths[1].exists()
    assert not write_run(paths[1], Run("baseline", "", "", 0, "failed", error="left no record"), replace=False)
    assert read_run(record_path(hosts.backing / "0", 0)) == RUN


def test_records_that_cannot_be_seen_yet_are_no_failed_runs(hosts: Hosts, tiny_config: Config) -> None:
    """The jobs of a study ran on another host, and are over before their records can be seen here."""
    baseline = replace(tiny_config, timing="isolated")
    planning = Planning("one_at_a_time", [knob("model.activation", ["leaky"])],
                        lambda arm: with_settings(baseline, arm.settings))  # fmt: skip
    study = Study(hosts.here / "study", planning)

    def launch(jobs: Sequence[NumberedJob]) -> list[str]:
        for job in jobs:
            run(study.assignment(job).config, hosts.there / "study" / str(job.number))
        return []

    assert list(study.carry_out(launch)["n"]) == [2, 2]
    assert [read_run(path).status for path in record_paths(hosts.backing / "study")] == 4 * ["ok"]


FUNCTION = '''
import os, pathlib, time


def trained(seed, depth: int = 0):
    """Writes down that it was called, on the disk that both hosts share."""
    file = os.open(pathlib.Path(__file__).with_name("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{depth} {seed}\\n".encode())
    os.close(file)
    time.sleep(0.3)
    return {"score": depth + seed / 100}
'''


def test_two_front_ends_train_no_run_twice_and_lose_none(hosts: Hosts, tmp_path: Path) -> None:
    """Both ask for the same 52 runs at the same time, in opposite orders but for the baseline's."""
    (tmp_path / "own_function.py").write_text(FUNCTION)
    running = []
    for host, mount, order in (("a", hosts.here, 1), ("b", hosts.there, -1)):
        levels = ",".join(map(str, [0, *range(1, 26)[::order]]))
        study = [
            sys.executable, "-m", "cnn_ablation", "-m", "task=function", "task.target=own_function.trained",
            f"settings.depth={levels}", "replicates=2", "stats.metric=score", f"store={mount}/store",
            f"hydra.sweep.dir={mount}/study-{host}",
        ]  # fmt: skip
        environment = {**os.environ, HOST_VARIABLE: host}
        running.append(subprocess.Popen(study, cwd=tmp_path, env=environment, stderr=subprocess.PIPE))
    answers = [child.communicate(timeout=500) for child in running]
    assert [child.returncode for child in running] == [0, 0], answers
    wanted = Counter(f"{level} {seed}" for level in range(26) for seed in range(2))
    assert Counter((tmp_path / "log").read_text().splitlines()) == wanted
    reused = []
    for host in ("a", "b"):
        runs = pd.read_csv(hosts.backing / f"study-{host}" / "runs.csv")
        assert list(runs["status"]) == 52 * ["ok"]
        assert sorted(runs["score"]) == pytest.approx(sorted(n + seed / 100 for n in range(26) for seed in range(2)))
        reused.append(int(runs["reused"].sum()))
    print(f"trained by each: {[52 - count for count in reused]}")
    assert sum(reused) == 52
    assert min(reused) > 0, "one host trained everything"
    assert len(list((hosts.backing / "store").glob("*/run.json"))) == 52


def test_a_container_is_judged_by_its_files(tmp_path: Path) -> None:
    """A process of another pid namespace, whose number means another process here, or none."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with subprocess.Popen(
        [*inside, sys.executable, "-c", START + HOLD, tmp_path / "run"],
        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as container:  # fmt: skip
        assert said(container) == "ready"
        began = time.monotonic()
        with pytest.raises(leases.HeldError, match="process 1 on "):
            leases.acquire(tmp_path / "run", patience=0)
        assert time.monotonic() - began < leases.BEAT_SECONDS + 5  # its heartbeat, not process 1 of this place
        container.kill()
    began = time.monotonic()
    assert leases.acquire(tmp_path / "run").generation == 2
    assert time.monotonic() - began > leases.EXPIRY_SECONDS - leases.BEAT_SECONDS
