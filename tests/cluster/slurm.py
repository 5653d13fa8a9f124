"""A real Slurm on one machine, in a folder of its own: several nodes, no accounting, short timers.

    python tests/cluster/slurm.py start DIR [--nodes 2 --cpus 2]   # prints the lines to export
    python tests/cluster/slurm.py stop DIR

Needs Debian's packages `slurmctld`, `slurmd`, `slurm-client` and `munge`, and root. Configuration, state, logs, the key
and the socket of munge lie below DIR. Every node is a `slurmd -N` with a port of its own, for which Slurm has to be
built with `--enable-multiple-slurmd`, as Debian's is. Memory is held to what a job asked for by control groups where
those of version 1 can be written to (its state is then OUT_OF_MEMORY, as on a cluster); elsewhere slurmstepd kills a
job that uses more (FAILED). Cores are counted, and no job is bound to its own. Numbers of jobs begin elsewhere in every
Slurm, because control groups go by them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
_SBIN = "/usr/sbin"  # not everybody's PATH has it
_MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")  # of version 1

_BY_GROUPS = {"task": "task/cgroup", "over_memory": ""}
_BY_COUNTING = {"task": "task/none", "over_memory": "JobAcctGatherParams=OverMemoryKill"}
_GROUPS = """CgroupPlugin=cgroup/v1
CgroupAutomount=no
ConstrainRAMSpace=yes
ConstrainCores=no
ConstrainDevices=no
AllowedSwapSpace=0
"""

_CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
SlurmctldPidFile={dir}/pids/slurmctld
SlurmdPidFile={dir}/pids/%n
SlurmctldLogFile={dir}/logs/slurmctld
SlurmdLogFile={dir}/logs/%n
ProctrackType=proctrack/linuxproc
TaskPlugin={task}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
{over_memory}
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=50000,batch_sched_delay=1,max_array_tasks=10001
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MaxArraySize=10001
FirstJobId={port}00
MaxJobCount=20000
MinJobAge=300
OverTimeLimit=0
KillWait=2
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout={slurmd_timeout}
ReturnToService=2
RebootProgram=/bin/true
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={first}-{last} CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=60 PriorityTier=10 OverSubscribe=NO
PartitionName=short Nodes=ALL MaxTime=1 PriorityTier=10
PartitionName=scavenge Nodes=ALL MaxTime=60 PriorityTier=1
PartitionName=spot Nodes=ALL MaxTime=60 PriorityTier=1 PreemptMode=CANCEL
"""  # noqa: E501


def missing() -> list[str]:
    """Programs that are not here."""
    return [name for name in PROGRAMS if not _path(name)]


