"""A real Ray cluster on this machine's loopback: a head without CPUs for jobs, and worker nodes, with a token.

    python tests/cluster/ray_cluster.py start DIR [--workers 2] [--cpus 1]     # prints lines to export
    python tests/cluster/ray_cluster.py stop DIR

Every node is one `ray start --block` in a session of its own and with a loopback address of its own: `stop` ends the
processes of those sessions and nothing else, so that several clusters can run side by side. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

HEAD = "127.0.0.2"  # Ray replaces 127.0.0.1 by an address that others reach
OBJECT_STORE_BYTES = 80_000_000  # little is sent through it; Ray wants 75 MiB
STARTS_WITHIN = 60.0  # seconds, of a node
ATTEMPTS = 3
ENDS_WITHIN = 5.0
_STARTED: dict[int, subprocess.Popen[bytes]] = {}
"""Our own children, which stay known to the system until somebody asks how they ended."""


@dataclass(frozen=True)
class Cluster:
    """What is known of a running cluster; kept in its folder as JSON."""

    address: str
    token: str
    """The file that holds it."""
    folder: str
    """Ray's own files; sockets lie in it, whose paths must be short."""
    nodes: list[int]
    """The process of each node, the head's first."""

    def environment(self) -> dict[str, str]:
        """What a driver needs to reach it."""
        return {
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
        }


def start(folder: Path, *, workers: int = 2, cpus: int = 1) -> Cluster:
    """A head and its worker nodes; returns when all have joined."""
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    cluster = Cluster(f"{HEAD}:{_free_port()}", str(token.absolute()), tempfile.mkdtemp(prefix="ray-"), [])
    try:
        _start_node(folder, cluster, "--head", f"--port={cluster.address.rpartition(':')[2]}", "--num-cpus=0")
        for _ in range(workers):
            add_node(folder, cluster, cpus=cpus)
    except BaseException:
        _end(cluster)
        raise
    return cluster


def add_node(folder: Path, cluster: Cluster, *options: str, cpus: int, **variables: str) -> int:
    """One more node, with options of `ray start` and variables of its environment; returns its process.

    All its processes share the session of that one.
    """
    own = (f"--address={cluster.address}", f"--num-cpus={cpus}")
    return _start_node(folder, cluster, *own, *options, **variables)


def stop(folder: Path) -> None:
    """Ends what `start` started; without effect where nothing is left."""
    with suppress(FileNotFoundError):
        _end(Cluster(**json.loads((folder / "cluster.json").read_text())))
        (folder / "cluster.json").unlink()


def _start_node(folder: Path, cluster: Cluster, *arguments: str, **variables: str) -> int:
    """Returns when it has joined; Ray gives up after half a minute, which a busy machine may need.

    Raises:
        TimeoutError: it has not, with its last words.
    """
    number, log = len(cluster.nodes), folder / f"node{len(cluster.nodes)}.log"
    for _ in range(ATTEMPTS):
        cluster.nodes[number:] = [_launch(number, log, cluster, *arguments, **variables)]
        (folder / "cluster.json").write_text(json.dumps(asdict(cluster)))
        if _has_joined(cluster.nodes[number], log):
            return cluster.nodes[number]
        _kill(cluster.nodes[number:])
    raise TimeoutError(f"a node has not come up: {log.read_text()[-500:]}")


def _launch(number: int, log: Path, cluster: Cluster, *arguments: str, **variables: str) -> int:
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", "--num-gpus=0"),
        *(f"--node-ip-address=127.0.0.{2 + number}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
        *(["--include-dashboard=false", f"--temp-dir={cluster.folder}"] if number == 0 else []),
        *arguments,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {name: value for name, value in cluster.environment().items() if name != "RAY_ADDRESS"}
    environment |= {"RAY_worker_niceness": "0", **variables}  # as jobs elsewhere, with which these are compared
    with log.open("wb") as output:
        own = {"stdin": subprocess.DEVNULL, "start_new_session": True}
        node = subprocess.Popen(command, env=environment, stdout=output, stderr=output, **own)
    _STARTED[node.pid] = node
    return node.pid


def _has_joined(node: int, log: Path) -> bool:
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end and processes([node]):
        if "Ray runtime started" in log.read_text():
            return True
        time.sleep(0.1)
    return False


def _end(cluster: Cluster) -> None:
    """First politely, workers before the head; then whatever is left."""
    for node in reversed(cluster.nodes):
        with suppress(ProcessLookupError):
            os.kill(node, signal.SIGTERM)
    with suppress(TimeoutError):
        _wait(lambda: not processes(cluster.nodes), ENDS_WITHIN, "")
    _kill(cluster.nodes)
    shutil.rmtree(cluster.folder, ignore_errors=True)


def _kill(nodes: Sequence[int]) -> None:
    for process in processes(nodes):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    _wait(lambda: not processes(nodes), ENDS_WITHIN, f"{processes(nodes)} do not end")
    for node in nodes:
        if node in _STARTED:
            _STARTED.pop(node).wait()


def processes(nodes: Sequence[int], name: str = "") -> list[int]:
    """Those of nodes that live, jobs and what jobs started too; with `name`, those whose command holds it."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) in nodes and state != "Z" and name in (entry / "cmdline").read_text():
                found.append(int(entry.name))
    return sorted(found)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HEAD, 0))
        return int(probe.getsockname()[1])


def _wait(is_true: Callable[[], bool], seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError(otherwise)
        time.sleep(0.1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2, help="nodes besides the head")
    parser.add_argument("--cpus", type=int, default=1, help="of each of them")
    given = parser.parse_args()
    if given.action == "stop":
        stop(given.folder)
        return
    for name, value in start(given.folder, workers=given.workers, cpus=given.cpus).environment().items():
        print(f"export {name}={value}")


if __name__ == "__main__":
    main()
