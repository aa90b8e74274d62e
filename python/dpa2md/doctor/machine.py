"""What ``dpa2md doctor`` says about this machine: threads and memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..base.resources import cgroup_folders, cpu_quota, free_memory, usable_cores
from .finding import Finding

LOW_MEMORY = 1e9  # bytes: less than some thousand atoms need


def probe_threads() -> Iterator[Finding]:
    """Cores and OMP_NUM_THREADS."""
    usable, quota = usable_cores(), cpu_quota(cgroup_folders())
    text = f"{usable} of {os.cpu_count()} cores may be used"
    if quota is not None:
        text += f", for the time of {quota:g}"
        usable = max(1, min(usable, int(quota)))
    wanted = os.environ.get("OMP_NUM_THREADS", "").strip()
    text += f"; OMP_NUM_THREADS is {wanted or 'not set'}"
    first = wanted.split(",")[0]
    set_it = f"export OMP_NUM_THREADS={usable}"
    if wanted and not re.fullmatch(r"[1-9]\d*", first):
        yield Finding("threads", "problem", f"{text}, which is not a number of threads", set_it)
    elif wanted and int(first) > usable:
        yield Finding("threads", "note", f"{text}: more threads than cores are slow", set_it)
    elif not wanted and usable < usable_cores():
        yield Finding("threads", "note", f"{text}: one thread a core would be too many", set_it)
    else:
        yield Finding("threads", "ok", text)


def probe_memory() -> Iterator[Finding]:
    """Memory that is free now."""
    room = free_memory(cgroup_folders())
    if room is None:
        yield Finding("memory", "note", "this system does not tell how much memory is free")
    elif room < LOW_MEMORY:
        text = f"only {room / 1e9:.1f} GB are free"
        yield Finding("memory", "note", text, "enough for small systems only; stop other programs")
    else:
        yield Finding("memory", "ok", f"{room / 1e9:.1f} GB are free")
