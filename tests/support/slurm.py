"""A Slurm of one node, with a configuration and ports of its own, for the time of a test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.selection import skip_or_fail

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

# No control groups, no accounting, no systemd: what a container has is enough.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
SlurmctldPort={control_port}
SlurmdPort={node_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def running_slurm(folder: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Gives the environment in which sbatch and squeue find it. `folder`: short, and only for this."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if missing or os.geteuid() != 0:
        skip_or_fail(
            "slurm", f"needs root and slurmctld, slurmd, slurm-client and munge; missing: {missing}"
        )
    cpus = min(cpus, os.cpu_count() or 1)
    configuration = _configure(folder, cpus)
    environment = os.environ | {"SLURM_CONF": str(configuration), "PATH": PATH}
    daemons = [
        ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key",
         f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid",
         f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munge.log"],
        ["slurmctld", "-D", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration)],
    ]  # fmt: skip
    with ExitStack() as stack:
        for command in daemons:
            stack.enter_context(_daemon(command, folder, environment))
            if command[0] == "munged":
                _wait((folder / "munge.socket").exists, folder)
        _wait(lambda: "idle" in _state(environment), folder)
        yield environment
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)


def _configure(folder: Path, cpus: int) -> Path:
    for name in ("spool", "state"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    with socket.socket() as first, socket.socket() as second:  # two ports that are free
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        ports = first.getsockname()[1], second.getsockname()[1]
    path = folder / "slurm.conf"
    path.write_text(
        CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname().partition(".")[0],
            control_port=ports[0],
            node_port=ports[1],
            cpus=cpus,
        )
    )
    return path


@contextmanager
def _daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with open(folder / f"{command[0]}.out", "w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _state(environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout


def _wait(ready, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        logs = "\n".join(f"{p.name}: {p.read_text()[-1500:]}" for p in folder.glob("*.out"))
        assert time.monotonic() < deadline, logs
        time.sleep(0.1)
