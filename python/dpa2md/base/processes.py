"""Processes that are told apart from later ones with the same number, and groups of them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessMark:
    """A process of a host: its number, and when it was born, since numbers are used again."""

    pid: int
    host: str
    born: str  #: boot of the host and start of the process

    @classmethod
    def of(cls, pid: int) -> ProcessMark:
        """The mark of a process of this host."""
        return cls(pid, socket.gethostname(), _born(pid))

    @property
    def here(self) -> bool:
        """Whether it is, or was, a process of this host."""
        return self.host == socket.gethostname()

    def alive(self) -> bool:
        """Whether it still runs; False for a process of another host, which can't be seen from here."""
        return self.here and bool(self.born) and _born(self.pid) == self.born

    def left_a_group(self) -> bool:
        """Whether it has ended, and processes live on in the group that it led."""
        # A group's number is not given to a new process; but after a boot all numbers are new.
        same_boot = self.here and self.born.startswith(_boot() or "-")
        return same_boot and not _exists(self.pid) and group_lives(self.pid)


def signal_group(leader: int, number: int) -> None:
    """Send a signal to a process group, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def group_lives(leader: int) -> bool:
    """Whether a process group has a process that has not ended."""
    try:
        os.killpg(leader, 0)
    except (ProcessLookupError, PermissionError):
        return False
    if not Path("/proc/self/stat").exists():
        return True
    # Ended processes that wait for their parent count as members, too.
    stats = map(_stat, filter(str.isdigit, os.listdir("/proc")))
    return any(fields[2] == str(leader) and fields[0] not in "ZX" for fields in stats if fields)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _boot() -> str:
    """Empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _born(pid: int) -> str:
    """Empty for a process that does not exist, or has ended and waits for its parent."""
    if not Path("/proc/self/stat").exists():
        return _born_by_ps(pid)
    fields = _stat(pid)
    return "" if not fields or fields[0] in "ZX" else f"{_boot()} {fields[19]}"


def _stat(pid: int | str) -> list[str]:
    """State, parent, group and so on; nothing for a process that does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _born_by_ps(pid: int) -> str:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    state, _, start = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else start.strip()