def start(folder: Path, nodes: int = 2, cpus: int = 2, memory: int = 4000, slurmd_timeout: int = 10) -> dict[str, str]:
    """Starts munge, the controller and the nodes, and waits until they take jobs.

    Args:
        folder: made, or taken up again where it holds the state of a Slurm that was stopped.
        nodes: how many `slurmd`.
        cpus: of each, whatever the machine has.
        memory: of each in MB, likewise.
        slurmd_timeout: seconds until a node that does not answer is down.

    Returns:
        Environment variables under which Slurm's commands find it.
    """
    folder = folder.resolve()
    for name in ("state", "spool", "pids", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for node in _nodes(nodes):
        (folder / "spool" / node).mkdir(exist_ok=True)
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    if not (folder / "slurm.conf").exists():
        _configure(folder, nodes, cpus, memory, slurmd_timeout)
    _start_munge(folder)
    start_controller(folder)
    for node in _nodes(nodes):
        start_node(folder, node)
    _wait_until_up(environment, nodes)
    return environment


def _configure(folder: Path, nodes: int, cpus: int, memory: int, slurmd_timeout: int) -> None:
    first = _free_ports(nodes + 1)
    text = _CONFIGURATION.format(
        dir=folder, host=socket.gethostname().partition(".")[0], port=first + nodes, nodes=nodes, first=first,
        last=first + nodes - 1, cpus=cpus, memory=memory, slurmd_timeout=slurmd_timeout,
        **(_BY_GROUPS if os.access(_MEMORY_GROUPS / "tasks", os.W_OK) else _BY_COUNTING),
    )  # fmt: skip
    if nodes == 1:
        text = text.replace("n[1-1]", "n1").replace(f"{first}-{first}", str(first))
    (folder / "slurm.conf").write_text(text)
    (folder / "cgroup.conf").write_text(_GROUPS)
    (folder / "plugstack.conf").write_text("")


def _free_ports(number: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    for first in range(17000 + os.getpid() % 1000 * 10, 60000, number):
        if all(_is_free(port) for port in range(first, first + number)):
            return first
    raise SystemExit("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _start_munge(folder: Path) -> None:
    key = folder / "munge.key"
    if not key.exists():
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
    files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "pids/munged", "log-file": "logs/munged"}
    flags = [f"--{flag}={folder / name}" for flag, name in files.items()]
    # `--force`: the folder may lie in a temporary folder that anybody can write to
    subprocess.run([_path("munged"), "--force", f"--seed-file={folder / 'munge.seed'}", *flags], check=True)


def start_controller(folder: Path) -> None:
    """Starts `slurmctld`, with the state that it left."""
    subprocess.run([_path("slurmctld"), "-f", str(folder / "slurm.conf")], check=True, env=_environment(folder))


def start_node(folder: Path, node: str) -> None:
    """Starts the `slurmd` of a node."""
    command = [_path("slurmd"), "-f", str(folder / "slurm.conf"), "-N", node]
    subprocess.run(command, check=True, env=_environment(folder))


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}


def _nodes(number: int) -> list[str]:
    return [f"n{index + 1}" for index in range(number)]


def _wait_until_up(environment: dict[str, str], nodes: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    states = ""
    while time.monotonic() < deadline:
        command = ["sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %t"]
        states = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        ).stdout
        known = [line.split()[1] for line in states.splitlines()]
        if len(known) == nodes and set(known) <= {"idle", "mix", "alloc", "comp"}:  # jobs of before may go on
            return
        time.sleep(0.2)
    raise SystemExit(f"the nodes are not up after {seconds} seconds: {states!r}; see {environment['SLURM_CONF']}")


def kill(folder: Path, name: str, how: signal.Signals = signal.SIGKILL) -> None:
    """Ends one daemon (`munged`, `slurmctld`, or a node) by its process id, and waits until it is gone."""
    path = folder / "pids" / name
    try:
        process = int(path.read_text())
        os.kill(process, how)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return
    deadline = time.monotonic() + 10
    while _is_alive(process):
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def stop(folder: Path) -> None:
    """Ends all jobs and daemons; the folder stays."""
    folder = folder.resolve()
    if not (folder / "slurm.conf").exists():
        raise SystemExit(f"{folder} holds no Slurm of ours")
    _cancel_all(_environment(folder))
    names = sorted(path.name for path in (folder / "pids").iterdir())
    for name in [name for name in names if name != "munged"]:
        kill(folder, name, signal.SIGTERM)
    for process in _of_jobs(folder):  # they outlive their slurmd
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    kill(folder, "munged", signal.SIGTERM)
    for name in names:
        for group, *_ in os.walk(_MEMORY_GROUPS / f"slurm_{name}", topdown=False):
            with contextlib.suppress(OSError):  # somebody else's Slurm may have a node of that name
                os.rmdir(group)


def _cancel_all(environment: dict[str, str], seconds: float = 10) -> None:
    """As far as a controller is there to do so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        subprocess.run(["scancel", "--me"], env=environment, check=False, capture_output=True, timeout=60)
        asked = subprocess.run(
            ["squeue", "--noheader"], env=environment, check=False, capture_output=True, text=True, timeout=60
        )
        if asked.returncode or not asked.stdout.strip():
            return
        time.sleep(0.3)


def _of_jobs(folder: Path) -> list[int]:
    """Processes of this Slurm's jobs, and of `slurmstepd`, which watches them."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            variables = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
            is_ours = f"SLURM_CONF={folder}/slurm.conf".encode() in variables
            is_step = is_ours and (entry / "comm").read_text().startswith("slurmstepd")
            if is_step or (is_ours and any(each.startswith(b"SLURM_JOB_ID=") for each in variables)):
                found.append(int(entry.name))
        except OSError:
            continue
    return [process for process in found if process != os.getpid()]


def _path(name: str) -> str:
    return shutil.which(name) or shutil.which(name, path=_SBIN) or ""


def main() -> int:
    parser = argparse.ArgumentParser(description="A real Slurm on this machine, in a folder of its own.")
    parser.add_argument("what", choices=("start", "stop"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--memory", type=int, default=4000, help="MB of each node")
    told = parser.parse_args()
    if missing():
        print(f"not installed: {', '.join(missing())}; apt-get install slurmctld slurmd slurm-client munge")
        return 2
    if told.what == "stop":
        stop(told.folder)
        return 0
    for name, value in start(told.folder, told.nodes, told.cpus, told.memory).items():
        print(f"export {name}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
