"""Cores and memory that this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_folders(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[Path]:
    """This process's control groups of version 2, from its own up to the top."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    parts = [p for p in own.split("/") if p not in ("", "..")]
    return [root.joinpath(*parts[:k]) for k in range(len(parts), -1, -1)]


def cpu_quota(folders: list[Path]) -> float | None:
    """How many cores' time the control groups allow, if they limit it."""
    quotas = []
    for folder in folders:
        words = _words(folder / "cpu.max")
        if len(words) == 2 and words[0] != "max":
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def free_memory(folders: list[Path], meminfo: Path = Path("/proc/meminfo")) -> float | None:
    """Bytes that are free for this process."""
    room = []
    words = _words(meminfo)
    if "MemAvailable:" in words:
        room.append(1024.0 * int(words[words.index("MemAvailable:") + 1]))
    for folder in folders:
        limit, used = _words(folder / "memory.max"), _words(folder / "memory.current")
        if limit and used and limit[0] != "max":
            room.append(max(0.0, float(limit[0]) - float(used[0])))
    return min(room, default=None)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
