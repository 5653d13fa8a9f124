"""Who may do what alone: between processes, threads, forks, and hosts that share nothing but a folder.

Another host is another name in `CNN_ABLATION_HOST`: its processes are judged by their files alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cnn_ablation.common import leases, processes
from cnn_ablation.common.leases import HeldError, Lease, Owner, acquire
from cnn_ablation.common.processes import HOST_VARIABLE

START = "import os, signal, sys, threading, time\nfrom pathlib import Path\nfrom cnn_ablation.common import leases\n"
HOLD = "lease = leases.acquire(Path(sys.argv[1]))\nprint('held', flush=True)\n"


@contextmanager
def process(code: str, *arguments: object, host: str = "") -> Iterator[subprocess.Popen[str]]:
    """Python code in a process of its own, on this host or another, that has printed its first line."""
    environment = {**os.environ, HOST_VARIABLE: host} if host else dict(os.environ)
    with subprocess.Popen(
        [sys.executable, "-c", START + textwrap.dedent(code), *map(str, arguments)],
        env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unchanged for a quarter of a second has expired."""
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 0.25)


def free(path: Path, **options: float) -> bool:
    try:
        acquire(path, watches=False, **options).release()
    except HeldError:
        return False
    return True


def test_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run"
    first = acquire(path)
    assert first.is_ours()
    assert not free(path)
    first.release()
    assert not first.is_ours()
    second = acquire(path)
    assert (first.generation, second.generation) == (1, 2)
    assert not first.is_ours()
    first.release()  # once more, which lets go of nothing
    assert second.is_ours()
    assert not free(path)
    second.release()


@pytest.mark.parametrize("number", [1, 2, 3, 7, 8, 20])
def test_the_newest_of_a_chain_is_found(tmp_path: Path, number: int) -> None:
    for _ in range(number):
        acquire(tmp_path / "run").release()
    assert acquire(tmp_path / "run").generation == number + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"run.{n}" for n in range(1, number + 2))
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {1024}


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    inside, most = [], []

    def work(_: int) -> None:
        lease = acquire(tmp_path / "run")
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        lease.release()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(12)))
    assert (max(most), len(most)) == (1, 12)


