"""What ``dpa2md doctor`` looks at, apart from LAMMPS (doctor_lammps.py) and CUDA (doctor_cuda.py).

Nothing here may crash or hang: what could do so (the compiled core, drivers, ``lmp``) is asked in
processes of their own, and each probe is guarded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
CORE_SECONDS = 120  # the self-check takes one; a machine may be busy
LOW_MEMORY = 1e9  # bytes: less than some thousand atoms need


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    verdict: str  # "ok", "note" or "problem"
    text: str
    remedy: str = ""  # what to do about a note or a problem


Probe = Callable[[], Iterator[Finding]]


def examine(probes: dict[str, Probe] | None = None) -> Iterator[Finding]:
    """All findings, one by one; a probe that fails gives a problem and the others go on."""
    for topic, probe in (default_probes() if probes is None else probes).items():
        try:
            yield from probe()
        except Exception as error:  # noqa: BLE001
            text = f"this check failed itself ({type(error).__name__}: {error})"
            yield Finding(topic, "problem", text, "report this, please")


def default_probes() -> dict[str, Probe]:
    """What is looked at, in the order of the report."""
    from .doctor_lammps import probe_lammps

    return {
        "package": probe_package,
        "core": probe_core,
        "threads": probe_threads,
        "memory": probe_memory,
        "LAMMPS": probe_lammps,
        "optional": probe_optional,
    }


@dataclass(frozen=True)
class Output:
    """What a process left; `status` is None when it was stopped for taking too long."""

    status: int | None
    out: str
    err: str


def ask(
    command: list[str],
    seconds: float,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Output:
    """Run a program that may hang; after `seconds` it is killed with all that it started."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a group of its own
        text=True,
        errors="replace",
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
            return Output(process.returncode, out, err)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return Output(None, out, err)


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def cause(text: str) -> str:
    """What a Python program died of, from its traceback."""
    lines = re.findall(r"^[\w.]*(?:Error|Exception|Interrupt)\b.*", text, flags=re.MULTILINE)
    return lines[-1] if lines else last_line(text) or "it says nothing"


def distribution_version(name: str) -> str | None:
    """The version of an installed package, which is not imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# ---- package, core


def probe_package() -> Iterator[Finding]:
    """Where this package is, and whether another one is installed."""
    version = distribution_version("dpa2md")
    python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if version is None:
        text = f"not installed with pip, used from {PACKAGE} ({python})"
        yield Finding("package", "note", text, "pip install . makes the command and LAMMPS find it")
    else:
        yield Finding("package", "ok", f"dpa2md {version} in {PACKAGE} ({python})")


def probe_core() -> Iterator[Finding]:
    """The compiled core: does it load, what does it use, are its numbers right, can it use a GPU."""
    from .doctor_cuda import cuda_findings

    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    }
    done = ask([sys.executable, "-m", "dpa2md.doctor_core"], CORE_SECONDS, environment=environment)
    again = "pip install --force-reinstall --no-deps . builds it again on this machine"
    if done.status is None:
        yield Finding("core", "problem", f"the core did not answer in {CORE_SECONDS:g} s", again)
        return
    if done.status != 0:
        how = f"signal {-done.status}" if done.status < 0 else cause(done.err)
        yield Finding("core", "problem", f"the compiled core does not work: {how}", again)
        return
    report = json.loads(last_line(done.out))
    yield from _core_findings(report)
    yield from cuda_findings(report)


def _core_findings(report: dict[str, Any]) -> Iterator[Finding]:
    text = f"{report['file']}, version {report['version']}, compiled by {report['compiler']}"
    yield Finding("core", "ok", text)
    wanted = os.environ.get("DPA2MD_ISA", "")
    able = "this processor can do " + ", ".join(report["sets"])
    if report["refusal"]:
        text = f"{report['refusal'].rstrip('.')} ({able})"
        yield Finding("instructions", "problem", text, "unset DPA2MD_ISA" if wanted else "")
        return
    text = f"{able}; used: {report['description']}"
    if wanted:
        text += f", because DPA2MD_ISA={wanted}"
    lower = bool(wanted) and wanted != report["sets"][0]
    remedy = "unset DPA2MD_ISA to compute faster" if lower else ""
    yield Finding("instructions", "note" if lower else "ok", text, remedy)
    cores = usable_cores()
    if report["threads"] == 1 and cores > 1 and not os.environ.get("OMP_NUM_THREADS"):
        text = f"the core uses one thread of {cores}: it was compiled without OpenMP"
        yield Finding("threads", "note", text, "install a compiler with OpenMP, then dpa2md again")
    for check in report["checks"] + report.get("gpu_checks", []):
        good = check["found"] <= check["bound"]  # false for nan, too
        text = f"{check['name']}: {check['found']:.1e}{check['unit']}, at most {check['bound']:g}"
        remedy = "" if good else "the numbers are wrong; do not use this build, and report it"
        yield Finding("self-check", "ok" if good else "problem", text, remedy)


# ---- threads and memory


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


# ---- optional packages


def probe_optional() -> Iterator[Finding]:
    """Packages that some commands want; none is imported."""
    uses = {
        "h5py": ("h5py", ".dp files"),
        "PyYAML": ("yaml", ".yaml files"),
        "matplotlib": ("matplotlib", "plots"),
    }
    for package, (module, purpose) in uses.items():
        version = distribution_version(package)
        if version and importlib.util.find_spec(module):
            yield Finding("optional", "ok", f"{package} {version}, for {purpose}")
        else:
            text = f"{package} is not installed, which {purpose} need"
            yield Finding("optional", "note", text, f"pip install {package}")
    for package in ("torch", "deepmd-kit"):
        version = distribution_version(package)
        if version:
            yield Finding(
                "optional", "ok", f"{package} {version} is installed; dpa2md needs it not"
            )
