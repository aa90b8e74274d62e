"""What ``dpa2md doctor`` says about this package, its compiled core, and packages that some commands want."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ..base.resources import usable_cores
from .cuda import cuda_findings
from .finding import Finding
from .programs import ask, cause, last_line

PACKAGE = Path(__file__).resolve().parent.parent
CORE_SECONDS = 120  # the self-check takes one; a machine may be busy


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
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    }
    done = ask([sys.executable, "-m", "dpa2md.doctor.core"], CORE_SECONDS, environment=environment)
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


def distribution_version(name: str) -> str | None:
    """The version of an installed package, which is not imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