def test_processes_exclude_each_other(tmp_path: Path) -> None:
    code = """
        print('held', flush=True); sys.stdin.readline()
        log = os.open(sys.argv[1] + '/log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in range(40):
            lease = leases.acquire(Path(sys.argv[1]) / str(number % 4))
            for what in ('begins', 'ends'):
                os.write(log, f'{number % 4} {what}\\n'.encode())
            lease.release()
        print('done', flush=True)
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(process(code, tmp_path, host=host)) for host in ("", "", "other")]
        for worker in workers:
            assert worker.stdin
            worker.stdin.write("\n")
            worker.stdin.flush()
        assert [said(worker) for worker in workers] == 3 * ["done"]
    lines = (tmp_path / "log").read_text().splitlines()
    for number in range(4):
        assert [line for line in lines if line[0] == str(number)] == 30 * [f"{number} begins", f"{number} ends"]


def test_a_killed_holder_is_followed_at_once(tmp_path: Path) -> None:
    with process(f"{HOLD}time.sleep(60)", tmp_path / "run") as child:
        assert not free(tmp_path / "run")
        child.kill()  # and nobody has waited for it
        began = time.monotonic()
        assert acquire(tmp_path / "run").generation == 2
        assert time.monotonic() - began < 30, "not the 45 s after which it would have expired"


def test_a_stopped_holder_of_this_host_keeps_its_lease(tmp_path: Path, quick: None) -> None:
    with process(f"{HOLD}time.sleep(60)", tmp_path / "run") as child:
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(HeldError, match=rf"process {child.pid} on .*, since \d{{4}}-"):
            acquire(tmp_path / "run", patience=0.5)


def test_a_process_with_the_number_of_a_dead_one_is_another(tmp_path: Path) -> None:
    lease = acquire(tmp_path / "run")
    content = json.loads((tmp_path / "run.1").read_text())
    assert content["process"] == os.getpid()
    assert not free(tmp_path / "run")
    content |= {"process": os.getppid(), "began": "-1"}  # of a machine's first process it may be 1
    (tmp_path / "run.1").write_text(json.dumps(content))
    assert content["nonce"] == lease.owner.nonce
    assert free(tmp_path / "run")


def test_a_holder_of_another_host_expires_by_the_waiters_clock(tmp_path: Path, quick: None) -> None:
    """Killed there: nothing here can know, but that its file changes no more. Times of files do not count."""
    with process(f"{HOLD}time.sleep(60)", tmp_path / "run", host="other"):
        pass
    os.utime(tmp_path / "run.1", (0, 0))
    assert not free(tmp_path / "run")
    began = time.monotonic()
    assert acquire(tmp_path / "run", patience=0).generation == 2
    assert 0.25 <= time.monotonic() - began < 30


def test_a_holder_of_another_host_that_lives_is_waited_for(tmp_path: Path) -> None:
    code = f"leases.BEAT_SECONDS = 0.02\n{HOLD}sys.stdin.readline(); lease.release(left=True); time.sleep(60)"
    with process(code, tmp_path / "run", host="other") as child:
        with pytest.raises(HeldError, match=rf"process {child.pid} on other, since"):
            acquire(tmp_path / "run", patience=0.3)
        assert child.stdin
        child.stdin.write("\n")
        child.stdin.flush()
        lease = acquire(tmp_path / "run")
    assert (lease.generation, lease.was_left) == (2, True)


def test_without_patience_a_holder_has_to_show_that_it_lives(tmp_path: Path) -> None:
    """Within a beat, not the 45 s that a dead one takes."""
    with process(f"leases.BEAT_SECONDS = 0.2\n{HOLD}time.sleep(60)", tmp_path / "run", host="other"):
        began = time.monotonic()
        with pytest.raises(HeldError):
            acquire(tmp_path / "run", patience=0)
        assert time.monotonic() - began < 30


def test_a_stopped_holder_of_another_host_that_comes_back_has_lost(tmp_path: Path, quick: None) -> None:
    code = f"""
        leases.BEAT_SECONDS = 0.02
        {HOLD.splitlines()[0]}
        {HOLD.splitlines()[1]}
        sys.stdin.readline(); print(lease.is_ours(), flush=True)
        lease.release(left=True); print('released', flush=True); sys.stdin.readline()
    """
    with process(code, tmp_path / "run", host="other") as child:
        assert child.stdin
        child.send_signal(signal.SIGSTOP)
        successor = acquire(tmp_path / "run")
        child.send_signal(signal.SIGCONT)
        child.stdin.write("\n")
        child.stdin.flush()
        assert (said(child), said(child)) == ("False", "released")
        assert (successor.generation, successor.is_ours(), free(tmp_path / "run")) == (2, True, False)


def test_a_gap_in_watching_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """A server that does not answer holds up both sides: what a waiter did not see does not count as unchanged."""
    with process(f"{HOLD}time.sleep(60)", tmp_path / "run", host="other"):
        monkeypatch.setattr(leases, "_MAX_GAP_SECONDS", 0.01)
        wait = leases._Wait(tmp_path / "run", None, True, None)
        found = leases._read(tmp_path / "run", 1)
        wait._judged(found)
        time.sleep(0.3)
        assert wait._judged(found) is None
        assert wait._unchanged == pytest.approx(0.01)


def test_a_forked_process_holds_nothing(tmp_path: Path) -> None:
    code = f"""
        leases.BEAT_SECONDS = 0.02
        {HOLD.splitlines()[0]}
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            before = Path(sys.argv[1] + '.1').read_bytes()
            lease.release(left=True)
            alone = [each.name for each in threading.enumerate()] == ['MainThread']
            taken = True
            try:
                leases.acquire(Path(sys.argv[1]), watches=False)
            except leases.HeldError:
                taken = False
            os.write(write, f'{{alone}} {{lease.is_ours()}} {{taken}}'.encode())
            os._exit(0)
        os.waitpid(child, 0)
        {HOLD.splitlines()[1]}
        print(os.read(read, 99).decode(), lease.is_ours(), flush=True)
        time.sleep(60)
    """
    with process(code, tmp_path / "run") as child:
        assert said(child) == "True False False True"
        assert not free(tmp_path / "run")


def test_a_forked_process_has_leases_and_a_heartbeat_of_its_own(tmp_path: Path) -> None:
    code = """
        leases.BEAT_SECONDS = 0.02
        parents = leases.acquire(Path(sys.argv[1]))
        if os.fork() == 0:
            leases.acquire(Path(sys.argv[1] + '-of-the-child'))
            print('held', flush=True)
            time.sleep(60)
        os.wait()
    """
    with process(code, tmp_path / "run"):
        until = time.monotonic() + 60
        while not json.loads((tmp_path / "run-of-the-child.1").read_text())["beat"]:
            assert time.monotonic() < until
            time.sleep(0.02)
        owner = json.loads((tmp_path / "run-of-the-child.1").read_text())["process"]
        os.kill(owner, signal.SIGKILL)


def test_a_thread_that_waits_gets_it_when_it_is_let_go(tmp_path: Path) -> None:
    lease, waited_for, got = acquire(tmp_path / "run"), list[Owner | None](), list[Lease]()
    thread = threading.Thread(target=lambda: got.append(acquire(tmp_path / "run", on_wait=waited_for.append)))
    thread.start()
    until = time.monotonic() + 60
    while not waited_for and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.05)
    assert (waited_for, got) == ([lease.owner], [])
    lease.release(left=True)
    thread.join(60)
    assert (got[0].generation, got[0].was_left) == (2, False)  # on this host what was left can be seen


def test_who_only_waits_takes_nothing(tmp_path: Path, quick: None) -> None:
    """A file that cannot be seen yet is waited for; a holder that lives is, too."""
    freed = threading.Event()

    def wait() -> None:
        leases.wait_until_free(tmp_path / "run")
        freed.set()

    threading.Thread(target=wait, daemon=True).start()
    assert not freed.wait(0.2)
    lease = acquire(tmp_path / "run")
    assert not freed.wait(0.4)
    lease.release()
    assert freed.wait(60)
    assert [path.name for path in tmp_path.iterdir()] == ["run.1"]


def test_an_empty_file_is_a_holder_until_it_expires(tmp_path: Path, quick: None) -> None:
    """Its creator died before it wrote, or the disk was full."""
    (tmp_path / "run.1").touch()
    assert not free(tmp_path / "run")
    assert acquire(tmp_path / "run").generation == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"host": 1}', "\0" * 1024], ids=["torn", "list", "lacking", "zeros"])
def test_a_damaged_file_is_a_holder_until_it_expires(tmp_path: Path, content: str, quick: None) -> None:
    (tmp_path / "run.1").write_text(content)
    assert not free(tmp_path / "run")
    assert acquire(tmp_path / "run").generation == 2


def test_who_follows_what_was_removed_meanwhile_begins_anew(tmp_path: Path) -> None:
    """Between the look at the first file and the creation of the second, `prune` removes the chain."""
    acquire(tmp_path / "run").release()
    seen = leases._read(tmp_path / "run", 1)
    (tmp_path / "run.1").unlink()
    assert leases._taken(tmp_path / "run", seen) is None
    first = acquire(tmp_path / "run")
    assert (first.generation, leases._taken(tmp_path / "run", seen)) == (1, None)
    assert [path.name for path in tmp_path.iterdir()] == ["run.1"]


def test_an_owner_says_its_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv(HOST_VARIABLE, "node7")
    lease = acquire(tmp_path / "run")
    assert str(lease.owner).startswith(f"process {os.getpid()} on node7, Slurm job 17, since ")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "16")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert processes.job() == "Slurm job 16_3"


def test_strange_names_leave_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(HOST_VARIABLE, 200 * '"')
    monkeypatch.setenv("SLURM_JOB_ID", 200 * "\u00e9")
    lease = acquire(tmp_path / "run")
    assert lease.is_ours()
    lease.beat()
    assert (tmp_path / "run.1").stat().st_size == 1024
    assert json.loads((tmp_path / "run.1").read_text())["beat"] == 1


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = dict(leases._HOLDER._leases)
    with pytest.raises(NotADirectoryError):
        acquire(tmp_path / "file" / "run")
    assert leases._HOLDER._leases == before
